//! The certificates of a machine's programs when its configuration is rendered again.
//!
//! A program that finds another certificate closes the connections that it had with the one before: what is under way on them fails, for nothing where
//! the one before still holds. So a certificate stays, with its key, as long as it says what a new one would say and is not due to be renewed.

use agent_protocol::{File, MachineConfig};
use cluster_pki::{
    Certificate, PkiError,
    inventory::{Seen, certificates},
};
use jiff::Timestamp;

use crate::BootstrapError;

/// Takes over the certificates of the configuration before that can stay, each with its key: all that were issued after `due`, but for those of which
/// something else is said now.
///
/// # Errors
/// When a certificate of the new configuration cannot be read.
pub fn keep_leaves(
    config: &mut MachineConfig,
    before: &MachineConfig,
    due: Timestamp,
    now: Timestamp,
) -> Result<(), BootstrapError> {
    for (name, _) in leaves(config)? {
        let (Some(fresh), Some(kept)) = (identity(config, &name), identity(before, &name)) else {
            // Nobody had it, or nobody here has its key.
            continue;
        };
        if kept.can_stay_for(&fresh, due, now)? {
            write(config, format!("{name}.crt"), kept.certificate);
            write(config, format!("{name}.key"), kept.key);
        }
    }
    Ok(())
}

/// When the oldest certificate of a machine's programs was issued; `None` where there is none.
///
/// # Errors
/// When one cannot be read.
pub fn oldest_leaf(config: &MachineConfig) -> Result<Option<Timestamp>, BootstrapError> {
    Ok(leaves(config)?.iter().map(|(_, leaf)| leaf.made_at()).min())
}

/// Files of certificates that sign no others, without the ending of their names.
fn leaves(config: &MachineConfig) -> Result<Vec<(String, Seen)>, PkiError> {
    let mut leaves = Vec::new();
    for file in &config.files {
        let Some(name) = file.path.strip_suffix(".crt") else {
            continue;
        };
        // The first one of a chain is the holder's.
        let first = certificates(&file.content)?.into_iter().next();
        leaves.extend(
            first
                .filter(|first| !first.is_authority)
                .map(|first| (name.to_owned(), first)),
        );
    }
    Ok(leaves)
}

/// A certificate and its key, as [`crate::pair`] writes them.
fn identity(config: &MachineConfig, name: &str) -> Option<Certificate> {
    let content = |ending: &str| {
        let is_it = |file: &&File| file.path.strip_suffix(ending) == Some(name);
        config.files.iter().find(is_it).map(|file| file.content.clone())
    };
    Some(Certificate {
        certificate: content(".crt")?,
        key: content(".key")?,
    })
}

fn write(config: &mut MachineConfig, path: String, content: String) {
    if let Some(file) = config.files.iter_mut().find(|file| file.path == path) {
        file.content = content;
    }
}

#[cfg(test)]
mod tests {
    use cluster_pki::{ClusterPki, Subject};
    use jiff::SignedDuration;

    use super::*;
    use crate::{pair, plain, secret};

    const DAY: SignedDuration = SignedDuration::from_hours(24);

    fn now() -> Timestamp {
        Timestamp::from_second(1_790_000_000).unwrap()
    }

    /// With a server of these names, a client, and files that are none of a leaf.
    fn config(pki: &ClusterPki, names: &[&str], at: Timestamp) -> MachineConfig {
        let server = names
            .iter()
            .fold(Subject::server("s"), |subject, name| subject.dns(name));
        let mut files = vec![
            plain("/pki/ca.crt", pki.trusted_cluster()),
            secret("/pki/ca.key", pki.cluster.key.as_str()),
            secret("/pki/sa.key", pki.service_account_key.as_str()),
        ];
        for (path, subject) in [("/pki/s", server), ("/pki/c", Subject::client("c"))] {
            files.extend(pair(path, &pki.cluster.issue(&subject, at).unwrap()));
        }
        MachineConfig {
            files,
            ..MachineConfig::default()
        }
    }

    #[test]
    fn leaves_stay_with_their_keys_where_nothing_else_is_said_and_one_is_as_old_as_it_is() {
        let pki = ClusterPki::generate(now()).unwrap();
        let before = config(&pki, &["a"], now());
        let (later, due) = (now() + DAY, now() - DAY);

        let mut same = config(&pki, &["a"], later);
        assert!(same.files != before.files);
        keep_leaves(&mut same, &before, due, later).unwrap();
        assert!(same.files == before.files);
        assert_eq!(oldest_leaf(&same).unwrap(), Some(now()));

        let mut another = config(&pki, &["a", "b"], later);
        keep_leaves(&mut another, &before, due, later).unwrap();
        for (name, kept) in [("/pki/s", false), ("/pki/c", true)] {
            let (own, other) = (
                identity(&another, name).unwrap(),
                identity(&before, name).unwrap(),
            );
            assert_eq!(own.certificate == other.certificate, kept, "{name}");
            assert_eq!(own.key == other.key, kept, "{name}");
        }
        assert_eq!(oldest_leaf(&another).unwrap(), Some(now()));

        let mut renewed = config(&pki, &["a"], later);
        keep_leaves(&mut renewed, &before, now(), later).unwrap();
        assert_eq!(oldest_leaf(&renewed).unwrap(), Some(later));
    }

    #[test]
    fn authorities_are_those_of_now_and_their_leaves_are_new() {
        let mut pki = ClusterPki::generate(now()).unwrap();
        let before = config(&pki, &["a"], now());
        pki.trust_new_authorities(now()).unwrap();
        pki.issue_from_new_authorities();
        let mut after = config(&pki, &["a"], now());
        let (fresh, due) = (after.files.clone(), now() - DAY);
        keep_leaves(&mut after, &before, due, now()).unwrap();
        assert!(after.files == fresh);
        // Nothing that was issued: no time.
        assert_eq!(oldest_leaf(&MachineConfig::default()).unwrap(), None);
    }

    #[test]
    fn what_cannot_be_read_is_told() {
        let pki = ClusterPki::generate(now()).unwrap();
        let before = config(&pki, &["a"], now());
        let mut broken = before.clone();
        broken.files.push(plain(
            "/pki/x.crt",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        ));
        assert!(keep_leaves(&mut broken, &before, now(), now()).is_err());
        assert!(oldest_leaf(&broken).is_err());
    }
}
