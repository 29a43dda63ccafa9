//! The driver on a real host: real namespaces, bridges, rules, control groups and `runc`, with a node image of one program (busybox) and a
//! shell script for an agent.
//!
//! Runs on hosts with root, `runc`, `nft`, `ip` and a static busybox; otherwise the tests are skipped. Every
//! stamp has its own name and ranges and no uplink, so that runs do not interfere.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may panic, and says what it measured"
)]

mod balancers;
mod containment;
mod disks;
mod filters;
#[path = "../stand/mod.rs"]
mod stand;
mod volumes;

use std::{sync::Arc, time::Duration};

use fabric_api::{Fabric, FabricError, MachineId, NetworkId, Power, RouteSpec};
use fabric_net::Names;

use stand::{Stand, machine, network, on_stamp, on_subnet, wait};

/// One runtime for all: the tests share one host.
fn run(name: &str, test: impl AsyncFnOnce(&Stand)) {
    if !stand::possible() {
        return;
    }
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(async {
            let stand = Stand::new(name).await;
            test(&stand).await;
            stand.close().await;
        });
}

#[test]
fn machines_reach_their_own_network_and_no_other() {
    run("reach", async |stand| {
        let fabric = &stand.fabric;
        // Two VNETs with the same addresses.
        for (id, uplink) in [("na", 10), ("nb", 11)] {
            fabric.ensure_network(&network(stand, id, uplink)).await.unwrap();
        }
        let specs = [
            machine("a1", vec![on_subnet("na", "10.224.0.4")]),
            machine("a2", vec![on_subnet("na", "10.224.0.5")]),
            machine("b1", vec![on_subnet("nb", "10.224.0.4")]),
            machine(
                "cp",
                vec![on_stamp(stand, 20, Some(200)), {
                    let mut card = on_subnet("na", "10.239.0.4");
                    card.name = "eth1".into();
                    card.gateway = None;
                    card.routes = vec![RouteSpec {
                        to: "10.224.0.0/16".parse().unwrap(),
                        via: "10.239.0.1".parse().unwrap(),
                    }];
                    card
                }],
            ),
        ];
        let clock = &stand.env.clock;
        let before = clock.monotonic();
        let mut starts = tokio::task::JoinSet::new();
        for spec in specs.clone() {
            let fabric = fabric.clone();
            starts.spawn(async move { fabric.ensure_machine(&spec).await });
        }
        while let Some(result) = starts.join_next().await {
            result.unwrap().unwrap();
        }
        println!("4 machines at once: {:?}", clock.monotonic() - before);

        let gateway = stand.network.gateway().to_string();
        let vip = stand.address(200).to_string();
        assert!(stand.pings("a1", "10.224.0.5").await, "within the subnet");
        assert!(stand.pings("a1", "10.239.0.4").await, "between subnets");
        assert!(stand.pings("a1", &gateway).await, "the service, by translation");
        assert!(
            stand.pings("b1", &gateway).await,
            "the service, from the other VNET"
        );
        assert!(stand.pings("b1", &vip).await, "the VIP, from another VNET");
        assert!(
            stand.pings("cp", "10.224.0.4").await,
            "a node from the control plane"
        );
        assert!(stand.host_pings(&vip).await, "the VIP, from the host");
        // 10.224.0.5 exists in the other VNET only.
        assert!(!stand.pings("b1", "10.224.0.5").await, "the other VNET");
        assert!(
            !stand.pings("b1", &stand.address(10).to_string()).await,
            "the other VNET's uplink forwards nothing"
        );
        // These addresses are unused, and packets to them must not leave by the default route.
        let names = Names::new(&stand.stamp);
        let inside = names.network_namespace(&NetworkId::from("na"));
        for nobody in ["10.230.0.1", "10.244.9.9"] {
            assert!(
                !stand
                    .succeeds(&["ip", "-n", &inside, "route", "get", nobody])
                    .await,
                "{nobody}"
            );
        }
        assert!(
            stand
                .succeeds(&["ip", "-n", &inside, "route", "get", "192.0.2.2"])
                .await
        );
        assert!(!stand.pings("a1", "192.0.2.2").await, "the host's other address");
        assert!(!stand.connects("a1", &gateway, 22).await, "a port of the host");

        // The machine matches its specification.
        assert_eq!(stand.output("a1", "hostname").await.trim(), "host-a1");
        assert_eq!(
            stand.output("a1", "cat /etc/landfall/seed.json").await.trim(),
            "seed of a1"
        );
        assert_eq!(
            stand
                .output("a1", "stat -c %a /etc/landfall/seed.json")
                .await
                .trim(),
            "600"
        );
        // Each machine has its own agent file. Its root may undo the mount's read-only flag and write there:
        // no other machine sees it.
        let program = "/opt/landfall/agent/landfall-agent";
        let write = "echo x >/opt/landfall/agent/x || echo read-only";
        assert!(stand.output("a1", write).await.contains("read-only"));
        let remount = format!(
            "mount -o remount,bind,rw /opt/landfall/agent; echo evil >{program}.new; cp {program}.new {program}"
        );
        stand.output("a1", &remount).await;
        for other in ["a2", "b1", "cp"] {
            let seen = stand
                .output(other, &format!("cat {program}; ls /opt/landfall/agent"))
                .await;
            assert_eq!(seen, format!("{}landfall-agent\n", stand::AGENT), "{other}");
        }
        // Another release writes its agent into all running machines, whatever one of them has written there.
        let mut config = stand.config();
        config.agent = format!("{}# another\n", stand::AGENT).into_bytes().into();
        let next = fabric_container::ContainerFabric::new(stand.env.clone(), config.clone()).unwrap();
        next.ensure_stamp().await.unwrap();
        let text = String::from_utf8(config.agent.into_owned()).unwrap();
        for machine in ["a1", "a2", "b1", "cp"] {
            assert_eq!(stand.output(machine, &format!("cat {program}")).await, text);
        }
        // As a node does at its start; mounts of its pods stay inside.
        let share =
            "mount --make-rshared / && mount -t tmpfs inner /var/lib/kubelet && cat /proc/1/mountinfo";
        let mounts = stand.output("a1", share).await;
        for place in [" / / ", " /var/lib/kubelet ", " /run "] {
            let line = mounts
                .lines()
                .rfind(|line| line.contains(place))
                .unwrap_or("none");
            assert!(line.contains(" shared:"), "{place}: {mounts}");
        }
        assert!(mounts.contains("- tmpfs inner"), "{mounts}");
        assert!(
            stand
                .output("a1", "cat /etc/hosts")
                .await
                .contains("10.224.0.4 host-a1")
        );
        assert!(
            !stand
                .output("a1", "cat /etc/resolv.conf")
                .await
                .contains("nameserver")
        );
        assert_eq!(
            stand
                .output("a1", "cat /proc/sys/net/ipv4/ip_forward")
                .await
                .trim(),
            "1"
        );
        assert_eq!(
            stand
                .output("a1", "mkdir -p /sys/fs/cgroup/memory/x /sys/fs/cgroup/x; echo $?")
                .await
                .lines()
                .last(),
            Some("0")
        );
        let limit = stand
            .output(
                "a1",
                "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null",
            )
            .await;
        assert!(limit.contains(&(64 << 20).to_string()), "{limit}");
        // It may change the limits that it sees; the effective ones are outside its view.
        let group = Names::new(&stand.stamp).machine_cgroup(&MachineId::from("a1"));
        let lift = "for f in memory/memory.limit_in_bytes memory.max pids/pids.max pids.max; do \
                    [ -e /sys/fs/cgroup/$f ] && (echo max > /sys/fs/cgroup/$f || echo -1 > /sys/fs/cgroup/$f); done 2>/dev/null; \
                    cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max 2>/dev/null";
        assert_eq!(stand.output("a1", lift).await.trim(), "max");
        let held = ["memory", "pids", "."].map(|hierarchy| {
            let place = std::path::Path::new("/sys/fs/cgroup")
                .join(hierarchy)
                .join(group.trim_start_matches('/'));
            ["memory.limit_in_bytes", "memory.max", "pids.max"]
                .map(|file| std::fs::read_to_string(place.join(file)).unwrap_or_default())
                .concat()
        });
        let held = held.concat();
        let held: Vec<&str> = held.split_whitespace().collect();
        assert_eq!(held, [(64 << 20).to_string().as_str(), "16384"]);
        // No mount is visible on the host.
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(
            !mounts.contains(&stand.state_dir().display().to_string()),
            "{mounts}"
        );
    });
}

#[test]
fn a_network_follows_its_specification() {
    run("follow", async |stand| {
        let fabric = &stand.fabric;
        let mut spec = network(stand, "na", 10);
        spec.routes = vec![RouteSpec {
            to: "10.244.0.0/24".parse().unwrap(),
            via: "10.224.0.4".parse().unwrap(),
        }];
        fabric.ensure_network(&spec).await.unwrap();
        fabric
            .ensure_machine(&machine("a1", vec![on_subnet("na", "10.224.0.4")]))
            .await
            .unwrap();
        fabric
            .ensure_machine(&machine("a2", vec![on_subnet("na", "10.224.0.5")]))
            .await
            .unwrap();
        stand.output("a1", "ip address add 10.244.0.9/32 dev lo").await;
        assert!(stand.pings("a2", "10.244.0.9").await, "by the route table");
        // The same specification changes nothing, and interrupts no connection.
        fabric.ensure_network(&spec).await.unwrap();
        assert!(stand.pings("a2", "10.244.0.9").await);
        spec.routes.clear();
        fabric.ensure_network(&spec).await.unwrap();
        assert!(
            !stand.pings("a2", "10.244.0.9").await,
            "the route is gone, the range unreachable"
        );
        assert!(stand.pings("a2", "10.224.0.4").await, "the rest is as it was");
        let gone = spec.subnets.pop().unwrap();
        fabric.ensure_network(&spec).await.unwrap();
        assert!(!stand.pings("a2", &gone.gateway.to_string()).await);
        spec.subnets.push(gone.clone());
        fabric.ensure_network(&spec).await.unwrap();
        assert!(stand.pings("a2", &gone.gateway.to_string()).await);
    });
}

#[test]
fn two_stamps_do_not_see_each_other() {
    run("stampa", async |a| {
        let b = Stand::new("stampb").await;
        for stand in [a, &b] {
            stand
                .fabric
                .ensure_machine(&machine("m", vec![on_stamp(stand, 20, None)]))
                .await
                .unwrap();
        }
        for (from, to) in [(a, &b), (&b, a)] {
            let own = from.network.gateway().to_string();
            let tried = [
                own.clone(),
                to.network.gateway().to_string(),
                to.address(20).to_string(),
            ];
            assert_eq!(from.answering("m", &tried).await, [own.as_str()]);
        }
        for stand in [a, &b] {
            let inventory = stand.fabric.list().await.unwrap();
            assert_eq!(inventory.machines.len(), 1);
        }
        b.close().await;
        assert!(
            a.pings("m", &a.network.gateway().to_string()).await,
            "the end of one is not the end of the other"
        );
    });
}

#[test]
fn what_was_cut_short_is_found_and_finished() {
    run("cut", async |stand| {
        let fabric = &stand.fabric;
        let names = Names::new(&stand.stamp);
        let spec = machine("m", vec![on_stamp(stand, 20, None)]);
        let id = &spec.id;
        let power = || async {
            fabric
                .list()
                .await
                .unwrap()
                .machines
                .first()
                .map(|machine| machine.power)
        };

        // A namespace without a machine, a control group without a machine, a directory without a disk.
        let space = names.machine_namespace(id);
        stand.host(&["ip", "netns", "add", &space]).await;
        assert_eq!(power().await, Some(Power::Partial));
        fabric.delete_machine(id).await.unwrap();
        assert_eq!(power().await, None);
        let group = std::path::PathBuf::from("/sys/fs/cgroup/memory");
        let group = if group.exists() {
            group
        } else {
            "/sys/fs/cgroup".into()
        };
        std::fs::create_dir_all(
            group
                .join(names.machine_cgroup(id).trim_start_matches('/'))
                .join("deep/er"),
        )
        .unwrap();
        assert_eq!(power().await, Some(Power::Partial));
        fabric.delete_machine(id).await.unwrap();
        assert_eq!(power().await, None);

        // A creation interrupted after the first file; and a name without a namespace.
        std::fs::create_dir_all(stand.machine_dir("m").join("upper/etc")).unwrap();
        std::fs::write(stand.machine_dir("m").join("upper/etc/half"), "").unwrap();
        assert_eq!(power().await, Some(Power::Partial));
        std::fs::write(format!("/run/netns/{space}"), "").unwrap();
        // It has no disk to start on.
        let refused = fabric.start_machine(&spec).await.unwrap_err();
        assert!(matches!(refused, FabricError::NoDisk(_)), "{refused}");
        assert_eq!(power().await, Some(Power::Partial));
        fabric.ensure_machine(&spec).await.unwrap();
        assert_eq!(power().await, Some(Power::Running));
        assert!(!stand.output("m", "ls /etc").await.contains("half"));

        // A deletion interrupted while the machine runs: it does not count as a healthy machine.
        std::fs::write(stand.machine_dir("m").join("condemned"), "").unwrap();
        assert_eq!(power().await, Some(Power::Partial));
        let pid = stand.pid("m").await;
        fabric.ensure_machine(&spec).await.unwrap();
        assert_ne!(stand.pid("m").await, pid);

        // Runtime state lost under a running machine: it is killed by its control group, not started twice.
        let pid = stand.pid("m").await;
        std::fs::remove_dir_all(stand.run_dir().join("runc")).unwrap();
        fabric.ensure_machine(&spec).await.unwrap();
        assert_ne!(stand.pid("m").await, pid);
        // The process that adopted it may take a moment to reap it.
        wait(
            stand,
            "the old machine to be dead",
            async || match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
                Ok(stat) if !stat.contains(") Z ") => Err(stat),
                _ => Ok(()),
            },
        )
        .await;

        // A caller that goes away does not leave half a machine.
        let other = machine("gone", vec![on_stamp(stand, 21, None)]);
        let impatient = stand
            .env
            .clock
            .timeout(Duration::from_millis(1), fabric.ensure_machine(&other))
            .await;
        assert!(impatient.is_err(), "a machine does not start in a millisecond");
        fabric.delete_machine(&other.id).await.unwrap();
        assert_eq!(fabric.list().await.unwrap().machines.len(), 1);
    });
}

#[test]
fn errors_say_what_is_wrong() {
    run("errors", async |stand| {
        let fabric = &stand.fabric;
        let mut spec = machine("m", vec![on_subnet("nowhere", "10.224.0.4")]);
        assert!(
            matches!(fabric.ensure_machine(&spec).await, Err(FabricError::NotFound(what)) if what == "network nowhere")
        );
        // Nothing was started, but a directory exists: it is listed, so that it can be swept.
        let seen = &fabric.list().await.unwrap().machines[0];
        assert_eq!(seen.power, Power::Stopped);
        fabric.delete_machine(&spec.id).await.unwrap();
        spec.image = "9.9.9".into();
        assert!(
            matches!(fabric.ensure_machine(&spec).await, Err(FabricError::NoImage { version, .. }) if version == "9.9.9")
        );
        assert!(matches!(
            fabric.stop_machine(&MachineId::from("none")).await,
            Err(FabricError::NotFound(_))
        ));
        fabric.delete_machine(&MachineId::from("none")).await.unwrap();
        fabric.delete_network(&NetworkId::from("none")).await.unwrap();
        fabric.delete_machine(&spec.id).await.unwrap();

        // An image without a directory for the agent: runc's error is returned, and nothing is left that
        // would break the next attempt.
        let in_the_way = stand.layer().join("opt");
        std::fs::write(&in_the_way, "").unwrap();
        let spec = machine("m", vec![on_stamp(stand, 20, None)]);
        let error = fabric.ensure_machine(&spec).await.unwrap_err().to_string();
        assert!(
            error.contains("start machine m") && error.contains("/opt/landfall/agent"),
            "{error}"
        );
        std::fs::remove_file(&in_the_way).unwrap();
        fabric.ensure_machine(&spec).await.unwrap();
        assert!(stand.pings("m", &stand.network.gateway().to_string()).await);
        let _: Arc<dyn Fabric> = Arc::new(fabric.clone());
    });
}
