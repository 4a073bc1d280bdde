/**
 * Parses and prints JSON texts with Node.
 *
 * stdin:  for each text a line with a JSON string; the text may be invalid JSON
 * stdout: for each text, in order, a JSON string with JSON.stringify(JSON.parse(text)), or null if JSON.parse throws
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
