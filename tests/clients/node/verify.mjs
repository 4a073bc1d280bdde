/**
 * Verifies deliveries twice: with the official Standard Webhooks library, and with the code in Incenta's
 * documentation.
 *
 * stdin:  for each delivery a line {"secret": "whsec_…", "headers": {names in lower case}, "body": base64}
 * stdout: for each delivery, in order, {"standard": bool, "incenta": bool, "error"?: the reasons of each false}
 *
 * The library refuses a `webhook-timestamp` more than five minutes off this machine's clock.
 */
import { createHmac, timingSafeEqual } from 'node:crypto'
import { Webhook } from 'standardwebhooks'
import { lines } from './lines.mjs'

function verifyStandard({ secret, headers, body }) {
  new Webhook(secret).verify(body, headers)
}

function verifyIncenta({ secret, headers, body }) {
  const signature = headers['x-webhook-signature']
  if (signature === undefined) throw new Error('x-webhook-signature is missing')
  const payload = JSON.parse(body)
  const expected = createHmac('sha256', secret).update(JSON.stringify(payload)).digest('hex')
  // Throws if the lengths differ, like the documented code.
  if (!timingSafeEqual(Buffer.from(signature), Buffer.from(expected))) {
    throw new Error('the signatures differ')
  }
}

for await (const line of lines(process.stdin)) {
  const delivery = JSON.parse(line)
  delivery.body = Buffer.from(delivery.body, 'base64').toString()

  const answer = {}
  const errors = []
  for (const [name, verify] of [['standard', verifyStandard], ['incenta', verifyIncenta]]) {
    try {
      verify(delivery)
      answer[name] = true
    } catch (error) {
      answer[name] = false
      errors.push(`${name}: ${error.message}`)
    }
  }
  if (errors.length > 0) answer.error = errors.join('; ')
  console.log(JSON.stringify(answer))
}
