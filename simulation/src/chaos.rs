//! Chaos: random requests, faults, deaths and broken machines; then a time without faults, in which all
//! clusters must reach their desired state.

use std::{net::Ipv4Addr, time::Duration};

use anyhow::Result;
use base_env::Seed;
use cluster_versions::PINNED;
use control_records::ClusterRecord;
use fabric_api::MachineId;
use fabric_sim::{Ailment, Call, Cure, Planted, PlantedClaim};
use serde::Serialize;

use crate::{CONTROL_PLANE, Weather, Wish, panics, run, script::Player};

/// The time limit of convergence without faults.
const BOUND: Duration = Duration::from_secs(60 * 60);
/// Lines of the trace that a failure shows.
pub const TAIL: usize = 60;

/// How a seed went.
#[derive(Debug, Clone, Serialize)]
pub struct Ended {
    /// The seed.
    pub seed: u64,
    /// Number of events: commits, calls, responses.
    pub events: u64,
    /// Virtual seconds it lasted.
    pub seconds: f64,
    /// The hash of its trace.
    pub hash: String,
    /// Failed checks.
    pub problems: Vec<String>,
    /// The requests, and the end of the trace, if a check failed.
    pub tail: Vec<String>,
}

/// Draws, one after the other.
struct Dice {
    seed: Seed,
    next: u64,
}

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.next += 1;
        self.seed.draw(self.next) % sides.max(1)
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> Option<T> {
        let at = self.roll(from.len() as u64);
        from.get(usize::try_from(at).ok()?).cloned()
    }
}

/// Plays a seed; after a failure, gives the last `tail` lines of the trace.
pub fn play(seed: u64, tail: usize) -> Result<Ended> {
    run(async || {
        let mut player = Player::new(seed).await?;
        let mut dice = Dice {
            seed: Seed::new(seed).child("chaos"),
            next: 0,
        };
        let mut log = Vec::new();
        player.command("start").await?;
        let begun = player.stamp.env.clock.monotonic();
        for _ in 0..5 + dice.roll(25) {
            let what = event(&mut player, &mut dice).await?;
            let at = player.stamp.env.clock.monotonic().as_secs_f64();
            log.push(format!("{at:>9.3}s > {what}"));
        }
        let mut problems = peace(&mut player).await?;
        let seconds = (player.stamp.env.clock.monotonic() - begun).as_secs_f64();
        let (events, hash) = (player.stamp.trace.count(), player.stamp.trace.hash());
        player.stamp.stop().await?;
        problems.extend(panics::take());
        if problems.is_empty() {
            log.clear();
        } else {
            log.push("…".to_owned());
            log.extend(player.stamp.trace.tail(tail));
            let members = player.stamp.trace.told(&player.stamp.world.dump_control_planes());
            log.extend(members.lines().map(str::to_owned));
        }
        Ok(Ended {
            seed,
            events,
            seconds,
            hash,
            problems,
            tail: log,
        })
    })
}

/// Lifts every fault; all clusters reach their desired state, and the next request works.
async fn peace(player: &mut Player) -> Result<Vec<String>> {
    player.stamp.steps.lift();
    player.stamp.world.heal();
    if !player.stamp.started() {
        player.stamp.start()?;
    }
    player.stamp.revive().await?;
    let mut problems = player.stamp.converge(BOUND).await?;
    problems.extend(player.asked.check(&player.stamp).await?);
    if !problems.is_empty() {
        return Ok(problems);
    }
    player.command("create c9 np1=1").await?;
    problems.extend(player.stamp.converge(BOUND).await?);
    problems.extend(player.asked.check(&player.stamp).await?);
    Ok(problems)
}

async fn event(player: &mut Player, dice: &mut Dice) -> Result<String> {
    Ok(match dice.roll(100) {
        0..40 => {
            let wish = wish(player, dice).await?;
            player.ask(&wish).await?;
            let answer = player.transcript().lines().last().unwrap_or_default();
            format!("{wish:?}: {answer}")
        }
        40..65 => {
            // Mostly short times, sometimes longer than any time limit.
            let most = [800, 5_000, 60_000, 1_500_000];
            let millis = dice.pick(&most).map_or(0, |most| dice.roll(most));
            player.stamp.wait(Duration::from_millis(millis)).await?;
            format!("{millis} ms pass")
        }
        65..72 => {
            let points = 1 + dice.roll(150);
            player.stamp.steps.die_in(points);
            format!("the service will die in {points} points")
        }
        72..75 => {
            player.stamp.kill().await?;
            player
                .stamp
                .wait(Duration::from_millis(dice.roll(30_000)))
                .await?;
            player.stamp.start()?;
            "killed and started".to_owned()
        }
        75..77 => {
            player.stamp.stop().await?;
            player.stamp.start()?;
            "stopped and started".to_owned()
        }
        77..82 => {
            let weather = Weather {
                calls: [0.0, 0.05, 0.3][dice.roll(3) as usize],
                commits: [0.0, 0.02, 0.2][dice.roll(3) as usize],
                slow: [0.0, 0.0, 0.02][dice.roll(3) as usize],
            };
            player.stamp.steps.weather(weather);
            format!("{weather:?}")
        }
        82..86 => {
            let call = dice.pick(Call::ALL).unwrap_or(Call::List);
            let times = 1 + dice.roll(6) as u32;
            if dice.roll(2) == 0 {
                player.stamp.world.fail_next(call, times);
            } else {
                player.stamp.world.lose_answer(call, times);
            }
            format!("{call} fails {times} times")
        }
        86..95 => machine(player, dice).await?,
        95..98 => cluster(player, dice).await?,
        _ => claims(player, dice).await?,
    })
}

/// A step of an upgrade of a control plane with a way back.
fn soak(record: &ClusterRecord, cluster: String, dice: &mut Dice) -> Wish {
    let newest = PINNED.last().copied().unwrap_or_default();
    match &record.state.decided().soak {
        Some(soak) if soak.from != record.spec().kubernetes_version && dice.roll(2) == 0 => Wish::RollBack {
            cluster,
            version: soak.from.clone(),
        },
        Some(soak) if soak.from != record.spec().kubernetes_version => Wish::Finalize { cluster },
        _ => Wish::Soak {
            cluster,
            version: newest.to_owned(),
        },
    }
}

async fn wish(player: &Player, dice: &mut Dice) -> Result<Wish> {
    let cluster = format!("c{}", dice.roll(3));
    let record = player.stamp.cluster(&cluster).await?;
    let Some(record) = record else {
        let plugins = [None, Some("azure"), Some("overlay"), Some("none")];
        let mut pools = vec![("np1".to_owned(), 1 + dice.roll(3) as u32)];
        if dice.roll(3) == 0 {
            pools.push(("np2".to_owned(), dice.roll(3) as u32));
        }
        return Ok(Wish::Create {
            cluster,
            pools,
            plugin: dice.pick(&plugins).flatten().map(str::to_owned),
            tier: (dice.roll(3) == 0).then(|| "Standard".to_owned()),
        });
    };
    let pools: Vec<String> = record.spec().pools.iter().map(|pool| pool.name.clone()).collect();
    let pool = dice.pick(&pools).unwrap_or_else(|| "np1".to_owned());
    // A stopped cluster accepts hardly any other request.
    if record.spec().stopped && dice.roll(3) > 0 {
        return Ok(Wish::Power {
            cluster,
            stopped: false,
        });
    }
    Ok(match dice.roll(30) {
        0..8 => Wish::Pool {
            cluster,
            pool,
            count: dice.roll(5) as u32,
        },
        8..11 => Wish::Pool {
            cluster,
            pool: format!("np{}", 1 + dice.roll(3)),
            count: dice.roll(3) as u32,
        },
        11..13 => Wish::Drop { cluster, pool },
        13 => Wish::Label {
            cluster,
            pool,
            label: ("team".to_owned(), format!("t{}", dice.roll(3))),
        },
        14 => Wish::Taint {
            cluster,
            pool,
            taint: format!("k{}=v:NoSchedule", dice.roll(2)),
        },
        15 => Wish::Tier {
            cluster,
            tier: dice
                .pick(&["Free", "Standard", "Premium"])
                .unwrap_or("Free")
                .to_owned(),
        },
        16 => Wish::Abort { cluster },
        17 if dice.roll(4) == 0 => Wish::DeleteGroup,
        18 | 19 => Wish::Restore {
            cluster,
            ago: dice.roll(60) as u32,
            new: (dice.roll(4) == 0).then(|| format!("c{}", dice.roll(3))),
        },
        20 | 21 => Wish::Upgrade {
            cluster,
            version: dice.pick(PINNED).unwrap_or_default().to_owned(),
            only: match dice.roll(4) {
                0 => Some(CONTROL_PLANE.to_owned()),
                1 => Some(pool),
                _ => None,
            },
        },
        22 | 23 => Wish::Power {
            cluster,
            stopped: dice.roll(4) > 0,
        },
        26 => soak(&record, cluster, dice),
        27 => Wish::PoolBack {
            version: record
                .state
                .pools()
                .iter()
                .find(|own| own.spec().name == pool)
                .and_then(|own| Some(own.decided().last.as_ref()?.kubernetes_version.clone()))
                .unwrap_or_else(|| "1.36.3".to_owned()),
            cluster,
            pool,
        },
        24 | 25 => Wish::Rotate {
            cluster,
            keys: dice.roll(3) == 0,
        },
        _ => Wish::Delete { cluster },
    })
}

async fn machine(player: &Player, dice: &mut Dice) -> Result<String> {
    let records = player.stamp.machines().await?;
    let ids: Vec<String> = records.into_values().map(|machine| machine.id).collect();
    let Some(id) = dice.pick(&ids) else {
        return Ok("no machine to break".to_owned());
    };
    let machine = MachineId(id.clone());
    let called = player.stamp.trace.told(&id);
    let world = &player.stamp.world;
    Ok(match dice.roll(6) {
        5 => {
            world.fail_boots(1);
            "the next machine does not come up".to_owned()
        }
        0 => format!("{called} stops: {}", world.crash(&machine)),
        1 => format!("{called} vanishes: {}", world.vanish(&machine)),
        _ => {
            let ailments = [
                Ailment::Silent,
                Ailment::Hangs,
                Ailment::NotReady,
                Ailment::DiskFull,
                Ailment::Ends("kubelet".to_owned()),
                Ailment::Ends("kube-apiserver".to_owned()),
                Ailment::Deaf("containerd".to_owned()),
                Ailment::Deaf("etcd".to_owned()),
            ];
            let cures = [Cure::Process, Cure::Reboot, Cure::Reimage, Cure::Replace];
            let (Some(ailment), Some(cure)) = (dice.pick(&ailments), dice.pick(&cures)) else {
                return Ok(String::new());
            };
            let text = format!("{called} {ailment} until {cure:?}");
            world.ail(&machine, ailment, cure);
            text
        }
    })
}

async fn cluster(player: &mut Player, dice: &mut Dice) -> Result<String> {
    let clusters = player.stamp.clusters().await?;
    let clusters: Vec<_> = clusters.into_values().collect();
    let Some(cluster) = dice.pick(&clusters) else {
        return Ok("no cluster to break".to_owned());
    };
    let roll = dice.roll(9);
    if roll >= 6 {
        return Ok(service(player, dice, &cluster.uid, &cluster.name));
    }
    if roll >= 3 {
        return credential(player, dice, &cluster.name).await;
    }
    let world = &player.stamp.world;
    Ok(match roll {
        0 => {
            world.stall_api(&cluster.uid, true);
            format!("the API of {} stalls", cluster.name)
        }
        1 => {
            world.stall_api(&cluster.uid, false);
            format!("the API of {} answers", cluster.name)
        }
        _ => {
            world.touch_cluster(&cluster.uid);
            format!("something happens in {}", cluster.name)
        }
    })
}

/// A Service of type LoadBalancer comes, changes or goes.
fn service(player: &Player, dice: &mut Dice, uid: &str, cluster: &str) -> String {
    let name = format!("s{}", dice.roll(4));
    let world = &player.stamp.world;
    if dice.roll(3) == 0 {
        let there = world.remove_service(uid, &name);
        return format!("the Service {name} of {cluster} is deleted: {there}");
    }
    let mut service = Planted {
        name,
        ports: vec![80, 443],
        local: dice.roll(3) == 0,
        ..Planted::default()
    };
    service.ports.truncate(1 + usize::from(dice.roll(2) == 0));
    if dice.roll(3) == 0 {
        let internal = "service.beta.kubernetes.io/azure-load-balancer-internal";
        service.annotations.insert(internal.to_owned(), "true".to_owned());
    } else if dice.roll(3) == 0 {
        // Few of them, so that several Services of several clusters request the same.
        let network = player.stamp.world.vips();
        let last = u32::from(network.network()) + 10 + u32::try_from(dice.roll(3)).unwrap_or_default();
        service.address = Some(Ipv4Addr::from(last).to_string());
    }
    world.plant_service(uid, &service);
    format!("a Service comes to {cluster}: {service:?}")
}

/// Claims of a cluster come, are used, move, grow, are left or go.
async fn claims(player: &Player, dice: &mut Dice) -> Result<String> {
    let clusters = player.stamp.clusters().await?;
    let clusters: Vec<_> = clusters.into_values().collect();
    let Some(cluster) = dice.pick(&clusters) else {
        return Ok("no cluster for a claim".to_owned());
    };
    let mut told = Vec::new();
    for _ in 0..1 + dice.roll(3) {
        told.push(claim(player, dice, &cluster.uid));
    }
    Ok(format!("{}: {}", cluster.name, told.join("; ")))
}

fn claim(player: &Player, dice: &mut Dice, uid: &str) -> String {
    let world = &player.stamp.world;
    let name = format!("v{}", dice.roll(3));
    let mut planted = PlantedClaim {
        name: name.clone(),
        gib: 1 + dice.roll(3),
        ..PlantedClaim::default()
    };
    // One of the three names is for a share.
    if name == "v2" {
        planted.class = "azurefile-csi".to_owned();
        planted.access_modes = vec!["ReadWriteMany".to_owned()];
    }
    let nodes: Vec<String> = world.nodes(uid).into_iter().map(|node| node.name).collect();
    let node = dice.pick(&nodes);
    let fresh = world.plant_claim(uid, &planted);
    let act = dice.roll(8);
    let done = match act {
        // Most of them are used at once.
        _ if fresh && act > 0 => world.use_claim(uid, &name, node.as_deref()),
        _ if fresh => true,
        0..4 => world.use_claim(uid, &name, node.as_deref()),
        4 => world.leave_claim(uid, &name),
        5 => world.grow_claim(uid, &name, 4 + dice.roll(4)),
        // It is kept while it is used.
        6 => world.remove_claim(uid, &name),
        _ => world.leave_claim(uid, &name) | world.remove_claim(uid, &name),
    };
    // With an expansion, a snapshot is taken, or the earlier one is removed.
    if act == 5 {
        let snapshot = format!("of-{name}");
        let _either = world.remove_snapshot(uid, &snapshot) || world.plant_snapshot(uid, &snapshot, &name);
    }
    let node = node.map_or_else(|| "-".to_owned(), |node| player.stamp.trace.told(&node));
    format!(
        "claim {name}, {}, {act} on {node}: {done}",
        if fresh { "new" } else { "there" }
    )
}

/// A credential is handed out, or one is taken back.
async fn credential(player: &mut Player, dice: &mut Dice, cluster: &str) -> Result<String> {
    let known = player.credentials(cluster).await?;
    let good = known.iter().any(|(record, _)| record.revoked.is_none());
    let line = if good && dice.roll(2) == 0 {
        format!("revoke {cluster}")
    } else {
        let kind = dice.pick(&["Admin", "User", "MonitoringUser"]).unwrap_or("Admin");
        format!("credential {cluster} {kind}")
    };
    player.command(&line).await?;
    let answer = player.transcript().lines().last().unwrap_or_default();
    Ok(format!("{line}: {answer}"))
}
