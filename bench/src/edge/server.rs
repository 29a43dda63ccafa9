//! The service under test, in a separate process: the real assembly with its store on disk and its listener;
//! machines, agents and clusters' APIs simulated.

use std::{path::Path, sync::Arc};

use agent_sessions::{Sessions, StoreDirectory};
use anyhow::{Context as _, Result};
use arm_edge::{Budgets, ServerTls};
use arm_wire::PrincipalKind;
use base_env::Env;
use base_sealer::Sealer;
use cluster_archive::{Archive, DirectoryStore};
use control_loops::Settings;
use control_records::Epoch;
use control_store::Store;
use fabric_api::{Fabric as _, StampNetwork, Uplink};
use fabric_sim::{SimOptions, SimWorld};
use identity::{EndpointTls, Secret, Shape, SigningKey};
use providers_containerservice::{ArchiveReader, BuiltIn, SameImages};
use serde::{Deserialize, Serialize};
use service::{
    Config, Drivers, KubernetesRecipes, Records, Service,
    first::{self, FirstPrincipal},
};
use storage_redb::RedbStore;
use tokio::{
    io::AsyncReadExt as _,
    net::TcpListener,
    sync::{oneshot, watch},
};

/// Its address and credentials: the output of the process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Served {
    pub(super) address: std::net::SocketAddr,
    pub(super) ca: String,
}

pub(super) const SUBSCRIPTION: &str = "00000000-0000-4000-8000-000000000001";
const TENANT: &str = "00000000-0000-4000-8000-000000000002";
pub(super) const APPLICATION: &str = "00000000-0000-4000-8000-000000000003";
/// As long as generated secrets, and hashed like them.
pub(super) const SECRET: &str = "a service principal's secret of this bench";
pub(super) const AUDIENCE: &str = "https://management.bench.internal/x";

/// Serves until standard input ends.
#[expect(clippy::print_stdout, reason = "the parent process reads it")]
pub(super) async fn run(directory: &Path) -> Result<()> {
    let env = Env::system();
    let now = env.clock.now();
    let sealer = Arc::new(Sealer::from_key(&[7; 32]));
    let store = RedbStore::open(&directory.join("store.redb"), &env).context("cannot open the store")?;
    let store: Arc<dyn Store> = Arc::new(store);
    let config = Config {
        name: "bench".to_owned(),
        location: "local".to_owned(),
        tenant: TENANT.to_owned(),
        tenant_name: "bench".to_owned(),
        domain: "bench.internal".to_owned(),
        names: false,
        base_url: "https://localhost".to_owned(),
        shape: Shape::Aad,
        audience: AUDIENCE.to_owned(),
        limits: control_records::usage::Limits::default(),
        // Counted like those of any stamp, and never refused.
        budgets: Budgets::VAST,
        credential_lifetime: std::time::Duration::from_secs(8 * 60 * 60),
        support: Default::default(),
    };
    control_records::migrate(&*store).await?;
    let principal = FirstPrincipal {
        kind: PrincipalKind::Application,
        login: APPLICATION,
        display_name: "bench",
        secret: Secret::Generated(SECRET),
    };
    first::records(&env, &*store, &config, SUBSCRIPTION, now, &[principal]).await?;
    let network = StampNetwork {
        range: "100.64.0.0/12".parse()?,
        uplink: Uplink::None,
    };
    let world = SimWorld::new(
        env.clone(),
        SimOptions {
            network,
            ..SimOptions::instant()
        },
    );
    world.ensure_stamp().await?;
    let objects = Arc::new(DirectoryStore::open(&directory.join("backups"))?);
    let sessions = Sessions::new(env.clone(), Arc::new(StoreDirectory::new(Arc::clone(&store))));
    let service = Service::new(
        &env,
        config,
        Records {
            store,
            epoch: Epoch::default(),
            sealer: Arc::clone(&sealer),
        },
        Drivers {
            fabric: world.fabric(),
            agents: world.agents(sessions),
            agents_url: "https://100.64.0.1:7443".to_owned(),
            agents_ca: String::new(),
            connect: world.clusters(),
            backups: Arc::new(ArchiveReader(Arc::new(Archive::new(objects, sealer)))),
            issuers: None,
            sealed: Vec::new(),
            images: Arc::new(SameImages),
            registries: None,
            support: Arc::new(BuiltIn),
        },
        SigningKey::generate()?,
        Arc::new(KubernetesRecipes {
            host_cores: 8,
            host_memory_mib: 32 * 1024,
            ..KubernetesRecipes::default()
        }),
        Settings::default(),
    );
    let tls = EndpointTls::generate(&[], &[], now)?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let served = Served {
        address: listener.local_addr()?,
        ca: tls.ca_pem.clone(),
    };
    let (ending, ended) = oneshot::channel::<()>();
    let (_stop, stopped) = watch::channel(false);
    let edge = service.edge();
    for part in service.parts(&stopped) {
        tokio::spawn(part.work);
    }
    let serving = tokio::spawn(edge.serve(
        listener,
        Some(ServerTls::from_pem(&tls.cert_pem, &tls.key_pem)?),
        async move {
            // Its sender is gone when the process ends.
            drop(ended.await);
        },
    ));
    println!("{}", serde_json::to_string(&served)?);
    // The parent is done with it, or gone.
    tokio::io::stdin().read_to_end(&mut Vec::new()).await?;
    drop(ending);
    Ok(serving.await??)
}
