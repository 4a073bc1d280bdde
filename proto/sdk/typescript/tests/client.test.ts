import { inspect } from 'node:util'
import { Fanfare, FanfareError } from '@fanfare/sdk'
import { describe, expect, test } from 'vitest'
import {
  ADMIN_KEY,
  APPLICATION,
  closedPort,
  connect,
  KEY,
  listen,
  NO_ADMIN_KEY,
  ownType,
  receiver,
  subscribe,
  until,
} from './support.js'

const fanfare = connect()

async function failure(call: Promise<unknown>): Promise<FanfareError> {
  const error = await call.then(
    () => undefined,
    (error: unknown) => error,
  )
  expect(error).toBeInstanceOf(FanfareError)
  return error as FanfareError
}

async function all<T>(list: AsyncIterable<T>): Promise<T[]> {
  const entries: T[] = []
  for await (const entry of list) entries.push(entry)
  return entries
}

describe('publishing', () => {
  test('a published event is listed, with its id and data', async () => {
    const type = ownType()
    const { id } = await fanfare.publish({
      type,
      data: { order: 1 },
      id: `${type}-1`,
      time: '2026-06-18T12:00:00Z',
    })
    await until('the event is stored', async () => (await fanfare.events.list({ type }).page()).data.length === 1)
    const event = await fanfare.events.get(id)
    expect(event).toMatchObject({ id, type, key: `${type}-1`, matched_webhooks: 1, deliveries: [{ event: id }] })
  })

  test('an ordering key numbers the deliveries of a webhook with a filter', async () => {
    const type = ownType()
    const filter = 'data.amount > 100'
    const tried = await fanfare.webhooks.testFilter({ filter, events: [type] })
    expect(tried).toMatchObject({ tried_on: 'samples', passed: 0 })
    const { url } = await receiver()
    const { id } = await fanfare.webhooks.create({
      url,
      events: [type],
      filter,
      template: { text: 'paid {{ data.amount }}' },
      feed: 'copy',
      digest: true,
      fifo: 'block',
    })
    for (const amount of [120, 20, 130]) await fanfare.publish({ type, data: { amount }, ordering_key: 'customer-7' })
    const read = () => fanfare.webhooks.feed(id, { wait: 1 })
    await until('two entries in the feed', async () => (await read()).data.length === 2)
    const { data, next } = await read()
    expect(data.map((entry) => entry.body)).toEqual(['{"text":"paid 120"}', '{"text":"paid 130"}'])
    const numbers = data.map((entry) => entry.headers.find(([name]) => name === 'webhook-sequence')?.[1])
    expect(numbers).toEqual(['1', '2'])
    expect((await fanfare.webhooks.feed(id, { after: next ?? '' })).data).toEqual([])
    const today = new Date().toISOString().slice(0, 10)
    // The first digest is that of tomorrow.
    expect(await failure(fanfare.webhooks.digest(id, { day: today }))).toMatchObject({ status: 422, field: 'day' })
    const rendered = await fanfare.webhooks.testTemplate({ template: { text: '{{ data.amount }}' }, events: [type] })
    expect(rendered).toMatchObject({ tried_on: 'events', rendered: 3, save_error: null })
    expect((await fanfare.webhooks.templates()).map((template) => template.name)).toContain('slack')
    await fanfare.webhooks.delete(id)
  })

  test('a batch gives a result for each event, in order', async () => {
    const type = ownType()
    const results = await fanfare.publishBatch([
      { type, data: 1 },
      { type: '.invalid', data: 2 },
      { type, data: 3, id: 'b'.repeat(256) },
    ])
    expect(results).toMatchObject([
      { success: true, data: { id: expect.stringMatching(/^evt_/) } },
      { success: false, error: { code: 'invalid_field', field: 'type' } },
      { success: false, error: { code: 'field_too_long', field: 'id' } },
    ])
  })

  test('an explanation names the webhook', async () => {
    const type = ownType()
    const { url } = await receiver()
    const webhook = await subscribe(fanfare, url, [type])
    const { id } = await fanfare.publish({ type, data: {}, id: `${type}-key` })
    await until('the delivery is finished', async () => {
      const [delivery] = (await fanfare.deliveries.list({ event: id, webhook: webhook.id }).page()).data
      return delivery?.state === 'delivered'
    })
    const explanation = await fanfare.events.why(id, { webhook: webhook.id })
    expect(explanation).toMatchObject({ event: id, webhooks: [{ webhook: webhook.id }] })
    expect(await fanfare.events.whyByKey(`${type}-key`)).toMatchObject({ event: id })
  })
})

describe('webhooks', () => {
  test('a webhook is created, changed, paused, disabled, enabled and deleted', async () => {
    const type = ownType()
    const { url, received } = await receiver()
    const { id, secret } = await fanfare.webhooks.create({ url, events: [type], name: type })
    expect(secret).toMatch(/^whsec_/)
    expect(await fanfare.webhooks.get(id)).toMatchObject({ id, url, events: [type], status: 'enabled' })
    expect(await fanfare.webhooks.change(id, { timeout_ms: 2000 })).toMatchObject({ timeout_ms: 2000 })
    expect(await fanfare.webhooks.pause(id)).toMatchObject({ status: 'paused' })
    expect(await fanfare.webhooks.disable(id)).toMatchObject({ status: 'disabled' })
    expect(await fanfare.webhooks.enable(id)).toMatchObject({ status: 'enabled' })
    expect(await fanfare.webhooks.test(id, { data: { tried: true } })).toMatchObject({ delivered: true })
    expect(received).toHaveLength(1)
    const rotated = await fanfare.webhooks.rotateSecret(id)
    expect(rotated.secret).not.toBe(secret)
    expect(await failure(fanfare.webhooks.rotateSecret(id))).toMatchObject({
      status: 409,
      code: 'rotation_under_way',
    })
    expect((await fanfare.webhooks.endRotation(id)).previous_secret_expires_at ?? null).toBeNull()
    expect(await fanfare.webhooks.change(id, { fifo: 'park' })).toMatchObject({ fifo: 'park' })
    expect((await fanfare.webhooks.orderingKeys(id).page()).data).toEqual([])
    expect(await fanfare.webhooks.resumeKeys(id)).toEqual({ resumed: 0 })
    expect(await failure(fanfare.webhooks.resumeKeys(id, 'a'))).toMatchObject({ status: 404, field: 'key' })
    expect((await fanfare.webhooks.list({ contains: type }).page()).data).toMatchObject([{ id }])
    expect(await fanfare.webhooks.delete(id)).toEqual({ id, deleted: true })
    expect(await failure(fanfare.webhooks.get(id))).toMatchObject({ status: 404, code: 'not_found' })
  })
})

describe('deliveries', () => {
  test('a delivery is resent, alone and with others, and each attempt is listed', async () => {
    const type = ownType()
    const { url, received } = await receiver()
    const webhook = await subscribe(fanfare, url, [type])
    await fanfare.publish({ type, data: {} })
    const list = () => fanfare.deliveries.list({ webhook: webhook.id, state: 'delivered' })
    const delivery = await until('the delivery is finished', async () => (await list().page()).data[0])
    expect(await fanfare.deliveries.resend(delivery.id)).toMatchObject({ id: delivery.id })
    await until('the resend is received', () => received.length === 2)
    await until(
      'the resend is recorded',
      async () => (await fanfare.deliveries.get(delivery.id)).attempts.length === 2,
    )
    const selection = { webhook: webhook.id, state: 'delivered' }
    expect(await fanfare.deliveries.resendMany({ ...selection, count_only: true })).toMatchObject({ resent: 1 })
    expect(await fanfare.deliveries.resendMany(selection)).toMatchObject({ resent: 1 })
    await until(
      'three attempts are listed',
      async () => (await all(fanfare.attempts.list({ webhook: webhook.id }))).length === 3,
    )
    const [first] = (await fanfare.attempts.list({ webhook: webhook.id }).page()).data
    expect(first).toMatchObject({ delivery_id: delivery.id, outcome: 'answered', response_status: 204 })
  })

  test('a replay sends past events to a new webhook', async () => {
    const type = ownType()
    const { id: event } = await fanfare.publish({ type, data: { past: true } })
    await until('the event is stored', async () => (await fanfare.events.list({ type }).page()).data.length === 1)
    const { url, received } = await receiver()
    const webhook = await subscribe(fanfare, url, [type])
    const replay = { since: new Date(Date.now() - 600_000).toISOString(), webhook: webhook.id, types: [type] }
    expect(await fanfare.replays.dryRun(replay)).toMatchObject({ deliveries: 1 })
    const { id } = await fanfare.replays.create(replay)
    await until('the replay is received', () => received.length === 1)
    expect(received[0]?.headers).toMatchObject({ 'webhook-id': event, 'fanfare-replay': id })
    await until('the replay is done', async () => (await fanfare.replays.get(id)).state === 'done')
    expect(await failure(fanfare.replays.cancel(id))).toMatchObject({ status: 409, code: 'replay_ended' })
    expect((await fanfare.replays.list({ limit: 1 }).page()).data).toHaveLength(1)
  })
})

describe('pages', () => {
  test('a list gives each entry of all pages once', async () => {
    const type = ownType()
    const published = await fanfare.publishBatch(Array.from({ length: 7 }, (_, data) => ({ type, data })))
    const ids = published.map((result) => (result.success ? result.data.id : ''))
    const list = fanfare.events.list({ type, limit: 3 })
    await until('all events are stored', async () => (await all(list)).length === 7)
    expect((await all(list)).map(({ id }) => id).sort()).toEqual(ids.sort())
    const lengths: number[] = []
    for await (const page of list.pages()) lengths.push(page.data.length)
    expect(lengths.reduce((sum, length) => sum + length)).toBe(7)
    expect(lengths.length).toBeGreaterThanOrEqual(3)
    const first = await list.page()
    const second = await list.page(first.next as string)
    expect(first.data.map(({ id }) => id)).not.toContain(second.data[0]?.id)
    expect(await all(fanfare.events.list({ type, limit: 3, before: first.next as string }))).toHaveLength(4)
  })

  test('a loop may end early', async () => {
    for await (const type of fanfare.eventTypes.list({ limit: 1 })) {
      expect(type.name).not.toBe('')
      break
    }
  })
})

describe('event types', () => {
  test('a type is described, read and removed', async () => {
    const name = `${ownType()}/with:signs`
    expect(await fanfare.eventTypes.describe({ name, sample: { n: 1 } })).toMatchObject({
      name,
      source: 'application',
    })
    expect(await fanfare.eventTypes.get(name)).toMatchObject({ name, sample: { n: 1 } })
    expect(await fanfare.eventTypes.remove(name)).toEqual({ name, deleted: true })
  })
})

describe('errors', () => {
  test('an error has status, code and field, and names the request', async () => {
    const error = await failure(fanfare.webhooks.create({ url: 'ftp://example.com', events: ['*'] }))
    expect(error).toMatchObject({ status: 422, code: 'invalid_url', field: 'url', name: 'FanfareError' })
    expect(error.message).toMatch(/^POST \/api\/v1\/webhooks: 422 invalid_url \(url\): /)
  })

  test('no error and no inspection shows the key', async () => {
    const secret = `${KEY}x`
    const error = await failure(connect({ key: secret }).events.get('evt_1'))
    expect(error).toMatchObject({ status: 401, code: 'invalid_key' })
    const unreachable = connect({ key: secret, url: (await closedPort()).origin, retries: 0 })
    const lost = await failure(unreachable.events.get('evt_1'))
    const texts = [error, lost, connect()].map((value) => inspect(value, { depth: 9, showHidden: true }))
    for (const text of texts) expect(text).not.toContain(KEY)
    expect(() => connect({ key: `${KEY}\n` })).toThrow(/^`key` must be an API key of Fanfare: visible ASCII/)
  })

  test('an unreachable address is an error of the network, with the id for the next try', async () => {
    const { origin, port } = await closedPort()
    const unreachable = connect({ url: origin, retries: 1 })
    const error = await failure(unreachable.publish({ type: 'a', data: 1, id: 'mine' }))
    expect(error).toMatchObject({ code: 'network_error', status: undefined, id: 'mine' })
    const cause = `connect ECONNREFUSED 127.0.0.1:${port}`
    expect(error.message).toBe(
      `POST /api/v1/events: no answer: ${cause}. Check \`url\` and the network. Sent 2 times.`,
    )
    const created = await failure(unreachable.webhooks.create({ url: 'http://a.example', events: ['*'] }))
    expect(created.message).toMatch(/The request may have taken effect: look before you send the request again\.$/)
  })

  test('another server, and a redirect, are unexpected answers', async () => {
    const page = await listen((_request, response) => void response.end('<html>hello</html>'))
    expect((await failure(connect({ url: page }).events.get('evt_1'))).message).toBe(
      'GET /api/v1/events/evt_1: status 200, no answer of Fanfare. Check `url` and proxies before Fanfare.',
    )
    const moved = await listen((_request, response) => void response.writeHead(302, { location: '/x' }).end())
    expect(await failure(connect({ url: moved }).events.get('evt_1'))).toMatchObject({
      code: 'unexpected_answer',
      status: 302,
      message: expect.stringContaining('a redirect to /x'),
    })
  })

  test('an unexpected answer to a request that is sent once tells that the request may have taken effect', async () => {
    const webhook = { url: 'http://a.example', events: ['*'] }
    for (const [status, hasWarning] of [
      [200, true],
      [504, true],
      [404, false],
    ] as const) {
      const url = await listen((_request, response) => void response.writeHead(status).end('from a proxy'))
      const { message } = await failure(connect({ url }).webhooks.create(webhook))
      expect(message.includes('The request may have taken effect'), message).toBe(hasWarning)
    }
  })

  test('invalid options are refused with a sentence', async () => {
    expect(() => connect({ url: 'fanfare' })).toThrow('`url` must be the address of the API, such as')
    expect(() => connect({ url: 'ftp://a.example' })).toThrow('`url` must use https or http')
    expect(() => connect({ url: 'http://user:word@a.example' })).toThrow('`url` must have no user, password')
    expect(() => connect({ retries: -1 })).toThrow('`retries` is -1, and must be a whole number from 0')
    expect(() => connect({ timeout: 0 })).toThrow('`timeout` is 0, and must be milliseconds')
    for (const id of ['', '.', '..']) {
      await expect(fanfare.webhooks.delete(id)).rejects.toThrow(`\`id\` is "${id}", and must be an id or a name`)
    }
  })

  test('the address may end with or without /api/v1', async () => {
    const { origin } = new URL(process.env.FANFARE_API as string)
    for (const url of [origin, `${origin}/`, `${origin}/api/v1`, `${origin}/api/v1/`]) {
      expect((await connect({ url }).eventTypes.list({ limit: 1 }).page()).data).toHaveLength(1)
    }
  })
})

describe('an admin key', () => {
  test('names the application, for the client or for a call', async ({ skip }) => {
    if (ADMIN_KEY === undefined) return skip(NO_ADMIN_KEY)
    const admin = new Fanfare({ url: process.env.FANFARE_API as string, key: ADMIN_KEY })
    expect(await failure(admin.webhooks.list().page())).toMatchObject({ code: 'missing_application' })
    expect((await admin.webhooks.list({}, { application: APPLICATION }).page()).data.length).toBeGreaterThan(0)
    const ofApplication = new Fanfare({
      url: process.env.FANFARE_API as string,
      key: ADMIN_KEY,
      application: APPLICATION,
    })
    expect((await ofApplication.publish({ type: ownType(), data: 1 })).id).toMatch(/^evt_/)
  })
})
