import { createPublicKey, verify as verifySignature, type JsonWebKey, type KeyObject } from 'node:crypto'

/** The time for which a key set is used, and the least time between two fetches, in milliseconds. */
const CACHED = 300_000
const REFETCH_AFTER = 60_000

/** The time for which a key set is used while its address does not answer, in milliseconds. */
const KEPT = 3_600_000

/** The least time between two fetches without keys to use, in milliseconds. */
const BACK_OFF = 10_000

const TIMEOUT = 10_000

export interface KeySetOptions {
  /** Another `fetch`, for example behind a proxy. */
  fetch?: typeof fetch | undefined
}

/** No key matches, and the key set is older than the request: a new key may be missing. Answer with a 503. */
export class StaleKeysError extends Error {
  override readonly name = 'StaleKeysError'
}

/**
 * The public keys of an application, fetched from its address and kept for five minutes. Make one for the process.
 *
 * A request without a right signature makes a new fetch, at most once a minute. While the address does not answer, the
 * last keys stay in use for an hour.
 */
export class KeySet {
  readonly #url: string
  readonly #fetch: typeof fetch
  #keys: KeyObject[] = []
  #fetchedAt = -Infinity
  #triedAt = -Infinity
  #error: unknown
  #fetching: Promise<void> | undefined

  /** `url` is the address of the application's `jwks.json`. */
  constructor(url: string | URL, options: KeySetOptions = {}) {
    this.#url = new URL(url).href
    this.#fetch = options.fetch ?? fetch
  }

  /**
   * True if one of the signatures is right for the text. Rejects with a `StaleKeysError` if no key matches and the set
   * could not be fetched again, and with another error if no keys can be fetched.
   */
  async verifies(signed: Uint8Array, signatures: readonly Uint8Array[]): Promise<boolean> {
    const askedAt = performance.now()
    if (isAnyRight(await this.#current(CACHED), signed, signatures)) return true
    if (this.#fetchedAt >= askedAt) return false
    if (isAnyRight(await this.#current(REFETCH_AFTER), signed, signatures)) return true
    if (this.#fetchedAt >= askedAt) return false
    throw new StaleKeysError(
      'no key matches, and the key set was not fetched since the request: answer with a 503, so that Fanfare repeats ' +
        'the delivery',
    )
  }

  /** The keys, fetched again if older than `maxAge`. Requests at the same time share a fetch. */
  async #current(maxAge: number): Promise<KeyObject[]> {
    const now = performance.now()
    const age = now - this.#fetchedAt
    if (age < maxAge) return this.#keys
    const isUsable = age < KEPT
    if (this.#fetching === undefined) {
      const sinceTry = now - this.#triedAt
      if (isUsable && sinceTry < REFETCH_AFTER) return this.#keys
      if (!isUsable && sinceTry < BACK_OFF) throw this.#error
      this.#triedAt = now
      this.#fetching = this.#load(maxAge < CACHED).finally(() => (this.#fetching = undefined))
    }
    try {
      await this.#fetching
    } catch (error) {
      this.#error = error
      if (!isUsable) throw error
    }
    return this.#keys
  }

  /** Fetches the keys. A set without a match is fetched past the caches. */
  async #load(isPastCaches: boolean): Promise<void> {
    const begunAt = performance.now()
    const headers: Record<string, string> = isPastCaches ? { 'cache-control': 'no-cache' } : {}
    const answer = await this.#fetch(this.#url, { headers, signal: AbortSignal.timeout(TIMEOUT) })
    if (!answer.ok) throw new Error(`${this.#url} answered ${answer.status}: check the URL of the application's jwks.json`)
    this.#keys = parse(await answer.json(), this.#url)
    this.#fetchedAt = begunAt
  }
}

/** The Ed25519 keys of a key set. Other keys are left out. */
function parse(document: unknown, url: string): KeyObject[] {
  const keys = (document as { keys?: unknown } | null)?.keys
  if (!Array.isArray(keys)) throw new Error(`${url} has no key set: check the URL of the application's jwks.json`)
  return (keys as JsonWebKey[])
    .filter((key) => key?.kty === 'OKP' && key.crv === 'Ed25519')
    .map((key) => createPublicKey({ key, format: 'jwk' }))
}

function isAnyRight(keys: readonly KeyObject[], signed: Uint8Array, signatures: readonly Uint8Array[]): boolean {
  return keys.some((key) => signatures.some((signature) => verifySignature(null, signed, key, signature)))
}
