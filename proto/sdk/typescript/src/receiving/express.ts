import type { Request, RequestHandler } from 'express'
import type { AnyEvents, EventMap } from '../event-map.js'
import { callHandler, checkOptions, readBody, refusalOf, verified, type EventHandler, type HandlerOptions } from './handler.js'

/**
 * A handler for Express: `app.post('/hooks', webhook({ secret }, async (event) => { … }))`.
 *
 * Register the route before `express.json()`: the signature is over the exact bytes. A body from `express.raw()` is
 * accepted, too.
 */
export function webhook<Events extends EventMap<Events> = AnyEvents>(
  options: HandlerOptions,
  handle: EventHandler<Events>,
): RequestHandler {
  checkOptions(options)
  return async (request, response, next) => {
    try {
      let event
      try {
        event = await verified<Events>(await bodyOf(request, options.limit), request.headers, options)
      } catch (error) {
        const refusal = refusalOf(error)
        if (refusal === undefined) throw error
        if (refusal.status === 413) response.set('Connection', 'close')
        response.status(refusal.status).json(refusal.body)
        return
      }
      await callHandler(handle, event)
      response.status(204).end()
    } catch (error) {
      next(error)
    }
  }
}

async function bodyOf(request: Request, limit: number | undefined): Promise<string | Uint8Array> {
  const parsed: unknown = request.body
  if (typeof parsed === 'string' || parsed instanceof Uint8Array) return parsed
  if (request.readableEnded) {
    throw new TypeError('a body parser has read the request: register the webhook before express.json()')
  }
  return readBody(request, request.headers['content-length'], limit)
}
