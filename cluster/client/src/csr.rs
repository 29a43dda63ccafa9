//! Parses requests for kubelets' serving certificates, and issued ones, so that no other parser can read them
//! differently.
//!
//! The API server and the signer parse a request with Go, this code with another parser. If two parsers
//! disagree, a request could be approved for one name and signed for another. So only the canonical encoding
//! counts: the parsed values are encoded again, and every byte that determines a name must be the same as in
//! the input.
//!
//! Always true: pure, no I/O; a request that is not in this form is refused with the reason.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
};

use cluster_api::NodeWish;
use x509_parser::{
    certification_request::X509CertificationRequest,
    cri_attributes::ParsedCriAttribute,
    extensions::{GeneralName, ParsedExtension},
    prelude::{FromDer as _, X509Certificate},
    x509::X509Name,
};

const REQUEST: &str = "CERTIFICATE REQUEST";
const CERTIFICATE: &str = "CERTIFICATE";
/// Group of all kubelets: the organisation in their certificates.
pub(crate) const NODES: &str = "system:nodes";
/// Base64 characters per line of PEM, as Go writes it.
const PEM_LINE: usize = 64;

/// Tags of DER.
mod tag {
    pub(super) const OBJECT_ID: u8 = 0x06;
    pub(super) const OCTETS: u8 = 0x04;
    pub(super) const UTF8: u8 = 0x0c;
    pub(super) const PRINTABLE: u8 = 0x13;
    pub(super) const SEQUENCE: u8 = 0x30;
    pub(super) const SET: u8 = 0x31;
    pub(super) const ATTRIBUTES: u8 = 0xa0;
    pub(super) const DNS_NAME: u8 = 0x82;
    pub(super) const IP_ADDRESS: u8 = 0x87;
}

/// Encoded object identifiers.
mod oid {
    pub(super) const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
    pub(super) const ORGANIZATION: &[u8] = &[0x55, 0x04, 0x0a];
    pub(super) const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];
    pub(super) const EXTENSION_REQUEST: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x0e];
}

/// The reason why a request or a certificate is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unfit {
    #[error("it is not exactly one PEM block in canonical form")]
    Pem,
    #[error("it cannot be read as DER")]
    Der,
    #[error("its subject is not one common name and one organisation in canonical form")]
    Subject,
    #[error("it asks for something besides subject alternative names, or does not ask in canonical form")]
    Extensions,
    #[error("its subject alternative names are not all DNS names and IPv4 addresses")]
    AltNames,
}

/// All names in a serving certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServingNames {
    common_name: String,
    organization: String,
    dns: BTreeSet<String>,
    addresses: BTreeSet<IpAddr>,
}

impl ServingNames {
    /// The names permitted for this node's kubelet. `None` while the node has no address.
    pub(crate) fn of(node: &NodeWish) -> Option<Self> {
        Some(Self {
            common_name: format!("system:node:{}", node.name),
            organization: NODES.to_owned(),
            dns: BTreeSet::from([node.name.clone()]),
            addresses: BTreeSet::from([IpAddr::V4(node.address?)]),
        })
    }

    /// The names in a request (PEM).
    pub(crate) fn requested(text: &[u8]) -> Result<Self, Unfit> {
        let der = only_block(text, REQUEST)?;
        let (rest, request) = X509CertificationRequest::from_der(&der).map_err(|_| Unfit::Der)?;
        if !rest.is_empty() {
            return Err(Unfit::Der);
        }
        let info = &request.certification_request_info;
        let (common_name, organization) = subject(&info.subject)?;
        let [attribute] = info.attributes() else {
            return Err(Unfit::Extensions);
        };
        let ParsedCriAttribute::ExtensionRequest(requested) = attribute.parsed_attribute() else {
            return Err(Unfit::Extensions);
        };
        let [extension] = &requested.extensions[..] else {
            return Err(Unfit::Extensions);
        };
        let ParsedExtension::SubjectAlternativeName(alt_names) = extension.parsed_extension() else {
            return Err(Unfit::Extensions);
        };
        if !info.raw.ends_with(&attributes(&alt_names.general_names)?) {
            return Err(Unfit::Extensions);
        }
        let (dns, addresses) = names(&alt_names.general_names)?;
        Ok(Self {
            common_name,
            organization,
            dns,
            addresses,
        })
    }

    /// The names in an issued certificate (PEM).
    pub(crate) fn issued(text: &[u8]) -> Result<Self, Unfit> {
        let der = only_block(text, CERTIFICATE)?;
        let (rest, certificate) = X509Certificate::from_der(&der).map_err(|_| Unfit::Der)?;
        if !rest.is_empty() {
            return Err(Unfit::Der);
        }
        let (common_name, organization) = subject(certificate.subject())?;
        let alt_names = certificate
            .subject_alternative_name()
            .map_err(|_| Unfit::Extensions)?
            .ok_or(Unfit::Extensions)?;
        let (dns, addresses) = names(&alt_names.value.general_names)?;
        Ok(Self {
            common_name,
            organization,
            dns,
            addresses,
        })
    }
}

impl std::fmt::Display for ServingNames {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {}", self.common_name, self.organization)?;
        for name in &self.dns {
            write!(f, ", {name}")?;
        }
        for address in &self.addresses {
            write!(f, ", {address}")?;
        }
        Ok(())
    }
}

/// The content of a text that consists of exactly this PEM block, as Go writes it.
fn only_block(text: &[u8], label: &str) -> Result<Vec<u8>, Unfit> {
    let (_, block) = x509_parser::pem::parse_x509_pem(text).map_err(|_| Unfit::Pem)?;
    if block.label == label && pem(label, &block.contents).as_bytes() == text {
        Ok(block.contents)
    } else {
        Err(Unfit::Pem)
    }
}

/// PEM as Go's `pem.EncodeToMemory` writes it.
fn pem(label: &str, der: &[u8]) -> String {
    use base64::Engine as _;
    let encoded = base64::engine::general_purpose::STANDARD.encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    for (at, character) in encoded.chars().enumerate() {
        if at > 0 && at % PEM_LINE == 0 {
            text.push('\n');
        }
        text.push(character);
    }
    text.push_str(&format!("\n-----END {label}-----\n"));
    text
}

/// Common name and organisation of a subject with exactly one of each.
fn subject(name: &X509Name<'_>) -> Result<(String, String), Unfit> {
    let (mut common_name, mut organization, mut encoded) = (None, None, Vec::new());
    for part in name.iter_rdn() {
        let mut attributes = part.iter();
        let (Some(attribute), None) = (attributes.next(), attributes.next()) else {
            return Err(Unfit::Subject);
        };
        let id = attribute.attr_type().as_bytes();
        let kind = match attribute.attr_value().tag().0 {
            12 => tag::UTF8,
            19 => tag::PRINTABLE,
            _ => return Err(Unfit::Subject),
        };
        let value = attribute.as_slice();
        let place = match id {
            oid::COMMON_NAME => &mut common_name,
            oid::ORGANIZATION => &mut organization,
            _ => return Err(Unfit::Subject),
        };
        let text = String::from_utf8(value.to_vec()).map_err(|_| Unfit::Subject)?;
        if place.replace(text).is_some() {
            return Err(Unfit::Subject);
        }
        let pair = [der(tag::OBJECT_ID, id), der(kind, value)].concat();
        encoded.extend(der(tag::SET, &der(tag::SEQUENCE, &pair)));
    }
    match (common_name, organization) {
        (Some(common_name), Some(organization)) if der(tag::SEQUENCE, &encoded) == name.as_raw() => {
            Ok((common_name, organization))
        }
        _ => Err(Unfit::Subject),
    }
}

/// The attributes of a request for exactly these names.
fn attributes(names: &[GeneralName<'_>]) -> Result<Vec<u8>, Unfit> {
    let mut encoded = Vec::new();
    for name in names {
        encoded.extend(match name {
            GeneralName::DNSName(name) => der(tag::DNS_NAME, name.as_bytes()),
            GeneralName::IPAddress(bytes) => der(tag::IP_ADDRESS, bytes),
            _ => return Err(Unfit::AltNames),
        });
    }
    let value = der(tag::OCTETS, &der(tag::SEQUENCE, &encoded));
    let extension = der(
        tag::SEQUENCE,
        &[der(tag::OBJECT_ID, oid::SUBJECT_ALT_NAME), value].concat(),
    );
    let requested = der(tag::SET, &der(tag::SEQUENCE, &extension));
    let attribute = [der(tag::OBJECT_ID, oid::EXTENSION_REQUEST), requested].concat();
    Ok(der(tag::ATTRIBUTES, &der(tag::SEQUENCE, &attribute)))
}

/// The names, if all are of the expected kinds and none is repeated.
fn names(names: &[GeneralName<'_>]) -> Result<(BTreeSet<String>, BTreeSet<IpAddr>), Unfit> {
    let (mut dns, mut addresses) = (BTreeSet::new(), BTreeSet::new());
    for name in names {
        let first = match name {
            GeneralName::DNSName(name) => dns.insert((*name).to_owned()),
            GeneralName::IPAddress(bytes) => {
                let bytes = <[u8; 4]>::try_from(*bytes).map_err(|_| Unfit::AltNames)?;
                addresses.insert(IpAddr::V4(Ipv4Addr::from(bytes)))
            }
            _ => return Err(Unfit::AltNames),
        };
        if !first {
            return Err(Unfit::AltNames);
        }
    }
    Ok((dns, addresses))
}

/// One element of DER: tag, length, content.
fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut encoded = vec![tag];
    match u8::try_from(content.len()) {
        Ok(short) if short < 0x80 => encoded.push(short),
        _ => {
            let length = content.len().to_be_bytes();
            let length = &length[length.iter().take_while(|byte| **byte == 0).count()..];
            encoded.push(0x80 | length.len() as u8);
            encoded.extend(length);
        }
    }
    encoded.extend(content);
    encoded
}

#[cfg(test)]
#[path = "csr_tests.rs"]
pub(crate) mod tests;
