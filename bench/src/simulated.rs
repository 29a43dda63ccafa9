//! What one more cluster costs the service: the real loops and the real records over simulated machines, in virtual time.
//!
//! The simulated world and the store live in the same process, so what is printed is an upper bound of the service's own.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::{Result, bail};
use base_env::Env;
use control_loops::{Controller, ControllerDeps, KubernetesRecipes, Settings};
use control_records::{ClusterRecord, ObservedRecord, OperationRecord, OperationStatus, key};
use control_store::{MemoryStore, Sealer, Store, Txn, get_record, put_record};
use fabric_api::{StampNetwork, Uplink};
use fabric_sim::{SimOptions, SimWorld};
use serde_json::json;
use tokio::sync::watch;

use crate::memory;

const SUBSCRIPTION: &str = "00000000-0000-0000-0000-000000000001";
const GROUP: &str = "bench";
/// Virtual time over which an idle stamp is watched: long enough for two rounds of everything that comes round.
const WATCHED: Duration = Duration::from_secs(15 * 60);
/// Virtual time that a wave of creations may take.
const BOUND: Duration = Duration::from_secs(60 * 60);

/// Per added cluster, between the first and the last number of clusters.
pub(crate) struct Cost {
    /// Memory, KiB.
    pub(crate) per_cluster_kib: f64,
    /// Idle CPU, thousandths of a core.
    pub(crate) per_cluster_mcpu: f64,
}

/// Measures with each of these numbers of clusters.
pub(crate) fn run(steps: &[u32]) -> Result<Cost> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()?;
    runtime.block_on(play(steps))
}

#[expect(clippy::print_stdout, reason = "a bench's result is what it prints")]
async fn play(steps: &[u32]) -> Result<Cost> {
    let env = Env::simulated(1);
    let network = StampNetwork {
        range: "100.64.0.0/12".parse()?,
        uplink: Uplink::None,
    };
    let world = SimWorld::new(
        env.clone(),
        SimOptions {
            network,
            ..SimOptions::default()
        },
    );
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let controller = Controller::new(ControllerDeps {
        env: env.clone(),
        store: Arc::clone(&store),
        sealer: Arc::new(Sealer::from_key(&[7; 32])),
        fabric: world.fabric(),
        agents: world.agents(),
        connect: world.clusters(),
        recipes: Arc::new(KubernetesRecipes {
            host_cores: 8,
            host_memory_mib: 32 * 1024,
            ..KubernetesRecipes::default()
        }),
        service_url: "https://100.64.0.1:7443".to_owned(),
        agent_ca: String::new(),
        settings: Settings::default(),
    });
    let (stop, stopped) = watch::channel(false);
    let service = tokio::spawn(controller.run(stopped));

    let pid = std::process::id();
    let mut made = 0;
    let mut seen = Vec::new();
    for &clusters in steps {
        while made < clusters {
            made += 1;
            create(&env, &*store, &format!("c{made}")).await?;
        }
        settle(&env, &*store).await?;
        let before = cpu_s(pid)?;
        env.clock.sleep(WATCHED).await;
        let mcpu = (cpu_s(pid)? - before) / WATCHED.as_secs_f64() * 1000.0 / f64::from(clusters);
        let rss_kib = memory::rss_mib(pid)? * 1024.0;
        println!(
            "{clusters:5} simulated clusters   {:7.1} MiB resident   {mcpu:6.3} mCPU a cluster, idle",
            rss_kib / 1024.0
        );
        seen.push((f64::from(clusters), rss_kib, mcpu));
    }
    stop.send_replace(true);
    service.await?;
    match (seen.first(), seen.last()) {
        (Some(first), Some(last)) if last.0 > first.0 => Ok(Cost {
            per_cluster_kib: (last.1 - first.1) / (last.0 - first.0),
            per_cluster_mcpu: last.2,
        }),
        _ => bail!("two different numbers of clusters are needed"),
    }
}

fn cpu_s(pid: u32) -> Result<f64> {
    Ok(memory::processes()?
        .get(&pid)
        .map_or(0.0, |process| process.cpu_s))
}

/// Writes an accepted creation, as a provider does.
async fn create(env: &Env, store: &dyn Store, name: &str) -> Result<()> {
    let (now, operation) = (env.clock.now(), env.ids.uuid().to_string());
    let mut spec = crate::floor::spec(
        cluster_versions::Offered::pinned()
            .default_version()
            .to_string()
            .as_str(),
    )?;
    name.clone_into(&mut spec.name);
    spec.node_resource_group = format!("MC_{GROUP}_{name}_local");
    let record = ClusterRecord {
        v: 1,
        uid: env.ids.short(),
        subscription: SUBSCRIPTION.to_owned(),
        resource_group: GROUP.to_owned(),
        name: name.to_owned(),
        generation: 1,
        pool_generations: BTreeMap::from([("nodepool1".to_owned(), 1)]),
        body: json!({ "location": "local", "properties": { "dnsPrefix": name } }),
        spec,
        sealed: BTreeMap::new(),
        deleting: false,
        operation: operation.clone(),
        course: control_records::Course::default(),
        created_at: now,
        created_by: "bench".to_owned(),
        created_by_type: "Application".to_owned(),
        modified_at: now,
        modified_by: "bench".to_owned(),
        modified_by_type: "Application".to_owned(),
    };
    let running = OperationRecord {
        v: 1,
        id: operation.clone(),
        name: "ManagedClusters_CreateOrUpdate".to_owned(),
        resource_id: key::cluster(SUBSCRIPTION, GROUP, name),
        cluster: record.uid.clone(),
        generation: 1,
        pool: None,
        creates: false,
        deletes: false,
        progress: control_records::Progress::default(),
        status: OperationStatus::InProgress,
        started_at: now,
        ended_at: None,
        error: None,
    };
    let txn = Txn::default()
        .with(put_record(key::cluster(SUBSCRIPTION, GROUP, name), &record))
        .with(put_record(key::operation(&operation), &running));
    store.txn(txn).await?;
    Ok(())
}

/// Waits until every cluster is what it is to be.
async fn settle(env: &Env, store: &dyn Store) -> Result<()> {
    let deadline = env.clock.monotonic() + BOUND;
    loop {
        let (clusters, _) = control_store::list_records::<ClusterRecord>(store, "/clusters/").await?;
        let mut open = 0;
        for (_, cluster) in &clusters {
            let observed = get_record::<ObservedRecord>(store, &key::observed(&cluster.value.uid)).await?;
            open += u32::from(
                observed.is_none_or(|observed| observed.value.generation < cluster.value.generation),
            );
        }
        if open == 0 {
            return Ok(());
        }
        if env.clock.monotonic() > deadline {
            bail!("{open} simulated clusters are not there after {BOUND:?}");
        }
        env.clock.sleep(Duration::from_secs(5)).await;
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_few_clusters_settle_and_can_be_weighed() {
        let cost = super::run(&[3, 8]).unwrap();
        assert!(cost.per_cluster_kib.is_finite() && cost.per_cluster_mcpu >= 0.0);
    }
}
