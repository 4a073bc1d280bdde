/** Builds `dist/esm` and `dist/cjs`: TypeScript compiles the same sources twice. */
import { spawnSync } from 'node:child_process'
import { rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { fileURLToPath } from 'node:url'

const folder = fileURLToPath(new URL('.', import.meta.url))
const tsc = createRequire(import.meta.url).resolve('typescript/bin/tsc')

rmSync(`${folder}dist`, { recursive: true, force: true })
for (const project of ['tsconfig.json', 'tsconfig.cjs.json']) {
  const { status } = spawnSync(process.execPath, [tsc, '--project', project], { cwd: folder, stdio: 'inherit' })
  if (status !== 0) process.exit(1)
}
// The nearest package.json tells Node and TypeScript the format of a `.js` file.
writeFileSync(`${folder}dist/cjs/package.json`, '{ "type": "commonjs", "sideEffects": false }\n')
