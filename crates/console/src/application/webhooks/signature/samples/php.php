<?php
// Verifies {{ self.0.header }}. $body: file_get_contents('php://input'), before any parser.
function verify(string $secret, string $body): bool {
{%- if self.0.uses_event_id %}
    $eventId = {% if let Some(prefix) = self.0.prefix %}preg_replace('/^evt_/', '{{ prefix }}_', {% endif %}$_SERVER['HTTP_WEBHOOK_ID'] ?? ''{% if self.0.prefix.is_some() %}){% endif %};
{%- endif %}
{%- if self.0.uses_timestamp %}
    $timestamp = $_SERVER['HTTP_WEBHOOK_TIMESTAMP'] ?? '';
    if (abs(time() - (int) $timestamp) > 300) {
        return false;
    }
{%- endif %}
{%- if self.0.is_text_key %}
    $key = $secret;
{%- else %}
    // A secret of your own that is no Base64 is itself the key.
    $key = base64_decode(preg_replace('/^whsec_/', '', $secret));
{%- endif %}
    $signature = {% if self.0.is_hex %}hash_hmac('sha256', {{ self.0.signed() }}, $key){% else %}base64_encode(hash_hmac('sha256', {{ self.0.signed() }}, $key, true)){% endif %};
    $expected = {{ self.0.value }};
    $given = $_SERVER['{{ self.0.environment() }}'] ?? '';
{%- if self.0.is_own %}
    return hash_equals($expected, $given);
{%- else %}
    // During a rotation the header has a signature by each secret.
    foreach (explode(' ', $given) as $one) {
        if (hash_equals($expected, $one)) {
            return true;
        }
    }
    return false;
{%- endif %}
}
