import { inspect } from 'node:util'
import type { AnyEvents, EventMap } from '../event-map.js'
import { StaleKeysError } from './key-set.js'
import { secretsOf, SignatureError, type ReceivedHeaders } from './signature.js'
import {
  formOf,
  keysOf,
  verify,
  verifyAsymmetric,
  type ReceivedEvent,
  type VerifyAsymmetricOptions,
  type VerifyOptions,
} from './verify.js'

/** The secret of the webhook, or the public keys of the application. */
export type HandlerOptions = (VerifyOptions | VerifyAsymmetricOptions) & {
  /** The longest body, in bytes. Default: 1 MiB. */
  limit?: number | undefined
}

/** Verifies a request by the secret or by the keys. */
export async function verified<Events extends EventMap<Events>>(
  body: string | Uint8Array,
  headers: ReceivedHeaders,
  options: HandlerOptions,
): Promise<ReceivedEvent<Events>> {
  return 'keys' in options ? verifyAsymmetric<Events>(body, headers, options) : verify<Events>(body, headers, options)
}

/**
 * Handles an event. The delivery succeeds when the function returns. If the function throws, the framework answers with
 * a 500, and Fanfare repeats the delivery.
 */
export type EventHandler<Events extends EventMap<Events> = AnyEvents> = (
  event: ReceivedEvent<Events>,
) => void | Promise<void>

export const DEFAULT_LIMIT = 1024 * 1024

/** A body beyond the limit. */
export class BodyTooLarge extends Error {}

/** The answer to a refused request, for the record of the attempt in Fanfare. */
export interface Refusal {
  status: number
  body: { error: { code: string; message: string } }
}

/** Refuses invalid options when the application starts. */
export function checkOptions(options: HandlerOptions): void {
  if ('keys' in options) keysOf(options)
  else secretsOf(options.secret)
  formOf(options)
  const { limit = DEFAULT_LIMIT } = options
  if (!Number.isSafeInteger(limit) || limit < 1) {
    throw new TypeError(`\`limit\` is ${limit}, and must be a whole number of bytes from 1`)
  }
}

/**
 * Calls the function. A framework answers with `status` or `statusCode` of an error, and a 4xx may end the delivery or
 * disable the webhook. Such an error, or a thrown value that is no error, becomes the `cause` of a plain error.
 */
export async function callHandler<Events extends EventMap<Events>>(
  handle: EventHandler<Events>,
  event: ReceivedEvent<Events>,
): Promise<void> {
  try {
    await handle(event)
  } catch (error) {
    const isError = error instanceof Error
    if (isError && !('status' in error) && !('statusCode' in error)) throw error
    const plain = new Error(isError ? error.message : inspect(error), { cause: error })
    // Frameworks print the stack, and not the cause.
    if (isError && error.stack !== undefined) plain.stack = error.stack
    throw plain
  }
}

/** The answer to a fault of the request or to old keys; `undefined` for any other error. */
export function refusalOf(error: unknown): Refusal | undefined {
  if (error instanceof SignatureError) {
    return { status: 400, body: { error: { code: error.reason, message: error.message } } }
  }
  // A 4xx may end the delivery, and the next attempt may find the key.
  if (error instanceof StaleKeysError) {
    return { status: 503, body: { error: { code: 'stale_keys', message: error.message } } }
  }
  if (error instanceof BodyTooLarge) {
    return { status: 413, body: { error: { code: 'body_too_large', message: error.message } } }
  }
  return undefined
}

/** Reads a body of at most `limit` bytes. */
export async function readBody(
  chunks: AsyncIterable<Uint8Array> | null,
  contentLength: string | null | undefined,
  limit: number = DEFAULT_LIMIT,
): Promise<Buffer> {
  const tooLarge = () => new BodyTooLarge(`the body has more than ${limit} bytes: raise \`limit\` of the handler`)
  if (Number(contentLength ?? 0) > limit) throw tooLarge()
  const read: Uint8Array[] = []
  let length = 0
  for await (const chunk of chunks ?? []) {
    length += chunk.byteLength
    if (length > limit) throw tooLarge()
    read.push(chunk)
  }
  return Buffer.concat(read)
}
