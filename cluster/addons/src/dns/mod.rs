//! The cluster's DNS: CoreDNS behind the service `kube-dns`.

mod custom;

use cluster_api::Watch;
use serde_json::{Value, json};

use custom::Custom;

use crate::{Addon, AddonOptions, Ailment, Edits, Image, KUBE_SYSTEM, Place, health, managed, placed};

pub(crate) const DNS: Addon = Addon {
    name: "coredns",
    about: "Names of services and pods, and names outside where the stamp has an uplink",
    images: &[COREDNS],
    built: &[],
    watches: &WATCHES,
    reads: &[custom::CONFIG],
    deployments: &["coredns"],
    health,
    edits: Edits::PutBack,
    replaced_by: None,
    leaves: &[],
    wanted: |_| true,
    objects,
};

const COREDNS: Image = Image {
    name: "coredns",
    reference: "landfall.dev/coredns:v1.15.0",
};

const WATCHES: [Watch; 7] = [
    custom::WATCH,
    managed("apps/v1", "Deployment", KUBE_SYSTEM),
    managed("v1", "ConfigMap", KUBE_SYSTEM),
    managed("v1", "Service", KUBE_SYSTEM),
    managed("policy/v1", "PodDisruptionBudget", KUBE_SYSTEM),
    managed("rbac.authorization.k8s.io/v1", "ClusterRole", None),
    managed("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", None),
];

/// More replicas bring nothing below hundreds of nodes.
const MAX_REPLICAS: u32 = 2;

fn objects(place: &Place<'_>) -> Vec<Value> {
    let Place { spec, options, .. } = *place;
    let custom = Custom::read(place);
    let corefile = corefile(options, &custom);
    // A change of the Corefile must restart the pods: it is part of their template.
    let mut annotations = json!({ "landfall.dev/corefile": corefile });
    for (name, text) in custom.annotations() {
        annotations[name] = json!(text);
    }
    let nodes: u32 = spec.pools.iter().map(|pool| pool.wanted()).sum();
    let labels = json!({ "k8s-app": "kube-dns" });
    let named = |name: &str| json!({ "name": name, "namespace": "kube-system" });
    let mut objects = vec![
        json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": named("coredns") }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": { "name": "system:coredns" },
            "rules": [
                { "apiGroups": [""], "resources": ["endpoints", "services", "pods", "namespaces"], "verbs": ["list", "watch"] },
                { "apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"] }
            ]
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": { "name": "system:coredns" },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:coredns" },
            "subjects": [{ "kind": "ServiceAccount", "name": "coredns", "namespace": "kube-system" }]
        }),
        json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": named("coredns"),
            "data": { "Corefile": corefile }
        }),
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": { "name": "kube-dns", "namespace": "kube-system", "labels": {
                "k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS"
            } },
            "spec": {
                "clusterIP": spec.network.dns_service_ip,
                "selector": labels,
                "ports": [
                    { "name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53 },
                    { "name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53 },
                    { "name": "metrics", "port": 9153, "protocol": "TCP", "targetPort": 9153 }
                ]
            }
        }),
        json!({
            "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": named("coredns"),
            "spec": { "maxUnavailable": 1, "selector": { "matchLabels": labels } }
        }),
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": named("coredns"),
            "spec": {
                "replicas": nodes.clamp(1, MAX_REPLICAS),
                "selector": { "matchLabels": labels },
                "progressDeadlineSeconds": custom::DEADLINE_SECONDS,
                // Old pods stay until new ones are ready, which may never happen.
                "strategy": { "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": 0, "maxSurge": 1 } },
                "template": {
                    "metadata": { "labels": labels, "annotations": annotations },
                    "spec": pod(&custom)
                }
            }
        }),
    ];
    objects.extend(custom.event());
    objects
}

/// Ready pods, and a valid `coredns-custom`.
fn health(place: &Place<'_>, addon: &Addon) -> Option<Ailment> {
    health::available(place, addon).or_else(|| Custom::read(place).ailment())
}

/// Names of the cluster; other names only with upstream servers; the tenant's additions.
///
/// Answers about the cluster's own names are not cached, as with kubeadm: they come from memory anyway, and a
/// cached one outlives its object. A name that was queried before its pod existed would stay unknown for half
/// a minute.
fn corefile(options: &AddonOptions, custom: &Custom) -> String {
    let (within, behind) = custom.imports();
    let forward = if options.upstream_dns.is_empty() {
        String::new()
    } else {
        let servers: Vec<_> = options.upstream_dns.iter().map(ToString::to_string).collect();
        format!("    forward . {}\n", servers.join(" "))
    };
    format!(
        ".:53 {{\n    errors\n    health {{\n        lameduck 5s\n    }}\n    ready\n    \
         kubernetes cluster.local in-addr.arpa ip6.arpa {{\n        pods insecure\n        \
         fallthrough in-addr.arpa ip6.arpa\n        ttl 30\n    }}\n    prometheus :9153\n{forward}    \
         cache 30 {{\n        disable success cluster.local\n        disable denial cluster.local\n    }}\n    \
         loop\n    reload\n    loadbalance\n{within}}}\n{behind}"
    )
}

fn pod(custom: &Custom) -> Value {
    let config = if custom.is_empty() {
        json!({ "name": "config", "configMap": { "name": "coredns" } })
    } else {
        let corefile = json!({ "configMap": { "name": "coredns", "items": [{ "key": "Corefile", "path": "Corefile" }] } });
        json!({ "name": "config", "projected": { "sources": [corefile, custom.projection()] } })
    };
    placed(json!({
        "serviceAccountName": "coredns",
        // Its own pod must not query itself for other names.
        "dnsPolicy": "Default",
        "topologySpreadConstraints": [{
            "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": { "matchLabels": { "k8s-app": "kube-dns" } }
        }],
        "containers": [{
            "name": "coredns", "image": COREDNS.reference, "imagePullPolicy": "IfNotPresent",
            "args": ["-conf", "/etc/coredns/Corefile"],
            "ports": [
                { "name": "dns", "containerPort": 53, "protocol": "UDP" },
                { "name": "dns-tcp", "containerPort": 53, "protocol": "TCP" },
                { "name": "metrics", "containerPort": 9153, "protocol": "TCP" }
            ],
            "resources": { "requests": { "cpu": "100m", "memory": "70Mi" }, "limits": { "memory": "500Mi" } },
            "securityContext": {
                "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
                "capabilities": { "add": ["NET_BIND_SERVICE"], "drop": ["ALL"] }
            },
            "readinessProbe": { "httpGet": { "path": "/ready", "port": 8181 }, "periodSeconds": 1 },
            "livenessProbe": {
                "httpGet": { "path": "/health", "port": 8080 }, "initialDelaySeconds": 30, "failureThreshold": 5
            },
            "volumeMounts": [{ "name": "config", "mountPath": "/etc/coredns", "readOnly": true }]
        }],
        "volumes": [config]
    }))
}
