/**
 * Receivers of all dialects behind an HTTP server on 127.0.0.1. Each receiver verifies deliveries by the platform's
 * documented procedure and by the official Standard Webhooks library, and checks body and headers.
 *
 * stdin:  for each receiver a line {"path": "/…", "dialect": name, "secret": text, "format"?: "raw"}
 * stdout: {"port": number} once the server listens, and {"path"} for each receiver, once ready.
 *         At the end of stdin, for each path {"path", "verified": requests, "refused": requests, "faults": the
 *         first faults, "data": for each event the SHA-256 of the data's bytes}
 *
 * Answers a valid POST with 200, any other with 400, and the body {"faults": [texts]}.
 */
import { createHash, createHmac, timingSafeEqual } from 'node:crypto'
import { createServer } from 'node:http'
import { Webhook } from 'standardwebhooks'
import { lines } from './lines.mjs'

const SHOWN_FAULTS = 5

/** The bodies. Placeholders stand for whole values, including the quotes. */
const BODIES = {
  incenta: '{"event":<type>,"data":<data>,"timestamp":<milliseconds>}',
  incentable: '{"id":<evt>,"type":<type>,"created_at":<seconds>,"data":<data>}',
  nudj: '{"id":<evt>,"event":<type>,"timestamp":<milliseconds>,"data":<data>}',
  reward: '{"id":<we>,"type":<type>,"time":<milliseconds>,"data":<data>}',
  ploints: '{"id":<evt>,"type":<type>,"timestamp":<seconds>,"data":<data>}',
  standard: '{"type":<type>,"timestamp":<milliseconds>,"data":<data>}',
  cloudevents:
    '{"specversion":"1.0","id":<evt>,"source":<source>,"type":<type>,"time":<milliseconds>,"data":<data>}',
  acme: '{"meta":{"id":<acme>,"kind":<type>,"app":<app>},"sent":<unix>,"payload":{"content":<data>}}',
}

const SUFFIX = '[0-7][0-9a-hjkmnp-tv-z]{25}'
const FORMS = {
  type: '"(?<type>[A-Za-z0-9_.:/-]+)"',
  data: '(?<data>.+)',
  evt: `"evt_(?<id>${SUFFIX})"`,
  we: `"we_(?<id>${SUFFIX})"`,
  acme: `"acme_(?<id>${SUFFIX})"`,
  app: `"app_${SUFFIX}"`,
  source: `"/applications/app_${SUFFIX}"`,
  milliseconds: '"(?<milliseconds>\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\d\\.\\d{3}Z)"',
  seconds: '"(?<seconds>\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\dZ)"',
  unix: '(?<unix>\\d{10})',
}

function formOf(body) {
  const parts = body.split(/<(\w+)>/).map((part, index) =>
    index % 2 === 1 ? FORMS[part] : part.replace(/[{}]/g, '\\$&'),
  )
  return new RegExp(`^${parts.join('')}$`, 's')
}

const FORM_OF = Object.fromEntries(Object.entries(BODIES).map(([dialect, body]) => [dialect, formOf(body)]))

const hmac = (key, message, encoding = 'hex') => createHmac('sha256', key).update(message).digest(encoding)

/** The comparison of the three platforms' documentation. Throws if the lengths differ. */
function assertSame(given, expected) {
  if (!timingSafeEqual(Buffer.from(given), Buffer.from(expected))) throw new Error('the signatures differ')
}

/** Each platform's own procedure, for dialects with a signature header. */
const OWN = {
  /** The signed text is the parsed and printed body. */
  incenta({ secret, raw }, header) {
    const payload = JSON.parse(raw.toString())
    assertSame(header('x-webhook-signature'), hmac(secret, JSON.stringify(payload)))
  },
  incentable({ secret, raw }, header) {
    assertSame(header('x-incentable-signature'), hmac(secret, raw))
  },
  /** The signature names the algorithm. Further headers have the event type and the delivery's id. */
  nudj({ secret, raw, type }, header) {
    const [algorithm, signature] = header('x-nudj-signature').split('=')
    if (algorithm !== 'sha256') throw new Error(`${algorithm} is not sha256`)
    assertSame(signature, hmac(secret, raw))
    if (header('x-nudj-event') !== type) throw new Error('X-Nudj-Event differs from the body\'s event')
    if (header('x-nudj-delivery-id') === '') throw new Error('X-Nudj-Delivery-Id is empty')
  },
  /** The key is the secret as shown, including `whsec_`. */
  ploints({ secret, raw }, header) {
    assertSame(header('x-ploints-signature'), hmac(secret, raw.toString('utf8')))
  },
  /** The custom dialect: signs time and body with the bytes of the secret. */
  acme({ secret, raw, type }, header) {
    const { t, v1 } = Object.fromEntries(header('x-acme-signature').split(',').map((part) => part.split(/=(.*)/s)))
    if (t !== header('webhook-timestamp')) throw new Error('t differs from webhook-timestamp')
    const key = Buffer.from(secret.slice('whsec_'.length), 'base64')
    assertSame(v1, hmac(key, `${t}.${raw}`, 'base64'))
    if (header('x-acme-event') !== type) throw new Error('X-Acme-Event differs from the body\'s kind')
    if (!/^[1-9]\d*$/.test(header('x-acme-attempt'))) throw new Error('X-Acme-Attempt is no number')
  },
}

/** Headers that only this dialect has. */
const HEADERS_OF = {
  incenta: ['x-webhook-signature'],
  incentable: ['x-incentable-signature'],
  nudj: ['x-nudj-signature', 'x-nudj-event', 'x-nudj-delivery-id'],
  ploints: ['x-ploints-signature'],
  acme: ['x-acme-signature', 'x-acme-event', 'x-acme-attempt'],
}

/** Reads a dialect's body: checks bytes, order of keys, and form of each value. Returns type and data. */
function readBody(dialect, raw, headers) {
  const text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(raw)
  const found = FORM_OF[dialect].exec(text)
  if (found === null) throw new Error(`does not have the form ${BODIES[dialect]}`)
  const { id, type, data, milliseconds, seconds } = found.groups
  JSON.parse(text)
  JSON.parse(data)
  const time = milliseconds ?? seconds?.replace('Z', '.000Z')
  if (time !== undefined && new Date(time).toISOString() !== time) throw new Error(`${time} is no time`)
  const event = headers['webhook-id']
  if (id !== undefined && event !== `evt_${id}`) throw new Error(`has the id ${id}, but webhook-id is ${event}`)
  return { type, data }
}

function checkHeaders(dialect, headers) {
  const contentType =
    dialect === 'cloudevents' ? 'application/cloudevents+json; charset=utf-8' : 'application/json'
  if (headers['content-type'] !== contentType) throw new Error(`content-type is ${headers['content-type']}`)
  if (!new RegExp(`^evt_${SUFFIX}$`).test(headers['webhook-id'])) throw new Error('webhook-id is no event id')
  if (!/^\d{10}$/.test(headers['webhook-timestamp'])) throw new Error('webhook-timestamp is no time in seconds')
  for (const [other, names] of Object.entries(HEADERS_OF)) {
    const foreign = names.filter((name) => other !== dialect && name in headers)
    if (foreign.length > 0) throw new Error(`${foreign} is a header of ${other}`)
  }
}

/** The faults of a delivery, and the text of the data. */
function examine({ dialect, secret, format }, headers, raw) {
  const faults = []
  const attempt = (name, check) => {
    try {
      return check()
    } catch (error) {
      faults.push(`${name}: ${error.message}`)
      return {}
    }
  }
  const header = (name) => {
    if (headers[name] === undefined) throw new Error(`${name} is missing`)
    return headers[name]
  }
  const { type, data } = attempt('body', () => readBody(dialect, raw, headers))
  attempt('headers', () => checkHeaders(dialect, headers))
  attempt('own', () => OWN[dialect]?.({ secret, raw, type }, header))
  attempt('standard', () => new Webhook(secret, { format }).verify(raw, headers))
  return { faults, data }
}

const receivers = new Map()

async function receive(request, response) {
  const chunks = []
  for await (const chunk of request) chunks.push(chunk)
  const receiver = receivers.get(request.url)
  const { faults, data } = receiver
    ? examine(receiver, request.headers, Buffer.concat(chunks))
    : { faults: [`no receiver at ${request.url}`] }
  if (receiver && faults.length === 0) {
    receiver.verified += 1
    receiver.data[request.headers['webhook-id']] = createHash('sha256').update(data).digest('hex')
  } else if (receiver) {
    receiver.refused += 1
    if (receiver.faults.length < SHOWN_FAULTS) {
      receiver.faults.push(`${faults.join('; ')}, of ${Buffer.concat(chunks).toString().slice(0, 2000)}`)
    }
  }
  const answer = JSON.stringify({ faults })
  const length = Buffer.byteLength(answer)
  response.writeHead(faults.length === 0 ? 200 : 400, { 'content-type': 'application/json', 'content-length': length })
  response.end(answer)
}

const print = (line) => console.log(JSON.stringify(line))

const server = createServer(receive)
// No keep-alive timeout: a connection closed during a request would cost an attempt.
server.keepAliveTimeout = 0
server.listen(0, '127.0.0.1', () => print({ port: server.address().port }))
for await (const line of lines(process.stdin)) {
  const { path, ...receiver } = JSON.parse(line)
  receivers.set(path, { ...receiver, verified: 0, refused: 0, faults: [], data: {} })
  print({ path })
}
for (const [path, { verified, refused, faults, data }] of receivers) print({ path, verified, refused, faults, data })
server.close()
server.closeAllConnections()
