//! What can never work is refused before anything is touched. All of it ends in scripts, paths and mount options, so nothing
//! with a space, a comma or a dot-dot may pass.

use std::{
    collections::BTreeSet,
    path::{Component, Path},
};

use fabric_api::{Attach, FabricError, MachineSpec, NetworkSpec};

use crate::{ContainerConfig, disk};

/// Bytes of seed files a machine may have.
const SEED_MAX: usize = 4 << 20;

pub(crate) fn config(config: &ContainerConfig) -> Result<(), FabricError> {
    if !word(&config.stamp, 32, "-") || config.stamp.starts_with('-') {
        return Err(invalid(
            "stamp name",
            "use 1 to 32 of a-z, 0-9 and -, not - first",
        ));
    }
    for (what, path) in [
        ("state directory", &config.state_dir),
        ("run directory", &config.run_dir),
    ] {
        plain_path(what, path)?;
    }
    let prefix = config.network.range.prefix_len();
    if prefix > 28 || config.network.range.network() != config.network.range.addr() {
        return Err(invalid(
            "stamp network",
            "use a network address with at most 28 bits",
        ));
    }
    Ok(())
}

pub(crate) fn identity(what: &str, id: &str) -> Result<(), FabricError> {
    if word(id, 12, "") {
        Ok(())
    } else {
        Err(invalid(&format!("{what} id"), "use 1 to 12 of a-z and 0-9"))
    }
}

pub(crate) fn network(spec: &NetworkSpec, stamp: ipnet::Ipv4Net) -> Result<(), FabricError> {
    identity("network", spec.id.as_str())?;
    let mut names = BTreeSet::new();
    for subnet in &spec.subnets {
        if !word(&subnet.name, 40, "-") || !names.insert(&subnet.name) {
            return Err(invalid("subnet name", "use 1 to 40 of a-z, 0-9 and -, each once"));
        }
        if !subnet.range.contains(&subnet.gateway) {
            return Err(invalid(
                &format!("gateway of subnet {}", subnet.name),
                "it is outside the subnet's range",
            ));
        }
    }
    if !stamp.contains(&spec.uplink) {
        return Err(invalid("uplink address", "it is outside the stamp's network"));
    }
    Ok(())
}

pub(crate) fn machine(spec: &MachineSpec) -> Result<(), FabricError> {
    identity("machine", spec.id.as_str())?;
    if !word(&spec.hostname, 63, "-") || spec.hostname.starts_with('-') || spec.hostname.ends_with('-') {
        return Err(invalid("host name", "use an RFC 1123 label"));
    }
    if spec.cpu_millis < 10 || spec.memory_mib < 8 {
        return Err(invalid("size", "give at least 10 millicores and 8 MiB"));
    }
    let mut names = BTreeSet::new();
    for card in &spec.nics {
        if !word(&card.name, 15, "-") || card.name == "lo" || !names.insert(&card.name) {
            return Err(invalid(
                "network card name",
                "use 1 to 15 of a-z, 0-9 and -, each once",
            ));
        }
        if let Attach::Subnet { network, subnet } = &card.attach {
            identity("network", network.as_str())?;
            if !word(subnet, 40, "-") {
                return Err(invalid("subnet name", "use 1 to 40 of a-z, 0-9 and -"));
            }
        }
    }
    if spec.nics.iter().filter(|card| card.gateway.is_some()).count() > 1 {
        return Err(invalid("default gateway", "only one card may have one"));
    }
    if spec.seed_files.values().map(String::len).sum::<usize>() > SEED_MAX {
        return Err(invalid("seed files", "they are larger than 4 MiB together"));
    }
    for path in spec.seed_files.keys() {
        let plain = Path::new(path).is_absolute()
            && Path::new(path).file_name().is_some()
            && !path.ends_with('/')
            && Path::new(path)
                .components()
                .skip(1)
                .all(|part| matches!(part, Component::Normal(_)));
        if !plain || disk::is_volatile(Path::new(path)) {
            return Err(invalid(
                &format!("seed file {path}"),
                "use an absolute path on the machine's disk",
            ));
        }
    }
    Ok(())
}

/// A path that can be written into mount options and scripts as it is.
pub(crate) fn plain_path(what: &str, path: &Path) -> Result<(), FabricError> {
    let text = path
        .to_str()
        .filter(|text| !text.contains([',', ':', '\\', '"']) && !text.contains(char::is_control));
    if path.is_absolute() && text.is_some() {
        Ok(())
    } else {
        Err(invalid(
            &format!("{what} {}", path.display()),
            "use an absolute path without comma, colon, quote or backslash",
        ))
    }
}

fn word(text: &str, max: usize, also: &str) -> bool {
    (1..=max).contains(&text.len())
        && text
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || also.contains(c))
}

fn invalid(what: &str, why: &str) -> FabricError {
    FabricError::Invalid {
        what: what.to_owned(),
        why: why.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fabric_api::MachineId;

    fn spec() -> MachineSpec {
        MachineSpec {
            id: MachineId::from("m1"),
            hostname: "aks-pool1-12345678-vmss000000".into(),
            image: "1.36.3".into(),
            cpu_millis: 1000,
            memory_mib: 512,
            disk_gib: None,
            nics: Vec::new(),
            seed_files: [("/etc/landfall/seed.json".to_owned(), "{}".to_owned())].into(),
            labels: Default::default(),
        }
    }

    #[test]
    fn what_could_leave_its_place_is_refused() {
        assert!(machine(&spec()).is_ok());
        for path in [
            "etc/x",
            "/etc/../x",
            "/",
            "/etc/",
            "/run/x",
            "/proc/1/x",
            "/etc/./x/..",
            "",
        ] {
            let mut spec = spec();
            spec.seed_files = [(path.to_owned(), String::new())].into();
            assert!(machine(&spec).is_err(), "{path}");
        }
        for id in ["", "../x", "a b", "A", "0123456789abc", "a/b", "a\nb"] {
            let mut spec = spec();
            spec.id = MachineId::from(id);
            assert!(machine(&spec).is_err(), "{id}");
        }
        for hostname in ["", "-a", "a.b", "a\nb"] {
            let mut spec = spec();
            spec.hostname = hostname.into();
            assert!(machine(&spec).is_err(), "{hostname}");
        }
        assert!(plain_path("x", Path::new("/a,b")).is_err());
        assert!(plain_path("x", Path::new("a")).is_err());
        assert!(plain_path("x", Path::new("/a b")).is_ok());
    }
}
