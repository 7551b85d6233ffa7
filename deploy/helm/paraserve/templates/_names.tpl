{{/* Names and labels. */}}

{{- define "paraserve.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- $full := .Values.fullnameOverride -}}
{{- if not $full -}}
{{- $full = ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- end -}}
{{- if gt (len $full) 47 -}}
{{- fail (printf "The name %q has %d characters, but KubeRay takes at most 47: choose a shorter release name or set fullnameOverride." $full (len $full)) -}}
{{- end -}}
{{- $full -}}
{{- end -}}

{{- define "paraserve.selectorLabels" -}}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/part-of: {{ .Chart.Name }}
{{- end -}}

{{- define "paraserve.labels" -}}
{{ include "paraserve.selectorLabels" . }}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/*
Labels of a pod within a Ray cluster: none that changes with the chart's version, since
KubeRay starts a second cluster when a pod template changes.
*/}}
{{- define "paraserve.podLabels" -}}
{{ include "paraserve.selectorLabels" . }}
app.kubernetes.io/name: {{ .Chart.Name }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* metadata of an object; arguments: root, name, and optionally labels, annotations. */}}
{{- define "paraserve.metadata" -}}
name: {{ .name }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- merge (.labels | default dict) (include "paraserve.labels" .root | fromYaml) | toYaml | nindent 2 }}
{{- with merge (.annotations | default dict) .root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "paraserve.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default (printf "%s%s" .Chart.AppVersion (ternary "-cuda" "" (eq (include "paraserve.usesCuda" .) "true"))) }}
{{- end -}}
{{- end -}}

{{- define "paraserve.headAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{ include "paraserve.fullname" . }}-head
{{- else -}}
{{ .Values.serviceAccount.headName | default "default" }}
{{- end -}}
{{- end -}}

{{- define "paraserve.workerAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{ include "paraserve.fullname" . }}-worker
{{- else -}}
{{ .Values.serviceAccount.workerName | default "default" }}
{{- end -}}
{{- end -}}

{{- define "paraserve.raySecret" -}}
{{ .Values.rayAuth.existingSecret | default (printf "%s-ray-auth" (include "paraserve.fullname" .)) }}
{{- end -}}

{{- define "paraserve.keysSecret" -}}
{{ .Values.apiKeys.existingSecret | default (printf "%s-api-keys" (include "paraserve.fullname" .)) }}
{{- end -}}

{{- define "paraserve.modelsClaim" -}}
{{ .Values.models.existingClaim | default (printf "%s-models" (include "paraserve.fullname" .)) }}
{{- end -}}

{{- define "paraserve.serveService" -}}
{{ include "paraserve.fullname" . }}-serve-svc
{{- end -}}
