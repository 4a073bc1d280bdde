import { FanfareError } from '@fanfare/sdk'
import { describe, expect, test } from 'vitest'
import { connect, listen, ownType, proxy, until, type Interference } from './support.js'

const fanfare = connect()

/** Publishes through a proxy, and returns the requests and the stored events. */
async function publishThrough(script: Interference[]) {
  const type = ownType()
  const { url, requests } = await proxy(...script)
  const { id } = await connect({ url }).publish({ type, data: { paid: true } })
  const list = async () => (await fanfare.events.list({ type }).page()).data
  await until('the event is stored', async () => (await list()).length > 0)
  return { id, requests, events: await list() }
}

describe('a publish without an id', () => {
  test.each<[string, Interference[]]>([
    ['a closed connection', ['drop']],
    ['a lost answer', ['drop-answer']],
    ['a 503', ['unavailable']],
    ['a 429', ['limited']],
    ['a lost answer, a 503 and a closed connection', ['drop-answer', 'unavailable', 'drop']],
  ])('is one event after %s', async (_name, script) => {
    const tries = script.length + 1
    const { id, requests, events } = await publishThrough(script)
    expect(requests).toHaveLength(tries)
    expect(new Set(requests).size).toBe(1)
    expect(JSON.parse(requests[0] as string).id).toMatch(/^[0-9a-f-]{36}$/)
    expect(events.map((event) => event.id)).toEqual([id])
  })

  test('keeps the id of the caller', async () => {
    const { url, requests } = await proxy('drop')
    await connect({ url }).publish({ type: ownType(), data: 1, id: 'order 1/ä' })
    expect(requests.map((request) => JSON.parse(request).id)).toEqual(['order 1/ä', 'order 1/ä'])
  })
})

test('each event of a batch is one event after a lost answer', async () => {
  const type = ownType()
  const { url, requests } = await proxy('drop-answer', 'unavailable')
  const results = await connect({ url }).publishBatch([1, 2, 3].map((data) => ({ type, data })))
  expect(requests).toHaveLength(3)
  const ids = results.map((result) => (result.success ? result.data.id : result.error.code))
  await until('all events are stored', async () => (await fanfare.events.list({ type }).page()).data.length >= 3)
  expect((await fanfare.events.list({ type }).page()).data.map(({ id }) => id).sort()).toEqual(ids.sort())
})

test('the error of a batch has the id of each event, to publish the batch again', async () => {
  const { url, requests } = await proxy('drop')
  const events = [
    { type: 'a', data: 1 },
    { type: 'a', data: 2, id: 'mine' },
  ]
  const error: unknown = await connect({ url, retries: 0 })
    .publishBatch(events)
    .catch((error) => error)
  const ids = JSON.parse(requests[0] as string).map(({ id }: { id: string }) => id)
  expect(ids).toEqual([expect.stringMatching(/^[0-9a-f-]{36}$/), 'mine'])
  expect(error).toMatchObject({ code: 'network_error', ids })
})

test('only the events of a batch that were not accepted are sent again, under the same ids', async () => {
  const requests: { id: string; data: number }[][] = []
  // No real broker refuses a part of a batch on demand.
  const url = await listen(async (request, response) => {
    let text = ''
    for await (const chunk of request) text += chunk
    const events: { id: string; data: number }[] = JSON.parse(text)
    requests.push(events)
    const isFirst = requests.length === 1
    const data = events.map((event) =>
      isFirst && event.data === 2
        ? { success: false, error: { code: 'outcome_unknown', message: 'perhaps', id: event.id } }
        : { success: true, data: { id: `evt_${event.data}` } },
    )
    response.writeHead(isFirst ? 207 : 202).end(JSON.stringify({ success: true, data }))
  })
  const results = await connect({ url }).publishBatch([1, 2, 3].map((data) => ({ type: 'a', data })))
  expect(results).toEqual([1, 2, 3].map((data) => ({ success: true, data: { id: `evt_${data}` } })))
  expect(requests[1]).toEqual([requests[0]?.[1]])
})

test('a reading request is sent again', async () => {
  const { url, requests } = await proxy('drop', 'unavailable', 'limited')
  expect((await connect({ url }).eventTypes.list({ limit: 1 }).page()).data).toHaveLength(1)
  expect(requests).toHaveLength(4)
})

test('a request with an effect is sent once after a closed connection or a 503, and again after a 429', async () => {
  const webhook = { url: 'ftp://refused.example', events: ['*'] }
  for (const [interference, code, sent] of [
    ['drop', 'network_error', 1],
    ['unavailable', 'broker_unavailable', 1],
    ['limited', 'invalid_url', 2],
  ] as const) {
    const { url, requests } = await proxy(interference)
    await expect(connect({ url }).webhooks.create(webhook)).rejects.toMatchObject({ code })
    expect(requests).toHaveLength(sent)
  }
})

test('Retry-After is waited for, and is in the error after the last try', async () => {
  const { url, requests } = await proxy('unavailable', 'unavailable')
  const start = performance.now()
  const error: unknown = await connect({ url, retries: 1 })
    .publish({ type: 'a', data: 1 })
    .catch((error) => error)
  expect(performance.now() - start).toBeGreaterThan(1000)
  expect(requests).toHaveLength(2)
  expect(error).toMatchObject({
    status: 503,
    code: 'broker_unavailable',
    retryAfter: 1,
    id: JSON.parse(requests[0]!).id,
  })
})

test('a wait beyond the total time ends the call at once', async () => {
  const { url, requests } = await proxy('unavailable')
  const start = performance.now()
  await expect(connect({ url, totalTimeout: 900 }).publish({ type: 'a', data: 1 })).rejects.toMatchObject({
    status: 503,
  })
  expect(performance.now() - start).toBeLessThan(800)
  expect(requests).toHaveLength(1)
})

test('a server without an answer ends a try, and all tries', async () => {
  let requests = 0
  const url = await listen(() => void (requests += 1))
  const silent = connect({ url, timeout: 100, retries: 1 })
  await expect(silent.events.get('evt_1')).rejects.toMatchObject({
    code: 'timed_out',
    message: 'GET /api/v1/events/evt_1: no answer within 100 ms. Sent 2 times.',
  })
  expect(requests).toBe(2)
  const start = performance.now()
  await expect(silent.events.get('evt_1', { timeout: 5000, totalTimeout: 300 })).rejects.toMatchObject({
    code: 'timed_out',
  })
  expect(performance.now() - start).toBeLessThan(2000)
})

test('a signal aborts before, during and between tries', async () => {
  const failure = (call: Promise<unknown>) =>
    call.then(
      () => undefined,
      (error: unknown) => error as FanfareError,
    )
  const silent = connect({ url: await listen(() => {}) })
  const before = await failure(silent.publish({ type: 'a', data: 1, id: 'x' }, { signal: AbortSignal.abort() }))
  expect(before).toMatchObject({
    code: 'aborted',
    id: 'x',
    message: expect.stringMatching(/^POST \/api\/v1\/events: /),
  })
  const during = await failure(silent.publish({ type: 'a', data: 1 }, { signal: AbortSignal.timeout(100) }))
  expect(during).toMatchObject({ code: 'aborted', cause: { name: 'TimeoutError' } })
  const { url } = await proxy('unavailable')
  const between = await failure(
    connect({ url }).publish({ type: 'a', data: 1 }, { signal: AbortSignal.timeout(500) }),
  )
  expect(between).toMatchObject({ code: 'aborted' })
})
