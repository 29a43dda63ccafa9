//! Real clusters: configurations from bootstrap, run by real programs in real machines; add-ons and nodes
//! maintained by the client.
//!
//! Needs root, `runc`, `nft`, `ip` and a node image: `LANDFALL_TEST_LAYERS` names its layers, top first.
//! Every stamp has its own name and ranges and no uplink.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may panic, and says what it measured"
)]

mod credentials;
mod stand;

use std::time::Duration;

use cluster_addons::{AddonOptions, manifests};
use cluster_spec::PodNetworking;
use fabric_api::Fabric as _;

use stand::Stand;

const LONG: Duration = Duration::from_secs(90);

fn run(plugin: PodNetworking, test: impl AsyncFnOnce(&Stand)) {
    let Some(layers) = stand::layers() else { return };
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(async {
            let before = kernel_settings();
            let stand = Stand::new(layers, stand::spec(plugin, 2)).await;
            stand.start().await;
            test(&stand).await;
            host_stays_as_it_is(&before);
            stand.close().await;
        });
}

/// Starts a cluster as the loops do, until its add-ons are ready.
async fn bring_up(stand: &Stand) {
    stand
        .wait("API ready", LONG, async || {
            stand.api.ready().await.map_err(|error| error.to_string())
        })
        .await;
    let addons = manifests(&stand.spec, &AddonOptions::default(), &[]);
    let changed = stand
        .wait("add-ons applied", LONG, async || {
            stand.api.apply(&addons).await.map_err(|error| error.to_string())
        })
        .await;
    assert_eq!(changed as usize, addons.len());
    stand
        .wait("nodes Ready", LONG, async || {
            stand.round().await?;
            let nodes = stand.api.nodes().await.map_err(|error| error.to_string())?;
            let ready = nodes.iter().filter(|node| node.ready).count();
            if ready == stand.places.len() {
                Ok(())
            } else {
                Err(format!("{nodes:?}"))
            }
        })
        .await;
    for deployment in ["coredns", "metrics-server"] {
        stand
            .wait(deployment, LONG, async || {
                stand.round().await?;
                let path = "jsonpath={.status.readyReplicas}/{.spec.replicas}";
                let text = stand
                    .kubectl(&format!("-n kube-system get deployment {deployment} -o '{path}'"))
                    .await?;
                match text.split_once('/') {
                    Some((ready, wanted)) if ready == wanted => Ok(()),
                    _ => Err(format!(
                        "{text}\n{}",
                        stand.kubectl("-n kube-system get events").await?
                    )),
                }
            })
            .await;
    }
}

/// Two pods per node that return their name and the client's address, behind a ClusterIP and a NodePort.
const WEB: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: { name: web }
spec:
  replicas: 4
  selector: { matchLabels: { app: web } }
  template:
    metadata: { labels: { app: web } }
    spec:
      terminationGracePeriodSeconds: 1
      topologySpreadConstraints:
      - { maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: DoNotSchedule, labelSelector: { matchLabels: { app: web } } }
      containers:
      - name: web
        image: landfall.dev/busybox:1
        imagePullPolicy: Never
        command: ["sh", "-c", "mkdir -p /www/cgi-bin && printf '#!/bin/sh\necho; echo \"$(hostname) $REMOTE_ADDR\"\n' > /www/cgi-bin/me && chmod +x /www/cgi-bin/me && echo serving && exec httpd -f -p 0.0.0.0:8080 -h /www"]
        readinessProbe: { tcpSocket: { port: 8080 }, periodSeconds: 1 }
---
apiVersion: v1
kind: Service
metadata: { name: web }
spec: { type: NodePort, selector: { app: web }, ports: [{ port: 80, targetPort: 8080, nodePort: 30080 }] }
"#;

struct Pod {
    name: String,
    address: String,
    node: String,
}

async fn web(stand: &Stand) -> Vec<Pod> {
    stand
        .inside(
            stand::CONTROL_PLANE,
            &format!("cat > /root/web.yaml <<'EOF'\n{WEB}\nEOF"),
        )
        .await
        .unwrap();
    stand.kubectl("apply -f /root/web.yaml").await.unwrap();
    stand
        .wait("4 pods running", LONG, async || {
            let text = stand
                .kubectl(r#"get pods -l app=web -o 'jsonpath={range .items[*]}{.metadata.name} {.status.podIP} {.spec.nodeName} {.status.containerStatuses[0].ready}{"\n"}{end}'"#)
                .await?;
            let pods: Vec<Pod> = text
                .lines()
                .filter_map(|line| {
                    let mut words = line.split(' ').map(str::to_owned);
                    let pod = Pod { name: words.next()?, address: words.next()?, node: words.next()? };
                    (words.next()? == "true").then_some(pod)
                })
                .collect();
            if pods.len() == 4 { Ok(pods) } else { Err(format!("{text}\n{}", stand.kubectl("get events").await?)) }
        })
        .await
}

async fn from_pod(stand: &Stand, pod: &Pod, command: &str) -> Result<String, String> {
    stand
        .kubectl(&format!("exec {} -- sh -c '{command}'", pod.name))
        .await
}

/// All paths to pods.
async fn traffic(stand: &Stand) {
    let pods = web(stand).await;
    for from in &pods {
        for to in &pods {
            let answer = from_pod(
                stand,
                from,
                &format!("timeout 5 wget -qO- http://{}:8080/cgi-bin/me", to.address),
            )
            .await;
            let answer = answer.unwrap_or_else(|error| panic!("{} to {}: {error}", from.address, to.address));
            // Pods see each other's own addresses, on the same node and across nodes.
            if from.address != to.address {
                assert_eq!(
                    answer.trim(),
                    format!("{} {}", to.name, from.address),
                    "on {} and {}",
                    from.node,
                    to.node
                );
            }
        }
    }
    println!("pods reach pods");

    // By name and service address, from each pod to each pod, itself included.
    for from in &pods {
        stand
            .wait("all pods by the service's name", LONG, async || {
                let all = "for i in $(seq 24); do timeout 5 wget -qO- http://web.default.svc.cluster.local/cgi-bin/me; done";
                let text = from_pod(stand, from, all).await?;
                let answered = pods.iter().filter(|pod| text.contains(&pod.name)).count();
                if answered == pods.len() && text.lines().count() == 24 {
                    Ok(())
                } else {
                    Err(format!("{answered} pods answered {} from {} times:\n{text}", text.lines().count(), from.name))
                }
            })
            .await;
    }
    // By a node's port: from the other node's pods, from the node itself, and from the control plane.
    for place in &stand.places {
        let url = format!("http://{}:30080/cgi-bin/me", place.address);
        for from in &pods {
            let answer = from_pod(stand, from, &format!("timeout 5 wget -qO- {url}"))
                .await
                .unwrap();
            assert!(pods.iter().any(|pod| answer.contains(&pod.name)), "{answer}");
        }
        for machine in [stand::CONTROL_PLANE, "n0", "n1"] {
            let answer = stand
                .inside(machine, &format!("timeout 5 busybox wget -qO- {url}"))
                .await
                .unwrap();
            assert!(pods.iter().any(|pod| answer.contains(&pod.name)), "{answer}");
        }
    }
    println!("services are reached by name, address and node port");

    // Outside their own ranges, pods appear under their node's address; flat ones only outside the VNET.
    let from = &pods[0];
    let place_of = |found: bool| {
        let mut places = stand.places.iter();
        places
            .find(|place| (place.node_name == from.node) == found)
            .unwrap()
    };
    let (node, other) = (place_of(true), place_of(false));
    let prepare = "mkdir -p /srv/cgi-bin; printf '#!/bin/sh\\necho; echo $REMOTE_ADDR\\n' > /srv/cgi-bin/me; chmod +x /srv/cgi-bin/me; busybox httpd -p 0.0.0.0:8099 -h /srv";
    stand.inside(&other.machine, prepare).await.unwrap();
    let seen = from_pod(
        stand,
        from,
        &format!("timeout 5 wget -qO- http://{}:8099/cgi-bin/me", other.address),
    )
    .await
    .unwrap();
    let flat = stand.spec.network.plugin == PodNetworking::AzureFlat;
    let own = if flat {
        from.address.clone()
    } else {
        node.address.to_string()
    };
    assert_eq!(seen.trim(), own, "in the VNET");
    // Which ports a node listens at is looked at later.
    let over =
        "for p in /proc/[0-9]*; do grep -qas '0.0.0.0:80[9]9' $p/cmdline && kill ${p#/proc/}; done; true";
    stand.inside(&other.machine, over).await.unwrap();
    // A control plane is open at the API's port alone, which answers to HTTP that it wants TLS.
    let api = format!("timeout 5 wget -qO- http://{}:443/ 2>&1 || true", stand.at.vip);
    let said = from_pod(stand, from, &api).await.unwrap();
    assert!(said.contains("400 Bad Request"), "{said}");
    println!("pods leave their ranges as they should");

    // logs, exec, port-forward, top: the API server connects to kubelets and verifies their certificates.
    assert_eq!(
        stand
            .kubectl(&format!("logs {}", pods[3].name))
            .await
            .unwrap()
            .trim(),
        "serving"
    );
    let forward = "kubectl --kubeconfig=/root/admin.kubeconfig port-forward service/web 8098:80 >/dev/null 2>&1 & pid=$!; \
                   for i in $(seq 50); do timeout 5 busybox wget -qO- http://127.0.0.1:8098/cgi-bin/me && break; sleep 0.1; done; kill $pid";
    assert!(
        stand
            .inside(stand::CONTROL_PLANE, forward)
            .await
            .unwrap()
            .contains("127.0.0.1")
    );
    for what in ["nodes", "pods"] {
        stand
            .wait(&format!("kubectl top {what}"), LONG, async || {
                let text = stand.kubectl(&format!("top {what} --no-headers")).await?;
                if text.lines().count() == if what == "nodes" { 2 } else { 4 } {
                    Ok(())
                } else {
                    Err(text)
                }
            })
            .await;
    }
    // In a pod, the API server's certificate is verified by the service account's CA.
    let inside = r#"timeout 5 wget -qO- http://kube-dns.kube-system.svc.cluster.local:9153/metrics | grep -c ^coredns_build_info"#;
    assert_eq!(from_pod(stand, from, inside).await.unwrap().trim(), "1");
}

/// Rights of users and nodes.
async fn rights(stand: &Stand) {
    stand
        .kubectl("create secret generic hush --from-literal=word=open-sesame")
        .await
        .unwrap();
    let database = "/var/lib/etcd/data/member/snap/db";
    let count = |text: &str| {
        format!(
            "grep -c -a '{text}' {database} /var/lib/etcd/data/member/wal/*.wal | busybox awk -F: '{{ n += $2 }} END {{ print n }}'"
        )
    };
    let plain = stand
        .inside(stand::CONTROL_PLANE, &count("open-sesame"))
        .await
        .unwrap();
    assert_eq!(plain.trim(), "0", "a secret lies in clear in etcd");
    let sealed = stand
        .inside(stand::CONTROL_PLANE, &count("k8s:enc:secretbox:v1:"))
        .await
        .unwrap();
    assert_ne!(sealed.trim(), "0");

    let as_node = async |arguments: &str| {
        let command = format!("kubectl --kubeconfig=/etc/kubernetes/kubelet.kubeconfig {arguments}");
        stand.inside("n0", &command).await
    };
    as_node(&format!("get node {}", stand.places[0].node_name))
        .await
        .unwrap();
    for refused in [
        format!("label node {} a=b", stand.places[1].node_name),
        format!(
            "label node {} node-role.kubernetes.io/agent=x --overwrite",
            stand.places[0].node_name
        ),
        // Healing is held off by people, not by nodes.
        format!(
            "annotate node {} landfall.dev/preserve=mine",
            stand.places[0].node_name
        ),
        "get secrets -A".to_owned(),
        "create namespace x".to_owned(),
    ] {
        let error = as_node(&refused).await.unwrap_err();
        assert!(
            error.contains("forbidden") || error.contains("is not allowed"),
            "{refused}: {error}"
        );
    }

    assert_eq!(stand.anonymously("/readyz").await.unwrap(), "ok");
    for path in ["/api", "/version", "/metrics", "/readyz/etcd"] {
        assert_eq!(stand.anonymously(path).await, Err(401), "{path}");
    }

    credentials::may(stand).await;

    // Beyond loopback only the API server listens, for all clients, and etcd, for clients with its certificates.
    let sockets = stand
        .inside(stand::CONTROL_PLANE, "ss -Hlnt | awk '{print $4}'")
        .await
        .unwrap();
    let mut open: Vec<_> = sockets
        .lines()
        .filter(|line| !line.starts_with("127.") && !line.ends_with(":8099"))
        .collect();
    open.sort_unstable();
    let etcd = |port: u16| format!("{}:{port}", stand.at.vnet);
    assert_eq!(open, ["*:443", &etcd(2379), &etcd(2380)], "{sockets}");
    let sockets = stand.inside("n0", "ss -Hlnt | awk '{print $4}'").await.unwrap();
    let open: Vec<_> = sockets.lines().filter(|line| !line.starts_with("127.")).collect();
    assert_eq!(open, ["*:10250"], "{sockets}");
}

/// Node objects as in AKS.
async fn nodes(stand: &Stand) {
    let place = &stand.places[1];
    let text = stand
        .kubectl(&format!("get node {} -o json", place.node_name))
        .await
        .unwrap();
    let node: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        node["spec"]["providerID"],
        "azure:///subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/mc_group_real_local/providers/Microsoft.Compute/virtualMachineScaleSets/aks-nodepool1-12345678-vmss/virtualMachines/1"
    );
    let labels = &node["metadata"]["labels"];
    for (name, value) in [
        ("agentpool", "nodepool1"),
        ("kubernetes.azure.com/mode", "system"),
        ("kubernetes.azure.com/cluster", "MC_group_real_local"),
        ("kubernetes.io/role", "agent"),
        ("topology.kubernetes.io/region", "local"),
        ("node.kubernetes.io/instance-type", "Standard_DS2_v2"),
        ("team", "blue"),
    ] {
        assert_eq!(labels[name], value, "{name} of {labels}");
    }
    // A Standard_DS2_v2: 2 cores and 7 GiB, on a host with a configured size of 16 GiB.
    let allocatable = &node["status"]["allocatable"];
    assert_eq!(allocatable["cpu"], "1900m");
    assert_eq!(allocatable["pods"], "30");
}

/// Foreign changes are detected and reverted.
async fn drift(stand: &Stand) {
    let addons = manifests(&stand.spec, &AddonOptions::default(), &[]);
    // Not at once: the controller that checks the types of an admission policy writes its results into it.
    stand
        .wait("nothing to change", LONG, async || {
            match stand.api.apply(&addons).await {
                Ok(0) => Ok(()),
                Ok(changed) => Err(format!("{changed} changed")),
                Err(error) => Err(error.to_string()),
            }
        })
        .await;
    let changes = stand.api.changes();
    let seen = changes.count();
    stand
        .env
        .clock
        .timeout(LONG, changes.after(seen))
        .await
        .unwrap()
        .unwrap();
    stand
        .kubectl("-n kube-system scale deployment coredns --replicas=0")
        .await
        .unwrap();
    stand
        .wait("a change noticed and reverted", LONG, async || {
            stand
                .env
                .clock
                .timeout(LONG, changes.after(seen))
                .await
                .map_err(|error| error.to_string())?
                .unwrap();
            match stand.api.apply(&addons).await {
                Ok(0) => Err("not noticed yet".into()),
                Ok(changed) => {
                    assert_eq!(changed, 1);
                    Ok(())
                }
                Err(error) => Err(error.to_string()),
            }
        })
        .await;
    let replicas = stand
        .kubectl("-n kube-system get deployment coredns -o 'jsonpath={.spec.replicas}'")
        .await
        .unwrap();
    assert_eq!(replicas, "2");
}

/// Removes a node: its pods first.
async fn farewell(stand: &Stand) {
    let node = &stand.places[1].node_name;
    stand
        .wait("a drained node", LONG, async || {
            match stand.api.drain(node).await {
                Ok(drained) if drained.left == 0 => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    let left = stand
        .kubectl(&format!(
            "get pods -A --field-selector spec.nodeName={node},status.phase=Running -o name"
        ))
        .await
        .unwrap();
    assert_eq!(left, "");
    stand
        .fabric
        .delete_machine(&fabric_api::MachineId::from("n1"))
        .await
        .unwrap();
    stand.api.delete_node(node).await.unwrap();
    stand.api.delete_node(node).await.unwrap();
    assert_eq!(stand.api.drain(node).await.unwrap().left, 0);
    assert_eq!(stand.api.nodes().await.unwrap().len(), 1);
}

/// Stops and starts everything, with its data.
async fn reboot(stand: &Stand) {
    let id = fabric_api::MachineId::from;
    for machine in [stand::CONTROL_PLANE, "n0"] {
        stand.fabric.stop_machine(&id(machine)).await.unwrap();
    }
    let (control_plane, node) = (stand.control_plane(), stand.node(&stand.places[0]));
    for machine in [control_plane, node] {
        stand.fabric.ensure_machine(&machine).await.unwrap();
    }
    stand
        .wait("API ready again", LONG, async || {
            stand.api.ready().await.map_err(|error| error.to_string())
        })
        .await;
    stand.kubectl("get secret hush").await.unwrap();
    stand
        .wait("pods running again", LONG, async || {
            let path = "jsonpath={.status.readyReplicas}";
            let text = stand
                .kubectl(&format!("-n kube-system get deployment coredns -o '{path}'"))
                .await?;
            let web = stand
                .kubectl("get pods -l app=web --field-selector status.phase=Running -o name")
                .await?;
            let pod = web.lines().next().ok_or("no pod")?.to_owned();
            stand
                .kubectl(&format!(
                    "exec {pod} -- timeout 5 wget -qO- http://web/cgi-bin/me"
                ))
                .await
                .map_err(|error| format!("{text}: {error}"))
        })
        .await;
}

/// Programs in a machine do not change the host.
fn host_stays_as_it_is(before: &[(&'static str, String)]) {
    assert_eq!(before, kernel_settings(), "the host's own settings");
}

fn kernel_settings() -> Vec<(&'static str, String)> {
    [
        "vm/overcommit_memory",
        "vm/panic_on_oom",
        "kernel/panic",
        "kernel/panic_on_oops",
    ]
    .map(|name| {
        (
            name,
            std::fs::read_to_string(format!("/proc/sys/{name}")).unwrap(),
        )
    })
    .into()
}

async fn everything(stand: &Stand) {
    bring_up(stand).await;
    nodes(stand).await;
    traffic(stand).await;
    rights(stand).await;
    drift(stand).await;
    farewell(stand).await;
    reboot(stand).await;
}

#[test]
fn kubenet() {
    run(PodNetworking::Kubenet, async |stand| everything(stand).await);
}

#[test]
fn overlay() {
    run(PodNetworking::AzureOverlay, async |stand| everything(stand).await);
}

#[test]
fn flat() {
    run(PodNetworking::AzureFlat, async |stand| everything(stand).await);
}
