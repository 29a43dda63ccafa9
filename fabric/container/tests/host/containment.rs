//! What machines cannot do: send as another one, reach closed ports, use the host's devices and settings.

use fabric_api::{CONTROL_PLANE, Fabric as _, NicSpec, ROLE_LABEL, RouteSpec, Sending};
use ipnet::Ipv4Net;

use crate::{
    run,
    stand::{Stand, machine, network, on_stamp, on_subnet, wait},
};

fn sends(card: NicSpec, from: &[&str], serves: Option<Vec<u16>>) -> NicSpec {
    let from: Vec<Ipv4Net> = from.iter().map(|text| text.parse().unwrap()).collect();
    NicSpec {
        sending: Some(Sending { from, serves }),
        ..card
    }
}

/// Whether a machine gets an answer to a ping that it sends from this address, which it has on `lo`.
async fn answered(stand: &Stand, id: &str, from: &str, to: &str) -> bool {
    let command = format!(
        "ip address add {from}/32 dev lo 2>/dev/null; ping -c1 -W1 -I {from} {to} >/dev/null 2>&1 && echo yes"
    );
    stand.output(id, &command).await.trim() == "yes"
}

#[test]
fn a_machine_sends_from_its_own_addresses_only() {
    run("sends", async |stand: &Stand| {
        let fabric = &stand.fabric;
        let mut spec = network(stand, "na", 10);
        spec.routes = vec![RouteSpec {
            to: "10.244.0.0/24".parse().unwrap(),
            via: "10.224.0.4".parse().unwrap(),
        }];
        fabric.ensure_network(&spec).await.unwrap();
        let own = |address: &str, from: &[&str]| sends(on_subnet("na", address), from, None);
        for spec in [
            machine("a1", vec![own("10.224.0.4", &["10.244.0.0/24"])]),
            machine("a2", vec![own("10.224.0.5", &[])]),
            machine("a3", vec![own("10.224.0.6", &["0.0.0.0/0"])]),
            // Made by an earlier release.
            machine("a4", vec![on_subnet("na", "10.224.0.7")]),
        ] {
            fabric.ensure_machine(&spec).await.unwrap();
        }
        // Twice: the rules follow the specification again, and are the same.
        for _ in 0..2 {
            for from in ["a1", "a3", "a4"] {
                assert!(stand.pings(from, "10.224.0.5").await, "{from}");
            }
            assert!(
                answered(stand, "a1", "10.244.0.9", "10.224.0.5").await,
                "from one of its pods"
            );
            // The neighbour would answer for the address, and get the reply.
            assert!(
                !answered(stand, "a1", "10.224.0.9", "10.224.0.5").await,
                "from an address of the subnet"
            );
            assert!(
                !answered(stand, "a2", "10.224.0.10", "10.224.0.1").await,
                "to the router"
            );
            assert!(
                !answered(stand, "a3", "10.224.0.11", "10.224.0.5").await,
                "where pods may have any address but the network's"
            );
            assert!(
                answered(stand, "a4", "10.224.0.12", "10.224.0.5").await,
                "nothing is known about it"
            );
            fabric.ensure_network(&spec).await.unwrap();
        }
        stand
            .output("a4", "ip link set eth0 address 0a:6c:0a:e0:00:05")
            .await;
        assert!(
            !stand.pings("a4", "10.224.0.1").await,
            "under another hardware address"
        );
        assert!(stand.pings("a2", "10.224.0.1").await, "whose owner goes on");
    });
}

#[test]
fn a_control_plane_is_reached_at_its_port_and_opens_no_connections_in_the_stamp() {
    run("serves", async |stand: &Stand| {
        let fabric = &stand.fabric;
        let mut spec = network(stand, "na", 10);
        spec.subnets[1].serves = Some(vec![443]);
        fabric.ensure_network(&spec).await.unwrap();
        let member = |id: &str, number: u32, inside: &str| {
            let mut card = sends(on_subnet("na", inside), &[], None);
            card.name = "eth1".into();
            card.gateway = None;
            card.routes = vec![RouteSpec {
                to: "10.224.0.0/16".parse().unwrap(),
                via: "10.239.0.1".parse().unwrap(),
            }];
            let outside = sends(on_stamp(stand, number, None), &[], Some(vec![443]));
            let mut spec = machine(id, vec![outside, card]);
            spec.labels
                .insert(ROLE_LABEL.to_owned(), CONTROL_PLANE.to_owned());
            spec
        };
        let node = machine("a1", vec![sends(on_subnet("na", "10.224.0.4"), &[], None)]);
        let machines = [
            member("cp", 20, "10.239.0.4"),
            member("b1", 21, "10.239.0.5"),
            node,
        ];
        for spec in &machines {
            fabric.ensure_machine(spec).await.unwrap();
        }
        for id in ["cp", "b1", "a1"] {
            let listen = "for port in 443 2379; do (while :; do /bin/busybox nc -l -p $port; done) </dev/null >/dev/null 2>&1 & done";
            stand.output(id, listen).await;
        }
        wait(stand, "the servers", async || {
            for (from, to) in [("b1", "10.239.0.4"), ("cp", "10.239.0.5"), ("cp", "10.224.0.4")] {
                for port in [443, 2379] {
                    if !stand.connects(from, to, port).await {
                        return Err(format!("{to} does not listen at {port}"));
                    }
                }
            }
            Ok(())
        })
        .await;
        let (one, other) = (stand.address(20).to_string(), stand.address(21).to_string());
        assert!(
            stand.connects("a1", "10.239.0.4", 443).await,
            "its API, from a node"
        );
        assert!(
            !stand.connects("a1", "10.239.0.4", 2379).await,
            "its etcd, from a node"
        );
        assert!(!stand.pings("a1", "10.239.0.4").await, "anything else");
        assert!(
            stand.connects("a1", &one, 443).await,
            "its API, by the stamp's network"
        );
        let from_host = format!("/bin/busybox nc -w1 {other} 443 </dev/null");
        assert!(
            stand.succeeds(&["/bin/busybox", "sh", "-c", &from_host]).await,
            "from the host"
        );
        assert!(
            !stand.connects("cp", &other, 443).await,
            "another control plane, from one"
        );
        let gateway = stand.network.gateway().to_string();
        assert!(stand.pings("cp", &gateway).await, "the service");
    });
}

/// What is printed could be done.
const FORBIDDEN: &str = "b=/bin/busybox
    refused() { $b grep -q 'not permitted'; }
    $b mknod /dev/disk b 8 0; dd if=/dev/disk of=/dev/null count=1 2>&1 | refused || echo disk
    $b mknod /dev/log c 1 11; dd if=/dev/log of=/dev/null count=1 2>&1 | refused || echo log
    $b dmesg 2>&1 | refused || echo dmesg
    for file in kernel/core_pattern vm/panic_on_oom fs/file-max; do (: >> /proc/sys/$file) 2>/dev/null && echo $file; done
    (: >> /proc/sysrq-trigger) 2>/dev/null && echo sysrq
    $b insmod $b 2>&1 | refused || echo insmod
    $b swapon $b 2>&1 | refused || echo swapon
    cat /dev/kmsg /proc/kmsg";

/// What a node does to make containers: each line prints its name if that works.
const CONTAINERS: &str = "exec 2>/dev/null; mount -t tmpfs none /tmp && echo mount
    /bin/busybox unshare -m /bin/busybox true && echo namespaces
    mkdir -p /sys/fs/cgroup/pids/x /sys/fs/cgroup/x && echo groups
    (: >> /proc/sys/net/ipv4/ip_forward) && echo sysctl
    /bin/busybox mknod /dev/one b 7 0 && dd if=/dev/one of=/dev/null count=1 && echo loop";

#[test]
fn profiles_hold_in_a_machine_that_runs() {
    run("profile", async |stand: &Stand| {
        for (id, role) in [("a1", "node"), ("cp", CONTROL_PLANE)] {
            let mut spec = machine(id, Vec::new());
            spec.labels.insert(ROLE_LABEL.to_owned(), role.to_owned());
            stand.fabric.ensure_machine(&spec).await.unwrap();
        }
        // Where this host has no loop device, there is none to be opened.
        let loops = std::path::Path::new("/sys/block/loop0").exists();
        let made = "mount\nnamespaces\ngroups\nsysctl\n";
        let made = if loops {
            format!("{made}loop\n")
        } else {
            made.to_owned()
        };
        assert_eq!(stand.output("a1", CONTAINERS).await, made);
        assert_eq!(stand.output("cp", CONTAINERS).await, "");
        assert_eq!(stand.output("a1", FORBIDDEN).await, "");
        // It makes no nodes of devices, so that there is none to be refused.
        assert_eq!(stand.output("cp", FORBIDDEN).await, "disk\nlog\n");
        let forwards = stand.output("cp", "cat /proc/sys/net/ipv4/ip_forward").await;
        assert_eq!(forwards.trim(), "0");
        let status = stand.output("cp", "cat /proc/self/status").await;
        for line in ["NoNewPrivs:\t1", "Seccomp:\t2"] {
            assert!(status.contains(line), "{line}: {status}");
        }
    });
}
