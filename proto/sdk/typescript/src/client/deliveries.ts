import { dataOf, ONCE, pageOf, REPEATABLE, type CallOptions, type Calls, type QueryOf } from './calls.js'
import { Pages } from './pages.js'
import type { Attempt, Delivery, DeliveryDetail, ManyResent, Resend, Resent } from './schemas.js'

/** Deliveries: an event to a webhook. */
export class Deliveries {
  private readonly calls: Calls

  constructor(calls: Calls) {
    this.calls = calls
  }

  list(query: QueryOf<'list_deliveries'> = {}, options: CallOptions = {}): Pages<Delivery> {
    return new Pages((before = query.before) => {
      const params = { query: this.calls.query(options, { ...query, before }) }
      return pageOf(this.calls.http.GET('/api/v1/deliveries', { params, ...this.calls.send(options, REPEATABLE) }))
    })
  }

  /** Gets a delivery with body and attempts. */
  async get(id: string, options: CallOptions = {}): Promise<DeliveryDetail> {
    const params = this.calls.at('id', id, options)
    const sent = this.calls.send(options, REPEATABLE)
    // The types of openapi-fetch lose the length of the pairs in a list.
    return dataOf(this.calls.http.GET('/api/v1/deliveries/{id}', { params, ...sent })) as Promise<DeliveryDetail>
  }

  /** Requests another attempt of the same delivery, now. */
  async resend(id: string, options: CallOptions = {}): Promise<Resent> {
    const params = this.calls.at('id', id, options)
    return dataOf(
      this.calls.http.POST('/api/v1/deliveries/{id}/resend', { params, ...this.calls.send(options, ONCE) }),
    )
  }

  /** Requests another attempt of many deliveries. With `count_only`, nothing is sent. */
  async resendMany(selection: Resend, options: CallOptions = {}): Promise<ManyResent> {
    const params = { query: this.calls.query(options) }
    const manner = selection.count_only === true ? REPEATABLE : ONCE
    return dataOf(
      this.calls.http.POST('/api/v1/deliveries/resend', {
        params,
        body: selection,
        ...this.calls.send(options, manner),
      }),
    )
  }
}

/** Attempts of all deliveries, with request and response. */
export class Attempts {
  private readonly calls: Calls

  constructor(calls: Calls) {
    this.calls = calls
  }

  list(query: QueryOf<'list_attempts'> = {}, options: CallOptions = {}): Pages<Attempt> {
    return new Pages((before = query.before) => {
      const params = { query: this.calls.query(options, { ...query, before }) }
      return pageOf(this.calls.http.GET('/api/v1/attempts', { params, ...this.calls.send(options, REPEATABLE) }))
    })
  }
}
