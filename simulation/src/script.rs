//! Scripts: commands in, a transcript out; reviews read the difference to the golden transcript.
//!
//! `scenarios/{name}.cmd` is played and compared with `scenarios/{name}.out`. One command a line, `#` starts a comment:
//!
//! | command | does |
//! |---|---|
//! | `create C POOL=COUNT… [plugin=kubenet, azure, overlay, none] [tier=Free, Standard, Premium]` | the PUT of a cluster |
//! | `pool C POOL COUNT` | the PUT of a pool: scales it, or adds it |
//! | `drop C POOL` | the DELETE of a pool |
//! | `label C POOL KEY=VALUE`, `taint C POOL KEY=VALUE:EFFECT` | the PUT of a pool with one more label or taint |
//! | `tier C TIER` | the PUT of a cluster with another tier |
//! | `upgrade C VERSION [POOL, control-plane]` | the PUT of a cluster with another version for all parts, for its control plane only, or of a pool |
//! | `settings C POOL FIELD=VALUE…` | the PUT of a pool with these upgrade settings: `surge`, `unavailable`, `drain` and `soak` (minutes), `undrainable` (`Schedule`, `Cordon`) |
//! | `delete C`, `delete-group` | the DELETE of a cluster, of the group with all clusters |
//! | `abort C` | the POST that aborts the running operation |
//! | `power C off`, `power C on` | the POST that stops, that starts a cluster |
//! | `rotate C certificates`, `rotate C keys` | the POST that replaces a cluster's CAs, the key of its service accounts |
//! | `restore C SECONDS [NEW]` | the POST that restores a cluster's state of that many seconds ago, in place or as another cluster |
//! | `object C NAME [VALUE]` | writes an object into a cluster, as its users do; without a value, prints it |
//! | `service C NAME PORT,… [internal] [local] [on=NODE,…] [address=ADDRESS]` | writes a Service of type LoadBalancer into a cluster; `on`: the nodes of its endpoints |
//! | `drop-service C NAME` | deletes a Service |
//! | `services C` | prints the targets of the addresses of a cluster's Services, and the last status of each |
//! | `class C NAME [retain] [immediate]` | puts a storage class of the disk driver into a cluster |
//! | `claim C NAME GIB [class=NAME] [modes=MODE,…] [block] [from=CLAIM] [snapshot=SNAPSHOT]` | puts a claim for a volume into a cluster; `from`, `snapshot`: it begins as a copy |
//! | `snapshot C NAME CLAIM`, `drop-snapshot C NAME` | puts a snapshot of a claim into a cluster; it is deleted |
//! | `use C CLAIM [NODE]`, `leave C CLAIM` | a pod with the claim comes to the node whose name ends so, else to the first that takes it, from wherever it was; it ends |
//! | `grow C CLAIM GIB`, `drop-claim C CLAIM` | a claim asks for more, is deleted |
//! | `volumes [C]` | prints the claims of a cluster and what is there for them; without a cluster, what is in the fabric |
//! | `autoscale C POOL MIN MAX` | the PUT of a pool that turns its autoscaler on, with this range |
//! | `pod C NAME CORES`, `drop-pod C NAME` | makes a pod that requests this number of thousandths of a core; removes it |
//! | `placed C` | prints these pods with their nodes and last events, and the counts of the pools |
//! | `credential C KIND` | the POST for a kubeconfig: `Admin`, `User` or `MonitoringUser` |
//! | `revoke C` | the POST that revokes the oldest valid credential |
//! | `credentials C` | prints the known credentials, and whether the cluster grants them |
//! | `namespace C NAME [adopt=POLICY] [delete=POLICY] [label=KEY:VALUE] [cpu=QUANTITY]`, `drop-namespace C NAME` | the PUT, the DELETE of a managed namespace |
//! | `own-namespace C NAME` | a user makes a Namespace in a cluster |
//! | `namespaces C` | prints the managed namespaces of a cluster, and whether the cluster has them |
//! | `soak C VERSION`, `finalize C`, `roll-back C VERSION` | the POSTs of an upgrade of a control plane with a way back; the version is the one of before |
//! | `roll-back C POOL VERSION` | the PUT that takes a pool back to the version and node image that it had |
//! | `image VERSION BUILD`, `renew C POOL` | from now on there is this build of a version's node image; the POST that brings a pool to the newest |
//! | `images C` | prints the node images of pools, and of their nodes |
//! | `policy C ENGINE` | the PUT of a cluster with another engine of network policies |
//! | `policies C` | prints what enforces the network policies of a cluster |
//! | `ingress C REACH`, `ingress C off` | the PUT of a cluster whose ingress controller is reached so, or that has none |
//! | `gateways C INSTALLATION` | the PUT of a cluster with the kinds of the Gateway API (`Standard`), or without (`Disabled`) |
//! | `routing C` | prints what a cluster has of both |
//! | `channel C CHANNEL` | the PUT of a cluster with another upgrade channel |
//! | `window C CONFIGURATION DAY HH:MM HOURS` | the PUT of a maintenance configuration: each week on that day, in UTC |
//! | `waits C` | prints what planned work of a cluster waits for |
//! | `upgraded C VERSION` | checks that the service has asked for this version by the cluster's channel |
//! | `support C PROFILE DAYS` | prints the state of support of a cluster that many days from now |
//! | `subscription off`, `subscription on` | an operator disables the subscription, enables it |
//! | `deadlines act`, `deadlines tell` | an operator has deadlines of the support policies act, or only told |
//! | `told C` | prints what was told of a cluster's deadlines |
//! | `by-policy C` | checks that the service has stopped a cluster by a deadline |
//! | `archive C` | the POST that archives a stopped cluster |
//! | `hold REASON`, `go-on` | an operator holds planned work up, lets it go on |
//! | `settle` | waits until no work is left, then checks that every resource exists once and none is left over |
//! | `wait SECONDS` | lets time pass |
//! | `fail CALL TIMES` | the next calls of a kind fail; `fail-after`: after they have done their work |
//! | `outage CALLS COMMITS` | from now on this part (0 to 1) of all calls, of all commits, fails; `calm` ends it |
//! | `pods NODE COUNT` | pods that do not leave the nodes whose name ends in NODE |
//! | `crash NAME`, `vanish NAME` | the machine whose name begins or ends in NAME stops, is gone |
//! | `damage NAME` | the records of the fabric about such a machine become unreadable |
//! | `ail NAME AILMENT CURE` | an ailment: `silent`, `hangs`, `not-ready`, `disk-full`, `ends:PROCESS`, `deaf:PROCESS`; cured by `process`, `reboot`, `reimage`, `replace` |
//! | `lose-key NAME` | the disk of such a machine loses the key that identifies the machine |
//! | `fail-boots COUNT` | the next machines that start never become ready |
//! | `stall C`, `unstall C` | the cluster's API stops answering, answers again |
//! | `heal` | all machines and APIs become healthy |
//! | `orphans` | makes a machine and a network that are in no record |
//! | `unknown` | prints resources that are in no record; `may-go KIND`: the DELETE of all such `machine`s, `network`s, `volume`s |
//! | `save-store`, `lose-store`, `restore-store` | while no service runs: saves the content of the store, makes a new store, writes the saved content back |
//! | `copy-store`, `put-back-store` | makes a copy of the store; while no service runs, restores the store from it |
//! | `budgets KIND=SIZE+REFILL…` | the budgets of requests (`reads`, `writes`, `deletes`), from the next start on |
//! | `reads C COUNT` | so many GETs of a cluster, as fast as they are answered |
//! | `resync SECONDS` | the resync period, from the next start on |
//! | `start`, `stop`, `kill`, `die POINTS` | the service; `die`: killed after so many store accesses and calls |
//! | `show C`, `operations`, `trace`, `records`, `commits`, `world` | print; `trace`: the calls since the last `trace` |
//!
//! A machine is called by the name of its node, or `control-plane-0` and so on.

mod print;
mod requests;

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use control_records::{Role, unknown};
use control_store::Store as _;
use fabric_api::{MachineId, MachineSpec, NetworkId, NetworkSpec};
use fabric_sim::{Call, SimOptions};
use serde_json::json;

use crate::{Asked, Stamp, Weather, Wish, balancers::planted, budgets, panics, store::Records, volumes};
use requests::{upgrade_settings, wish};

/// Time limit of each command.
const BOUND: Duration = Duration::from_secs(2 * 60 * 60);

/// Calls without effects; they are in the trace, but not in transcripts.
const LOOKS: [&str; 8] = [
    "list",
    "nodes",
    "services",
    "volumes",
    "work",
    "tell-work",
    "ready",
    "logs",
];

/// Plays commands on a stamp.
pub struct Player {
    /// The stamp.
    pub stamp: Stamp,
    /// The wishes of the requests so far.
    pub asked: Asked,
    /// The store as it was saved.
    saved: Records,
    /// A copy of the store, with the wishes of the requests until then.
    copied: (Vec<u8>, Asked),
    out: String,
}

impl Player {
    /// Begins with an empty stamp; the service does not run yet.
    pub async fn new(seed: u64) -> Result<Self> {
        panics::watch();
        let options = SimOptions {
            backup: true,
            ..SimOptions::default()
        };
        Ok(Self {
            stamp: Stamp::new(seed, options).await?,
            saved: Records::new(),
            copied: Default::default(),
            asked: Asked::default(),
            out: String::new(),
        })
    }

    /// Plays a script; returns the transcript.
    pub async fn play(mut self, script: &str) -> Result<(String, String)> {
        for line in script.lines().map(str::trim_end) {
            if line.is_empty() || line.starts_with('#') {
                self.say(line);
                continue;
            }
            self.say(&format!("> {line}"));
            self.command(line).await.with_context(|| format!("at '{line}'"))?;
        }
        self.stamp.stop().await?;
        let panics = panics::take();
        ensure!(panics.is_empty(), "the service panicked: {panics:?}");
        Ok((self.out, self.stamp.trace.hash()))
    }

    pub(crate) fn say(&mut self, line: &str) {
        self.out.push_str(line);
        self.out.push('\n');
    }

    /// Carries out one command.
    pub async fn command(&mut self, line: &str) -> Result<()> {
        let words: Vec<&str> = line.split_whitespace().collect();
        if let Some(wish) = wish(&words)? {
            return self.ask(&wish).await;
        }
        let stamp = &mut self.stamp;
        match *words {
            ["start"] => stamp.start()?,
            ["stop"] => stamp.stop().await?,
            ["kill"] => stamp.kill().await?,
            ["die", points] => stamp.steps.die_in(points.parse()?),
            ["settle"] => self.settle().await?,
            ["wait", seconds] => stamp.wait(Duration::from_secs_f64(seconds.parse()?)).await?,
            ["fail", call, times] => stamp.world.fail_next(self::call(call)?, times.parse()?),
            ["fail-after", call, times] => stamp.world.lose_answer(self::call(call)?, times.parse()?),
            ["outage", calls, commits] => stamp.steps.weather(Weather {
                calls: calls.parse()?,
                commits: commits.parse()?,
                slow: 0.0,
            }),
            ["calm"] => stamp.steps.weather(Weather::default()),
            ["fail-boots", times] => stamp.world.fail_boots(times.parse()?),
            ["pods", node, count] => {
                let count = count.parse()?;
                for cluster in stamp.clusters().await?.values() {
                    for found in stamp.world.nodes(&cluster.uid) {
                        if found.name.ends_with(node) {
                            stamp.world.stubborn(&cluster.uid, &found.name, count);
                        }
                    }
                }
            }
            ["settings", cluster, pool, ref rest @ ..] => {
                let answer = stamp.set_upgrades(cluster, pool, upgrade_settings(rest)?).await?;
                self.say(&format!("{}", answer.status));
            }
            ["crash", name] => {
                for id in machines(stamp, name).await? {
                    stamp.world.crash(&id);
                }
            }
            ["vanish", name] => {
                for id in machines(stamp, name).await? {
                    stamp.world.vanish(&id);
                }
            }
            ["damage", name] => {
                for id in machines(stamp, name).await? {
                    stamp.world.damage_metadata(&id);
                }
            }
            ["lose-key", name] => {
                for id in machines(stamp, name).await? {
                    stamp.world.lose_key(&id);
                }
            }
            ["ail", name, ailment, cure] => {
                let ailment: fabric_sim::Ailment = ailment.parse().map_err(anyhow::Error::msg)?;
                let cure = cure.parse().map_err(anyhow::Error::msg)?;
                for id in machines(stamp, name).await? {
                    stamp.world.ail(&id, ailment.clone(), cure);
                }
            }
            ["stall", name] | ["unstall", name] => {
                let cluster = stamp.cluster(name).await?.context("there is no such cluster")?;
                stamp.world.stall_api(&cluster.uid, words[0] == "stall");
            }
            ["object", name, object, value] => {
                let cluster = stamp.cluster(name).await?.context("there is no such cluster")?;
                stamp.world.put_object(&cluster.uid, object, json!(value));
            }
            ["object", name, object] => {
                let cluster = stamp.cluster(name).await?.context("there is no such cluster")?;
                let found = stamp.world.object(&cluster.uid, object);
                self.say(&found.map_or_else(|| "none".to_owned(), |value| value.to_string()));
            }
            ["service", name, service, ports, ref rest @ ..] => {
                let cluster = stamp.cluster(name).await?.context("there is no such cluster")?;
                let service = planted(service, ports, rest)?;
                stamp.world.plant_service(&cluster.uid, &service);
            }
            ["drop-service", name, service] => {
                let cluster = stamp.cluster(name).await?.context("there is no such cluster")?;
                let there = stamp.world.remove_service(&cluster.uid, service);
                ensure!(there, "there is no such Service");
            }
            ["services", name] => self.services(name).await?,
            [
                "class" | "claim" | "use" | "leave" | "grow" | "drop-claim" | "snapshot" | "drop-snapshot",
                name,
                ref rest @ ..,
            ] => {
                let cluster = stamp.cluster(name).await?.context("there is no such cluster")?;
                volumes::change(&stamp.world, &cluster.uid, words[0], rest)?;
            }
            ["volumes"] => self.all_volumes(),
            ["volumes", name] => self.volumes(name).await?,
            ["autoscale", name, pool, least, most] => self.autoscale(name, pool, least, most).await?,
            ["pod", name, pod, cores] => {
                let cluster = stamp.cluster(name).await?.context("there is no such cluster")?;
                stamp.world.plant_pod(&cluster.uid, pod, cores.parse()?);
            }
            ["drop-pod", name, pod] => {
                let cluster = stamp.cluster(name).await?.context("there is no such cluster")?;
                ensure!(stamp.world.remove_pod(&cluster.uid, pod), "there is no such pod");
            }
            ["placed", name] => self.placed(name).await?,
            ["credential", name, kind] => self.credential(name, kind).await?,
            ["revoke", name] => self.revoke(name).await?,
            ["credentials", name] => {
                for (_, line) in self.credentials(name).await? {
                    self.say(&line);
                }
            }
            ["namespace", name, namespace, ref words @ ..] => {
                self.namespace(name, namespace, Some(words)).await?;
            }
            ["drop-namespace", name, namespace] => self.namespace(name, namespace, None).await?,
            ["own-namespace", name, namespace] => {
                let cluster = stamp.cluster(name).await?.context("there is no such cluster")?;
                crate::namespaces::plant(&stamp.world, &cluster.uid, namespace);
            }
            ["namespaces", name] => self.namespaces(name).await?,
            ["policy", name, engine] => self.policy(name, engine).await?,
            ["policies", name] => self.policies(name).await?,
            ["ingress", name, reach] => self.ingress(name, reach).await?,
            ["gateways", name, installation] => self.gateways(name, installation).await?,
            ["routing", name] => self.routing(name).await?,
            ["channel", name, channel] => self.channel(name, channel).await?,
            ["window", name, configuration, day, time, hours] => {
                self.window(name, configuration, [day, time, hours]).await?;
            }
            ["image", version, build] => stamp.images.add(version, build),
            ["images", name] => self.images(name).await?,
            ["waits", name] => self.waits(name).await?,
            ["upgraded", name, version] => self.upgraded(name, version).await?,
            ["support", name, profile, days] => self.support(name, profile, days).await?,
            ["subscription", to @ ("off" | "on")] => self.subscription(to == "off").await?,
            ["deadlines", to @ ("act" | "tell")] => self.deadlines(to == "act").await?,
            ["told", name] => self.told(name).await?,
            ["by-policy", name] => self.by_policy(name).await?,
            ["archive", name] => self.archive(name).await?,
            ["hold", reason] => self.hold(Some(reason)).await?,
            ["go-on"] => self.hold(None).await?,
            ["lose-store"] => stamp.disk.become_as(&Records::new()).await?,
            ["save-store"] => self.saved = stamp.disk.all().await?,
            ["restore-store"] => stamp.disk.become_as(&self.saved).await?,
            ["copy-store"] => self.copied = (stamp.disk.copy().await?, self.asked.clone()),
            ["put-back-store"] => {
                stamp.disk.put_back(&self.copied.0).await?;
                // Later wishes are lost with the later state of the store.
                self.asked = self.copied.1.clone();
            }
            ["unknown"] => {
                for found in unknown::list(&*stamp.disk).await? {
                    let called = match found.labels.get("cluster-name") {
                        Some(cluster) => format!(" of {cluster}"),
                        None => String::new(),
                    };
                    let id = stamp.trace.told(&found.id);
                    self.out.push_str(&format!("{} {id}{called}\n", found.kind));
                }
            }
            ["may-go", kind] => {
                let kind: unknown::Kind = kind.parse().map_err(anyhow::Error::msg)?;
                for found in unknown::list(&*stamp.disk).await? {
                    if found.kind == kind {
                        let path = format!("providers/Landfall.ContainerService/unknown/{kind}.{}", found.id);
                        let answer = stamp.arm("DELETE", &path, None).await?;
                        self.out.push_str(&format!("{}\n", answer.status));
                    }
                }
            }
            ["heal"] => stamp.world.heal(),
            ["orphans"] => orphans(stamp),
            ["budgets", ref words @ ..] => stamp.budgets = budgets::of(words)?,
            ["reads", name, count] => self.reads(name, count.parse()?).await?,
            ["resync", seconds] => stamp.settings.resync = Duration::from_secs(seconds.parse()?),
            ["show", name] => self.show(name).await?,
            ["operations"] => self.operations().await?,
            ["trace"] => {
                for line in stamp.trace.take(&["call"]) {
                    let call = line.split_whitespace().nth(1).unwrap_or_default();
                    if !LOOKS.contains(&call) {
                        self.say(&line);
                    }
                }
            }
            ["world"] => {
                let dump = stamp.trace.told(&stamp.world.dump());
                self.say(dump.trim_end());
                for machine in self.stamp.world.machines() {
                    self.agent(&machine.id);
                }
            }
            ["commits"] => {
                for line in stamp.trace.take(&["commit"]) {
                    self.say(&line);
                }
            }
            ["records"] => {
                let (all, _) = stamp.disk.list("/").await?;
                let lines: Vec<String> = all.iter().map(|(key, _)| stamp.trace.told(key)).collect();
                for line in lines {
                    self.say(&line);
                }
            }
            _ => bail!("there is no such command"),
        }
        Ok(())
    }

    /// Sends a request and notes the state that is expected from now on.
    pub async fn ask(&mut self, wish: &Wish) -> Result<()> {
        let answer = self.stamp.ask(wish).await?;
        self.asked.heard(wish, &answer);
        if let Wish::Abort { cluster } = wish
            && !answer.refused()
        {
            let acknowledged = answer.accepted();
            self.asked.aborted(&self.stamp, cluster, acknowledged).await?;
        }
        let text = if answer.accepted() {
            format!("{}", answer.status)
        } else if answer.status == 0 {
            "no answer".to_owned()
        } else {
            format!("{} {}", answer.status, answer.error())
        };
        self.say(&text);
        Ok(())
    }

    async fn settle(&mut self) -> Result<()> {
        let begun = self.stamp.env.clock.monotonic();
        let mut problems = self.stamp.converge(BOUND).await?;
        let took = self.stamp.env.clock.monotonic() - begun;
        problems.extend(self.asked.check(&self.stamp).await?);
        ensure!(
            problems.is_empty(),
            "it does not settle: {problems:#?}\n{}\n{}",
            self.out,
            self.stamp.trace.tail(40).join("\n")
        );
        self.say(&format!("settled after {:.1} s", took.as_secs_f64()));
        Ok(())
    }

    /// The transcript so far.
    pub fn transcript(&self) -> &str {
        &self.out
    }
}

fn call(name: &str) -> Result<Call> {
    name.parse().map_err(anyhow::Error::msg)
}

/// The machines with this name.
pub(crate) async fn machines(stamp: &Stamp, name: &str) -> Result<Vec<MachineId>> {
    let records = stamp.machines().await?;
    let found: Vec<MachineId> = records
        .values()
        .filter(|machine| {
            let called = match machine.assignment.as_ref().map(|given| &given.role) {
                Some(Role::Node { node_name, .. }) => node_name.clone(),
                Some(Role::ControlPlane { index, .. }) => format!("control-plane-{index}"),
                None => return false,
            };
            called.starts_with(name) || called.ends_with(name)
        })
        .map(|machine| MachineId(machine.id.clone()))
        .collect();
    ensure!(!found.is_empty(), "no machine is called {name}");
    Ok(found)
}

fn orphans(stamp: &Stamp) {
    stamp.world.plant_machine(MachineSpec {
        id: MachineId("orphan0000".to_owned()),
        hostname: "orphan".to_owned(),
        image: "1.36.3".to_owned(),
        cpu_millis: 1000,
        memory_mib: 1024,
        disk_gib: None,
        nics: Vec::new(),
        seed_files: BTreeMap::new(),
        labels: BTreeMap::new(),
    });
    stamp.world.plant_network(NetworkSpec {
        id: NetworkId::from("orphan0001"),
        address_space: Vec::new(),
        subnets: Vec::new(),
        reserved: Vec::new(),
        routes: Vec::new(),
        uplink: std::net::Ipv4Addr::new(100, 64, 7, 250),
        balancers: Vec::new(),
        egress: None,
    });
}

impl std::fmt::Debug for Player {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = String::new();
        write!(text, "{} bytes of transcript", self.out.len())?;
        f.write_str(&text)
    }
}
