{{/* What a schema cannot say. Each refusal is one sentence that tells what to do. */}}

{{- define "paraserve.checks" -}}
{{- include "paraserve.checkKeys" . -}}
{{- include "paraserve.checkJobs" . -}}
{{- include "paraserve.checkModels" . -}}
{{- include "paraserve.checkGroups" . -}}
{{- include "paraserve.checkGpus" . -}}
{{- if and (or .Values.batch.job.enabled .Values.batch.cron.enabled) (not (and .Values.batch.source .Values.batch.output)) -}}
{{- fail "A batch job needs batch.source and batch.output, as s3://calls/2026/ and s3://texts/2026/." -}}
{{- end -}}
{{- include "paraserve.checkStore" . -}}
{{- include "paraserve.checkMemory" . -}}
{{- include "paraserve.checkUpgrades" . -}}
{{- end -}}

{{- define "paraserve.checkStore" -}}
{{- $store := .Values.gcsFaultTolerance -}}
{{- if and $store.enabled (eq $store.backend "redis") (not $store.redisAddress) -}}
{{- fail "gcsFaultTolerance.enabled needs gcsFaultTolerance.redisAddress, or backend: rocksdb." -}}
{{- end -}}
{{- if and $store.enabled (eq $store.backend "rocksdb") -}}
{{- if or $store.redisAddress $store.redisPasswordSecret $store.externalStorageNamespace -}}
{{- fail "gcsFaultTolerance.backend is rocksdb, which takes no redisAddress, redisPasswordSecret or externalStorageNamespace." -}}
{{- end -}}
{{- if and $store.storage.claimName (or $store.storage.storageClassName $store.storage.accessModes) -}}
{{- fail "gcsFaultTolerance.storage.claimName names a claim of yours: storageClassName and accessModes are for a claim that KubeRay makes." -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* /dev/shm and uploads in memory are part of the container's memory, and Ray's store of /dev/shm. */}}
{{- define "paraserve.checkMemory" -}}
{{- $settings := include "paraserve.effective" (dict "root" . "settings" .Values.settings) | fromYaml -}}
{{- $parts := dict "head" .Values.head -}}
{{- range $name, $group := .Values.workerGroups -}}
{{- if $group.enabled -}}{{- $_ := set $parts (printf "workerGroups.%s" $name) $group -}}{{- end -}}
{{- end -}}
{{- range $name, $part := $parts -}}
{{- $memory := include "paraserve.bytes" (dig "limits" "memory" "0" $part.resources) | int64 -}}
{{- $shared := include "paraserve.bytes" $part.sharedMemory | int64 -}}
{{- $spool := 0 -}}
{{- if and (ne $name "head") (eq (dig "spoolMedium" $.Values.pods.spoolMedium ($part.pod | default dict)) "Memory") -}}
{{- $spool = min (include "paraserve.bytes" $part.tmpSize | int64) (dig "admission" "max_bytes" 536870912 $settings | int64) -}}
{{- end -}}
{{- if lt $shared 104857600 -}}
{{- fail (printf "%s.sharedMemory is %s: Ray's object store needs at least 100Mi." $name $part.sharedMemory) -}}
{{- end -}}
{{- if and $memory (gt (mul 2 $shared) $memory) -}}
{{- fail (printf "%s.sharedMemory is %s, more than half of the memory limit %s: both are the container's memory, and replicas need the rest." $name $part.sharedMemory (dig "limits" "memory" "0" $part.resources | toString)) -}}
{{- end -}}
{{- if and $memory $spool (ge (add $shared $spool) $memory) -}}
{{- fail (printf "%s: sharedMemory %s and uploads in memory of %d bytes leave nothing of the memory limit %s: lower settings.admission.max_bytes or tmpSize, or raise the limit." $name $part.sharedMemory $spool (dig "limits" "memory" "0" $part.resources | toString)) -}}
{{- end -}}
{{- with dig "object-store-memory" "" ($part.rayStartParams | default dict) -}}
{{- if gt (int64 .) (div (mul $shared 95) 100) -}}
{{- fail (printf "%s.rayStartParams asks for an object store of %s bytes, but sharedMemory is %s: Ray would put it on disk." $name . $part.sharedMemory) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* KubeRay moves shares of the traffic in a route of its own, behind a gateway of its own. */}}
{{- define "paraserve.checkUpgrades" -}}
{{- $name := include "paraserve.fullname" . -}}
{{- $options := .Values.serve.incrementalUpgrade -}}
{{- if eq .Values.serve.upgradeStrategy "NewClusterWithIncrementalUpgrade" -}}
{{- if not $options.gatewayClassName -}}
{{- fail "serve.upgradeStrategy NewClusterWithIncrementalUpgrade needs serve.incrementalUpgrade.gatewayClassName (kubectl get gatewayclass)." -}}
{{- end -}}
{{- if not .Values.autoscaler.enabled -}}
{{- fail "serve.upgradeStrategy NewClusterWithIncrementalUpgrade needs autoscaler.enabled." -}}
{{- end -}}
{{- if gt ($options.stepSizePercent | int) ($options.maxSurgePercent | int) -}}
{{- fail "serve.incrementalUpgrade.stepSizePercent must not exceed maxSurgePercent." -}}
{{- end -}}
{{- if .Values.ingress.enabled -}}
{{- fail (printf "ingress.enabled would bypass the shares of an incremental upgrade: send clients to the Gateway %s-gateway, which KubeRay makes." $name) -}}
{{- end -}}
{{- if and .Values.httpRoute.enabled (not .Values.httpRoute.backendService) -}}
{{- fail (printf "httpRoute.enabled would bypass the shares of an incremental upgrade: set httpRoute.backendService to the Service of the Gateway %s-gateway, which KubeRay makes." $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "paraserve.checkKeys" -}}
{{- if and (include "paraserve.wantsKeys" .) (not .Values.apiKeys.existingSecret) (not .Values.apiKeys.keys) -}}
{{- fail "No API keys: set apiKeys.existingSecret or apiKeys.keys (paraserve keys new writes them), or settings.auth.mode to \"off\" to let everybody in." -}}
{{- end -}}
{{- end -}}

{{- define "paraserve.checkJobs" -}}
{{- range $name, $application := include "paraserve.applications" . | fromYaml -}}
{{- $settings := include "paraserve.effective" (dict "root" $ "settings" ($application.settings | default dict)) | fromYaml -}}
{{- if dig "jobs" "enabled" false $settings -}}
{{- if not $.Values.jobs.databaseSecret -}}
{{- fail "settings.jobs.enabled needs jobs.databaseSecret: a Secret with the URL of a PostgreSQL database, postgresql://user:password@host/name." -}}
{{- end -}}
{{- if not (dig "jobs" "storage" "" $settings) -}}
{{- fail "settings.jobs.enabled needs settings.jobs.storage: a bucket, such as s3://bucket/jobs, or a directory on a volume that all pods mount." -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "paraserve.checkModels" -}}
{{- if and (eq .Values.models.source "volume") (not .Values.models.volume) -}}
{{- fail "models.source is volume, but models.volume names none, as {persistentVolumeClaim: {claimName: models}}." -}}
{{- end -}}
{{- range $name, $application := include "paraserve.applications" . | fromYaml -}}
{{- range $key := list "http" "cluster" "pack_dir" -}}
{{- if hasKey ($application.settings | default dict) $key -}}
{{- fail (printf "settings.%s of the application %q is the chart's to set: use serve.* for http, models.* for pack_dir and workerGroups for cluster." $key $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "paraserve.checkGroups" -}}
{{- range $name, $group := .Values.workerGroups -}}
{{- if $group.enabled -}}
{{- if gt ($group.minReplicas | int) ($group.maxReplicas | int) -}}
{{- fail (printf "workerGroups.%s has minReplicas %d above its maxReplicas %d." $name ($group.minReplicas | int) ($group.maxReplicas | int)) -}}
{{- end -}}
{{- if or (lt ($group.replicas | int) ($group.minReplicas | int)) (gt ($group.replicas | int) ($group.maxReplicas | int)) -}}
{{- fail (printf "workerGroups.%s has replicas %d outside of minReplicas %d and maxReplicas %d." $name ($group.replicas | int) ($group.minReplicas | int) ($group.maxReplicas | int)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* GPU demand of all applications: list of {name, hundredths, count}, count without autoscaling above its least. */}}
{{- define "paraserve.gpuDemand" -}}
{{- $demand := list -}}
{{- range $name, $application := include "paraserve.applications" . | fromYaml -}}
{{- $settings := include "paraserve.effective" (dict "root" $ "settings" ($application.settings | default dict)) | fromYaml -}}
{{- range $stage, $deployment := dict "recognizer" "Recognizer" "punctuator" "Punctuator" "speaker_embedder" "SpeakerEmbedder" -}}
{{- $size := dig $stage "deployment" dict $settings | default dict -}}
{{- $override := dig $deployment dict ($application.deployments | default dict) | default dict -}}
{{- $gpus := dig "ray_actor_options" "num_gpus" ($size.num_gpus | default 0) $override -}}
{{- $deployed := include "paraserve.isDeployed" (dict "stage" $stage "settings" $settings) -}}
{{- $count := $override.num_replicas | default $size.num_replicas | default 1 | int -}}
{{- if $size.autoscaling -}}{{- $count = dig "min_replicas" 1 $size.autoscaling | int -}}{{- end -}}
{{- if and $deployed (gt ($gpus | float64) 0.0) -}}
{{- $demand = append $demand (dict "name" (printf "%s of %s" $deployment $name) "hundredths" (round (mulf 100.0 $gpus) 0 | int) "count" $count) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- dict "demand" $demand | toYaml -}}
{{- end -}}

{{/* Fractions must add up to whole GPUs, and the GPUs must be there. */}}
{{- define "paraserve.checkGpus" -}}
{{- $demand := (include "paraserve.gpuDemand" . | fromYaml).demand -}}
{{- $offered := 0 -}}{{- $largest := 0 -}}
{{- range .Values.workerGroups -}}
{{- if .enabled -}}
{{- $offered = add $offered (mul (.gpus | int) (.maxReplicas | int)) -}}
{{- $largest = max $largest (.gpus | int) -}}
{{- end -}}
{{- end -}}
{{- if and $demand (eq (int $offered) 0) -}}
{{- fail (printf "%s wants a GPU, but no enabled group of workerGroups has any: enable workerGroups.gpu." (first $demand).name) -}}
{{- end -}}
{{- include "paraserve.checkTiling" (dict "demand" $demand) -}}
{{- include "paraserve.checkPacking" (dict "demand" $demand "offered" (int $offered) "largest" (int $largest)) -}}
{{- end -}}

{{/* Each fraction must be part of some sum of the fractions in use that fills a GPU (0.99 counts, for thirds). */}}
{{- define "paraserve.checkTiling" -}}
{{- $reachable := dict "0" true -}}
{{- range $sum := untilStep 1 101 1 -}}
{{- range $.demand -}}
{{- if and (lt (.hundredths | int) 100) (hasKey $reachable (sub $sum (.hundredths | int) | toString)) -}}
{{- $_ := set $reachable ($sum | toString) true -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range .demand -}}
{{- $part := .hundredths | int -}}
{{- if lt $part 1 -}}
{{- fail (printf "%s asks for less than 0.01 of a GPU." .name) -}}
{{- end -}}
{{- if and (lt $part 100) (not (hasKey $reachable (sub 100 $part | toString))) (not (hasKey $reachable (sub 99 $part | toString))) -}}
{{- fail (printf "The GPU fractions do not add up: no sum of num_gpus that contains the %s of %s makes 1.0, so a part of each GPU could never be used; take fractions as 0.5, 0.25 and 0.25." (divf $part 100.0 | toString) .name) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The least number of replicas must fit into the GPUs that the groups may have: first fit, largest first. */}}
{{- define "paraserve.checkPacking" -}}
{{- $used := dict -}}{{- $whole := 0 -}}
{{- range $size := untilStep 99 0 -1 -}}
{{- range $.demand -}}
{{- if eq (.hundredths | int) $size -}}
{{- range $i := until (.count | int) -}}
{{- $placed := false -}}
{{- range $gpu := until (add (len $used) 1 | int) -}}
{{- $key := $gpu | toString -}}
{{- $sum := add (get $used $key | default 0) $size -}}
{{- if and (not $placed) (le $sum 100) -}}
{{- $_ := set $used $key $sum -}}
{{- $placed = true -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range .demand -}}
{{- if ge (.hundredths | int) 100 -}}
{{- $each := div (.hundredths | int) 100 -}}
{{- if gt $each $.largest -}}
{{- fail (printf "%s asks for %d GPUs in one replica, but the pods of workerGroups have at most %d." .name $each $.largest) -}}
{{- end -}}
{{- $whole = add $whole (mul $each (.count | int)) -}}
{{- end -}}
{{- end -}}
{{- $needed := add (len $used) $whole -}}
{{- if gt $needed (int64 .offered) -}}
{{- fail (printf "The replicas need %d GPUs at least, but workerGroups may have %d: raise maxReplicas or gpus, or take fewer replicas or smaller fractions." $needed .offered) -}}
{{- end -}}
{{- end -}}
