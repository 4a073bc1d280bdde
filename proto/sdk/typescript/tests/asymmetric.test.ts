import { webcrypto } from 'node:crypto'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { pathToFileURL } from 'node:url'
import { KeySet, SignatureError, verify, verifyAsymmetric, type DialectName } from '@fanfare/sdk'
import { webhook as expressWebhook } from '@fanfare/sdk/express'
import express from 'express'
import { createRemoteJWKSet } from 'jose'
import { Webhook } from 'standardwebhooks'
import { expect, test } from 'vitest'
import { API, APPLICATION, connect, listen, ownType, receiver, until } from './support.js'

const fanfare = connect()
const { data: application } = await fanfare.http.GET('/api/v1/applications/{id}', {
  params: { path: { id: APPLICATION } },
})
/** The dialect of the tests' application. */
const dialect = application?.data.dialect as DialectName
const url = `${API}/applications/${APPLICATION}/jwks.json`

/** A request that Fanfare has sent now, to a webhook with asymmetric signatures. */
async function delivery() {
  const type = ownType()
  const { url, received } = await receiver()
  const webhook = await fanfare.webhooks.create({ url, events: [type], asymmetric: true })
  const { id } = await fanfare.publish({ type, data: { text: 'Grüße 🎉' } })
  const request = await until('the delivery is received', () => received[0])
  await fanfare.webhooks.delete(webhook.id)
  const signatures = String(request.headers['webhook-signature']).split(' ')
  return { id, type, request, secret: webhook.secret as string, signatures }
}

/** A key set whose fetches are counted. `answer` replaces the answer. */
function counted(answer?: (fetched: number) => Response) {
  const counts = { fetched: 0 }
  const keys = new KeySet(url, {
    fetch: (input, init) => {
      counts.fetched += 1
      return answer === undefined ? fetch(input, init) : Promise.resolve(answer(counts.fetched))
    },
  })
  return { keys, counts }
}

/** The key set of Fanfare, which has a key once the processes have loaded the first. */
async function published() {
  return until('the key set', async () => {
    const answer = await fetch(url)
    return answer.ok && ((await answer.json()) as { keys: { kid: string }[] })
  })
}

test('a delivery is verified by the public keys, with one fetch', async () => {
  const { id, type, request, secret } = await delivery()
  await published()
  const { keys, counts } = counted()
  for (let times = 0; times < 3; times += 1) {
    const event = await verifyAsymmetric(request.body, request.headers, { keys, dialect })
    expect(event).toMatchObject({ id, type, data: { text: 'Grüße 🎉' } })
  }
  expect(counts.fetched).toBe(1)
  // The same request verifies by the secret, too, here and with the official library.
  expect(verify(request.body, request.headers, { secret, dialect }).id).toBe(id)
  new Webhook(secret).verify(request.body, request.headers as Record<string, string>, { jsonParse: false })
})

test('a client of key sets from npm finds the key, and WebCrypto verifies', async () => {
  const { request, signatures } = await delivery()
  const { keys } = await published()
  const find = createRemoteJWKSet(new URL(url))
  const { 'webhook-id': id, 'webhook-timestamp': seconds } = request.headers
  const signed = Buffer.concat([Buffer.from(`${id}.${seconds}.`), request.body])
  const results = []
  for (const { kid } of keys) {
    const key = await find({ alg: 'EdDSA', kid })
    for (const part of signatures.filter((part) => part.startsWith('v1a,'))) {
      const signature = Buffer.from(part.slice(4), 'base64')
      results.push(await webcrypto.subtle.verify('Ed25519', key as webcrypto.CryptoKey, signature, signed))
    }
  }
  expect(results).toContain(true)
})

test('a changed request is refused, and a foreign key set is fetched again once a minute', async () => {
  const { request } = await delivery()
  await published()
  const refusal = async (body: Buffer, headers = request.headers, of = counted().keys) =>
    verifyAsymmetric(body, headers, { keys: of, dialect }).then(
      () => undefined,
      (error: unknown) => error as SignatureError,
    )
  const changed = Buffer.concat([request.body, Buffer.from(' ')])
  expect(await refusal(changed)).toMatchObject({ name: 'SignatureError', reason: 'wrong_signature' })
  const other = { ...request.headers, 'webhook-id': 'evt_00000000000000000000000000' }
  expect(await refusal(request.body, other)).toMatchObject({ reason: 'wrong_signature' })
  const v1 = String(request.headers['webhook-signature']).split(' ').filter((part) => part.startsWith('v1,'))
  const without = { ...request.headers, 'webhook-signature': v1.join(' ') }
  expect(await refusal(request.body, without)).toMatchObject({ reason: 'invalid_header' })

  const x = '11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo'
  const foreign = counted(() => Response.json({ keys: [{ kty: 'OKP', crv: 'Ed25519', x }, { kty: 'RSA' }] }))
  expect(await refusal(request.body, request.headers, foreign.keys)).toMatchObject({ reason: 'wrong_signature' })
  for (let times = 0; times < 4; times += 1) {
    expect(await refusal(request.body, request.headers, foreign.keys)).toMatchObject({ name: 'StaleKeysError' })
  }
  expect(foreign.counts.fetched).toBe(1)
})

test('without keys the error is none of the request', async () => {
  const { request } = await delivery()
  const away = counted(() => new Response('', { status: 503 }))
  const verifying = verifyAsymmetric(request.body, request.headers, { keys: away.keys, dialect })
  await expect(verifying).rejects.toThrow('answered 503')
  const again = verifyAsymmetric(request.body, request.headers, { keys: away.keys, dialect })
  await expect(again).rejects.toThrow('answered 503')
  expect(away.counts.fetched).toBe(1)
  const wrong = counted(() => Response.json({}))
  const reading = verifyAsymmetric(request.body, request.headers, { keys: wrong.keys, dialect })
  await expect(reading).rejects.toThrow('no key set')
  await expect(verifyAsymmetric('', {}, {} as never)).rejects.toThrow('`keys` must be a KeySet')
})

test('a handler verifies by the keys', async () => {
  const { id, request } = await delivery()
  await published()
  const handled: string[] = []
  const app = express()
  app.post('/hooks', expressWebhook({ keys: new KeySet(url), dialect }, (event) => void handled.push(event.id)))
  const address = await listen(app)
  const headers = Object.entries(request.headers).filter(([name]) => name.startsWith('webhook-')) as [string, string][]
  const send = (body: string) => fetch(`${address}/hooks`, { method: 'POST', headers, body })
  expect((await send(request.body.toString())).status).toBe(204)
  // The key set is older than the request: a new key may be missing.
  expect((await send('{}')).status).toBe(503)
  expect(handled).toEqual([id])
})

test('the recipe of proto/signatures.md verifies', async () => {
  const { request } = await delivery()
  await published()
  const page = readFileSync(new URL('../../../signatures.md', import.meta.url), 'utf8')
  const code = /^```js\n(.*?)^```$/ms.exec(page)?.[1] ?? ''
  // Within the package, so that the recipe finds jose.
  const folder = new URL('../node_modules/.recipes/', import.meta.url)
  mkdirSync(folder, { recursive: true })
  const file = new URL('signatures.mjs', folder)
  writeFileSync(file, code)
  process.env.KEY_SET = url
  const { verifies } = (await import(/* @vite-ignore */ pathToFileURL(file.pathname).href)) as {
    verifies: (headers: object, body: Buffer) => Promise<boolean>
  }
  expect(await verifies(request.headers, request.body)).toBe(true)
  expect(await verifies(request.headers, Buffer.from('{}'))).toBe(false)
  for (const headers of [{ 'webhook-timestamp': '1' }, { 'webhook-signature': undefined }, { 'webhook-signature': 'v1a,ä' }]) {
    expect(await verifies({ ...request.headers, ...headers }, request.body)).toBe(false)
  }
})
