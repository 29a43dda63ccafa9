//! The drivers of a service: machines and networks, the agents in them, the clusters' APIs, node images.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
};

use agent_api::Agents;
use agent_hub::{AgentCa, BackupReceiver, Hub, TokenDoor};
use agent_sessions::{Sessions, StoreDirectory};
use anyhow::{Context as _, Result};
use base_connections::Limits;
use base_env::Env;
use cluster_api::Connect;
use cluster_archive::Archive;
use cluster_bootstrap::{RegistryAccess, TokenAuthority};
use cluster_client::KubeConnect;
use control_sealing::SealedPlace;
use control_store::Store;
use fabric_api::Fabric;
use fabric_container::{ContainerConfig, ContainerFabric};
use identity::{IdentityConfig, Issuers, Shape};
use providers_containerservice::ArchiveReader;
use serde::{Deserialize, Serialize};
use service::{Service, contain, until};
use storage_images::Images;
use tokio::{net::TcpListener, sync::watch, task::JoinSet};

use super::{first::read, listener::Listener, open_files};
use crate::{
    catalogue::Knowledge,
    commands::Context,
    images::{ImagesOnDemand, NoImages},
    stamp::{self, Places, Settings},
};

/// The port for agents, at the stamp's gateway address.
const AGENT_PORT: u16 = 7443;

/// The fabric of a stamp, for removing it: builds no images.
pub(crate) fn open_fabric(context: &Context, settings: &Settings) -> Result<Arc<dyn Fabric>> {
    let images = Arc::new(NoImages);
    Ok(Arc::new(fabric(&context.env, &context.places, settings, images)?))
}

fn fabric(
    env: &Env,
    places: &Places,
    settings: &Settings,
    images: Arc<dyn fabric_container::Images>,
) -> Result<ContainerFabric> {
    let config = ContainerConfig {
        stamp: places.name.clone(),
        state_dir: places.fabric(),
        run_dir: places.run.clone(),
        network: settings.network(),
        service_port: AGENT_PORT,
        uplink_allow: settings.uplink_allow.clone(),
        agent: agent_embedded::AGENT.into(),
        shared_agent: Some(places.state.join("agent/landfall-agent")),
        images,
    };
    ContainerFabric::new(env.clone(), config).context("the fabric cannot be used like this")
}

/// The drivers, running.
pub(super) struct Drivers {
    pub(super) fabric: Arc<dyn Fabric>,
    pub(super) agents: Arc<dyn Agents>,
    connect: Arc<dyn Connect>,
    agents_url: String,
    agents_ca: String,
    images: Arc<ImagesOnDemand>,
    support: Arc<Knowledge>,
    hub: Hub,
    listener: TcpListener,
    limits: Limits,
    gateway: IpAddr,
}

impl Drivers {
    /// Makes sure that the stamp's network exists and listens for agents in it.
    pub(super) async fn start(
        context: &Context,
        settings: &Settings,
        store: &Arc<dyn Store>,
    ) -> Result<Self> {
        let (env, places) = (&context.env, &context.places);
        let images = Arc::new(ImagesOnDemand::open(places, env)?);
        let fabric_images: Arc<dyn fabric_container::Images> = Arc::<ImagesOnDemand>::clone(&images);
        let fabric = Arc::new(fabric(env, places, settings, fabric_images)?);
        fabric
            .ensure_stamp()
            .await
            .context("cannot make the stamp's network")?;

        let gateway = IpAddr::V4(settings.network().gateway());
        let address = SocketAddr::new(gateway, AGENT_PORT);
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("cannot listen for agents at {address}"))?;
        let ca = agent_ca(places, env)?;
        let agents_ca = ca.certificate_pem().to_owned();
        let directory = Arc::new(StoreDirectory::new(Arc::clone(store)));
        let sessions = Sessions::new(env.clone(), directory);
        sessions.offer_agent(fabric.agent_sha256());
        let hub = Hub::new(env.clone(), ca, sessions.clone());
        hub.offer_images(Arc::<ImagesOnDemand>::clone(&images));
        Ok(Self {
            fabric,
            agents: Arc::new(sessions),
            connect: Arc::new(KubeConnect::new(env.clone(), &cluster_addons::watches())),
            agents_url: format!("https://{address}"),
            agents_ca,
            images,
            support: Arc::new(Knowledge::open(places)?),
            hub,
            listener,
            limits: agent_hub::limits_for_open_files(open_files::raise()?),
            gateway,
        })
    }

    /// The drivers that the service uses.
    pub(super) fn of_service(
        &self,
        archive: &Arc<Archive>,
        issuers: Option<Arc<dyn Issuers>>,
        sealed: Vec<Arc<dyn SealedPlace>>,
        registries: Arc<Images>,
    ) -> service::Drivers {
        service::Drivers {
            fabric: Arc::clone(&self.fabric),
            agents: Arc::clone(&self.agents),
            agents_url: self.agents_url.clone(),
            agents_ca: self.agents_ca.clone(),
            connect: Arc::clone(&self.connect),
            backups: Arc::new(ArchiveReader(Arc::clone(archive))),
            issuers,
            sealed,
            images: Arc::<ImagesOnDemand>::clone(&self.images),
            registries: Some(registries),
            support: Arc::<Knowledge>::clone(&self.support),
        }
    }

    /// Accepts backups of machines from now on.
    pub(super) fn keep_backups(&self, archive: &Arc<Archive>, store: &Arc<dyn Store>) {
        self.hub.keep_backups(BackupReceiver {
            archive: Arc::clone(archive),
            store: Arc::clone(store),
        });
    }

    /// The address of the token service for machines and pods.
    pub(super) fn authority(&self, identity: &IdentityConfig) -> TokenAuthority {
        TokenAuthority {
            url: self.agents_url.clone(),
            ca: self.agents_ca.clone(),
            tenant: identity.tenant_id.clone(),
            issuers: [Shape::Aad, Shape::AdFs]
                .map(|shape| {
                    let path = format!("{}{}", agent_hub::ISSUERS, identity.issuer_path(shape));
                    (identity.issuer(shape), path)
                })
                .into(),
        }
    }

    /// The stamp's registries as nodes reach them; `host` is in references of images.
    pub(super) fn registry(&self, host: &str) -> RegistryAccess {
        RegistryAccess {
            host: host.to_owned(),
            url: self.agents_url.clone(),
            ca: self.agents_ca.clone(),
        }
    }

    /// From now on machines and pods get tokens and images, and API servers get the decisions of role assignments.
    pub(super) fn answer_for(&self, service: &Service) {
        self.hub.give_tokens(TokenDoor {
            tokens: service.tokens(),
            url: self.agents_url.clone(),
        });
        self.hub.decide_reviews(service.reviews());
        if let Some(registries) = service.registries() {
            self.hub.serve_registries(registries, self.agents_url.clone());
        }
    }

    /// Running image builds with their current step, for people.
    pub(super) fn image_builds(&self) -> Box<dyn Fn() -> BTreeMap<String, String> + Send + Sync> {
        let images = Arc::clone(&self.images);
        Box::new(move || images.under_way())
    }

    /// What is known of node images.
    pub(super) fn node_images(&self) -> Arc<ImagesOnDemand> {
        Arc::clone(&self.images)
    }

    /// Serves agents until `stopped`.
    pub(super) fn serve(
        self,
        tasks: &mut JoinSet<Result<()>>,
        env: Env,
        stopped: watch::Receiver<bool>,
    ) -> Result<()> {
        let listener = Listener::new(self.listener)?;
        let (hub, limits, gateway) = (self.hub, self.limits, self.gateway);
        tasks.spawn(async move {
            contain(&env, "the agents' hub", &stopped, || {
                let (hub, listener, ending) = (hub.clone(), listener.again(), until(stopped.clone()));
                async move {
                    hub.serve(listener?, &[gateway], limits, ending)
                        .await
                        .context("agents cannot be served")
                }
            })
            .await
        });
        Ok(())
    }
}

#[derive(Serialize, Deserialize)]
struct KeptCa {
    certificate: String,
    key: String,
}

/// PEM of the certificate of the agents' CA, once it was made.
pub(super) fn agent_ca_certificate(places: &Places) -> Result<Option<String>> {
    let path = agent_ca_file(places);
    let Some(text) = read(&path)? else { return Ok(None) };
    let kept: KeptCa =
        serde_json::from_str(&text).with_context(|| format!("{} is damaged", path.display()))?;
    Ok(Some(kept.certificate))
}

fn agent_ca_file(places: &Places) -> PathBuf {
    places.secrets().join("agent-ca.json")
}

/// The CA of the agents, made once.
fn agent_ca(places: &Places, env: &Env) -> Result<AgentCa> {
    let path = agent_ca_file(places);
    if let Some(text) = read(&path)? {
        let damaged = || format!("{} is damaged", path.display());
        let kept: KeptCa = serde_json::from_str(&text).with_context(damaged)?;
        return AgentCa::from_pem(&kept.certificate, &kept.key).with_context(damaged);
    }
    let ca = AgentCa::generate(env.clock.now()).context("cannot make the CA of the agents")?;
    let kept = KeptCa {
        certificate: ca.certificate_pem().to_owned(),
        key: ca.key_pem().to_owned(),
    };
    let text = serde_json::to_vec(&kept).context("cannot write the CA of the agents")?;
    stamp::write_whole(&path, &text, 0o600)?;
    Ok(ca)
}
