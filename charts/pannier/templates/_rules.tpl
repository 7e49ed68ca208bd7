{{/* What the operator needs where tiers are. These rules are those of operator/rbac/, which a test
     compares: with them the operator's own tests run. */}}
{{- define "pannier.rules.tiers" -}}
- apiGroups: [pannier.dev]
  resources: [cachetiers, sessionpolicies]
  verbs: [get, list, watch, patch]
- apiGroups: [pannier.dev]
  resources: [cachetiers/status, sessionpolicies/status]
  verbs: [patch]
- apiGroups: [pannier.dev]
  resources: [cachetiers/finalizers]
  verbs: [update]
- apiGroups: [""]
  resources: [configmaps, secrets, services, serviceaccounts]
  verbs: [get, list, watch, create, patch, update, delete]
- apiGroups: [apps]
  resources: [statefulsets]
  verbs: [get, list, watch, create, patch, update, delete]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, patch, update, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, update, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
- apiGroups: [""]
  resources: [pods/status]
  verbs: [patch]
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [list]
- apiGroups: [""]
  resources: [pods/eviction]
  verbs: [create]
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [get, create, update]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end -}}

{{/* Where tiers of other namespaces are shared with: copies of what sidecars read. */}}
{{- define "pannier.rules.copies" -}}
- apiGroups: [""]
  resources: [configmaps, secrets]
  verbs: [get, create, patch, update, delete]
{{- end -}}

{{/* Where pods of shared tiers get sidecars: which have one, and telling them that their configuration
     has changed. The right to change pods is not among them, that to change their status is. */}}
{{- define "pannier.rules.injector" -}}
- apiGroups: [""]
  resources: [configmaps, secrets]
  verbs: [list, watch]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
- apiGroups: [""]
  resources: [pods/status]
  verbs: [patch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end -}}
