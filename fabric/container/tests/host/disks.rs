//! Persistent state of machines: their disks, their metadata, and disks that are set aside at a reset.

use fabric_api::{Fabric as _, KeptDisk, Power};

use crate::{
    run,
    stand::{machine, on_stamp, wait},
};

#[test]
fn a_machine_keeps_its_disk_until_it_is_deleted() {
    run("disk", async |stand| {
        let fabric = &stand.fabric;
        let mut spec = machine("m", vec![on_stamp(stand, 20, None)]);
        let before = stand.env.clock.monotonic();
        fabric.ensure_machine(&spec).await.unwrap();
        println!("1 machine: {:?}", stand.env.clock.monotonic() - before);
        let seen = || async { fabric.list().await.unwrap().machines.remove(0) };
        let first = seen().await;
        assert_eq!(first.power, Power::Running);
        assert_eq!(first.spec_hash, Some(fabric_net::spec_hash(&spec)));
        stand
            .output(
                "m",
                "echo kept > /root.txt; echo kept > /var/lib/etcd/db; rm /etc/landfall/seed.json",
            )
            .await;
        let pid = stand.pid("m").await;
        fabric.ensure_machine(&spec).await.unwrap();
        assert_eq!(stand.pid("m").await, pid, "what runs is left alone");
        spec.labels.insert("cluster".into(), "c1".into());
        fabric.ensure_machine(&spec).await.unwrap();
        assert_eq!(seen().await.labels["cluster"], "c1");

        // In order: the agent's trap writes this.
        fabric.stop_machine(&spec.id).await.unwrap();
        assert_eq!(seen().await.power, Power::Stopped);
        assert!(stand.console("m").contains("asked to stop"));
        fabric.stop_machine(&spec.id).await.unwrap();
        fabric.ensure_machine(&spec).await.unwrap();
        assert_eq!(
            stand.output("m", "cat /root.txt /var/lib/etcd/db").await,
            "kept\nkept\n"
        );
        assert!(
            !stand.output("m", "ls /etc/landfall").await.contains("seed"),
            "seeds are put in once"
        );

        // Killed from outside.
        stand.kill("m").await;
        wait(stand, "the machine to be seen as stopped", async || {
            match seen().await.power {
                Power::Stopped => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
        fabric.ensure_machine(&spec).await.unwrap();
        assert!(stand.pings("m", &stand.network.gateway().to_string()).await);

        // As after a reboot: everything that is not on disk is gone.
        fabric.stop_stamp().await.unwrap();
        stand.nothing_but_disks().await;
        assert_eq!(seen().await.power, Power::Stopped);
        fabric.ensure_stamp().await.unwrap();
        fabric.ensure_machine(&spec).await.unwrap();
        assert_eq!(stand.output("m", "cat /root.txt").await, "kept\n");

        fabric.delete_machine(&spec.id).await.unwrap();
        fabric.delete_machine(&spec.id).await.unwrap();
        assert!(fabric.list().await.unwrap().machines.is_empty());
        fabric.ensure_machine(&spec).await.unwrap();
        assert_eq!(
            stand.output("m", "cat /root.txt /etc/landfall/seed.json").await,
            "seed of m\n"
        );
    });
}

#[test]
fn a_machine_that_fills_its_disk_harms_nobody_else() {
    run("full", async |stand| {
        if let Err(why) = fabric_container::disk_limits_possible() {
            base_testkit::needs::skipped(why);
            return;
        }
        let fabric = &stand.fabric;
        let mut spec = machine("m", vec![on_stamp(stand, 20, None)]);
        spec.disk_gib = Some(1);
        fabric.ensure_machine(&spec).await.unwrap();
        assert_eq!(
            stand.output("m", "cat /etc/landfall/seed.json").await,
            "seed of m\n"
        );
        assert!(stand.output("m", "cat /etc/hosts").await.contains("host-m"));
        // All writable directories are on one filesystem of the requested size.
        let size = "for d in / /var/lib/containerd /var/lib/kubelet /var/lib/etcd /var/log; do stat -f -c '%b %S' $d; done";
        for line in stand.output("m", size).await.lines() {
            let (blocks, block) = line.split_once(' ').unwrap();
            let mib = (blocks.parse::<u64>().unwrap() * block.parse::<u64>().unwrap()) >> 20;
            assert!((850..=1024).contains(&mib), "{mib} MiB");
        }
        let fill = "dd if=/dev/zero of=/var/log/big bs=1M count=2000 2>&1; echo kept > /root.txt; rm /var/log/big; echo kept > /root.txt";
        assert!(
            stand.output("m", fill).await.contains("No space left"),
            "it is bounded"
        );
        stand
            .output("m", "mkdir /var/lib/kubelet/x; rm /etc/landfall/seed.json; sync")
            .await;
        // Everything is there after a restart, at once, and again.
        for _ in 0..3 {
            fabric.stop_machine(&spec.id).await.unwrap();
            fabric.ensure_machine(&spec).await.unwrap();
            assert_eq!(
                stand.output("m", "cat /root.txt; ls /var/lib/kubelet").await,
                "kept\nx\n"
            );
        }
        assert!(!stand.output("m", "ls /etc/landfall").await.contains("seed"));
        stand.kill("m").await;
        wait(
            stand,
            "the machine to be seen as stopped",
            async || match fabric.list().await.unwrap().machines[0].power {
                Power::Stopped => Ok(()),
                other => Err(format!("{other:?}")),
            },
        )
        .await;
        fabric.ensure_machine(&spec).await.unwrap();
        assert_eq!(stand.output("m", "cat /root.txt").await, "kept\n");
        // Space of deleted files is returned to the host.
        let file = stand.machine_dir("m").join("disk.img");
        stand
            .output(
                "m",
                "dd if=/dev/zero of=/var/log/big bs=1M count=500; sync; rm /var/log/big; sync",
            )
            .await;
        wait(stand, "the host to have its room back", async || {
            let blocks = std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(&file).unwrap());
            match blocks / 2048 {
                taken @ 200.. => Err(format!("{taken} MiB")),
                _ => Ok(()),
            }
        })
        .await;
        // A new disk is empty.
        fabric.reset_machine(&spec.id).await.unwrap();
        fabric.ensure_machine(&spec).await.unwrap();
        assert_eq!(
            stand.output("m", "cat /root.txt /etc/landfall/seed.json").await,
            "seed of m\n"
        );
    });
}

#[test]
fn damaged_metadata_costs_a_machine_nothing() {
    run("torn", async |stand| {
        let fabric = &stand.fabric;
        let mut spec = machine("m", vec![on_stamp(stand, 20, None)]);
        spec.labels.insert("cluster".into(), "c1".into());
        let id = &spec.id;
        fabric.ensure_machine(&spec).await.unwrap();
        stand.output("m", "echo kept > /var/lib/etcd/db").await;
        let seen = || async { fabric.list().await.unwrap().machines.remove(0) };
        let file = |name: &str| stand.machine_dir("m").join(name);
        let pid = stand.pid("m").await;

        // Emptied, torn, or gone, while the machine runs: the machine stays, and the file is written again.
        for damage in ["", "{\"v\":1,\"ha", "gone"] {
            std::fs::write(file("spec.json"), damage).unwrap();
            if damage == "gone" {
                std::fs::remove_file(file("spec.json")).unwrap();
                std::fs::remove_file(file("ready")).unwrap();
            }
            let found = seen().await;
            assert_eq!((found.power, found.spec_hash), (Power::Running, None), "{damage}");
            fabric.ensure_machine(&spec).await.unwrap();
            let found = seen().await;
            assert_eq!(found.spec_hash, Some(fabric_net::spec_hash(&spec)));
            assert_eq!(found.labels["cluster"], "c1");
            assert_eq!(stand.pid("m").await, pid, "{damage}");
        }
        // Also while it is stopped.
        fabric.stop_machine(id).await.unwrap();
        std::fs::write(file("spec.json"), "").unwrap();
        std::fs::remove_file(file("ready")).unwrap();
        assert_eq!(seen().await.power, Power::Stopped);
        fabric.ensure_machine(&spec).await.unwrap();
        assert_eq!(stand.output("m", "cat /var/lib/etcd/db").await, "kept\n");
        assert!(stand.pings("m", &stand.network.gateway().to_string()).await);
        // With its network in place it can be stopped and started with the remaining files.
        std::fs::write(file("spec.json"), "").unwrap();
        fabric.stop_machine(id).await.unwrap();
        fabric.ensure_machine(&spec).await.unwrap();
        assert_eq!(stand.output("m", "cat /var/lib/etcd/db").await, "kept\n");
    });
}

#[test]
fn a_disk_with_a_database_is_kept_when_its_machine_is_made_anew() {
    run("kept", async |stand| {
        let fabric = &stand.fabric;
        let spec = machine("m", vec![on_stamp(stand, 20, None)]);
        let id = &spec.id;
        let kept = || async { fabric.list().await.unwrap().kept_disks };
        let disk = |number| KeptDisk {
            machine: id.clone(),
            number,
        };
        let db = |name: &str| stand.state_dir().join("kept").join(name).join("etcd/db");
        // A node has none: nothing is kept of it.
        fabric.ensure_machine(&spec).await.unwrap();
        fabric.reset_machine(id).await.unwrap();
        assert!(fabric.list().await.unwrap().machines.is_empty());
        assert_eq!(kept().await, []);

        for (number, round) in [(1, "first"), (2, "second"), (3, "third")] {
            fabric.ensure_machine(&spec).await.unwrap();
            assert_eq!(stand.output("m", "ls /var/lib/etcd").await, "", "a new disk");
            stand
                .output("m", &format!("echo {round} > /var/lib/etcd/db"))
                .await;
            fabric.reset_machine(id).await.unwrap();
            fabric.reset_machine(id).await.unwrap();
            assert!(fabric.list().await.unwrap().machines.is_empty());
            let all: Vec<KeptDisk> = (1..=number).map(disk).collect();
            assert_eq!(kept().await, all);
        }
        // Each is let go alone, and what is left has its place for itself.
        for _ in 0..2 {
            fabric.delete_kept_disk(&disk(2)).await.unwrap();
        }
        assert_eq!(kept().await, [disk(1), disk(3)]);
        for (name, content) in [("m", "first\n"), ("m.3", "third\n")] {
            assert_eq!(std::fs::read_to_string(db(name)).unwrap(), content);
        }

        // A deletion of the machine includes the kept disk.
        fabric.ensure_machine(&spec).await.unwrap();
        stand.output("m", "echo fourth > /var/lib/etcd/db").await;
        fabric.reset_machine(id).await.unwrap();
        assert_eq!(kept().await, [disk(1), disk(3), disk(4)]);
        fabric.ensure_machine(&spec).await.unwrap();
        fabric.delete_machine(id).await.unwrap();
        assert_eq!(kept().await, []);
        assert!(!db("m").exists());
    });
}
