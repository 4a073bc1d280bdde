import { dataOf, ONCE, pageOf, REPEATABLE, type CallOptions, type Calls, type QueryOf } from './calls.js'
import { Pages } from './pages.js'
import type { DescribedType, NewEventType, Removed } from './schemas.js'

/** Event types: of the dialect, and the application's own. */
export class EventTypes {
  private readonly calls: Calls

  constructor(calls: Calls) {
    this.calls = calls
  }

  list(query: QueryOf<'list_event_types'> = {}, options: CallOptions = {}): Pages<DescribedType> {
    return new Pages((before = query.before) => {
      const params = { query: this.calls.query(options, { ...query, before }) }
      return pageOf(this.calls.http.GET('/api/v1/event-types', { params, ...this.calls.send(options, REPEATABLE) }))
    })
  }

  async get(name: string, options: CallOptions = {}): Promise<DescribedType> {
    const params = this.calls.at('name', name, options)
    return dataOf(
      this.calls.http.GET('/api/v1/event-types/{name}', { params, ...this.calls.send(options, REPEATABLE) }),
    )
  }

  /** Describes an event type of the application. */
  async describe(type: NewEventType, options: CallOptions = {}): Promise<DescribedType> {
    const params = { query: this.calls.query(options) }
    return dataOf(
      this.calls.http.POST('/api/v1/event-types', { params, body: type, ...this.calls.send(options, ONCE) }),
    )
  }

  /** Removes the description of an event type. */
  async remove(name: string, options: CallOptions = {}): Promise<Removed> {
    const params = this.calls.at('name', name, options)
    return dataOf(this.calls.http.DELETE('/api/v1/event-types/{name}', { params, ...this.calls.send(options, ONCE) }))
  }
}
