{{/* What the settings come to: profile, values, and what was scaled by hand. */}}

{{/*
Overrides that `paraserve cluster scale` has left on the live RayService, as YAML:
{deployments: {NAME: {...}}, settings: {...}, workerGroups: {NAME: {...}}}.
Nothing where there is no cluster to ask, as in `helm template`.
*/}}
{{- define "paraserve.scaling" -}}
{{- $scaling := dict -}}
{{- if .Values.keepScaling -}}
{{- $live := lookup "ray.io/v1" "RayService" .Release.Namespace (include "paraserve.fullname" .) | default dict -}}
{{- $annotations := dig "metadata" "annotations" dict $live | default dict -}}
{{- with get $annotations "paraserve.dev/scale" -}}
{{- $scaling = fromYaml . -}}
{{- end -}}
{{- end -}}
{{- toYaml $scaling -}}
{{- end -}}

{{/* The settings of one application with its profile under them; arguments: root, settings. */}}
{{- define "paraserve.effective" -}}
{{- $profile := .root.Files.Get (printf "files/profiles/%s.yaml" (.settings.profile | default "demo")) | fromYaml | default dict -}}
{{- mustMergeOverwrite (deepCopy $profile) (deepCopy .settings) | toYaml -}}
{{- end -}}

{{/* "true" if the deployment of a section exists; arguments: stage (the section), settings (effective). */}}
{{- define "paraserve.isDeployed" -}}
{{- $stages := .settings.stages | default (list "vad" "asr" "punctuation") -}}
{{- $needed := get (dict "punctuator" "punctuation" "speaker_embedder" "speakers") .stage -}}
{{- if or (not $needed) (has $needed $stages) -}}true{{- end -}}
{{- end -}}

{{/* "true" if an application takes jobs over HTTP. */}}
{{- define "paraserve.servesJobs" -}}
{{- range $name, $application := include "paraserve.applications" . | fromYaml -}}
{{- $settings := include "paraserve.effective" (dict "root" $ "settings" ($application.settings | default dict)) | fromYaml -}}
{{- if dig "jobs" "enabled" false $settings -}}true{{- end -}}
{{- end -}}
{{- end -}}

{{/* Settings of the main application with the scaling of the operator in them. */}}
{{- define "paraserve.mainSettings" -}}
{{- $scaling := include "paraserve.scaling" . | fromYaml -}}
{{- mustMergeOverwrite (deepCopy .Values.settings) ($scaling.settings | default dict) | toYaml -}}
{{- end -}}

{{/* All applications by name: {settings, deployments, route_prefix}. */}}
{{- define "paraserve.applications" -}}
{{- $scaling := include "paraserve.scaling" . | fromYaml -}}
{{- $main := dict "settings" (include "paraserve.mainSettings" . | fromYaml) "route_prefix" "/" -}}
{{- $_ := set $main "deployments" (mustMergeOverwrite (deepCopy .Values.deployments) ($scaling.deployments | default dict)) -}}
{{- $_ := set $main "scaled" ($scaling.deployments | default dict) -}}
{{- $all := dict (.Values.settings.app_name | default "paraserve") $main -}}
{{- range $name, $application := .Values.extraApplications -}}
{{- if hasKey $all $name -}}
{{- fail (printf "extraApplications.%s has the name of the main application: choose another." $name) -}}
{{- end -}}
{{- if dig "ui" "enabled" false ($application.settings | default dict) -}}
{{- fail (printf "extraApplications.%s.settings.ui.enabled: the page belongs to the main application; enable it in settings.ui." $name) -}}
{{- end -}}
{{- if dig "live" "enabled" false ($application.settings | default dict) -}}
{{- fail (printf "extraApplications.%s.settings.live.enabled: live transcription belongs to the main application; enable it in settings.live." $name) -}}
{{- end -}}
{{- $_ := set $all $name $application -}}
{{- end -}}
{{- toYaml $all -}}
{{- end -}}

{{/* Longest that anything under way may take in s: a request, or a replica's farewell. */}}
{{- define "paraserve.longestRequest" -}}
{{- $longest := 0 -}}
{{- range $name, $application := include "paraserve.applications" . | fromYaml -}}
{{- $settings := include "paraserve.effective" (dict "root" $ "settings" ($application.settings | default dict)) | fromYaml -}}
{{- $longest = max $longest (dig "ingress" "request_timeout_s" 3600 $settings | ceil | int) -}}
{{- range $stage := list "ingress" "segmenter" "recognizer" "punctuator" "speaker_embedder" -}}
{{- $longest = max $longest (dig $stage "deployment" "graceful_shutdown_timeout_s" 600 $settings | ceil | int) -}}
{{- end -}}
{{- /* A session may last hours; one whose replica stops goes on in another within this time. */ -}}
{{- if dig "live" "enabled" false $settings -}}
{{- $longest = max $longest (dig "live" "deployment" "graceful_shutdown_timeout_s" 300 $settings | ceil | int) -}}
{{- end -}}
{{- end -}}
{{- $longest -}}
{{- end -}}

{{/* Longest deadline that any caller may ask for, or live session, in s. */}}
{{- define "paraserve.longestDeadline" -}}
{{- $longest := 0 -}}
{{- range $name, $application := include "paraserve.applications" . | fromYaml -}}
{{- $settings := include "paraserve.effective" (dict "root" $ "settings" ($application.settings | default dict)) | fromYaml -}}
{{- $longest = max $longest (dig "ingress" "max_request_timeout_s" 14400 $settings | ceil | int) -}}
{{- if dig "live" "enabled" false $settings -}}
{{- $longest = max $longest (dig "live" "max_session_s" 14400 $settings | ceil | int) -}}
{{- end -}}
{{- end -}}
{{- $longest -}}
{{- end -}}

{{- define "paraserve.gracePeriod" -}}
{{- $longest := include "paraserve.longestRequest" . | int -}}
{{- $given := .Values.pods.terminationGracePeriodSeconds | int -}}
{{- if and $given (le $given $longest) -}}
{{- fail (printf "pods.terminationGracePeriodSeconds is %d, but a request may take %d s: set it higher, or to 0 to have it follow the settings." $given $longest) -}}
{{- end -}}
{{- $given | default (add $longest 60) -}}
{{- end -}}

{{/* "true" if an application or a batch job runs a model on CUDA. */}}
{{- define "paraserve.usesCuda" -}}
{{- $all := include "paraserve.applications" . | fromYaml -}}
{{- if or .Values.batch.job.enabled .Values.batch.cron.enabled -}}
{{- $_ := set $all "batch/job" (dict "settings" (dict "profile" (include "paraserve.jobProfile" .))) -}}
{{- end -}}
{{- $uses := false -}}
{{- range $name, $application := $all -}}
{{- $settings := include "paraserve.effective" (dict "root" $ "settings" ($application.settings | default dict)) | fromYaml -}}
{{- range $stage := list "recognizer" "punctuator" "speaker_embedder" -}}
{{- if hasPrefix "cuda" (dig $stage "device" "cpu" $settings) -}}{{- $uses = true -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- $uses -}}
{{- end -}}

{{/* "true" if any application wants API keys. */}}
{{- define "paraserve.wantsKeys" -}}
{{- range $name, $application := include "paraserve.applications" . | fromYaml -}}
{{- $settings := include "paraserve.effective" (dict "root" $ "settings" ($application.settings | default dict)) | fromYaml -}}
{{- if ne (dig "auth" "mode" "auto" $settings | toString) "off" -}}true{{- end -}}
{{- end -}}
{{- end -}}

{{/*
Packs that effective settings need, as `packs_of` in serve_app/inference/loading.py has
them, without directories: nobody can fetch those.
*/}}
{{- define "paraserve.packsOf" -}}
{{- $stages := .stages | default (list "vad" "asr" "punctuation") -}}
{{- $named := concat (list (dig "recognizer" "pack" "paraformer-demo" .)) (dig "recognizer" "other_packs" (list) .) -}}
{{- if has "vad" $stages -}}{{- $named = append $named (dig "vad" "pack" "fsmn-vad" .) -}}{{- end -}}
{{- if has "punctuation" $stages -}}{{- $named = append $named (dig "punctuator" "pack" "ct-punc-demo" .) -}}{{- end -}}
{{- if has "speakers" $stages -}}{{- $named = append $named (dig "speaker_embedder" "pack" "campplus-zh-en" .) -}}{{- end -}}
{{- if eq (dig "recognizer" "engine" "paraformer" .) "hybrid" -}}
{{- $named = append $named (dig "recognizer" "whisper" "pack" "whisper-base" .) -}}
{{- end -}}
{{- $packs := list -}}
{{- range $named -}}
{{- if not (regexMatch "^(dir:|/)" .) -}}{{- $packs = append $packs . -}}{{- end -}}
{{- end -}}
{{- toYaml $packs -}}
{{- end -}}

{{/* Packs that the applications and the batch job need, without doubles, sorted. */}}
{{- define "paraserve.packs" -}}
{{- $packs := list -}}
{{- $all := include "paraserve.applications" . | fromYaml -}}
{{- if or .Values.batch.job.enabled .Values.batch.cron.enabled -}}
{{- $_ := set $all "batch/job" (dict "settings" (dict "profile" (include "paraserve.jobProfile" .))) -}}
{{- end -}}
{{- range $name, $application := $all -}}
{{- $settings := include "paraserve.effective" (dict "root" $ "settings" ($application.settings | default dict)) | fromYaml -}}
{{- $packs = concat $packs (include "paraserve.packsOf" $settings | fromYamlArray) -}}
{{- end -}}
{{- .Values.models.preload.packs | default ($packs | uniq | sortAlpha) | toYaml -}}
{{- end -}}

{{/* "true" if a job fills the volume of the models. */}}
{{- define "paraserve.preloads" -}}
{{- if and (eq .Values.models.source "pvc") .Values.models.preload.enabled -}}true{{- end -}}
{{- end -}}

{{/* What the preload job does, in eight digits: its name, and that of the mark it leaves. */}}
{{- define "paraserve.preloadIdentity" -}}
{{- printf "%s %s" (include "paraserve.image" .) (include "paraserve.packs" . | fromYamlArray | join " ") | sha256sum | trunc 8 -}}
{{- end -}}

{{- define "paraserve.preloadMark" -}}
{{ .Values.models.mountPath }}/.preloaded-{{ include "paraserve.preloadIdentity" . }}
{{- end -}}
