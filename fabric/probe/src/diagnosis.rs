//! Finds the rule that drops a connection: by nftables' trace while the connection is tried again, else by
//! iptables' counters.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use base_env::Env;
use fabric_net::Names;

use crate::{
    Path, ProbeError, Stand,
    culprit::Culprit,
    iptables,
    machine::{run, search_path},
    trace,
};

/// Time limit for retries of a closed path while it is traced.
const BOUND: Duration = Duration::from_secs(2);
/// The time-out of each of those connections: only the first packet matters.
const ONCE: Duration = Duration::from_millis(250);

/// Tries a closed path again and finds the rule that drops it. `None` if it is open now; `Some(None)` if no
/// rule is found.
pub(crate) fn find(
    env: &Env,
    names: &Names,
    stand: &Stand,
    path: Path,
) -> Result<Option<Option<Culprit>>, ProbeError> {
    let address = stand.addresses(path);
    let port = stand.target(path).port();
    let tracing = Tracing::start(names, &address.to_string())?;
    let count = || run("iptables-legacy-save", &["-c"], None).unwrap_or_default();
    let before = count();
    let deadline = env.clock.monotonic() + BOUND;
    let mut seen = String::new();
    loop {
        if stand.connect(&[path], ONCE).iter().any(|(_, open)| *open) {
            return Ok(None);
        }
        for line in tracing.lines.try_iter() {
            seen.push_str(&line);
            seen.push('\n');
        }
        if let Some(culprit) = trace::dropped(&seen, address, port) {
            return Ok(Some(Some(culprit)));
        }
        // A refused connection ends at once; the time limit still holds.
        if env.clock.monotonic() > deadline {
            return Ok(Some(iptables::dropped(&before, &count())));
        }
    }
}

/// `nft monitor trace`, and the table that marks packets for it.
struct Tracing {
    table: String,
    monitor: Child,
    lines: mpsc::Receiver<String>,
}

impl Tracing {
    fn start(names: &Names, address: &str) -> Result<Self, ProbeError> {
        let failed = |error| ProbeError::new("trace packets with nft", error);
        let table = format!("{}_trace", names.table());
        let mut monitor = Command::new("nft")
            .args(["monitor", "trace"])
            .env("PATH", search_path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(failed)?;
        let (tell, lines) = mpsc::channel();
        if let Some(output) = monitor.stdout.take() {
            thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    if tell.send(line).is_err() {
                        break;
                    }
                }
            });
        }
        let tracing = Self {
            table,
            monitor,
            lines,
        };
        let chain = |hook: &str| {
            format!(
                "chain {hook} {{\ntype filter hook {hook} priority -350; policy accept;\nip saddr {address} meta nftrace set 1\n\
                 ip daddr {address} meta nftrace set 1\n}}\n"
            )
        };
        let table = &tracing.table;
        let rules = format!(
            "table inet {table}\ndelete table inet {table}\ntable inet {table} {{\n{}{}}}\n",
            chain("prerouting"),
            chain("output")
        );
        run("nft", &["-f", "-"], Some(&rules)).map_err(failed)?;
        Ok(tracing)
    }
}

impl Drop for Tracing {
    fn drop(&mut self) {
        // The monitor may have ended by itself; the table may not exist.
        drop(self.monitor.kill());
        drop(self.monitor.wait());
        drop(run("nft", &["delete", "table", "inet", &self.table], None));
    }
}
