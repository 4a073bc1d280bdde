import { createHmac } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { SignatureError, verify, type DialectName, type VerifyOptions } from '@fanfare/sdk'
import { Webhook } from 'standardwebhooks'
import { describe, expect, test } from 'vitest'
import { DIALECTS } from '../src/receiving/dialects.js'
import {
  ADMIN_KEY,
  APPLICATION,
  applicationOf,
  connect,
  NO_ADMIN_KEY,
  ownType,
  receiver,
  subscribe,
  until,
  type Received,
} from './support.js'

const fanfare = connect()
const { data: application } = await fanfare.http.GET('/api/v1/applications/{id}', {
  params: { path: { id: APPLICATION } },
})
/** The dialect of the tests' application. */
const dialect = application?.data.dialect as DialectName

function refusal(request: Received, options: VerifyOptions): SignatureError {
  try {
    verify(request.body, request.headers, options)
  } catch (error) {
    expect(error).toBeInstanceOf(SignatureError)
    return error as SignatureError
  }
  throw new Error('the request was accepted')
}

/** A request that Fanfare has sent now. */
async function delivery(client = fanfare, secret?: string) {
  const type = ownType()
  const { url, received } = await receiver()
  const webhook = await subscribe(client, url, [type], secret)
  const data = { total: 49.9, text: 'Grüße, "Jürgen" 🎉', list: [1, null, true] }
  const { id } = await client.publish({ type, data, time: '2026-06-18T12:00:00.000Z' })
  const request = await until('the delivery is received', () => received[0])
  return { id, type, data, request, received, webhook, client, secret: webhook.secret }
}

test('the dialect table agrees with the files of the dialects', () => {
  for (const [name, form] of Object.entries(DIALECTS)) {
    const file = new URL(`../../../../crates/domain/dialects/${name}.toml`, import.meta.url)
    const text = readFileSync(file, 'utf8')
    const places = (/^template = '(.*)'$/m.exec(text)?.[1] ?? '').replace('<cloud_event_attributes>', '')
    const template = JSON.parse(places.replaceAll(/<\w+>/g, '"$&"'))
    const memberOf = Object.fromEntries(Object.entries(template).map(([member, value]) => [value, member]))
    const signature = /^\[signature\]\nheader = "(.*)"(?:\nvalue = "(.*)<signature>")?\n\n/m.exec(text)
    expect({ name, ...form }).toEqual({
      name,
      type: memberOf['<event_type>'],
      time: memberOf['<time>'],
      ...(memberOf['<event_id>'] === undefined ? {} : { id: memberOf['<event_id>'] }),
      ...(signature === null ? {} : { header: signature[1]?.toLowerCase() }),
      ...(signature?.[2] === undefined ? {} : { prefix: signature[2] }),
    })
    expect(memberOf['<data>']).toBe('data')
  }
})

describe('a real delivery', () => {
  test('verifies, as bytes and as text, with headers of Node and of the Fetch API', async () => {
    const { id, type, data, request, secret } = await delivery()
    const headers = new Headers(request.headers as Record<string, string>)
    for (const event of [
      verify(request.body, request.headers, { secret, dialect }),
      verify(new Uint8Array(request.body), headers, { secret, dialect }),
      verify(request.body.toString(), headers, { secret, dialect, signature: 'standard' }),
    ]) {
      expect(event).toMatchObject({ id, type, data, replay: undefined })
      expect(Date.parse(event.time)).toBe(Date.parse('2026-06-18T12:00:00Z'))
      expect(Math.abs(event.attemptedAt.getTime() - Date.now())).toBeLessThan(60_000)
    }
  })

  test('is refused with a wrong secret, a changed body, a changed id or a missing header', async () => {
    const { request, secret } = await delivery()
    const options = { secret, dialect, signature: 'standard' } as const
    const wrong = { ...options, secret: `whsec_${Buffer.alloc(32).toString('base64')}` }
    const reasons = (changed: Partial<Received>, others: VerifyOptions = options) => {
      const { reason, header } = refusal({ ...request, ...changed }, others)
      return [reason, header]
    }
    expect(reasons({}, wrong)).toEqual(['wrong_signature', 'webhook-signature'])
    expect(reasons({ body: Buffer.from(`${request.body} `) })).toEqual(['wrong_signature', 'webhook-signature'])
    const changes: [string, string | undefined, string][] = [
      ['webhook-id', 'evt_other', 'wrong_signature'],
      ['webhook-id', undefined, 'missing_header'],
      ['webhook-timestamp', '12s', 'invalid_header'],
      ['webhook-signature', '', 'missing_header'],
      ['webhook-signature', 'v1,', 'wrong_signature'],
      ['webhook-signature', 'v2,abc v1a', 'wrong_signature'],
    ]
    for (const [name, value, reason] of changes) {
      expect(reasons({ headers: { ...request.headers, [name]: value } })[0], `${name}: ${value}`).toBe(reason)
    }
    expect(refusal(request, wrong).message).not.toContain(secret)
  })

  test('with a repeated header is refused', async () => {
    const { request, secret } = await delivery()
    const headers = { ...request.headers, 'Webhook-Id': 'evt_2' }
    expect(() => verify(request.body, headers, { secret, dialect })).toThrow(
      'the request has the header webhook-id twice',
    )
  })

  test('verifies during a rotation, by the previous and by the new secret', async () => {
    const { webhook, client, received, secret: previous } = await delivery()
    const { secret } = await client.webhooks.rotateSecret(webhook.id)
    const [sent] = (await client.deliveries.list({ webhook: webhook.id }).page()).data
    await client.deliveries.resend(sent?.id as string)
    const request = await until('the resend is received', () => received[1])
    expect(request.headers['webhook-signature']).toMatch(/^v1,\S+ v1,\S+$/)
    for (const known of [previous, secret, ['whsec_b3RoZXI=', secret]]) {
      expect(verify(request.body, request.headers, { secret: known, dialect, signature: 'standard' }).id).toMatch(
        /^evt_/,
      )
    }
  })

  test('verifies by a secret that is no base64, and by a base64 secret without prefix', async () => {
    for (const given of ['not base64!', 'abcdefghi', 'MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw']) {
      const { request, id } = await delivery(fanfare, given)
      expect(verify(request.body, request.headers, { secret: given, dialect, signature: 'standard' }).id).toBe(id)
    }
  })

  test('of another dialect is refused by name', async () => {
    const { request, secret } = await delivery()
    const other = dialect === 'reward' ? 'standard' : 'reward'
    expect(refusal(request, { secret, dialect: other })).toMatchObject({
      reason: 'unexpected_body',
      message: expect.stringContaining(`the application has another dialect than ${other}`),
    })
  })
})

describe('the time', () => {
  const secret = `whsec_${Buffer.alloc(32, 7).toString('base64')}`
  const body = '{"type":"a","timestamp":"2026-06-18T12:00:00.000Z","data":1}'
  const signedAt = (seconds: number): Received => {
    const time = new Date(Date.now() + seconds * 1000)
    const timestamp = String(Math.floor(time.getTime() / 1000))
    const signature = new Webhook(secret).sign('evt_1', time, body)
    const headers = { 'webhook-id': 'evt_1', 'webhook-timestamp': timestamp, 'webhook-signature': signature }
    return { body: Buffer.from(body), headers }
  }

  test('may differ by five minutes', () => {
    for (const seconds of [-295, 0, 295]) {
      const { headers, body } = signedAt(seconds)
      expect(verify(body, headers, { secret }).type).toBe('a')
    }
    expect(refusal(signedAt(-310), { secret })).toMatchObject({ reason: 'too_old', header: 'webhook-timestamp' })
    expect(refusal(signedAt(310), { secret })).toMatchObject({ reason: 'too_new' })
    expect(refusal(signedAt(-310), { secret }).message).toMatch(
      /^webhook-timestamp is 31\d s old, at most 300 s are permitted/,
    )
  })

  test('is checked for the own header of a dialect, too', () => {
    const { headers, body } = signedAt(-310)
    const signature = createHmac('sha256', secret).update(body).digest('hex')
    const request = { headers: { ...headers, 'x-ploints-signature': signature }, body }
    expect(refusal(request, { secret, dialect: 'ploints', signature: 'own' })).toMatchObject({ reason: 'too_old' })
  })
})

describe.for(Object.keys(DIALECTS) as DialectName[])('the dialect %s', (name) => {
  const { header, prefix = '', id: idMember } = DIALECTS[name]
  /** The headers of a request, with another time that the clock permits. */
  const withOtherTime = ({ headers }: Received) => ({
    ...headers,
    'webhook-timestamp': String(Number(headers['webhook-timestamp']) - 1),
  })

  test('verifies by webhook-signature, by default and by name', async ({ skip }) => {
    if (ADMIN_KEY === undefined) return skip(NO_ADMIN_KEY)
    const { id, type, data, request, secret } = await delivery(await applicationOf(name))
    const { [header ?? '']: _, ...withoutOwn } = request.headers
    for (const signature of [undefined, 'standard'] as const) {
      const options = { secret, dialect: name, signature }
      expect(verify(request.body, request.headers, options)).toMatchObject({ id, type, data })
      expect(verify(request.body, withoutOwn, { ...options, secret: ['another', secret] })).toMatchObject({ id })
      const wrong = { reason: 'wrong_signature', header: 'webhook-signature' }
      const withOtherId = { ...request.headers, 'webhook-id': `evt_${'0'.repeat(26)}` }
      expect(refusal({ ...request, headers: withOtherId }, options)).toMatchObject(wrong)
      expect(refusal({ ...request, headers: withOtherTime(request) }, options)).toMatchObject(wrong)
      expect(refusal({ ...request, body: Buffer.from(`${request.body}\n`) }, options)).toMatchObject(wrong)
      expect(refusal(request, { ...options, secret: 'another' })).toMatchObject(wrong)
      const { 'webhook-signature': _, ...headers } = request.headers
      expect(refusal({ ...request, headers }, options)).toMatchObject({
        reason: 'missing_header',
        header: 'webhook-signature',
      })
    }
  })

  test('refuses an id in the body that differs from webhook-id', () => {
    if (idMember === undefined) return
    const secret = `whsec_${Buffer.alloc(32, 7).toString('base64')}`
    const { type, time } = DIALECTS[name]
    const body = JSON.stringify({ [idMember]: 'evt_1', [type]: 'a', [time]: '2026-06-18T12:00:00.000Z', data: 1 })
    const signedAs = (id: string) => {
      const now = new Date()
      const timestamp = String(Math.floor(now.getTime() / 1000))
      const signature = new Webhook(secret).sign(id, now, body)
      return { 'webhook-id': id, 'webhook-timestamp': timestamp, 'webhook-signature': signature }
    }
    expect(verify(body, signedAs('evt_1'), { secret, dialect: name }).id).toBe('evt_1')
    const request = { headers: signedAs('evt_2'), body: Buffer.from(body) }
    expect(refusal(request, { secret, dialect: name })).toMatchObject({ reason: 'id_mismatch' })
  })

  test('verifies by its own header on request, or has none', async ({ skip }) => {
    if (ADMIN_KEY === undefined) return skip(NO_ADMIN_KEY)
    const { id, type, data, request, secret } = await delivery(await applicationOf(name))
    const options = { secret, dialect: name, signature: 'own' } as const
    if (header === undefined) {
      expect(() => verify(request.body, request.headers, options)).toThrow(`the dialect ${name} has no own signature`)
      return
    }
    const changed = (changes: Received['headers']) =>
      refusal({ ...request, headers: { ...request.headers, ...changes } }, options)
    expect(request.headers[header]).toMatch(new RegExp(`^${prefix}[0-9a-f]{64}$`))
    const { 'webhook-signature': _, ...own } = request.headers
    expect(verify(request.body, own, options)).toMatchObject({ id, type, data })
    expect(verify(request.body, own, { ...options, secret: ['another', secret] })).toMatchObject({ id })
    const wrong = { reason: 'wrong_signature', header }
    expect(refusal(request, { ...options, secret: `${secret}x` })).toMatchObject(wrong)
    expect(refusal({ ...request, body: Buffer.from(`${request.body}\n`) }, options)).toMatchObject(wrong)
    expect(changed({ [header]: 'abc' })).toMatchObject({ reason: 'invalid_header', header })
    expect(changed({ [header]: undefined })).toMatchObject({ reason: 'missing_header', header })
    // The own header does not sign the time.
    expect(verify(request.body, withOtherTime(request), options)).toMatchObject({ id })
    if (idMember === undefined) return
    for (const other of ['evt_other', id.replace('evt_', 'other_'), id.replace('evt_', '')]) {
      expect(changed({ 'webhook-id': other }), other).toMatchObject({ reason: 'id_mismatch' })
    }
  })
})

test('invalid options are refused with a sentence', () => {
  const call = (body: unknown, options: unknown) => () => verify(body as string, {}, options as VerifyOptions)
  expect(call('', { secret: '' })).toThrow('`secret` must be the signing secret of the webhook, or a list of secrets')
  expect(call('', { secret: undefined })).toThrow('`secret` must be')
  expect(call('', { secret: [] })).toThrow('`secret` must be')
  expect(call('', { secret: 'whsec_' })).toThrow('`secret` must be')
  expect(call('', { secret: 's', dialect: 'acme' })).toThrow('`dialect` is "acme", and must be a name of: cloudevents, incenta,')
  expect(call('', { secret: 's', signature: 'both' })).toThrow('`signature` must be "own" or "standard"')
  expect(call('', { secret: 's', dialect: 'reward', signature: 'own' })).toThrow(
    'the dialect reward has no own signature',
  )
  expect(call({ parsed: true }, { secret: 's' })).toThrow('`body` must be the exact text or bytes of the request')
})
