//! What this host and this process tell of themselves, for metrics and alerts.
//!
//! Always true: it only reads; what cannot be read is left out rather than told as zero.

use std::{fs, path::Path, sync::Arc};

use anyhow::{Context as _, Result};
use cluster_pki::inventory::{IN_USE, Item, STAMP, certificates};
use jiff::Timestamp;
use nix::sys::resource::{Resource, getrlimit};
use service::operator::{DiskFact, Host, HostSeen, ProcessSeen};

use super::{drivers, endpoint, metrics, panics};
use crate::{images::ImagesOnDemand, stamp::Places};

/// Ticks of `/proc/self/stat` in a second: part of the kernel's ABI, 100 on every architecture that Linux has today.
const TICKS: f64 = 100.0;

/// See the module.
pub(super) struct ThisHost {
    pub(super) places: Places,
    pub(super) images: Arc<ImagesOnDemand>,
    pub(super) started_at: Timestamp,
}

impl Host for ThisHost {
    fn look(&self) -> HostSeen {
        HostSeen {
            process: process(self.started_at),
            panics: panics::counted(),
            disk: disk(&self.places.state),
            store_bytes: fs::metadata(self.places.store()).ok().map(|file| file.len()),
            image_builds: self.images.building(),
        }
    }

    fn certificates(&self) -> Result<Vec<Item>, String> {
        stamps_own(&self.places).map_err(|error| format!("{error:#}"))
    }
}

/// The certificates in the stamp's files.
fn stamps_own(places: &Places) -> Result<Vec<Item>> {
    let mut items = endpoint::inventory(places)?;
    if let Some(pem) = drivers::agent_ca_certificate(places)? {
        for seen in certificates(&pem).context("the CA of the agents cannot be read")? {
            items.push(Item {
                note: "signs the service's certificate towards agents, which is made at each start, and those of machines' agents".to_owned(),
                ..Item::of_certificate("agent-ca", STAMP, &seen)
            });
        }
    }
    if !places.secrets().join(metrics::TOKEN).exists() {
        return Ok(items);
    }
    items.push(Item {
        note: "the bearer token of --metrics-listen; replaced by deleting secrets/metrics-token and starting the service again".to_owned(),
        ..Item::of_key("metrics-token", STAMP, IN_USE)
    });
    Ok(items)
}

fn process(started_at: Timestamp) -> Option<ProcessSeen> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The name, in parentheses, may hold anything.
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    let number = |place: usize| fields.get(place)?.parse::<u64>().ok();
    let (user, system, threads) = (number(11)?, number(12)?, number(17)?);
    let open_files = fs::read_dir("/proc/self/fd").ok()?.count();
    #[expect(
        clippy::cast_precision_loss,
        reason = "ticks and seconds, shown with some digits"
    )]
    let seen = ProcessSeen {
        resident_bytes: resident_bytes()?,
        cpu_seconds: (user + system) as f64 / TICKS,
        threads,
        open_files: u64::try_from(open_files).unwrap_or(u64::MAX),
        most_files: getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(most, _)| most),
        started: started_at.as_second() as f64,
    };
    Some(seen)
}

fn resident_bytes() -> Option<u64> {
    let text = fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find(|line| line.starts_with("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib.saturating_mul(1024))
}

fn disk(path: &Path) -> Option<DiskFact> {
    let seen = nix::sys::statvfs::statvfs(path).ok()?;
    Some(DiskFact {
        total: seen.blocks().saturating_mul(seen.fragment_size()),
        free: seen.blocks_available().saturating_mul(seen.fragment_size()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_and_its_disk_are_seen() {
        let seen = process(Timestamp::UNIX_EPOCH).unwrap();
        assert!(
            seen.resident_bytes > 1 << 20 && seen.threads >= 1 && seen.open_files >= 3,
            "{seen:?}"
        );
        assert!(seen.most_files.unwrap() >= seen.open_files);
        let disk = disk(Path::new("/")).unwrap();
        assert!(disk.total > disk.free);
        assert_eq!(super::disk(Path::new("/does/not/exist")), None);
    }
}
