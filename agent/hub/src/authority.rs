//! The stamp's CA for agents: it signs the service's certificate and the machines'.

use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use sha2::{Digest as _, Sha256};

/// The reason why a certificate could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// The library refused, or the request is invalid.
    #[error("cannot make the certificate of {0}")]
    Certificate(String, #[source] rcgen::Error),
    /// The service's certificate could not be shown.
    #[error("the certificate towards agents cannot be used")]
    Served(#[from] base_tls::CertificateError),
    /// The service's TLS could not be set up.
    #[error("cannot set up TLS for agents")]
    Tls(#[from] rustls::Error),
    /// A time outside the range of certificates.
    #[error("{0} is not a time that a certificate can hold")]
    Time(Timestamp),
}

/// Validity of machines' certificates.
const MACHINE_YEARS: i64 = agent_protocol::CERTIFICATE_YEARS;
const CA_YEARS: i64 = 30;
const SERVER_YEARS: i64 = 2;

/// The CA. Its key is a secret of the stamp.
#[derive(Clone)]
pub struct AgentCa {
    certificate: String,
    key: String,
}

/// The service's certificate for agents.
pub struct ServerIdentity {
    /// PEM.
    pub certificate: String,
    /// PEM (PKCS #8).
    pub key: String,
}

impl AgentCa {
    /// A new CA for a new stamp.
    ///
    /// # Errors
    /// When the library refuses.
    pub fn generate(now: Timestamp) -> Result<Self, CaError> {
        let refused = |error| CaError::Certificate("the agent CA".to_owned(), error);
        let key = KeyPair::generate().map_err(refused)?;
        let mut params = named("landfall-agent-ca");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        valid(&mut params, now, CA_YEARS)?;
        let certificate = params.self_signed(&key).map_err(refused)?;
        Ok(Self {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    }

    /// Loads a stored CA.
    ///
    /// # Errors
    /// When the texts are not a certificate and its key.
    pub fn from_pem(certificate: &str, key: &str) -> Result<Self, CaError> {
        let ca = Self {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
        };
        ca.issuer("the agent CA").map(drop)?;
        Ok(ca)
    }

    /// PEM of the certificate.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate
    }

    /// PEM of the key: store it with mode 0600.
    pub fn key_pem(&self) -> &str {
        &self.key
    }

    fn issuer(&self, of: &str) -> Result<Issuer<'_, KeyPair>, CaError> {
        let refused = |error| CaError::Certificate(of.to_owned(), error);
        let key = KeyPair::from_pem(&self.key).map_err(refused)?;
        Issuer::from_ca_cert_pem(&self.certificate, key).map_err(refused)
    }

    /// A certificate for the service at these addresses. Made at each start and not stored.
    ///
    /// # Errors
    /// When the library refuses.
    pub fn server(&self, addresses: &[IpAddr], now: Timestamp) -> Result<ServerIdentity, CaError> {
        let refused = |error| CaError::Certificate("the service".to_owned(), error);
        let key = KeyPair::generate().map_err(refused)?;
        let mut params = named("landfall");
        params.subject_alt_names = addresses.iter().copied().map(SanType::IpAddress).collect();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        valid(&mut params, now, SERVER_YEARS)?;
        let certificate = params
            .signed_by(&key, &self.issuer("the service")?)
            .map_err(refused)?;
        Ok(ServerIdentity {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    }

    /// A client certificate for a machine. Of the request only the key is used.
    pub(crate) fn sign(
        &self,
        request: &SigningRequest,
        machine: &str,
        now: Timestamp,
    ) -> Result<String, CaError> {
        let refused = |error| CaError::Certificate(machine.to_owned(), error);
        let mut params = named(machine);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        valid(&mut params, now, MACHINE_YEARS)?;
        let certificate = params
            .signed_by(&request.0.public_key, &self.issuer(machine)?)
            .map_err(refused)?;
        Ok(certificate.pem())
    }
}

/// A parsed certificate signing request with a valid signature.
pub(crate) struct SigningRequest(CertificateSigningRequestParams);

impl SigningRequest {
    pub(crate) fn parse(pem: &str) -> Result<Self, CaError> {
        CertificateSigningRequestParams::from_pem(pem)
            .map(Self)
            .map_err(|error| CaError::Certificate("an enrolling machine".to_owned(), error))
    }

    /// The hash of the public key.
    pub(crate) fn key_hash(&self) -> String {
        use rcgen::PublicKeyData as _;
        hex::encode(Sha256::digest(self.0.public_key.der_bytes()))
    }
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

/// Valid from a little before now, for clocks that are behind.
fn valid(params: &mut CertificateParams, now: Timestamp, years: i64) -> Result<(), CaError> {
    let at = |offset: SignedDuration| {
        let moment = now.checked_add(offset).map_err(|_| CaError::Time(now))?;
        time::OffsetDateTime::from_unix_timestamp(moment.as_second()).map_err(|_| CaError::Time(now))
    };
    params.not_before = at(SignedDuration::from_mins(-5))?;
    params.not_after = at(SignedDuration::from_hours(years * 365 * 24))?;
    Ok(())
}
