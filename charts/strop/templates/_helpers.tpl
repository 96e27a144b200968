{{- define "strop.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "strop.fullname" -}}
{{- $name := include "strop.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "strop.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (ternary (include "strop.fullname" .) "default" .Values.serviceAccount.create) }}
{{- end }}

{{- define "strop.tlsSecret" -}}
{{- include "strop.fullname" . }}-progress-tls
{{- end }}

{{- define "strop.labels" -}}
app.kubernetes.io/name: {{ include "strop.name" . }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/part-of: strop
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- /* The operator's pods, and nothing else. */}}
{{- define "strop.selectorLabels" -}}
app.kubernetes.io/name: {{ include "strop.name" . }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/component: operator
{{- end }}

{{- /* Takes a list: an image's values, the root. A digest wins over a tag. */}}
{{- define "strop.image" -}}
{{- $image := index . 0 }}
{{- if $image.digest }}
{{- printf "%s@%s" $image.repository $image.digest }}
{{- else }}
{{- printf "%s:%s" $image.repository ($image.tag | default (index . 1).Chart.AppVersion) }}
{{- end }}
{{- end }}

{{- define "strop.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "strop.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}
