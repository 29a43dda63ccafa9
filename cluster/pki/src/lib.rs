//! A cluster's own certificate authorities and keys, and certificates from them.
//!
//! Three CAs a cluster (cluster, etcd, front proxy), ECDSA P-256; one key for service account tokens; one key that
//! encrypts secrets in etcd. All but the last can be replaced while the cluster serves ([`ClusterPki::trust_new_authorities`]). Called by `cluster/bootstrap` (files of machines, kubeconfigs) and by the control loops, which
//! keep the whole sealed in the store.
//!
//! Always true: no two clusters share a key; a certificate has only the needed names (CN, O) and extended key
//! usages; keys are never printed: they have no `Debug`.

pub mod inventory;
mod issue;
mod jwks;
mod keep;
mod rotate;

pub use issue::{Certificate, Subject};
pub use jwks::SERVICE_ACCOUNT_ALGORITHM;
pub use rotate::{Authorities, FormerAuthorities, ServiceAccountKey};

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256,
};
use serde::{Deserialize, Deserializer, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// The reason why a certificate could not be issued.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// The cryptographic library refused.
    #[error("cannot make the certificate of {0}")]
    Certificate(String, #[source] rcgen::Error),
    /// A time outside what a certificate can hold.
    #[error("{0} is not a time that a certificate can hold")]
    Time(Timestamp),
    /// The operating system gave no random bytes.
    #[error("cannot make a random key")]
    Random,
    /// A certificate is not one, or says a time that nobody can mean.
    #[error("a certificate of the inventory cannot be read")]
    Unreadable,
    /// The public key of service accounts is not one on P-256.
    #[error("the public key of the cluster's service accounts is not one that this release makes")]
    PublicKey,
}

/// The only format so far.
const FORMAT: u32 = 1;

fn known_format<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    match u32::deserialize(deserializer)? {
        FORMAT => Ok(FORMAT),
        other => Err(serde::de::Error::custom(format!(
            "format {other} of a cluster's keys is not known to this release: use the one that wrote it"
        ))),
    }
}

/// CAs live as long as AKS's: 30 years.
const CA_YEARS: i64 = 30;

/// A certificate authority.
#[derive(Clone, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(rename_all = "camelCase")]
pub struct Authority {
    /// PEM of its certificate.
    #[zeroize(skip)]
    pub certificate: String,
    /// PEM (PKCS #8) of its key.
    pub key: String,
}

/// All keys of a cluster.
#[derive(Clone, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(rename_all = "camelCase")]
pub struct ClusterPki {
    /// Format of this record. An unknown one is refused.
    #[serde(deserialize_with = "known_format")]
    pub v: u32,
    /// Signs the API server, its clients and kubelets.
    pub cluster: Authority,
    /// Signs etcd and its only client, the API server.
    pub etcd: Authority,
    /// Signs the API server towards aggregated API servers.
    pub front_proxy: Authority,
    /// PEM (PKCS #8, ECDSA P-256) of the key that signs service account tokens.
    pub service_account_key: String,
    /// PEM of its public half.
    #[zeroize(skip)]
    pub service_account_public_key: String,
    /// 32 bytes, base64: encrypts secrets in etcd.
    pub encryption_key: String,
    /// The prefix that etcd's content has when encrypted with it. Unique within a cluster.
    #[zeroize(skip)]
    #[serde(default = "first_key")]
    pub encryption_key_name: String,
    /// Keys needed to read a state restored from other clusters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub former: Vec<FormerKeys>,
    /// How often other authorities took the place of those before.
    #[zeroize(skip)]
    #[serde(default, skip_serializing_if = "is_zero")]
    pub round: u32,
    /// Authorities that are to take the place of the present ones: trusted, and nothing is issued by them yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Authorities>,
    /// Authorities whose place the present ones took: trusted, and nothing is issued by them any more.
    #[zeroize(skip)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub former_authorities: Option<FormerAuthorities>,
    /// The key that is to sign service account tokens next: tokens signed with it are taken already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_service_account_key: Option<ServiceAccountKey>,
    /// PEM of the public half of the key before: tokens signed with it are still taken.
    #[zeroize(skip)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub former_service_account_key: Option<String>,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

fn first_key() -> String {
    "key1".to_owned()
}

/// Another cluster's keys that are needed after a restore from its backup: to read its secrets, and to accept
/// the long-lived tokens in them. They do not permit impersonation of that cluster.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(rename_all = "camelCase")]
pub struct FormerKeys {
    /// PEM.
    #[zeroize(skip)]
    pub service_account_public_key: String,
    /// 32 bytes, base64.
    pub encryption_key: String,
    /// As in [`ClusterPki`].
    #[zeroize(skip)]
    pub encryption_key_name: String,
}

impl ClusterPki {
    /// New keys for a new cluster.
    ///
    /// # Errors
    /// When the system has no randomness or `now` is outside the range of certificates.
    pub fn generate(now: Timestamp) -> Result<Self, PkiError> {
        use base64::Engine as _;
        let service_account = ServiceAccountKey::generate()?;
        let authorities = Authorities::generate(0, now)?;
        let mut secret = [0_u8; 32];
        aws_lc_rs::rand::fill(&mut secret).map_err(|_| PkiError::Random)?;
        Ok(Self {
            v: FORMAT,
            cluster: authorities.cluster.clone(),
            etcd: authorities.etcd.clone(),
            front_proxy: authorities.front_proxy.clone(),
            service_account_public_key: service_account.public_key.clone(),
            service_account_key: service_account.key.clone(),
            encryption_key: base64::engine::general_purpose::STANDARD.encode(secret),
            encryption_key_name: first_key(),
            former: Vec::new(),
            round: 0,
            next: None,
            former_authorities: None,
            next_service_account_key: None,
            former_service_account_key: None,
        })
    }

    /// New keys for a new cluster whose state is restored from another one's backup.
    ///
    /// # Errors
    /// As [`Self::generate`].
    pub fn generate_after(source: &Self, now: Timestamp) -> Result<Self, PkiError> {
        let mut pki = Self::generate(now)?;
        pki.former = std::iter::once(FormerKeys {
            service_account_public_key: source.service_account_public_key.clone(),
            encryption_key: source.encryption_key.clone(),
            encryption_key_name: source.encryption_key_name.clone(),
        })
        .chain(source.former.iter().cloned())
        .collect();
        // The source's names have smaller numbers, from the same scheme.
        pki.encryption_key_name = format!("key{}", pki.former.len() + 1);
        Ok(pki)
    }
}

fn new_key(of: &str) -> Result<KeyPair, PkiError> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
        .map_err(|error| PkiError::Certificate(of.to_owned(), error))
}

fn authority(name: &str, now: Timestamp) -> Result<Authority, PkiError> {
    let key = new_key(name)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    params.serial_number = Some(issue::serial()?);
    issue::validity(&mut params, now, issue::after_years(now, CA_YEARS)?)?;
    let certificate = params
        .self_signed(&key)
        .map_err(|error| PkiError::Certificate(name.to_owned(), error))?;
    Ok(Authority {
        certificate: certificate.pem(),
        key: key.serialize_pem(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        Timestamp::from_second(1_790_000_000).expect("a constant within range")
    }

    #[test]
    fn a_copy_of_a_copy_reads_what_both_wrote_and_is_neither() {
        let first = ClusterPki::generate(now()).unwrap();
        let second = ClusterPki::generate_after(&first, now()).unwrap();
        let third = ClusterPki::generate_after(&second, now()).unwrap();
        let names: Vec<&str> = third
            .former
            .iter()
            .map(|keys| keys.encryption_key_name.as_str())
            .chain([third.encryption_key_name.as_str()])
            .collect();
        assert_eq!(names, ["key2", "key1", "key3"]);
        assert_eq!(third.former[1].encryption_key, first.encryption_key);
        assert_eq!(
            third.former[0].service_account_public_key,
            second.service_account_public_key
        );
        let text = serde_json::to_string(&third).unwrap();
        for foreign in [&first.cluster.key, &first.service_account_key, &second.etcd.key] {
            assert!(!text.contains(&foreign.replace('\n', "\\n")));
        }
    }

    #[test]
    fn it_survives_the_store() {
        let pki = ClusterPki::generate(now()).unwrap();
        let text = serde_json::to_string(&pki).unwrap();
        let back: ClusterPki = serde_json::from_str(&text).unwrap();
        assert_eq!(back.cluster.key, pki.cluster.key);
        assert_eq!(back.encryption_key, pki.encryption_key);
        let older = text.replacen("\"encryptionKeyName\":\"key1\"", "\"other\":1", 1);
        let back: ClusterPki = serde_json::from_str(&older).unwrap();
        assert_eq!(back.encryption_key_name, "key1");
        let newer = text.replacen("\"v\":1", "\"v\":2", 1);
        assert!(serde_json::from_str::<ClusterPki>(&newer).is_err());
    }

    #[test]
    fn authorities_live_30_years_and_leaves_two_from_a_little_before_now() {
        let pki = ClusterPki::generate(now()).unwrap();
        let leaf = pki.etcd.issue(&Subject::peer("etcd"), now()).unwrap();
        for (pem, years) in [(&pki.etcd.certificate, 30), (&leaf.certificate, 2)] {
            let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap();
            let parsed = pem.parse_x509().unwrap();
            let validity = parsed.validity();
            assert_eq!(validity.not_before.timestamp(), now().as_second() - 300);
            assert_eq!(
                validity.not_after.timestamp(),
                now().as_second() + years * 365 * 86_400
            );
            assert_eq!(parsed.is_ca(), years == 30);
        }
        let until = now() + jiff::SignedDuration::from_hours(8);
        let short = pki
            .cluster
            .issue_until(&Subject::client("u"), now(), until)
            .unwrap();
        let (_, pem) = x509_parser::pem::parse_x509_pem(short.certificate.as_bytes()).unwrap();
        let validity = pem.parse_x509().unwrap().validity().clone();
        assert_eq!(validity.not_after.timestamp(), until.as_second());
    }

    #[test]
    fn one_authority_does_not_speak_for_another() {
        let pki = ClusterPki::generate(now()).unwrap();
        let leaf = pki.etcd.issue(&Subject::client("kube-apiserver"), now()).unwrap();
        let (_, leaf) = x509_parser::pem::parse_x509_pem(leaf.certificate.as_bytes()).unwrap();
        let (_, ca) = x509_parser::pem::parse_x509_pem(pki.cluster.certificate.as_bytes()).unwrap();
        let (leaf, ca) = (leaf.parse_x509().unwrap(), ca.parse_x509().unwrap());
        assert!(leaf.verify_signature(Some(ca.public_key())).is_err());
    }

    #[test]
    fn serial_numbers_are_positive_and_never_the_same() {
        let pki = ClusterPki::generate(now()).unwrap();
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..8 {
            let leaf = pki.cluster.issue(&Subject::client("x"), now()).unwrap();
            let (_, pem) = x509_parser::pem::parse_x509_pem(leaf.certificate.as_bytes()).unwrap();
            let parsed = pem.parse_x509().unwrap();
            assert!(parsed.raw_serial().len() <= 20 && parsed.raw_serial()[0] & 0x80 == 0);
            assert!(seen.insert(parsed.raw_serial().to_vec()));
        }
    }

    #[test]
    fn no_two_clusters_share_a_key() {
        let (a, b) = (
            ClusterPki::generate(now()).unwrap(),
            ClusterPki::generate(now()).unwrap(),
        );
        assert_ne!(a.cluster.key, b.cluster.key);
        assert_ne!(a.encryption_key, b.encryption_key);
        assert_ne!(a.cluster.key, a.etcd.key);
    }

    #[test]
    fn a_certificate_says_who_it_is_for_and_nothing_more() {
        let pki = ClusterPki::generate(now()).unwrap();
        let subject = Subject::client("system:node:n1").group("system:nodes");
        let certificate = pki.cluster.issue(&subject, now()).unwrap();
        let (_, pem) = x509_parser::pem::parse_x509_pem(certificate.certificate.as_bytes()).unwrap();
        let parsed = pem.parse_x509().unwrap();
        assert_eq!(parsed.subject().to_string(), "O=system:nodes, CN=system:node:n1");
        let usage = parsed.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.client_auth && !usage.server_auth);
        assert!(parsed.subject_alternative_name().unwrap().is_none());
        assert!(parsed.validity().not_before.timestamp() < now().as_second());
        let (_, ca) = x509_parser::pem::parse_x509_pem(pki.cluster.certificate.as_bytes()).unwrap();
        assert!(
            parsed
                .verify_signature(Some(ca.parse_x509().unwrap().public_key()))
                .is_ok()
        );
    }

    #[test]
    fn server_names_are_exactly_those_given() {
        let pki = ClusterPki::generate(now()).unwrap();
        let subject = Subject::server("kube-apiserver")
            .dns("kubernetes")
            .ip("10.0.0.1".parse().unwrap());
        let certificate = pki.cluster.issue(&subject, now()).unwrap();
        let (_, pem) = x509_parser::pem::parse_x509_pem(certificate.certificate.as_bytes()).unwrap();
        let parsed = pem.parse_x509().unwrap();
        assert_eq!(
            parsed
                .subject_alternative_name()
                .unwrap()
                .unwrap()
                .value
                .general_names
                .len(),
            2
        );
    }
}
