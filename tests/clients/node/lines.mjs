/**
 * The lines of a stream. Node's own `readline` also breaks lines at U+2028, U+2029 and a lone \r; JSON may
 * contain the first two without escapes.
 */
export async function* lines(stream) {
  stream.setEncoding('utf8')
  let rest = ''
  for await (const chunk of stream) {
    const parts = (rest + chunk).split('\n')
    rest = parts.pop()
    yield* parts
  }
  if (rest !== '') yield rest
}
