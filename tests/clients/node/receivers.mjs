/**
 * Receivers of every dialect behind one HTTP server on 127.0.0.1. Each verifies as the document of its
 * system tells its customers to, and once more by the official Standard Webhooks library, and looks whether
 * body and headers are those of the document.
 *
 * stdin:  per line {"path": "/…", "dialect": name, "secret": text, "format"?: "raw"}: a receiver at that path
 * stdout: {"port": number} once it listens, and {"path"} for each line, once there is the receiver.
 *         When stdin ends, per path {"path", "verified": requests, "refused": requests, "faults": the first
 *         few, "data": per event the SHA-256 of the bytes of its data}
 *
 * A POST is answered with 200 where all is right and with 400 otherwise, and {"faults": [what is wrong]}.
 */
import { createHash, createHmac, timingSafeEqual } from 'node:crypto'
import { createServer } from 'node:http'
import { Webhook } from 'standardwebhooks'
import { lines } from './lines.mjs'

const SHOWN_FAULTS = 5

/** The bodies, with what stands in for whole values, quotes included. */
const BODIES = {
  incenta: '{"event":<type>,"data":<data>,"timestamp":<milliseconds>}',
  incentable: '{"id":<evt>,"type":<type>,"created_at":<seconds>,"data":<data>}',
  nudj: '{"id":<evt>,"event":<type>,"timestamp":<milliseconds>,"data":<data>}',
  reward: '{"id":<we>,"type":<type>,"time":<milliseconds>,"data":<data>}',
  ploints: '{"id":<evt>,"type":<type>,"timestamp":<seconds>,"data":<data>}',
  standard: '{"type":<type>,"timestamp":<milliseconds>,"data":<data>}',
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

/** As all three documents compare; throws where the lengths differ, as they do. */
function assertSame(given, expected) {
  if (!timingSafeEqual(Buffer.from(given), Buffer.from(expected))) throw new Error('the signatures differ')
}

/** Each system's own procedure, for the dialects that have a signature of their own. */
const OWN = {
  /** The parsed body is printed anew, and that is what was signed. */
  incenta({ secret, raw }, header) {
    const payload = JSON.parse(raw.toString())
    assertSame(header('x-webhook-signature'), hmac(secret, JSON.stringify(payload)))
  },
  incentable({ secret, raw }, header) {
    assertSame(header('x-incentable-signature'), hmac(secret, raw))
  },
  /** In a form that tells the algorithm, with the event and a number of the delivery beside it. */
  nudj({ secret, raw, type }, header) {
    const [algorithm, signature] = header('x-nudj-signature').split('=')
    if (algorithm !== 'sha256') throw new Error(`${algorithm} is no algorithm of ours`)
    assertSame(signature, hmac(secret, raw))
    if (header('x-nudj-event') !== type) throw new Error('X-Nudj-Event is not the body\'s event')
    if (header('x-nudj-delivery-id') === '') throw new Error('X-Nudj-Delivery-Id is empty')
  },
  /** The secret as it was shown, `whsec_` included, is the key. */
  ploints({ secret, raw }, header) {
    assertSame(header('x-ploints-signature'), hmac(secret, raw.toString('utf8')))
  },
  /** The system that nobody knows: time and body are signed, with the bytes of the secret. */
  acme({ secret, raw, type }, header) {
    const { t, v1 } = Object.fromEntries(header('x-acme-signature').split(',').map((part) => part.split(/=(.*)/s)))
    if (t !== header('webhook-timestamp')) throw new Error('t is not the time of the attempt')
    const key = Buffer.from(secret.slice('whsec_'.length), 'base64')
    assertSame(v1, hmac(key, `${t}.${raw}`, 'base64'))
    if (header('x-acme-event') !== type) throw new Error('X-Acme-Event is not the body\'s kind')
    if (!/^[1-9]\d*$/.test(header('x-acme-attempt'))) throw new Error('X-Acme-Attempt is no number')
  },
}

/** Headers of one dialect, which no other has. */
const HEADERS_OF = {
  incenta: ['x-webhook-signature'],
  incentable: ['x-incentable-signature'],
  nudj: ['x-nudj-signature', 'x-nudj-event', 'x-nudj-delivery-id'],
  ploints: ['x-ploints-signature'],
  acme: ['x-acme-signature', 'x-acme-event', 'x-acme-attempt'],
}

/** The members of the body that the dialect prints: bytes, keys and their order, the form of each value. */
function readBody(dialect, raw, headers) {
  const text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(raw)
  const found = FORM_OF[dialect].exec(text)
  if (found === null) throw new Error(`is not of the form ${BODIES[dialect]}`)
  const { id, type, data, milliseconds, seconds } = found.groups
  JSON.parse(text)
  JSON.parse(data)
  const time = milliseconds ?? seconds?.replace('Z', '.000Z')
  if (time !== undefined && new Date(time).toISOString() !== time) throw new Error(`${time} is no time`)
  const event = headers['webhook-id']
  if (id !== undefined && event !== `evt_${id}`) throw new Error(`is about ${id}, and webhook-id says ${event}`)
  return { type, data }
}

function checkHeaders(dialect, headers) {
  if (headers['content-type'] !== 'application/json') throw new Error(`content-type is ${headers['content-type']}`)
  if (!new RegExp(`^evt_${SUFFIX}$`).test(headers['webhook-id'])) throw new Error('webhook-id is no event id')
  if (!/^\d{10}$/.test(headers['webhook-timestamp'])) throw new Error('webhook-timestamp is no time in seconds')
  for (const [other, names] of Object.entries(HEADERS_OF)) {
    const foreign = names.filter((name) => other !== dialect && name in headers)
    if (foreign.length > 0) throw new Error(`${foreign} is a header of ${other}`)
  }
}

/** What is wrong with a delivery, and the bytes of its data. */
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
    : { faults: [`there is no receiver at ${request.url}`] }
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
// A connection that is closed while a request is on its way would cost an attempt.
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
