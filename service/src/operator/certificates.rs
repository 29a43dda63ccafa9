//! What is known of certificates: read where the records of a cluster have changed, a few clusters at a time.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use cluster_pki::inventory::{IN_USE, Item, ItemKind, STAMP};
use control_records::{SigningKeysRecord, alert::AlertCluster, directory, key};
use control_store::{Revision, Store, StoreError, get_record};
use jiff::Timestamp;
use policy_alerts::CertificateFact;
use providers_containerservice::{AGENT, cluster_inventory};

use super::{Operator, gathered::ClusterSeen};

/// How many clusters are read in one look: each costs some milliseconds. A stamp of a thousand is known after a quarter of an hour.
const AT_A_TIME: usize = 64;

/// The kind of a cluster's authorities, of what machines are configured with, and of what the stamp has, in metrics.
const AUTHORITY: &str = "cluster-ca";
const MACHINE: &str = "machine";

/// The revisions of what the certificates of a cluster were read from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Mark {
    keys: Option<Revision>,
    configurations: (usize, Revision),
    machines: (usize, Revision),
}

/// A certificate, and its kind in metrics.
#[derive(Debug, Clone, PartialEq)]
struct Known {
    kind: &'static str,
    fact: CertificateFact,
}

/// Of a cluster: what its certificates were read from, and what they were.
type OfCluster = (Mark, Arc<[Known]>);

/// What is known of all certificates.
#[derive(Debug, Default)]
pub(super) struct Book {
    clusters: Arc<HashMap<String, OfCluster>>,
    stamp: Vec<Known>,
    /// Whether all clusters were read at least once.
    complete: bool,
}

impl Book {
    /// By kind: when the first of them ends.
    pub(super) fn least(&self) -> BTreeMap<&'static str, Timestamp> {
        let mut least = BTreeMap::new();
        let of_clusters = self.clusters.values().flat_map(|(_, known)| known.iter());
        for known in of_clusters.chain(&self.stamp) {
            let expires = known.fact.expires;
            let own = least.entry(known.kind).or_insert(expires);
            *own = expires.min(*own);
        }
        least
    }

    /// All of them, once all clusters were read.
    pub(super) fn facts(&self) -> Option<Vec<CertificateFact>> {
        if !self.complete {
            return None;
        }
        let of_clusters = self.clusters.values().flat_map(|(_, known)| known.iter());
        let all = of_clusters.chain(&self.stamp);
        Some(all.map(|known| known.fact.clone()).collect())
    }
}

/// Of an inventory of a cluster: each authority that is used or comes, and of machines those that end first.
fn known(cluster: &AlertCluster, items: &[Item]) -> Vec<Known> {
    let fact = |item: &Item, name: &str, remedy| {
        Some(CertificateFact {
            name: name.to_owned(),
            cluster: Some(cluster.clone()),
            issued: item.issued_at?,
            expires: item.expires_at?,
            renews: item.renews_at,
            remedy,
        })
    };
    let mut all: Vec<Known> = Vec::new();
    let mut first: BTreeMap<&str, &Item> = BTreeMap::new();
    for item in items {
        match item.kind {
            ItemKind::Authority => {
                let remedy = "replace the cluster's CAs: az aks rotate-certs";
                let fact = fact(item, &item.name, remedy);
                all.extend(fact.map(|fact| Known {
                    kind: AUTHORITY,
                    fact,
                }));
            }
            ItemKind::Certificate if item.name == AGENT => soonest(&mut first, AGENT, item),
            // One that was handed out is not renewed, and one that only a node has is not known.
            ItemKind::Certificate if item.renews_at.is_some() => soonest(&mut first, MACHINE, item),
            ItemKind::Certificate | ItemKind::Key => {}
        }
    }
    let agent = "make the machine anew before then: of nodes with az aks nodepool upgrade --node-image-only";
    let machine = "its machine does not take its configuration: see landfall status and landfall logs";
    for (kind, remedy) in [(AGENT, agent), (MACHINE, machine)] {
        let fact = first.get(kind).and_then(|item| fact(item, kind, remedy));
        all.extend(fact.map(|fact| Known { kind, fact }));
    }
    // Authorities of one name, in a rotation, are one subject: the one that ends first.
    all.sort_by(|one, other| (&one.fact.name, one.fact.expires).cmp(&(&other.fact.name, other.fact.expires)));
    all.dedup_by(|later, first| later.fact.name == first.fact.name);
    all
}

fn soonest<'a>(first: &mut BTreeMap<&'a str, &'a Item>, kind: &'static str, item: &'a Item) {
    let own = first.entry(kind).or_insert(item);
    if item.expires_at < own.expires_at {
        *own = item;
    }
}

/// The stamp's own.
fn of_stamp(items: &[Item]) -> Vec<Known> {
    // What others trust for a while, although something else took its place, needs nobody's care.
    let own = items
        .iter()
        .filter(|item| item.kind != ItemKind::Key && item.state == IN_USE);
    own.filter_map(|item| {
        let kind = match item.name.as_str() {
            "endpoint" => "endpoint",
            "endpoint-ca" => "endpoint-ca",
            _ => "stamp",
        };
        let fact = CertificateFact {
            name: item.name.clone(),
            cluster: None,
            issued: item.issued_at?,
            expires: item.expires_at?,
            renews: item.renews_at,
            remedy: "the service renews it by itself: see landfall logs for why it has not",
        };
        Some(Known { kind, fact })
    })
    .collect()
}

async fn newest(store: &dyn Store, prefix: &str) -> Result<(usize, Revision), StoreError> {
    let (found, _) = store.list(prefix).await?;
    let newest = found.iter().map(|(_, found)| found.revision).max();
    Ok((found.len(), newest.unwrap_or_default()))
}

impl Operator {
    /// Reads what has changed, of some clusters. Fails for the store alone: what cannot be unsealed is told, and left as it was known.
    pub(super) async fn look_at_certificates(&self, clusters: &[Arc<ClusterSeen>]) -> Result<(), StoreError> {
        let store = &*self.sources.store;
        let now = self.sources.env.clock.now();
        let before = Arc::clone(&self.book().clusters);
        let mut after = HashMap::with_capacity(clusters.len());
        let (mut read, mut complete) = (0, true);
        for seen in clusters {
            let uid = &seen.cluster.uid;
            let keys = store.get(&key::pki(uid)).await?;
            let mark = Mark {
                keys: keys.map(|found| found.revision),
                configurations: newest(store, &key::machine_configs(uid)).await?,
                machines: newest(store, &key::machines(uid)).await?,
            };
            let own = before.get(uid).cloned();
            if let Some((_, known)) = own.as_ref().filter(|(own, _)| *own == mark) {
                after.insert(uid.clone(), (mark, Arc::clone(known)));
                continue;
            }
            if read == AT_A_TIME {
                complete &= own.is_some();
                after.extend(own.map(|own| (uid.clone(), own)));
                continue;
            }
            read += 1;
            let Some(record) = directory::cluster(store, uid).await? else {
                continue;
            };
            match cluster_inventory(store, &self.sources.sealer, &record.value, now).await {
                Ok(items) => {
                    after.insert(uid.clone(), (mark, known(&seen.cluster, &items).into()));
                }
                Err(error) => {
                    let cause = error.internal.as_deref();
                    tracing::error!(
                        cluster = uid,
                        cause,
                        "the certificates of a cluster cannot be read"
                    );
                    // Not looked at again before they change.
                    let known = own.map_or_else(|| Arc::from([]), |(_, known)| known);
                    after.insert(uid.clone(), (mark, known));
                }
            }
            // Others have something to do as well.
            tokio::task::yield_now().await;
        }
        let host = Arc::clone(&self.sources.host);
        let stamp = tokio::task::spawn_blocking(move || host.certificates()).await;
        let mut book = self.book();
        match stamp {
            Ok(Ok(items)) => book.stamp = of_stamp(&items),
            Ok(Err(why)) => tracing::error!(why, "the stamp's own certificates cannot be read"),
            Err(error) => tracing::error!(%error, "the stamp's own certificates cannot be read"),
        }
        book.clusters = Arc::new(after);
        book.complete = complete;
        Ok(())
    }

    /// Certificates and keys of the stamp, and of all clusters; each with the cluster's group and name, empty for the stamp.
    ///
    /// # Errors
    /// Why they cannot be read, for people.
    pub async fn inventory(&self) -> Result<Vec<(String, String, Item)>, String> {
        let store = &*self.sources.store;
        let text = |error: StoreError| error.to_string();
        let host = Arc::clone(&self.sources.host);
        let stamp = tokio::task::spawn_blocking(move || host.certificates())
            .await
            .map_err(|error| error.to_string())??;
        let own = |item| (String::new(), String::new(), item);
        let mut all: Vec<_> = stamp.into_iter().map(own).collect();
        let tokens = get_record::<SigningKeysRecord>(store, key::SIGNING_KEYS).await;
        for signing in tokens
            .map_err(text)?
            .into_iter()
            .flat_map(|found| found.value.keys)
        {
            let now = self.sources.env.clock.now();
            let state = match (signing.signs_from, signing.ends_at) {
                (_, Some(_)) => "its tokens are taken, it signs none any more",
                (Some(from), None) if from <= now => "in use",
                _ => "published, signs nothing yet",
            };
            all.push(own(Item {
                issued_at: Some(signing.published_at),
                expires_at: signing.ends_at,
                note: "signs tokens of the stamp; it is replaced every 90 days".to_owned(),
                ..Item::of_key(&format!("token-key {}", signing.id), STAMP, state)
            }));
        }
        for sealing in self.sources.sealer.keys() {
            let state = if sealing.seals {
                "in use"
            } else {
                "opens what it has sealed"
            };
            all.push(own(Item {
                issued_at: sealing.made_at,
                note: "seals the stamp's secrets; replaced by landfall secrets rotate-sealing-key".to_owned(),
                ..Item::of_key(&format!("sealing-key {}", sealing.id), STAMP, state)
            }));
        }
        let now = self.sources.env.clock.now();
        for cluster in directory::clusters(store, None, None).await.map_err(text)? {
            let cluster = cluster.value;
            let items = cluster_inventory(store, &self.sources.sealer, &cluster, now)
                .await
                .map_err(|error| error.internal.unwrap_or(error.message))?;
            let of = |item| (cluster.resource_group.clone(), cluster.name.clone(), item);
            all.extend(items.into_iter().map(of));
            tokio::task::yield_now().await;
        }
        Ok(all)
    }
}
