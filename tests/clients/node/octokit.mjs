/**
 * Prints GitHub's example payloads from the package @octokit/webhooks-examples.
 *
 * stdin:  not read
 * stdout: a line for each example: {"type": "<event>.<action>", or "<event>" without an action, "payload": {…}}
 */
import { createRequire } from 'node:module'

const events = createRequire(import.meta.url)('@octokit/webhooks-examples')

for (const { name, examples } of events) {
  for (const payload of examples) {
    const type = payload.action ? `${name}.${payload.action}` : name
    console.log(JSON.stringify({ type, payload }))
  }
}
