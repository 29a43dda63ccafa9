//! Features of the kernel, each tested by a script that needs it, in separate namespaces.
//!
//! Always true: a feature names the programs that its script runs; if one of them is missing the feature is
//! not tested, and not reported as missing. `up` installs the programs and then tests the remaining features.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use super::check::Check;
use crate::{host, packages};

const NAME: &str = "kernel";

/// A kernel feature, as a script that needs it. Runs as root in separate network and mount namespaces.
struct Feature {
    name: &'static str,
    /// The programs of the script, besides those of every Debian.
    programs: &'static [&'static str],
    script: &'static str,
    /// The kernel option to enable.
    config: &'static str,
}

const FEATURES: &[Feature] = &[
    Feature {
        name: "namespaces",
        programs: &["unshare"],
        script: "true",
        config: "CONFIG_NET_NS, CONFIG_PID_NS, CONFIG_UTS_NS and CONFIG_IPC_NS",
    },
    Feature {
        name: "bridges",
        programs: &["unshare", "ip"],
        script: "ip link add b0 type bridge && ip link set b0 up",
        config: "CONFIG_BRIDGE (module bridge)",
    },
    Feature {
        name: "virtual links",
        programs: &["unshare", "ip"],
        script: "ip link add v0 type veth peer name v1 && ip link set v0 up",
        config: "CONFIG_VETH (module veth)",
    },
    Feature {
        name: "unreachable routes",
        programs: &["unshare", "ip"],
        script: "ip link set lo up && ip route add unreachable 100.127.240.0/20 metric 4278198272",
        config: "CONFIG_IP_ADVANCED_ROUTER",
    },
    Feature {
        name: "nftables address translation",
        programs: &["unshare", "nft"],
        script: "printf '%s\\n' 'table ip t { chain c { type nat hook postrouting priority srcnat; masquerade; }; }' | nft -f -",
        config: "CONFIG_NF_TABLES, CONFIG_NFT_NAT and CONFIG_NFT_MASQ",
    },
    Feature {
        name: "nftables service balancing",
        programs: &["unshare", "nft"],
        script: "printf '%s\\n' 'table ip t { map m { type inet_service : verdict; }; set s { type ipv4_addr; flags dynamic,timeout; timeout 60s; }; \
                 chain x { }; chain c { type nat hook prerouting priority dstnat; fib daddr type local tcp dport vmap @m; \
                 numgen random mod 2 vmap { 0 : goto x, 1 : goto x }; }; }' | nft -f -",
        config: "CONFIG_NFT_FIB_IPV4, CONFIG_NFT_NUMGEN and CONFIG_NF_CONNTRACK (kube-proxy needs them)",
    },
    Feature {
        name: "nftables on bridges",
        programs: &["unshare", "nft"],
        script: "printf '%s\\n' 'table bridge t { chain m { ether saddr != 0a:6c:00:00:00:01 drop; arp saddr ip != 192.0.2.1 drop; ip saddr != 192.0.2.1 drop; }; \
                 chain c { type filter hook prerouting priority -300; iifname vmap { \"p\" : goto m }; }; }' | nft -f -",
        config: "CONFIG_NF_TABLES_BRIDGE (what machines may send is filtered where they are attached)",
    },
    Feature {
        name: "overlay file systems",
        programs: &["unshare", "mount"],
        script: "d=$(mktemp -d) && trap 'rmdir \"$d\"' EXIT && mount -t tmpfs none \"$d\" && mkdir \"$d/l\" \"$d/u\" \"$d/w\" \"$d/m\" && \
                 mount -t overlay overlay -o \"lowerdir=$d/l,upperdir=$d/u,workdir=$d/w\" \"$d/m\" && umount \"$d/m\" && umount \"$d\"",
        config: "CONFIG_OVERLAY_FS (module overlay)",
    },
    Feature {
        name: "seccomp filters",
        programs: &["unshare"],
        script: "test -e /proc/sys/kernel/seccomp/actions_avail",
        config: "CONFIG_SECCOMP_FILTER (pods run with the container runtime's profile)",
    },
];

/// Features that can be tested now, and the missing programs of the others.
struct Plan<'f> {
    tried: Vec<&'f Feature>,
    untried: usize,
    lacking: Vec<&'static str>,
}

fn plan<'f>(features: &'f [Feature], is_there: impl Fn(&str) -> bool) -> Plan<'f> {
    let mut lacking: Vec<&'static str> = Vec::new();
    for program in features.iter().flat_map(|feature| feature.programs) {
        if !is_there(program) && !lacking.contains(program) {
            lacking.push(program);
        }
    }
    let tried: Vec<&Feature> = features
        .iter()
        .filter(|feature| !feature.programs.iter().any(|program| lacking.contains(program)))
        .collect();
    Plan {
        untried: features.len() - tried.len(),
        tried,
        lacking,
    }
}

/// Tests every feature whose programs are installed.
pub(super) fn checks() -> Vec<Check> {
    let plan = plan(FEATURES, |program| host::find(program).is_some());
    let mut checks: Vec<Check> = plan
        .tried
        .iter()
        .filter_map(|feature| {
            let error = attempt(feature.script).err()?;
            Some(Check::failed(
                NAME,
                format!("{}: {error}", feature.name),
                format!("use a kernel with {}", feature.config),
            ))
        })
        .collect();
    if checks.is_empty() && !plan.tried.is_empty() {
        let release = nix::sys::utsname::uname().map_or_else(
            |_| "?".to_owned(),
            |name| name.release().to_string_lossy().into_owned(),
        );
        checks.push(Check::ok(
            NAME,
            format!("{release}, tried {} features", plan.tried.len()),
        ));
    }
    checks.extend(untried(&plan));
    checks
}

fn untried(plan: &Plan<'_>) -> Option<Check> {
    if plan.untried == 0 {
        return None;
    }
    let programs: Vec<String> = plan
        .lacking
        .iter()
        .map(|program| packages::named(program))
        .collect();
    Some(Check::not_tried(
        NAME,
        format!(
            "{} features not tried: needs {}",
            plan.untried,
            programs.join(", ")
        ),
    ))
}

fn attempt(script: &str) -> Result<()> {
    let mut child = Command::new("unshare")
        .args([
            "--net", "--mount", "--pid", "--fork", "--uts", "--ipc", "sh", "-s",
        ])
        .env("PATH", host::search_path())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run unshare")?;
    let mut stdin = child.stdin.take().context("the child has an input")?;
    // If the child ended at once, its error output shows why; the broken pipe here does not matter.
    drop(writeln!(stdin, "{script}"));
    drop(stdin);
    let output = child.wait_with_output().context("cannot wait for unshare")?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        bail!(
            "{}",
            text.lines()
                .find(|line| !line.trim().is_empty())
                .unwrap_or("refused")
                .trim()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_tried_with_a_program_that_is_not_installed() {
        let server = |program: &str| ["unshare", "ip", "mount"].contains(&program);
        let plan = plan(FEATURES, server);
        let names: Vec<&str> = plan.tried.iter().map(|feature| feature.name).collect();
        assert_eq!(
            names,
            [
                "namespaces",
                "bridges",
                "virtual links",
                "unreachable routes",
                "overlay file systems",
                "seccomp filters"
            ]
        );
        assert_eq!((plan.untried, plan.lacking.as_slice()), (3, &["nft"][..]));
        let check = untried(&plan).unwrap();
        assert_eq!(
            check.found,
            "3 features not tried: needs nft (Debian package nftables)"
        );
        assert!(check.is_not_tried());
    }

    #[test]
    fn a_bare_host_and_a_full_one() {
        let bare = plan(FEATURES, |_| false);
        assert_eq!((bare.tried.len(), bare.untried), (0, FEATURES.len()));
        assert_eq!(bare.lacking, ["unshare", "ip", "nft", "mount"]);
        let full = plan(FEATURES, |_| true);
        assert_eq!(full.tried.len(), FEATURES.len());
        assert!(untried(&full).is_none());
    }

    /// The programs of a script are declared: the name is searched as a command, not inside the text of a
    /// rule.
    #[test]
    fn scripts_run_only_what_they_name() {
        const EVERYWHERE: &[&str] = &["true", "printf", "trap", "mkdir", "test"];
        for feature in FEATURES {
            for command in feature.script.split("&&").flat_map(|part| part.split(" | ")) {
                let word = command.split_whitespace().next().unwrap();
                let known = word.starts_with("d=$(")
                    || EVERYWHERE.contains(&word)
                    || feature.programs.contains(&word.trim_start_matches('u'))
                    || feature.programs.contains(&word);
                assert!(known, "{} runs {word}", feature.name);
            }
            for program in feature.programs {
                assert!(packages::named(program).contains("Debian package"), "{program}");
            }
        }
    }
}
