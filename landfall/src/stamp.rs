//! The stamp's places on this host and its settings: what is known before anything runs.
//!
//! | place | holds |
//! |---|---|
//! | `/var/lib/landfall/STAMP/stamp.toml` | [`Settings`] |
//! | `…/secrets/` | the sealing key, the service principal's secret, CA keys; directory 0700, files 0600 |
//! | `…/store.redb`, `…/fabric/` | the store and the disks of machines; gone after `landfall down` |
//! | `…/log/` | the service's log, bounded |
//! | `…/ca.pem` | the certificate that clients of the ARM API trust |
//! | `/run/landfall/STAMP/` | lock with the service's pid, admin socket |
//!
//! Always true: files are written whole or not at all; a stamp is made once, and its identity never changes.

use std::{
    fs,
    io::Write as _,
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use base_env::Env;
use fabric_api::{StampNetwork, Uplink};
use ipnet::Ipv4Net;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    args::{Layout, UplinkArg},
    problem::Problem,
};

/// Where the ARM API listens unless told otherwise.
pub(crate) const DEFAULT_LISTEN: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8443);

/// The one region of a stamp.
pub(crate) const LOCATION: &str = "local";

/// Addresses are taken from here: shared address space (RFC 6598), which no public host and few private networks use.
const POOL: (Ipv4Addr, u8) = (Ipv4Addr::new(100, 64, 0, 0), 10);
/// What one stamp gets of it: 2,048 machines and as many VIPs.
const STAMP_PREFIX: u8 = 20;

/// Where a stamp's files are.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    pub(crate) name: String,
    pub(crate) state: PathBuf,
    pub(crate) run: PathBuf,
}

impl Places {
    /// The places of the stamp of this name. Touches nothing.
    pub(crate) fn of(name: &str) -> Result<Self> {
        let good = (1..=20).contains(&name.len())
            && name.starts_with(|c: char| c.is_ascii_lowercase())
            && !name.ends_with('-')
            && name
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
        if !good {
            return Err(Problem::usage(
                format!("{name:?} is not a name for a stamp"),
                "use 1 to 20 lower-case letters, digits and dashes, with a letter first",
            )
            .into());
        }
        let base = |variable: &str, default: &str| {
            std::env::var_os(variable)
                .filter(|value| !value.is_empty())
                .map_or_else(|| PathBuf::from(default), PathBuf::from)
        };
        Ok(Self {
            name: name.to_owned(),
            state: base("LANDFALL_STATE_DIR", "/var/lib/landfall").join(name),
            run: base("LANDFALL_RUN_DIR", "/run/landfall").join(name),
        })
    }

    pub(crate) fn settings(&self) -> PathBuf {
        self.state.join("stamp.toml")
    }
    pub(crate) fn secrets(&self) -> PathBuf {
        self.state.join("secrets")
    }
    pub(crate) fn store(&self) -> PathBuf {
        self.state.join("store.redb")
    }
    pub(crate) fn fabric(&self) -> PathBuf {
        self.state.join("fabric")
    }
    pub(crate) fn log(&self) -> PathBuf {
        self.state.join("log/serve.log")
    }
    pub(crate) fn ca(&self) -> PathBuf {
        self.state.join("ca.pem")
    }
    pub(crate) fn lock(&self) -> PathBuf {
        self.run.join("serve.lock")
    }
    pub(crate) fn socket(&self) -> PathBuf {
        self.run.join("admin.sock")
    }

    /// Makes the directories.
    pub(crate) fn make(&self) -> Result<()> {
        for (path, mode) in [
            (self.state.clone(), 0o755),
            (self.secrets(), 0o700),
            (self.state.join("log"), 0o755),
            (self.run.clone(), 0o755),
        ] {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(mode)
                .create(&path)
                .with_context(|| format!("cannot create {}", path.display()))?;
        }
        Ok(())
    }
}

/// What a stamp is: decided when it is made, read ever after.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Settings {
    /// Format.
    pub(crate) v: u32,
    /// GUID of its tenant.
    pub(crate) tenant: String,
    /// GUID of its first subscription.
    pub(crate) subscription: String,
    /// GUID of the service principal's application, the one `landfall az` logs in with.
    pub(crate) client: String,
    /// Where the ARM API listens.
    pub(crate) listen: SocketAddr,
    /// A domain whose names lead here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) domain: Option<String>,
    /// The stamp's own range.
    pub(crate) range: Ipv4Net,
    /// Whether its traffic may leave the host.
    pub(crate) uplink: Uplink,
    /// When it was made.
    pub(crate) created_at: Timestamp,
}

impl Settings {
    /// The settings of a stamp that was made, or `None`.
    pub(crate) fn load(places: &Places) -> Result<Option<Self>> {
        let path = places.settings();
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                return Err(not_root(&format!("read {}", path.display())));
            }
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        let settings: Self = toml::from_str(&text).map_err(|error| {
            Problem::new(
                format!("{} is damaged", path.display()),
                format!(
                    "repair it, or start over: landfall down --purge --name {}",
                    places.name
                ),
            )
            .because(error)
        })?;
        Ok(Some(settings))
    }

    /// The settings of a stamp that has to be there.
    pub(crate) fn required(places: &Places) -> Result<Self> {
        Self::load(places)?.ok_or_else(|| no_stamp(places).into())
    }

    /// Loads the stamp's settings, or makes the stamp. Changes that can be made to a stamp that is there (`--listen`) are
    /// made; others are refused.
    pub(crate) fn load_or_make(
        places: &Places,
        layout: &Layout,
        taken: &[Ipv4Net],
        env: &Env,
    ) -> Result<Self> {
        if let Some(mut settings) = Self::load(places)? {
            let wish = layout.uplink.map(Uplink::from);
            if wish.is_some_and(|wish| wish != settings.uplink) {
                return Err(fixed(places, "uplink"));
            }
            if layout.domain.is_some() && layout.domain != settings.domain {
                return Err(fixed(places, "domain"));
            }
            if let Some(listen) = layout.listen.filter(|listen| *listen != settings.listen) {
                settings.listen = listen;
                settings.save(places)?;
            }
            return Ok(settings);
        }
        if let Some(domain) = &layout.domain {
            check_domain(domain)?;
        }
        let others = others(places)?;
        let listen = layout.listen.unwrap_or(DEFAULT_LISTEN);
        let taken: Vec<Ipv4Net> = taken
            .iter()
            .copied()
            .chain(others.iter().map(|(_, settings)| settings.range))
            .collect();
        let settings = Self {
            v: 1,
            tenant: env.ids.uuid().to_string(),
            subscription: env.ids.uuid().to_string(),
            client: env.ids.uuid().to_string(),
            listen,
            domain: layout.domain.clone(),
            range: free_range(&places.name, &taken)?,
            uplink: layout.uplink.map_or(Uplink::Host, Uplink::from),
            created_at: env.clock.now(),
        };
        places.make()?;
        settings.save(places)?;
        Ok(settings)
    }

    fn save(&self, places: &Places) -> Result<()> {
        let text = toml::to_string_pretty(self).context("cannot write the settings")?;
        write_whole(&places.settings(), text.as_bytes(), 0o644)
    }

    /// The stamp's network.
    pub(crate) fn network(&self) -> StampNetwork {
        StampNetwork {
            range: self.range,
            uplink: self.uplink,
        }
    }

    /// The host name or address under which clients reach the ARM API.
    pub(crate) fn host(&self) -> String {
        match &self.domain {
            Some(domain) => format!("management.{LOCATION}.{domain}"),
            None if self.listen.ip().is_unspecified() => Ipv4Addr::LOCALHOST.to_string(),
            None => match self.listen.ip() {
                std::net::IpAddr::V4(ip) => ip.to_string(),
                std::net::IpAddr::V6(ip) => format!("[{ip}]"),
            },
        }
    }

    /// The ARM API's URL.
    pub(crate) fn arm_url(&self) -> String {
        format!("https://{}:{}", self.host(), self.listen.port())
    }

    /// The audience of tokens for the ARM API: a name, not an address, so that it stays when `--listen` changes.
    pub(crate) fn audience(&self) -> String {
        format!("https://management.{}/{}", self.domain_or_own(), self.tenant)
    }

    /// The domain, or one that is no public name for a stamp without.
    pub(crate) fn domain_or_own(&self) -> String {
        self.domain
            .clone()
            .unwrap_or_else(|| "landfall.internal".to_owned())
    }

    /// Where this host itself reaches the ARM API: no name service needed.
    pub(crate) fn local_address(&self) -> SocketAddr {
        if self.listen.ip().is_unspecified() {
            SocketAddr::new(Ipv4Addr::LOCALHOST.into(), self.listen.port())
        } else {
            self.listen
        }
    }
}

impl From<UplinkArg> for Uplink {
    fn from(arg: UplinkArg) -> Self {
        match arg {
            UplinkArg::Host => Self::Host,
            UplinkArg::None => Self::None,
        }
    }
}

/// There is no such stamp.
pub(crate) fn no_stamp(places: &Places) -> Problem {
    let name = &places.name;
    let flag = if name == "landfall" {
        String::new()
    } else {
        format!(" --name {name}")
    };
    Problem::new(
        format!("there is no stamp {name} on this host"),
        format!("make it: landfall up{flag}"),
    )
}

/// Root is needed.
pub(crate) fn not_root(act: &str) -> anyhow::Error {
    Problem::new(format!("only root may {act}"), "repeat with sudo").into()
}

fn fixed(places: &Places, what: &str) -> anyhow::Error {
    Problem::usage(
        format!(
            "stamp {} was made with another --{what}, which cannot be changed",
            places.name
        ),
        format!(
            "leave --{what} out, take another --name, or start over: landfall down --purge --name {}",
            places.name
        ),
    )
    .into()
}

fn check_domain(domain: &str) -> Result<()> {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
    };
    if domain.len() > 200 || !domain.split('.').all(label) {
        return Err(Problem::usage(
            format!("{domain:?} is not a domain"),
            "give one like landfall.example.com, in lower case",
        )
        .into());
    }
    Ok(())
}

/// The other stamps on this host.
pub(crate) fn others(places: &Places) -> Result<Vec<(String, Settings)>> {
    let Some(base) = places.state.parent() else {
        return Ok(Vec::new());
    };
    let entries = match fs::read_dir(base) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", base.display())),
    };
    let mut found = Vec::new();
    for entry in entries {
        let name = entry
            .with_context(|| format!("cannot read {}", base.display()))?
            .file_name();
        let Some(name) = name.to_str().filter(|name| *name != places.name) else {
            continue;
        };
        let Ok(other) = Places::of(name) else { continue };
        if let Some(settings) = Settings::load(&other)? {
            found.push((name.to_owned(), settings));
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(found)
}

/// Refuses an address that another stamp of this host has, whether it runs or not.
pub(crate) fn check_listen(places: &Places, listen: SocketAddr) -> Result<()> {
    let others = others(places)?;
    let Some((other, _)) = others.iter().find(|(_, settings)| settings.listen == listen) else {
        return Ok(());
    };
    Err(Problem::new(
        format!("stamp {other} already has the address {listen}"),
        format!(
            "choose another: landfall up --name {} --listen {}",
            places.name,
            next_port(listen, &others)
        ),
    )
    .into())
}

fn next_port(listen: SocketAddr, others: &[(String, Settings)]) -> SocketAddr {
    let mut next = listen;
    while others.iter().any(|(_, settings)| settings.listen == next) && next.port() < u16::MAX {
        next.set_port(next.port() + 1);
    }
    next
}

/// Ranges that this host routes somewhere.
pub(crate) fn taken_ranges() -> Vec<Ipv4Net> {
    // Without an answer nothing is known to be taken; the fabric reports a clash when it makes the network.
    let routes = crate::host::run("ip", &["-4", "-o", "route", "show", "table", "all"]).unwrap_or_default();
    routes
        .lines()
        .filter_map(|line| {
            line.split_whitespace()
                .find(|word| word.contains('/'))?
                .parse()
                .ok()
        })
        .filter(|net: &Ipv4Net| net.prefix_len() > 0)
        .collect()
}

/// A range for a stamp: always the same for its name, unless something else has it.
fn free_range(name: &str, taken: &[Ipv4Net]) -> Result<Ipv4Net> {
    let count = 1_u32 << (STAMP_PREFIX - POOL.1);
    let start = base_env::Seed::new(0).child("stamp-range").child(name).draw(0);
    (0..count)
        .map(|step| ((start + u64::from(step)) % u64::from(count)) as u32)
        .map(|index| Ipv4Addr::from(u32::from(POOL.0) + (index << (32 - STAMP_PREFIX))))
        .filter_map(|address| Ipv4Net::new(address, STAMP_PREFIX).ok())
        .find(|range| {
            !taken
                .iter()
                .any(|other| other.contains(range) || range.contains(other))
        })
        .ok_or_else(|| {
            Problem::new(
                format!(
                    "all of {}/{} is in use on this host, and the stamp needs a /{STAMP_PREFIX} of it",
                    POOL.0, POOL.1
                ),
                "remove a stamp (landfall down --purge), or a route into that range",
            )
            .into()
        })
}

/// Writes a file whole or not at all, durably.
pub(crate) fn write_whole(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    let act = || format!("cannot write {}", path.display());
    let dir = path.parent().context("a file has a directory")?;
    let name = path.file_name().context("a file has a name")?.to_string_lossy();
    let temporary = dir.join(format!(".{name}.new"));
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&temporary)
        .with_context(act)?;
    file.write_all(content).with_context(act)?;
    file.sync_all().with_context(act)?;
    fs::rename(&temporary, path).with_context(act)?;
    fs::File::open(dir)
        .and_then(|dir| dir.sync_all())
        .with_context(act)
}

/// Reads a secret, or makes it: 32 bytes from the operating system, as hexadecimal text.
pub(crate) fn secret(places: &Places, name: &str) -> Result<String> {
    let path = places.secrets().join(name);
    match fs::read_to_string(&path) {
        Ok(text) => return Ok(text.trim().to_owned()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            return Err(not_root("use the stamp's credentials"));
        }
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
    let mut bytes = [0_u8; 32];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| anyhow::anyhow!("the system gives no random numbers"))?;
    let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    write_whole(&path, text.as_bytes(), 0o600)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(dir: &Path, name: &str) -> Places {
        Places {
            name: name.into(),
            state: dir.join("state").join(name),
            run: dir.join("run").join(name),
        }
    }

    #[test]
    fn names_are_checked() {
        for good in ["landfall", "a", "t-1"] {
            assert!(Places::of(good).is_ok(), "{good}");
        }
        for bad in ["", "A", "1a", "a_b", "a-", "../x", "aaaaaaaaaaaaaaaaaaaaa"] {
            assert!(Places::of(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_stamp_is_made_once_and_keeps_its_identity() {
        let dir = tempfile::tempdir().unwrap();
        let places = places(dir.path(), "one");
        let made =
            Settings::load_or_make(&places, &Layout::default(), &[], &Env::simulated_for_test(1)).unwrap();
        let again =
            Settings::load_or_make(&places, &Layout::default(), &[], &Env::simulated_for_test(2)).unwrap();
        assert_eq!(made, again);
        let other = Layout {
            uplink: Some(UplinkArg::None),
            ..Layout::default()
        };
        let refused = Settings::load_or_make(&places, &other, &[], &Env::simulated_for_test(3)).unwrap_err();
        assert!(refused.to_string().contains("--uplink"), "{refused}");
        assert_eq!(secret(&places, "x").unwrap(), secret(&places, "x").unwrap());
    }

    #[test]
    fn ranges_do_not_overlap_what_is_there() {
        let first = free_range("landfall", &[]).unwrap();
        assert_eq!(first, free_range("landfall", &[]).unwrap());
        let second = free_range("landfall", &[first]).unwrap();
        assert!(!first.contains(&second) && second.prefix_len() == STAMP_PREFIX);
        assert!(free_range("x", &["100.64.0.0/10".parse().unwrap()]).is_err());
    }

    trait ForTest {
        fn simulated_for_test(seed: u64) -> Env;
    }

    impl ForTest for Env {
        /// Seeded identifiers and the system's clock: these tests have no runtime to pause.
        fn simulated_for_test(seed: u64) -> Env {
            Env {
                ids: std::sync::Arc::new(base_env::SeededIds::new(base_env::Seed::new(seed))),
                ..Env::system()
            }
        }
    }
}
