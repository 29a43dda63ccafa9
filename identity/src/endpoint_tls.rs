//! The certificate of a stamp's HTTPS endpoint, and the small CA that clients have to trust.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType, SerialNumber, date_time_ymd,
};

use zeroize::Zeroizing;

use crate::secret::random;

/// Validity of the CA.
const CA_DAYS: i64 = 3650;
/// Validity of the certificate; clients accept no more than 825 days.
const LEAF_DAYS: i64 = 397;

/// Why a certificate cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A name is not a DNS name.
    #[error("'{0}' is not a DNS name; use letters, digits, '-' and '.'")]
    Name(String),
    /// The cryptographic library refused.
    #[error("the certificate of the endpoint cannot be made")]
    Make(#[source] rcgen::Error),
}

/// The CA of an endpoint's certificates. It signs each renewed certificate, so that clients need no new CA.
pub struct EndpointCa {
    certificate: String,
    key: Zeroizing<String>,
}

impl EndpointCa {
    /// Validity of a CA.
    pub const LIFETIME: SignedDuration = SignedDuration::from_hours(24 * CA_DAYS);

    /// A new CA, good from a day before `now` (clocks differ).
    ///
    /// # Errors
    /// When the cryptographic library refuses.
    pub fn generate(now: Timestamp) -> Result<Self, TlsError> {
        let key = KeyPair::generate().map_err(TlsError::Make)?;
        let mut ca = params("Landfall stamp CA", now, CA_DAYS);
        // A unique name for each CA: clients find the issuer by name, and may trust two stamps at the same
        // time.
        ca.distinguished_name
            .push(DnType::OrganizationalUnitName, hex::encode(random::<8>()));
        ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        // RFC 5280 requires it, and Python 3.13 (VERIFY_X509_STRICT) enforces it.
        ca.use_authority_key_identifier_extension = true;
        let certificate = ca.self_signed(&key).map_err(TlsError::Make)?;
        Ok(Self {
            certificate: certificate.pem(),
            key: Zeroizing::new(key.serialize_pem()),
        })
    }

    /// A stored CA.
    ///
    /// # Errors
    /// When it is not a certificate and a key.
    pub fn from_pem(certificate: &str, key: &str) -> Result<Self, TlsError> {
        let ca = Self {
            certificate: certificate.to_owned(),
            key: Zeroizing::new(key.to_owned()),
        };
        ca.issuer().map(drop)?;
        Ok(ca)
    }

    /// PEM of its certificate.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate
    }

    /// PEM of its private key, PKCS #8. A secret.
    pub fn key_pem(&self) -> &str {
        &self.key
    }

    fn issuer(&self) -> Result<Issuer<'_, KeyPair>, TlsError> {
        let key = KeyPair::from_pem(&self.key).map_err(TlsError::Make)?;
        Issuer::from_ca_cert_pem(&self.certificate, key).map_err(TlsError::Make)
    }

    /// A certificate for `localhost`, `127.0.0.1`, `::1` and the given names and addresses, good from a day before `now`.
    ///
    /// # Errors
    /// When a name is not a DNS name.
    pub fn issue(
        &self,
        names: &[String],
        addresses: &[IpAddr],
        now: Timestamp,
    ) -> Result<EndpointTls, TlsError> {
        let key = KeyPair::generate().map_err(TlsError::Make)?;
        let mut leaf = params("Landfall stamp", now, LEAF_DAYS);
        leaf.is_ca = IsCa::ExplicitNoCa;
        leaf.use_authority_key_identifier_extension = true;
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        leaf.subject_alt_names = subject_names(names, addresses)?;
        let cert = leaf.signed_by(&key, &self.issuer()?).map_err(TlsError::Make)?;
        Ok(EndpointTls {
            ca_pem: self.certificate.clone(),
            cert_pem: cert.pem(),
            key_pem: key.serialize_pem(),
        })
    }
}

impl std::fmt::Debug for EndpointCa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EndpointCa")
            .field("certificate", &self.certificate)
            .finish_non_exhaustive()
    }
}

/// PEM files of an endpoint.
pub struct EndpointTls {
    /// The certificates that clients have to trust: the CA's, and during a change of the CA also the next
    /// one's.
    pub ca_pem: String,
    /// The endpoint's certificate.
    pub cert_pem: String,
    /// The endpoint's private key, PKCS #8. A secret.
    pub key_pem: String,
}

impl EndpointTls {
    /// A certificate of a CA that is not stored: for endpoints that do not outlive it.
    ///
    /// # Errors
    /// When a name is not a DNS name.
    pub fn generate(names: &[String], addresses: &[IpAddr], now: Timestamp) -> Result<Self, TlsError> {
        EndpointCa::generate(now)?.issue(names, addresses, now)
    }
}

impl std::fmt::Debug for EndpointTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EndpointTls")
            .field("cert_pem", &self.cert_pem)
            .finish_non_exhaustive()
    }
}

fn subject_names(names: &[String], addresses: &[IpAddr]) -> Result<Vec<SanType>, TlsError> {
    let mut result: Vec<SanType> = Vec::new();
    let mut add = |name: SanType| {
        if !result.contains(&name) {
            result.push(name);
        }
    };
    for name in std::iter::once("localhost").chain(names.iter().map(String::as_str)) {
        let labels = name.strip_prefix("*.").unwrap_or(name).split('.');
        let well = name.len() <= 253
            && labels.into_iter().all(|label| {
                (1..=63).contains(&label.len())
                    && label
                        .bytes()
                        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
                    && !label.starts_with('-')
                    && !label.ends_with('-')
            });
        let text = name.to_ascii_lowercase().try_into().ok().filter(|_| well);
        add(SanType::DnsName(
            text.ok_or_else(|| TlsError::Name(name.to_owned()))?,
        ));
    }
    let own = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    for address in own.iter().chain(addresses) {
        add(SanType::IpAddress(*address));
    }
    Ok(result)
}

fn params(name: &str, now: Timestamp, days: i64) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::OrganizationName, "Landfall");
    params.distinguished_name.push(DnType::CommonName, name);
    let mut serial = random::<16>();
    // Positive and not zero, as RFC 5280 requires.
    serial[0] = (serial[0] & 0x7f) | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    let (year, month, date) = day(now - SignedDuration::from_hours(24));
    params.not_before = date_time_ymd(year, month, date);
    let (year, month, date) = day(now + SignedDuration::from_hours(24 * days));
    params.not_after = date_time_ymd(year, month, date);
    params
}

/// Year, month and day, UTC: certificates need no more precision.
fn day(at: Timestamp) -> (i32, u8, u8) {
    let date = at.to_zoned(jiff::tz::TimeZone::UTC).date();
    (
        i32::from(date.year()),
        date.month().unsigned_abs(),
        date.day().unsigned_abs(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use x509_parser::prelude::*;

    #[test]
    fn certificates_pass_strict_checks() {
        let now: Timestamp = "2026-05-04T12:00:00Z".parse().unwrap();
        let names = [
            "management.local.landfall.test".to_owned(),
            "localhost".to_owned(),
        ];
        let tls = EndpointTls::generate(&names, &["10.1.2.3".parse().unwrap()], now).unwrap();
        let (_, ca) = parse_x509_pem(tls.ca_pem.as_bytes()).unwrap();
        let ca = ca.parse_x509().unwrap();
        let (_, leaf) = parse_x509_pem(tls.cert_pem.as_bytes()).unwrap();
        let leaf = leaf.parse_x509().unwrap();

        let basic = ca.basic_constraints().unwrap().unwrap();
        assert!(basic.critical && basic.value.ca);
        assert!(
            ca.key_usage().unwrap().unwrap().critical
                && ca.key_usage().unwrap().unwrap().value.key_cert_sign()
        );
        assert_eq!(leaf.issuer(), ca.subject());
        leaf.verify_signature(Some(ca.public_key())).unwrap();
        let identifiers = |certificate: &X509Certificate<'_>| {
            let (mut subject, mut authority) = (None, None);
            for extension in certificate.extensions() {
                match extension.parsed_extension() {
                    ParsedExtension::SubjectKeyIdentifier(id) => subject = Some(id.0.to_vec()),
                    ParsedExtension::AuthorityKeyIdentifier(id) => {
                        authority = id.key_identifier.as_ref().map(|id| id.0.to_vec())
                    }
                    _ => {}
                }
            }
            (subject, authority)
        };
        let (ca_id, ca_authority) = identifiers(&ca);
        assert!(ca_id.is_some());
        assert_eq!(ca_id, ca_authority);
        assert_eq!(identifiers(&leaf).1, ca_id);
        assert_eq!(
            leaf.subject_alternative_name()
                .unwrap()
                .unwrap()
                .value
                .general_names
                .len(),
            5
        );
        let valid = leaf.validity();
        assert!(
            valid.not_before.timestamp() < now.as_second()
                && valid.not_after.timestamp() > now.as_second() + 86_400 * 390
        );
        assert!(!format!("{tls:?}").contains("PRIVATE"));
    }

    #[test]
    fn a_kept_ca_signs_again() {
        let now: Timestamp = "2026-05-04T12:00:00Z".parse().unwrap();
        let made = EndpointCa::generate(now).unwrap();
        let kept = EndpointCa::from_pem(made.certificate_pem(), made.key_pem()).unwrap();
        let (first, second) = (
            made.issue(&[], &[], now).unwrap(),
            kept.issue(&[], &[], now).unwrap(),
        );
        assert_eq!(first.ca_pem, second.ca_pem);
        assert_ne!(first.cert_pem, second.cert_pem);
        let (_, ca) = parse_x509_pem(made.certificate_pem().as_bytes()).unwrap();
        let ca = ca.parse_x509().unwrap();
        for tls in [&first, &second] {
            let (_, leaf) = parse_x509_pem(tls.cert_pem.as_bytes()).unwrap();
            let leaf = leaf.parse_x509().unwrap();
            assert_eq!(leaf.issuer().as_raw(), ca.subject().as_raw());
            leaf.verify_signature(Some(ca.public_key())).unwrap();
        }
        assert!(!format!("{made:?}").contains("PRIVATE"));
        let other = EndpointCa::generate(now).unwrap();
        assert!(EndpointCa::from_pem(made.certificate_pem(), "no key").is_err());
        assert!(EndpointCa::from_pem("no certificate", other.key_pem()).is_err());
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for bad in ["", "a b", "-a", "a..b", "ä.test", "a_b", &"a".repeat(64)] {
            let made = EndpointTls::generate(&[bad.to_owned()], &[], Timestamp::UNIX_EPOCH);
            assert!(matches!(made, Err(TlsError::Name(_))), "{bad}");
        }
    }
}
