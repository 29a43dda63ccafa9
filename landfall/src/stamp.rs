//! The stamp's settings: the facts that are known before the service runs.
//!
//! Always true: a stamp is made once, and its identity never changes.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use anyhow::{Context as _, Result};
use base_env::Env;
use fabric_api::{StampNetwork, Uplink};
use identity::Shape;
use ipnet::Ipv4Net;
use jiff::Timestamp;
use policy_support::Profile;
use serde::{Deserialize, Serialize};

pub(crate) use crate::places::{Places, write_whole};
use crate::{
    args::{IdentityArg, Layout, UplinkArg},
    problem::Problem,
    quotas::Quotas,
};

/// The default address of the ARM API.
pub(crate) const DEFAULT_LISTEN: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8443);

/// The one region of a stamp.
pub(crate) const LOCATION: &str = "local";

/// A stamp's settings: decided when it is made, only read later.
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
    /// The listen address of the ARM API.
    pub(crate) listen: SocketAddr,
    /// The protocol of logins that is announced to clients.
    #[serde(default = "identity_of_before")]
    pub(crate) identity: Shape,
    /// A domain whose names resolve to the stamp.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) domain: Option<String>,
    /// The stamp's own range.
    pub(crate) range: Ipv4Net,
    /// Whether its traffic may leave the host.
    pub(crate) uplink: Uplink,
    /// Networks of the host that clusters may reach all the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) uplink_allow: Vec<Ipv4Net>,
    /// The place of the clusters' backups; by default beside the stamp's other files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) backups: Option<String>,
    /// The place of their copy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) backups_copy: Option<String>,
    /// The place of its node images; from the environment if an earlier release made the stamp.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cache: Option<PathBuf>,
    /// Validity of issued kubeconfigs, hours.
    #[serde(default = "kubeconfig_hours")]
    pub(crate) kubeconfig_hours: u32,
    /// The support policies that it goes by.
    #[serde(default)]
    pub(crate) support: Profile,
    /// The operator's limits of its subscriptions.
    #[serde(default, skip_serializing_if = "Quotas::is_empty")]
    pub(crate) limits: Quotas,
    /// Public keys that may sign version catalogues for it, base64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) catalogue_keys: Vec<String>,
    /// When it was made.
    pub(crate) created_at: Timestamp,
}

/// A stamp that runs.
#[derive(Serialize, Deserialize)]
struct Running {
    /// Where its files are.
    state: PathBuf,
    settings: Settings,
}

impl Settings {
    /// The settings of a stamp that was made, or `None`.
    pub(crate) fn load(places: &Places) -> Result<Option<Self>> {
        let path = places.settings();
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            // The directory of stamps may also contain files.
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
                ) =>
            {
                return Ok(None);
            }
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

    /// The settings of an existing stamp.
    pub(crate) fn required(places: &Places) -> Result<Self> {
        Self::load(places)?.ok_or_else(|| no_stamp(places).into())
    }

    /// Loads the stamp's settings, or makes the stamp. Permitted changes of an existing stamp (`--listen`)
    /// are made; others are refused.
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
            let before = settings.clone();
            if let Some(allow) = allowed(layout)? {
                settings.uplink_allow = allow;
            }
            settings.listen = layout.listen.unwrap_or(settings.listen);
            settings.identity = layout.identity.map_or(settings.identity, Shape::from);
            settings.backups = layout.backups.clone().or(settings.backups);
            settings.backups_copy = layout.backups_copy.clone().or(settings.backups_copy);
            settings.kubeconfig_hours = layout.kubeconfig_hours.unwrap_or(settings.kubeconfig_hours);
            settings.support = layout.support_profile.map_or(settings.support, Profile::from);
            settings.limits = settings.limits.changed(&layout.limit)?;
            if settings != before {
                settings.save(places)?;
            }
            keep_key(places, layout)?;
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
            identity: layout.identity.map_or(Shape::Aad, Shape::from),
            domain: layout.domain.clone(),
            range: free_range(&places.name, &taken)?,
            uplink: layout.uplink.map_or(Uplink::Host, Uplink::from),
            uplink_allow: allowed(layout)?.unwrap_or_default(),
            backups: layout.backups.clone(),
            backups_copy: layout.backups_copy.clone(),
            cache: None,
            kubeconfig_hours: layout.kubeconfig_hours.unwrap_or_else(kubeconfig_hours),
            support: layout
                .support_profile
                .map_or_else(Profile::default, Profile::from),
            limits: Quotas::default().changed(&layout.limit)?,
            catalogue_keys: Vec::new(),
            created_at: env.clock.now(),
        };
        places.make()?;
        keep_key(places, layout)?;
        settings.save_new(places)
    }

    /// Saves new settings unless another process did so first; then gives those.
    fn save_new(self, places: &Places) -> Result<Self> {
        let text = toml::to_string_pretty(&self).context("cannot write the settings")?;
        match base_files::create_new(&places.settings(), text.as_bytes(), 0o644) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Self::required(places),
            other => other
                .with_context(|| format!("cannot write {}", places.settings().display()))
                .map(|()| self),
        }
    }

    /// Stores the place of the node images: the service may later be started with another environment.
    pub(crate) fn remember_cache(&mut self, places: &Places, cache: PathBuf) -> Result<()> {
        if self.cache.as_ref() == Some(&cache) {
            return Ok(());
        }
        self.cache = Some(cache);
        self.save(places)
    }

    /// Stores the keys that may sign version catalogues, in place of those before.
    pub(crate) fn trust_catalogues_of(&mut self, places: &Places, keys: Vec<String>) -> Result<()> {
        if self.catalogue_keys == keys {
            return Ok(());
        }
        self.catalogue_keys = keys;
        self.save(places)
    }

    fn save(&self, places: &Places) -> Result<()> {
        let text = toml::to_string_pretty(self).context("cannot write the settings")?;
        write_whole(&places.settings(), text.as_bytes(), 0o644)
    }

    /// Writes the settings beside the runtime state.
    pub(crate) fn note_running(&self, places: &Places) -> Result<()> {
        let running = Running {
            state: places.state.clone(),
            settings: self.clone(),
        };
        let text = toml::to_string_pretty(&running).context("cannot write what runs")?;
        write_whole(&places.running(), text.as_bytes(), 0o644)
    }

    /// The settings of the stamp that runs under this name on this host, as far as they were written, and its
    /// state directory.
    pub(crate) fn load_running(places: &Places) -> Option<(PathBuf, Self)> {
        let running: Running = toml::from_str(&fs::read_to_string(places.running()).ok()?).ok()?;
        Some((running.state, running.settings))
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

    /// The audience of tokens for the ARM API: a name, not an address, so that it does not change with
    /// `--listen`.
    pub(crate) fn audience(&self) -> String {
        format!("https://management.{}/{}", self.domain_or_own(), self.tenant)
    }

    /// The first user, for logins with a password or a device code.
    pub(crate) fn administrator(&self) -> String {
        format!("admin@{}", self.domain_or_own())
    }

    /// The domain; for a stamp without one, a name that is not public.
    pub(crate) fn domain_or_own(&self) -> String {
        self.domain
            .clone()
            .unwrap_or_else(|| "landfall.internal".to_owned())
    }

    /// The address of the ARM API for this host itself: no name resolution needed.
    pub(crate) fn local_address(&self) -> SocketAddr {
        if self.listen.ip().is_unspecified() {
            SocketAddr::new(Ipv4Addr::LOCALHOST.into(), self.listen.port())
        } else {
            self.listen
        }
    }
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

/// A working day.
fn kubeconfig_hours() -> u32 {
    8
}

/// The protocol of a stamp that was made by an earlier release, which had only this one: its clients are set
/// up for it.
fn identity_of_before() -> Shape {
    Shape::AdFs
}

impl From<IdentityArg> for Shape {
    fn from(arg: IdentityArg) -> Self {
        match arg {
            IdentityArg::Aad => Self::Aad,
            IdentityArg::Adfs => Self::AdFs,
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

/// The error for a missing stamp.
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

/// A range for a stamp: always the same for its name, unless it is in use.
fn free_range(name: &str, taken: &[Ipv4Net]) -> Result<Ipv4Net> {
    fabric_net::stamp_range(name, taken).ok_or_else(|| {
        Problem::new(
            format!(
                "all of {} is in use on this host, and the stamp needs a /{} of it",
                fabric_net::STAMP_POOL,
                fabric_net::STAMP_PREFIX
            ),
            "remove a stamp (landfall down --purge), or a route into that range",
        )
        .into()
    })
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

/// The file with the key to the bucket that backups are kept in.
pub(crate) const BACKUPS_KEY: &str = "backups-key";

/// The networks of `--uplink-allow`; `None` if it was not given.
fn allowed(layout: &Layout) -> Result<Option<Vec<Ipv4Net>>> {
    match layout.uplink_allow.as_slice() {
        [] => Ok(None),
        [none] if none == "none" => Ok(Some(Vec::new())),
        ranges => {
            let parse = |text: &String| {
                text.parse::<Ipv4Net>()
                    .map(|range| range.trunc())
                    .map_err(|error| {
                        Problem::usage(
                            format!("--uplink-allow {text}: {error}"),
                            "give an IPv4 range in CIDR notation, e.g. --uplink-allow 192.168.1.0/24, or none",
                        )
                    })
            };
            Ok(Some(ranges.iter().map(parse).collect::<Result<_, _>>()?))
        }
    }
}

/// Takes the key to the bucket into the stamp's secrets.
fn keep_key(places: &Places, layout: &Layout) -> Result<()> {
    let Some(file) = &layout.backups_key else {
        return Ok(());
    };
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    if text.lines().filter(|line| !line.trim().is_empty()).count() != 2 {
        return Err(Problem::usage(
            format!("{} is no key to a bucket", file.display()),
            "write the access key's id in its first line and the secret in the second",
        )
        .into());
    }
    let path = places.secrets().join(BACKUPS_KEY);
    write_whole(&path, text.as_bytes(), 0o600)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(dir: &std::path::Path, name: &str) -> Places {
        Places {
            name: name.into(),
            state: dir.join("state").join(name),
            run: dir.join("run").join(name),
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
        let mut kept = made.clone();
        kept.remember_cache(&places, "/srv/images".into()).unwrap();
        assert_eq!(Settings::required(&places).unwrap(), kept);
        kept.cache = None;
        kept.save(&places).unwrap();
        let late = Settings {
            tenant: "of a second process".into(),
            ..made.clone()
        };
        assert_eq!(late.save_new(&places).unwrap(), made);
        fs::write(dir.path().join("state/file"), "").unwrap();
        assert!(others(&places).unwrap().is_empty());
        let allow = |text: &str| Layout {
            uplink_allow: vec![text.to_owned()],
            ..Layout::default()
        };
        let make =
            |layout: &Layout| Settings::load_or_make(&places, layout, &[], &Env::simulated_for_test(1));
        let wanted: Ipv4Net = "192.168.1.0/24".parse().unwrap();
        assert_eq!(make(&allow("192.168.1.7/24")).unwrap().uplink_allow, [wanted]);
        assert_eq!(
            make(&Layout::default()).unwrap().uplink_allow,
            [wanted],
            "it is kept"
        );
        let refused = make(&allow("192.168.1.7/33")).unwrap_err().to_string();
        assert!(refused.contains("--uplink-allow 192.168.1.7/33"), "{refused}");
        assert_eq!(make(&allow("none")).unwrap().uplink_allow, []);
        let other = Layout {
            uplink: Some(UplinkArg::None),
            ..Layout::default()
        };
        let refused = Settings::load_or_make(&places, &other, &[], &Env::simulated_for_test(3)).unwrap_err();
        assert!(refused.to_string().contains("--uplink"), "{refused}");
        assert_eq!(secret(&places, "x").unwrap(), secret(&places, "x").unwrap());
    }

    #[test]
    fn a_stamp_keeps_the_shape_it_was_made_with_until_it_is_told_otherwise() {
        let dir = tempfile::tempdir().unwrap();
        let places = places(dir.path(), "one");
        let make = |identity| {
            let layout = Layout {
                identity,
                ..Layout::default()
            };
            Settings::load_or_make(&places, &layout, &[], &Env::simulated_for_test(1))
                .unwrap()
                .identity
        };
        assert_eq!(make(None), Shape::Aad);
        let path = places.settings();
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains("identity = \"aad\""), "{text}");
        // As an earlier release wrote it.
        fs::write(&path, text.replace("identity = \"aad\"\n", "")).unwrap();
        assert_eq!(make(None), Shape::AdFs);
        assert_eq!(make(Some(IdentityArg::Aad)), Shape::Aad);
        assert_eq!(make(None), Shape::Aad, "it is kept");
        assert_eq!(make(Some(IdentityArg::Adfs)), Shape::AdFs);
    }

    #[test]
    fn a_host_without_a_free_range_says_so() {
        let first = free_range("landfall", &[]).unwrap();
        assert_ne!(first, free_range("landfall", &[first]).unwrap());
        let error = free_range("x", &["100.64.0.0/10".parse().unwrap()]).unwrap_err();
        assert!(error.to_string().contains("100.64.0.0/10"), "{error}");
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
