/**
 * Validates an AsyncAPI document with AsyncAPI's own parser, and prints the parts that the code must agree with.
 *
 * argv:   <file>
 * stdout: {"exchanges": [{"name", "type", "durable", "template", "prefix"}],
 *          "parameters": {name: {"pattern", "minLength", "maxLength"}}, "properties": {name: schema},
 *          "operations": {id: amqp binding}, "reasons": [code],
 *          "examples": [{"name", "routing_key", "message_id"?, "headers", "payload"}]}
 * stderr: the faults of the document, with status 1. Warnings are faults, too.
 */
import Ajv from 'ajv'
import { Parser, fromFile } from '@asyncapi/parser'

const [file] = process.argv.slice(2)
if (file === undefined) {
  console.error('usage: node asyncapi.mjs <file>')
  process.exit(2)
}

/** Errors have severity 0, warnings 1. Above are notes, such as a newer version of AsyncAPI. */
const WARNING = 1

const { document, diagnostics } = await fromFile(new Parser(), file).parse()
const faults = diagnostics.filter(({ severity }) => severity <= WARNING)
if (document === undefined || faults.length > 0) {
  for (const { path, message, range } of faults) {
    console.error(`${file}:${range.start.line + 1}: ${path.join('.')}: ${message}`)
  }
  process.exit(1)
}

/** The document without references. */
const json = document.json()

/** The limits of a schema for texts. */
const limits = ({ pattern, minLength, maxLength }) => ({ pattern, minLength, maxLength })

const channels = Object.values(json.channels)
const messages = channels.flatMap((channel) => Object.values(channel.messages))
const exchanges = channels.map(({ bindings: { amqp } }) => ({
  name: amqp.exchange.name,
  type: amqp.exchange.type,
  durable: amqp.exchange.durable,
  template: amqp['x-exchange-name'].template,
  prefix: limits(amqp['x-exchange-name'].prefix),
}))
const parameters = channels.flatMap((channel) =>
  Object.entries(channel.parameters).map(([name, parameter]) => [name, limits(parameter['x-schema'])]),
)
const properties = messages.flatMap(({ bindings: { amqp } }) => Object.entries(amqp['x-properties'].properties))
const operations = Object.entries(json.operations).map(([id, operation]) => [id, operation.bindings.amqp])

/** The parser checks the form of examples, but no example against the schemas. */
const ajv = new Ajv({ strict: false, validateFormats: false, allErrors: true })
function check(name, part, schema, value) {
  if (ajv.validate(schema, value)) return
  console.error(`${file}: the example ${name}: ${ajv.errorsText(ajv.errors, { dataVar: part })}`)
  process.exit(1)
}

const examples = messages.flatMap((message) =>
  message.examples.map(({ name, headers = {}, payload }) => {
    const { routing_key, message_id } = message['x-amqp'][name] ?? {}
    check(name, 'headers', message.headers, headers)
    check(name, 'payload', message.payload, payload)
    const { properties, required } = message.bindings.amqp['x-properties']
    if (message_id !== undefined || required.includes('message_id')) {
      check(name, 'message_id', properties.message_id, message_id)
    }
    check(name, 'routing_key', { type: 'string', maxLength: 255 }, routing_key)
    return { name, routing_key, message_id, headers, payload }
  }),
)

console.log(
  JSON.stringify({
    exchanges,
    parameters: Object.fromEntries(parameters),
    properties: Object.fromEntries(properties),
    operations: Object.fromEntries(operations),
    reasons: json.components.schemas.ParkingReason.enum,
    examples,
  }),
)
