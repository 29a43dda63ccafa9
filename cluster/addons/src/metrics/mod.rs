//! metrics-server: the source of `kubectl top` and the horizontal autoscaler.

use cluster_api::Watch;
use serde_json::{Value, json};

use crate::{Addon, Edits, Image, KUBE_SYSTEM, health, managed, placed};

pub(crate) const METRICS: Addon = Addon {
    name: "metrics-server",
    about: "CPU and memory of nodes and pods, for `kubectl top` and the horizontal pod autoscaler",
    images: &[METRICS_SERVER],
    built: &[],
    watches: &WATCHES,
    reads: &[],
    deployments: &["metrics-server"],
    health: health::available,
    edits: Edits::PutBack,
    replaced_by: None,
    leaves: &[],
    wanted: |_| true,
    objects: |_| objects(),
};

const METRICS_SERVER: Image = Image {
    name: "metrics-server",
    reference: "landfall.dev/metrics-server:v0.9.0",
};

const WATCHES: [Watch; 5] = [
    managed("apps/v1", "Deployment", KUBE_SYSTEM),
    managed("v1", "Service", KUBE_SYSTEM),
    managed("rbac.authorization.k8s.io/v1", "ClusterRole", None),
    managed("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", None),
    managed("apiregistration.k8s.io/v1", "APIService", None),
];

fn objects() -> Vec<Value> {
    let named = |name: &str| json!({ "name": name, "namespace": "kube-system" });
    let labels = json!({ "k8s-app": "metrics-server" });
    let account = json!([{ "kind": "ServiceAccount", "name": "metrics-server", "namespace": "kube-system" }]);
    let binding = |name: &str, role: &str| {
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": { "name": name },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role },
            "subjects": account
        })
    };
    vec![
        json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": named("metrics-server") }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": { "name": "system:metrics-server" },
            "rules": [
                { "apiGroups": [""], "resources": ["nodes/metrics"], "verbs": ["get"] },
                { "apiGroups": [""], "resources": ["pods", "nodes"], "verbs": ["get", "list", "watch"] }
            ]
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": { "name": "system:aggregated-metrics-reader", "labels": {
                "rbac.authorization.k8s.io/aggregate-to-admin": "true",
                "rbac.authorization.k8s.io/aggregate-to-edit": "true",
                "rbac.authorization.k8s.io/aggregate-to-view": "true"
            } },
            "rules": [{ "apiGroups": ["metrics.k8s.io"], "resources": ["pods", "nodes"], "verbs": ["get", "list", "watch"] }]
        }),
        binding("system:metrics-server", "system:metrics-server"),
        binding("metrics-server:system:auth-delegator", "system:auth-delegator"),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": named("metrics-server-auth-reader"),
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "extension-apiserver-authentication-reader" },
            "subjects": account
        }),
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": named("metrics-server"),
            "spec": { "selector": labels, "ports": [{ "name": "https", "port": 443, "protocol": "TCP", "targetPort": "https" }] }
        }),
        json!({
            "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": { "name": "v1beta1.metrics.k8s.io" },
            "spec": {
                "group": "metrics.k8s.io", "version": "v1beta1", "groupPriorityMinimum": 100, "versionPriority": 100,
                // It creates its certificate itself at each start, as in upstream's own manifest.
                "insecureSkipTLSVerify": true,
                "service": { "name": "metrics-server", "namespace": "kube-system" }
            }
        }),
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": named("metrics-server"),
            "spec": {
                "replicas": 1,
                "selector": { "matchLabels": labels },
                "strategy": { "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": 0 } },
                "template": { "metadata": { "labels": labels }, "spec": pod() }
            }
        }),
    ]
}

fn pod() -> Value {
    placed(json!({
        "serviceAccountName": "metrics-server",
        "containers": [{
            "name": "metrics-server", "image": METRICS_SERVER.reference, "imagePullPolicy": "IfNotPresent",
            "args": [
                "--cert-dir=/tmp",
                "--secure-port=10250",
                "--kubelet-preferred-address-types=InternalIP",
                // Kubelets' serving certificates are signed by the cluster's CA, which every pod has.
                "--kubelet-certificate-authority=/var/run/secrets/kubernetes.io/serviceaccount/ca.crt",
                "--kubelet-use-node-status-port",
                "--metric-resolution=15s"
            ],
            "ports": [{ "name": "https", "containerPort": 10250, "protocol": "TCP" }],
            "resources": { "requests": { "cpu": "50m", "memory": "60Mi" }, "limits": { "memory": "400Mi" } },
            "securityContext": {
                "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "runAsNonRoot": true, "runAsUser": 1000,
                "capabilities": { "drop": ["ALL"] }
            },
            "readinessProbe": { "httpGet": { "path": "/readyz", "port": "https", "scheme": "HTTPS" }, "periodSeconds": 5 },
            "livenessProbe": {
                "httpGet": { "path": "/livez", "port": "https", "scheme": "HTTPS" }, "initialDelaySeconds": 30
            },
            "volumeMounts": [{ "name": "tmp", "mountPath": "/tmp" }]
        }],
        "volumes": [{ "name": "tmp", "emptyDir": {} }]
    }))
}
