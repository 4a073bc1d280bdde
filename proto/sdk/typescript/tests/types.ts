/** Types of the package, checked by the compiler in `types.test.ts`. Never runs. */
import { Fanfare, verify, type Delivery, type FanfareError, type ReceivedEvent, type Webhook } from '@fanfare/sdk'
import { webhook as express } from '@fanfare/sdk/express'
import { webhook as fastify } from '@fanfare/sdk/fastify'
import { webhook as next } from '@fanfare/sdk/next'
import { expectTypeOf } from 'vitest'

interface Events {
  'order.created': { order: number }
  'order.cancelled': { order: number; reason: string }
}

export async function publishing(): Promise<void> {
  const fanfare = new Fanfare<Events>({ url: 'https://fanfare.example.com', key: 'key' })
  await fanfare.publish({ type: 'order.created', data: { order: 1 }, id: 'order-1', time: '2026-06-18T12:00:00Z' })
  // @ts-expect-error: another type of data
  await fanfare.publish({ type: 'order.created', data: { order: 'one' } })
  // @ts-expect-error: the data of another event type
  await fanfare.publish({ type: 'order.cancelled', data: { order: 1 } })
  // @ts-expect-error: an event type that the map lacks
  await fanfare.publish({ type: 'order.shipped', data: { order: 1 } })
  // @ts-expect-error: no data
  await fanfare.publish({ type: 'order.created' })
  // @ts-expect-error: a field that events do not have
  await fanfare.publish({ type: 'order.created', data: { order: 1 }, key: 'order-1' })
  // @ts-expect-error: another type of data in a batch
  await fanfare.publishBatch([{ type: 'order.created', data: {} }])
  // @ts-expect-error: no key
  new Fanfare<Events>({ url: 'https://fanfare.example.com' })

  const [result] = await fanfare.publishBatch([{ type: 'order.created', data: { order: 1 } }])
  if (result?.success === true) expectTypeOf(result.data.id).toEqualTypeOf<string>()
  // @ts-expect-error: an error has no data
  if (result?.success === false) result.data

  const unchecked = new Fanfare({ url: 'https://fanfare.example.com', key: 'key' })
  await unchecked.publish({ type: 'any', data: new Date() })
}

export async function management(fanfare: Fanfare, error: FanfareError): Promise<void> {
  for await (const delivery of fanfare.deliveries.list({ state: 'failed', limit: 10 })) {
    expectTypeOf(delivery).toEqualTypeOf<Delivery>()
  }
  // @ts-expect-error: an unknown parameter
  fanfare.deliveries.list({ stat: 'failed' })
  expectTypeOf(fanfare.webhooks.get('wh_1')).resolves.toEqualTypeOf<Webhook>()
  // @ts-expect-error: an unknown field
  await fanfare.webhooks.create({ url: 'https://a.example', events: [], name2: '' })
  if (error.code === 'invalid_url' || error.code === 'timed_out') return
  // @ts-expect-error: an unknown code
  if (error.code === 'invalid') return
  const { data } = await fanfare.http.GET('/api/v1/overview')
  expectTypeOf(data?.data.applications).not.toBeAny()
}

export function receiving(): void {
  const options = { secret: 'whsec_', dialect: 'incenta' } as const
  const event = verify<Events>('', {}, options)
  expectTypeOf(event).toEqualTypeOf<ReceivedEvent<Events>>()
  if (event.type === 'order.cancelled') expectTypeOf(event.data.reason).toEqualTypeOf<string>()
  // @ts-expect-error: only the data of a cancelled order has a reason
  event.data.reason
  // @ts-expect-error: an unknown dialect
  verify('', {}, { secret: 'whsec_', dialect: 'acme' })
  // @ts-expect-error: a parsed body
  verify({}, {}, options)
  expectTypeOf(verify('', new Headers(), options).data).toEqualTypeOf<unknown>()
  for (const handler of [express, fastify, next]) handler<Events>(options, async ({ id }) => void id)
  const route: (request: Request) => Promise<Response> = next<Events>(options, ({ type }) => {
    expectTypeOf(type).toEqualTypeOf<keyof Events>()
  })
  void route
}
