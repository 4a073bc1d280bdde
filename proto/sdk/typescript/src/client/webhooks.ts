import { dataOf, ONCE, pageOf, REPEATABLE, type CallOptions, type Calls, type QueryOf } from './calls.js'
import { Pages } from './pages.js'
import type {
  DayDigest,
  Deleted,
  FeedPage,
  FilterTest,
  NewFilterTest,
  NewTemplateTest,
  NewWebhook,
  ResumedKeys,
  Rotated,
  SecretRotation,
  NewTest,
  TemplateTest,
  TestResult,
  WaitingKey,
  Webhook,
  WebhookChange,
  WebhookTemplate,
} from './schemas.js'

/** Time for the answer of a feed beyond its wait for an entry. */
const FEED_MARGIN = 30_000

/** A webhook may take 60 s to answer a test. */
const TEST_TIMEOUT = 75_000

/** Webhooks: the endpoints of an application. */
export class Webhooks {
  private readonly calls: Calls

  constructor(calls: Calls) {
    this.calls = calls
  }

  /** Creates a webhook. The answer alone shows `secret`. */
  async create(webhook: NewWebhook, options: CallOptions = {}): Promise<Webhook> {
    const params = { query: this.calls.query(options) }
    return dataOf(
      this.calls.http.POST('/api/v1/webhooks', { params, body: webhook, ...this.calls.send(options, ONCE) }),
    )
  }

  list(query: QueryOf<'list_webhooks'> = {}, options: CallOptions = {}): Pages<Webhook> {
    return new Pages((before = query.before) => {
      const params = { query: this.calls.query(options, { ...query, before }) }
      return pageOf(this.calls.http.GET('/api/v1/webhooks', { params, ...this.calls.send(options, REPEATABLE) }))
    })
  }

  async get(id: string, options: CallOptions = {}): Promise<Webhook> {
    const params = this.calls.at('id', id, options)
    return dataOf(this.calls.http.GET('/api/v1/webhooks/{id}', { params, ...this.calls.send(options, REPEATABLE) }))
  }

  /** Changes a webhook. Omitted fields keep their value. */
  async change(id: string, change: WebhookChange, options: CallOptions = {}): Promise<Webhook> {
    const params = this.calls.at('id', id, options)
    return dataOf(
      this.calls.http.PATCH('/api/v1/webhooks/{id}', {
        params,
        body: change,
        ...this.calls.send(options, ONCE),
      }),
    )
  }

  async delete(id: string, options: CallOptions = {}): Promise<Deleted> {
    const params = this.calls.at('id', id, options)
    return dataOf(this.calls.http.DELETE('/api/v1/webhooks/{id}', { params, ...this.calls.send(options, ONCE) }))
  }

  /** Rotates the signing secret. The answer alone shows the new secret. */
  async rotateSecret(id: string, rotation: SecretRotation = {}, options: CallOptions = {}): Promise<Rotated> {
    const params = this.calls.at('id', id, options)
    return dataOf(
      this.calls.http.POST('/api/v1/webhooks/{id}/rotate-secret', {
        params,
        body: rotation,
        ...this.calls.send(options, ONCE),
      }),
    )
  }

  /** Ends the overlap of a rotation: from now on, only the new secret signs. */
  async endRotation(id: string, options: CallOptions = {}): Promise<Webhook> {
    const params = this.calls.at('id', id, options)
    return dataOf(
      this.calls.http.POST('/api/v1/webhooks/{id}/end-rotation', { params, ...this.calls.send(options, ONCE) }),
    )
  }

  /** Lists the ordering keys that wait at a webhook with `fifo`, in the order of keys. */
  orderingKeys(id: string, query: QueryOf<'list_ordering_keys'> = {}, options: CallOptions = {}): Pages<WaitingKey> {
    const { path } = this.calls.at('id', id, options)
    return new Pages((before = query.before) => {
      const params = { path, query: this.calls.query(options, { ...query, before }) }
      return pageOf(
        this.calls.http.GET('/api/v1/webhooks/{id}/ordering-keys', {
          params,
          ...this.calls.send(options, REPEATABLE),
        }),
      )
    })
  }

  /** Resumes a parked ordering key, or without a key all: the next deliveries are sent. */
  async resumeKeys(id: string, key?: string, options: CallOptions = {}): Promise<ResumedKeys> {
    const params = this.calls.at('id', id, options)
    return dataOf(
      this.calls.http.POST('/api/v1/webhooks/{id}/ordering-keys/resume', {
        params,
        body: key === undefined ? {} : { key },
        ...this.calls.send(options, ONCE),
      }),
    )
  }

  /** Tries a filter on the last events. */
  async testFilter(test: NewFilterTest, options: CallOptions = {}): Promise<FilterTest> {
    const params = { query: this.calls.query(options) }
    const sent = this.calls.send(options, REPEATABLE)
    return dataOf(this.calls.http.POST('/api/v1/webhooks/filter-test', { params, body: test, ...sent }))
  }

  /** Renders a body template on the last events. */
  async testTemplate(test: NewTemplateTest, options: CallOptions = {}): Promise<TemplateTest> {
    const params = { query: this.calls.query(options) }
    const sent = this.calls.send(options, REPEATABLE)
    return dataOf(this.calls.http.POST('/api/v1/webhooks/template-test', { params, body: test, ...sent }))
  }

  /** Lists templates to begin with, for Slack, Teams, Discord, PagerDuty and Zapier. */
  async templates(options: CallOptions = {}): Promise<WebhookTemplate[]> {
    const params = { query: this.calls.query(options) }
    return dataOf(this.calls.http.GET('/api/v1/webhook-templates', { params, ...this.calls.send(options, REPEATABLE) }))
  }

  /** Counts the deliveries of a UTC day, to compare them with a daily digest. Default: the last day with a digest. */
  async digest(id: string, query: QueryOf<'show_digest'> = {}, options: CallOptions = {}): Promise<DayDigest> {
    const { path } = this.calls.at('id', id, options)
    const params = { path, query: this.calls.query(options, query) }
    return dataOf(
      this.calls.http.GET('/api/v1/webhooks/{id}/digest', { params, ...this.calls.send(options, REPEATABLE) }),
    )
  }

  /** Reads a page of a webhook's feed. `after` is the `next` of the last page, `wait` up to 20 s for an entry. */
  async feed(id: string, query: QueryOf<'read_feed'> = {}, options: CallOptions = {}): Promise<FeedPage> {
    const { path } = this.calls.at('id', id, options)
    const params = { path, query: this.calls.query(options, query) }
    const timeout = options.timeout ?? (query.wait ?? 0) * 1000 + FEED_MARGIN
    const sent = this.calls.send({ ...options, timeout }, REPEATABLE)
    // The types of openapi-fetch lose the length of the pairs in a list.
    return pageOf(this.calls.http.GET('/api/v1/webhooks/{id}/feed', { params, ...sent })) as Promise<FeedPage>
  }

  /** Sends a test event, and returns request, response and times. */
  async test(id: string, test: NewTest = {}, options: CallOptions = {}): Promise<TestResult> {
    const params = this.calls.at('id', id, options)
    const sent = this.calls.send({ ...options, timeout: options.timeout ?? TEST_TIMEOUT }, ONCE)
    // The types of openapi-fetch lose the length of the pairs in a list.
    return dataOf(
      this.calls.http.POST('/api/v1/webhooks/{id}/test', { params, body: test, ...sent }),
    ) as Promise<TestResult>
  }

  /** Enables a webhook. Held deliveries are sent. */
  async enable(id: string, options: CallOptions = {}): Promise<Webhook> {
    const params = this.calls.at('id', id, options)
    return dataOf(this.calls.http.POST('/api/v1/webhooks/{id}/enable', { params, ...this.calls.send(options, ONCE) }))
  }

  /** Disables a webhook. Further deliveries are recorded as skipped. */
  async disable(id: string, options: CallOptions = {}): Promise<Webhook> {
    const params = this.calls.at('id', id, options)
    return dataOf(
      this.calls.http.POST('/api/v1/webhooks/{id}/disable', { params, ...this.calls.send(options, ONCE) }),
    )
  }

  /** Pauses a webhook. Further deliveries are held until `enable`. */
  async pause(id: string, options: CallOptions = {}): Promise<Webhook> {
    const params = this.calls.at('id', id, options)
    return dataOf(this.calls.http.POST('/api/v1/webhooks/{id}/pause', { params, ...this.calls.send(options, ONCE) }))
  }
}
