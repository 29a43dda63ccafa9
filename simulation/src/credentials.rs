//! Script commands for credentials of clusters, and their checks.

use std::collections::BTreeMap;

use anyhow::Result;
use cluster_spec::CredentialKind;
use control_records::{ClusterRecord, ObservedRecord, credential::CredentialRecord, key};
use control_store::list_records;
use serde_json::Value;

use crate::{script::Player, stamp::Stamp};

impl Player {
    /// Requests a kubeconfig.
    pub(crate) async fn credential(&mut self, name: &str, kind: &str) -> Result<()> {
        let begun = self.stamp.env.clock.monotonic();
        let Some(cluster) = self.stamp.cluster(name).await? else {
            self.say("there is no such cluster");
            return Ok(());
        };
        let path = format!(
            "resourceGroups/{}/providers/Microsoft.ContainerService/managedClusters/{name}/listCluster{kind}Credential",
            cluster.resource_group
        );
        let answer = self.stamp.arm("POST", &path, None).await?;
        let took = self.stamp.env.clock.monotonic() - begun;
        let text = match answer.status {
            0 => "no answer".to_owned(),
            200 => format!("200 after {:.1} s", took.as_secs_f64()),
            status => format!("{status} {}", answer.error()),
        };
        self.say(&text);
        Ok(())
    }

    /// Revokes the oldest valid credential.
    pub(crate) async fn revoke(&mut self, name: &str) -> Result<()> {
        let Some(cluster) = self.stamp.cluster(name).await? else {
            self.say("there is no such cluster");
            return Ok(());
        };
        let all = self.credentials(name).await?;
        let good = all.iter().find(|(record, _)| record.revoked.is_none());
        let Some((record, _)) = good else {
            self.say("there is no credential to revoke");
            return Ok(());
        };
        let path = format!(
            "resourceGroups/{}/providers/Landfall.ContainerService/managedClusters/{name}/credentials/{}/revoke",
            cluster.resource_group, record.id
        );
        let answer = self.stamp.arm("POST", &path, None).await?;
        let text = match answer.body["state"].as_str() {
            Some(state) => format!("{} {state}", answer.status),
            None => format!("{} {}", answer.status, answer.error()),
        };
        self.say(&text);
        Ok(())
    }

    /// The recorded credentials of a cluster, oldest first, each with a line about it: its kind, its observed
    /// state, and its state in the cluster itself.
    pub(crate) async fn credentials(&self, name: &str) -> Result<Vec<(CredentialRecord, String)>> {
        let stamp = &self.stamp;
        let Some(cluster) = stamp.cluster(name).await? else {
            return Ok(Vec::new());
        };
        let observed = stamp
            .record::<ObservedRecord>(&key::observed(&cluster.uid))
            .await?;
        let observed = observed.unwrap_or_default();
        let word = |is: bool, word: &'static str, other: &'static str| if is { word } else { other };
        let lines = stamp.known(&cluster.uid).await?.into_iter().map(|record| {
            let line = format!(
                "{}: {}, {}, {}",
                record.kind.word(),
                word(record.revoked.is_some(), "revoked", "good"),
                word(
                    observed.credentials.contains(&record.id),
                    "observed",
                    "not observed"
                ),
                word(stamp.grants(&cluster.uid, &record), "granted", "not granted"),
            );
            (record, line)
        });
        Ok(lines.collect())
    }
}

/// Whether a binding is of the user of a credential.
fn has_subject(binding: &Value, record: &CredentialRecord) -> bool {
    let user = format!("landfall:credential:{}:{}", record.kind.word(), record.id);
    let mut subjects = binding["subjects"].as_array().into_iter().flatten();
    subjects.any(|subject| subject["name"] == user.as_str())
}

impl Stamp {
    /// The recorded credentials of a cluster, oldest first.
    async fn known(&self, uid: &str) -> Result<Vec<CredentialRecord>> {
        let prefix = CredentialRecord::all(uid);
        let (found, _) = list_records::<CredentialRecord>(&*self.disk, &prefix).await?;
        let mut found: Vec<CredentialRecord> = found.into_iter().map(|(_, found)| found.value).collect();
        found.sort_by_key(|record| record.issued_at);
        Ok(found)
    }

    /// Whether a cluster has the objects that a credential needs.
    fn grants(&self, uid: &str, record: &CredentialRecord) -> bool {
        if let Some(namespace) = &record.namespace {
            let binding =
                format!("rbac.authorization.k8s.io/v1/RoleBinding {namespace}/landfall:namespace-users");
            let found = self.world.object(uid, &binding);
            return found.is_some_and(|found| has_subject(&found, record));
        }
        if record.kind == CredentialKind::Support {
            let binding = "rbac.authorization.k8s.io/v1/ClusterRoleBinding aks-service-rolebinding";
            let found = self.world.object(uid, binding);
            return found.is_some_and(|found| has_subject(&found, record));
        }
        let binding = format!(
            "rbac.authorization.k8s.io/v1/ClusterRoleBinding landfall:credential:{}:{}",
            record.kind.word(),
            record.id
        );
        self.world.object(uid, &binding).is_some()
    }

    /// Credentials work as their records say, in clusters that serve. An expired one is refused by its
    /// certificate.
    pub(crate) async fn check_credentials(
        &self,
        clusters: &BTreeMap<String, ClusterRecord>,
        observed: &BTreeMap<String, ObservedRecord>,
        problems: &mut Vec<String>,
    ) -> Result<()> {
        let now = self.env.clock.now();
        let serves = |cluster: &&ClusterRecord| {
            !cluster.spec().stopped && !cluster.requests.halted && !cluster.deleting
        };
        for cluster in clusters.values().filter(serves) {
            for record in self.known(&cluster.uid).await? {
                if record.has_expired(now) {
                    continue;
                }
                let granted = self.grants(&cluster.uid, &record);
                let seen = observed
                    .get(&cluster.uid)
                    .is_some_and(|observed| observed.credentials.contains(&record.id));
                if granted != record.is_good(now) || seen != granted {
                    problems.push(format!(
                        "{}: {record:?} is granted: {granted}, and observed so: {seen}",
                        cluster.name
                    ));
                }
            }
        }
        Ok(())
    }
}
