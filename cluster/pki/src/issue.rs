//! Issues certificates of the authorities.

use std::net::{IpAddr, Ipv4Addr};

use jiff::{Timestamp, ToSpan as _};
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair, KeyUsagePurpose,
    SanType, SerialNumber,
};
use serde::{Deserialize, Serialize};

use crate::{Authority, PkiError, new_key};

/// Leaf certificates are valid for two years; kubelets renew theirs by themselves long before.
const LEAF_YEARS: i64 = 2;
/// Certificates are valid from a little before now, for clocks that are behind.
pub(crate) const BACKDATE_MINUTES: i64 = 5;

/// The subject of a certificate.
#[derive(Debug, Clone)]
pub struct Subject {
    name: String,
    group: Option<String>,
    names: Vec<String>,
    addresses: Vec<Ipv4Addr>,
    usages: Vec<ExtendedKeyUsagePurpose>,
}

impl Subject {
    fn new(name: &str, usages: Vec<ExtendedKeyUsagePurpose>) -> Self {
        Self {
            name: name.to_owned(),
            group: None,
            names: Vec::new(),
            addresses: Vec::new(),
            usages,
        }
    }

    /// A client; `name` is the Kubernetes user.
    pub fn client(name: &str) -> Self {
        Self::new(name, vec![ExtendedKeyUsagePurpose::ClientAuth])
    }

    /// A server.
    pub fn server(name: &str) -> Self {
        Self::new(name, vec![ExtendedKeyUsagePurpose::ServerAuth])
    }

    /// A client and server (an etcd member).
    pub fn peer(name: &str) -> Self {
        Self::new(
            name,
            vec![
                ExtendedKeyUsagePurpose::ServerAuth,
                ExtendedKeyUsagePurpose::ClientAuth,
            ],
        )
    }

    /// Sets the Kubernetes group.
    #[must_use]
    pub fn group(mut self, group: &str) -> Self {
        self.group = Some(group.to_owned());
        self
    }

    /// Adds a DNS name.
    #[must_use]
    pub fn dns(mut self, name: &str) -> Self {
        self.names.push(name.to_owned());
        self
    }

    /// Adds an address.
    #[must_use]
    pub fn ip(mut self, address: Ipv4Addr) -> Self {
        self.addresses.push(address);
        self
    }
}

/// A certificate and its key, both PEM.
#[derive(Clone, Serialize, Deserialize)]
pub struct Certificate {
    /// The certificate.
    pub certificate: String,
    /// Its key (PKCS #8).
    pub key: String,
}

impl Authority {
    /// A new key with a certificate of this authority.
    ///
    /// # Errors
    /// When the library refuses, or `now` is outside the range of certificates.
    pub fn issue(&self, subject: &Subject, now: Timestamp) -> Result<Certificate, PkiError> {
        self.issue_until(subject, now, after_years(now, LEAF_YEARS)?)
    }

    /// The same, valid until `until`.
    ///
    /// # Errors
    /// When the library refuses, or a time is outside the range of certificates.
    pub fn issue_until(
        &self,
        subject: &Subject,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<Certificate, PkiError> {
        let refused = |error| PkiError::Certificate(subject.name.clone(), error);
        let ca_key = KeyPair::from_pem(&self.key).map_err(refused)?;
        let issuer = Issuer::from_ca_cert_pem(&self.certificate, ca_key).map_err(refused)?;
        let key = new_key(&subject.name)?;

        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        if let Some(group) = &subject.group {
            params
                .distinguished_name
                .push(DnType::OrganizationName, group.as_str());
        }
        params
            .distinguished_name
            .push(DnType::CommonName, subject.name.as_str());
        for name in &subject.names {
            let name = name.as_str().try_into().map_err(refused)?;
            params.subject_alt_names.push(SanType::DnsName(name));
        }
        params.subject_alt_names.extend(
            subject
                .addresses
                .iter()
                .map(|address| SanType::IpAddress(IpAddr::V4(*address))),
        );
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages.clone_from(&subject.usages);
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(serial()?);
        validity(&mut params, now, until)?;
        let certificate = params.signed_by(&key, &issuer).map_err(refused)?;
        Ok(Certificate {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    }
}

/// 126 random bits: unpredictable and unique. The first bits are 01, so that the number is positive and of
/// constant length.
pub(crate) fn serial() -> Result<SerialNumber, PkiError> {
    let mut bytes = [0_u8; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| PkiError::Random)?;
    bytes[0] = bytes[0] & 0x3f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

/// This number of years of 365 days later.
pub(crate) fn after_years(now: Timestamp, years: i64) -> Result<Timestamp, PkiError> {
    let hours = years * 365 * 24;
    now.checked_add(hours.hours()).map_err(|_| PkiError::Time(now))
}

/// From a little before `now` until `until`.
pub(crate) fn validity(
    params: &mut CertificateParams,
    now: Timestamp,
    until: Timestamp,
) -> Result<(), PkiError> {
    let at = |moment: Timestamp| {
        time::OffsetDateTime::from_unix_timestamp(moment.as_second()).map_err(|_| PkiError::Time(moment))
    };
    params.not_before = at(now
        .checked_sub(BACKDATE_MINUTES.minutes())
        .map_err(|_| PkiError::Time(now))?)?;
    params.not_after = at(until)?;
    Ok(())
}
