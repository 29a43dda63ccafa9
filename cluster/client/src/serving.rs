//! Kubelets' serving certificates: approved for exactly what the node is, or left alone.

use std::net::{IpAddr, Ipv4Addr};

use cluster_api::{ClusterError, NodeWish};
use serde_json::{Value, json};
use x509_parser::{
    certification_request::X509CertificationRequest,
    extensions::{GeneralName, ParsedExtension},
    prelude::FromDer as _,
};

use crate::Cluster;

/// Who signs kubelets' serving certificates.
const SIGNER: &str = "kubernetes.io/kubelet-serving";
pub(crate) const LIST: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";

impl Cluster {
    pub(crate) async fn approve(&self, nodes: &[NodeWish]) -> Result<u32, ClusterError> {
        let selector = format!("fieldSelector=spec.signerName%3D{}", SIGNER.replace('/', "%2F"));
        let list = self
            .get("list certificate requests", &format!("{LIST}?{selector}"))
            .await?;
        let mut approved = 0;
        for request in list["items"].as_array().map(Vec::as_slice).unwrap_or_default() {
            if !is_pending(request) || !nodes.iter().any(|node| belongs_to(request, node)) {
                continue;
            }
            let Some(name) = request["metadata"]["name"].as_str() else {
                continue;
            };
            let patch = json!({
                // Only as it was looked at: somebody may have denied it meanwhile.
                "metadata": { "resourceVersion": request["metadata"]["resourceVersion"] },
                "status": { "conditions": [{
                    "type": "Approved", "status": "True", "reason": "LandfallNode",
                    "message": "the request matches the node's name and address"
                }] }
            });
            let outcome = self
                .merge(
                    "approve a serving certificate",
                    &format!("{LIST}/{name}/approval"),
                    &patch,
                )
                .await;
            match outcome {
                Ok(_) => approved += 1,
                Err(failure) if failure.is_conflict() || failure.is_absent() => {}
                Err(failure) => return Err(failure.into()),
            }
        }
        Ok(approved)
    }
}

fn is_pending(request: &Value) -> bool {
    request["status"]["conditions"]
        .as_array()
        .is_none_or(Vec::is_empty)
}

/// Whether a request asks for this node, the whole node and nothing but the node.
fn belongs_to(request: &Value, node: &NodeWish) -> bool {
    let spec = &request["spec"];
    let user = format!("system:node:{}", node.name);
    let groups = spec["groups"].as_array().map(Vec::as_slice).unwrap_or_default();
    let usages: Vec<&str> = spec["usages"]
        .as_array()
        .map(|usages| usages.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default();
    let allowed = ["digital signature", "key encipherment", "server auth"];
    spec["signerName"] == SIGNER
        && spec["username"] == user.as_str()
        && groups.iter().any(|group| group == "system:nodes")
        && usages.contains(&"server auth")
        && usages.iter().all(|usage| allowed.contains(usage))
        && spec["request"]
            .as_str()
            .is_some_and(|pem| names_match(pem, &user, node))
}

/// Reads the request itself: subject, and subject alternative names.
fn names_match(encoded: &str, user: &str, node: &NodeWish) -> bool {
    use base64::Engine as _;
    let Ok(pem) = base64::engine::general_purpose::STANDARD.decode(encoded) else {
        return false;
    };
    let Ok((_, block)) = x509_parser::pem::parse_x509_pem(&pem) else {
        return false;
    };
    let Ok((_, csr)) = X509CertificationRequest::from_der(&block.contents) else {
        return false;
    };
    let subject = &csr.certification_request_info.subject;
    let only = |mut values: Vec<&str>, wanted: &str| values.pop() == Some(wanted) && values.is_empty();
    let common = subject
        .iter_common_name()
        .filter_map(|name| name.as_str().ok())
        .collect();
    let organisation = subject
        .iter_organization()
        .filter_map(|name| name.as_str().ok())
        .collect();
    if !only(common, user) || !only(organisation, "system:nodes") {
        return false;
    }
    let mut names = Vec::new();
    let mut addresses = Vec::new();
    for extension in csr.requested_extensions().into_iter().flatten() {
        let ParsedExtension::SubjectAlternativeName(san) = extension else {
            continue;
        };
        for name in &san.general_names {
            match name {
                GeneralName::DNSName(name) => names.push((*name).to_owned()),
                GeneralName::IPAddress(bytes) => match <[u8; 4]>::try_from(*bytes) {
                    Ok(bytes) => addresses.push(IpAddr::V4(Ipv4Addr::from(bytes))),
                    Err(_) => return false,
                },
                _ => return false,
            }
        }
    }
    names == [node.name.as_str()] && node.address.is_some_and(|own| addresses == [IpAddr::V4(own)])
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    fn node() -> NodeWish {
        NodeWish {
            name: "n1".into(),
            address: "10.224.0.4".parse().ok(),
            ..NodeWish::default()
        }
    }

    fn request(user: &str, names: &[&str], address: &str) -> Value {
        let mut params =
            CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
        params
            .subject_alt_names
            .push(SanType::IpAddress(address.parse().unwrap()));
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::OrganizationName, "system:nodes");
        params.distinguished_name.push(DnType::CommonName, user);
        let pem = params
            .serialize_request(&KeyPair::generate().unwrap())
            .unwrap()
            .pem()
            .unwrap();
        json!({ "spec": {
            "signerName": SIGNER, "username": user, "groups": ["system:nodes", "system:authenticated"],
            "usages": ["digital signature", "server auth"],
            "request": base64::engine::general_purpose::STANDARD.encode(pem)
        } })
    }

    #[test]
    fn a_node_gets_a_certificate_for_itself() {
        assert!(belongs_to(
            &request("system:node:n1", &["n1"], "10.224.0.4"),
            &node()
        ));
    }

    #[test]
    fn nobody_gets_one_for_somebody_else() {
        for bad in [
            request("system:node:n2", &["n2"], "10.224.0.5"),
            request("system:node:n1", &["n2"], "10.224.0.4"),
            request("system:node:n1", &["n1", "kubernetes"], "10.224.0.4"),
            request("system:node:n1", &["n1"], "10.0.0.1"),
            request("system:node:n1", &[], "10.224.0.4"),
            request("system:node:n1", &["n1"], "::1"),
        ] {
            assert!(!belongs_to(&bad, &node()), "{bad}");
        }
        let mut client = request("system:node:n1", &["n1"], "10.224.0.4");
        client["spec"]["usages"] = json!(["client auth", "server auth"]);
        assert!(!belongs_to(&client, &node()));
        let mut signer = request("system:node:n1", &["n1"], "10.224.0.4");
        signer["spec"]["signerName"] = json!("kubernetes.io/kube-apiserver-client-kubelet");
        assert!(!belongs_to(&signer, &node()));
        let mut group = request("system:node:n1", &["n1"], "10.224.0.4");
        group["spec"]["groups"] = json!(["system:authenticated"]);
        assert!(!belongs_to(&group, &node()));
        let unknown = NodeWish {
            address: None,
            ..node()
        };
        assert!(!belongs_to(
            &request("system:node:n1", &["n1"], "10.224.0.4"),
            &unknown
        ));
        let mut rubbish = request("system:node:n1", &["n1"], "10.224.0.4");
        rubbish["spec"]["request"] = json!("bm90IGEgcmVxdWVzdA==");
        assert!(!belongs_to(&rubbish, &node()));
    }
}
