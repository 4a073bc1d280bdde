import { execFile } from 'node:child_process'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { promisify } from 'node:util'
import { printTypes } from '../src/sample-types.js'
import { describe, expect, onTestFinished, test } from 'vitest'
import { API, APPLICATION, connect, KEY, ownType } from './support.js'

const folder = new URL('..', import.meta.url).pathname
const run = promisify(execFile)

/** Runs a program of the package. Rejects, with the output in the message, if the program fails. */
async function node(program: string, args: string[], env: NodeJS.ProcessEnv = process.env): Promise<string> {
  const call = run(process.execPath, [`${folder}${program}`, ...args], { cwd: folder, env })
  const { stdout } = await call.catch((error) => Promise.reject(new Error(`${error.stdout}${error.stderr}`)))
  return stdout
}

const compile = (args: string[]) => node('node_modules/typescript/bin/tsc', args)

/** A folder in the package, because only files in the package find the package by name. */
async function temporaryFolder(): Promise<string> {
  const path = await mkdtemp(`${folder}tests/temporary-`)
  onTestFinished(() => rm(path, { recursive: true }))
  return path
}

test('the tests and their types are right', async () => {
  await compile(['--project', 'tests/tsconfig.json'])
})

test('the types of the API are current', async () => {
  // Fails with a sentence if the file differs: then run `npm run generate`.
  await node('node_modules/openapi-typescript/bin/cli.js', [
    '../../openapi.json',
    '--output',
    'src/openapi.ts',
    '--check',
  ])
})

test('each snippet of the README is right', async () => {
  const path = await temporaryFolder()
  const readme = await readFile(`${folder}README.md`, 'utf8')
  const snippets = [...readme.matchAll(/^```ts\n(.*?)^```$/gms)].map(([, code]) => code as string)
  expect(snippets.length).toBeGreaterThanOrEqual(6)
  await writeFile(`${path}/events.ts`, printTypes(await all(), 'Events'))
  await Promise.all(snippets.map((code, index) => writeFile(`${path}/snippet-${index}.ts`, code)))
  const options = {
    extends: '../../tsconfig.json',
    compilerOptions: { rootDir: '../..', noEmit: true },
    include: ['.'],
  }
  await writeFile(`${path}/tsconfig.json`, JSON.stringify(options))
  await compile(['--project', `${path}/tsconfig.json`])
})

async function all() {
  const types = []
  for await (const type of connect().eventTypes.list()) types.push(type)
  return types
}

describe('fanfare-types', () => {
  const environment = { FANFARE_API: API, FANFARE_KEY: KEY, FANFARE_APPLICATION: APPLICATION }

  test('writes the types of all event types of the application', async () => {
    const fanfare = connect()
    const name = ownType()
    const sample = { text: 'a', 'a-b': [1, 'b', { deep: [] }], nothing: null, yes: true, empty: {} }
    await fanfare.eventTypes.describe({ name, description: 'ends */ here', sample })
    await fanfare.eventTypes.describe({ name: `${name}.bare` })
    onTestFinished(async () => {
      await fanfare.eventTypes.remove(name)
      await fanfare.eventTypes.remove(`${name}.bare`)
    })
    const path = await temporaryFolder()
    await node('dist/esm/bin.js', ['--output', `${path}/events.ts`, '--name', 'ShopEvents'], environment)
    const text = await readFile(`${path}/events.ts`, 'utf8')
    expect(text).toContain('export interface ShopEvents {')
    expect(text).toContain(`  /** ends *\\/ here */
  "${name}": {
    "text": string
    "a-b": Array<number | string | {
      "deep": Array<unknown>
    }>
    "nothing": unknown
    "yes": boolean
    "empty": unknown
  }
  "${name}.bare": unknown
`)
    const types = await all()
    for (const type of types) expect(text).toContain(`  ${JSON.stringify(type.name)}: `)
    await writeFile(
      `${path}/use.ts`,
      `
      import { Fanfare } from '@fanfare/sdk'
      import type { ShopEvents } from './events.js'
      const fanfare = new Fanfare<ShopEvents>({ url: 'https://fanfare.example.com', key: 'key' })
      void fanfare.publish({ type: '${name}.bare', data: 1 })
      // @ts-expect-error: the sample has a text
      void fanfare.publish({ type: '${name}', data: { text: 1, 'a-b': [], nothing: 1, yes: true, empty: 1 } })
    `,
    )
    const options = {
      extends: '../../tsconfig.json',
      compilerOptions: { rootDir: '../..', noEmit: true },
      include: ['.'],
    }
    await writeFile(`${path}/tsconfig.json`, JSON.stringify(options))
    await compile(['--project', `${path}/tsconfig.json`])
    expect(await node('dist/esm/bin.js', [], environment)).toContain('export interface Events {')
  })

  test('names a missing variable, a wrong argument and a failed request', async () => {
    const failure = (args: string[], env: NodeJS.ProcessEnv) =>
      node('dist/esm/bin.js', args, env).then(
        () => '',
        (error: Error) => error.message,
      )
    expect(await failure([], {})).toBe(
      'fanfare-types: FANFARE_API or FANFARE_KEY is not set: `fanfare-types --help` shows both\n',
    )
    expect(await failure(['--name', 'a b'], environment)).toContain('--name is "a b", and must be an identifier')
    expect(await failure(['--nam', 'a'], environment)).toMatch(/^fanfare-types: Unknown option '--nam'/)
    expect(await failure([], { ...environment, FANFARE_KEY: 'wrong' })).toMatch(
      /^fanfare-types: GET \/api\/v1\/event-types: 401 invalid_key: /,
    )
    expect(await node('dist/esm/bin.js', ['--help'], {})).toMatch(/^Usage: fanfare-types/)
  })
})
