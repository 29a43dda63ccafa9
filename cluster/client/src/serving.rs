//! Kubelets' serving certificates: approved only for the node's own names, and checked again once issued.
//!
//! Kubernetes' own checks of a serving request restrict user, group and usages, but not the names, and the
//! signer's CA is also trusted for the API server. So this approval is the only protection against a node
//! with another's name.

use std::{collections::BTreeSet, sync::PoisonError};

use cluster_api::{ClusterError, NodeWish};
use serde_json::{Value, json};

use crate::{
    Cluster,
    csr::{NODES, ServingNames, Unfit},
};

/// The signer of kubelets' serving certificates.
const SIGNER: &str = "kubernetes.io/kubelet-serving";
pub(crate) const LIST: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
/// The reason of our approvals.
const REASON: &str = "LandfallNode";

impl Cluster {
    pub(crate) async fn approve(&self, nodes: &[NodeWish]) -> Result<u32, ClusterError> {
        let selector = format!("fieldSelector=spec.signerName%3D{}", SIGNER.replace('/', "%2F"));
        let requests = self
            .list("list certificate requests", &format!("{LIST}?{selector}"))
            .await?;
        let mut approved = 0;
        for request in &requests {
            let Some(name) = request["metadata"]["name"].as_str() else {
                continue;
            };
            if !is_pending(request) || !nodes.iter().any(|node| belongs_to(request, node)) {
                continue;
            }
            let patch = json!({
                // Only for the version that was read: it may have been denied meanwhile.
                "metadata": { "resourceVersion": request["metadata"]["resourceVersion"] },
                "status": { "conditions": [{
                    "type": "Approved", "status": "True", "reason": REASON,
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
        self.check_issued(&requests).await?;
        Ok(approved)
    }

    /// Compares issued certificates with their requests. One with other names is withdrawn by deleting its
    /// request, so that a kubelet that has not fetched it yet never does, and reported: as an event and as a
    /// failure.
    async fn check_issued(&self, requests: &[Value]) -> Result<(), ClusterError> {
        let checked = std::mem::take(&mut *self.checked.lock().unwrap_or_else(PoisonError::into_inner));
        let (mut seen, mut wrong) = (BTreeSet::new(), Vec::new());
        for request in requests.iter().filter(|request| was_approved_here(request)) {
            let uid = request["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
            let Some(certificate) = request["status"]["certificate"].as_str() else {
                continue;
            };
            if !checked.contains(&uid)
                && let Err(why) = issued_as_asked(request, certificate)
            {
                wrong.push((request, why));
            }
            seen.insert(uid);
        }
        *self.checked.lock().unwrap_or_else(PoisonError::into_inner) = seen;
        let mut outcome = Ok(());
        for (request, why) in wrong {
            let name = request["metadata"]["name"].as_str().unwrap_or_default();
            let user = request["spec"]["username"].as_str().unwrap_or_default();
            let message = format!(
                "certificate request {name} of {user} was signed with other names than approved ({why}); it was deleted. \
                 Replace the node, and find out who may sign for {SIGNER} in this cluster"
            );
            tracing::error!(
                request = name,
                user,
                why,
                "a serving certificate has other names than approved"
            );
            let path = format!("{LIST}/{name}");
            match self.delete("withdraw a serving certificate", &path).await {
                Err(failure) if !failure.is_absent() => return Err(failure.into()),
                _ => {}
            }
            self.tell(
                request,
                "CertificateSigningRequest",
                true,
                "ServingCertificateMismatch",
                &message,
            )
            .await;
            outcome = Err(ClusterError::Refused {
                act: "sign a serving certificate as approved".to_owned(),
                why: message,
            });
        }
        outcome
    }
}

fn is_pending(request: &Value) -> bool {
    request["status"]["conditions"]
        .as_array()
        .is_none_or(Vec::is_empty)
}

fn was_approved_here(request: &Value) -> bool {
    request["status"]["conditions"]
        .as_array()
        .is_some_and(|conditions| {
            conditions
                .iter()
                .any(|condition| condition["type"] == "Approved" && condition["reason"] == REASON)
        })
}

/// Whether a request is for exactly this node's names.
fn belongs_to(request: &Value, node: &NodeWish) -> bool {
    let spec = &request["spec"];
    let user = format!("system:node:{}", node.name);
    let groups = spec["groups"].as_array().map(Vec::as_slice).unwrap_or_default();
    let usages: Vec<&str> = spec["usages"]
        .as_array()
        .map(|usages| usages.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default();
    let allowed = ["digital signature", "key encipherment", "server auth"];
    let for_it = spec["signerName"] == SIGNER
        && spec["username"] == user.as_str()
        && groups.iter().any(|group| group == NODES)
        && usages.contains(&"server auth")
        && usages.iter().all(|usage| allowed.contains(usage));
    if !for_it {
        return false;
    }
    match requested(request) {
        Ok(names) => ServingNames::of(node) == Some(names),
        Err(why) => {
            tracing::debug!(user, %why, "a serving certificate is not approved");
            false
        }
    }
}

/// The names in a request object.
fn requested(request: &Value) -> Result<ServingNames, Unfit> {
    let text = request["spec"]["request"].as_str().ok_or(Unfit::Pem)?;
    ServingNames::requested(&decode(text)?)
}

/// The difference between an issued certificate and its request, if any.
fn issued_as_asked(request: &Value, certificate: &str) -> Result<(), String> {
    let asked = requested(request).map_err(|why| format!("of the request, {why}"))?;
    let issued = decode(certificate)
        .and_then(|text| ServingNames::issued(&text))
        .map_err(|why| format!("of the certificate, {why}"))?;
    if issued == asked {
        Ok(())
    } else {
        Err(format!("approved for {asked}; issued for {issued}"))
    }
}

/// Decodes base64, as the API carries bytes.
fn decode(text: &str) -> Result<Vec<u8>, Unfit> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD
        .decode(text)
        .map_err(|_| Unfit::Pem)
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

    /// A request object with this text.
    fn object(text: &str) -> Value {
        let mut object = request("system:node:n1", &["n1"], "10.224.0.4");
        object["spec"]["request"] = json!(base64::engine::general_purpose::STANDARD.encode(text));
        object
    }

    /// A cluster with a request of n1 that was approved by us and issued for these names.
    fn issued(alt_names: &[&str]) -> impl Fn(&crate::fake::Asked) -> (u16, Value) + use<> {
        let mut request = request("system:node:n1", &["n1"], "10.224.0.4");
        let mut params = crate::csr::tests::params();
        for name in alt_names {
            let name = (*name).to_owned().try_into().unwrap();
            params.subject_alt_names.push(SanType::DnsName(name));
        }
        let ca = rcgen::Issuer::new(CertificateParams::default(), KeyPair::generate().unwrap());
        let certificate = params
            .signed_by(&KeyPair::generate().unwrap(), &ca)
            .unwrap()
            .pem();
        request["metadata"] = json!({ "name": "csr-1", "uid": "u", "resourceVersion": "9" });
        request["status"] = json!({
            "conditions": [{ "type": "Approved", "reason": REASON }],
            "certificate": base64::engine::general_purpose::STANDARD.encode(certificate)
        });
        move |asked| match asked.method {
            http::Method::GET => (200, json!({ "items": [request], "metadata": {} })),
            _ => (200, json!({ "metadata": {} })),
        }
    }

    #[tokio::test]
    async fn a_certificate_with_other_names_than_approved_is_withdrawn_and_told() {
        use crate::fake::{cluster, paths};
        use http::Method;
        let (honest, log) = cluster(issued(&[]));
        assert_eq!(honest.approve(&[node()]).await.unwrap(), 0);
        assert!(paths(&log, &Method::DELETE).is_empty());

        let (cheated, log) = cluster(issued(&["kubernetes"]));
        let error = cheated.approve(&[node()]).await.unwrap_err().to_string();
        assert!(error.contains("kubernetes") && error.contains("csr-1"), "{error}");
        assert_eq!(paths(&log, &Method::DELETE), [format!("{LIST}/csr-1")]);
        let told = log
            .lock()
            .unwrap()
            .iter()
            .find(|asked| asked.method == Method::POST)
            .cloned()
            .unwrap();
        assert_eq!(told.body["reason"], "ServingCertificateMismatch");
        assert_eq!(told.body["involvedObject"]["uid"], "u");
    }

    #[test]
    fn what_the_signer_may_read_differently_is_not_approved() {
        let spoilt = crate::csr::tests::ambiguous();
        let more = crate::csr::tests::extravagant();
        let approved: Vec<_> = spoilt
            .iter()
            .chain(&more)
            .filter(|(_, text)| belongs_to(&object(text), &node()))
            .map(|(what, _)| *what)
            .collect();
        assert!(approved.is_empty(), "approved: {approved:#?}");
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
