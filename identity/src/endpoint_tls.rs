//! The certificate of a stamp's HTTPS endpoint, and the small CA that clients are told to trust.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType, SerialNumber, date_time_ymd,
};

use crate::secret::random;

/// How long the CA is good.
const CA_DAYS: i64 = 3650;
/// How long the certificate is good; clients accept no more than 825 days.
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

/// PEM files of an endpoint.
pub struct EndpointTls {
    /// The CA's certificate: what clients trust.
    pub ca_pem: String,
    /// The endpoint's certificate.
    pub cert_pem: String,
    /// The endpoint's private key, PKCS #8. A secret. The CA's own key is not kept: a new certificate means a new CA.
    pub key_pem: String,
}

impl EndpointTls {
    /// A new CA and a certificate for `localhost`, `127.0.0.1`, `::1` and the given names and addresses, good from a day
    /// before `now` (clocks differ).
    ///
    /// # Errors
    /// When a name is not a DNS name.
    pub fn generate(names: &[String], addresses: &[IpAddr], now: Timestamp) -> Result<Self, TlsError> {
        let ca_key = KeyPair::generate().map_err(TlsError::Make)?;
        let mut ca = params("Landfall stamp CA", now, CA_DAYS);
        // A name of its own for each: clients find the issuer by name, and two stamps may be trusted at the same time.
        ca.distinguished_name
            .push(DnType::OrganizationalUnitName, hex::encode(random::<8>()));
        ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        // RFC 5280 wants it, and Python 3.13 (VERIFY_X509_STRICT) insists.
        ca.use_authority_key_identifier_extension = true;
        let ca_cert = ca.self_signed(&ca_key).map_err(TlsError::Make)?;
        let issuer = Issuer::new(ca, ca_key);

        let key = KeyPair::generate().map_err(TlsError::Make)?;
        let mut leaf = params("Landfall stamp", now, LEAF_DAYS);
        leaf.is_ca = IsCa::ExplicitNoCa;
        leaf.use_authority_key_identifier_extension = true;
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        leaf.subject_alt_names = subject_names(names, addresses)?;
        let cert = leaf.signed_by(&key, &issuer).map_err(TlsError::Make)?;
        Ok(Self {
            ca_pem: ca_cert.pem(),
            cert_pem: cert.pem(),
            key_pem: key.serialize_pem(),
        })
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
    // Positive and not zero, as RFC 5280 asks.
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
    fn what_is_no_name_is_refused() {
        for bad in ["", "a b", "-a", "a..b", "ä.test", "a_b", &"a".repeat(64)] {
            let made = EndpointTls::generate(&[bad.to_owned()], &[], Timestamp::UNIX_EPOCH);
            assert!(matches!(made, Err(TlsError::Name(_))), "{bad}");
        }
    }
}
