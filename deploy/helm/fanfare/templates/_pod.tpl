{{/* A variable from a Secret: (list NAME SECRET KEY). Nothing without a Secret or a key. */}}
{{- define "fanfare.secretVariable" -}}
{{- if and (index . 1) (index . 2) }}
- name: {{ index . 0 }}
  valueFrom:
    secretKeyRef:
      name: {{ index . 1 }}
      key: {{ index . 2 }}
{{- end }}
{{- end -}}

{{/* Variables of the servers: (list $ CREDENTIALS), where CREDENTIALS are those of the database. */}}
{{- define "fanfare.servers" -}}
{{- $root := index . 0 -}}
{{- $credentials := index . 1 -}}
{{- with $root.Values -}}
{{- if .broker.url }}
- name: AMQP_URL
  value: {{ .broker.url | quote }}
{{- end }}
{{- include "fanfare.secretVariable" (list "AMQP_URL" .broker.urlSecret.name .broker.urlSecret.key) }}
{{- with .broker.credentialsSecret }}
{{- include "fanfare.secretVariable" (list "AMQP_USERNAME" .name .usernameKey) }}
{{- include "fanfare.secretVariable" (list "AMQP_PASSWORD" .name .passwordKey) }}
{{- end }}
{{- if .database.url }}
- name: DATABASE_URL
  value: {{ .database.url | quote }}
{{- end }}
{{- include "fanfare.secretVariable" (list "DATABASE_URL" .database.urlSecret.name .database.urlSecret.key) }}
{{- with $credentials }}
{{- include "fanfare.secretVariable" (list "DATABASE_USERNAME" .name .usernameKey) }}
{{- include "fanfare.secretVariable" (list "DATABASE_PASSWORD" .name .passwordKey) }}
{{- end }}
{{- include "fanfare.secretVariable" (list "FANFARE_SECRET_KEYS" .secretKeys.secret.name .secretKeys.secret.key) }}
{{- include "fanfare.secretVariable" (list "FANFARE_EGRESS_PROXY" .egressProxy.urlSecret.name .egressProxy.urlSecret.key) }}
{{- end -}}
{{- end -}}

{{/* Sources of variables: the settings of all processes, of the component, and of a trial: (list $ COMPONENT). */}}
{{- define "fanfare.sources" -}}
{{- $root := index . 0 -}}
{{- $name := include "fanfare.name" $root -}}
- configMapRef:
    name: {{ $name }}-{{ index . 1 }}
{{- if $root.Values.tryOut.secrets }}
- secretRef:
    name: {{ $name }}-try-out
{{- end }}
{{- end -}}

{{/* The member `env` with variables, if there are any: (list VARIABLES EXTRA). */}}
{{- define "fanfare.env" -}}
{{- if or (trim (index . 0)) (index . 1) }}
env:
  {{- with trim (index . 0) }}
  {{- . | nindent 2 }}
  {{- end }}
  {{- with index . 1 }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* Security of a container. No program writes a file. */}}
{{- define "fanfare.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* Common part of a pod's specification: (list $ COMPONENT). */}}
{{- define "fanfare.pod" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
{{- $values := index $root.Values $component -}}
serviceAccountName: {{ include "fanfare.name" $root }}
automountServiceAccountToken: false
# A Service called fanfare would otherwise set FANFARE_PORT, which looks like a setting.
enableServiceLinks: false
{{- with $root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  seccompProfile:
    type: RuntimeDefault
topologySpreadConstraints:
  {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "fanfare.selector" (list $root $component) | nindent 8 }}
    matchLabelKeys: [pod-template-hash]
  {{- end }}
{{- with $values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if or $root.Values.dialects $values.extraVolumes }}
volumes:
  {{- if $root.Values.dialects }}
  - name: dialects
    configMap:
      name: {{ include "fanfare.name" $root }}-dialects
  {{- end }}
  {{- with $values.extraVolumes }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* Mounts of a container: (list $ COMPONENT). */}}
{{- define "fanfare.mounts" -}}
{{- $root := index . 0 -}}
{{- $values := index $root.Values (index . 1) -}}
{{- if or $root.Values.dialects $values.extraVolumeMounts }}
volumeMounts:
  {{- if $root.Values.dialects }}
  - name: dialects
    mountPath: /dialects
    readOnly: true
  {{- end }}
  {{- with $values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* Metadata of a pod: (list $ COMPONENT). The checksum restarts the pods when a setting or dialect changes. */}}
{{- define "fanfare.podMetadata" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
{{- $values := index $root.Values $component -}}
annotations:
  fanfare/settings: {{ printf "%s%s%s" (include "fanfare.settings" .) (toJson $root.Values.dialects) (toJson $root.Values.tryOut.secrets) | sha256sum }}
  {{- with $values.podAnnotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
labels:
  {{- include "fanfare.labels" . | nindent 2 }}
  {{- with $values.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{/* Settings of a component, with those that follow from values: (list $ COMPONENT). */}}
{{- define "fanfare.settings" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
{{- $values := index $root.Values $component -}}
{{- $computed := dict
      "FANFARE_OPERATIONS_ADDRESS" (printf "0.0.0.0:%d" (int $root.Values.ports.operations))
      "FANFARE_GRACE" (printf "%ss" (include "fanfare.grace" .))
      "TOKIO_WORKER_THREADS" ($values.workerThreads | toString)
      "MALLOC_ARENA_MAX" "2" -}}
{{- if eq $component "ingest" -}}
{{- $computed = set $computed "FANFARE_ADDRESS" (printf "0.0.0.0:%d" (int $root.Values.ports.api)) -}}
{{- end -}}
{{- if $root.Values.dialects -}}
{{- $computed = set $computed "FANFARE_DIALECTS" "/dialects" -}}
{{- end -}}
{{- range $name, $value := merge $computed $values.settings $root.Values.settings }}
{{- /* Helm holds large integers as floats, which print as 1.048576e+06. */}}
{{ $name }}: {{ kindIs "float64" $value | ternary (int64 $value) $value | toString | quote }}
{{- end }}
{{- end -}}

{{/* Seconds of FANFARE_GRACE: (list $ COMPONENT). A dispatcher finishes its longest attempt. */}}
{{- define "fanfare.grace" -}}
{{- $values := index (index . 0).Values (index . 1) -}}
{{- if eq (index . 1) "ingest" -}}
{{ $values.graceSeconds | int }}
{{- else -}}
{{ add ($values.longestAttemptSeconds | int) 5 }}
{{- end -}}
{{- end -}}

{{/* Liveness of a container: never a dependency. */}}
{{- define "fanfare.liveness" -}}
livenessProbe:
  httpGet:
    path: /healthz
    port: operations
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
{{- end -}}
