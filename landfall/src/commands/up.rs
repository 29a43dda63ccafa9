//! `landfall up`: from a fresh machine to a running cluster.
//!
//! Always true: every step looks at the present state first, so a second run, or one after an interruption,
//! continues where the first stopped; nothing is made before the checks have passed.

mod summary;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};
use owo_colors::OwoColorize as _;
use serde_json::{Value, json};

use self::summary::Facts;
use super::{Context, doctor::failures, kubeconfig};
use crate::{
    addresses,
    admin::{AdminClient, ClusterStatus},
    args,
    arm::{AKS, ArmClient, RESOURCES},
    background,
    doctor::{self, Question, Verdict},
    images, packages,
    printer::{Step, duration, pad},
    problem::Problem,
    stamp::{self, LOCATION, Settings},
};

/// The first cluster and its group.
const GROUP: &str = "landfall";
const CLUSTER: &str = "landfall";
const POOL: &str = "nodepool1";

/// Time limit of the first cluster: seconds usually, but a busy host pulls, starts and syncs slowly.
const CLUSTER_BOUND: Duration = Duration::from_secs(15 * 60);
/// Interval at which the service is polled while machines start; there is no event to wait for.
const LOOK: Duration = Duration::from_millis(200);

pub(crate) async fn run(context: &Context, args: &args::Up) -> Result<()> {
    let version = match &args.kubernetes {
        Some(text) => images::resolve(text)?,
        None => images::preferred_version(),
    };
    context.require_root("make machines and networks")?;
    let printer = &context.printer;
    printer.heading(&format!(
        "{} {} {}\n",
        "Landfall".bold(),
        env!("CARGO_PKG_VERSION"),
        format!("stamp {}", context.places.name).dimmed()
    ));

    host(context, args, &version).await?;
    network(context, args).await?;
    image(context, &version).await?;
    let settings = service(context, args).await?;
    // Checked again: now forwarding is enabled, and the links are the stamp's own.
    network(context, args).await?;
    let arm = ArmClient::login(&context.places, &settings, &context.env).await?;
    group(context, &arm).await?;
    let cluster = cluster(context, &arm, args, &version).await?;
    let kubeconfig = credentials(context, &arm).await?;
    summary(context, &settings, &cluster, &kubeconfig)
}

/// Checks this host and installs missing packages.
async fn host(context: &Context, args: &args::Up, version: &str) -> Result<()> {
    let step = context.printer.step("doctor", "This host");
    let settings = Settings::load(&context.places)?;
    let running = background::living(&context.places, &context.env).await?.is_some();
    let kept = settings
        .as_ref()
        .map_or(stamp::DEFAULT_LISTEN, |settings| settings.listen);
    let wanted = args.layout.listen.unwrap_or(kept);
    addresses::check_listen(&context.places, wanted)?;
    let build = images::build_disk(&context.places, version)?;
    let state = context.places.state.clone();
    let cache = images::cache_dir(&context.places)?;
    // The stamp's own service may use the port; another program may not.
    let listen = (!running || wanted != kept).then_some(wanted);
    let env = context.env.clone();
    let examine = move || {
        let question = Question {
            state: &state,
            cache: &cache,
            build,
            listen,
            // Tried in a separate step, after its programs are installed.
            network: None,
        };
        doctor::examine(&question, &env)
    };
    let checks = tokio::task::spawn_blocking(examine)
        .await
        .context("the checks ended unexpectedly")?;
    failures(&checks)?;
    for check in &checks {
        context
            .printer
            .detail(&format!("{}: {}", check.name, check.found));
    }
    let warnings: Vec<_> = checks
        .iter()
        .filter(|check| check.verdict == Verdict::Warning && check.name != "packages")
        .collect();
    let untried = checks.iter().any(doctor::Check::is_not_tried);
    match warnings.first() {
        Some(warning) => step.done_with_warning(format!("{}: {}", warning.name, warning.found)),
        None if untried => step.done("fine so far; the rest is tried when the packages are there"),
        None => step.done("has everything needed"),
    }
    let missing = packages::missing(build.is_some());
    if !missing.is_empty() {
        let step = context.printer.step("packages", "Debian packages");
        step.now(&format!("installing {}", missing.join(", ")));
        let names = missing.clone();
        tokio::task::spawn_blocking(move || packages::install(&names))
            .await
            .context("apt-get ended unexpectedly")??;
        step.done(format!("installed {}", missing.join(", ")));
    }
    if untried {
        let step = context.printer.step("kernel", "Kernel");
        let checks = tokio::task::spawn_blocking(doctor::examine_kernel)
            .await
            .context("the checks ended unexpectedly")?;
        failures(&checks)?;
        if let Some(check) = checks.iter().find(|check| check.is_not_tried()) {
            return Err(Problem::new(
                format!("the packages are installed, and still: {}", check.found),
                "make the program findable (PATH), and repeat",
            )
            .into());
        }
        let found: Vec<&str> = checks.iter().map(|check| check.found.as_str()).collect();
        step.done(found.join("; "));
    }
    Ok(())
}

/// Tests whether this host's firewall lets machines communicate: otherwise a cluster would wait for ever.
async fn network(context: &Context, args: &args::Up) -> Result<()> {
    let settings = Settings::load(&context.places)?;
    let Some(network) = addresses::network_of(&context.places, settings.as_ref(), args.layout.uplink) else {
        // The error is reported when the stamp is made.
        return Ok(());
    };
    let step = context.printer.step("network", "Network");
    step.now("trying what machines need");
    let (stamp, env) = (context.places.name.clone(), context.env.clone());
    let checks = tokio::task::spawn_blocking(move || doctor::examine_network(&stamp, network, &env))
        .await
        .context("the checks ended unexpectedly")?;
    failures(&checks)?;
    for check in &checks {
        match check.verdict {
            Verdict::Ok => context.printer.detail(&check.found),
            _ => context.printer.warn(&format!("{}: {}", check.name, check.found)),
        }
    }
    step.done("open");
    Ok(())
}

async fn image(context: &Context, version: &str) -> Result<()> {
    let step = context.printer.step("image", format!("Node image {version}"));
    if images::build_disk(&context.places, version)?.is_none() {
        if let Some(problem) = images::damage(&context.places, version)? {
            return Err(problem.into());
        }
        step.skip("in the cache");
        return Ok(());
    }
    let image = images::ensure(&context.places, version, images::Wanted::Any, &step).await?;
    step.done(images::summary(&image));
    Ok(())
}

/// Makes the stamp and runs its service.
async fn service(context: &Context, args: &args::Up) -> Result<Settings> {
    let step = context.printer.step("service", "Service");
    let before = Settings::load(&context.places)?;
    let taken = addresses::taken_ranges();
    let cache = images::cache_dir(&context.places)?;
    let mut settings = Settings::load_or_make(&context.places, &args.layout, &taken, &context.env)?;
    settings.remember_cache(&context.places, cache)?;
    if let Some(before) = &before
        && (
            before.listen,
            before.identity,
            &before.limits,
            before.kubeconfig_hours,
            before.support,
        ) != (
            settings.listen,
            settings.identity,
            &settings.limits,
            settings.kubeconfig_hours,
            settings.support,
        )
    {
        step.now("restarting with other settings");
        background::stop(&context.places, &context.env).await?;
    }
    context.places.make()?;
    step.now("starting");
    let (status, started) = background::ensure_running(&context.places, &context.env).await?;
    let detail = format!("ARM API at {}, process {}", status.arm_url, status.service.pid);
    if started {
        step.done(detail)
    } else {
        step.skip(detail)
    }
    Ok(settings)
}

async fn group(context: &Context, arm: &ArmClient) -> Result<()> {
    let step = context.printer.step("group", "Resource group");
    let path = format!("{}/resourceGroups/{GROUP}", arm.subscription());
    if arm.get(&path, RESOURCES).await?.is_some() {
        step.skip(format!("{GROUP} is there"));
        return Ok(());
    }
    arm.put(&path, RESOURCES, &json!({ "location": LOCATION }))
        .await?;
    step.done(GROUP);
    Ok(())
}

/// The resulting cluster.
struct Cluster {
    body: Value,
    seconds: Option<f64>,
}

async fn cluster(context: &Context, arm: &ArmClient, args: &args::Up, version: &str) -> Result<Cluster> {
    let step = context.printer.step("cluster", format!("Cluster {CLUSTER}"));
    let path = cluster_path(arm);
    let start = context.env.clock.monotonic();
    let found = arm.get(&path, AKS).await?;
    let body = match &found {
        None => Some(json!({
            "location": LOCATION,
            "identity": { "type": "SystemAssigned" },
            "properties": {
                "kubernetesVersion": version,
                "dnsPrefix": CLUSTER,
                "agentPoolProfiles": [{ "name": POOL, "mode": "System", "count": args.nodes.unwrap_or(1) }],
            },
        })),
        Some(found) => changed(found, args)?,
    };
    let is_new = found.is_none();
    let working = found
        .as_ref()
        .is_some_and(|found| found["properties"]["provisioningState"] != "Succeeded");
    let mut operation = None;
    if let Some(body) = &body {
        step.now(if is_new {
            "asking the ARM API for it"
        } else {
            "asking the ARM API to scale it"
        });
        operation = arm.put(&path, AKS, body).await?.operation;
    }
    match operation {
        Some(operation) => {
            arm.wait(&operation, CLUSTER_BOUND, async || tell(context, &step).await)
                .await?
        }
        None if working => settled(context, arm, &path, &step).await?,
        None => {}
    }
    alive(context, &step).await?;
    let body = arm
        .get(&path, AKS)
        .await?
        .context("the cluster was deleted meanwhile")?;
    let seconds = context.env.clock.monotonic().saturating_sub(start).as_secs_f64();
    let count = nodes(&body);
    let detail = format!(
        "{count} node{} Ready, Kubernetes {}",
        if count == 1 { "" } else { "s" },
        body["properties"]["currentKubernetesVersion"]
            .as_str()
            .or(body["properties"]["kubernetesVersion"].as_str())
            .unwrap_or("?")
    );
    let acted = is_new || operation_made(&found, &body);
    if acted {
        step.done(detail)
    } else {
        step.skip(detail)
    }
    Ok(Cluster {
        body,
        seconds: is_new.then_some(seconds),
    })
}

fn operation_made(found: &Option<Value>, now: &Value) -> bool {
    found.as_ref().is_some_and(|found| nodes(found) != nodes(now))
}

fn cluster_path(arm: &ArmClient) -> String {
    format!(
        "{}/resourceGroups/{GROUP}/providers/Microsoft.ContainerService/managedClusters/{CLUSTER}",
        arm.subscription()
    )
}

fn nodes(body: &Value) -> u64 {
    let pools = body["properties"]["agentPoolProfiles"].as_array();
    pools
        .into_iter()
        .flatten()
        .filter_map(|pool| pool["count"].as_u64())
        .sum()
}

/// The body to send for an existing cluster, if a property is to change.
fn changed(found: &Value, args: &args::Up) -> Result<Option<Value>> {
    let properties = &found["properties"];
    let present = properties["kubernetesVersion"].as_str().unwrap_or_default();
    if let Some(wanted) = &args.kubernetes
        && !present.starts_with(wanted.as_str())
    {
        return Err(Problem::new(
            format!("cluster {CLUSTER} is there already, with Kubernetes {present}"),
            format!("leave --kubernetes out, or make another: az aks create -g {GROUP} -n second --kubernetes-version {wanted}"),
        )
        .into());
    }
    let Some(wanted) = args.nodes else { return Ok(None) };
    let mut body = found.clone();
    let Some(pool) = body["properties"]["agentPoolProfiles"]
        .as_array_mut()
        .and_then(|pools| pools.iter_mut().find(|pool| pool["name"] == POOL))
    else {
        return Ok(None);
    };
    if pool["count"].as_u64() == Some(u64::from(wanted)) {
        return Ok(None);
    }
    pool["count"] = json!(wanted);
    Ok(Some(body))
}

/// Waits for a cluster that another request is still changing.
async fn settled(context: &Context, arm: &ArmClient, path: &str, step: &Step) -> Result<()> {
    let deadline = context.env.clock.monotonic() + CLUSTER_BOUND;
    loop {
        let body = arm
            .get(path, AKS)
            .await?
            .context("the cluster was deleted meanwhile")?;
        if body["properties"]["provisioningState"] == "Succeeded" {
            return Ok(());
        }
        if context.env.clock.monotonic() > deadline {
            return Err(not_ready(context).into());
        }
        tell(context, step).await;
        context.env.clock.sleep(Duration::from_secs(1)).await;
    }
}

/// Waits until every machine of the cluster runs and every process in it is ready. ARM's state is that of the
/// last request: after all processes were stopped it is still `Succeeded`, although none responds yet.
async fn alive(context: &Context, step: &Step) -> Result<()> {
    let admin = AdminClient::new(&context.places)?;
    let deadline = context.env.clock.monotonic() + CLUSTER_BOUND;
    loop {
        let status = admin.status().await?;
        // Stopped clusters are as desired.
        let mut clusters = status.clusters.iter().filter(|cluster| !cluster.stopped);
        let Some(cluster) = clusters.find(|cluster| is_first(cluster)) else {
            return Ok(());
        };
        let waits = status
            .machines_of(cluster)
            .filter(|machine| !machine.deleting)
            .find_map(|machine| Some(format!("{} {}", machine.name, machine.complaint()?)));
        let Some(waits) = waits else { return Ok(()) };
        if context.env.clock.monotonic() > deadline {
            return Err(not_ready(context).because(anyhow::anyhow!(waits)).into());
        }
        step.now(&waits);
        context.env.clock.sleep(LOOK).await;
    }
}

fn is_first(cluster: &ClusterStatus) -> bool {
    cluster.name.eq_ignore_ascii_case(CLUSTER) && cluster.resource_group.eq_ignore_ascii_case(GROUP)
}

fn not_ready(context: &Context) -> Problem {
    Problem::new(
        format!(
            "cluster {CLUSTER} is not ready after {} minutes; it goes on in the background",
            CLUSTER_BOUND.as_secs() / 60
        ),
        format!("landfall status{} shows what it waits for", context.name_flag()),
    )
}

/// Shows the current step of the cluster's loop.
async fn tell(context: &Context, step: &Step) {
    // Only for display: the operation decides the result.
    let Ok(admin) = AdminClient::new(&context.places) else {
        return;
    };
    let Ok(status) = admin.status().await else { return };
    let Some(cluster) = status.clusters.iter().find(|cluster| is_first(cluster)) else {
        return;
    };
    if let Some(problem) = &cluster.problem {
        step.now(problem);
    } else if !cluster.step.is_empty() {
        step.now(&cluster.step);
    }
}

/// Stores the administrator's kubeconfig beside the stamp.
async fn credentials(context: &Context, arm: &ArmClient) -> Result<PathBuf> {
    let admin = AdminClient::new(&context.places)?;
    let status = admin.status().await?;
    let cluster = status.clusters.iter().find(|cluster| is_first(cluster));
    let cluster = cluster.context("the cluster was deleted meanwhile")?;
    let text = kubeconfig::fetch(context, arm, &admin, cluster).await?;
    let path = context.places.secrets().join(format!("{CLUSTER}.kubeconfig"));
    stamp::write_whole(&path, text.as_bytes(), 0o600)?;
    Ok(path)
}

fn summary(context: &Context, settings: &Settings, cluster: &Cluster, kubeconfig: &Path) -> Result<()> {
    let total = context.printer.elapsed().as_secs_f64();
    let kubectl = images::kubectl(
        &context.places,
        cluster.body["properties"]["kubernetesVersion"]
            .as_str()
            .unwrap_or_default(),
    )?;
    let value = json!({
        "event": "result",
        "stamp": context.places.name,
        "armEndpoint": settings.arm_url(),
        "caFile": context.places.ca(),
        "audience": settings.audience(),
        "tenantId": settings.tenant,
        "identity": settings.identity.as_str(),
        "subscriptionId": settings.subscription,
        "servicePrincipal": {
            "clientId": settings.client,
            "secretFile": context.places.secrets().join(crate::arm::SECRET),
        },
        "administrator": {
            "login": settings.administrator(),
            "passwordFile": context.places.secrets().join(crate::arm::ADMINISTRATOR),
        },
        "location": LOCATION,
        "resourceGroup": GROUP,
        "cluster": CLUSTER,
        "kubernetesVersion": cluster.body["properties"]["kubernetesVersion"],
        "nodes": nodes(&cluster.body),
        "kubeconfig": kubeconfig,
        "kubectl": kubectl,
        "clusterSeconds": cluster.seconds,
        "seconds": total,
    });
    let facts = Facts::of_this_host(context, kubeconfig);
    context.printer.result(&value, || {
        let time = cluster
            .seconds
            .map(|seconds| format!(", cluster in {}", duration(seconds)))
            .unwrap_or_default();
        let mut page = format!("\n{} in {}{time}.\n\n", "Ready".green().bold(), duration(total));
        for (title, command) in facts.commands() {
            page.push_str(&format!(
                "  {} {}\n",
                pad(&title.dimmed().to_string(), 18),
                command.cyan()
            ));
        }
        if let Some(remark) = facts.remark() {
            page.push_str(&format!("\n{}\n", remark.dimmed()));
        }
        page
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(nodes: Option<u32>, kubernetes: Option<&str>) -> args::Up {
        args::Up {
            nodes,
            kubernetes: kubernetes.map(str::to_owned),
            layout: args::Layout::default(),
        }
    }

    #[test]
    fn a_cluster_that_is_there_changes_only_when_asked() {
        let found = json!({ "properties": { "kubernetesVersion": "1.36.3",
            "agentPoolProfiles": [{ "name": "other", "count": 5 }, { "name": POOL, "count": 1 }] } });
        assert_eq!(changed(&found, &args(None, None)).unwrap(), None);
        assert_eq!(changed(&found, &args(Some(1), Some("1.36"))).unwrap(), None);
        let body = changed(&found, &args(Some(3), None)).unwrap().unwrap();
        assert_eq!(nodes(&body), 8);
        assert!(changed(&found, &args(None, Some("1.37.1"))).is_err());
    }
}
