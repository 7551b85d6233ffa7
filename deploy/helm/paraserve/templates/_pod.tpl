{{/* Pods of head and workers. */}}

{{/*
Variables of the Ray container; arguments: root, serves. docs/operations.md ("Ray's
environment variables") says why each is set, and which others were considered.
*/}}
{{- define "paraserve.env" -}}
{{- $models := .root.Values.models -}}
{{- $settings := include "paraserve.effective" (dict "root" .root "settings" .root.Values.settings) | fromYaml -}}
- {name: RAY_SERVE_ENABLE_HA_PROXY, value: {{ ternary "1" "0" .root.Values.serve.haproxy | quote }}}
# Has Ray load the middleware that keeps it from reading bodies ahead.
- {name: RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH, value: serve_app.api.flow.http_middlewares}
# Requests are counted by the ingress replicas, which know a fixed set of methods; HAProxy's
# manager would make a label of each that a caller invents.
- {name: RAY_SERVE_HAPROXY_METRICS_ENABLED, value: "0"}
{{- if .root.Values.serve.haproxy }}
# Bounds HAProxy's configuration beyond Ray's template, then becomes HAProxy.
- {name: RAY_SERVE_HAPROXY_BINARY_PATH, value: /opt/venv/bin/paraserve-haproxy}
- {name: RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S, value: {{ .root.Values.serve.idleTimeoutSeconds | quote }}}
- {name: RAY_SERVE_HAPROXY_MAXCONN, value: {{ .root.Values.serve.maxConnections | int | quote }}}
- {name: HAPROXY_LAUNCHER_OPTIONS, value: {{ dict "header_timeout_s" (.root.Values.serve.headerTimeoutSeconds | int) "max_connections_per_address" (.root.Values.serve.maxConnectionsPerAddress | int) "expects_root" true | toJson | quote }}}
# Ray replaces HAProxy at each change of ingress replicas; what the old one still passes on
# has as long as the longest request.
- {name: RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S, value: {{ add (include "paraserve.longestDeadline" .root | int) 60 | quote }}}
# A HAProxy that died is replaced after three looks.
- {name: RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S, value: "1"}
- {name: RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S, value: "120"}
{{- end }}
{{- if and .serves (eq .root.Values.serve.replicaPlacement "Pack") }}
- {name: RAY_SERVE_USE_PACK_SCHEDULING_STRATEGY, value: "1"}
{{- end }}
# On a busy node Ray's processes may take longer to find each other than its 30 s.
- {name: RAY_worker_register_timeout_seconds, value: "300"}
- {name: RAY_gcs_server_port_wait_time_s, value: "120"}
# Each of many log files may become so large, thrice. Ray's own bounds are 512 MiB, six times.
- {name: RAY_ROTATION_MAX_BYTES, value: {{ include "paraserve.bytes" .root.Values.pods.logFileSize | quote }}}
- {name: RAY_ROTATION_BACKUP_COUNT, value: "2"}
# A replica without num_gpus keeps its sight of the devices that its container has.
- {name: RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO, value: "0"}
- {name: RAY_USAGE_STATS_ENABLED, value: "0"}
# The root file system is read-only.
- {name: HOME, value: /tmp}
- {name: XDG_CACHE_HOME, value: /tmp/.cache}
# Where a job finds the models: one of the chart's, or one submitted to the service's cluster.
- {name: PARASERVE_PACK_DIR, value: {{ $models.mountPath | quote }}}
{{- if or (ne $models.source "ephemeral") (and (not .serves) $settings.offline) }}
- {name: PARASERVE_OFFLINE, value: "true"}
{{- end }}
{{- end -}}

{{- define "paraserve.modelsVolume" -}}
name: models
{{- if eq .Values.models.source "pvc" }}
persistentVolumeClaim:
  claimName: {{ include "paraserve.modelsClaim" . }}
  readOnly: true
{{- else if eq .Values.models.source "volume" }}
{{ toYaml .Values.models.volume }}
{{- else }}
emptyDir:
  sizeLimit: {{ .Values.models.size }}
{{- end }}
{{- end -}}

{{/*
A pod template; arguments: root, component, container, options (of `pods`, over the
common ones), resources, gpus, sharedMemory, tmpSize, probe (the command of readiness),
account, serves, drains.
*/}}
{{- define "paraserve.podTemplate" -}}
{{- $root := .root -}}
{{- $pods := mustMergeOverwrite (deepCopy $root.Values.pods) (deepCopy (.options | default dict)) -}}
{{- $labels := merge (dict "app.kubernetes.io/component" .component) $pods.labels (include "paraserve.podLabels" $root | fromYaml) -}}
{{- $annotations := merge (deepCopy $pods.annotations) (deepCopy $root.Values.commonAnnotations) -}}
{{- if $pods.protectFromNodeScaleDown -}}
{{- $annotations = merge $annotations (dict "cluster-autoscaler.kubernetes.io/safe-to-evict" "false" "karpenter.sh/do-not-disrupt" "true") -}}
{{- end -}}
metadata:
  labels:
    {{- toYaml $labels | nindent 4 }}
  {{- with $annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  serviceAccountName: {{ .account }}
  automountServiceAccountToken: {{ hasSuffix "head" .component }}
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ include "paraserve.gracePeriod" $root }}
  securityContext:
    {{- toYaml $pods.securityContext | nindent 4 }}
  {{- with $root.Values.image.pullSecrets }}
  imagePullSecrets:
    {{- range . }}
    - name: {{ . }}
    {{- end }}
  {{- end }}
  {{- with $pods.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with $pods.runtimeClassName }}
  runtimeClassName: {{ . }}
  {{- end }}
  {{- with $pods.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $pods.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $pods.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $pods.topologySpreadConstraints }}
  topologySpreadConstraints:
    {{- $selector := dict "matchLabels" (merge (dict "app.kubernetes.io/component" $.component) (include "paraserve.selectorLabels" $root | fromYaml)) }}
    {{- range . }}
    - {{- merge (deepCopy .) (dict "labelSelector" $selector) | toYaml | nindent 6 }}
    {{- end }}
  {{- end }}
  {{- if and (or (not (hasSuffix "head" .component)) (not .serves)) (include "paraserve.preloads" $root) }}
  initContainers:
    # A replica that finds no pack fails, and after a few of them the deployment has. A job
    # looks for its packs on the head.
    - name: await-models
      image: {{ include "paraserve.image" $root }}
      imagePullPolicy: {{ $root.Values.image.pullPolicy }}
      securityContext:
        {{- toYaml $pods.containerSecurityContext | nindent 8 }}
      command: [bash, -c, {{ printf "until [ -f %s ]; do sleep 2; done" (include "paraserve.preloadMark" $root) | quote }}]
      resources:
        requests: {cpu: 10m, memory: 32Mi}
        limits: {cpu: 100m, memory: 64Mi}
      volumeMounts:
        - {name: models, mountPath: {{ $root.Values.models.mountPath }}, readOnly: true}
  {{- end }}
  containers:
    - {{- include "paraserve.rayContainer" (merge (dict "pods" $pods) .) | nindent 6 }}
  volumes:
    - name: tmp
      emptyDir:
        sizeLimit: {{ .tmpSize }}
    - name: spool
      emptyDir:
        {{- with $pods.spoolMedium }}
        medium: {{ . }}
        {{- end }}
        sizeLimit: {{ .tmpSize }}
    - name: shared-memory
      emptyDir:
        medium: Memory
        sizeLimit: {{ .sharedMemory }}
    {{- if ne $root.Values.models.source "baked" }}
    - {{- include "paraserve.modelsVolume" $root | nindent 6 }}
    {{- end }}
    {{- if include "paraserve.wantsKeys" $root }}
    - name: api-keys
      secret:
        secretName: {{ include "paraserve.keysSecret" $root }}
        items:
          - {key: {{ $root.Values.apiKeys.secretKey }}, path: keys.yaml}
    {{- end }}
    {{- if and .serves (include "paraserve.servesJobs" $root) }}
    - name: jobs
      projected:
        sources:
          - secret:
              name: {{ $root.Values.jobs.databaseSecret }}
              items:
                - {key: {{ $root.Values.jobs.databaseSecretKey }}, path: database-url}
          {{- with $root.Values.jobs.webhookSecret }}
          - secret:
              name: {{ . }}
              items:
                - {key: {{ $root.Values.jobs.webhookSecretKey }}, path: webhook-secrets.yaml}
          {{- end }}
    {{- end }}
    {{- if .drains }}
    - name: scripts
      configMap:
        name: {{ include "paraserve.fullname" $root }}-scripts
    {{- end }}
    {{- with $pods.volumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}

{{- define "paraserve.rayContainer" -}}
{{- $root := .root -}}
name: {{ .container }}
image: {{ include "paraserve.image" $root }}
imagePullPolicy: {{ $root.Values.image.pullPolicy }}
securityContext:
  {{- toYaml .pods.containerSecurityContext | nindent 2 }}
{{- $resources := deepCopy .resources }}
{{- if gt (.gpus | int) 0 }}
{{- $_ := set $resources "requests" (merge (dict $root.Values.gpuResource (.gpus | toString)) ($resources.requests | default dict)) }}
{{- $_ := set $resources "limits" (merge (dict $root.Values.gpuResource (.gpus | toString)) ($resources.limits | default dict)) }}
{{- end }}
resources:
  {{- toYaml $resources | nindent 2 }}
env:
  {{- include "paraserve.env" (dict "root" $root "serves" .serves) | nindent 2 }}
  {{- if .drains }}
  {{- /* The preStop hook has waited for the requests; Ray would wait for replicas, up to 30 s. */}}
  - {name: RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S, value: "0"}
  {{- end }}
  {{- with .pods.env }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
ports:
  {{- if hasSuffix "head" .component }}
  - {name: gcs-server, containerPort: 6379}
  - {name: dashboard, containerPort: 8265}
  - {name: client, containerPort: 10001}
  {{- end }}
  - {name: metrics, containerPort: 8080}
  - {name: serve, containerPort: {{ $root.Values.serve.port }}}
{{- $probes := .pods.probes }}
startupProbe:
  exec: {command: [bash, -c, {{ .liveness | quote }}]}
  initialDelaySeconds: {{ $probes.initialDelaySeconds }}
  periodSeconds: {{ $probes.periodSeconds }}
  timeoutSeconds: {{ $probes.timeoutSeconds }}
  failureThreshold: {{ $probes.startupFailures }}
livenessProbe:
  exec: {command: [bash, -c, {{ .liveness | quote }}]}
  periodSeconds: {{ $probes.periodSeconds }}
  timeoutSeconds: {{ $probes.timeoutSeconds }}
  failureThreshold: {{ $probes.livenessFailures }}
readinessProbe:
  exec: {command: [bash, -c, {{ .readiness | quote }}]}
  periodSeconds: {{ $probes.periodSeconds }}
  timeoutSeconds: {{ $probes.timeoutSeconds }}
  failureThreshold: {{ $probes.readinessFailures }}
{{- if .drains }}
lifecycle:
  preStop:
    exec: {command: [python, /etc/paraserve/scripts/drain.py, {{ include "paraserve.longestRequest" $root | quote }}]}
{{- end }}
volumeMounts:
  - {name: tmp, mountPath: /tmp}
  - {name: spool, mountPath: /spool}
  - {name: shared-memory, mountPath: /dev/shm}
  {{- if ne $root.Values.models.source "baked" }}
  - {name: models, mountPath: {{ $root.Values.models.mountPath }}{{ if ne $root.Values.models.source "ephemeral" }}, readOnly: true{{ end }}}
  {{- end }}
  {{- if include "paraserve.wantsKeys" $root }}
  - {name: api-keys, mountPath: /etc/paraserve/keys, readOnly: true}
  {{- end }}
  {{- if and .serves (include "paraserve.servesJobs" $root) }}
  - {name: jobs, mountPath: /etc/paraserve/jobs, readOnly: true}
  {{- end }}
  {{- if .drains }}
  - {name: scripts, mountPath: /etc/paraserve/scripts, readOnly: true}
  {{- end }}
  {{- with .pods.volumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}
