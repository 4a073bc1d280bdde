import type { AnyEvents, EventMap } from '../event-map.js'
import { DIALECTS, type DialectForm, type DialectName } from './dialects.js'
import { KeySet } from './key-set.js'
import {
  optionalHeader,
  readHeaders,
  secretsOf,
  SignatureError,
  verifyByKeys,
  verifyOwn,
  verifyStandard,
  type DeliveryHeaders,
  type ReceivedHeaders,
} from './signature.js'

export interface VerifyOptions {
  /** The signing secret of the webhook. During a rotation: the previous and the new secret. */
  secret: string | readonly string[]
  /** The dialect of the application. Default: `standard`. */
  dialect?: DialectName | undefined
  /**
   * The signature to verify. `standard` (default): `webhook-signature`, which signs id, time and body. `own`: the
   * dialect's own header, which signs the body only. `own` is weaker: an attacker can send a copy with a new time.
   */
  signature?: 'own' | 'standard' | undefined
}

export interface VerifyAsymmetricOptions {
  /** The public keys of the application. */
  keys: KeySet
  /** The dialect of the application. Default: `standard`. */
  dialect?: DialectName | undefined
}

/** A verified event, of a type in `Events`. */
export type ReceivedEvent<Events extends EventMap<Events> = AnyEvents> = {
  [Type in keyof Events & string]: {
    /** `webhook-id`, the same at each repeat of the event: recognise repeats by this id. */
    id: string
    type: Type
    data: Events[Type]
    /** The time of the event, RFC 3339. */
    time: string
    /** The time of this attempt. */
    attemptedAt: Date
    /** The id of the replay that sent the event, if any. No signature covers this id. */
    replay: string | undefined
  }
}[keyof Events & string]

/**
 * Verifies a delivery, and returns the event. `body` is the exact text or bytes of the request.
 *
 * Throws a `SignatureError` if the request is no delivery with a right signature.
 */
export function verify<Events extends EventMap<Events> = AnyEvents>(
  body: string | Uint8Array,
  headers: ReceivedHeaders,
  options: VerifyOptions,
): ReceivedEvent<Events> {
  const secrets = secretsOf(options.secret)
  const form = formOf(options)
  const bytes = bytesOf(body)
  const received = readHeaders(headers)
  const isOwn = options.signature === 'own'
  if (isOwn) verifyOwn(bytes, headers, { ...form, header: form.header as string }, secrets)
  else verifyStandard(bytes, headers, received, secrets)
  return eventOf(bytes, headers, received, form, options.dialect)
}

/**
 * Verifies a delivery by the application's public keys, and returns the event. The receiver needs no secret; the webhook
 * needs `asymmetric`.
 *
 * Rejects with a `SignatureError` if the request is no delivery with a right signature. Rejects with a `StaleKeysError`
 * if no key matches and the set could not be fetched again, and with another error if no keys can be fetched: answer with
 * a 503 then, so that Fanfare repeats the delivery.
 */
export async function verifyAsymmetric<Events extends EventMap<Events> = AnyEvents>(
  body: string | Uint8Array,
  headers: ReceivedHeaders,
  options: VerifyAsymmetricOptions,
): Promise<ReceivedEvent<Events>> {
  const keys = keysOf(options)
  const form = formOf({ dialect: options.dialect })
  const bytes = bytesOf(body)
  const received = readHeaders(headers)
  await verifyByKeys(bytes, headers, received, keys)
  return eventOf(bytes, headers, received, form, options.dialect)
}

/** Checks that a key set is given. */
export function keysOf({ keys }: VerifyAsymmetricOptions): KeySet {
  if (!(keys instanceof KeySet)) throw new TypeError('`keys` must be a KeySet: `new KeySet(url)`')
  return keys
}

function eventOf<Events extends EventMap<Events>>(
  bytes: Buffer,
  headers: ReceivedHeaders,
  received: DeliveryHeaders,
  form: DialectForm,
  dialect: DialectName = 'standard',
): ReceivedEvent<Events> {
  const { id, type, time, data } = read(bytes, form, dialect)
  if (id !== undefined && received.id !== `evt_${suffix(id)}`) {
    throw new SignatureError(
      'id_mismatch',
      'webhook-id differs from the id in the body: the header was changed',
      'webhook-id',
    )
  }
  return {
    id: received.id,
    type,
    data,
    time,
    attemptedAt: new Date(Number(received.timestamp) * 1000),
    replay: optionalHeader(headers, 'fanfare-replay'),
  } as ReceivedEvent<Events>
}

/** Checks the options. */
export function formOf({ dialect = 'standard', signature }: Partial<VerifyOptions>): DialectForm {
  if (!Object.hasOwn(DIALECTS, dialect)) {
    const names = Object.keys(DIALECTS).join(', ')
    throw new TypeError(`\`dialect\` is ${JSON.stringify(dialect)}, and must be a name of: ${names}`)
  }
  const form = DIALECTS[dialect]
  if (signature !== undefined && signature !== 'own' && signature !== 'standard') {
    throw new TypeError('`signature` must be "own" or "standard"')
  }
  if (signature === 'own' && form.header === undefined) {
    throw new TypeError(`the dialect ${dialect} has no own signature: use the signature "standard"`)
  }
  return form
}

function bytesOf(body: unknown): Buffer {
  if (typeof body === 'string') return Buffer.from(body)
  if (body instanceof Uint8Array) return Buffer.from(body.buffer, body.byteOffset, body.byteLength)
  throw new TypeError('`body` must be the exact text or bytes of the request, not a parsed body')
}

function read(bytes: Buffer, form: DialectForm, dialect: DialectName) {
  let body: unknown
  try {
    body = JSON.parse(bytes.toString())
  } catch {
    throw new SignatureError('unexpected_body', 'the body is not JSON: the request is no delivery of Fanfare')
  }
  const members = (typeof body === 'object' && body !== null ? body : {}) as Record<string, unknown>
  const textAt = (name: string) => {
    const value = members[name]
    if (typeof value === 'string') return value
    const message = `the body has no text \`${name}\`: the application has another dialect than ${dialect}`
    throw new SignatureError('unexpected_body', message)
  }
  const id = form.id === undefined ? undefined : textAt(form.id)
  return { id, type: textAt(form.type), time: textAt(form.time), data: members.data }
}

/** The part of an event's id behind the prefix: a dialect may have another prefix than `webhook-id`. */
function suffix(id: string): string {
  return id.slice(id.lastIndexOf('_') + 1)
}
