//! The ingress controller: Traefik behind the IngressClass that manifests for AKS name, and behind the GatewayClass of the same
//! name where the Gateway API is there as well.
//!
//! Always true: it has a namespace of its own, which goes with it; it reads what it routes by and writes nothing but the status of
//! that; it has neither dashboard nor API, reports to nobody, and runs without rights on its node; its pods go to nodes that have its
//! image and to no others.

mod gateway;
mod routes;
mod schema;

use cluster_api::ObjectRef;
use cluster_spec::{AddonImage, IngressReach, TRAEFIK};
use serde_json::{Value, json};

pub(crate) use gateway::{GATEWAY_CLASS, GATEWAY_KINDS};

use crate::{Addon, Edits, Place, health, placed};

pub(crate) const CONTROLLER: Addon = Addon {
    name: "ingress",
    about: "The ingress controller (with `ingressProfile.webAppRouting`)",
    images: &[],
    built: &[TRAEFIK],
    // As for the engine of network policies: not worth a watch in every cluster.
    watches: &[],
    reads: &[NAMESPACE, DEPLOYMENT],
    deployments: &[],
    health: |place, _| health::unavailable(place, &DEPLOYMENT),
    edits: Edits::Compared,
    replaced_by: None,
    // First what others see: no new Ingress finds its class, and the load balancer goes. The namespace takes all that is left.
    leaves: &[
        CLASS, SERVICE, DEPLOYMENT, BUDGET, BINDING, ROLE, ACCOUNT, NAMESPACE,
    ],
    wanted: |spec| spec.ingress.controller.is_some(),
    objects,
};

/// The name of the class of Ingresses, and of that of Gateways: manifests for AKS have it.
const CLASS_NAME: &str = "webapprouting.kubernetes.azure.com";
/// AKS' namespace of its controllers.
const SPACE: &str = "app-routing-system";
const NAME: &str = "traefik";
const ROLE_NAME: &str = "system:ingress";
const RBAC: &str = "rbac.authorization.k8s.io/v1";
/// Where a pod answers for its health, to the node alone: no Service has this port.
const HEALTH_PORT: u16 = 8081;
/// A second replica serves while the other one's node is away; more bring little here.
const MAX_REPLICAS: u32 = 2;
/// A user without a name and without files.
const USER: u32 = 65532;
/// The annotation by which a load balancer gets an address of the nodes' subnet.
const INTERNAL: &str = "service.beta.kubernetes.io/azure-load-balancer-internal";

const fn within(version: &'static str, kind: &'static str) -> ObjectRef {
    ObjectRef {
        version,
        kind,
        namespace: Some(SPACE),
        name: NAME,
    }
}

const fn of_cluster(version: &'static str, kind: &'static str, name: &'static str) -> ObjectRef {
    ObjectRef {
        version,
        kind,
        namespace: None,
        name,
    }
}

const NAMESPACE: ObjectRef = of_cluster("v1", "Namespace", SPACE);
const ACCOUNT: ObjectRef = within("v1", "ServiceAccount");
const ROLE: ObjectRef = of_cluster(RBAC, "ClusterRole", ROLE_NAME);
const BINDING: ObjectRef = of_cluster(RBAC, "ClusterRoleBinding", ROLE_NAME);
const CLASS: ObjectRef = of_cluster("networking.k8s.io/v1", "IngressClass", CLASS_NAME);
const BUDGET: ObjectRef = within("policy/v1", "PodDisruptionBudget");
const DEPLOYMENT: ObjectRef = within("apps/v1", "Deployment");
const SERVICE: ObjectRef = within("v1", "Service");

/// An object without its content.
fn bare(object: &ObjectRef) -> Value {
    let mut bare = json!({
        "apiVersion": object.version, "kind": object.kind, "metadata": { "name": object.name }
    });
    if let Some(namespace) = object.namespace {
        bare["metadata"]["namespace"] = json!(namespace);
    }
    bare
}

/// An object with these fields beside its metadata.
fn with(object: &ObjectRef, fields: Value) -> Value {
    let mut whole = bare(object);
    if let (Some(whole), Value::Object(fields)) = (whole.as_object_mut(), fields) {
        whole.extend(fields);
    }
    whole
}

fn objects(place: &Place<'_>) -> Vec<Value> {
    let Some(image) = AddonImage::named(TRAEFIK) else {
        return Vec::new();
    };
    let ingress = place.spec.ingress;
    let labels = json!({ "app": NAME });
    vec![
        bare(&NAMESPACE),
        bare(&ACCOUNT),
        with(&ROLE, json!({ "rules": rules(ingress.has_gateways()) })),
        with(
            &BINDING,
            json!({
                "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": ROLE_NAME },
                "subjects": [{ "kind": "ServiceAccount", "name": NAME, "namespace": SPACE }]
            }),
        ),
        // The name of the controller is the program's own: it serves no class of another one.
        with(
            &CLASS,
            json!({ "spec": { "controller": "traefik.io/ingress-controller" } }),
        ),
        with(
            &BUDGET,
            json!({ "spec": { "maxUnavailable": 1, "selector": { "matchLabels": labels } } }),
        ),
        deployment(place, image, &labels),
        service(ingress.controller.unwrap_or_default(), &labels),
    ]
}

fn rules(gateways: bool) -> Vec<Value> {
    const READ: [&str; 3] = ["get", "list", "watch"];
    let rule = |group: &str, resources: &[&str], verbs: &[&str]| json!({ "apiGroups": [group], "resources": resources, "verbs": verbs });
    let mut rules = vec![
        // Certificates are in the namespaces of their Ingresses, and so in any. Nodes are read by the program before it begins.
        rule("", &["nodes", "secrets", "services"], &READ),
        rule("discovery.k8s.io", &["endpointslices"], &READ),
        rule("networking.k8s.io", &["ingressclasses", "ingresses"], &READ),
        rule("networking.k8s.io", &["ingresses/status"], &["update"]),
    ];
    if gateways {
        let group = gateway::GROUP;
        // The CAs of backends are in ConfigMaps; namespaces are chosen by labels.
        rules.push(rule("", &["configmaps", "namespaces"], &READ));
        rules.push(rule(
            group,
            &[
                "backendtlspolicies",
                "gatewayclasses",
                "gateways",
                "grpcroutes",
                "httproutes",
                "referencegrants",
            ],
            &READ,
        ));
        rules.push(rule(
            group,
            &[
                "backendtlspolicies/status",
                "gatewayclasses/status",
                "gateways/status",
                "grpcroutes/status",
                "httproutes/status",
            ],
            &["update"],
        ));
    }
    rules
}

fn deployment(place: &Place<'_>, image: &AddonImage, labels: &Value) -> Value {
    let nodes: u32 = place.spec.pools.iter().map(|pool| pool.wanted()).sum();
    with(
        &DEPLOYMENT,
        json!({
            "spec": {
                "replicas": nodes.clamp(1, MAX_REPLICAS),
                "selector": { "matchLabels": labels },
                // One more while they are replaced: a single one goes once the next one serves.
                "strategy": { "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": 0, "maxSurge": 1 } },
                "template": {
                    "metadata": { "labels": labels },
                    "spec": pod(image, labels, place.spec.ingress.has_gateways())
                }
            }
        }),
    )
}

fn pod(image: &AddonImage, labels: &Value, gateways: bool) -> Value {
    let probe = json!({ "path": "/ping", "port": "health" });
    let mut pod = placed(json!({
        "serviceAccountName": NAME,
        // Longer than connections are still accepted and then finished: see the arguments.
        "terminationGracePeriodSeconds": 60,
        "securityContext": {
            "runAsNonRoot": true, "runAsUser": USER, "runAsGroup": USER,
            "seccompProfile": { "type": "RuntimeDefault" },
            // Gateways name the ports that they listen at, and the program looks for the same ports of its own: it has 80 and 443,
            // in the pod's own network, as a user without rights.
            "sysctls": [{ "name": "net.ipv4.ip_unprivileged_port_start", "value": "0" }]
        },
        "containers": [{
            "name": NAME, "image": image.reference,
            // It is on the node, or cannot be had.
            "imagePullPolicy": "Never",
            "args": arguments(gateways),
            "ports": [
                { "name": "http", "containerPort": 80, "protocol": "TCP" },
                { "name": "https", "containerPort": 443, "protocol": "TCP" },
                { "name": "health", "containerPort": HEALTH_PORT, "protocol": "TCP" }
            ],
            "resources": { "requests": { "cpu": "50m", "memory": "128Mi" }, "limits": { "memory": "512Mi" } },
            "securityContext": {
                "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": { "drop": ["ALL"] }
            },
            "readinessProbe": { "httpGet": probe, "periodSeconds": 5 },
            "livenessProbe": { "httpGet": probe, "periodSeconds": 10, "failureThreshold": 6 }
        }]
    }));
    let affinity = &mut pod["affinity"];
    affinity["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"] = json!({ "nodeSelectorTerms": [{
        "matchExpressions": [{ "key": image.label(), "operator": "Exists" }]
    }] });
    affinity["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"] = json!([{
        "weight": 100,
        "podAffinityTerm": { "topologyKey": "kubernetes.io/hostname", "labelSelector": { "matchLabels": labels } }
    }]);
    pod
}

fn arguments(gateways: bool) -> Vec<String> {
    let mut arguments = vec![
        "--global.checkNewVersion=false".to_owned(),
        "--global.sendAnonymousUsage=false".to_owned(),
        "--log.level=INFO".to_owned(),
        "--ping=true".to_owned(),
        "--ping.entryPoint=health".to_owned(),
        format!("--entryPoints.health.address=:{HEALTH_PORT}"),
    ];
    for (name, port) in [("web", 80), ("websecure", 443)] {
        let of = |option: &str| format!("--entryPoints.{name}.{option}");
        arguments.extend([
            of(&format!("address=:{port}")),
            // Without one of this kind, Ingresses would be served at the port of health as well.
            of("asDefault=true"),
            // A pod that ends takes connections until all nodes know of it.
            of("transport.lifeCycle.requestAcceptGraceTimeout=10s"),
            of("transport.lifeCycle.graceTimeOut=30s"),
        ]);
    }
    arguments.push("--entryPoints.websecure.http.tls=true".to_owned());
    let ingress = |option: String| format!("--providers.kubernetesIngress.{option}");
    arguments.extend([
        ingress(format!("ingressClass={CLASS_NAME}")),
        ingress(format!("ingressEndpoint.publishedService={SPACE}/{NAME}")),
        // A Service without pods is answered with 503, and not as if nothing were there.
        ingress("allowEmptyServices=true".to_owned()),
        // `/shop` is not the beginning of `/shopping`, as Kubernetes has it.
        ingress("strictPrefixMatching=true".to_owned()),
    ]);
    if gateways {
        let gateway = |option: String| format!("--providers.kubernetesGateway{option}");
        arguments.extend([
            gateway("=true".to_owned()),
            gateway(format!(".statusAddress.service.namespace={SPACE}")),
            gateway(format!(".statusAddress.service.name={NAME}")),
        ]);
    }
    arguments
}

fn service(reach: IngressReach, labels: &Value) -> Value {
    let mut service = with(
        &SERVICE,
        json!({
            "spec": {
                "type": "LoadBalancer",
                // As in AKS: backends are told the client's address.
                "externalTrafficPolicy": "Local",
                "selector": labels,
                "ports": [
                    { "name": "http", "port": 80, "protocol": "TCP", "targetPort": "http" },
                    { "name": "https", "port": 443, "protocol": "TCP", "targetPort": "https" }
                ]
            }
        }),
    );
    // A field that is not set here is the tenant's.
    let internal = match reach {
        IngressReach::AnnotationControlled => None,
        IngressReach::External => Some("false"),
        IngressReach::Internal => Some("true"),
    };
    if let Some(internal) = internal {
        service["metadata"]["annotations"] = json!({ INTERNAL: internal });
    }
    service
}

#[cfg(test)]
mod tests;
