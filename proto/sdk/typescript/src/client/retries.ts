import { setTimeout as sleep } from 'node:timers/promises'

/** Limits of a call. Times are in milliseconds. */
export interface CallLimits {
  /** The most repeats of a request. Default: 5. */
  retries?: number | undefined
  /** The deadline of each try. Default: 30 s; 75 s for a test of a webhook. */
  timeout?: number | undefined
  /** The deadline of all tries and waits together. Default: 120 s. */
  totalTimeout?: number | undefined
}

export type Limits = { [name in keyof CallLimits]-?: number }

export const DEFAULT_LIMITS: Limits = { retries: 5, timeout: 30_000, totalTimeout: 120_000 }

const FIRST_WAIT = 250
const LONGEST_WAIT = 10_000
/** The longest delay of a timer in Node. */
const LONGEST_TIMER = 2_147_483_647

/** Applies the limits given in `changes`, and refuses invalid limits. */
export function limitsOf(defaults: Limits, changes: CallLimits): Limits {
  const limits = { ...defaults }
  for (const name of ['retries', 'timeout', 'totalTimeout'] as const) {
    const value = changes[name]
    if (value === undefined) continue
    const isValid = name === 'retries' ? Number.isInteger(value) && value >= 0 : value > 0 && value <= LONGEST_TIMER
    if (!isValid) {
      const range =
        name === 'retries' ? 'a whole number from 0' : `milliseconds, more than 0 and at most ${LONGEST_TIMER}`
      throw new TypeError(`\`${name}\` is ${value}, and must be ${range}`)
    }
    limits[name] = value
  }
  return limits
}

/** The repeats of a call: counts tries, and waits between tries with exponential backoff and jitter. */
export class Retries {
  readonly limits: Limits
  readonly signal: AbortSignal | undefined
  tries = 1
  private readonly end: number

  constructor(limits: Limits, signal: AbortSignal | undefined) {
    this.limits = limits
    this.signal = signal
    this.end = performance.now() + limits.totalTimeout
  }

  /** The milliseconds until the deadline of all tries. */
  get remaining(): number {
    return Math.max(0, this.end - performance.now())
  }

  /**
   * Waits before the next try, at least `retryAfter` seconds. Returns false at once if no try is left, or if the wait
   * would last beyond the deadline. Rejects if the signal aborts.
   */
  async wait(retryAfter: number | undefined): Promise<boolean> {
    const ceiling = Math.min(LONGEST_WAIT, FIRST_WAIT * 2 ** (this.tries - 1))
    const backoff = ceiling * (0.5 + Math.random() / 2)
    const wait = retryAfter === undefined ? backoff : retryAfter * 1000 + backoff
    if (this.tries > this.limits.retries || wait >= this.remaining) return false
    await sleep(wait, undefined, this.signal === undefined ? {} : { signal: this.signal })
    this.tries += 1
    return true
  }
}
