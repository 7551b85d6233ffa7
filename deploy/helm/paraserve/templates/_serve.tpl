{{/* The Serve config. */}}

{{/*
One application of the config; arguments: root, name, application.

A fixed number of replicas moves from the settings to Serve's list of deployments: a
change of `args` makes Serve start all replicas anew, a change there does not. It stays
where the recognizer follows the queue, since the segmenter then reports to its policy,
which only deployments with bounds may do.
*/}}
{{- define "paraserve.application" -}}
{{- $root := .root -}}
{{- $settings := deepCopy (.application.settings | default dict) -}}
{{- $effective := include "paraserve.effective" (dict "root" $root "settings" $settings) | fromYaml -}}
{{- $overrides := deepCopy (.application.deployments | default dict) -}}
{{- $scaling := dig "recognizer" "deployment" "autoscaling" dict $effective | default dict -}}
{{- $byQueue := and $scaling (ne ($scaling.policy | default "queued_audio") "ongoing_requests") -}}
{{- range $stage, $deployment := dict "ingress" "Ingress" "segmenter" "Segmenter" "recognizer" "Recognizer" "punctuator" "Punctuator" "speaker_embedder" "SpeakerEmbedder" -}}
{{- $size := dig $stage "deployment" dict $effective | default dict -}}
{{- $keeps := or $size.autoscaling (and (eq $stage "segmenter") $byQueue) -}}
{{- $deployed := include "paraserve.isDeployed" (dict "stage" $stage "settings" $effective) -}}
{{- if and $size.num_replicas $deployed (not $keeps) -}}
{{- $own := get $overrides $deployment | default dict -}}
{{- $_ := set $overrides $deployment (merge $own (dict "num_replicas" ($size.num_replicas | int))) -}}
{{- end -}}
{{- if and $deployed (gt ($root.Values.serve.replicaSurgePercent | int) 0) -}}
{{- $own := get $overrides $deployment | default dict -}}
{{- $_ := set $overrides $deployment (merge $own (dict "max_surge_percent" ($root.Values.serve.replicaSurgePercent | int))) -}}
{{- end -}}
{{- if and (hasKey $settings $stage) (not $keeps) -}}
{{- $section := get $settings $stage -}}
{{- if hasKey ($section.deployment | default dict) "num_replicas" -}}
{{- $_ := set $section "deployment" (omit $section.deployment "num_replicas") -}}
{{- /* An empty rest would still be a change of args. */ -}}
{{- if not $section.deployment -}}{{- $_ := unset $section "deployment" -}}{{- end -}}
{{- if not $section -}}{{- $_ := unset $settings $stage -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $http := dict "host" "0.0.0.0" "port" ($root.Values.serve.port | int) "haproxy" $root.Values.serve.haproxy -}}
{{- /* The page and live transcription are applications of their own: a change of them must not
restart the others. */ -}}
{{- $args := merge (dict "http" $http "pack_dir" $root.Values.models.mountPath "app_name" .name) (omit $settings "ui" "live") -}}
{{- if or (ne $root.Values.models.source "ephemeral") $effective.offline -}}
{{- $_ := set $args "offline" true -}}
{{- end -}}
{{- if ne (dig "auth" "mode" "auto" $effective | toString) "off" -}}
{{- $_ := set $args "auth" (merge (dict "keys_file" "/etc/paraserve/keys/keys.yaml") ($settings.auth | default dict)) -}}
{{- end -}}
{{- if dig "jobs" "enabled" false $effective -}}
{{- $files := dict "database_url_file" "/etc/paraserve/jobs/database-url" -}}
{{- if $root.Values.jobs.webhookSecret -}}
{{- $_ := set $files "webhook_secrets_file" "/etc/paraserve/jobs/webhook-secrets.yaml" -}}
{{- end -}}
{{- $_ := set $args "jobs" (merge $files ($settings.jobs | default dict)) -}}
{{- end -}}
{{- $audio := merge (deepCopy ($settings.audio | default dict)) (dict "spool_dir" "/spool") -}}
{{- $_ := set $args "audio" $audio -}}
{{- $deployments := list -}}
{{- range $deployment, $options := $overrides -}}
{{- $deployments = append $deployments (merge (dict "name" $deployment) $options) -}}
{{- end -}}
{{- $application := dict "name" .name "route_prefix" (.application.route_prefix | default (printf "/%s" .name)) "import_path" "serve_app.app:build" "args" $args -}}
{{- with $deployments -}}
{{- $_ := set $application "deployments" . -}}
{{- end -}}
{{- toYaml $application -}}
{{- end -}}

{{- define "paraserve.serveConfig" -}}
{{- $http := dict "host" "0.0.0.0" "port" (.Values.serve.port | int) "keep_alive_timeout_s" (.Values.serve.keepAliveTimeoutSeconds | int) -}}
{{- $applications := list -}}
{{- range $name, $application := include "paraserve.applications" . | fromYaml -}}
{{- $applications = append $applications (include "paraserve.application" (dict "root" $ "name" $name "application" $application) | fromYaml) -}}
{{- end -}}
{{- $name := .Values.settings.app_name | default "paraserve" -}}
{{- $settings := include "paraserve.mainSettings" . | fromYaml -}}
{{- $ui := dig "ui" dict (include "paraserve.effective" (dict "root" . "settings" $settings) | fromYaml) -}}
{{- $live := dig "live" dict (include "paraserve.effective" (dict "root" . "settings" $settings) | fromYaml) -}}
{{- if $ui.enabled -}}
{{- /* The page shows live captions where there are live sessions. */ -}}
{{- $known := dict "ui" $ui -}}
{{- if $live.enabled -}}
{{- $_ := set $known "live" (dict "enabled" true) -}}
{{- end -}}
{{- range $application := $applications -}}
{{- if eq $application.name $name -}}
{{- $args := merge $known (deepCopy $application.args) -}}
{{- $applications = append $applications (dict "name" (printf "%s-ui" $name) "route_prefix" ($ui.route_prefix | default "/ui") "import_path" "serve_app.app:build_page" "args" $args) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if $live.enabled -}}
{{- $deployment := $live.deployment | default dict -}}
{{- $options := dict "name" "Live" -}}
{{- if and $deployment.num_replicas (not $deployment.autoscaling) -}}
{{- $_ := set $options "num_replicas" ($deployment.num_replicas | int) -}}
{{- $live = merge (dict "deployment" (omit $deployment "num_replicas")) (omit $live "deployment") -}}
{{- end -}}
{{- if gt (.Values.serve.replicaSurgePercent | int) 0 -}}
{{- $_ := set $options "max_surge_percent" (.Values.serve.replicaSurgePercent | int) -}}
{{- end -}}
{{- range $application := $applications -}}
{{- if eq $application.name $name -}}
{{- $args := merge (dict "live" $live) (deepCopy $application.args) -}}
{{- $application := dict "name" (printf "%s-live" $name) "route_prefix" "/v1/realtime" "import_path" "serve_app.app:build_live" "args" $args -}}
{{- if gt (len $options) 1 -}}
{{- $_ := set $application "deployments" (list $options) -}}
{{- end -}}
{{- $applications = append $applications $application -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- dict "proxy_location" "EveryNode" "http_options" $http "applications" $applications | toYaml -}}
{{- end -}}
