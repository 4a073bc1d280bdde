/**
 * Checks the types of TypeScript programs, and compiles the programs to JavaScript that uses this folder's packages.
 *
 * argv:   <folder for the compiled programs> <file>...
 * stdout: for each file, in order, the path of the compiled program
 * stderr: the faults of a program, with status 1
 *
 * Node looks for packages in the folders above a module. The folder must thus be inside this folder, such as
 * `node_modules/.programs`.
 */
import { mkdirSync } from 'node:fs'
import { basename, dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import ts from 'typescript'

const [folder, ...files] = process.argv.slice(2)
if (files.length === 0) {
  console.error('usage: node compile.mjs <folder for the compiled programs> <file>...')
  process.exit(2)
}
const here = dirname(fileURLToPath(import.meta.url))
const outDir = resolve(folder)
mkdirSync(outDir, { recursive: true })

const options = {
  strict: true,
  target: ts.ScriptTarget.ES2022,
  module: ts.ModuleKind.NodeNext,
  moduleResolution: ts.ModuleResolutionKind.NodeNext,
  erasableSyntaxOnly: true,
  skipLibCheck: true,
  noEmitOnError: true,
  types: ['node'],
  typeRoots: [join(here, 'node_modules/@types')],
}
const names = files.map((file) => basename(file))
const host = ts.createCompilerHost(options)
// Reads each program as if the file were in `folder`, so that TypeScript finds the packages, too.
const { readFile, fileExists, getSourceFile } = host
const real = new Map(files.map((file) => [join(outDir, basename(file)), resolve(file)]))
host.readFile = (path) => readFile.call(host, real.get(path) ?? path)
host.fileExists = (path) => real.has(path) || fileExists.call(host, path)
host.getSourceFile = (path, ...rest) => {
  const text = real.has(path) ? host.readFile(path) : undefined
  return text === undefined ? getSourceFile.call(host, path, ...rest) : ts.createSourceFile(path, text, ...rest)
}

const program = ts.createProgram([...real.keys()], options, host)
const { diagnostics } = program.emit()
const faults = ts.sortAndDeduplicateDiagnostics([...ts.getPreEmitDiagnostics(program), ...diagnostics])
if (faults.length > 0) {
  console.error(ts.formatDiagnostics(faults, host))
  process.exit(1)
}
for (const name of names) console.log(join(outDir, name.replace(/\.mts$/, '.mjs')))
