{{/* The Ray cluster, the same for the service and for batch jobs. */}}

{{- define "paraserve.raylet" -}}
wget --no-proxy --tries 1 -T 2 -q -O- http://localhost:52365/api/local_raylet_healthz | grep -q success
{{- end -}}

{{- define "paraserve.gcs" -}}
wget --no-proxy --tries 1 -T 2 -q -O- http://localhost:8265/api/gcs_healthz | grep -q success
{{- end -}}

{{/*
Workers of a group that an eviction must leave, 0 for no budget; arguments: root, name,
scaling (of worker groups). It counts from the pods that the group surely has.
*/}}
{{- define "paraserve.minAvailable" -}}
{{- $group := get .root.Values.workerGroups .name -}}
{{- $scaled := get .scaling .name | default dict -}}
{{- $sure := ternary "minReplicas" "replicas" .root.Values.autoscaler.enabled -}}
{{- $pods := dig $sure (get $group $sure) $scaled | int -}}
{{- if $group.enabled -}}{{- max 0 (sub $pods (.root.Values.podDisruptionBudget.maxUnavailable | int)) -}}{{- else -}}0{{- end -}}
{{- end -}}

{{/*
Specification of a RayCluster, as the operator would write it; arguments: root, groups
(names, empty for all that are enabled), serves (whether requests come to the workers),
scaling (of worker groups).
*/}}
{{- define "paraserve.clusterSpec" -}}
{{- $spec := include "paraserve.clusterDraft" . | fromYaml -}}
{{- with $spec.Error -}}{{- fail (printf "The specification of the cluster is no YAML: %s" .) -}}{{- end -}}
{{- include "paraserve.canonicalize" $spec -}}
{{- toYaml $spec -}}
{{- end -}}

{{/*
Bytes of the object store in a /dev/shm of that size. Without the number, Ray takes 30 % of the
container's memory, and puts the store on disk where /dev/shm is smaller.
*/}}
{{- define "paraserve.objectStoreBytes" -}}
{{- div (mul (include "paraserve.bytes" . | int64) 9) 10 -}}
{{- end -}}

{{- define "paraserve.clusterDraft" -}}
{{- $root := .root -}}
{{- $raylet := include "paraserve.raylet" . -}}
{{- $gcs := include "paraserve.gcs" . -}}
rayVersion: {{ $root.Values.rayVersion | quote }}
{{- if $root.Values.rayAuth.enabled }}
authOptions:
  mode: token
  secretName: {{ include "paraserve.raySecret" $root }}
{{- end }}
{{- /* Kueue admits a job with the pods that it states; it cannot follow an autoscaler. */}}
{{- $autoscales := and $root.Values.autoscaler.enabled (or .serves (not $root.Values.batch.kueue.queue)) }}
enableInTreeAutoscaling: {{ $autoscales }}
{{- if $autoscales }}
autoscalerOptions:
  version: v2
  idleTimeoutSeconds: {{ $root.Values.autoscaler.idleTimeoutSeconds }}
  upscalingMode: {{ $root.Values.autoscaler.upscalingMode }}
  imagePullPolicy: {{ $root.Values.image.pullPolicy }}
  resources:
    {{- toYaml $root.Values.autoscaler.resources | nindent 4 }}
  securityContext:
    {{- toYaml $root.Values.pods.containerSecurityContext | nindent 4 }}
  env:
    - {name: HOME, value: /tmp}
  volumeMounts:
    - {name: tmp, mountPath: /tmp}
{{- end }}
{{- if and .serves $root.Values.gcsFaultTolerance.enabled }}
gcsFaultToleranceOptions:
  {{- $storage := $root.Values.gcsFaultTolerance.storage }}
  {{- if eq $root.Values.gcsFaultTolerance.backend "rocksdb" }}
  backend: rocksdb
  storage:
    {{- if $storage.claimName }}
    claimName: {{ $storage.claimName }}
    {{- else }}
    size: {{ $storage.size }}
    {{- with $storage.storageClassName }}
    storageClassName: {{ . }}
    {{- end }}
    {{- with $storage.accessModes }}
    accessModes: {{ toJson . }}
    {{- end }}
    deletionPolicy: {{ $storage.deletionPolicy }}
    {{- end }}
  {{- else }}
  redisAddress: {{ $root.Values.gcsFaultTolerance.redisAddress | quote }}
  {{- with $root.Values.gcsFaultTolerance.redisPasswordSecret }}
  redisPassword:
    valueFrom:
      secretKeyRef: {name: {{ . }}, key: {{ $root.Values.gcsFaultTolerance.redisPasswordKey }}}
  {{- end }}
  {{- with $root.Values.gcsFaultTolerance.externalStorageNamespace }}
  externalStorageNamespace: {{ . }}
  {{- end }}
  {{- end }}
{{- end }}
headGroupSpec:
  rayStartParams:
    {{- $objects := include "paraserve.objectStoreBytes" $root.Values.head.sharedMemory }}
    {{- mustMergeOverwrite (dict "object-store-memory" $objects "dashboard-host" "0.0.0.0") (deepCopy $root.Values.head.rayStartParams) (dict "num-cpus" "0") | toYaml | nindent 4 }}
  template:
    {{- include "paraserve.podTemplate" (dict "root" $root "component" (ternary "head" "batch-head" .serves) "container" "ray-head" "options" $root.Values.head.pod "resources" $root.Values.head.resources "gpus" 0 "sharedMemory" $root.Values.head.sharedMemory "tmpSize" $root.Values.head.tmpSize "liveness" (printf "%s && %s" $raylet $gcs) "readiness" (printf "%s && %s" $raylet $gcs) "account" (include "paraserve.headAccount" $root) "serves" .serves "drains" false) | nindent 4 }}
workerGroupSpecs:
  {{- range $name, $group := $root.Values.workerGroups }}
  {{- if and $group.enabled (or (empty $.groups) (has $name $.groups)) }}
  {{- $scaled := get ($.scaling | default dict) $name | default dict }}
  {{- $ready := $raylet }}
  {{- if $.serves }}
  {{- $ready = printf "%s && wget --no-proxy --tries 1 -T 5 -q -O- http://localhost:%v/-/healthz | grep -q success" $raylet $root.Values.serve.port }}
  {{- end }}
  - groupName: {{ $name }}
    replicas: {{ dig "replicas" $group.replicas $scaled }}
    minReplicas: {{ dig "minReplicas" $group.minReplicas $scaled }}
    maxReplicas: {{ dig "maxReplicas" $group.maxReplicas $scaled }}
    idleTimeoutSeconds: {{ $group.idleTimeoutSeconds }}
    scaleStrategy: {}
    rayStartParams:
      {{- $objects := include "paraserve.objectStoreBytes" $group.sharedMemory }}
      {{- mustMergeOverwrite (dict "object-store-memory" $objects) (deepCopy ($group.rayStartParams | default dict)) | toYaml | nindent 6 }}
    template:
      {{- include "paraserve.podTemplate" (dict "root" $root "component" (ternary "worker" "batch-worker" $.serves) "container" "ray-worker" "options" $group.pod "resources" $group.resources "gpus" $group.gpus "sharedMemory" $group.sharedMemory "tmpSize" $group.tmpSize "liveness" $raylet "readiness" $ready "account" (include "paraserve.workerAccount" $root) "serves" $.serves "drains" $.serves) | nindent 6 }}
  {{- end }}
  {{- end }}
{{- end -}}

{{- define "paraserve.jobProfile" -}}
{{ .Values.batch.profile | default .Values.settings.profile | default "demo" }}
{{- end -}}

{{/* One word of a shell's command line, as Python's shlex.quote writes it. */}}
{{- define "paraserve.shellWord" -}}
{{- if regexMatch "^[A-Za-z0-9_@%+=:,./-]+$" . -}}{{ . }}{{- else -}}'{{ replace "'" "'\"'\"'" . }}'{{- end -}}
{{- end -}}

{{/* The command of a job, word for word as `paraserve batch submit` would write it. */}}
{{- define "paraserve.jobEntrypoint" -}}
{{- $words := concat (list "python" "-m" "serve_app.batch" .Values.batch.source .Values.batch.output "--profile" (include "paraserve.jobProfile" .)) .Values.batch.options -}}
{{- $quoted := list -}}
{{- range $words -}}{{- $quoted = append $quoted (include "paraserve.shellWord" .) -}}{{- end -}}
{{- $quoted | join " " -}}
{{- end -}}

{{/* By this label Kueue takes a job into its queue. */}}
{{- define "paraserve.kueueLabels" -}}
{{- with .Values.batch.kueue.queue }}
kueue.x-k8s.io/queue-name: {{ . | quote }}
{{- end }}
{{- with .Values.batch.kueue.priorityClass }}
kueue.x-k8s.io/priority-class: {{ . | quote }}
{{- end }}
{{- end -}}

{{/* Specification of a RayJob. */}}
{{- define "paraserve.jobSpec" -}}
{{- $spec := include "paraserve.jobDraft" . | fromYaml -}}
{{- with $spec.Error -}}{{- fail (printf "The specification of the job is no YAML: %s" .) -}}{{- end -}}
{{- include "paraserve.canonicalize" $spec -}}
{{- toYaml $spec -}}
{{- end -}}

{{- define "paraserve.jobDraft" -}}
entrypoint: {{ include "paraserve.jobEntrypoint" . | quote }}
# By these `paraserve batch` knows it, as one that it has submitted itself.
metadata:
  kind: paraserve-batch
  source: {{ .Values.batch.source | quote }}
  output: {{ .Values.batch.output | quote }}
shutdownAfterJobFinishes: true
ttlSecondsAfterFinished: {{ .Values.batch.ttlSecondsAfterFinished }}
activeDeadlineSeconds: {{ .Values.batch.activeDeadlineSeconds }}
backoffLimit: {{ .Values.batch.backoffLimit }}
submissionMode: K8sJobMode
submitterPodTemplate:
  metadata:
    labels:
      {{- merge (dict "app.kubernetes.io/component" "submitter") (include "paraserve.podLabels" . | fromYaml) | toYaml | nindent 6 }}
  spec:
    restartPolicy: Never
    serviceAccountName: {{ include "paraserve.workerAccount" . }}
    automountServiceAccountToken: false
    securityContext:
      {{- toYaml .Values.pods.securityContext | nindent 6 }}
    {{- with .Values.image.pullSecrets }}
    imagePullSecrets:
      {{- range . }}
      - name: {{ . }}
      {{- end }}
    {{- end }}
    containers:
      - name: ray-job-submitter
        image: {{ include "paraserve.image" . }}
        imagePullPolicy: {{ .Values.image.pullPolicy }}
        securityContext:
          {{- toYaml .Values.pods.containerSecurityContext | nindent 10 }}
        resources:
          requests: {cpu: 200m, memory: 512Mi}
          limits: {cpu: "1", memory: 1Gi}
        env:
          - {name: HOME, value: /tmp}
        volumeMounts:
          - {name: tmp, mountPath: /tmp}
    volumes:
      - name: tmp
        emptyDir: {sizeLimit: 1Gi}
rayClusterSpec:
  {{- include "paraserve.clusterSpec" (dict "root" . "groups" .Values.batch.workerGroups "serves" false "scaling" dict) | nindent 2 }}
{{- end -}}
