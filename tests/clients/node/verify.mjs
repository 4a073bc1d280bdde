/**
 * A receiver's verification of a delivery, done twice: by the official Standard Webhooks library, and
 * as Incenta's documentation tells its customers to.
 *
 * stdin:  per line {"secret": "whsec_…", "headers": {names in lower case}, "body": base64}
 * stdout: per line, in order, {"standard": bool, "incenta": bool, "error"?: why, for each that is false}
 *
 * The library refuses a `webhook-timestamp` that is more than five minutes from this machine's clock.
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
  // throws if the lengths differ, as the documented code does
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
