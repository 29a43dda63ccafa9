//! Whether the host forwards packets between its networks (`net.ipv4.ip_forward`).
//!
//! Always true: the value before the first stamp switched it on is recorded first, in a file that all stamps
//! of this host use and that a reboot removes, like the setting. The value is restored when nothing is left
//! that might need forwarding: other stamps, bridges or tunnels may rely on it.

use std::{fs, io::ErrorKind, os::linux::fs::MetadataExt as _, path::PathBuf};

use fabric_api::FabricError;
use serde::Deserialize;

use crate::files;

const SWITCH: &str = "/proc/sys/net/ipv4/ip_forward";

/// The record that it was off. The setting belongs to a network namespace, and so does the record.
fn note() -> Result<PathBuf, FabricError> {
    let namespace = fs::metadata("/proc/self/ns/net")
        .map_err(|error| FabricError::failed("look at the network namespace", error))?
        .st_ino();
    Ok(PathBuf::from(format!(
        "/run/landfall-forwarding-was-off-{namespace}"
    )))
}

/// Switches it on.
pub(crate) fn switch_on() -> Result<(), FabricError> {
    let failed = |error| FabricError::failed("switch on forwarding", error);
    let present = fs::read_to_string(SWITCH).map_err(failed)?;
    if present.trim() != "0" {
        return Ok(());
    }
    files::write(&note()?, b"0")?;
    fs::write(SWITCH, "1").map_err(failed)
}

/// Restores it, given the output of `ip -j -d link show` after the stamp's own links are gone.
pub(crate) fn put_back(links: &str) -> Result<(), FabricError> {
    let act = "switch off forwarding";
    let note = note()?;
    if !note.exists() {
        return Ok(());
    }
    if needed(links).map_err(|error| FabricError::failed(act, error))? {
        tracing::info!("forwarding stays on: there are other bridges or tunnels on this host");
        return Ok(());
    }
    match fs::write(SWITCH, "0") {
        // Without the file, it could not be switched on either.
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(FabricError::failed(act, error)),
        _ => {}
    }
    files::remove(&note)
}

/// Whether a link is left that may need forwarding: a bridge, a tunnel, a veth pair of a container.
fn needed(links: &str) -> Result<bool, serde_json::Error> {
    #[derive(Deserialize)]
    struct Link {
        #[serde(default)]
        linkinfo: Option<Info>,
    }
    #[derive(Deserialize)]
    struct Info {
        info_kind: Option<String>,
    }
    /// Link types that only look like forwarding interfaces: they lead to no other network.
    const PLAIN: &[&str] = &["bond", "dummy", "ifb", "team", "vlan"];
    let links: Vec<Link> = serde_json::from_str(links)?;
    Ok(links
        .into_iter()
        .filter_map(|link| link.linkinfo?.info_kind)
        .any(|kind| !PLAIN.contains(&kind.as_str())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_bridges_may_need_it() {
        let host = r#"{"ifname":"lo","flags":["LOOPBACK"]},{},{"ifname":"eth0","linkinfo":{}},{"ifname":"d","linkinfo":{"info_kind":"dummy"}}"#;
        assert!(!needed(&format!("[{host}]")).unwrap());
        for kind in ["bridge", "veth", "wireguard", "tun"] {
            let other = format!(r#"[{host},{{"ifname":"x","linkinfo":{{"info_kind":"{kind}"}}}}]"#);
            assert!(needed(&other).unwrap(), "{kind}");
        }
        assert!(needed("{").is_err());
    }
}
