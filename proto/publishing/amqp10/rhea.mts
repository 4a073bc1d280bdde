/** Publishes an event to Fanfare with rhea, over AMQP 1.0 to RabbitMQ 4, and waits for the outcome `accepted`. */
import { setTimeout as sleep } from 'node:timers/promises'
import rhea from 'rhea'

const TRY_TIMEOUT = 10_000
const MAX_BACKOFF = 10_000

const { BROKER, EXCHANGE, APPLICATION, GIVE_UP_AFTER = '60' } = process.env
const [type, id, data] = process.argv.slice(2)
if (!BROKER || !EXCHANGE || !APPLICATION || !type || !id || !data) {
  console.error('usage: node rhea.mts <type> <id> <data as JSON>, with BROKER, EXCHANGE and APPLICATION set')
  process.exit(2)
}
const broker = new URL(BROKER)
const isTls = broker.protocol === 'amqps:'
const address = `/exchanges/${encodeURIComponent(EXCHANGE)}/${encodeURIComponent(`${APPLICATION}.${type}`)}`
const message = {
  message_id: id,
  durable: true,
  content_type: 'application/json',
  // A data section: RabbitMQ hands on the bytes. A plain string would become a typed value.
  body: rhea.message.data_section(Buffer.from(JSON.stringify({ data: JSON.parse(data) }))),
}

/** Connects, publishes and waits for the outcome. A service keeps connection and sender for further events. */
async function publishOnce(): Promise<void> {
  const container = rhea.create_container()
  const outcome = new Promise<void>((resolve, reject) => {
    container.once('sendable', ({ sender }) => sender?.send(message))
    container.once('accepted', () => resolve())
    for (const event of ['rejected', 'released', 'modified']) {
      container.on(event, () => reject(new Error(`the event was ${event}`)))
    }
    const closed = (error?: { condition?: string; description?: string }) =>
      reject(new Error(`${error?.condition}: ${error?.description}`))
    container.on('sender_error', ({ sender }) => closed(sender?.error))
    container.on('session_error', ({ session }) => closed(session?.error))
    container.on('connection_error', ({ connection }) => closed(connection.error))
    container.on('disconnected', ({ error }) => reject(error ?? new Error('the connection is lost')))
    container.on('error', reject)
  })
  const connection = container.connect({
    ...(isTls ? { transport: 'tls', servername: broker.hostname } : { transport: 'tcp' }),
    host: broker.hostname,
    port: Number(broker.port || (isTls ? 5671 : 5672)),
    hostname: `vhost:${decodeURIComponent(broker.pathname.slice(1)) || '/'}`,
    username: decodeURIComponent(broker.username),
    password: decodeURIComponent(broker.password),
    reconnect: false,
  })
  try {
    connection.open_sender({ target: { address } })
    const late = sleep(TRY_TIMEOUT).then(() => Promise.reject(new Error(`no outcome within ${TRY_TIMEOUT} ms`)))
    await Promise.race([outcome, late])
  } finally {
    connection.close()
  }
}

const deadline = Date.now() + Number(GIVE_UP_AFTER) * 1000
for (let backoff = 500; ; backoff = Math.min(2 * backoff, MAX_BACKOFF)) {
  try {
    await publishOnce()
    break
  } catch (error) {
    if (Date.now() + backoff >= deadline) {
      console.error(`${id} is not confirmed: ${error}. Publish again later, under the same id.`)
      process.exit(1)
    }
    // The same id again: Fanfare recognises an event that did arrive.
    console.error(`${error}; next try in ${backoff} ms`)
    await sleep(backoff)
  }
}
console.log(`confirmed ${id}`)
process.exit(0)
