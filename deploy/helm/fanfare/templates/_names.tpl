{{/* Name of all objects: the release, with the chart's name unless the release contains it. At most 50 characters, for the suffixes. */}}
{{- define "fanfare.name" -}}
{{- $name := ternary .Release.Name (printf "%s-fanfare" .Release.Name) (contains "fanfare" .Release.Name) -}}
{{- $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{/* Labels by which selectors find the pods of a component: (list $ "ingest"). */}}
{{- define "fanfare.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: fanfare
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* Labels of an object of a component: (list $ "ingest"). */}}
{{- define "fanfare.labels" -}}
{{- $root := index . 0 -}}
{{ include "fanfare.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ $root.Chart.Name }}-{{ $root.Chart.Version }}
{{- end -}}

{{/* Reference of the image. */}}
{{- define "fanfare.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}
{{- end -}}
