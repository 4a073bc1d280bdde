import { createHash } from 'node:crypto'

/**
 * The hash of a daily digest over the `webhook-id`s of a day, in any order. A repeated id counts once. Compare the hash
 * with `hash` of the day in the event `fanfare.digest`.
 */
export function digestOf(ids: Iterable<string>): string {
  const hash = createHash('sha256')
  // Ids are ASCII: the order of UTF-16 units is that of bytes.
  for (const id of [...new Set(ids)].sort()) hash.update(`${id}\n`)
  return hash.digest('hex')
}
