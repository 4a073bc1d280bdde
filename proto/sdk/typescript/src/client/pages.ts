/** A page of a list, newest entries first. */
export interface Page<T> {
  data: T[]
  /** `before` of the next page; `null` on the last page. */
  next: string | null
  /** The time back to which a bounded search looked; absent when all was looked through. */
  searched_until?: string | null
}

interface PageAnswer<T> {
  data: T[]
  next?: string | null
  searched_until?: string | null
}

/** A list. `for await` gives each entry of all pages, `pages()` gives page by page, `page()` gives a single page. */
export class Pages<T> implements AsyncIterable<T> {
  private readonly load: (before: string | undefined) => Promise<PageAnswer<T>>

  constructor(load: (before: string | undefined) => Promise<PageAnswer<T>>) {
    this.load = load
  }

  /** Loads the page behind `before`, the `next` of the previous page. Default: the first page. */
  async page(before?: string): Promise<Page<T>> {
    const { data, next, searched_until } = await this.load(before)
    return { data, next: next ?? null, ...(searched_until === undefined ? {} : { searched_until }) }
  }

  /** Loads page after page. A page of a search may have no entries, and still a `next`. */
  async *pages(): AsyncGenerator<Page<T>, void, undefined> {
    let before: string | undefined
    do {
      const page = await this.page(before)
      yield page
      before = page.next ?? undefined
    } while (before !== undefined)
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<T, void, undefined> {
    for await (const page of this.pages()) yield* page.data
  }
}
