//! A command in a pod, with the node image's own kubectl.
//!
//! Always true: no image is pulled; without a token the command runs as cluster administrator, with one as
//! the token's user, and its pod's own account has no rights; its inputs are in a separate secret, and are
//! removed with the command.

use cluster_api::{COMMAND_NAMESPACE, command_name};
use serde_json::{Value, json};

use crate::images;

/// The service account of commands without a token, and its binding.
const ACCOUNT: &str = "landfall-command";
/// Longer than any client waits. The pod ends then in any case.
const SECONDS: u32 = 15 * 60;
/// The size limit of its writable volume.
const SCRATCH: &str = "256Mi";

/// The pod's script: unpacks the context, then runs the command.
const SCRIPT: &str = "cd /command-files && { [ ! -e /command/context.zip ] || unzip -q -o /command/context.zip || exit 1; }; \
    exec sh -c \"$(cat /command/command)\"";

/// All objects of a command. `context` is a zip archive in base64.
pub fn command_objects(id: &str, command: &str, context: Option<&str>, token: Option<&str>) -> Vec<Value> {
    let name = command_name(id);
    let labels =
        json!({ "app.kubernetes.io/managed-by": "landfall", "app.kubernetes.io/component": "command" });
    let metadata = |name: &str| json!({ "name": name, "namespace": COMMAND_NAMESPACE, "labels": labels });
    let mut texts = json!({ "command": command });
    let mut environment = vec![json!({ "name": "HOME", "value": "/command-files" })];
    if let Some(token) = token {
        texts["kubeconfig"] = json!(kubeconfig(token).to_string());
        environment.push(json!({ "name": "KUBECONFIG", "value": "/command/kubeconfig" }));
    }
    let data = context.map_or_else(|| json!({}), |context| json!({ "context.zip": context }));
    vec![
        json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": COMMAND_NAMESPACE, "labels": labels } }),
        json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata(ACCOUNT) }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": { "name": ACCOUNT, "labels": labels },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin" },
            "subjects": [{ "kind": "ServiceAccount", "name": ACCOUNT, "namespace": COMMAND_NAMESPACE }],
        }),
        json!({
            "apiVersion": "v1", "kind": "Secret", "type": "Opaque", "metadata": metadata(&name),
            "stringData": texts, "data": data,
        }),
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": metadata(&name),
            "spec": {
                "restartPolicy": "Never",
                "activeDeadlineSeconds": SECONDS,
                "terminationGracePeriodSeconds": 1,
                "enableServiceLinks": false,
                "serviceAccountName": if token.is_some() { "default" } else { ACCOUNT },
                // A user is waiting: it may also run on system nodes.
                "tolerations": [{ "key": "CriticalAddonsOnly", "operator": "Exists" }],
                "nodeSelector": { "kubernetes.io/os": "linux" },
                "containers": [{
                    "name": "command",
                    "image": images::BUSYBOX.reference,
                    "imagePullPolicy": "Never",
                    "command": ["sh", "-c", SCRIPT],
                    "env": environment,
                    "securityContext": { "allowPrivilegeEscalation": false, "runAsUser": 65534, "runAsGroup": 65534, "capabilities": { "drop": ["ALL"] } },
                    "resources": {
                        "requests": { "cpu": "50m", "memory": "64Mi" },
                        "limits": { "memory": "512Mi", "ephemeral-storage": SCRATCH },
                    },
                    "volumeMounts": [
                        { "name": "command", "mountPath": "/command", "readOnly": true },
                        { "name": "files", "mountPath": "/command-files" },
                        { "name": "tmp", "mountPath": "/tmp" },
                        { "name": "kubectl", "mountPath": "/bin/kubectl", "readOnly": true },
                    ],
                }],
                "volumes": [
                    { "name": "command", "secret": { "secretName": name, "defaultMode": 0o444 } },
                    { "name": "files", "emptyDir": { "sizeLimit": SCRATCH } },
                    { "name": "tmp", "emptyDir": { "sizeLimit": SCRATCH } },
                    { "name": "kubectl", "hostPath": { "path": "/usr/local/bin/kubectl", "type": "File" } },
                ],
            },
        }),
    ]
}

/// A kubeconfig for the pod, with the user of the token.
fn kubeconfig(token: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "default",
        "clusters": [{ "name": "default", "cluster": {
            "server": "https://kubernetes.default.svc",
            "certificate-authority": "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt",
        } }],
        "contexts": [{ "name": "default", "context": { "cluster": "default", "user": "default" } }],
        "users": [{ "name": "default", "user": { "token": token } }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_kind<'a>(objects: &'a [Value], kind: &str) -> &'a Value {
        objects.iter().find(|object| object["kind"] == kind).unwrap()
    }

    #[test]
    fn a_command_is_the_administrator_or_whoever_its_token_is_of() {
        let plain = command_objects("a1", "kubectl get nodes", None, None);
        let pod = of_kind(&plain, "Pod");
        assert_eq!(pod["metadata"]["name"], "command-a1");
        assert_eq!(pod["spec"]["serviceAccountName"], ACCOUNT);
        let secret = of_kind(&plain, "Secret");
        assert_eq!(secret["stringData"], json!({ "command": "kubectl get nodes" }));
        assert_eq!(secret["data"], json!({}));
        let whose = command_objects("a1", "kubectl get nodes", Some("UEs="), Some("t0ken"));
        let pod = of_kind(&whose, "Pod");
        // That account has no binding.
        assert_eq!(pod["spec"]["serviceAccountName"], "default");
        let environment = pod["spec"]["containers"][0]["env"].as_array().unwrap();
        assert!(environment.contains(&json!({ "name": "KUBECONFIG", "value": "/command/kubeconfig" })));
        let secret = of_kind(&whose, "Secret");
        assert!(
            secret["stringData"]["kubeconfig"]
                .as_str()
                .unwrap()
                .contains("t0ken")
        );
        assert_eq!(secret["data"]["context.zip"], "UEs=");
        // Text that is readable with read access to pods.
        assert!(!pod.to_string().contains("t0ken") && !pod.to_string().contains("get nodes"));
    }
}
