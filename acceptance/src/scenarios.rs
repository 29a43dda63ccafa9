//! The walks through the product. Three stamps side by side, and clusters side by side on them.

mod access;
mod adversity;
mod around;
mod autoscaler;
mod az_commands;
mod backup;
mod balancers;
mod bindings;
mod breakout;
mod catalogue;
mod credentials;
mod dns;
mod fresh;
mod guide;
mod healing;
mod identity;
mod ingress;
mod kubernetes_access;
mod load;
mod login;
mod lts;
mod maintenance;
mod members;
mod monitoring;
mod namespaces;
mod network_policies;
mod networks;
mod plugins;
mod pools;
mod power;
mod reach;
mod registry;
mod rotation;
mod sdk;
mod secrets;
mod sign_in;
mod store;
mod support;
mod support_access;
mod takeover;
mod terraform;
mod upgrade;
mod users;
mod volumes;
mod ways_back;
mod workload;

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{Args, Program, clients::Az, journal::Journal, part::Choice, stamp::Stamp};

/// The resource group of all scenarios.
const GROUP: &str = "acceptance";

/// Scenarios that follow each other on a separate stamp.
struct Walk {
    /// Their names, for `--only` and `--part`.
    scenarios: &'static [&'static str],
    /// The protocol of logins that the stamp announces to its clients.
    shape: &'static str,
    /// Has the client of the walk log in.
    log_in: fn(&Wanted<'_>, &Journal, &Stamp) -> Result<Az>,
    act: fn(&Wanted<'_>, &Journal, &Stamp, &Az) -> Result<()>,
    /// Whether its stamp is made by an earlier release.
    earlier: bool,
}

impl Walk {
    /// A walk with the newest Azure CLI, as it is by default.
    const fn new(
        scenarios: &'static [&'static str],
        act: fn(&Wanted<'_>, &Journal, &Stamp, &Az) -> Result<()>,
    ) -> Self {
        Self {
            scenarios,
            shape: "aad",
            log_in: |_, journal, stamp| login::walk(journal, stamp),
            act,
            earlier: false,
        }
    }
}

/// Stamps that run side by side, each with a share of about the same length: a kill of the service or a power
/// failure does not affect the others. Much of each walk is waiting, so there are more of them than a small
/// machine has processors.
const WALKS: &[Walk] = &[
    Walk::new(
        &[
            "up",
            "login",
            "access",
            "reach",
            "credentials",
            kubernetes_access::NAME,
            "around",
            catalogue::NAME,
            monitoring::NAME,
            "sdk",
            "store",
            "secrets",
            "backup",
            "identity",
        ],
        keeping,
    ),
    Walk::new(
        &[
            "disks",
            "power",
            "plugins",
            network_policies::NAME,
            "members",
            "networks",
        ],
        machines,
    ),
    Walk::new(CLUSTERS, clusters),
];

/// Scenarios in the two clusters of [`workload`].
const CLUSTERS: &[&str] = &[
    "workload",
    balancers::NAME,
    volumes::NAME,
    namespaces::NAME,
    registry::NAME,
    breakout::NAME,
    "pools",
    autoscaler::NAME,
    "maintenance",
    "upgrade",
    "healing",
    "adversity",
];

/// Walks that run only when they are requested by name.
const BY_NAME: &[Walk] = &[
    Walk::new(&[az_commands::NAME], |_, journal, stamp, az| {
        az_commands::walk(journal, stamp, az)
    }),
    Walk {
        scenarios: &[lts::NAME],
        shape: "adfs",
        log_in: |wanted, journal, stamp| lts::log_in(journal, stamp, wanted.az_lts),
        act: |_, journal, stamp, az| lts::walk(journal, stamp, az),
        earlier: false,
    },
    Walk {
        earlier: true,
        ..Walk::new(&[takeover::NAME], |_, journal, stamp, az| {
            takeover::walk(journal, stamp, az)
        })
    },
    Walk::new(&[ingress::NAME], |_, journal, stamp, az| {
        ingress::walk(journal, stamp, az)
    }),
    Walk::new(&[terraform::NAME], |wanted, journal, stamp, az| {
        terraform::walk(journal, stamp, az, wanted.terraform, wanted.azurerm)
    }),
];

/// The requested scenarios, and the clients for them.
struct Wanted<'a> {
    choice: Choice<'a>,
    sdk: &'a [Program],
    sdk_js: &'a [Program],
    kubelogin: Option<&'a Path>,
    az_lts: Option<&'a Path>,
    terraform: Option<&'a Path>,
    azurerm: Option<&'a Path>,
}

impl Wanted<'_> {
    fn has(&self, name: &str) -> bool {
        let all = WALKS.iter().flat_map(|walk| walk.scenarios);
        self.choice.has(name, all.copied().chain([fresh::NAME]))
    }

    fn has_any(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.has(name))
    }
}

/// All of them, side by side: fresh machines have separate namespaces without access to this host's stamps,
/// and stamps only look for their own objects.
pub(crate) fn run(args: &Args, journal: &Journal) -> Result<()> {
    let wanted = Wanted {
        choice: Choice::new(args.only.as_deref(), args.part),
        sdk: &args.sdk,
        sdk_js: &args.sdk_js,
        kubelogin: args.kubelogin.as_deref(),
        az_lts: args.az_lts.as_deref(),
        terraform: args.terraform.as_deref(),
        azurerm: args.azurerm.as_deref(),
    };
    std::thread::scope(|scope| {
        let mut walks: Vec<_> = WALKS
            .iter()
            .filter(|walk| wanted.has_any(walk.scenarios))
            .chain(
                BY_NAME
                    .iter()
                    .filter(|walk| walk.scenarios.iter().any(|name| wanted.choice.is(name))),
            )
            .map(|walk| {
                scope.spawn(|| {
                    walk_told(journal, &walk.scenarios.join(", "), || {
                        on_a_stamp(args, journal, walk, &wanted)
                    })
                })
            })
            .collect();
        if wanted.has(fresh::NAME) {
            walks.push(scope.spawn(|| walk_told(journal, fresh::NAME, || fresh::walk(args, journal))));
        }
        // Each walk runs to its end, even if others fail.
        let outcomes: Vec<_> = walks.into_iter().map(joined).collect();
        outcomes.into_iter().collect::<Result<()>>()
    })?;
    called(&wanted, journal)
}

/// Prints which operations were called by which clients; after a full run with all clients, every implemented
/// operation must have been called.
fn called(wanted: &Wanted<'_>, journal: &Journal) -> Result<()> {
    let sum = journal.calls().sum();
    journal.note(&sum.table());
    if !wanted.choice.is_all() {
        return Ok(());
    }
    if wanted.sdk.is_empty() || wanted.sdk_js.is_empty() {
        journal.note("not every operation has to be called: an SDK is missing");
        return Ok(());
    }
    journal.step(
        "clients",
        "each operation that works was called by a real client",
        || sum.check(),
    )
}

/// Walks, and prints the total time: walks should end at about the same time.
fn walk_told(journal: &Journal, name: &str, walk: impl FnOnce() -> Result<()>) -> Result<()> {
    let (outcome, seconds) = crate::journal::stopwatch(walk);
    journal.note(&format!("walk {name}: {seconds:.0} s"));
    outcome
}

fn on_a_stamp(args: &Args, journal: &Journal, walk: &Walk, wanted: &Wanted<'_>) -> Result<()> {
    let mut stamp = Stamp::new(args, journal.calls())?;
    if walk.earlier {
        let earlier = args.earlier.as_deref();
        stamp.begins_with(earlier.context("--earlier is missing: 'cargo xtask takeover' names it")?)?;
    }
    journal.note(&format!(
        "stamp {} on {}: {}",
        stamp.name,
        stamp.listen,
        walk.scenarios.join(", ")
    ));
    let name = stamp.name.clone();
    let outcome = journal
        .calls()
        .meanwhile(&name, || walked(journal, &mut stamp, walk, wanted));
    if let Err(error) = &outcome {
        journal.note(&format!("--- what stamp {} says after: {error:#}", stamp.name));
        for arguments in [&["status"][..], &["logs"][..]] {
            if let Ok(output) = crate::clients::attempt(&mut stamp.landfall(arguments)) {
                journal.note(&String::from_utf8_lossy(&output.stdout));
                journal.note(&String::from_utf8_lossy(&output.stderr));
            }
        }
    }
    if args.keep {
        journal.note(&format!(
            "kept: {} in {}",
            stamp.name,
            stamp.directory.path().display()
        ));
        std::mem::forget(stamp);
        return outcome;
    }
    let down = journal.step("stamp", "down --purge leaves nothing", || stamp.down());
    outcome.and(down)
}

fn walked(journal: &Journal, stamp: &mut Stamp, walk: &Walk, wanted: &Wanted<'_>) -> Result<()> {
    journal.step("stamp", "up: a cluster with one node through the ARM API", || {
        stamp.up(walk.shape)
    })?;
    let az = (walk.log_in)(wanted, journal, stamp)?;
    (walk.act)(wanted, journal, stamp, &az)
}

/// Scenarios about backups and the store.
fn keeping(wanted: &Wanted<'_>, journal: &Journal, stamp: &Stamp, az: &Az) -> Result<()> {
    if wanted.has("up") {
        journal.step("stamp", "up again changes nothing", || {
            let pid = stamp.serve_pid()?;
            crate::clients::run(&mut stamp.landfall(&["up", "--output", "json"]))?;
            anyhow::ensure!(pid == stamp.serve_pid()?, "the service was started anew");
            Ok(())
        })?;
    }
    if wanted.has("login") {
        sign_in::walk(journal, stamp)?;
    }
    if wanted.has("access") {
        access::walk(journal, stamp, az)?;
    }
    if wanted.has("reach") {
        reach::walk(journal, stamp, az)?;
    }
    // Before its users log in by the directory, for good.
    if wanted.has("credentials") {
        credentials::walk(journal, stamp, az)?;
    }
    if let (Some(kubelogin), true) = (wanted.kubelogin, wanted.has(kubernetes_access::NAME)) {
        kubernetes_access::walk(journal, stamp, az, kubelogin)?;
    }
    if wanted.has("around") {
        around::walk(journal, stamp, az)?;
    }
    if wanted.has(catalogue::NAME) {
        catalogue::walk(journal, stamp, az)?;
    }
    if wanted.has(monitoring::NAME) {
        monitoring::walk(journal, stamp, az)?;
    }
    if wanted.has("sdk") {
        sdk::python(journal, stamp, az, wanted.sdk)?;
        sdk::javascript(journal, stamp, az, wanted.sdk_js)?;
    }
    if wanted.has("store") {
        store::walk(journal, stamp, az)?;
    }
    if wanted.has("secrets") {
        secrets::walk(journal, stamp, az)?;
    }
    if wanted.has("backup") {
        backup::walk(journal, stamp, az)?;
    }
    // The last: it changes the secrets that the others log in with.
    if wanted.has("identity") {
        identity::walk(journal, stamp, az)?;
    }
    Ok(())
}

/// Scenarios about machines and their disks, each with separate clusters.
fn machines(wanted: &Wanted<'_>, journal: &Journal, stamp: &Stamp, az: &Az) -> Result<()> {
    if wanted.has("disks") {
        backup::disks(journal, stamp, az)?;
    }
    if wanted.has("power") {
        power::walk(journal, stamp, az)?;
    }
    if wanted.has("plugins") {
        plugins::walk(journal, stamp, az)?;
    }
    if wanted.has(network_policies::NAME) {
        network_policies::walk(journal, stamp, az)?;
    }
    if wanted.has("members") {
        members::walk(journal, stamp, az)?;
    }
    if wanted.has("networks") {
        networks::walk(journal, stamp, az)?;
    }
    Ok(())
}

/// Scenarios in two clusters with the same address ranges.
fn clusters(wanted: &Wanted<'_>, journal: &Journal, stamp: &Stamp, az: &Az) -> Result<()> {
    workload::create(journal, az)?;
    let clusters = workload::Clusters::open(journal, stamp, az)?;
    // The objects that the adversities must not disturb are made by the workload.
    if wanted.has_any(&["workload", "upgrade", "adversity"]) {
        clusters.walk(journal)?;
    }
    if wanted.has("workload") {
        users::walk(journal, stamp, az, &clusters.overlay)?;
    }
    if wanted.has(balancers::NAME) {
        balancers::walk(journal, stamp, az, &clusters.kubenet)?;
    }
    if wanted.has(volumes::NAME) {
        volumes::walk(journal, stamp, az, &clusters.kubenet)?;
    }
    if wanted.has(namespaces::NAME) {
        namespaces::walk(journal, stamp, az, &clusters.kubenet)?;
    }
    if wanted.has(registry::NAME) {
        registry::walk(journal, stamp, az, &clusters.kubenet)?;
    }
    if wanted.has(breakout::NAME) {
        breakout::walk(journal, stamp, az, &clusters)?;
    }
    if wanted.has("pools") {
        pools::walk(journal, stamp, az, &clusters.kubenet)?;
    }
    if wanted.has(autoscaler::NAME) {
        autoscaler::walk(journal, stamp, az, &clusters.kubenet)?;
    }
    if wanted.has("maintenance") {
        support::walk(journal, stamp, az, &clusters.kubenet)?;
        support_access::walk(journal, stamp, az, &clusters.kubenet)?;
        maintenance::walk(journal, stamp, az, &clusters.kubenet)?;
    }
    if wanted.has("upgrade") {
        upgrade::walk(journal, stamp, az, &clusters.kubenet)?;
    }
    if wanted.has("healing") {
        healing::walk(journal, stamp, &clusters)?;
    }
    if wanted.has("adversity") {
        adversity::walk(journal, stamp, az, &clusters)?;
    }
    workload::delete(journal, stamp, az)
}

/// A string member of a response.
fn text<'a>(value: &'a Value, pointer: &str) -> Result<&'a str> {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .with_context(|| format!("no {pointer} in {value}"))
}

/// `az aks …` for a cluster of the group.
fn aks(az: &Az, verb: &[&str], cluster: &str, more: &[&str]) -> Result<Value> {
    let mut arguments = vec!["aks"];
    arguments.extend(verb);
    arguments.extend(["--resource-group", GROUP, "--name", cluster]);
    arguments.extend(more);
    az.json(&arguments)
}

/// The result of a thread.
fn joined<T>(thread: std::thread::ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?
}
