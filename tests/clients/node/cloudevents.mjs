/**
 * CloudEvents with the official SDK: published over HTTP and AMQP, and read from deliveries.
 *
 * argv:   <events URL> <key> <amqp url> <exchange> <application>
 * stdin:  lines of one of the forms
 *         {"publish": event, "over": "http", "mode": "structured" | "binary", "headers"?: {…}}
 *         {"publish": [event, …], "over": "http", "mode": "batch"}
 *         {"publish": event, "over": "amqp", "mode": "structured" | "binary", "prefix"?: text}
 *         {"publish": event, "over": "amqp1", "mode": "structured" | "binary"}
 *         {"read": {"secret", "headers", "body": base64}}
 * stdout: for each line, in order, {"status", "body"} of the answer, {"confirmed": true}, or the event in the JSON format
 *
 * An event is an object with attributes and data.
 */
import amqp from 'amqplib'
import rhea from 'rhea'
import { CloudEvent, HTTP } from 'cloudevents'
import { Webhook } from 'standardwebhooks'
import { lines } from './lines.mjs'

const [url, key, broker, exchange, application] = process.argv.slice(2)
if (application === undefined) {
  console.error('usage: node cloudevents.mjs <events URL> <key> <amqp url> <exchange> <application>')
  process.exit(2)
}

async function post(path, headers, body) {
  const response = await fetch(url + path, {
    method: 'POST',
    headers: { ...headers, authorization: `Bearer ${key}` },
    body,
  })
  return { status: response.status, body: await response.json() }
}

function overHttp({ publish, mode, headers }) {
  if (mode === 'batch') {
    const events = publish.map((event) => new CloudEvent(event))
    return post('/batch', { 'content-type': 'application/cloudevents-batch+json' }, JSON.stringify(events))
  }
  const event = new CloudEvent(publish)
  const message = mode === 'binary' ? HTTP.binary(event) : HTTP.structured(event)
  return post('', { ...message.headers, ...headers }, message.body)
}

/** The SDK has no AMQP binding. The headers differ from HTTP's by their prefix only. */
function overAmqpOf({ publish, mode, prefix = 'cloudEvents:' }) {
  const event = new CloudEvent(publish)
  const message = mode === 'binary' ? HTTP.binary(event) : HTTP.structured(event)
  const entries = Object.entries(message.headers).map(([name, value]) => [name.toLowerCase(), value])
  const attributes = entries
    .filter(([name]) => name.startsWith('ce-'))
    .map(([name, value]) => [prefix + name.slice('ce-'.length), value])
  return {
    type: event.type,
    contentType: entries.find(([name]) => name === 'content-type')[1],
    headers: Object.fromEntries(attributes),
    body: Buffer.from(message.body ?? ''),
  }
}

async function overAmqp(command) {
  const { type, contentType, headers, body } = overAmqpOf(command)
  const connection = await amqp.connect(broker)
  const channel = await connection.createConfirmChannel()
  channel.publish(exchange, `${application}.${type}`, body, { persistent: true, contentType, headers })
  await channel.waitForConfirms()
  await connection.close()
  return { confirmed: true }
}

/** Over AMQP 1.0: attributes in application properties, with the types of AMQP 1.0. */
function overAmqp1(command) {
  const { type, contentType, headers, body } = overAmqpOf(command)
  const { time } = command.publish
  if (command.mode === 'binary' && time !== undefined) {
    headers['cloudEvents:time'] = rhea.types.wrap_timestamp(Date.parse(time))
  }
  const at = new URL(broker)
  const connection = rhea.create_container().connect({
    host: at.hostname,
    port: Number(at.port || 5672),
    hostname: `vhost:${decodeURIComponent(at.pathname.slice(1)) || '/'}`,
    username: decodeURIComponent(at.username),
    password: decodeURIComponent(at.password),
    reconnect: false,
  })
  const address = `/exchanges/${encodeURIComponent(exchange)}/${encodeURIComponent(`${application}.${type}`)}`
  const message = {
    durable: true,
    content_type: contentType,
    application_properties: headers,
    body: rhea.message.data_section(body),
  }
  return new Promise((resolve, reject) => {
    connection.once('sendable', ({ sender }) => sender.send(message))
    connection.once('accepted', () => resolve({ confirmed: true }))
    for (const event of ['rejected', 'released', 'modified', 'sender_error', 'connection_error', 'disconnected']) {
      connection.once(event, ({ error }) => reject(error ?? new Error(event)))
    }
    connection.open_sender({ target: { address } })
  }).finally(() => connection.close())
}

/** Verifies and reads a delivery. The SDK throws on an event that the specification forbids. */
function read({ secret, headers, body }) {
  const raw = Buffer.from(body, 'base64').toString()
  new Webhook(secret).verify(raw, headers)
  const event = HTTP.toEvent({ headers, body: raw })
  event.validate()
  return event.toJSON()
}

const OVER = { http: overHttp, amqp: overAmqp, amqp1: overAmqp1 }
for await (const line of lines(process.stdin)) {
  const command = JSON.parse(line)
  const answer = command.read === undefined ? await OVER[command.over](command) : read(command.read)
  console.log(JSON.stringify(answer))
}
process.exit(0)
