import { createHmac, timingSafeEqual } from 'node:crypto'
import { Webhook, WebhookVerificationError } from 'standardwebhooks'
import type { DialectForm } from './dialects.js'
import type { KeySet } from './key-set.js'

/** The reason why a request is refused. */
export type SignatureErrorReason =
  'missing_header' | 'invalid_header' | 'too_old' | 'too_new' | 'wrong_signature' | 'id_mismatch' | 'unexpected_body'

/** A request that is no delivery with a right signature. The message names the fault and the next step. */
export class SignatureError extends Error {
  override readonly name = 'SignatureError'
  readonly reason: SignatureErrorReason
  /** The header at fault, if any. */
  readonly header: string | undefined

  constructor(reason: SignatureErrorReason, message: string, header?: string) {
    super(message)
    this.reason = reason
    this.header = header
  }
}

/** Headers as an object of Node or a framework, or as `Headers` of the Fetch API. */
export type ReceivedHeaders = Headers | Readonly<Record<string, string | readonly string[] | undefined>>

/** The largest difference between `webhook-timestamp` and the clock, in seconds: the bound of Standard Webhooks. */
const TOLERANCE = 300

/** Headers that each delivery has. */
export interface DeliveryHeaders {
  id: string
  timestamp: string
}

/** Checks that secrets are given, and returns the secrets as a list. */
export function secretsOf(secret: string | readonly string[]): readonly string[] {
  const secrets = typeof secret === 'string' ? [secret] : secret
  const isSound = Array.isArray(secrets) && secrets.length > 0 && secrets.every(isText)
  if (!isSound) throw new TypeError('`secret` must be the signing secret of the webhook, or a list of secrets')
  return secrets
}

function isText(value: unknown): boolean {
  return typeof value === 'string' && value !== '' && value !== 'whsec_'
}

/** Reads `webhook-id` and `webhook-timestamp`, and refuses a time beyond the tolerance. */
export function readHeaders(headers: ReceivedHeaders): DeliveryHeaders {
  const id = headerOf(headers, 'webhook-id')
  const timestamp = headerOf(headers, 'webhook-timestamp')
  if (!/^\d{1,15}$/.test(timestamp)) {
    throw new SignatureError(
      'invalid_header',
      'webhook-timestamp is no time in seconds: the request is no delivery of Fanfare, or was changed',
      'webhook-timestamp',
    )
  }
  const age = Math.floor(Date.now() / 1000) - Number(timestamp)
  if (Math.abs(age) > TOLERANCE) {
    const [reason, seen] = age > 0 ? (['too_old', 'old'] as const) : (['too_new', 'in the future'] as const)
    throw new SignatureError(
      reason,
      `webhook-timestamp is ${Math.abs(age)} s ${seen}, at most ${TOLERANCE} s are permitted: ` +
        "check this machine's clock; perhaps the request is a copy of an earlier request",
      'webhook-timestamp',
    )
  }
  return { id, timestamp }
}

/** Verifies `webhook-signature` with the library of Standard Webhooks. */
export function verifyStandard(
  body: Buffer,
  headers: ReceivedHeaders,
  { id, timestamp }: DeliveryHeaders,
  secrets: readonly string[],
): void {
  const signature = headerOf(headers, 'webhook-signature')
  const received = { 'webhook-id': id, 'webhook-timestamp': timestamp, 'webhook-signature': signature }
  const verifies = (webhook: Webhook) => {
    try {
      webhook.verify(body, received, { jsonParse: false })
      return true
    } catch (error) {
      if (error instanceof WebhookVerificationError) return false
      throw error
    }
  }
  if (!secrets.map(webhookOf).some(verifies)) throw wrongSignature('webhook-signature')
}

/** Verifies the asymmetric signatures (`v1a`) in `webhook-signature` by the application's public keys. */
export async function verifyByKeys(
  body: Buffer,
  headers: ReceivedHeaders,
  { id, timestamp }: DeliveryHeaders,
  keys: KeySet,
): Promise<void> {
  const parts = headerOf(headers, 'webhook-signature').split(' ')
  const encoded = parts.filter((part) => part.startsWith('v1a,')).map((part) => part.slice(4))
  const signatures = encoded.map((text) => Buffer.from(text, 'base64')).filter((bytes) => bytes.length === 64)
  if (signatures.length === 0) {
    throw new SignatureError(
      'invalid_header',
      'webhook-signature has no asymmetric signature `v1a,<base64>`: turn on `asymmetric` for the webhook',
      'webhook-signature',
    )
  }
  const signed = Buffer.concat([Buffer.from(`${id}.${timestamp}.`), body])
  if (!(await keys.verifies(signed, signatures))) {
    throw new SignatureError(
      'wrong_signature',
      'webhook-signature has no right asymmetric signature of the body: pass the exact bytes, and the key set of ' +
        'the application',
      'webhook-signature',
    )
  }
}

/** Verifies the dialect's own header: HMAC-SHA256 over the body, by the whole text of the secret. */
export function verifyOwn(
  body: Buffer,
  headers: ReceivedHeaders,
  { header, prefix = '' }: DialectForm & { header: string },
  secrets: readonly string[],
): void {
  const signature = headerOf(headers, header)
  if (!signature.startsWith(prefix) || !/^[0-9a-f]{64}$/.test(signature.slice(prefix.length))) {
    const message = `${header} is not ${prefix}<64 hexadecimal digits>: check the dialect of the application`
    throw new SignatureError('invalid_header', message, header)
  }
  const given = Buffer.from(signature.slice(prefix.length), 'hex')
  const verifies = (secret: string) => timingSafeEqual(given, createHmac('sha256', secret).update(body).digest())
  if (!secrets.some(verifies)) throw wrongSignature(header)
}

function wrongSignature(header: string): SignatureError {
  return new SignatureError(
    'wrong_signature',
    `${header} has no right signature of the body: pass the exact bytes, and the secret of this webhook`,
    header,
  )
}

/**
 * The verifier of a secret. A secret that was given at the webhook's creation, and is no base64, is itself the key.
 */
function webhookOf(secret: string): Webhook {
  const encoded = secret.replace(/^whsec_/, '')
  const isBase64 = Buffer.from(encoded, 'base64').toString('base64') === encoded
  return isBase64 ? new Webhook(secret) : new Webhook(secret, { format: 'raw' })
}

/** A header in any case of letters, given once. */
export function optionalHeader(headers: ReceivedHeaders, name: string): string | undefined {
  if (typeof headers.get === 'function') return (headers as Headers).get(name) ?? undefined
  const values = Object.entries(headers as Record<string, string | readonly string[] | undefined>)
    .filter(([key]) => key.toLowerCase() === name)
    .flatMap(([, value]) => value ?? [])
  if (values.length > 1) throw new SignatureError('invalid_header', `the request has the header ${name} twice`, name)
  return values[0]
}

function headerOf(headers: ReceivedHeaders, name: string): string {
  const value = optionalHeader(headers, name)
  if (value === undefined || value === '') {
    const message = `the request lacks the header ${name}: check the dialect, and proxies before this receiver`
    throw new SignatureError('missing_header', message, name)
  }
  return value
}
