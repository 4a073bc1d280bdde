import {% if !self.0.is_text_key || !self.0.is_hex %}base64
import {% endif %}hashlib
import hmac
{%- if self.0.uses_timestamp %}
import time
{%- endif %}


# Verifies {{ self.0.header }}. `headers`: names in lower case. `body`: the bytes as received, before any parser.
def verify(secret, headers, body):
{%- if self.0.uses_event_id %}
    event_id = headers.get('webhook-id', ''){% if let Some(prefix) = self.0.prefix %}.replace('evt_', '{{ prefix }}_', 1){% endif %}
{%- endif %}
{%- if self.0.uses_timestamp %}
    timestamp = headers.get('webhook-timestamp', '')
    if not timestamp.isdigit() or abs(time.time() - int(timestamp)) > 300:
        return False
{%- endif %}
{%- if self.0.is_text_key %}
    key = secret.encode()
{%- else %}
    # A secret of your own that is no Base64 is itself the key.
    key = base64.b64decode(secret.removeprefix('whsec_'))
{%- endif %}
    digest = hmac.new(key, {{ self.0.signed() }}, hashlib.sha256)
{%- if self.0.is_hex %}
    signature = digest.hexdigest()
{%- else %}
    signature = base64.b64encode(digest.digest()).decode()
{%- endif %}
    expected = {{ self.0.value }}
    given = headers.get('{{ self.0.header }}', '')
{%- if self.0.is_own %}
    return hmac.compare_digest(given.encode(), expected.encode())
{%- else %}
    # During a rotation the header has a signature by each secret.
    return any(hmac.compare_digest(one.encode(), expected.encode()) for one in given.split(' '))
{%- endif %}
