import { createHmac, timingSafeEqual } from 'node:crypto'

// Verifies {{ self.0.header }}. `headers`: names in lower case. `body`: the bytes as received, before any parser.
export function verify(secret, headers, body) {
{%- if self.0.uses_event_id %}
  const eventId = (headers['webhook-id'] ?? ''){% if let Some(prefix) = self.0.prefix %}.replace(/^evt_/, '{{ prefix }}_'){% endif %}
{%- endif %}
{%- if self.0.uses_timestamp %}
  const timestamp = headers['webhook-timestamp'] ?? ''
  if (!(Math.abs(Date.now() / 1000 - Number(timestamp)) < 300)) return false
{%- endif %}
{%- if self.0.is_text_key %}
  const key = secret
{%- else %}
  // A secret of your own that is no Base64 is itself the key.
  const key = Buffer.from(secret.replace(/^whsec_/, ''), 'base64')
{%- endif %}
  const signature = createHmac('sha256', key){% for part in self.0.signs %}.update({{ part }}){% endfor %}.digest('{% if self.0.is_hex %}hex{% else %}base64{% endif %}')
  const expected = Buffer.from({{ self.0.value }})
  const given = (headers['{{ self.0.header }}'] ?? ''){% if self.0.is_own %}
  return isEqual(Buffer.from(given), expected){% else %}.split(' ')
  // During a rotation the header has a signature by each secret.
  return given.some(signature => isEqual(Buffer.from(signature), expected)){% endif %}
}

function isEqual(given, expected) {
  return given.length === expected.length && timingSafeEqual(given, expected)
}
