{{- define "pannier.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{ .Values.fullnameOverride }}
{{- else if contains "pannier" .Release.Name -}}
{{ .Release.Name | trunc 48 | trimSuffix "-" }}-operator
{{- else -}}
{{ .Release.Name | trunc 40 | trimSuffix "-" }}-pannier-operator
{{- end -}}
{{- end -}}

{{/* Several installations may each serve their own namespaces: what is not in the release's has a name of its own. */}}
{{- define "pannier.clusterName" -}}
{{- if .Values.watchNamespaces -}}
{{ .Release.Namespace }}-{{ include "pannier.fullname" . }}
{{- else -}}
{{ include "pannier.fullname" . }}
{{- end -}}
{{- end -}}

{{- define "pannier.selector" -}}
app.kubernetes.io/name: pannier
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end -}}

{{- define "pannier.labels" -}}
{{ include "pannier.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}

{{- define "pannier.serviceAccount" -}}
{{ .Values.serviceAccount.name | default (include "pannier.fullname" .) }}
{{- end -}}

{{/* Called with an image and the chart's appVersion. */}}
{{- define "pannier.image" -}}
{{- $image := index . 0 -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ $image.tag | default (index . 1) }}
{{- end -}}
{{- end -}}

{{/* Namespaces that are served, as a list in JSON; empty when all are. */}}
{{- define "pannier.namespaces" -}}
{{- if .Values.watchNamespaces -}}
{{ concat .Values.watchNamespaces .Values.shareNamespaces | uniq | toJson }}
{{- else -}}
[]
{{- end -}}
{{- end -}}
