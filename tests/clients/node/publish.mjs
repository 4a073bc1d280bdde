/**
 * Publishes events straight to RabbitMQ, as a service written in Node would: persistent messages and
 * publisher confirms, with amqplib.
 *
 * argv:   <amqp url> <exchange>
 * stdin:  per line {"routing_key": string, "message_id": string or null, "headers"?: {…}, "body": string}
 * stdout: per line, in order, `confirmed` or `refused <why>`
 *
 * Lines are published as they come, up to 500 ahead of the broker's confirms.
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
// Without these listeners an exception would end the process; each publish that it concerns is told too.
let closed
for (const source of [connection, channel]) source.on('error', (error) => (closed ??= error))

/** Resolves to the answer for one message, and never rejects. */
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
      refused(error) // the channel is closed
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
await connection.close().catch(() => {}) // it may be closed already
