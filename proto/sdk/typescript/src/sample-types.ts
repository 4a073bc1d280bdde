import type { DescribedType } from './client/schemas.js'

/** Prints a map from event types to types of `data`, derived from the samples. */
export function printTypes(types: readonly DescribedType[], name: string): string {
  const sorted = [...types].sort((left, right) => (left.name < right.name ? -1 : 1))
  const members = sorted.map(({ name: type, description, sample }) => {
    const comment = description ? `  /** ${description.replaceAll('*/', '*\\/').replace(/\s+/g, ' ')} */\n` : ''
    return `${comment}  ${JSON.stringify(type)}: ${typeOf(sample, '  ')}\n`
  })
  const heading = '/** Types of `data` by event type, from the samples in Fanfare. Made by `fanfare-types`. */'
  return `${heading}\nexport interface ${name} {\n${members.join('')}}\n`
}

/** The type of a sample. An empty object, an empty list and `null` tell nothing. */
function typeOf(sample: unknown, indent: string): string {
  if (Array.isArray(sample)) {
    const types = [...new Set(sample.map((entry) => typeOf(entry, indent)))]
    return `Array<${types.length === 0 ? 'unknown' : types.join(' | ')}>`
  }
  if (typeof sample === 'string' || typeof sample === 'number' || typeof sample === 'boolean') return typeof sample
  if (typeof sample !== 'object' || sample === null || Object.keys(sample).length === 0) return 'unknown'
  const deeper = `${indent}  `
  const members = Object.entries(sample).map(
    ([name, value]) => `${deeper}${JSON.stringify(name)}: ${typeOf(value, deeper)}\n`,
  )
  return `{\n${members.join('')}${indent}}`
}
