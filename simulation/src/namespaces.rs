//! What scripts do with managed namespaces, and what has to be true of them.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};
use control_records::{
    ClusterRecord, ObservedRecord, key,
    namespace::{NamespaceRecord, NamespaceState},
};
use control_store::list_records;
use fabric_sim::SimWorld;
use serde_json::{Value, json};

use crate::{script::Player, stamp::Stamp};

/// The body of a PUT by the words of a script: `adopt=POLICY`, `delete=POLICY`, `label=KEY:VALUE`, `cpu=QUANTITY`.
fn body(words: &[&str]) -> Result<Value> {
    let mut properties = json!({ "defaultNetworkPolicy": {} });
    for word in words {
        match word.split_once('=').context("a word without '='")? {
            ("adopt", policy) => properties["adoptionPolicy"] = json!(policy),
            ("delete", policy) => properties["deletePolicy"] = json!(policy),
            ("cpu", cpu) => properties["defaultResourceQuota"] = json!({ "cpuLimit": cpu }),
            ("label", label) => {
                let (name, value) = label.split_once(':').context("a label without ':'")?;
                properties["labels"][name] = json!(value);
            }
            (other, _) => bail!("a namespace has no {other}"),
        }
    }
    Ok(json!({ "properties": properties }))
}

/// A Namespace that a user makes.
pub(crate) fn plant(world: &SimWorld, uid: &str, name: &str) {
    let object = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } });
    world.put_object(uid, &format!("v1/Namespace {name}"), object);
}

impl Player {
    /// The PUT of a namespace; without words to say what it is to be, the DELETE.
    pub(crate) async fn namespace(
        &mut self,
        cluster: &str,
        name: &str,
        words: Option<&[&str]>,
    ) -> Result<()> {
        let Some(record) = self.stamp.cluster(cluster).await? else {
            self.say("there is no such cluster");
            return Ok(());
        };
        let path = format!(
            "resourceGroups/{}/providers/Microsoft.ContainerService/managedClusters/{cluster}/managedNamespaces/{name}",
            record.resource_group
        );
        let answer = match words {
            Some(words) => self.stamp.arm("PUT", &path, Some(body(words)?)).await?,
            None => self.stamp.arm("DELETE", &path, None).await?,
        };
        let text = match answer.status {
            0 => "no answer".to_owned(),
            status if answer.accepted() => status.to_string(),
            status => format!("{status} {}", answer.error()),
        };
        self.say(&text);
        Ok(())
    }

    /// Prints the namespaces that are known of a cluster, and what the cluster itself has.
    pub(crate) async fn namespaces(&mut self, cluster: &str) -> Result<()> {
        let Some(record) = self.stamp.cluster(cluster).await? else {
            self.say("there is no such cluster");
            return Ok(());
        };
        let observed = self
            .stamp
            .record::<ObservedRecord>(&key::observed(&record.uid))
            .await?
            .unwrap_or_default();
        for namespace in self.stamp.namespaces(&record.uid).await? {
            let seen = match namespace.state(&observed.namespaces) {
                None => "not seen".to_owned(),
                Some(NamespaceState {
                    problem: Some(why), ..
                }) => why.clone(),
                Some(state) if state.wished < namespace.wished => "not yet".to_owned(),
                Some(_) => "as it is to be".to_owned(),
            };
            let going = if namespace.deleting { ", to go" } else { "" };
            let there = self.stamp.has_namespace(&record.uid, &namespace);
            let there = if there { "there" } else { "not there" };
            self.say(&format!("{}{going}: {there}, {seen}", namespace.name));
        }
        Ok(())
    }
}

impl Stamp {
    async fn namespaces(&self, uid: &str) -> Result<Vec<NamespaceRecord>> {
        let (found, _) = list_records::<NamespaceRecord>(&*self.disk, &NamespaceRecord::all(uid)).await?;
        Ok(found.into_iter().map(|(_, found)| found.value).collect())
    }

    /// Whether a cluster has a Namespace that carries the record's id.
    fn has_namespace(&self, uid: &str, record: &NamespaceRecord) -> bool {
        let found = self.world.object(uid, &format!("v1/Namespace {}", record.name));
        found.is_some_and(|found| {
            found["metadata"]["annotations"]["landfall.dev/managed-namespace"] == record.id.as_str()
        })
    }

    /// Namespaces are what their records say, in clusters that serve; and nothing is seen of one that is in no record.
    pub(crate) async fn check_namespaces(
        &self,
        clusters: &BTreeMap<String, ClusterRecord>,
        observed: &BTreeMap<String, ObservedRecord>,
        problems: &mut Vec<String>,
    ) -> Result<()> {
        let serves = |cluster: &&ClusterRecord| {
            !cluster.spec().stopped && !cluster.requests.halted && !cluster.deleting
        };
        for cluster in clusters.values().filter(serves) {
            let empty = BTreeMap::new();
            let seen = observed.get(&cluster.uid);
            let seen = seen.map_or(&empty, |observed| &observed.namespaces);
            let records = self.namespaces(&cluster.uid).await?;
            for record in &records {
                let name = &record.name;
                if record.deleting {
                    problems.push(format!("{}: the namespace {name} is not gone", cluster.name));
                    continue;
                }
                let there = self.has_namespace(&cluster.uid, record);
                let state = record.state(seen);
                let told = state.is_some_and(|state| state.wished == record.wished);
                let refused = state.is_some_and(|state| state.problem.is_some());
                if !told || there == refused {
                    problems.push(format!(
                        "{}: the namespace {name} is there: {there}, and observed as {state:?}",
                        cluster.name
                    ));
                }
            }
            for name in seen.keys() {
                if !records.iter().any(|record| record.name == *name) {
                    problems.push(format!("{}: {name} is seen and in no record", cluster.name));
                }
            }
        }
        Ok(())
    }
}
