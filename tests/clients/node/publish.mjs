/**
 * Publishes events to RabbitMQ with amqplib, like a service in Node: persistent messages and publisher confirms.
 *
 * argv:   <amqp url> <exchange>
 * stdin:  per event a line {"routing_key": string, "message_id": string or null, "headers"?: {…}, "body": string}
 * stdout: for each event, in order, `confirmed` or `refused <reason>`
 *
 * Publishes each line at once, up to 500 messages ahead of the broker's confirms.
 */
import amqp from 'amqplib'
import { lines } from './lines.mjs'

const AHEAD = 500
const [url, exchange] = process.argv.slice(2)
if (exchange === undefined) {
  console.error('usage: node publish.mjs <amqp url> <exchange>')
  process.exit(2)
}

const connection = await amqp.connect(url)
const channel = await connection.createConfirmChannel()
// Without these listeners, an error would end the process. Each affected publish reports the error.
let closed
for (const source of [connection, channel]) source.on('error', (error) => (closed ??= error))

/** Resolves to the output line of a message. Never rejects. */
function publish({ routing_key, message_id, headers, body }) {
  return new Promise((resolve) => {
    const refused = (error) => resolve(`refused ${(closed ?? error).message}`.replaceAll('\n', ' '))
    const options = {
      persistent: true,
      contentType: 'application/json',
      messageId: message_id ?? undefined,
      headers,
    }
    try {
      channel.publish(exchange, routing_key, Buffer.from(body), options, (error) =>
        error ? refused(error) : resolve('confirmed'),
      )
    } catch (error) {
      refused(error) // closed channel
    }
  })
}

let printed = Promise.resolve()
const ahead = []
for await (const line of lines(process.stdin)) {
  const answer = publish(JSON.parse(line))
  printed = printed.then(() => answer).then((text) => console.log(text))
  ahead.push(printed)
  if (ahead.length >= AHEAD) await ahead.shift()
}
await printed
await connection.close().catch(() => {}) // may already be closed
