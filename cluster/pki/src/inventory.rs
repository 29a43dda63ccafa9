//! What certificates and keys there are, without any secret: read from certificates themselves, not from what was once meant.

use jiff::{Timestamp, ToSpan as _};
use serde::Serialize;
use x509_parser::{certificate::X509Certificate, pem::Pem};

use crate::{ClusterPki, PkiError, issue::BACKDATE_MINUTES};

/// A certificate, as it says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Its subject, `O=system:nodes, CN=system:node:n1`.
    pub subject: String,
    /// From when it is good; clocks that are behind are allowed for.
    pub issued: Timestamp,
    /// Until when.
    pub expires: Timestamp,
    /// Whether it may sign others.
    pub is_authority: bool,
}

impl Seen {
    pub(crate) fn of(certificate: &X509Certificate<'_>) -> Result<Self, PkiError> {
        let validity = certificate.validity();
        let at = |second: i64| Timestamp::from_second(second).map_err(|_| PkiError::Unreadable);
        Ok(Self {
            subject: certificate.subject().to_string(),
            issued: at(validity.not_before.timestamp())?,
            expires: at(validity.not_after.timestamp())?,
            is_authority: certificate.is_ca(),
        })
    }

    /// When it was made, to the second: it is good from a little before that. For certificates of this crate.
    pub fn made_at(&self) -> Timestamp {
        self.issued
            .checked_add(BACKDATE_MINUTES.minutes())
            .unwrap_or(self.issued)
    }
}

/// The certificates of a PEM text, in their order; keys and whatever else it holds are passed over.
///
/// # Errors
/// When one of them cannot be read.
pub fn certificates(pem: &str) -> Result<Vec<Seen>, PkiError> {
    let mut seen = Vec::new();
    for block in Pem::iter_from_buffer(pem.as_bytes()) {
        let block = block.map_err(|_| PkiError::Unreadable)?;
        if block.label != "CERTIFICATE" {
            continue;
        }
        let certificate = block.parse_x509().map_err(|_| PkiError::Unreadable)?;
        seen.push(Seen::of(&certificate)?);
    }
    Ok(seen)
}

/// What something of an inventory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ItemKind {
    /// A certificate that signs others, with its key.
    Authority,
    /// A certificate that signs none, with its key.
    Certificate,
    /// A key without a certificate.
    Key,
}

/// Something of an inventory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Item {
    /// Its name among those of its holder, `cluster-ca`, `apiserver`.
    pub name: String,
    /// What it is.
    pub kind: ItemKind,
    /// Who has it: `the stamp`, `the control plane`, a node's name.
    pub holder: String,
    /// The subject of the certificate; empty for keys.
    pub subject: String,
    /// What it is used for at present: `in use`, or what it waits for.
    pub state: String,
    /// From when it is good, where that is known.
    pub issued_at: Option<Timestamp>,
    /// Until when; `None`: it does not end by itself.
    pub expires_at: Option<Timestamp>,
    /// When it is renewed by itself; `None`: somebody has to ask for it, or it is not known here.
    pub renews_at: Option<Timestamp>,
    /// How often it was replaced; `None` where nobody counts.
    pub generation: Option<u64>,
    /// What else there is to say, for people; may be empty.
    pub note: String,
}

impl Item {
    /// A certificate as it says of itself.
    pub fn of_certificate(name: &str, holder: &str, seen: &Seen) -> Self {
        Self {
            name: name.to_owned(),
            kind: if seen.is_authority {
                ItemKind::Authority
            } else {
                ItemKind::Certificate
            },
            holder: holder.to_owned(),
            subject: seen.subject.clone(),
            state: IN_USE.to_owned(),
            issued_at: Some(seen.issued),
            expires_at: Some(seen.expires),
            renews_at: None,
            generation: None,
            note: String::new(),
        }
    }

    /// A key of which no certificate says anything.
    pub fn of_key(name: &str, holder: &str, state: &str) -> Self {
        Self {
            name: name.to_owned(),
            kind: ItemKind::Key,
            holder: holder.to_owned(),
            subject: String::new(),
            state: state.to_owned(),
            issued_at: None,
            expires_at: None,
            renews_at: None,
            generation: None,
            note: String::new(),
        }
    }
}

/// Who has a cluster's own authorities and keys.
pub const STAMP: &str = "the stamp";
/// The state of what is used.
pub const IN_USE: &str = "in use";
/// The state of an authority that is to take the place of the present one.
const NEXT: &str = "trusted, issues nothing yet";
/// The state of one whose place another one took.
const FORMER: &str = "trusted, issues nothing any more";

impl ClusterPki {
    /// The cluster's authorities and keys: those in use, and those that come or go in a rotation.
    ///
    /// # Errors
    /// When a certificate cannot be read.
    pub fn inventory(&self) -> Result<Vec<Item>, PkiError> {
        let mut items = Vec::new();
        let mut add = |name: &str, pem: &str, state: &str, round: u32| -> Result<(), PkiError> {
            for seen in certificates(pem)? {
                items.push(Item {
                    state: state.to_owned(),
                    generation: Some(u64::from(round)),
                    note: "replaced by az aks rotate-certs".to_owned(),
                    ..Item::of_certificate(name, STAMP, &seen)
                });
            }
            Ok(())
        };
        if let Some(former) = &self.former_authorities {
            let round = self.round.saturating_sub(1);
            add("cluster-ca", &former.cluster, FORMER, round)?;
            add("etcd-ca", &former.etcd, FORMER, round)?;
            add("front-proxy-ca", &former.front_proxy, FORMER, round)?;
        }
        add("cluster-ca", &self.cluster.certificate, IN_USE, self.round)?;
        add("etcd-ca", &self.etcd.certificate, IN_USE, self.round)?;
        add(
            "front-proxy-ca",
            &self.front_proxy.certificate,
            IN_USE,
            self.round,
        )?;
        if let Some(next) = &self.next {
            let round = self.round.saturating_add(1);
            add("cluster-ca", &next.cluster.certificate, NEXT, round)?;
            add("etcd-ca", &next.etcd.certificate, NEXT, round)?;
            add("front-proxy-ca", &next.front_proxy.certificate, NEXT, round)?;
        }
        let rotated = "replaced by az aks oidc-issuer rotate-signing-keys";
        let mut key = |name: &str, state: &str, note: &str| {
            items.push(Item {
                note: note.to_owned(),
                ..Item::of_key(name, STAMP, state)
            });
        };
        if self.former_service_account_key.is_some() {
            key(
                "service-account-key",
                "its tokens are taken, it signs none any more",
                rotated,
            );
        }
        key("service-account-key", IN_USE, rotated);
        if self.next_service_account_key.is_some() {
            key(
                "service-account-key",
                "its tokens are taken, it signs none yet",
                rotated,
            );
        }
        key(
            &format!("encryption-key {}", self.encryption_key_name),
            IN_USE,
            "encrypts Secrets in etcd",
        );
        for former in &self.former {
            key(
                &format!("encryption-key {}", former.encryption_key_name),
                "reads what it has encrypted",
                "of the cluster that this one's state was restored from",
            );
        }
        Ok(items)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        Timestamp::from_second(1_790_000_000).unwrap()
    }

    /// Name and state of each.
    fn told(pki: &ClusterPki) -> Vec<(String, String)> {
        let items = pki.inventory().unwrap().into_iter();
        items.map(|item| (item.name, item.state)).collect()
    }

    #[test]
    fn an_inventory_tells_what_there_is_in_each_phase_of_a_rotation_and_no_secret() {
        let mut pki = ClusterPki::generate(now()).unwrap();
        let plain = [
            "cluster-ca",
            "etcd-ca",
            "front-proxy-ca",
            "service-account-key",
            "encryption-key key1",
        ];
        let names = |pki: &ClusterPki| told(pki).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        assert_eq!(names(&pki), plain);
        pki.trust_new_authorities(now()).unwrap();
        pki.trust_new_service_account_key().unwrap();
        let counts = |pki: &ClusterPki, state: &str| told(pki).iter().filter(|(_, own)| own == state).count();
        assert_eq!(
            (names(&pki).len(), counts(&pki, NEXT), counts(&pki, IN_USE)),
            (9, 3, 5)
        );
        pki.issue_from_new_authorities();
        pki.sign_with_new_service_account_key();
        assert_eq!(
            (names(&pki).len(), counts(&pki, FORMER), counts(&pki, IN_USE)),
            (9, 3, 5)
        );
        let text = serde_json::to_string(&pki.inventory().unwrap()).unwrap();
        for secret in ["PRIVATE", "BEGIN", pki.encryption_key.as_str()] {
            assert!(!text.contains(secret), "{text}");
        }
        let ca = pki.inventory().unwrap().remove(3);
        assert_eq!((ca.kind, ca.generation), (ItemKind::Authority, Some(1)));
        assert_eq!(ca.subject, "CN=landfall-cluster-ca-2");
        assert_eq!(ca.issued_at.unwrap().as_second(), now().as_second() - 300);
        pki.drop_former_authorities();
        pki.drop_former_service_account_key();
        assert_eq!(names(&pki), plain);
    }

    #[test]
    fn keys_are_passed_over_and_damage_is_told() {
        let pki = ClusterPki::generate(now()).unwrap();
        let leaf = pki.etcd.issue(&crate::Subject::peer("etcd"), now()).unwrap();
        let seen = certificates(&format!(
            "{}{}{}",
            leaf.key, leaf.certificate, pki.etcd.certificate
        ))
        .unwrap();
        let told: Vec<_> = seen
            .iter()
            .map(|seen| (seen.subject.as_str(), seen.is_authority))
            .collect();
        assert_eq!(told, [("CN=etcd", false), ("CN=landfall-etcd-ca", true)]);
        assert!(seen.iter().all(|seen| seen.made_at() == now()));
        assert!(certificates("").unwrap().is_empty());
        let damaged = leaf.certificate.replacen("MII", "AAA", 1);
        assert!(matches!(certificates(&damaged), Err(PkiError::Unreadable)));
    }
}
