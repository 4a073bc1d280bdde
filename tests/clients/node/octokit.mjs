/**
 * Real webhook payloads: GitHub's, as @octokit/webhooks-examples collects them.
 *
 * stdin:  not read
 * stdout: one line per example {"type": "<event>.<action>", or "<event>" without an action, "payload": {…}}
 */
import { createRequire } from 'node:module'

const events = createRequire(import.meta.url)('@octokit/webhooks-examples')

for (const { name, examples } of events) {
  for (const payload of examples) {
    const type = payload.action ? `${name}.${payload.action}` : name
    console.log(JSON.stringify({ type, payload }))
  }
}
