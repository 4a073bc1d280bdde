{{/* Pace of scaling. A scale-down is slower than a drain: deliveries that a pod gives back are leased anew. */}}
{{- define "fanfare.behavior" -}}
scaleUp:
  policies:
    - type: Pods
      value: 1
      periodSeconds: 30
scaleDown:
  stabilizationWindowSeconds: 300
  policies:
    - type: Pods
      value: 1
      periodSeconds: 120
{{- end -}}

{{/* Work that waits for Fanfare's places, never work that waits for an endpoint or for its time. */}}
{{- define "fanfare.waiting" -}}
{{- $of := printf "namespace=%q" .Release.Namespace -}}
max(fanfare_queue_ready{ {{- $of }},queue="events"}) + sum(fanfare_messages_in_hand{ {{- $of }},queue="events"}) + sum(fanfare_backlog_deliveries{ {{- $of }}})
{{- end -}}
