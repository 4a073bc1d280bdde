import { createServer } from 'node:http'
import { FanfareError, type DialectName, type ReceivedEvent } from '@fanfare/sdk'
import { webhook as expressWebhook } from '@fanfare/sdk/express'
import { webhook as fastifyWebhook } from '@fanfare/sdk/fastify'
import { webhook as nextWebhook } from '@fanfare/sdk/next'
import express from 'express'
import fastify from 'fastify'
import { buffer } from 'node:stream/consumers'
import { describe, expect, onTestFinished, test } from 'vitest'
import { APPLICATION, connect, listen, ownType, until } from './support.js'

const fanfare = connect()
const { data: application } = await fanfare.http.GET('/api/v1/applications/{id}', {
  params: { path: { id: APPLICATION } },
})
const dialect = application?.data.dialect as DialectName
const secret = `whsec_${Buffer.alloc(32, 9).toString('base64')}`
const options = { secret, dialect, limit: 2048 }

type Handle = (event: ReceivedEvent) => Promise<void>

/** For each framework, starts a server with the handler at `/hooks`. */
const FRAMEWORKS: Record<string, (handle: Handle) => Promise<string>> = {
  async express(handle) {
    const app = express()
    app.post('/hooks', expressWebhook(options, handle))
    app.use(express.json())
    app.post('/other', (request, response) => void response.json(request.body))
    // Express prints errors of handlers unless the environment is `test`.
    app.set('env', 'test')
    return listen(createServer(app))
  },
  async 'express with express.raw'(handle) {
    const app = express()
    app.use(express.raw({ type: 'application/json' }))
    app.post('/hooks', expressWebhook(options, handle))
    app.post('/other', (request, response) => void response.type('json').send(request.body))
    app.set('env', 'test')
    return listen(createServer(app))
  },
  async fastify(handle) {
    const app = fastify()
    app.register(fastifyWebhook(options, handle), { prefix: '/hooks' })
    app.post('/other', async (request) => request.body)
    onTestFinished(() => app.close())
    return app.listen({ port: 0, host: '127.0.0.1' })
  },
  async next(handle) {
    const post = nextWebhook(options, handle)
    return listen(async (request, response) => {
      const body = await buffer(request)
      if (request.url === '/other') return void response.end(body)
      const headers = new Headers(request.headers as Record<string, string>)
      const call = new Request(`http://127.0.0.1${request.url}`, { method: 'POST', headers, body })
      // Next answers 500 if a route handler throws.
      const answer = await post(call).catch(() => new Response(null, { status: 500 }))
      response.writeHead(answer.status, Object.fromEntries(answer.headers)).end(await answer.text())
    })
  },
}

describe.each(Object.entries(FRAMEWORKS))('%s', (name, start) => {
  test('handles a real delivery, and repeats after an error of the handler', async () => {
    const type = ownType()
    const events: ReceivedEvent[] = []
    const url = await start(async (event) => {
      events.push(event)
      if (events.length === 1) throw new Error('on purpose')
    })
    const { id: webhook } = await fanfare.webhooks.create({
      url: `${url}/hooks`,
      events: [type],
      secret,
      schedule: ['1s'],
    })
    onTestFinished(async () => {
      await fanfare.webhooks.delete(webhook)
    })
    const { id } = await fanfare.publish({ type, data: { from: name } })
    await until('both attempts are handled', () => events.length === 2)
    for (const event of events) expect(event).toMatchObject({ id, type, data: { from: name } })
    const attempts = () => fanfare.attempts.list({ webhook }).page()
    await until('both attempts are recorded', async () => (await attempts()).data.length === 2)
    expect((await attempts()).data.map(({ response_status }) => response_status)).toEqual([204, 500])
  })

  test('refuses a request that Fanfare has not signed, with the reason', async () => {
    const url = await start(async () => {
      throw new Error('the handler must not be called')
    })
    const post = (path: string, body: string) =>
      fetch(`${url}${path}`, { method: 'POST', headers: { 'content-type': 'application/json' }, body })
    const unsigned = await post('/hooks', '{"a":1}')
    expect(unsigned.status).toBe(400)
    expect(await unsigned.json()).toMatchObject({
      error: { code: 'missing_header', message: expect.stringContaining('webhook-id') },
    })
    const empty = await post('/hooks', '')
    expect(empty.status).toBe(400)
    const other = await post('/other', '{"a":1}')
    expect(await other.json()).toEqual({ a: 1 })
    if (name !== 'express with express.raw') {
      expect((await post('/hooks', JSON.stringify('x'.repeat(3000)))).status).toBe(413)
    }
  })

  test.each<[string, unknown]>([
    ['an error with a status', new FanfareError('on purpose', { code: 'not_found', status: 410 })],
    ['an error with a statusCode', Object.assign(new Error('on purpose'), { statusCode: 404 })],
    ['undefined', undefined],
  ])('answers 500 if the handler throws %s', async (_text, thrown) => {
    const type = ownType()
    const url = await start(async () => {
      throw thrown
    })
    const { id } = await fanfare.webhooks.create({ url: `${url}/hooks`, events: [type], secret, schedule: [] })
    onTestFinished(async () => {
      await fanfare.webhooks.delete(id)
    })
    expect(await fanfare.webhooks.test(id, { type, data: {} })).toMatchObject({ response: { status: 500 } })
  })
})

test('express: a parser that has read the body is an error of the server', async () => {
  const app = express()
  app.use(express.json())
  app.post(
    '/hooks',
    expressWebhook(options, () => {}),
  )
  let seen: unknown
  const onError: express.ErrorRequestHandler = (error, _request, response, _next) => {
    seen = error
    response.status(500).end()
  }
  app.use(onError)
  const url = await listen(createServer(app))
  const answer = await fetch(`${url}/hooks`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: '{}',
  })
  expect(answer.status).toBe(500)
  expect(String(seen)).toBe(
    'TypeError: a body parser has read the request: register the webhook before express.json()',
  )
})

test('express: a body beyond the limit, without a length, is answered before the body ends', async () => {
  const app = express()
  app.post(
    '/hooks',
    expressWebhook(options, () => {}),
  )
  const url = await listen(createServer(app))
  const unfinished = new ReadableStream({ start: (body) => body.enqueue(new Uint8Array(3000)) })
  const answer = await fetch(`${url}/hooks`, { method: 'POST', body: unfinished, duplex: 'half' })
  expect(answer.status).toBe(413)
  expect(await answer.json()).toMatchObject({ error: { code: 'body_too_large' } })
})

test('a missing secret stops the start of Express and Fastify, and fails requests of Next', async () => {
  const missing = { secret: undefined as unknown as string }
  expect(() => expressWebhook(missing, () => {})).toThrow('`secret` must be the signing secret of the webhook')
  expect(() => fastifyWebhook(missing, () => {})).toThrow('`secret` must be the signing secret of the webhook')
  const request = new Request('http://127.0.0.1/hooks', { method: 'POST', body: '{}' })
  await expect(nextWebhook(missing, () => {})(request)).rejects.toThrow('`secret` must be the signing secret')
})

test('an invalid limit is refused like a missing secret', async () => {
  for (const limit of [Number.NaN, 0, 1.5, -1, Infinity]) {
    const invalid = { secret, limit }
    const text = `\`limit\` is ${limit}, and must be a whole number of bytes from 1`
    expect(() => expressWebhook(invalid, () => {})).toThrow(text)
    expect(() => fastifyWebhook(invalid, () => {})).toThrow(text)
    const request = new Request('http://127.0.0.1/hooks', { method: 'POST', body: '{}' })
    await expect(nextWebhook(invalid, () => {})(request)).rejects.toThrow(text)
  }
})
