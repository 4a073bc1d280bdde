import type { Client } from 'openapi-fetch'
import type { AnyEvents, EventMap } from '../event-map.js'
import type { paths } from '../openapi.js'
import { Calls, type FanfareOptions } from './calls.js'
import { Attempts, Deliveries } from './deliveries.js'
import { EventTypes } from './event-types.js'
import { AcceptedEvents } from './events.js'
import { publishEvent, publishEvents, type NewEvent, type PublishedOrNot, type PublishOptions } from './publishing.js'
import { Replays } from './replays.js'
import type { Published } from './schemas.js'
import { Webhooks } from './webhooks.js'

/**
 * A client of Fanfare's API. Each failed call throws a `FanfareError`.
 *
 * A request that may be sent twice is repeated after an error of the network, a deadline or a status 408, 502, 503 or
 * 504: reading requests, and publishing, under the same id. All requests are repeated after a 429, except after
 * `too_many_replays`, and after `overloaded`. `Events` maps the application's event types to types of `data`.
 */
export class Fanfare<Events extends EventMap<Events> = AnyEvents> {
  readonly webhooks: Webhooks
  readonly events: AcceptedEvents
  readonly deliveries: Deliveries
  readonly attempts: Attempts
  readonly replays: Replays
  readonly eventTypes: EventTypes
  /**
   * The client of openapi-fetch, for all other routes. Repeats GET requests. Does not add `application`.
   */
  readonly http: Client<paths>
  private readonly calls: Calls

  constructor(options: FanfareOptions) {
    this.calls = new Calls(options)
    this.http = this.calls.http
    this.webhooks = new Webhooks(this.calls)
    this.events = new AcceptedEvents(this.calls)
    this.deliveries = new Deliveries(this.calls)
    this.attempts = new Attempts(this.calls)
    this.replays = new Replays(this.calls)
    this.eventTypes = new EventTypes(this.calls)
  }

  /** Publishes an event. After the answer, the event is not lost. */
  publish(event: NewEvent<Events>, options: PublishOptions = {}): Promise<Published> {
    return publishEvent<Events>(this.calls, event, options)
  }

  /** Publishes 1 to 1000 events. Look at `success` of each result: perhaps not all events are accepted. */
  publishBatch(events: readonly NewEvent<Events>[], options: PublishOptions = {}): Promise<PublishedOrNot[]> {
    return publishEvents<Events>(this.calls, events, options)
  }
}
