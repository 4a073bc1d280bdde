import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type IncomingHttpHeaders, type RequestListener, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { buffer } from 'node:stream/consumers'
import { Fanfare, type DialectName, type FanfareOptions, type Webhook } from '@fanfare/sdk'
import { onTestFinished } from 'vitest'

export const API = process.env.FANFARE_API as string
export const KEY = process.env.FANFARE_KEY as string
export const APPLICATION = process.env.FANFARE_APPLICATION as string
export const ADMIN_KEY = process.env.FANFARE_ADMIN_KEY || undefined
export const NO_ADMIN_KEY = 'FANFARE_ADMIN_KEY is not set: other applications cannot be created'

export function connect(options: Partial<FanfareOptions> = {}): Fanfare {
  return new Fanfare({ url: API, key: KEY, ...options })
}

/** An event type that no other test uses. */
export function ownType(): string {
  return `sdk.t${randomUUID().replaceAll('-', '')}`
}

/** Polls until the function returns a value. */
export async function until<T>(
  text: string,
  look: () => T | undefined | false | Promise<T | undefined | false>,
): Promise<T> {
  const end = Date.now() + 30_000
  for (;;) {
    const found = await look()
    if (found !== undefined && found !== false) return found
    if (Date.now() > end) throw new Error(`not within 30 s: ${text}`)
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}

/** Listens on 127.0.0.1 until the test ends. Returns the address. */
export async function listen(handler: RequestListener | Server): Promise<string> {
  const server = typeof handler === 'function' ? createServer(handler) : handler
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  onTestFinished(() => {
    server.closeAllConnections()
    server.close()
  })
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

/** An address at which no server listens. */
export async function closedPort(): Promise<URL> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return new URL(`http://127.0.0.1:${port}`)
}

export interface Received {
  headers: IncomingHttpHeaders
  body: Buffer
}

/** A receiver that accepts each request. */
export async function receiver(): Promise<{ url: string; received: Received[] }> {
  const received: Received[] = []
  const url = await listen(async (request, response) => {
    received.push({ headers: request.headers, body: await buffer(request) })
    response.writeHead(204).end()
  })
  return { url: `${url}/hooks`, received }
}

/** Creates a webhook, and deletes the webhook when the test ends. */
export async function subscribe(
  fanfare: Fanfare,
  url: string,
  events: string[],
  secret?: string,
): Promise<Webhook & { secret: string }> {
  const webhook = await fanfare.webhooks.create({ url, events, ...(secret === undefined ? {} : { secret }) })
  onTestFinished(async () => {
    await fanfare.webhooks.delete(webhook.id)
  })
  return { ...webhook, secret: webhook.secret ?? (secret as string) }
}

/** A client for a new application of the dialect. Needs the admin key. */
export async function applicationOf(dialect: DialectName): Promise<Fanfare> {
  const admin = new Fanfare({ url: API, key: ADMIN_KEY as string })
  const { data } = await admin.http.POST('/api/v1/applications', { body: { name: `sdk ${dialect}`, dialect } })
  if (data === undefined) throw new Error('the application was not created')
  return new Fanfare({ url: API, key: ADMIN_KEY as string, application: data.data.id })
}

export type Interference = 'forward' | 'drop' | 'drop-answer' | 'unavailable' | 'limited'

/**
 * A proxy before Fanfare. Interferes with the first requests: `drop` closes the connection, `drop-answer` closes the
 * connection after Fanfare's answer, `unavailable` answers 503, `limited` answers 429. Forwards all further requests.
 */
export async function proxy(...script: Interference[]): Promise<{ url: string; requests: string[] }> {
  const requests: string[] = []
  const url = await listen(async (request, response) => {
    const body = await buffer(request)
    requests.push(body.toString())
    const interference = script.shift() ?? 'forward'
    if (interference === 'drop') return void request.socket.destroy()
    if (interference === 'unavailable' || interference === 'limited') {
      const [status, code] = interference === 'limited' ? [429, 'too_many_events'] : [503, 'broker_unavailable']
      response.writeHead(status as number, { 'content-type': 'application/json', 'retry-after': '1' })
      return void response.end(JSON.stringify({ success: false, error: { code, message: 'from the proxy' } }))
    }
    const answer = await fetch(`${new URL(API).origin}${request.url}`, {
      method: request.method as string,
      headers: { authorization: request.headers.authorization as string, 'content-type': 'application/json' },
      ...(body.length === 0 ? {} : { body }),
    })
    const text = await answer.text()
    if (interference === 'drop-answer') return void request.socket.destroy()
    response.writeHead(answer.status, { 'content-type': 'application/json' }).end(text)
  })
  return { url, requests }
}
