{{/* Checks of values that a schema cannot express. Each failure names the values and the remedy. */}}
{{- define "fanfare.checks" -}}
{{- $values := .Values -}}
{{- range list "broker" "database" -}}
{{- $server := index $values . -}}
{{- $variable := ternary "AMQP_URL" "DATABASE_URL" (eq . "broker") -}}
{{- if and $server.url $server.urlSecret.name -}}
{{- fail (printf "%s.url and %s.urlSecret.name are both set: set one" . .) -}}
{{- end -}}
{{- $file := include "fanfare.hasFile" (list $values $variable) -}}
{{- if not (or $server.url $server.urlSecret.name (index $values.tryOut.secrets $variable) $file) -}}
{{- fail (printf "%s.url or %s.urlSecret.name is required" . .) -}}
{{- end -}}
{{- if and $server.url (contains "@" $server.url) -}}
{{- fail (printf "%s.url has a user or password, which every reader of the release would see: use %s.urlSecret or %s.credentialsSecret" . . .) -}}
{{- end -}}
{{- end -}}
{{- if not (or .Values.secretKeys.secret.name (index .Values.tryOut.secrets "FANFARE_SECRET_KEYS") (include "fanfare.hasFile" (list .Values "FANFARE_SECRET_KEYS"))) -}}
{{- fail "secretKeys.secret.name is required: a Secret with FANFARE_SECRET_KEYS, made as deploy/security.md says. Keep a copy: lost keys are lost secrets" -}}
{{- end -}}
{{- if and .Values.mail.urlSecret.name (not (index .Values.dispatcher.settings "FANFARE_MAIL_FROM")) -}}
{{- fail "dispatcher.settings.FANFARE_MAIL_FROM is required with mail.urlSecret: the sender of mails to owners" -}}
{{- end -}}
{{- if and .Values.database.ingestCredentialsSecret.name .Values.dispatcher.migrate (not .Values.database.ingestRole) -}}
{{- fail "database.ingestRole is required with database.ingestCredentialsSecret: the migration gives the role its rights" -}}
{{- end -}}
{{- if and .Values.ingress.enabled (not .Values.ingress.hosts) -}}
{{- fail "ingress.hosts is required with ingress.enabled" -}}
{{- end -}}
{{- range list "ingest" "dispatcher" -}}
{{- $component := . -}}
{{- $scaling := (index $values .).autoscaling -}}
{{- if gt (int $scaling.min) (int $scaling.max) -}}
{{- fail (printf "%s.autoscaling.min (%d) is greater than max (%d)" . (int $scaling.min) (int $scaling.max)) -}}
{{- end -}}
{{- range $setting, $value := (index $values .).settings -}}
{{- if hasKey $values.settings $setting -}}
{{- fail (printf "%s is in settings and in %s.settings: set one" $setting $component) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $keda := .Values.dispatcher.autoscaling.keda -}}
{{- if eq .Values.dispatcher.autoscaling.mode "keda" -}}
{{- if and (eq $keda.trigger "prometheus") (not $keda.prometheusUrl) -}}
{{- fail "dispatcher.autoscaling.keda.prometheusUrl is required for the trigger prometheus" -}}
{{- end -}}
{{- if and (eq $keda.trigger "postgresql") (not $keda.connectionSecret.name) -}}
{{- fail "dispatcher.autoscaling.keda.connectionSecret.name is required for the trigger postgresql" -}}
{{- end -}}
{{- $prefetch := int (coalesce (index .Values.dispatcher.settings "FANFARE_PREFETCH") (index .Values.settings "FANFARE_PREFETCH") 512) -}}
{{- if le (int $keda.waitingPerReplica) $prefetch -}}
{{- fail (printf "dispatcher.autoscaling.keda.waitingPerReplica (%d) must be greater than FANFARE_PREFETCH (%d): a dispatcher that only works would scale to the maximum" (int $keda.waitingPerReplica) $prefetch) -}}
{{- end -}}
{{- end -}}
{{- $ingest := include "fanfare.connections" (list . "ingest" 10) | int -}}
{{- $dispatcher := include "fanfare.connections" (list . "dispatcher" 8) | int -}}
{{- if gt (add $ingest $dispatcher) (int .Values.database.connectionBudget) -}}
{{- fail (printf "ingest may open %d and dispatchers %d connections to PostgreSQL, more than database.connectionBudget (%d): lower the replicas, the autoscaling maximum or FANFARE_DATABASE_CONNECTIONS, or raise max_connections of PostgreSQL and the budget" $ingest $dispatcher (int .Values.database.connectionBudget)) -}}
{{- end -}}
{{- end -}}

{{/* Connections of all replicas of a component, with the one more of a rolling update: (list $ COMPONENT FURTHER). */}}
{{- define "fanfare.connections" -}}
{{- $root := index . 0 -}}
{{- $values := index $root.Values (index . 1) -}}
{{- $replicas := ternary $values.replicas $values.autoscaling.max (eq $values.autoscaling.mode "none") | int -}}
{{- $general := int (coalesce (index $values.settings "FANFARE_DATABASE_CONNECTIONS") (index $root.Values.settings "FANFARE_DATABASE_CONNECTIONS") 6) -}}
{{- mul (add $replicas 1) (add $general (index . 2)) -}}
{{- end -}}

{{/* Not empty if both components name a file for a secret by extraEnv: (list VALUES VARIABLE). */}}
{{- define "fanfare.hasFile" -}}
{{- $name := printf "%s_FILE" (index . 1) -}}
{{- $count := 0 -}}
{{- range list "ingest" "dispatcher" -}}
{{- range (index (index $ 0) .).extraEnv -}}
{{- if eq .name $name -}}{{- $count = add1 $count -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- if ge (int $count) 2 -}}yes{{- end -}}
{{- end -}}
