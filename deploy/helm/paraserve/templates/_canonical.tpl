{{/*
What KubeRay would write. The operator writes a RayService or RayJob whole when it adds its
finalizer. Go's encoder then changes what is not in its own form: it adds structures, leaves
out empty values and rewrites quantities. A field that the operator changes belongs to it,
and the next `helm upgrade` conflicts, so the chart renders that form from the start.
Source: kubernetes/api v0.36 core/v1/types.go, KubeRay 1.7 apis/ray/v1.
*/}}

{{/*
A quantity as Kubernetes writes it: 1000m is 1, 0.5 is 500m, 2048Mi is 2Gi. The argument is a
string or a number.
Source: apimachinery, api/resource/quantity.go, `CanonicalizeBytes`.
*/}}
{{- define "paraserve.quantity" -}}
{{- $text := . | toString -}}
{{- if not (kindIs "string" .) -}}{{- $text = printf "%.3f" (float64 .) -}}{{- end -}}
{{- $suffix := regexFind "[A-Za-z]*$" $text -}}
{{- $number := trimSuffix $suffix $text | float64 -}}
{{- $binary := list "Ki" "Mi" "Gi" "Ti" -}}
{{- $decimal := list "m" "" "k" "M" "G" "T" -}}
{{- if has $suffix $binary -}}
{{- range $unit := $binary -}}{{- $number = mulf $number 1024 -}}{{- if eq $unit $suffix -}}{{- break -}}{{- end -}}{{- end -}}
{{- $bytes := ceil $number | int64 -}}
{{- $written := "" -}}
{{- range $unit := $binary -}}
{{- if and $bytes (eq (mod $bytes 1024) 0) -}}{{- $bytes = div $bytes 1024 -}}{{- $written = $unit -}}{{- else -}}{{- break -}}{{- end -}}
{{- end -}}
{{- $bytes -}}{{- $written -}}
{{- else if has $suffix $decimal -}}
{{- range $unit := $decimal -}}{{- if eq $unit $suffix -}}{{- break -}}{{- end -}}{{- $number = mulf $number 1000 -}}{{- end -}}
{{- $milli := round $number 0 | int64 -}}
{{- $written := "m" -}}
{{- range $unit := rest $decimal -}}
{{- if and $milli (eq (mod $milli 1000) 0) -}}{{- $milli = div $milli 1000 -}}{{- $written = $unit -}}{{- else -}}{{- break -}}{{- end -}}
{{- end -}}
{{- if $milli -}}{{- $milli -}}{{- $written -}}{{- else -}}0{{- end -}}
{{- else -}}
{{- $text -}}
{{- end -}}
{{- end -}}

{{/* The bytes of a quantity. */}}
{{- define "paraserve.bytes" -}}
{{- $text := include "paraserve.quantity" . -}}
{{- $suffix := regexFind "[A-Za-z]*$" $text -}}
{{- $factors := dict "" 1 "k" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 -}}
{{- if eq $suffix "m" -}}0{{- else -}}{{- mul (trimSuffix $suffix $text | int64) (get $factors $suffix | int64) -}}{{- end -}}
{{- end -}}

{{/*
Changes a structure, and all that it holds, into that form. Prints nothing. An empty value
stays where Go has a pointer or no `omitempty`.
*/}}
{{- define "paraserve.canonicalize" -}}
{{- $kept := list "rayStartParams" "scaleStrategy" "resources" "emptyDir" "securityContext" "labelSelector" "namespaceSelector" "selector" "replicas" "minReplicas" "maxReplicas" "idleTimeoutSeconds" "enableInTreeAutoscaling" "automountServiceAccountToken" "enableServiceLinks" "allowPrivilegeEscalation" "readOnlyRootFilesystem" "privileged" "runAsNonRoot" "runAsUser" "runAsGroup" "fsGroup" "user" "shareProcessNamespace" "setHostnameAsFQDN" "hostUsers" "hostProcess" "optional" "defaultMode" "mode" "tolerationSeconds" "terminationGracePeriodSeconds" "activeDeadlineSeconds" "backoffLimit" "expirationSeconds" "minDomains" "priority" "weight" "lun" "containerPort" "seconds" "storageClassName" "podAffinityTerm" "preference" "spec" "metadata" "template" -}}
{{- range $key, $value := . -}}
{{- $parent := $ -}}
{{- if kindIs "map" $value -}}
{{- if has $key (list "requests" "limits") -}}
{{- range $name, $amount := $value -}}{{- $_ := set $value $name (include "paraserve.quantity" $amount) -}}{{- end -}}
{{- else if not (has $key (list "labels" "annotations" "matchLabels" "nodeSelector" "rayStartParams" "volumeAttributes")) -}}
{{- include "paraserve.canonicalize" $value -}}
{{- end -}}
{{- else if kindIs "slice" $value -}}
{{- range $value -}}{{- if kindIs "map" . -}}{{- include "paraserve.canonicalize" . -}}{{- end -}}{{- end -}}
{{- else if and (has $key (list "sizeLimit" "size" "storage")) (not (kindIs "invalid" $value)) -}}
{{- $_ := set $parent $key (include "paraserve.quantity" $value) -}}
{{- end -}}
{{- if or (kindIs "invalid" $value) (and (empty $value) (not (has $key $kept))) -}}
{{- $_ := unset $parent $key -}}
{{- end -}}
{{- end -}}
{{- with get . "resourceFieldRef" -}}
{{- if and (kindIs "map" .) (not (hasKey . "divisor")) -}}{{- $_ := set . "divisor" "0" -}}{{- end -}}
{{- end -}}
{{- end -}}
