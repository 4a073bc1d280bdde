require 'openssl'
{%- if !self.0.is_text_key || !self.0.is_hex %}
require 'base64'
{%- endif %}

# Verifies {{ self.0.header }}. `request`: a Rack request. `body`: request.body.read, before any parser.
def verify(secret, request, body)
{%- if self.0.uses_event_id %}
  event_id = request.get_header('HTTP_WEBHOOK_ID').to_s{% if let Some(prefix) = self.0.prefix %}.sub(/\Aevt_/, '{{ prefix }}_'){% endif %}
{%- endif %}
{%- if self.0.uses_timestamp %}
  timestamp = request.get_header('HTTP_WEBHOOK_TIMESTAMP').to_s
  return false if (Time.now.to_i - timestamp.to_i).abs > 300
{%- endif %}
{%- if self.0.is_text_key %}
  key = secret
{%- else %}
  # A secret of your own that is no Base64 is itself the key.
  key = Base64.decode64(secret.delete_prefix('whsec_'))
{%- endif %}
  signature = {% if self.0.is_hex %}OpenSSL::HMAC.hexdigest('SHA256', key, {{ self.0.signed() }}){% else %}Base64.strict_encode64(OpenSSL::HMAC.digest('SHA256', key, {{ self.0.signed() }})){% endif %}
  expected = {{ self.0.value }}
  given = request.get_header('{{ self.0.environment() }}').to_s
{%- if self.0.is_own %}
  OpenSSL.secure_compare(given, expected)
{%- else %}
  # During a rotation the header has a signature by each secret.
  given.split(' ').any? { |one| OpenSSL.secure_compare(one, expected) }
{%- endif %}
end
