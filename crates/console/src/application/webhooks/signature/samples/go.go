package webhooks

import (
	"crypto/hmac"
	"crypto/sha256"
{%- if !self.0.is_text_key || !self.0.is_hex %}
	"encoding/base64"
{%- endif %}
{%- if self.0.is_hex %}
	"encoding/hex"
{%- endif %}
	"net/http"
{%- if self.0.uses_timestamp %}
	"strconv"
{%- endif %}
{%- if !self.0.is_text_key || !self.0.is_own || self.0.prefix.is_some() && self.0.uses_event_id %}
	"strings"
{%- endif %}
{%- if self.0.uses_timestamp %}
	"time"
{%- endif %}
)

// Verify checks {{ self.0.header }}. body: the bytes as received, before any parser.
func Verify(secret string, header http.Header, body []byte) bool {
{%- if self.0.uses_event_id %}
	eventID := {% if let Some(prefix) = self.0.prefix %}strings.Replace({% endif %}header.Get("webhook-id"){% if let Some(prefix) = self.0.prefix %}, "evt_", "{{ prefix }}_", 1){% endif %}
{%- endif %}
{%- if self.0.uses_timestamp %}
	timestamp := header.Get("webhook-timestamp")
	seconds, err := strconv.ParseInt(timestamp, 10, 64)
	if age := time.Now().Unix() - seconds; err != nil || age > 300 || age < -300 {
		return false
	}
{%- endif %}
{%- if self.0.is_text_key %}
	key := []byte(secret)
{%- else %}
	// A secret of your own that is no Base64 is itself the key.
	key, keyErr := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
	if keyErr != nil {
		return false
	}
{%- endif %}
	mac := hmac.New(sha256.New, key)
{%- for part in self.0.signs %}
	mac.Write({{ part }})
{%- endfor %}
	signature := {% if self.0.is_hex %}hex.EncodeToString(mac.Sum(nil)){% else %}base64.StdEncoding.EncodeToString(mac.Sum(nil)){% endif %}
	expected := {{ self.0.value }}
	given := header.Get("{{ self.0.header }}")
{%- if self.0.is_own %}
	return hmac.Equal([]byte(given), []byte(expected))
{%- else %}
	// During a rotation the header has a signature by each secret.
	for _, one := range strings.Split(given, " ") {
		if hmac.Equal([]byte(one), []byte(expected)) {
			return true
		}
	}
	return false
{%- endif %}
}
