import { dataOf, ONCE, pageOf, REPEATABLE, type CallOptions, type Calls, type QueryOf } from './calls.js'
import { Pages } from './pages.js'
import type { Counted, NewReplay, Replay } from './schemas.js'

/** Replays: past events, sent again. */
export class Replays {
  private readonly calls: Calls

  constructor(calls: Calls) {
    this.calls = calls
  }

  async create(replay: NewReplay, options: CallOptions = {}): Promise<Replay> {
    const params = { query: this.calls.query(options) }
    return dataOf(
      this.calls.http.POST('/api/v1/replays', { params, body: replay, ...this.calls.send(options, ONCE) }),
    )
  }

  /** Counts the deliveries of a replay, and sends nothing. */
  async dryRun(replay: NewReplay, options: CallOptions = {}): Promise<Counted> {
    const params = { query: this.calls.query(options) }
    return dataOf(
      this.calls.http.POST('/api/v1/replays/dry-run', {
        params,
        body: replay,
        ...this.calls.send(options, REPEATABLE),
      }),
    )
  }

  list(query: QueryOf<'list_replays'> = {}, options: CallOptions = {}): Pages<Replay> {
    return new Pages((before = query.before) => {
      const params = { query: this.calls.query(options, { ...query, before }) }
      return pageOf(this.calls.http.GET('/api/v1/replays', { params, ...this.calls.send(options, REPEATABLE) }))
    })
  }

  async get(id: string, options: CallOptions = {}): Promise<Replay> {
    const params = this.calls.at('id', id, options)
    return dataOf(this.calls.http.GET('/api/v1/replays/{id}', { params, ...this.calls.send(options, REPEATABLE) }))
  }

  async pause(id: string, options: CallOptions = {}): Promise<Replay> {
    const params = this.calls.at('id', id, options)
    return dataOf(this.calls.http.POST('/api/v1/replays/{id}/pause', { params, ...this.calls.send(options, ONCE) }))
  }

  async resume(id: string, options: CallOptions = {}): Promise<Replay> {
    const params = this.calls.at('id', id, options)
    return dataOf(this.calls.http.POST('/api/v1/replays/{id}/resume', { params, ...this.calls.send(options, ONCE) }))
  }

  async cancel(id: string, options: CallOptions = {}): Promise<Replay> {
    const params = this.calls.at('id', id, options)
    return dataOf(this.calls.http.POST('/api/v1/replays/{id}/cancel', { params, ...this.calls.send(options, ONCE) }))
  }
}
