//! Real firewall rulesets, each in a network namespace that represents the host.

#![expect(clippy::unwrap_used, reason = "all of this is test code, helpers included")]

use std::{
    process::{Command, Stdio},
    thread,
};

use base_env::Env;
use base_testkit::needs;
use fabric_api::{StampNetwork, Uplink};
use fabric_net::Names;
use fabric_probe::{Outcome, Path, Probe};
use nix::sched::{CloneFlags, unshare};

const STAMP: &str = "probe";

/// Runs a test in a new network namespace of its thread.
fn on_a_host(test: impl FnOnce() + Send + 'static) {
    if !needs::root_and(&["ip", "nft"]) {
        return;
    }
    let host = thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        sh("ip link set lo up; echo 1 > /proc/sys/net/ipv4/ip_forward");
        test();
        let links = sh("ip -o link show");
        assert!(!links.contains("lf"), "left: {links}");
        let tables = sh("nft list tables");
        assert!(!tables.contains("landfall"), "left: {tables}");
    });
    host.join().unwrap();
}

fn sh(script: &str) -> String {
    let output = Command::new("sh")
        .args(["-ec", script])
        .env(
            "PATH",
            format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap()),
        )
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{script}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

fn nft(rules: &str) {
    sh(&format!("nft -f - <<'END'\n{rules}\nEND\n"));
}

fn probe() -> Outcome {
    let network = StampNetwork {
        range: "100.64.16.0/20".parse().unwrap(),
        uplink: Uplink::Host,
    };
    Probe::new(STAMP, network, &[]).run(&Env::system()).unwrap()
}

/// The closed paths with their culprits; then applies each remedy, and checks that everything is open.
fn closed_and_mended() -> Vec<(Path, String)> {
    let outcome = probe();
    let found = outcome
        .blocked
        .iter()
        .map(|blocked| {
            let culprit = blocked.culprit.as_ref();
            (blocked.path, culprit.map_or("nobody".into(), ToString::to_string))
        })
        .collect();
    for blocked in &outcome.blocked {
        if let Some(remedy) = &blocked.remedy {
            sh(remedy);
        }
    }
    let again = probe();
    assert!(again.blocked.is_empty(), "after the remedy: {:?}", again.blocked);
    found
}

#[test]
fn a_host_without_a_firewall_is_open() {
    on_a_host(|| {
        let outcome = probe();
        assert_eq!(
            outcome.tried,
            [
                Path::MachineToService,
                Path::MachineToVip,
                Path::HostToVip,
                Path::MachineToOutside
            ]
        );
        assert!(outcome.blocked.is_empty(), "{:?}", outcome.blocked);
    });
}

/// The host keeps hardware addresses of its neighbours for half a minute.
#[test]
fn a_network_that_is_up_can_be_tried_again_at_once() {
    on_a_host(|| {
        let bridge = Names::new(STAMP).bridge();
        sh(&format!(
            "ip link add {bridge} type bridge && ip address add 100.64.16.1/20 dev {bridge} && ip link set {bridge} up"
        ));
        for _ in 0..2 {
            let outcome = probe();
            assert!(outcome.blocked.is_empty(), "{:?}", outcome.blocked);
        }
        sh(&format!("ip link delete {bridge}"));
    });
}

#[test]
fn a_default_deny_input_chain_is_named() {
    on_a_host(|| {
        nft(
            "table inet fw {\nchain in {\ntype filter hook input priority 0; policy drop;\n\
             ct state established,related accept\niif lo accept\ntcp dport 22 accept\n}\n}",
        );
        assert_eq!(
            closed_and_mended(),
            [(
                Path::MachineToService,
                "table inet fw, chain in: policy drop".to_owned()
            )]
        );
    });
}

#[test]
fn tailscale_drops_the_range_also_in_answers() {
    on_a_host(|| {
        nft(
            "table ip ts {\nchain sub {\nip saddr 100.64.0.0/10 iifname != \"tailscale0\" drop\n}\n\
             chain in {\ntype filter hook input priority 0; policy accept;\njump sub\n}\n}",
        );
        let rule =
            "table ip ts, chain sub (from chain in): ip saddr 100.64.0.0/10 iifname != \"tailscale0\" drop";
        assert_eq!(
            closed_and_mended(),
            [
                (Path::MachineToService, rule.to_owned()),
                (Path::HostToVip, rule.to_owned())
            ]
        );
    });
}

#[test]
fn docker_closes_the_way_out_and_with_br_netfilter_the_bridge() {
    const SWITCH: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";
    on_a_host(|| {
        let bridged = std::path::Path::new(SWITCH).exists();
        if bridged {
            std::fs::write(SWITCH, "0").unwrap();
        }
        let forward = "table ip d {\nchain f {\ntype filter hook forward priority 0; policy drop;\n}\n}";
        nft(forward);
        let said = "table ip d, chain f: policy drop".to_owned();
        assert_eq!(closed_and_mended(), [(Path::MachineToOutside, said.clone())]);
        if bridged {
            std::fs::write(SWITCH, "1").unwrap();
            nft(&format!("delete table ip d\n{forward}"));
            assert_eq!(
                closed_and_mended(),
                [(Path::MachineToVip, said.clone()), (Path::MachineToOutside, said)]
            );
        }
    });
}
