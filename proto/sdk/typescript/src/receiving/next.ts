import type { AnyEvents, EventMap } from '../event-map.js'
import { checkOptions, readBody, refusalOf, verified, type EventHandler, type HandlerOptions } from './handler.js'

/**
 * A route handler for the App Router of Next.js, and for other frameworks with `Request` and `Response`:
 * `export const POST = webhook({ secret }, async (event) => { … })`.
 *
 * The options are checked at the first request, because `next build` loads routes without the secret.
 */
export function webhook<Events extends EventMap<Events> = AnyEvents>(
  options: HandlerOptions,
  handle: EventHandler<Events>,
): (request: Request) => Promise<Response> {
  return async (request) => {
    checkOptions(options)
    let event
    try {
      const chunks = request.body as AsyncIterable<Uint8Array> | null
      const body = await readBody(chunks, request.headers.get('content-length'), options.limit)
      event = await verified<Events>(body, request.headers, options)
    } catch (error) {
      const refusal = refusalOf(error)
      if (refusal === undefined) throw error
      const headers = { 'content-type': 'application/json' }
      return new Response(JSON.stringify(refusal.body), { status: refusal.status, headers })
    }
    await handle(event)
    return new Response(null, { status: 204 })
  }
}
