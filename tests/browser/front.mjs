// Fronts: servers on free ports that hand requests on to ingest, as a proxy of a deployment does. Browsers reach them by
// any name below `.test`.
import { execFileSync } from 'node:child_process'
import fs from 'node:fs'
import http from 'node:http'
import https from 'node:https'
import os from 'node:os'
import path from 'node:path'

// A key and a certificate of its own signature: the browser of the tests accepts any.
function certificate() {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'fanfare-front-'))
  const [key, cert] = ['key.pem', 'cert.pem'].map(name => path.join(folder, name))
  execFileSync('openssl', [
    'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2', '-subj', '/CN=test',
    '-keyout', key, '-out', cert,
  ], { stdio: 'pipe' })
  const read = { key: fs.readFileSync(key), cert: fs.readFileSync(cert) }
  fs.rmSync(folder, { recursive: true })
  return read
}

// Servers by port, each with the address to which the server leads.
const fronts = new Map()

// Opens a front, over https or http. Returns the port.
export async function open(isSecure) {
  const front = { target: '' }
  const answer = (request, response) => {
    const { hostname, port } = new URL(`http://${front.target}`)
    const { method, url, headers } = request
    const handed = http.request({ hostname, port, method, path: url, headers }, given => {
      response.writeHead(given.statusCode, given.rawHeaders)
      given.pipe(response)
    })
    handed.on('error', () => response.destroy())
    request.pipe(handed)
  }
  const server = isSecure ? https.createServer(certificate(), answer) : http.createServer(answer)
  await new Promise(resolve => { server.listen(0, '127.0.0.1', resolve) })
  const { port } = server.address()
  fronts.set(port, front)
  return port
}

// Leads a front to an address.
export function lead(port, target) {
  fronts.get(port).target = target
}
