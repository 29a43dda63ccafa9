//! Services of type LoadBalancer: addresses that respond, from outside and inside, and the pods behind them.

use std::{
    collections::BTreeSet,
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{
    GROUP,
    guide::{self, follow},
    workload::{BUSYBOX, Cluster},
};
use crate::{
    clients::Az,
    journal::{Journal, PATIENCE, wait_for},
    stamp::Stamp,
};

/// The name of this scenario.
pub(super) const NAME: &str = "balancers";

/// Time limit of a response.
const ANSWER: Duration = Duration::from_secs(3);

/// The Services: reachable from outside; from the cluster's own network; with the source address kept; not
/// reachable from here.
const SERVICES: [&str; 4] = ["outside", "inside", "near", "closed"];

/// Its blocks are run verbatim.
const GUIDE: &str = include_str!("../../../docs/guides/load-balancers.md");

pub(super) fn walk(journal: &Journal, stamp: &Stamp, az: &Az, cluster: &Cluster) -> Result<()> {
    let [block, own] = guide::exactly(GUIDE)?;
    journal.step(NAME, "the guide: a Deployment behind an address", || {
        let said = follow(stamp, az, cluster, &block)?;
        let pod = said.lines().last().unwrap_or_default();
        ensure!(pod.starts_with("hello-"), "{said}");
        let kubectl = &cluster.kubectl;
        kubectl.text(&["delete", "service,deployment", "hello"]).map(drop)
    })?;
    journal.step(
        NAME,
        "the guide: two Services with an address of one's own, which stays without them",
        || of_ones_own(stamp, az, cluster, &own),
    )?;
    let addresses = journal.step(NAME, "each Service gets an address, told in its status", || {
        cluster.apply(&objects())?;
        cluster.rolled_out("deployment/balanced")?;
        let mut addresses = Vec::new();
        for service in SERVICES {
            addresses.push(wait_for("an address", PATIENCE, || address(cluster, service))?);
        }
        let different: BTreeSet<_> = addresses.iter().collect();
        ensure!(different.len() == SERVICES.len(), "{addresses:?}");
        Ok(addresses)
    })?;
    let [outside, inside, near, closed] = *addresses.as_slice() else {
        anyhow::bail!("there are {} addresses", addresses.len());
    };
    journal.step(NAME, "the host is answered, by both pods in turn", || {
        let mut heard = BTreeSet::new();
        wait_for("answers from both pods", PATIENCE, || {
            heard.insert(ask(outside)?.0);
            ensure!(heard.len() == 2, "heard only {heard:?}");
            Ok(())
        })
    })?;
    journal.step(
        NAME,
        "an internal one answers in the cluster's own network",
        || {
            let url = format!("http://{inside}/");
            wait_for("an answer", PATIENCE, || {
                let answer = cluster.kubectl.text(&[
                    "exec",
                    "deployment/balanced",
                    "--",
                    "timeout",
                    "3",
                    "wget",
                    "-q",
                    "-O",
                    "-",
                    &url,
                ])?;
                ensure!(answer.starts_with("balanced-"), "{answer}");
                Ok(())
            })
        },
    )?;
    journal.step(
        NAME,
        "externalTrafficPolicy: Local keeps the source address",
        || {
            let (pod, own) = wait_for("an answer", PATIENCE, || ask(near))?;
            let log = cluster.kubectl.text(&["logs", &pod])?;
            ensure!(log.contains(&own.to_string()), "{pod} did not see {own}: {log}");
            Ok(())
        },
    )?;
    journal.step(NAME, "loadBalancerSourceRanges keep others out", || {
        ensure!(ask(closed).is_err(), "{closed} answers");
        Ok(())
    })?;
    journal.step(NAME, "a node that is cordoned leaves, and comes back", || {
        let (pod, _) = ask(near)?;
        let node = cluster.kubectl.json(&["get", "pod", &pod])?;
        let node = super::text(&node, "/spec/nodeName")?.to_owned();
        cluster.kubectl.text(&["cordon", &node])?;
        let left = wait_for("the node to leave", PATIENCE, || {
            for _ in 0..10 {
                let (other, _) = ask(near)?;
                ensure!(other != pod, "{pod} still answers");
            }
            Ok(())
        });
        cluster.kubectl.text(&["uncordon", &node])?;
        left?;
        wait_for("the node to come back", PATIENCE, || {
            let (again, _) = ask(near)?;
            ensure!(again == pod, "{pod} does not answer");
            Ok(())
        })
    })?;
    journal.step(NAME, "a Service that is deleted takes its address along", || {
        let mut delete = vec!["delete", "service", "--timeout=180s"];
        delete.extend(SERVICES);
        cluster.kubectl.text(&delete)?;
        for gone in [outside, near] {
            ensure!(ask(gone).is_err(), "{gone} still answers");
        }
        cluster
            .kubectl
            .text(&["delete", "deployment", "balanced"])
            .map(drop)
    })
}

fn of_ones_own(stamp: &Stamp, az: &Az, cluster: &Cluster, block: &str) -> Result<()> {
    let kubectl = &cluster.kubectl;
    let own = |verb: &'static str| {
        [
            "network",
            "public-ip",
            verb,
            "--resource-group",
            GROUP,
            "--name",
            "front",
        ]
    };
    let said = follow(stamp, az, cluster, block)?;
    let answers: Vec<&str> = said.lines().rev().take(2).collect();
    ensure!(
        answers.len() == 2 && answers.iter().all(|pod| pod.starts_with("shop-")),
        "{said}"
    );
    let shown = az.json(&own("show"))?;
    let front: IpAddr = super::text(&shown, "/ipAddress")?.parse()?;
    for service in ["shop-80", "shop-8000"] {
        let found = address(cluster, service)?;
        ensure!(found == front, "{service} has {found}, and not {front}");
    }
    // The port is another Service's.
    let third = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": "third" },
        "spec": {
            "type": "LoadBalancer", "loadBalancerIP": front, "selector": { "app": "shop" },
            "ports": [{ "port": 80, "targetPort": 8080 }]
        }
    });
    cluster.apply(&third)?;
    wait_for("an event of the Service", PATIENCE, || {
        let of = "--field-selector=involvedObject.name=third,reason=SyncLoadBalancerFailed";
        let events = kubectl.json(&["get", "events", of])?;
        let message = super::text(&events, "/items/0/message")?;
        ensure!(message.contains("shop-80"), "{message}");
        Ok(())
    })?;
    let said = az.fails(&own("delete"))?;
    ensure!(said.contains("PublicIPAddressCannotBeDeleted"), "az says: {said}");
    let delete = [
        "delete",
        "service/third",
        "service/shop-80",
        "service/shop-8000",
        "deployment/shop",
        "--timeout=180s",
    ];
    kubectl.text(&delete)?;
    let shown = az.json(&own("show"))?;
    ensure!(super::text(&shown, "/ipAddress")? == front.to_string(), "{shown}");
    wait_for("the address to be deleted", PATIENCE, || {
        az.json(&own("delete")).map(drop)
    })
}

/// The address in a Service's status.
fn address(cluster: &Cluster, service: &str) -> Result<IpAddr> {
    let found = cluster.kubectl.json(&["get", "service", service])?;
    let ingress = &found["status"]["loadBalancer"]["ingress"][0];
    ensure!(ingress["ipMode"] == "VIP", "{service}: {ingress}");
    let address = ingress["ip"].as_str().context("no address")?;
    Ok(address.parse()?)
}

/// Sends a request on a new connection: gives the name of the pod that responds, and the client's address as
/// the pod sees it.
fn ask(address: IpAddr) -> Result<(String, IpAddr)> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::new(address, 80), ANSWER)?;
    stream.set_read_timeout(Some(ANSWER))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let body = answer.split("\r\n\r\n").nth(1).unwrap_or_default().trim();
    ensure!(body.starts_with("balanced-"), "{address} answers {answer:?}");
    Ok((body.to_owned(), stream.local_addr()?.ip()))
}

/// Two pods, one per node, each responding with its own name and logging the client's address; the Services
/// in front of them.
fn objects() -> Value {
    let serve =
        "mkdir /tmp/www && hostname > /tmp/www/index.html && exec httpd -f -vv -p 8080 -h /tmp/www 2>&1";
    let service = |name: &str, annotations: Value, more: Value| {
        let mut spec = json!({
            "type": "LoadBalancer", "selector": { "app": "balanced" }, "ports": [{ "port": 80, "targetPort": 8080 }]
        });
        for (field, value) in more.as_object().into_iter().flatten() {
            spec[field] = value.clone();
        }
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": name, "annotations": annotations }, "spec": spec
        })
    };
    let internal = json!({ "service.beta.kubernetes.io/azure-load-balancer-internal": "true" });
    json!({ "apiVersion": "v1", "kind": "List", "items": [
        {
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "balanced" },
            "spec": {
                "replicas": 2,
                "selector": { "matchLabels": { "app": "balanced" } },
                "template": {
                    "metadata": { "labels": { "app": "balanced" } },
                    "spec": {
                        "terminationGracePeriodSeconds": 0,
                        "topologySpreadConstraints": [{
                            "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule",
                            "labelSelector": { "matchLabels": { "app": "balanced" } }
                        }],
                        "containers": [{
                            "name": "web", "image": BUSYBOX, "imagePullPolicy": "Never",
                            "command": ["sh", "-c", serve],
                            "ports": [{ "containerPort": 8080 }]
                        }]
                    }
                }
            }
        },
        service("outside", json!({}), json!({})),
        service("inside", internal, json!({})),
        service("near", json!({}), json!({ "externalTrafficPolicy": "Local" })),
        service("closed", json!({}), json!({ "loadBalancerSourceRanges": ["192.0.2.0/24"] })),
    ]})
}
