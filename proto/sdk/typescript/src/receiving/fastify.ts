import type { FastifyPluginCallback } from 'fastify'
import type { AnyEvents, EventMap } from '../event-map.js'
import { callHandler, checkOptions, DEFAULT_LIMIT, refusalOf, verified, type EventHandler, type HandlerOptions } from './handler.js'

/**
 * A plugin for Fastify, with the path as prefix:
 * `app.register(webhook({ secret }, async (event) => { … }), { prefix: '/hooks' })`.
 *
 * Inside the plugin, bodies are not parsed. Other routes keep their parsers.
 */
export function webhook<Events extends EventMap<Events> = AnyEvents>(
  options: HandlerOptions,
  handle: EventHandler<Events>,
): FastifyPluginCallback {
  checkOptions(options)
  const bodyLimit = options.limit ?? DEFAULT_LIMIT
  return (app, _options, done) => {
    app.removeAllContentTypeParsers()
    app.addContentTypeParser('*', { parseAs: 'buffer', bodyLimit }, (_request, body, parsed) => parsed(null, body))
    app.post('/', { bodyLimit }, async (request, reply) => {
      let event
      try {
        event = await verified<Events>((request.body ?? '') as Buffer | string, request.headers, options)
      } catch (error) {
        const refusal = refusalOf(error)
        if (refusal === undefined) throw error
        return reply.code(refusal.status).send(refusal.body)
      }
      await callHandler(handle, event)
      return reply.code(204).send()
    })
    done()
  }
}
