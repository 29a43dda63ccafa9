//! The objects that are made in the cluster.

use serde_json::{Value, json};

use super::peer;

/// Where objects of these kinds are, each below it by its name.
pub(super) const PODS: &str = "/api/v1/namespaces/default/pods";
pub(super) const CLAIMS: &str = "/api/v1/namespaces/default/persistentvolumeclaims";
pub(super) const SERVICES: &str = "/api/v1/namespaces/default/services";
pub(super) const VOLUMES: &str = "/api/v1/persistentvolumes";
pub(super) const ATTACHMENTS: &str = "/apis/storage.k8s.io/v1/volumeattachments";
pub(super) const NODES: &str = "/api/v1/nodes";

/// The pod with the server.
pub(super) const PEER: &str = "peer";
/// Where a pod has its volume.
const DATA: &str = "/data";
/// The port of the pod's server.
const PORT: u16 = 8080;
/// The port of the load balancer.
pub(super) const OUTSIDE: u16 = 80;

/// A claim without a class.
pub(super) fn claim(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": { "name": name },
        "spec": { "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } }
    })
}

/// A pod that runs a command, and has the claim where one is named.
pub(super) fn pod(name: &str, command: &[&str], claim: Option<&str>) -> Value {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "labels": { "app": name } },
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": name, "image": image::references::BUSYBOX, "imagePullPolicy": "Never", "command": command
            }]
        }
    });
    if let Some(claim) = claim {
        pod["spec"]["volumes"] = json!([{ "name": "data", "persistentVolumeClaim": { "claimName": claim } }]);
        pod["spec"]["containers"][0]["volumeMounts"] = json!([{ "name": "data", "mountPath": DATA }]);
    }
    pod
}

/// The pod with the server and the claim of its name; the program has this many bytes.
pub(super) fn asked(size: usize) -> Value {
    let script = peer::script(size, PORT, DATA);
    pod(PEER, &["sh", "-c", &script], Some(PEER))
}

/// A Service with a separate address for that pod.
pub(super) fn service(name: &str, policy: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": name },
        "spec": {
            "type": "LoadBalancer", "externalTrafficPolicy": policy, "selector": { "app": PEER },
            "ports": [{ "port": OUTSIDE, "targetPort": PORT }]
        }
    })
}

/// The address in a Service's status.
pub(super) fn address(service: &Value) -> Option<std::net::IpAddr> {
    let told = service.pointer("/status/loadBalancer/ingress/0/ip")?;
    told.as_str()?.parse().ok()
}

/// Whether the only container of a pod has been started.
pub(super) fn started(pod: &Value) -> bool {
    pod.pointer("/status/containerStatuses/0/state/running").is_some()
}

/// Whether a pod's volumes and its network are ready, so that its containers can start.
pub(super) fn prepared(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    conditions
        .filter(|condition| condition["type"] == "PodReadyToStartContainers")
        .any(|condition| condition["status"] == "True")
}

/// The PersistentVolume that a claim is bound to.
pub(super) fn bound(claim: &Value) -> Option<&str> {
    let volume = claim["spec"]["volumeName"].as_str()?;
    (claim["status"]["phase"] == "Bound").then_some(volume)
}

/// Whether a list of VolumeAttachments has one in which a node has this volume.
pub(super) fn attached(attachments: &Value, volume: &str) -> bool {
    let all = attachments["items"].as_array().into_iter().flatten();
    all.filter(|one| one["spec"]["source"]["persistentVolumeName"] == volume)
        .any(|one| one["status"]["attached"] == true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_without_a_claim_differs_in_nothing_else() {
        let (with, mut without) = (
            pod("one", &["sleep", "9"], Some("kept")),
            pod("one", &["sleep", "9"], None),
        );
        assert_eq!(
            with["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"],
            "kept"
        );
        without["spec"]["volumes"] = with["spec"]["volumes"].clone();
        without["spec"]["containers"][0]["volumeMounts"] =
            with["spec"]["containers"][0]["volumeMounts"].clone();
        assert_eq!(with, without);
    }

    #[test]
    fn services_lead_to_the_pod_that_is_asked() {
        let (pod, service) = (asked(7), service("far", "Cluster"));
        assert_eq!(service["spec"]["selector"], pod["metadata"]["labels"]);
        assert_eq!(address(&service), None);
        let told = json!({ "status": { "loadBalancer": { "ingress": [{ "ip": "100.64.0.9" }] } } });
        assert_eq!(address(&told).unwrap().to_string(), "100.64.0.9");
    }

    #[test]
    fn parts_of_a_start_are_seen_by_what_the_api_tells() {
        let claim = json!({ "spec": { "volumeName": "pvc-1" }, "status": { "phase": "Pending" } });
        assert_eq!(bound(&claim), None);
        let claim = json!({ "spec": { "volumeName": "pvc-1" }, "status": { "phase": "Bound" } });
        assert_eq!(bound(&claim), Some("pvc-1"));

        let of = |volume: &str, attached: bool| {
            json!({
                "spec": { "source": { "persistentVolumeName": volume } }, "status": { "attached": attached }
            })
        };
        let list = json!({ "items": [of("pvc-1", false), of("pvc-2", true)] });
        assert!(!attached(&list, "pvc-1") && attached(&list, "pvc-2") && !attached(&json!(null), "pvc-2"));

        let pod = json!({ "status": {
            "conditions": [{ "type": "PodReadyToStartContainers", "status": "True" }],
            "containerStatuses": [{ "state": { "waiting": { "reason": "ContainerCreating" } } }]
        } });
        assert!(prepared(&pod) && !started(&pod));
        let pod =
            json!({ "status": { "containerStatuses": [{ "state": { "running": { "startedAt": "x" } } }] } });
        assert!(started(&pod) && !prepared(&pod));
    }
}
