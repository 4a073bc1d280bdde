import { randomUUID } from 'node:crypto'
import type { EventMap } from '../event-map.js'
import { dataOf, type CallOptions, type Calls } from './calls.js'
import { FanfareError } from './errors.js'
import type { Published, Schemas } from './schemas.js'

/** An event to publish, of a type in `Events`. */
export type NewEvent<Events extends EventMap<Events>> = {
  [Type in keyof Events & string]: {
    type: Type
    data: Events[Type]
    /** The publisher's own id of the event. Events with the same id are the same event. Default: a random UUID. */
    id?: string | undefined
    /** The time of the event, RFC 3339 with an offset. */
    time?: string | undefined
    /** The time of delivery, RFC 3339 with an offset. Until then, `events.cancel` cancels the event. */
    deliver_at?: string | undefined
    /** Events with the same ordering key get consecutive numbers at each webhook, in `webhook-sequence`. */
    ordering_key?: string | undefined
  }
}[keyof Events & string]

export interface PublishOptions extends CallOptions {
  /** The W3C trace context of the event. */
  traceparent?: string | undefined
  tracestate?: string | undefined
}

/** The result of an event in a batch. `error.id` is the `id` for publishing the event again. */
export type PublishedOrNot = { success: true; data: Published } | { success: false; error: Schemas['Error'] }

/** Codes after which an event of a batch is sent again. */
const TRANSIENT = new Set(['application_unavailable', 'broker_unavailable', 'broker_refused', 'outcome_unknown'])

/** Publishes an event under an id that all tries share: a repeat is never a second event. */
export async function publishEvent<Events extends EventMap<Events>>(
  calls: Calls,
  event: NewEvent<Events>,
  options: PublishOptions,
): Promise<Published> {
  const body = withId(event)
  const params = { query: calls.query(options), header: traceOf(options) }
  const sent = calls.send(options, { repeatable: true, id: body.id })
  return dataOf(calls.http.POST('/api/v1/events', { params, body, ...sent }))
}

/**
 * Publishes events, and sends each event again that was not accepted for a transient reason. If such a repeat fails,
 * the results so far are returned: the results tell which events are accepted.
 */
export async function publishEvents<Events extends EventMap<Events>>(
  calls: Calls,
  events: readonly NewEvent<Events>[],
  options: PublishOptions,
): Promise<PublishedOrNot[]> {
  const bodies = events.map(withId)
  const params = { query: calls.query(options), header: traceOf(options) }
  const retries = calls.retries(options)
  const ids = bodies.map(({ id }) => id)
  const send = async (body: typeof bodies) => {
    const sent = calls.send(options, { repeatable: true, ids }, retries)
    return (await dataOf(calls.http.POST('/api/v1/events/batch', { params, body, ...sent }))) as PublishedOrNot[]
  }
  const results = await send(bodies)
  for (;;) {
    const open = results.flatMap((result, index) => (isTransient(result) ? [{ index, body: bodies[index]! }] : []))
    if (open.length === 0) return results
    try {
      if (!(await retries.wait(undefined))) return withIds(results, bodies)
      const again = await send(open.map(({ body }) => body))
      open.forEach(({ index }, position) => (results[index] = again[position]!))
    } catch (error) {
      if (error instanceof FanfareError || options.signal?.aborted) return withIds(results, bodies)
      throw error
    }
  }
}

function isTransient(result: PublishedOrNot): boolean {
  return !result.success && TRANSIENT.has(result.error.code)
}

/** Sets `error.id` of each event that may be published again. */
function withIds(results: PublishedOrNot[], bodies: { id: string }[]): PublishedOrNot[] {
  return results.map((result, index) =>
    isTransient(result) && !result.success
      ? { ...result, error: { ...result.error, id: bodies[index]!.id } }
      : result,
  )
}

function withId<Event extends { id?: string | undefined; type: string; data: unknown }>(event: Event) {
  return { ...event, id: event.id ?? randomUUID() }
}

/** The headers of the trace context. */
function traceOf({ traceparent, tracestate }: PublishOptions) {
  return {
    ...(traceparent === undefined ? {} : { traceparent }),
    ...(tracestate === undefined ? {} : { tracestate }),
  }
}
