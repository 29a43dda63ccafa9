//! Traffic that leaves and enters a stamp, on a host with forwarding.
//!
//! The host is a network namespace, and so is the outside: the test runs itself again inside the first. No
//! packet reaches a real network.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may panic, and says why it was skipped"
)]
#![expect(dead_code, reason = "shares its stand with the tests that need all of it")]

mod stand;

use std::process::Command;

use fabric_api::{Fabric, Uplink};

use stand::{SERVICE_PORT, Stand, machine, network, on_stamp, on_subnet};

/// Set in the inner run: the name of the outside's namespace.
const OUTSIDE: &str = "LANDFALL_TEST_OUTSIDE";

/// An address of the outside, reachable only by the host's default route.
const FAR: &str = "203.0.113.9";

/// The address of cloud metadata services, with the credentials of a host.
const METADATA: &str = "169.254.169.254";

/// An address in one of the host's own networks.
const LAN: &str = "192.168.77.2";

/// The host's own addresses.
const HOST: [&str; 2] = ["198.51.100.1", "192.168.77.1"];

/// A port of the host that machines must not reach.
const PRIVATE_PORT: u16 = 2222;

#[test]
fn only_a_stamp_with_an_uplink_reaches_the_outside() {
    if !stand::possible() {
        return;
    }
    match std::env::var(OUTSIDE) {
        Ok(outside) => tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(inside(&outside)),
        Err(_) => in_a_world_of_its_own(),
    }
}

/// Namespaces, removed on drop.
struct Namespaces(Vec<String>);

impl Drop for Namespaces {
    fn drop(&mut self) {
        for name in &self.0 {
            run(&["ip", "netns", "delete", name]);
        }
    }
}

fn in_a_world_of_its_own() {
    let id = base_env::Ids::short(&base_env::SystemIds);
    let (host, outside) = (format!("lft-{id}-host"), format!("lft-{id}-outside"));
    let _namespaces = Namespaces(vec![host.clone(), outside.clone()]);
    for (space, line) in [
        (None, format!("netns add {host}")),
        (None, format!("netns add {outside}")),
        (
            Some(&host),
            format!("link add out0 type veth peer name in0 netns {outside}"),
        ),
        (
            Some(&host),
            format!("link add lan0 type veth peer name lan1 netns {outside}"),
        ),
        (Some(&host), "address add 192.168.77.1/24 dev lan0".into()),
        (Some(&host), "link set lan0 up".into()),
        (Some(&outside), format!("address add {LAN}/24 dev lan1")),
        (Some(&outside), "address add 192.168.77.3/24 dev lan1".into()),
        (Some(&outside), "link set lan1 up".into()),
        (Some(&outside), format!("address add {METADATA}/32 dev lo")),
        (Some(&host), "address add 198.51.100.1/24 dev out0".into()),
        (Some(&host), "link set out0 up".into()),
        (Some(&host), "link set lo up".into()),
        (Some(&outside), "address add 198.51.100.2/24 dev in0".into()),
        (Some(&outside), format!("address add {FAR}/32 dev lo")),
        (Some(&outside), "link set in0 up".into()),
        (Some(&outside), "link set lo up".into()),
        (Some(&host), "route add default via 198.51.100.2".into()),
        // The outside has a route to every stamp: the stamps' rules must block it.
        (Some(&outside), "route add 100.64.0.0/10 via 198.51.100.1".into()),
    ] {
        let mut argv = vec!["ip"];
        argv.extend(space.iter().flat_map(|space| ["-n", space.as_str()]));
        argv.extend(line.split(' '));
        assert!(run(&argv), "{argv:?}");
    }
    let enter = format!("--net=/run/netns/{host}");
    assert!(run(&[
        "nsenter",
        &enter,
        "sh",
        "-c",
        "echo 0 >/proc/sys/net/ipv4/ip_forward"
    ]));
    let status = Command::new("nsenter")
        .arg(&enter)
        .arg(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "only_a_stamp_with_an_uplink_reaches_the_outside",
            "--nocapture",
        ])
        .env(OUTSIDE, &outside)
        .status()
        .unwrap();
    assert!(status.success(), "the run inside failed");
}

async fn inside(outside: &str) {
    let open = Stand::with_uplink("open", Uplink::Host).await;
    let other = Stand::with_uplink("other", Uplink::Host).await;
    let closed = Stand::new("closed").await;
    for stand in [&open, &other, &closed] {
        stand
            .fabric
            .ensure_network(&network(stand, "na", 10))
            .await
            .unwrap();
        stand
            .fabric
            .ensure_machine(&machine("m", vec![on_stamp(stand, 20, Some(200))]))
            .await
            .unwrap();
        stand
            .fabric
            .ensure_machine(&machine("a1", vec![on_subnet("na", "10.224.0.4")]))
            .await
            .unwrap();
    }
    let from_outside = async |stand: &Stand, number: u32| {
        let address = stand.address(number).to_string();
        let enter = format!("--net=/run/netns/{outside}");
        stand
            .succeeds(&["nsenter", &enter, "/bin/busybox", "ping", "-c1", "-W1", &address])
            .await
    };

    for stand in [&open, &other] {
        assert!(stand.pings("m", FAR).await, "out, translated by the host");
        assert!(
            stand.pings("a1", FAR).await,
            "out, translated by the VNET and by the host"
        );
        assert!(
            from_outside(stand, 200).await,
            "a VIP, for whoever has a route to it"
        );
        assert!(!from_outside(stand, 1).await, "the service");
        assert!(!from_outside(stand, 20).await, "a machine");
        assert!(!from_outside(stand, 10).await, "an uplink");
    }
    // Of the host, machines reach one port; of its networks, only what the operator has allowed.
    for port in [SERVICE_PORT, PRIVATE_PORT] {
        let listener = std::net::TcpListener::bind(("0.0.0.0", port)).unwrap();
        // Ends with the process. Connections are closed at once.
        std::thread::spawn(move || listener.incoming().for_each(drop));
    }
    let near = [METADATA, LAN, "192.168.77.3", HOST[0], HOST[1]].map(str::to_owned);
    for stand in [&open, &closed] {
        let service = stand.network.gateway().to_string();
        for id in ["m", "a1"] {
            assert!(stand.answering(id, &near).await.is_empty(), "{id}");
            assert!(stand.connects(id, &service, SERVICE_PORT).await, "{id}");
            for address in [service.as_str(), HOST[0], HOST[1]] {
                assert!(!stand.connects(id, address, PRIVATE_PORT).await, "{id} {address}");
            }
            for address in HOST {
                assert!(!stand.connects(id, address, SERVICE_PORT).await, "{id} {address}");
            }
        }
    }
    let mut config = open.config();
    config.uplink_allow = vec![
        format!("{LAN}/32").parse().unwrap(),
        format!("{}/32", HOST[1]).parse().unwrap(),
    ];
    let allowing = fabric_container::ContainerFabric::new(open.env.clone(), config).unwrap();
    allowing.ensure_stamp().await.unwrap();
    for id in ["m", "a1"] {
        assert_eq!(open.answering(id, &near).await.len(), 2, "{id}");
        assert!(open.pings(id, LAN).await, "{id}");
        assert!(open.connects(id, HOST[1], PRIVATE_PORT).await, "{id}");
        assert!(!open.connects(id, HOST[0], PRIVATE_PORT).await, "{id}");
    }
    open.fabric.ensure_stamp().await.unwrap();
    assert!(!open.pings("m", LAN).await, "and not any more");

    // Nothing leaves a stamp without an uplink, not even to the host's other addresses; only the service
    // answers.
    let service = closed.network.gateway().to_string();
    let tried = [FAR.to_owned(), "198.51.100.1".into(), service.clone()];
    for id in ["m", "a1"] {
        assert_eq!(closed.answering(id, &tried).await, [service.as_str()], "{id}");
    }
    assert!(!from_outside(&closed, 200).await, "and nothing comes in");

    for (from, to) in [(&open, &other), (&open, &closed), (&closed, &open)] {
        // The service, a VNET's uplink, a machine and its VIP.
        let theirs: Vec<String> = [1, 10, 20, 200]
            .map(|number| to.address(number).to_string())
            .into();
        let own = from.network.gateway().to_string();
        let tried: Vec<String> = theirs.into_iter().chain([own.clone()]).collect();
        for id in ["m", "a1"] {
            assert_eq!(
                from.answering(id, &tried).await,
                [own.as_str()],
                "{id} and another stamp"
            );
        }
    }
    let forwarding = || std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap();
    // Forwarding stays on as long as a link may need it, here the veth pair to the outside.
    for stand in [&open, &other, &closed] {
        assert_eq!(forwarding(), "1\n");
        stand.close().await;
    }
    assert_eq!(forwarding(), "1\n");
    for cable in ["out0", "lan0"] {
        open.host(&["ip", "link", "delete", cable]).await;
    }
    let last = Stand::with_uplink("last", Uplink::Host).await;
    last.close().await;
    assert_eq!(forwarding(), "0\n", "it was off before the first stamp");
}

fn run(argv: &[&str]) -> bool {
    Command::new(argv[0])
        .args(&argv[1..])
        .output()
        .is_ok_and(|output| output.status.success())
}
