//! A process of a control plane machine, and its probe.

use std::collections::BTreeMap;

use agent_protocol::{Probe, Process};

use crate::paths::PKI;

/// Go's garbage collector runs more often in control plane programs: measured, 248 → 190 MB for each further
/// control plane, without a slower start.
const GOGC: &str = "25";

/// The PATH of programs in a machine.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Long enough for a busy host, short enough for a program that will never answer.
pub(crate) const HANG_SECONDS: u32 = 30;

/// `restart_on`: certificates are read again by the programs themselves; these files are not, CAs among them.
pub(crate) fn process(
    name: &str,
    flags: Vec<String>,
    probe: Probe,
    stop_order: u8,
    restart_on: &[&str],
) -> Process {
    let mut argv = vec![format!("/usr/local/bin/{name}")];
    argv.extend(flags);
    Process {
        name: name.to_owned(),
        argv,
        env: BTreeMap::from([("GOGC".to_owned(), GOGC.to_owned())]),
        probe: Some(probe),
        restart_on: restart_on.iter().map(|path| (*path).to_owned()).collect(),
        stop_order,
        grace_seconds: 10,
        hang_seconds: Some(HANG_SECONDS),
        ..Process::default()
    }
}

pub(crate) fn https(port: u16, path: &str) -> Probe {
    Probe::Http {
        url: format!("https://127.0.0.1:{port}{path}"),
        ca: Some(format!("{PKI}/ca.crt")),
        identity: Some((format!("{PKI}/probe.crt"), format!("{PKI}/probe.key"))),
    }
}
