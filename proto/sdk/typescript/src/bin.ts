#!/usr/bin/env node
import { writeFile } from 'node:fs/promises'
import { parseArgs } from 'node:util'
import { Fanfare } from './client/fanfare.js'
import type { DescribedType } from './client/schemas.js'
import { printTypes } from './sample-types.js'

const USAGE = `Usage: fanfare-types [--output FILE] [--name NAME]

Writes TypeScript types of an application's events, derived from the samples in Fanfare.

  --output FILE   a file such as src/events.ts; default: standard output
  --name NAME     the name of the interface; default: Events

Environment:
  FANFARE_API           address of the API, such as https://fanfare.example.com/api/v1
  FANFARE_KEY           an API key of the application with the role manage, or an admin key
  FANFARE_APPLICATION   the application, for an admin key
`

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      output: { type: 'string' },
      name: { type: 'string', default: 'Events' },
      help: { type: 'boolean', default: false },
    },
  })
  if (values.help) {
    process.stdout.write(USAGE)
    return
  }
  const name = values.name as string
  if (!/^[A-Za-z_$][\w$]*$/.test(name))
    throw new Error(`--name is ${JSON.stringify(name)}, and must be an identifier`)
  const { FANFARE_API: url, FANFARE_KEY: key, FANFARE_APPLICATION: application } = process.env
  if (!url || !key) throw new Error('FANFARE_API or FANFARE_KEY is not set: `fanfare-types --help` shows both')
  const fanfare = new Fanfare({ url, key, application: application || undefined })
  const types: DescribedType[] = []
  for await (const type of fanfare.eventTypes.list({ limit: 100 })) types.push(type)
  const text = printTypes(types, name)
  if (values.output === undefined) process.stdout.write(text)
  else await writeFile(values.output, text)
}

main().catch((error: unknown) => {
  process.stderr.write(`fanfare-types: ${error instanceof Error ? error.message : String(error)}\n`)
  process.exitCode = 1
})
