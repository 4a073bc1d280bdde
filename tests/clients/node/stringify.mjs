/**
 * What Node makes of a JSON text.
 *
 * stdin:  one JSON string per line, whose value is a JSON text (or not, that is the question)
 * stdout: for each line, in order, one JSON string whose value is JSON.stringify(JSON.parse(text)),
 *         or null where JSON.parse throws
 */
import { lines } from './lines.mjs'

function roundTrip(text) {
  let value
  try {
    value = JSON.parse(text)
  } catch {
    return null
  }
  return JSON.stringify(value)
}

for await (const line of lines(process.stdin)) {
  console.log(JSON.stringify(roundTrip(JSON.parse(line))))
}
