/** Publishes an event to Fanfare with rabbitmq-client, and waits for the confirm. */
import { setTimeout as sleep } from 'node:timers/promises'
import { Connection } from 'rabbitmq-client'

const TRY_TIMEOUT = 10_000
const MAX_BACKOFF = 10_000

const { BROKER, EXCHANGE, APPLICATION, GIVE_UP_AFTER = '60' } = process.env
const [type, id, data] = process.argv.slice(2)
if (!BROKER || !EXCHANGE || !APPLICATION || !type || !id || !data) {
  console.error('usage: node rabbitmq-client.mts <type> <id> <data as JSON>, with BROKER, EXCHANGE and APPLICATION set')
  process.exit(2)
}
const body = Buffer.from(JSON.stringify({ data: JSON.parse(data) }))

/** Connects, publishes and waits for the confirm. A service keeps connection and publisher for further events. */
async function publishOnce(broker: string, exchange: string): Promise<void> {
  const connection = new Connection({ url: broker, connectionTimeout: TRY_TIMEOUT })
  try {
    const lost = new Promise<never>((_, reject) => connection.on('error', reject))
    const publisher = connection.createPublisher({ confirm: true })
    const envelope = {
      exchange,
      routingKey: `${APPLICATION}.${type}`,
      messageId: id,
      durable: true, // persistent
      contentType: 'application/json',
    }
    const late = sleep(TRY_TIMEOUT).then(() => Promise.reject(new Error(`no confirm within ${TRY_TIMEOUT} ms`)))
    // `send` rejects after a nack, and when channel or connection end.
    await Promise.race([publisher.send(envelope, body), lost, late])
  } finally {
    connection.unsafeDestroy()
  }
}

const deadline = Date.now() + Number(GIVE_UP_AFTER) * 1000
for (let backoff = 500; ; backoff = Math.min(2 * backoff, MAX_BACKOFF)) {
  try {
    await publishOnce(BROKER, EXCHANGE)
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
