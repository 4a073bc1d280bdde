import createClient, { type Client } from 'openapi-fetch'
import type { operations, paths } from '../openapi.js'
import { DEFAULT_LIMITS, limitsOf, Retries, type CallLimits, type Limits } from './retries.js'
import { fetchWith, type Manner } from './transport.js'

/** Options of each call. */
export interface CallOptions extends CallLimits {
  /** Aborts the call, also while the call waits for the next try. */
  signal?: AbortSignal | undefined
  /** The application of this call, for an admin key. Default: the client's application. */
  application?: string | undefined
}

export interface FanfareOptions extends CallLimits {
  /** The address of the API, with or without `/api/v1`. */
  url: string
  /** An API key. */
  key: string
  /** The application of all calls, for an admin key. Other keys belong to an application. */
  application?: string | undefined
}

/** The query parameters of an operation, without `application`. */
export type QueryOf<O extends keyof operations> = Omit<
  NonNullable<operations[O]['parameters']['query']>,
  'application'
>

/** Sends the requests of a client. */
export class Calls {
  readonly http: Client<paths>
  private readonly application: string | undefined
  private readonly limits: Limits

  constructor(options: FanfareOptions) {
    const { url, key, application } = options
    // `fetch` would print an invalid header, and thereby the key, in an error.
    if (typeof key !== 'string' || !/^[\x21-\x7e]+$/.test(key)) {
      throw new TypeError('`key` must be an API key of Fanfare: visible ASCII characters without white space')
    }
    this.application = application
    this.limits = limitsOf(DEFAULT_LIMITS, options)
    this.http = createClient<paths>({
      baseUrl: baseUrl(url),
      headers: { authorization: `Bearer ${key}` },
      fetch: (request) =>
        fetchWith(new Retries(this.limits, request.signal), { repeatable: request.method === 'GET' })(request),
    })
  }

  /** The repeats of a call. */
  retries(options: CallOptions): Retries {
    return new Retries(limitsOf(this.limits, options), options.signal)
  }

  /** The part of a request that sends and repeats the request. By default a request is sent once if not read-only. */
  send(options: CallOptions, manner: Manner, retries = this.retries(options)) {
    return { fetch: fetchWith(retries, manner) }
  }

  /** Query parameters together with the application. */
  query<Q extends object>(options: CallOptions, query?: Q): Q & { application?: string } {
    const application = options.application ?? this.application
    return { ...(query as Q), ...(application === undefined ? {} : { application }) }
  }

  /** Path parameter and application. Refuses an empty text and dots, which would be another path. */
  at<N extends string>(name: N, value: string, options: CallOptions) {
    if (typeof value !== 'string' || /^\.{0,2}$/.test(value)) {
      throw new TypeError(`\`${name}\` is ${JSON.stringify(value)}, and must be an id or a name`)
    }
    return { path: { [name]: value } as Record<N, string>, query: this.query(options) }
  }
}

export const ONCE: Manner = { repeatable: false }
export const REPEATABLE: Manner = { repeatable: true }

/** Unwraps `data` of an answer. A failed call has already thrown. */
export async function dataOf<T>(answer: Promise<{ data?: { data: T } }>): Promise<T> {
  return (await pageOf(answer)).data
}

/** The body of an answer. A failed call has already thrown. */
export async function pageOf<T>(answer: Promise<{ data?: T }>): Promise<T> {
  return (await answer).data as T
}

function baseUrl(text: string): string {
  let url: URL
  try {
    url = new URL(text)
  } catch {
    throw new TypeError('`url` must be the address of the API, such as https://fanfare.example.com/api/v1')
  }
  if (url.protocol !== 'https:' && url.protocol !== 'http:') throw new TypeError('`url` must use https or http')
  if (url.username !== '' || url.password !== '' || url.search !== '' || url.hash !== '') {
    throw new TypeError('`url` must have no user, password, query or fragment')
  }
  return url.href.replace(/\/+$/, '').replace(/\/api\/v1$/, '')
}
