//! Newer node images: once a week one of each Kubernetes version that pools have, with the packages that Debian has by then; and the removal of
//! images that nothing needs any more.
//!
//! A newer image changes no machine: pools are brought to it by a channel or by who asks (`az aks nodepool upgrade --node-image-only`).
//!
//! Always true: while an operator holds planned work up, nothing is built; an image that a pool, a machine, a snapshot or a way back names stays,
//! and so do the newest of each version, which other stamps of the host may name. A host without a source of packages says so in the log, and
//! nothing else is other there.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result};
use base_env::Env;
use cluster_spec::build_of;
use control_records::{ClusterRecord, SnapshotRecord, directory, key, planned};
use control_store::{Store, get_record, list_records};
use jiff::{SignedDuration, Timestamp};

use crate::images::ImagesOnDemand;

/// After the start of the service, before anything is looked at: a stamp that is tried for some hours builds nothing.
const FIRST: Duration = Duration::from_secs(6 * 60 * 60);
/// Between two looks.
const PAUSE: Duration = Duration::from_secs(24 * 60 * 60);
/// An image of this age is old enough to look for newer packages.
const WEEK: SignedDuration = SignedDuration::from_hours(7 * 24);
/// Images of each version that stay in any case: those of a month.
const LEAST: usize = 4;

/// Tends them for ever.
pub(super) async fn tend(env: Env, store: Arc<dyn Store>, images: Arc<ImagesOnDemand>) {
    let mut looked = BTreeMap::new();
    env.clock.sleep(FIRST).await;
    loop {
        if let Err(error) = look(&env, &store, &images, &mut looked).await {
            tracing::warn!(
                error = format!("{error:#}"),
                "newer node images are not looked for"
            );
        }
        env.clock.sleep(PAUSE).await;
    }
}

/// What clusters and snapshots name.
#[derive(Default)]
struct Named {
    /// Kubernetes versions of pools.
    versions: BTreeSet<String>,
    /// Versions and builds.
    builds: BTreeSet<(String, String)>,
}

async fn look(
    env: &Env,
    store: &Arc<dyn Store>,
    images: &Arc<ImagesOnDemand>,
    looked: &mut BTreeMap<String, Timestamp>,
) -> Result<()> {
    let now = env.clock.now();
    if planned::paused(&**store).await.context("the store")?.is_some() {
        return Ok(());
    }
    let named = named(&**store).await.context("the store")?;
    for version in &named.versions {
        let is_old = |at: Timestamp| now.duration_since(at) >= WEEK;
        let newest = images.of_version(version).into_iter().next();
        let newest = newest.map(|image| image.manifest.created);
        // One that is missing is built when a machine first needs it.
        if !newest.is_some_and(is_old) || looked.get(version).is_some_and(|at| !is_old(*at)) {
            continue;
        }
        let (own, wanted) = (Arc::clone(images), version.clone());
        let renewed = tokio::task::spawn_blocking(move || own.renew(&wanted)).await;
        match renewed.context("the build ended unexpectedly")? {
            Ok(renewed) => {
                looked.insert(version.clone(), now);
                let build = renewed.image.build();
                if renewed.is_new {
                    let changes: Vec<String> = renewed.changes.iter().map(ToString::to_string).collect();
                    let changes = changes.join(", ");
                    tracing::info!(version, %build, changes, "a newer node image is there");
                } else {
                    tracing::info!(version, %build, "Debian has no newer packages for the node image");
                }
            }
            Err(error) => {
                tracing::warn!(version, %error, "no newer node image was built; next try: tomorrow, or landfall image renew");
            }
        }
    }
    let own = Arc::clone(images);
    let removed = tokio::task::spawn_blocking(move || {
        let named = |version: &str, build: &str| {
            let name = (version.to_owned(), build.to_owned());
            named.builds.contains(&name)
        };
        own.prune(LEAST, named)
    })
    .await;
    for removed in removed.context("the removal ended unexpectedly")?? {
        tracing::info!(
            version = removed.version,
            build = removed.build,
            "a node image that nothing needs was removed"
        );
    }
    Ok(())
}

async fn named(store: &dyn Store) -> Result<Named, control_store::StoreError> {
    let mut named = Named::default();
    let (clusters, _) = directory::cluster_names(store, None, None).await?;
    for cluster in clusters {
        let Some(found) = get_record::<ClusterRecord>(store, &key::desired(&cluster.uid)).await? else {
            continue;
        };
        for pool in found.value.state.pools() {
            let spec = pool.spec();
            let version = spec.kubernetes_version.clone();
            if !found.value.deleting {
                named.versions.insert(version.clone());
            }
            named
                .builds
                .extend(spec.image.clone().map(|build| (version, build)));
            let last = pool.decided().last.clone();
            named
                .builds
                .extend(last.and_then(|last| Some((last.kubernetes_version, last.image?))));
        }
        for machine in directory::machines(store, &cluster.uid).await? {
            let build = machine.build.map(|build| (machine.image, build));
            named.builds.extend(build);
        }
    }
    let (snapshots, _) = list_records::<SnapshotRecord>(store, key::SNAPSHOTS).await?;
    for (_, snapshot) in snapshots {
        let build = build_of(&snapshot.value.node_image_version).map(str::to_owned);
        named
            .builds
            .extend(build.map(|build| (snapshot.value.kubernetes_version.clone(), build)));
    }
    Ok(named)
}

#[cfg(test)]
mod tests {
    use cluster_spec::testkit;
    use control_records::{NameRecord, SystemData};
    use control_store::{Txn, put_record};
    use storage_redb::MemoryStore;

    use super::*;

    #[tokio::test]
    async fn what_pools_their_ways_back_and_snapshots_name_is_needed() {
        let store = MemoryStore::new();
        let now = Timestamp::from_second(1_767_225_600).unwrap();
        let mut spec = testkit::cluster();
        spec.pools[0].image = Some("2026.01.01".to_owned());
        let mut record = ClusterRecord::of_spec("0123456789", &spec, now);
        let mut pools = record.state.pools();
        pools[0] = pools[0]
            .with(|_, decided| decided.go_to("1.37.1", Some("2026.01.08".to_owned()), 0))
            .unwrap();
        record.state = record.state.with_pools(pools).unwrap();
        let snapshot = SnapshotRecord {
            v: 1,
            uid: "u".to_owned(),
            subscription: "s".to_owned(),
            resource_group: "g".to_owned(),
            name: "n".to_owned(),
            location: "local".to_owned(),
            tags: BTreeMap::new(),
            generation: 1,
            source: String::new(),
            kubernetes_version: "1.36.3".to_owned(),
            node_image_version: "AKSDebian-2025.12.01".to_owned(),
            os_sku: "Ubuntu".to_owned(),
            vm_size: "Standard_B2s".to_owned(),
            system_data: SystemData {
                created_at: now,
                created_by: String::new(),
                created_by_type: String::new(),
                modified_at: now,
                modified_by: String::new(),
                modified_by_type: String::new(),
            },
        };
        let name = NameRecord {
            v: 1,
            uid: record.uid.clone(),
        };
        let txn = Txn::default()
            .with(put_record(record.name_key(), &name))
            .with(put_record(key::desired(&record.uid), &record))
            .with(put_record(key::snapshot("s", "g", "n"), &snapshot));
        store.txn(txn).await.unwrap();
        let named = named(&store).await.unwrap();
        assert_eq!(named.versions, BTreeSet::from(["1.37.1".to_owned()]));
        let pair = |version: &str, build: &str| (version.to_owned(), build.to_owned());
        assert_eq!(
            named.builds,
            BTreeSet::from([
                pair("1.36.3", "2025.12.01"),
                pair("1.36.3", "2026.01.01"),
                pair("1.37.1", "2026.01.08"),
            ])
        );
    }
}
