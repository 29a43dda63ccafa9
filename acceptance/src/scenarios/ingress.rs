//! The ingress controller as the guide has it: Ingresses by host and path, TLS, Gateways; then all of it goes.
//!
//! Runs only when it is requested by name: building the controller takes minutes. `cargo xtask acceptance --only ingress`.

use std::{
    net::{IpAddr, SocketAddr, TcpStream},
    process::Command,
    time::Duration,
};

use anyhow::{Result, ensure};

use super::{GROUP, aks, guide, text, workload::Cluster};
use crate::{
    clients::{Az, attempt, run},
    journal::{Journal, PATIENCE, wait_for},
    stamp::Stamp,
};

/// How this scenario is called.
pub(super) const NAME: &str = "ingress";

const GUIDE: &str = include_str!("../../../docs/guides/ingress.md");
/// The cluster of the guide.
const CLUSTER: &str = "routed";
/// Within this time a listener at the host's own network answers.
const ANSWER: Duration = Duration::from_secs(3);

/// The last lines of what a block printed.
fn ends_with(said: &str, lines: &[&str]) -> Result<()> {
    let all: Vec<&str> = said.lines().collect();
    ensure!(all.ends_with(lines), "{lines:?} is not the end of: {said}");
    Ok(())
}

/// What is answered to a request for a host.
fn fetch(address: IpAddr, host: &str, path: &str) -> Result<String> {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--fail", "--max-time", "5", "--header"])
        .arg(format!("Host: {host}"))
        .arg(format!("http://{address}{path}"));
    run(&mut curl)
}

/// The address of the controller's load balancer.
fn address(cluster: &Cluster) -> Result<IpAddr> {
    let service = cluster
        .kubectl
        .json(&["--namespace=app-routing-system", "get", "service", "traefik"])?;
    Ok(text(&service, "/status/loadBalancer/ingress/0/ip")?.parse()?)
}

pub(super) fn walk(journal: &Journal, stamp: &Stamp, az: &Az) -> Result<()> {
    let [create, route, tls, gateway, internal, remove] = guide::exactly::<6>(GUIDE)?;
    journal.step(
        NAME,
        "the guide: a cluster with a controller, whose image is built for it",
        || {
            az.json(&["group", "create", "--name", GROUP, "--location", "local"])?;
            let program = stamp.kubectl_program()?;
            let mut shell = guide::shell(stamp, az, &[&program], &create)?;
            shell.env("GROUP", GROUP);
            run(&mut shell)?;
            let shown = aks(az, &["show"], CLUSTER, &[])?;
            let routing = &shown["ingressProfile"]["webAppRouting"];
            ensure!(routing["enabled"] == true, "{shown}");
            ensure!(
                routing["nginx"]["defaultIngressControllerType"] == "AnnotationControlled",
                "{shown}"
            );
            Ok(())
        },
    )?;
    let cluster = Cluster::open(stamp, az, CLUSTER)?;
    let kubectl = &cluster.kubectl;
    let follow = |block: &str| guide::follow(stamp, az, &cluster, block);
    journal.step(NAME, "the guide: an Ingress by host and path", || {
        ends_with(&follow(&route)?, &["front", "cart"])?;
        let address = address(&cluster)?;
        ensure!(
            fetch(address, "other.example.com", "/").is_err(),
            "a host that nobody has is answered"
        );
        Ok(())
    })?;
    journal.step(NAME, "the guide: TLS with the certificate of a Secret", || {
        ends_with(&follow(&tls)?, &["cart"])
    })?;
    journal.step(
        NAME,
        "the guide: a Gateway with a route, with and without TLS",
        || ends_with(&follow(&gateway)?, &["front", "cart", "cart"]),
    )?;
    journal.step(NAME, "an object without what its kind needs is refused", || {
        let wrong = "kubectl apply --filename - <<END\n\
            apiVersion: gateway.networking.k8s.io/v1\n\
            kind: Gateway\n\
            metadata: { name: wrong, namespace: shop }\n\
            spec: { gatewayClassName: webapprouting.kubernetes.azure.com, listeners: [] }\n\
            END\n";
        ensure!(follow(wrong).is_err(), "a Gateway without listeners is taken");
        Ok(())
    })?;
    let public = address(&cluster)?;
    journal.step(
        NAME,
        "a pod that goes, and the service that is away, stop nothing",
        || {
            stamp.kill_service()?;
            kubectl.text(&[
                "--namespace=app-routing-system",
                "rollout",
                "restart",
                "deployment/traefik",
            ])?;
            kubectl.rolled_out_in("app-routing-system", "deployment/traefik")?;
            let said = wait_for("an answer", PATIENCE, || {
                fetch(public, "shop.example.com", "/cart/")
            })?;
            ensure!(said.trim() == "cart", "{said}");
            run(&mut stamp.landfall(&["up", "--output", "json"]))?;
            stamp.wait_for_service(PATIENCE)
        },
    )?;
    journal.step(NAME, "the guide: reached from the nodes' subnet only", || {
        follow(&internal)?;
        let own = wait_for("another address", PATIENCE, || {
            let own = address(&cluster)?;
            ensure!(own != public, "it is still {own}");
            Ok(own)
        })?;
        let ask = format!("exec wget -q -O - --header 'Host: shop.example.com' http://{own}/cart/");
        wait_for("an answer within the cluster", PATIENCE, || {
            let said = kubectl.text(&[
                "--namespace=shop",
                "exec",
                "deployment/front",
                "--",
                "timeout",
                "5",
                "sh",
                "-c",
                &ask,
            ])?;
            ensure!(said.trim() == "cart", "{said}");
            Ok(())
        })
    })?;
    journal.step(
        NAME,
        "zones and controllers of another operator are refused",
        || {
            let cluster = ["--resource-group", GROUP, "--name", CLUSTER];
            let zone = [
                "aks",
                "approuting",
                "zone",
                "add",
                "--ids",
                "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/g/providers/Microsoft.Network/dnszones/example.com",
            ];
            let said = az.fails(&[&zone[..], &cluster].concat())?;
            ensure!(said.contains("no DNS zones"), "az says: {said}");
            let none = ["aks", "approuting", "update", "--nginx", "None"];
            let said = az.fails(&[&none[..], &cluster].concat())?;
            ensure!(said.contains("NginxIngressController"), "az says: {said}");
            Ok(())
        },
    )?;
    journal.step(NAME, "the guide: without it, nothing of it is left", || {
        follow(&remove)?;
        wait_for("all of it to be gone", PATIENCE, || {
            for object in [
                "namespace/app-routing-system",
                "ingressclass/webapprouting.kubernetes.azure.com",
                "clusterrole/system:ingress",
                "clusterrolebinding/system:ingress",
                "crd/gateways.gateway.networking.k8s.io",
                "crd/gatewayclasses.gateway.networking.k8s.io",
            ] {
                let left = attempt(&mut kubectl.command(&["get", object]))?;
                ensure!(!left.status.success(), "{object} is left");
            }
            Ok(())
        })?;
        let still = TcpStream::connect_timeout(&SocketAddr::new(public, 80), ANSWER);
        ensure!(still.is_err(), "{public} still answers");
        // What is the tenant's stays.
        kubectl
            .text(&["--namespace=shop", "get", "ingress", "shop"])
            .map(drop)
    })?;
    journal.step(NAME, "az aks delete", || {
        aks(az, &["delete"], CLUSTER, &["--yes"])?;
        az.json(&["group", "delete", "--name", GROUP, "--yes"]).map(drop)
    })
}
