import { execFile } from 'node:child_process'
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { promisify } from 'node:util'
import { beforeAll, expect, test } from 'vitest'

const folder = new URL('..', import.meta.url).pathname
const run = promisify(execFile)

/** Runs a program in the folder of the package. Rejects, with the output in the message, if the program fails. */
async function execute(program: string, ...args: string[]): Promise<string> {
  const { stdout } = await run(program, args, { cwd: folder }).catch((error) =>
    Promise.reject(new Error(`${error.stdout}${error.stderr}`)),
  )
  return stdout
}

let archive: string
let files: string[]

beforeAll(async () => {
  const target = await mkdtemp(`${tmpdir()}/fanfare-sdk-`)
  // Without scripts: a second build would remove files that other tests use.
  const output = await execute('npm', 'pack', '--json', '--ignore-scripts', '--pack-destination', target)
  const [packed] = JSON.parse(output) as { filename: string; files: { path: string }[] }[]
  archive = `${target}/${packed?.filename}`
  files = packed?.files.map(({ path }) => path) ?? []
  return () => rm(target, { recursive: true })
})

test('the archive has the built files, README and package.json, and nothing else', async () => {
  const sources = (await readdir(`${folder}src`, { recursive: true })).filter((path) => path.endsWith('.ts'))
  const built = (format: string, names: string[]) =>
    names.flatMap((path) => ['.js', '.d.ts'].map((end) => `dist/${format}/${path.replace(/\.ts$/, end)}`))
  const inBoth = sources.filter((path) => path !== 'bin.ts' && path !== 'sample-types.ts')
  expect(files.sort()).toEqual(
    ['README.md', 'package.json', 'dist/cjs/package.json', ...built('esm', sources), ...built('cjs', inBoth)].sort(),
  )
})

test('publint finds no fault', async () => {
  expect(await execute('npx', 'publint', '--strict', archive)).toContain('All good!')
})

test('the types resolve for ESM, CommonJS and bundlers', async () => {
  await execute('npx', 'attw', archive, '--profile', 'node16')
})

test('the package loads as ESM and as CommonJS, and without the frameworks', async () => {
  const names = ['@fanfare/sdk', '@fanfare/sdk/express', '@fanfare/sdk/fastify', '@fanfare/sdk/next']
  const esm = names.map((name) => `Object.keys(await import('${name}'))`)
  const cjs = names.map((name) => `Object.keys(require('${name}'))`)
  const expected = [['Fanfare', 'FanfareError', 'KeySet', 'SignatureError', 'StaleKeysError', 'digestOf', 'verify', 'verifyAsymmetric'], ['webhook'], ['webhook'], ['webhook']]
  const print = (lists: string[]) => `console.log(JSON.stringify([${lists}].map((names) => names.sort())))`
  expect(JSON.parse(await execute(process.execPath, '--input-type=module', '-e', print(esm)))).toEqual(expected)
  expect(JSON.parse(await execute(process.execPath, '--input-type=commonjs', '-e', print(cjs)))).toEqual(expected)
  const scripts = files.filter((path) => path.endsWith('.js'))
  const imported = new Set<string>()
  for (const path of scripts) {
    const text = await readFile(`${folder}${path}`, 'utf8')
    for (const [, name] of text.matchAll(/(?:from |require\()["']([^."'][^"']*)["']/g)) imported.add(name as string)
  }
  expect([...imported].filter((name) => !name.startsWith('node:')).sort()).toEqual([
    'openapi-fetch',
    'standardwebhooks',
  ])
})

test('the lock file names no private registry', async () => {
  const lock = JSON.parse(await readFile(`${folder}package-lock.json`, 'utf8')) as {
    packages: Record<string, { resolved?: string }>
  }
  const resolved = Object.values(lock.packages).flatMap(({ resolved }) => resolved ?? [])
  expect(resolved.filter((url) => !url.startsWith('https://registry.npmjs.org/'))).toEqual([])
})
