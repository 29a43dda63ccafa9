//! The certificate of a TLS listener: it can be exchanged while the listener runs.
//!
//! Always true: existing connections keep their certificate; a certificate and key that do not belong
//! together are refused, and the earlier ones stay.
//!
//! Called by: the ARM API's listener and the agent hub's.

use std::sync::{Arc, PoisonError, RwLock};

use rustls::{
    crypto::aws_lc_rs,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};

/// The reason why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// Certificate or key are not PEM.
    #[error("the {0} is not PEM")]
    Pem(&'static str, #[source] rustls_pki_types::pem::Error),
    /// Certificate and key do not belong together, or are of an unknown kind.
    #[error("certificate and key cannot be used together")]
    Pair(#[source] rustls::Error),
}

/// A certificate with its key. Cheap to clone; all clones show the same.
#[derive(Clone)]
pub struct ServedCertificate(Arc<RwLock<Arc<CertifiedKey>>>);

impl ServedCertificate {
    /// From PEM, the leaf first.
    ///
    /// # Errors
    /// When the texts are not PEM or do not belong together.
    pub fn from_pem(chain: &str, key: &str) -> Result<Self, CertificateError> {
        Ok(Self(Arc::new(RwLock::new(pair(chain, key)?))))
    }

    /// Sets the certificate for new connections.
    ///
    /// # Errors
    /// As [`ServedCertificate::from_pem`]; then the earlier one stays.
    pub fn replace(&self, chain: &str, key: &str) -> Result<(), CertificateError> {
        let new = pair(chain, key)?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }

    /// The leaf certificate for new connections.
    pub fn leaf(&self) -> Option<CertificateDer<'static>> {
        let shown = self.0.read().unwrap_or_else(PoisonError::into_inner);
        shown.cert.first().cloned()
    }
}

fn pair(chain: &str, key: &str) -> Result<Arc<CertifiedKey>, CertificateError> {
    let chain = CertificateDer::pem_slice_iter(chain.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| CertificateError::Pem("certificate", error))?;
    let key =
        PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|error| CertificateError::Pem("key", error))?;
    CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider())
        .map(Arc::new)
        .map_err(CertificateError::Pair)
}

impl ResolvesServerCert for ServedCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl std::fmt::Debug for ServedCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ServedCertificate")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    #[test]
    fn what_does_not_fit_is_refused_and_the_one_before_stays() {
        let ((one, one_key), (two, two_key)) = (made(), made());
        let served = ServedCertificate::from_pem(&one, &one_key).unwrap();
        let before = served.leaf();
        assert!(matches!(
            served.replace(&two, &one_key),
            Err(CertificateError::Pair(_))
        ));
        assert!(matches!(
            served.replace("x", &one_key),
            Err(CertificateError::Pair(_) | CertificateError::Pem(..))
        ));
        assert!(matches!(
            served.replace(&two, "x"),
            Err(CertificateError::Pem("key", _))
        ));
        assert_eq!(served.leaf(), before);
        served.clone().replace(&two, &two_key).unwrap();
        assert_ne!(served.leaf(), before);
    }
}
