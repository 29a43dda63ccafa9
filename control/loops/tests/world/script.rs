//! Scenarios: a command file in, a transcript out; the difference to the golden transcript is the review.
//!
//! `scenarios/{name}.cmd` is played and compared with `scenarios/{name}.out`; with `BLESS=1` in the environment the
//! transcript is written instead. One command a line, `#` starts a comment:
//!
//! | command | does |
//! |---|---|
//! | `create C POOL=COUNT… [plugin=kubenet, azure, overlay, none]` | the PUT of a cluster |
//! | `pool C POOL COUNT` | the PUT of a pool: scales it, or adds it |
//! | `remake C POOL` | DELETE and PUT of a pool before anything happened |
//! | `drop C POOL` | the DELETE of a pool |
//! | `label C POOL KEY=VALUE` | the PUT of a pool with a label |
//! | `delete C` | the DELETE of a cluster |
//! | `settle` | waits until nothing is left to do, then checks that all is there once and nothing is left over |
//! | `wait SECONDS` | lets time pass |
//! | `fail CALL TIMES` | the next calls of a kind fail |
//! | `pods NODE COUNT` | pods of the nodes whose name ends so do not leave |
//! | `crash NAME` | the machine whose host name begins or ends so stops |
//! | `orphans` | puts a machine and a network there that belong to nobody |
//! | `resync SECONDS` | the resync period, for the next start |
//! | `start`, `stop`, `kill` | the service |
//! | `show C`, `operations`, `trace`, `records` | print |

use std::{fmt::Write as _, path::PathBuf, time::Duration};

use cluster_spec::PodNetworking;
use control_records::{MachineRecord, OperationRecord, Role};
use control_store::list_records;

use crate::stage::{Stage, pool};

const BOUND: Duration = Duration::from_secs(2 * 60 * 60);

pub struct Player {
    pub stage: Stage,
    out: String,
}

impl Player {
    pub fn new(seed: u64) -> Self {
        Self {
            stage: Stage::new(seed),
            out: String::new(),
        }
    }

    /// Plays a script; the transcript.
    pub async fn play(mut self, script: &str) -> String {
        for line in script.lines() {
            let line = line.trim_end();
            if line.is_empty() || line.starts_with('#') {
                let _ = writeln!(self.out, "{line}");
                continue;
            }
            let _ = writeln!(self.out, "> {line}");
            let words: Vec<_> = line.split_whitespace().collect();
            self.command(&words).await;
        }
        self.stage.stop().await;
        self.out
    }

    async fn command(&mut self, words: &[&str]) {
        let stage = &mut self.stage;
        match *words {
            ["start"] => stage.start(),
            ["stop"] => stage.stop().await,
            ["kill"] => stage.kill().await,
            ["create", name, ref rest @ ..] => create(stage, name, rest).await,
            ["pool", name, pool, count] => {
                stage
                    .request(name, "AgentPools_CreateOrUpdate", |cluster| {
                        let count = count.parse().unwrap();
                        match cluster.spec.pools.iter_mut().find(|spec| spec.name == pool) {
                            Some(spec) => spec.count = count,
                            None => cluster.spec.pools.push(crate::stage::pool(name, pool, count)),
                        }
                    })
                    .await;
            }
            ["remake", name, pool] => {
                stage
                    .request(name, "AgentPools_CreateOrUpdate", |cluster| {
                        let spec = cluster
                            .spec
                            .pools
                            .iter_mut()
                            .find(|spec| spec.name == pool)
                            .unwrap();
                        spec.incarnation.push_str("-again");
                    })
                    .await;
            }
            ["drop", name, pool] => {
                stage
                    .request(name, "AgentPools_Delete", |cluster| {
                        cluster.spec.pools.retain(|spec| spec.name != pool);
                    })
                    .await;
            }
            ["label", name, pool, label] => {
                let (key, value) = label.split_once('=').unwrap();
                stage
                    .request(name, "AgentPools_CreateOrUpdate", |cluster| {
                        let spec = cluster
                            .spec
                            .pools
                            .iter_mut()
                            .find(|spec| spec.name == pool)
                            .unwrap();
                        spec.labels.insert(key.to_owned(), value.to_owned());
                    })
                    .await;
            }
            ["delete", name] => {
                stage.delete(name).await;
            }
            ["settle"] => {
                let took = stage.settle(BOUND).await;
                stage.check().await;
                let _ = writeln!(self.out, "settled after {:.1} s", took.as_secs_f64());
            }
            ["wait", seconds] => {
                let clock = std::sync::Arc::clone(&stage.env.clock);
                clock.sleep(Duration::from_secs(seconds.parse().unwrap())).await;
            }
            ["fail", call, times] => stage.world.fail(call, times.parse().unwrap()),
            ["pods", node, count] => {
                for machine in stage
                    .world
                    .machines()
                    .values()
                    .filter(|machine| machine.hostname.ends_with(node))
                {
                    stage.world.stubborn(&machine.hostname, count.parse().unwrap());
                }
            }
            ["crash", name] => {
                for (id, machine) in stage.world.machines() {
                    if machine.hostname.starts_with(name) || machine.hostname.ends_with(name) {
                        stage.world.crash_machine(&id);
                    }
                }
            }
            ["resync", seconds] => stage.settings.resync = Duration::from_secs(seconds.parse().unwrap()),
            ["orphans"] => stage.world.plant_orphans(),
            ["show", name] => self.show(name).await,
            ["operations"] => self.operations().await,
            ["trace"] => {
                for line in self.stage.world.take_trace() {
                    let _ = writeln!(self.out, "{line}");
                }
            }
            ["records"] => {
                for (key, _) in self.stage.store.list("/").await.unwrap().0 {
                    let _ = writeln!(self.out, "{key}");
                }
            }
            _ => panic!("unknown command: {}", words.join(" ")),
        }
    }

    async fn show(&mut self, name: &str) {
        let Some(cluster) = self.stage.cluster(name).await else {
            let _ = writeln!(self.out, "there is no cluster {name}");
            return;
        };
        let observed = self.stage.observed(&cluster.uid).await;
        let out = &mut self.out;
        let _ = writeln!(
            out,
            "{name}: generation {} of {}, Kubernetes {}, ready nodes {:?}",
            observed.generation,
            cluster.generation,
            observed.kubernetes_version.as_deref().unwrap_or("-"),
            observed.ready_nodes
        );
        if !observed.step.is_empty() {
            let _ = writeln!(out, "  step: {}", observed.step);
        }
        if let Some(problem) = observed.problem {
            let _ = writeln!(out, "  problem: {problem}");
        }
        let (machines, _) = list_records::<MachineRecord>(&*self.stage.store, "/machines/")
            .await
            .unwrap();
        let mut lines: Vec<_> = machines
            .into_iter()
            .filter_map(|(_, machine)| {
                let assignment = machine
                    .value
                    .assignment
                    .filter(|given| given.cluster == cluster.uid)?;
                let going = if machine.value.deleting { ", to go" } else { "" };
                Some(match assignment.role {
                    Role::ControlPlane { index, .. } => format!("  control plane {index}{going}"),
                    Role::Node {
                        node_name,
                        address,
                        pod_range,
                        ..
                    } => {
                        let range = pod_range.map_or("-".to_owned(), |range| range.to_string());
                        format!("  {node_name} {address} pods {range}{going}")
                    }
                })
            })
            .collect();
        lines.sort();
        for line in lines {
            let _ = writeln!(out, "{line}");
        }
    }

    async fn operations(&mut self) {
        let (operations, _) = list_records::<OperationRecord>(&*self.stage.store, "/operations/")
            .await
            .unwrap();
        let mut operations: Vec<_> = operations
            .into_iter()
            .map(|(_, operation)| operation.value)
            .collect();
        operations.sort_by_key(|operation| (operation.started_at, operation.generation));
        for operation in operations {
            let took = operation.ended_at.map_or("-".to_owned(), |ended| {
                format!(
                    "{:.1} s",
                    ended.duration_since(operation.started_at).as_secs_f64()
                )
            });
            let _ = writeln!(self.out, "{} {:?} {took}", operation.name, operation.status);
            if let Some(error) = operation.error {
                let _ = writeln!(self.out, "  {}: {}", error.code, error.message);
            }
        }
    }
}

async fn create(stage: &Stage, name: &str, rest: &[&str]) {
    stage
        .request(name, "ManagedClusters_CreateOrUpdate", |cluster| {
            for word in rest {
                match word.split_once('=').unwrap() {
                    ("plugin", plugin) => {
                        let network = &mut cluster.spec.network;
                        network.plugin = match plugin {
                            "kubenet" => PodNetworking::Kubenet,
                            "azure" => PodNetworking::AzureFlat,
                            "overlay" => PodNetworking::AzureOverlay,
                            "none" => PodNetworking::None,
                            other => panic!("unknown plugin {other}"),
                        };
                        if matches!(network.plugin, PodNetworking::AzureFlat | PodNetworking::None) {
                            network.pod_range = None;
                        }
                    }
                    (pool_name, count) => {
                        cluster
                            .spec
                            .pools
                            .push(pool(name, pool_name, count.parse().unwrap()));
                    }
                }
            }
        })
        .await;
}

fn scenarios() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../scenarios")
}

/// In a runtime of its own, as `#[tokio::test(start_paused = true)]` makes one.
fn play(script: &str, seed: u64) -> String {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(async { Player::new(seed).play(script).await })
}

#[test]
fn scenarios_go_as_their_transcripts_say() {
    let bless = std::env::var_os("BLESS").is_some();
    let mut scripts: Vec<_> = std::fs::read_dir(scenarios())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "cmd"))
        .collect();
    scripts.sort();
    assert!(!scripts.is_empty(), "there are no scenarios");
    let mut different = Vec::new();
    for path in scripts {
        let script = std::fs::read_to_string(&path).unwrap();
        let transcript = play(&script, 1);
        assert_eq!(
            transcript,
            play(&script, 1),
            "{path:?}: the same seed gives the same trace"
        );
        let golden = path.with_extension("out");
        if bless {
            std::fs::write(&golden, &transcript).unwrap();
        } else if std::fs::read_to_string(&golden).unwrap_or_default() != transcript {
            println!("--- {golden:?} would now be:\n{transcript}");
            different.push(golden);
        }
    }
    assert!(
        different.is_empty(),
        "{different:?} differ; look at the difference, and if it is right run again with BLESS=1"
    );
}

#[test]
fn another_seed_gives_other_names_and_ends_the_same() {
    let script = "start\ncreate c1 np1=2\nfail ensure-machine 3\nsettle\ndelete c1\nsettle\nrecords\n";
    let (one, other) = (play(script, 1), play(script, 2));
    assert_ne!(one, other);
    for transcript in [one, other] {
        let left: Vec<_> = transcript
            .lines()
            .rev()
            .take_while(|line| line.starts_with('/'))
            .collect();
        assert!(
            left.iter()
                .all(|key| key.starts_with("/operations/") || key.ends_with("/rg")),
            "{left:?}"
        );
    }
}
