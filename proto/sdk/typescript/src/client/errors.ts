import type { components } from '../openapi.js'

/** A code of Fanfare, or of the client: `aborted`, `network_error`, `timed_out`, `unexpected_answer`. */
export type FanfareErrorCode =
  components['schemas']['ErrorCode'] | 'aborted' | 'network_error' | 'timed_out' | 'unexpected_answer'

export interface FanfareErrorDetails {
  code: FanfareErrorCode
  status?: number | undefined
  field?: string | undefined
  id?: string | undefined
  ids?: readonly string[] | undefined
  retryAfter?: number | undefined
  cause?: unknown
}

/** A failed request. The message names method and path, the fault and the next step. */
export class FanfareError extends Error {
  override readonly name = 'FanfareError'
  /** The code of the fault, for programs. Codes are stable. */
  readonly code: FanfareErrorCode
  /** The status of the answer; `undefined` without an answer. */
  readonly status: number | undefined
  /** The field, parameter or header at fault. */
  readonly field: string | undefined
  /** The `id` for publishing the event again. */
  readonly id: string | undefined
  /** The `id` of each event of a batch, in order, for publishing the batch again. */
  readonly ids: readonly string[] | undefined
  /** The seconds until the next try, from the header `Retry-After`. */
  readonly retryAfter: number | undefined

  constructor(message: string, details: FanfareErrorDetails) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause })
    this.code = details.code
    this.status = details.status
    this.field = details.field
    this.id = details.id
    this.ids = details.ids
    this.retryAfter = details.retryAfter
  }
}
