import { FanfareError, type FanfareErrorCode } from './errors.js'
import type { Retries } from './retries.js'

/** The manner of a call. */
export interface Manner {
  /** True if a repeat of the request has no further effect. */
  repeatable: boolean
  /** The `id` of the published event, for errors. */
  id?: string | undefined
  /** The `id` of each event of a batch. */
  ids?: readonly string[] | undefined
}

interface Answer {
  status: number
  headers: Headers
  text: string
}

/** Statuses after which a repeatable request is sent again. The request may have taken effect. */
const UNCERTAIN = new Set([408, 502, 503, 504])

/** The reason to abort a try: no answer within `limit` milliseconds. */
class Deadline {
  readonly limit: number

  constructor(limit: number) {
    this.limit = limit
  }
}

/**
 * Creates a `fetch` that repeats a request within the limits, and throws a `FanfareError` unless the answer is a
 * success.
 */
export function fetchWith(retries: Retries, manner: Manner): (request: Request) => Promise<Response> {
  return async (request) => {
    const body = request.body === null ? undefined : await request.text()
    for (;;) {
      let failure: FanfareError
      try {
        const answer = await send(request, body, retries)
        const fault = faultOf(request, answer, manner)
        if (fault === undefined) return new Response(answer.text, { status: answer.status, headers: answer.headers })
        failure = fault
      } catch (error) {
        failure = withoutAnswer(request, error, retries, manner)
      }
      if (!isRetried(failure, manner)) throw failure
      let waited
      try {
        waited = await retries.wait(failure.retryAfter)
      } catch (error) {
        throw withoutAnswer(request, error, retries, manner)
      }
      if (!waited) throw failure
    }
  }
}

async function send(
  request: Request,
  body: string | undefined,
  { limits, remaining, signal }: Retries,
): Promise<Answer> {
  signal?.throwIfAborted()
  const controller = new AbortController()
  const limit = Math.ceil(Math.min(limits.timeout, remaining))
  const timer = setTimeout(() => controller.abort(new Deadline(limit)), limit)
  const abort = () => controller.abort(signal?.reason)
  signal?.addEventListener('abort', abort, { once: true })
  try {
    const { method, headers } = request
    const init = { method, headers, redirect: 'manual' as const, signal: controller.signal }
    const response = await fetch(request.url, body === undefined ? init : { ...init, body })
    return { status: response.status, headers: response.headers, text: await response.text() }
  } catch (error) {
    throw controller.signal.aborted ? controller.signal.reason : error
  } finally {
    clearTimeout(timer)
    signal?.removeEventListener('abort', abort)
  }
}

/** True if a repeat may succeed, and cannot have a second effect. */
function isRetried({ code, status }: FanfareError, { repeatable }: Manner): boolean {
  // Fanfare refuses these requests before any effect. An unfinished replay ends only after minutes or hours.
  if (status === 429) return code !== 'too_many_replays'
  if (code === 'overloaded') return true
  return (
    repeatable &&
    (code === 'network_error' || code === 'timed_out' || (status !== undefined && UNCERTAIN.has(status)))
  )
}

function nameOf(request: Request): string {
  return `${request.method} ${new URL(request.url).pathname}`
}

function withoutAnswer(request: Request, error: unknown, { signal, tries }: Retries, manner: Manner): FanfareError {
  const count = tries === 1 ? '' : ` Sent ${tries} times.`
  const fail = (code: FanfareErrorCode, text: string, cause?: unknown) => {
    const message = `${nameOf(request)}: ${text}.${count}${effectOf(manner)}`
    return new FanfareError(message, { code, id: manner.id, ids: manner.ids, cause })
  }
  if (signal?.aborted) return fail('aborted', 'the caller aborted the request', signal.reason)
  if (error instanceof Deadline) return fail('timed_out', `no answer within ${error.limit} ms`)
  return fail('network_error', `no answer: ${causeOf(error)}. Check \`url\` and the network`, error)
}

/** The warning after a request that may have taken effect, and is not sent again. */
function effectOf({ repeatable }: Manner): string {
  return repeatable ? '' : ' The request may have taken effect: look before you send the request again.'
}

/** The text of the error behind "fetch failed". */
function causeOf(error: unknown): string {
  for (let cause = error; cause instanceof Error; cause = cause.cause) {
    if (cause.cause instanceof Error) continue
    return cause.message || String((cause as { code?: unknown }).code ?? cause.name)
  }
  return String(error)
}

/** The error of an answer; `undefined` for a success. */
function faultOf(request: Request, { status, headers, text }: Answer, manner: Manner): FanfareError | undefined {
  const answer = parse(text)
  const isSuccess = status >= 200 && status < 300
  if (isSuccess && answer?.success === true) return undefined
  const retryAfter = secondsOf(headers.get('retry-after'))
  const error = isSuccess ? undefined : answer?.error
  if (error === undefined) {
    const seen = status >= 300 && status < 400 ? `a redirect to ${headers.get('location')}` : 'no answer of Fanfare'
    const effect = isSuccess || status >= 500 ? effectOf(manner) : ''
    const message = `${nameOf(request)}: status ${status}, ${seen}. Check \`url\` and proxies before Fanfare.${effect}`
    return new FanfareError(message, {
      code: 'unexpected_answer',
      status,
      id: manner.id,
      ids: manner.ids,
      retryAfter,
    })
  }
  const field = error.field === undefined || error.field === null ? '' : ` (${error.field})`
  return new FanfareError(`${nameOf(request)}: ${status} ${error.code}${field}: ${error.message}`, {
    code: error.code,
    status,
    field: error.field ?? undefined,
    id: error.id ?? manner.id,
    ids: manner.ids,
    retryAfter,
  })
}

interface ParsedAnswer {
  success?: unknown
  error?: { code: FanfareErrorCode; message: string; field?: string | null; id?: string | null }
}

function parse(text: string): ParsedAnswer | undefined {
  try {
    const answer: unknown = JSON.parse(text)
    if (typeof answer !== 'object' || answer === null) return undefined
    const { success, error } = answer as ParsedAnswer
    const isError = typeof error?.code === 'string' && typeof error.message === 'string'
    return isError ? { success, error } : { success }
  } catch {
    return undefined
  }
}

/** The seconds of a header `Retry-After`, which is a number or a date. */
function secondsOf(header: string | null): number | undefined {
  if (header === null) return undefined
  if (/^\d+$/.test(header)) return Number(header)
  const time = Date.parse(header)
  return Number.isNaN(time) ? undefined : Math.max(0, Math.ceil((time - Date.now()) / 1000))
}
