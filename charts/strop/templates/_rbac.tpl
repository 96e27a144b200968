{{- /* What the operator does in the namespaces whose jobs it looks after. */}}
{{- define "strop.jobRules" -}}
- apiGroups: [strop.dev]
  resources: [finetunejobs]
  verbs: [get, list, watch, patch, delete]
- apiGroups: [strop.dev]
  resources: [finetunejobs/status]
  verbs: [patch]
- apiGroups: [strop.dev]
  resources: [modelversions]
  verbs: [get, create]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
- apiGroups: [""]
  resources: [configmaps, services]
  verbs: [get, create, patch]
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get, create, delete]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, create, patch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [list, create, patch]
- apiGroups: [kueue.x-k8s.io]
  resources: [workloads]
  verbs: [list, watch, patch]
{{- end }}

{{- /* What has no namespace. */}}
{{- define "strop.clusterRules" -}}
- apiGroups: [strop.dev]
  resources: [computepools]
  verbs: [list, watch]
- apiGroups: [authentication.k8s.io]
  resources: [tokenreviews]
  verbs: [create]
{{- end }}

{{- /*
What it does in its own namespace. A name bounds create as well: the operator creates by server-side apply, where the
name is in the request.
*/}}
{{- define "strop.ownRules" -}}
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  resourceNames: [{{ include "strop.fullname" . }}]
  verbs: [get, create, patch]
- apiGroups: [""]
  resources: [secrets]
  resourceNames: [{{ include "strop.tlsSecret" . }}]
  verbs: [get, create, patch]
{{- end }}
