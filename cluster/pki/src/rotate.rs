//! Other authorities and another service account key in the place of those that there are, a step at a time.
//!
//! | step | trusted | issues |
//! |---|---|---|
//! | before | the old one | the old one |
//! | trusted | the old one, the new one | the old one |
//! | issued | the old one, the new one | the new one |
//! | dropped | the new one | the new one |
//!
//! Always true: what is issued before a step and what is issued after it are both trusted by who has taken the step and by who has not,
//! so that programs may take it one after the other. The key of an authority is gone as soon as another one issues.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::{Authority, ClusterPki, PkiError, authority, new_key};

/// The authorities of a cluster.
#[derive(Clone, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(rename_all = "camelCase")]
pub struct Authorities {
    /// As in [`ClusterPki`].
    pub cluster: Authority,
    /// As in [`ClusterPki`].
    pub etcd: Authority,
    /// As in [`ClusterPki`].
    pub front_proxy: Authority,
}

/// Certificates of authorities that issue nothing any more. PEM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FormerAuthorities {
    /// Of the one in the place of [`ClusterPki::cluster`].
    pub cluster: String,
    /// Of the one in the place of [`ClusterPki::etcd`].
    pub etcd: String,
    /// Of the one in the place of [`ClusterPki::front_proxy`].
    pub front_proxy: String,
}

/// A key of service accounts.
#[derive(Clone, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(rename_all = "camelCase")]
pub struct ServiceAccountKey {
    /// PEM (PKCS #8, ECDSA P-256).
    pub key: String,
    /// PEM of its public half.
    #[zeroize(skip)]
    pub public_key: String,
}

impl Authorities {
    /// New ones, after so many.
    pub(crate) fn generate(round: u32, now: Timestamp) -> Result<Self, PkiError> {
        let named = |name: &str| match round {
            // As always: certificates of clusters that are as old as they are say nothing of a number.
            0 => name.to_owned(),
            round => format!("{name}-{}", round.saturating_add(1)),
        };
        Ok(Self {
            cluster: authority(&named("landfall-cluster-ca"), now)?,
            etcd: authority(&named("landfall-etcd-ca"), now)?,
            front_proxy: authority(&named("landfall-front-proxy-ca"), now)?,
        })
    }
}

impl ServiceAccountKey {
    pub(crate) fn generate() -> Result<Self, PkiError> {
        let made = new_key("service accounts")?;
        Ok(Self {
            public_key: made.public_key_pem(),
            key: made.serialize_pem(),
        })
    }
}

/// Certificates one after the other, the oldest first.
fn bundle<'a>(certificates: impl IntoIterator<Item = &'a str>) -> String {
    let mut text = String::new();
    for certificate in certificates {
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text.push_str(certificate);
    }
    text
}

impl ClusterPki {
    fn trusted(
        &self,
        former: fn(&FormerAuthorities) -> &str,
        present: &Authority,
        next: fn(&Authorities) -> &Authority,
    ) -> String {
        let next = self.next.as_ref().map(|all| next(all).certificate.as_str());
        bundle(
            self.former_authorities
                .as_ref()
                .map(former)
                .into_iter()
                .chain([present.certificate.as_str()])
                .chain(next),
        )
    }

    /// PEM of the authorities that the API server, its clients and kubelets trust: one, or two while they are replaced.
    pub fn trusted_cluster(&self) -> String {
        self.trusted(|former| &former.cluster, &self.cluster, |next| &next.cluster)
    }

    /// The same of etcd and its clients.
    pub fn trusted_etcd(&self) -> String {
        self.trusted(|former| &former.etcd, &self.etcd, |next| &next.etcd)
    }

    /// The same of aggregated API servers.
    pub fn trusted_front_proxy(&self) -> String {
        self.trusted(
            |former| &former.front_proxy,
            &self.front_proxy,
            |next| &next.front_proxy,
        )
    }

    /// Grows by one when other authorities issue, and when those before are trusted no more: what machines get signed by themselves (kubelets)
    /// has to be got anew then.
    pub fn signings(&self) -> u32 {
        let under_way = u32::from(self.former_authorities.is_some());
        self.round.saturating_mul(2).saturating_sub(under_way)
    }

    /// New authorities are trusted beside those that issue.
    ///
    /// # Errors
    /// As [`ClusterPki::generate`].
    pub fn trust_new_authorities(&mut self, now: Timestamp) -> Result<(), PkiError> {
        self.next = Some(Authorities::generate(self.round.saturating_add(1), now)?);
        Ok(())
    }

    /// The new ones issue from now on, and those before are still trusted. Without new ones, nothing changes.
    pub fn issue_from_new_authorities(&mut self) {
        let Some(next) = self.next.take() else { return };
        self.former_authorities = Some(FormerAuthorities {
            cluster: self.cluster.certificate.clone(),
            etcd: self.etcd.certificate.clone(),
            front_proxy: self.front_proxy.certificate.clone(),
        });
        self.cluster = next.cluster.clone();
        self.etcd = next.etcd.clone();
        self.front_proxy = next.front_proxy.clone();
        self.round = self.round.saturating_add(1);
    }

    /// Those before are trusted no more.
    pub fn drop_former_authorities(&mut self) {
        self.former_authorities = None;
    }

    /// New ones that issue nothing yet are trusted no more.
    pub fn withdraw_new_authorities(&mut self) {
        self.next = None;
    }

    /// Tokens of a new key are taken beside those of the one that signs.
    ///
    /// # Errors
    /// As [`ClusterPki::generate`].
    pub fn trust_new_service_account_key(&mut self) -> Result<(), PkiError> {
        self.next_service_account_key = Some(ServiceAccountKey::generate()?);
        Ok(())
    }

    /// The new key signs from now on; tokens of the one before are still taken, and of no older one. Without a new key, nothing changes.
    pub fn sign_with_new_service_account_key(&mut self) {
        let Some(next) = self.next_service_account_key.take() else {
            return;
        };
        let before = std::mem::replace(&mut self.service_account_public_key, next.public_key.clone());
        self.former_service_account_key = Some(before);
        self.service_account_key.zeroize();
        self.service_account_key.clone_from(&next.key);
    }

    /// Tokens of the key before are taken no more.
    pub fn drop_former_service_account_key(&mut self) {
        self.former_service_account_key = None;
    }

    /// Tokens of a new key that signs nothing yet are taken no more.
    pub fn withdraw_new_service_account_key(&mut self) {
        self.next_service_account_key = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Certificate, Subject};

    fn now() -> Timestamp {
        Timestamp::from_second(1_790_000_000).expect("a constant within range")
    }

    /// Whether somebody who trusts `bundle` takes this for a certificate of one of them.
    fn takes(bundle: &str, leaf: &Certificate) -> bool {
        let (_, leaf) = x509_parser::pem::parse_x509_pem(leaf.certificate.as_bytes()).unwrap();
        let leaf = leaf.parse_x509().unwrap();
        x509_parser::pem::Pem::iter_from_buffer(bundle.as_bytes()).any(|pem| {
            let pem = pem.unwrap();
            let authority = pem.parse_x509().unwrap();
            authority.subject() == leaf.issuer()
                && leaf.verify_signature(Some(authority.public_key())).is_ok()
        })
    }

    fn leaves(pki: &ClusterPki) -> [Certificate; 3] {
        [&pki.cluster, &pki.etcd, &pki.front_proxy]
            .map(|authority| authority.issue(&Subject::client("x"), now()).unwrap())
    }

    fn bundles(pki: &ClusterPki) -> [String; 3] {
        [
            pki.trusted_cluster(),
            pki.trusted_etcd(),
            pki.trusted_front_proxy(),
        ]
    }

    /// A cluster's keys in all steps of two rotations.
    fn steps() -> Vec<ClusterPki> {
        let mut pki = ClusterPki::generate(now()).unwrap();
        let mut steps = vec![pki.clone()];
        for _ in 0..2 {
            pki.trust_new_authorities(now()).unwrap();
            steps.push(pki.clone());
            pki.issue_from_new_authorities();
            steps.push(pki.clone());
            pki.drop_former_authorities();
            steps.push(pki.clone());
        }
        steps
    }

    #[test]
    fn who_has_taken_a_step_and_who_has_not_trust_each_other() {
        let steps = steps();
        for pair in steps.windows(2) {
            for (one, other) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                for (bundle, leaf) in bundles(&pair[one]).iter().zip(leaves(&pair[other])) {
                    assert!(takes(bundle, &leaf));
                }
            }
        }
    }

    #[test]
    fn what_the_old_ones_issued_is_refused_in_the_end() {
        let steps = steps();
        for (bundle, leaf) in bundles(&steps[3]).iter().zip(leaves(&steps[0])) {
            assert!(!takes(bundle, &leaf));
        }
        assert_eq!(steps[3].trusted_cluster(), steps[3].cluster.certificate);
        assert_ne!(steps[3].cluster.certificate, steps[0].cluster.certificate);
        // Nothing of it is left, and what is no certificate is kept throughout.
        let text = serde_json::to_string(&steps[3]).unwrap();
        assert!(!text.contains(&steps[0].cluster.key.replace('\n', "\\n")));
        assert_eq!(steps[3].encryption_key, steps[0].encryption_key);
        assert_eq!(steps[3].service_account_key, steps[0].service_account_key);
    }

    #[test]
    fn steps_are_counted_and_survive_the_store() {
        let steps = steps();
        let rounds: Vec<_> = steps.iter().map(|pki| (pki.round, pki.signings())).collect();
        assert_eq!(rounds, [(0, 0), (0, 0), (1, 1), (1, 2), (1, 2), (2, 3), (2, 4)]);
        for pki in &steps {
            let text = serde_json::to_string(pki).unwrap();
            let back: ClusterPki = serde_json::from_str(&text).unwrap();
            assert_eq!(bundles(&back), bundles(pki));
            assert_eq!(back.round, pki.round);
        }
        let text = serde_json::to_string(&steps[0]).unwrap();
        assert!(!text.contains("\"round") && !text.contains("\"next"), "as before");
    }

    #[test]
    fn a_step_that_was_withdrawn_leaves_nothing() {
        let before = ClusterPki::generate(now()).unwrap();
        let mut pki = before.clone();
        pki.trust_new_authorities(now()).unwrap();
        pki.trust_new_service_account_key().unwrap();
        pki.withdraw_new_authorities();
        pki.withdraw_new_service_account_key();
        // Nothing to go on to.
        pki.issue_from_new_authorities();
        pki.sign_with_new_service_account_key();
        assert_eq!(
            serde_json::to_string(&pki).unwrap(),
            serde_json::to_string(&before).unwrap()
        );
    }

    #[test]
    fn tokens_are_taken_before_they_are_signed_and_for_a_while_after() {
        let ids = |pki: &ClusterPki| {
            let set = pki.service_account_jwks().unwrap();
            let keys = set["keys"].as_array().unwrap().iter();
            keys.map(|key| key["kid"].as_str().unwrap().to_owned())
                .collect::<Vec<_>>()
        };
        let mut pki = ClusterPki::generate(now()).unwrap();
        let first = ids(&pki);
        pki.trust_new_service_account_key().unwrap();
        let both = ids(&pki);
        assert_eq!((both.len(), &both[0]), (2, &first[0]));
        pki.sign_with_new_service_account_key();
        assert_eq!(ids(&pki), [both[1].clone(), both[0].clone()]);
        // Once more at once: tokens of the first one are over.
        pki.trust_new_service_account_key().unwrap();
        pki.sign_with_new_service_account_key();
        let now = ids(&pki);
        assert_eq!((now.len(), &now[1]), (2, &both[1]));
        pki.drop_former_service_account_key();
        assert_eq!(ids(&pki), now[..1]);
        assert_eq!(pki.service_account_public_keys().count(), 1);
    }
}
