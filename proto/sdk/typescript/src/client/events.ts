import { dataOf, pageOf, REPEATABLE, type CallOptions, type Calls, type QueryOf } from './calls.js'
import { Pages } from './pages.js'
import type { CancelledEvent, EventDetail, Explanation, StoredEvent } from './schemas.js'

/** Accepted events. */
export class AcceptedEvents {
  private readonly calls: Calls

  constructor(calls: Calls) {
    this.calls = calls
  }

  list(query: QueryOf<'list_events'> = {}, options: CallOptions = {}): Pages<StoredEvent> {
    return new Pages((before = query.before) => {
      const params = { query: this.calls.query(options, { ...query, before }) }
      return pageOf(this.calls.http.GET('/api/v1/events', { params, ...this.calls.send(options, REPEATABLE) }))
    })
  }

  /** Gets an event by Fanfare's id, `evt_…`. */
  async get(id: string, options: CallOptions = {}): Promise<EventDetail> {
    const params = this.calls.at('id', id, options)
    return dataOf(this.calls.http.GET('/api/v1/events/{id}', { params, ...this.calls.send(options, REPEATABLE) }))
  }

  /** Explains why an event did or did not arrive. */
  async why(id: string, query: QueryOf<'explain_event'> = {}, options: CallOptions = {}): Promise<Explanation> {
    const { path } = this.calls.at('id', id, options)
    const params = { path, query: this.calls.query(options, query) }
    return dataOf(this.calls.http.GET('/api/v1/events/{id}/why', { params, ...this.calls.send(options, REPEATABLE) }))
  }

  /** Explains the event with the publisher's own id, which may be an event that was never accepted. */
  async whyByKey(key: string, query: Omit<QueryOf<'explain_event_by_key'>, 'key'> = {}, options: CallOptions = {}) {
    const params = { query: this.calls.query(options, { ...query, key }) }
    return dataOf<Explanation>(
      this.calls.http.GET('/api/v1/events/why', { params, ...this.calls.send(options, REPEATABLE) }),
    )
  }

  /** Cancels a delayed event that is not yet due. A repeat changes nothing. */
  async cancel(id: string, options: CallOptions = {}): Promise<CancelledEvent> {
    const params = this.calls.at('id', id, options)
    return dataOf(
      this.calls.http.POST('/api/v1/events/{id}/cancel', { params, ...this.calls.send(options, REPEATABLE) }),
    )
  }

  /** Cancels the delayed event with the publisher's own id. */
  async cancelByKey(key: string, options: CallOptions = {}): Promise<CancelledEvent> {
    const params = { query: this.calls.query(options, { key }) }
    return dataOf(this.calls.http.POST('/api/v1/events/cancel', { params, ...this.calls.send(options, REPEATABLE) }))
  }
}
