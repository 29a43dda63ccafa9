use rcgen::{
    Attribute, CertificateParams, CustomExtension, DistinguishedName, DnType, DnValue, Issuer, KeyPair,
    SanType, string::BmpString,
};

use super::*;

/// Written by Go 1.26 (`x509.CreateCertificateRequest`, `pem.EncodeToMemory`), as by kubelets.
const OF_KUBELET: &str = "-----BEGIN CERTIFICATE REQUEST-----
MIIBETCBuAIBADAwMRUwEwYDVQQKEwxzeXN0ZW06bm9kZXMxFzAVBgNVBAMTDnN5
c3RlbTpub2RlOm4xMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEhO5OFPfU99N6
ceHyg3OCUBmXh9YTeqldP08kIRuJ9KhQPMookRyJoxQer3+te5anoG7mhb+go2Nr
jPOyHERuZ6AmMCQGCSqGSIb3DQEJDjEXMBUwEwYDVR0RBAwwCoICbjGHBArgAAQw
CgYIKoZIzj0EAwIDSAAwRQIgec/DKzkXDBPX+f4hcKFdYTKgBMIDBbNwzR3S+Dc4
LrECIQDEHq27X2HClwuLQN6ROdxv6F5htLQHkkYOaSR1aXeURQ==
-----END CERTIFICATE REQUEST-----
";

fn node() -> NodeWish {
    NodeWish {
        name: "n1".into(),
        address: "10.224.0.4".parse().ok(),
        ..NodeWish::default()
    }
}

/// A valid request of n1's kubelet, to be modified.
pub(crate) fn params() -> CertificateParams {
    let mut params = CertificateParams::new(vec!["n1".to_owned()]).unwrap();
    params
        .subject_alt_names
        .push(SanType::IpAddress("10.224.0.4".parse().unwrap()));
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::OrganizationName, "system:nodes");
    params
        .distinguished_name
        .push(DnType::CommonName, "system:node:n1");
    params
}

pub(crate) fn text(params: CertificateParams) -> String {
    params
        .serialize_request(&KeyPair::generate().unwrap())
        .unwrap()
        .pem()
        .unwrap()
}

/// A valid request with this modification.
fn but(spoil: impl FnOnce(&mut CertificateParams)) -> String {
    let mut params = params();
    spoil(&mut params);
    text(params)
}

/// A name that must not be signed: the API server's own.
fn evil() -> String {
    but(|params| params.subject_alt_names = vec![SanType::IpAddress("10.0.0.1".parse().unwrap())])
}

/// Texts that another parser reads as another request, or as none.
pub(crate) fn ambiguous() -> Vec<(&'static str, String)> {
    let honest = text(params());
    vec![
        (
            "an END line of another label, which Go skips with its block",
            honest.replace("-----END CERTIFICATE REQUEST-----", "-----END X-----") + &evil(),
        ),
        ("two blocks", honest.clone() + &evil()),
        ("two equal blocks", honest.clone() + &honest),
        ("text before", format!("for n1\n{honest}")),
        ("text after", format!("{honest}for n1\n")),
        ("no newline at the end", honest.trim_end().to_owned()),
        (
            "headers",
            honest.replacen("REQUEST-----\n", "REQUEST-----\nProc-Type: 4,CLEAR\n\n", 1),
        ),
        (
            "another label",
            honest.replace("CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"),
        ),
        ("lines that end as on Windows", honest.replace('\n', "\r\n")),
        ("spaces at the ends of lines", honest.replace('\n', " \n")),
    ]
}

/// Requests with ambiguous or additional content.
pub(crate) fn extravagant() -> Vec<(&'static str, String)> {
    let organization = DnType::CustomDnType(vec![2, 5, 4, 10]);
    let common_name = DnType::CustomDnType(vec![2, 5, 4, 3]);
    let bmp = |text: &str| DnValue::BmpString(BmpString::try_from(text).unwrap());
    let extension = |oid: &[u64]| CustomExtension::from_oid_content(oid, vec![0x30, 0x03, 0x01, 0x01, 0xff]);
    let with_attribute = params()
        .serialize_request_with_attributes(
            &KeyPair::generate().unwrap(),
            // A challenge password.
            vec![Attribute {
                oid: &[1, 2, 840, 113549, 1, 9, 7],
                values: vec![0x31, 0x03, 0x0c, 0x01, b'x'],
            }],
        )
        .unwrap()
        .pem()
        .unwrap();
    vec![
        (
            "a second organisation that is not UTF-8",
            but(|params| {
                params
                    .distinguished_name
                    .push(organization.clone(), bmp("system:masters"))
            }),
        ),
        (
            "a second organisation",
            but(|params| {
                params
                    .distinguished_name
                    .push(organization.clone(), "system:masters")
            }),
        ),
        (
            "a second common name that is not UTF-8",
            but(|params| {
                params
                    .distinguished_name
                    .push(common_name.clone(), bmp("kube-apiserver"))
            }),
        ),
        (
            "an organisational unit",
            but(|params| {
                params
                    .distinguished_name
                    .push(DnType::OrganizationalUnitName, "x")
            }),
        ),
        (
            "an extension that makes it a CA",
            but(|params| params.custom_extensions = vec![extension(&[2, 5, 29, 19])]),
        ),
        ("an attribute besides the extensions", with_attribute),
        (
            "an e-mail address",
            but(|params| {
                let address = "root@n1".to_owned().try_into().unwrap();
                params.subject_alt_names.push(SanType::Rfc822Name(address));
            }),
        ),
        (
            "an IPv6 address",
            but(|params| {
                params
                    .subject_alt_names
                    .push(SanType::IpAddress("::1".parse().unwrap()))
            }),
        ),
    ]
}

#[test]
fn what_a_kubelet_asks_for_is_read() {
    let own = ServingNames::of(&node()).unwrap();
    assert_eq!(ServingNames::requested(OF_KUBELET.as_bytes()), Ok(own.clone()));
    assert_eq!(ServingNames::requested(text(params()).as_bytes()), Ok(own));
}

#[test]
fn what_another_parser_may_read_differently_is_refused() {
    for (what, request) in ambiguous() {
        let read = ServingNames::requested(request.as_bytes());
        assert_eq!(read, Err(Unfit::Pem), "{what}:\n{request}");
    }
}

#[test]
fn only_a_subject_and_alternative_names_may_be_asked_for() {
    let reasons: Vec<_> = extravagant()
        .iter()
        .map(|(_, request)| ServingNames::requested(request.as_bytes()).unwrap_err())
        .collect();
    use Unfit::{AltNames, Extensions, Subject};
    assert_eq!(
        reasons,
        [
            Subject, Subject, Subject, Subject, Extensions, Extensions, AltNames, AltNames
        ]
    );
}

#[test]
fn a_byte_that_is_encoded_otherwise_is_refused() {
    // The length of the subject in two bytes instead of one: BER, which DER forbids and a lenient parser
    // accepts.
    let (_, block) = x509_parser::pem::parse_x509_pem(OF_KUBELET.as_bytes()).unwrap();
    let mut long = block.contents.clone();
    let at = long.windows(2).position(|pair| pair == [0x30, 0x30]).unwrap();
    long.splice(at + 1..at + 2, [0x81, 0x30]);
    // Request and request info grow by one.
    long[3] += 1;
    let info = long.windows(2).position(|pair| pair == [0x30, 0x81]).unwrap();
    long[info + 2] += 1;
    let read = ServingNames::requested(pem(REQUEST, &long).as_bytes());
    assert!(matches!(read, Err(Unfit::Der | Unfit::Subject)), "{read:?}");
    // Bytes after the request.
    let mut more = block.contents;
    more.push(0);
    assert_eq!(
        ServingNames::requested(pem(REQUEST, &more).as_bytes()),
        Err(Unfit::Der)
    );
}

#[test]
fn names_of_an_issued_certificate_are_compared_with_what_was_asked_for() {
    let key = KeyPair::generate().unwrap();
    let ca_key = KeyPair::generate().unwrap();
    let ca = Issuer::new(CertificateParams::default(), ca_key);
    let honest = params().signed_by(&key, &ca).unwrap().pem();
    let asked = ServingNames::requested(text(params()).as_bytes()).unwrap();
    assert_eq!(ServingNames::issued(honest.as_bytes()), Ok(asked.clone()));
    let mut others = params();
    others
        .subject_alt_names
        .push(SanType::DnsName("kubernetes".to_owned().try_into().unwrap()));
    let others = others.signed_by(&key, &ca).unwrap().pem();
    let issued = ServingNames::issued(others.as_bytes()).unwrap();
    assert_ne!(issued, asked);
    assert_eq!(
        issued.to_string(),
        "system:node:n1 of system:nodes, kubernetes, n1, 10.224.0.4"
    );
    assert_eq!(
        ServingNames::issued((honest + &others).as_bytes()),
        Err(Unfit::Pem)
    );
}
