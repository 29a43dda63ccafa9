//! The service of a stamp, assembled: the one place that lists its parts and their dependencies.
//!
//! ```text
//!           token service ─► edge (ARM)
//!                              │
//!  store ─► providers ◄────────┘       loops ─► drivers: fabric, agents, clusters' APIs
//!    └────────────────────────────────────┘     group reaper
//! ```
//!
//! Arguments: clock, random numbers and ids; a store and the key that seals its secrets; the drivers; the
//! stamp's names. Nothing here opens a file, listens at an address or reads the environment: that is the
//! program's part.
//!
//! Always true: `landfall serve` and the simulated stamp are this assembly, and differ only in the arguments;
//! a panic ends no part for good, and no other part at all. Called by: the binary, `simulation`.

mod access_reviews;
mod agenda;
pub mod backups;
mod channels;
mod contain;
mod credentials;
mod deadlines;
pub mod first;
mod issuers;
mod nodes;
pub mod operator;
mod readings;
mod recipes;
mod registries;
pub mod store_copies;
mod support_access;

use std::{
    pin::Pin,
    sync::{Arc, LazyLock, Mutex},
    time::Duration,
};

use access_reviews::ClusterReviews;
use agent_api::{AccessReviews, Agents};
use arm_edge::{Budgets, Edge, EdgeConfig};
use arm_kernel::{AccessControl, Authorizer, GroupReaper, Locks, Provider, Route, StoreLog};
use base_blocking::Pool;
use base_env::Env;
use base_sealer::Sealer;
use cluster_api::Connect;
use cluster_versions::Offered;
use control_loops::{Activity, Controller, ControllerDeps, LoopMeter, Recipes, Settings};
use control_records::{Epoch, HostId, usage::Limits};
use control_sealing::{SealedPlace, Sealing};
use control_store::Store;
use fabric_api::{Fabric, Uplink};
use identity::{IdentityApi, IdentityConfig, Issuers, Shape, SigningKeys, TokenService};
use policy_support::Profile;
use providers_authorization::{Authorization, RoleAuthorizer};
use providers_containerservice::{
    BackupApi, BackupReader, ClusterReader, ContainerService, HistoryApi, NodeImages, ProviderConfig,
    Rehearsals, Support, SupportData, UpgradeGuard,
};
use providers_infrastructure::{Compute, Network, Stamp};
use providers_insights::{History, Insights};
use providers_managedidentity::{ManagedIdentity, ManagedIdentityConfig};
use providers_resources::{Features, ResourcesConfig, ResourcesProvider, Subscriptions};
use registry::Registries;
use storage_images::Images;
use tokio::sync::watch;

use channels::Channels;
pub use contain::contain;
use credentials::SealedCredentials;
pub use credentials::{CredentialError, operator_kubeconfig};
use deadlines::Deadlines;
use issuers::ClusterIssuers;
use nodes::Nodes;
use readings::ClusterReadings;
pub use recipes::KubernetesRecipes;
pub use support_access::{SupportAccess, SupportAccessError, support_access};

/// Threads for the upkeep of backups and for copies.
pub(crate) static UPKEEP: LazyLock<Pool> = LazyLock::new(|| Pool::new(base_blocking::UPKEEP));

/// The stamp's names and addresses.
#[derive(Debug, Clone)]
pub struct Config {
    /// Name of the stamp.
    pub name: String,
    /// Name of its only location, e.g. `local`.
    pub location: String,
    /// GUID of its tenant.
    pub tenant: String,
    /// The display name of the tenant.
    pub tenant_name: String,
    /// The domain of clusters' names and of suffixes in the endpoints document.
    pub domain: String,
    /// Whether clients resolve names in that domain; else kubeconfigs have addresses.
    pub names: bool,
    /// The ARM API's URL without a trailing slash.
    pub base_url: String,
    /// The protocol of logins that is announced to clients.
    pub shape: Shape,
    /// The audience of tokens that is announced to clients. Others are accepted as well: the URL, and Azure's
    /// own.
    pub audience: String,
    /// Limits of its clusters.
    pub limits: Limits,
    /// How many requests a principal may send to the ARM API.
    pub budgets: Budgets,
    /// Validity of issued credentials of clusters.
    pub credential_lifetime: Duration,
    /// The support policies that it goes by.
    pub support: Profile,
}

impl Config {
    /// Host and port of the stamp's registries of images: those of the ARM API.
    pub fn registry_host(&self) -> &str {
        let url = self.base_url.trim_end_matches('/');
        url.split_once("://").map_or(url, |(_, host)| host)
    }

    /// The configuration of the token service.
    pub fn identity(&self) -> IdentityConfig {
        IdentityConfig {
            base_url: self.base_url.clone(),
            shape: self.shape,
            tenant_id: self.tenant.clone(),
            // The address of the API as well: clients without a configured audience use the API's URL.
            audiences: vec![
                self.audience.clone(),
                self.base_url.clone(),
                "https://management.core.windows.net".to_owned(),
            ],
            resources: vec![
                format!("{}/{}", self.base_url, identity_graph::ROOT),
                cluster_bootstrap::SERVER_APPLICATION.to_owned(),
                registries::AUDIENCE.to_owned(),
            ],
        }
    }
}

/// The stores of records.
#[derive(Clone)]
pub struct Records {
    /// The store.
    pub store: Arc<dyn Store>,
    /// How often the store was restored from a copy.
    pub epoch: Epoch,
    /// Seals the secrets in it.
    pub sealer: Arc<Sealer>,
}

/// The drivers.
#[derive(Clone)]
pub struct Drivers {
    /// Makes machines and networks. [`Fabric::ensure_stamp`] has been called.
    pub fabric: Arc<dyn Fabric>,
    /// The machines' agents.
    pub agents: Arc<dyn Agents>,
    /// The service's address for agents, e.g. `https://100.64.16.1:7443`.
    pub agents_url: String,
    /// PEM of the CA that agents trust and enrol with.
    pub agents_ca: String,
    /// Connects to the clusters' APIs.
    pub connect: Arc<dyn Connect>,
    /// The clusters' backups.
    pub backups: Arc<dyn BackupReader>,
    /// Fetches other issuers' keys for tokens that applications present; `None`: no other issuers are
    /// accepted.
    pub issuers: Option<Arc<dyn Issuers>>,
    /// What is sealed with the stamp's keys outside the store.
    pub sealed: Vec<Arc<dyn SealedPlace>>,
    /// What is known of node images.
    pub images: Arc<dyn NodeImages>,
    /// The images of registries; `None`: none are kept, and registries are resources only.
    pub registries: Option<Arc<Images>>,
    /// The version catalogue, and the bills of materials of node images.
    pub support: Arc<dyn SupportData>,
}

/// A part that runs until the service is stopped.
pub struct Part {
    /// Its name in logs.
    pub name: &'static str,
    /// Its work. It ends only when the service is stopped.
    pub work: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Part {
    /// A part that `begin` starts, and restarts after a panic.
    pub fn new<W: Future<Output = ()> + Send + 'static>(
        name: &'static str,
        env: &Env,
        stopped: &watch::Receiver<bool>,
        begin: impl FnMut() -> W + Send + 'static,
    ) -> Self {
        let (env, stopped) = (env.clone(), stopped.clone());
        Self {
            name,
            work: Box::pin(async move { contain(&env, name, &stopped, begin).await }),
        }
    }
}

/// The assembled parts of the service, not yet running.
pub struct Service {
    edge: Edge,
    tokens: Arc<TokenService>,
    reviews: Arc<dyn AccessReviews>,
    registries: Option<Registries>,
    store: Arc<dyn Store>,
    routes: Vec<(&'static str, Route)>,
    controller: Controller,
    reaper: GroupReaper,
    history: Arc<History>,
    sealing: Arc<Sealing>,
    channels: Channels,
    deadlines: Deadlines,
    env: Env,
}

impl Service {
    /// Assembles the parts. `keys` sign tokens; `recipes` make the configurations of Kubernetes.
    pub fn new(
        env: &Env,
        config: Config,
        records: Records,
        drivers: Drivers,
        keys: impl Into<SigningKeys>,
        recipes: Arc<dyn Recipes>,
        settings: Settings,
    ) -> Self {
        let Records { store, epoch, sealer } = records;
        let range = drivers.fabric.stamp_network().range;
        let readings = Arc::new(ClusterReadings {
            env: env.clone(),
            store: Arc::clone(&store),
            sealer: Arc::clone(&sealer),
            agents: Arc::clone(&drivers.agents),
            connect: Arc::clone(&drivers.connect),
            handles: Mutex::default(),
        });
        let guard = Arc::new(UpgradeGuard::new(Arc::clone(&readings) as Arc<dyn ClusterReader>));
        let clusters = ContainerService::new(
            env.clone(),
            Arc::clone(&store),
            Arc::clone(&sealer),
            ProviderConfig {
                location: config.location.clone(),
                url: config.base_url.trim_end_matches('/').to_owned(),
                tenant: config.tenant.clone(),
                domain: config.domain.clone(),
                offered: Offered::pinned(),
                reserved_ranges: vec![(range, "the stamp's own network".to_owned())],
                limits: config.limits.clone(),
                credential_lifetime: config.credential_lifetime,
                support: config.support,
            },
            Arc::new(SealedCredentials {
                env: env.clone(),
                store: Arc::clone(&store),
                sealer: Arc::clone(&sealer),
                names: config.names,
                authority: format!("{}/", config.base_url.trim_end_matches('/')),
            }),
        );
        let clusters = clusters
            .guarded(Arc::clone(&guard))
            .imaging(Arc::clone(&drivers.images));
        let clusters = Arc::new(clusters);
        let roles = Arc::new(RoleAuthorizer::new(Arc::clone(&store)));
        let locks = Arc::clone(&roles) as Arc<dyn Locks>;
        let deadlines = Deadlines::new(env, &store, &clusters, &drivers.backups, locks);
        let backups: Arc<dyn Provider> = Arc::new(BackupApi::new(
            env.clone(),
            Arc::clone(&clusters),
            drivers.backups,
            Arc::clone(&drivers.agents),
        ));
        let nodes = Arc::new(Nodes(Arc::clone(&clusters)));
        let channels = Channels {
            env: env.clone(),
            store: Arc::clone(&store),
            clusters: Arc::clone(&clusters),
        };
        let upgraded = Arc::clone(&clusters);
        let clusters: Arc<dyn Provider> = clusters;
        let authorization: Arc<dyn Provider> = Arc::new(Authorization::new(
            env.clone(),
            Arc::clone(&store),
            config.tenant.clone(),
        ));
        let identities: Arc<dyn Provider> = Arc::new(ManagedIdentity::new(
            ManagedIdentityConfig {
                location: config.location.clone(),
                location_display: "Local".to_owned(),
                tenant_id: config.tenant.clone(),
            },
            env.clone(),
            Arc::clone(&store),
        ));
        let tokens = TokenService::new(config.identity(), keys, env.clone(), Arc::clone(&store));
        if let Some(issuers) = drivers.issuers {
            tokens.ask_first(issuers);
        }
        let issuers = Arc::new(ClusterIssuers {
            store: Arc::clone(&store),
            sealer: Arc::clone(&sealer),
        });
        // Before other sources: the keys of issuers in the records are always available here, and are fetched
        // nowhere else.
        tokens.ask_first(Arc::clone(&issuers) as Arc<dyn Issuers>);
        let tokens = Arc::new(tokens);
        let (images, registries) =
            registries::assemble(env, &config, &store, &roles, &tokens, drivers.registries);
        let history = Arc::new(History::new(env.clone(), readings));
        let insights: Arc<dyn Provider> = Arc::new(Insights::new(
            env.clone(),
            Arc::clone(&store),
            config.tenant.clone(),
            Arc::clone(&history),
        ));
        let around = Stamp {
            store: Arc::clone(&store),
            location: config.location.clone(),
            limits: config.limits.clone(),
            outbound: drivers.fabric.stamp_network().uplink == Uplink::Host,
            reserved: vec![(range, "the stamp's own network".to_owned())],
        };
        let compute: Arc<dyn Provider> = Arc::new(Compute {
            stamp: around.clone(),
            machines: nodes,
            env: env.clone(),
        });
        let network: Arc<dyn Provider> = Arc::new(Network {
            stamp: around,
            env: env.clone(),
        });
        let features: Arc<dyn Provider> = Arc::new(Features);
        let reviews = Arc::new(ClusterReviews {
            store: Arc::clone(&store),
            roles: Arc::clone(&roles),
        });
        let resources: Arc<dyn Provider> = Arc::new(ResourcesProvider::new(
            ResourcesConfig {
                location: config.location.clone(),
                location_display: "Local".to_owned(),
                tenant_id: config.tenant.clone(),
                tenant_name: config.tenant_name.clone(),
            },
            env.clone(),
            Arc::clone(&store),
            vec![
                Arc::clone(&clusters),
                Arc::clone(&authorization),
                Arc::clone(&identities),
                Arc::clone(&registries),
                Arc::clone(&insights),
                Arc::clone(&compute),
                Arc::clone(&network),
                Arc::clone(&features),
            ],
        ));
        let own = HistoryApi::new(env.clone(), Arc::clone(&store)).rehearsing(Rehearsals {
            guard,
            clusters: upgraded,
            offered: Offered::pinned(),
            limits: config.limits.clone(),
        });
        let own = own.supporting(Support {
            profile: config.support,
            offered: Offered::pinned(),
            images: drivers.images,
        });
        let own = own
            .knowing(drivers.support, Offered::pinned())
            .unsealing(Arc::clone(&sealer))
            .auditing(Arc::clone(&drivers.agents));
        let own: Arc<dyn Provider> = Arc::new(own);
        let sealing = Arc::new(Sealing::new(
            env,
            Arc::clone(&store),
            Arc::clone(&sealer),
            drivers.sealed,
        ));
        let identity: Arc<dyn Provider> =
            Arc::new(IdentityApi::new(Arc::clone(&tokens), Arc::clone(&sealing)));
        let subscriptions: Arc<dyn Provider> = Arc::new(Subscriptions::new(env.clone(), Arc::clone(&store)));
        let providers = vec![
            Arc::clone(&clusters),
            resources,
            authorization,
            Arc::clone(&identities),
            Arc::clone(&registries),
            insights,
            compute,
            network,
            features,
            own,
            backups,
            identity,
            subscriptions,
        ];
        let routes = providers.iter().flat_map(|provider| {
            let routes = provider.routes().into_iter();
            routes.map(|route| (provider.namespace(), route))
        });
        let routes = routes.collect();
        let edge = Edge::new(
            EdgeConfig {
                stamp: config.name,
                base_url: config.base_url,
                domain: config.domain,
                location: config.location,
                budgets: config.budgets,
            },
            env.clone(),
            Arc::clone(&store),
            Arc::clone(&tokens),
            providers,
            AccessControl {
                authorizer: Arc::clone(&roles) as Arc<dyn Authorizer>,
                locks: roles,
                activity: Arc::new(StoreLog::new(env.clone(), Arc::clone(&store))),
            },
        );
        edge.publish(issuers);
        if let Some(images) = &images {
            edge.serve_images(images.clone());
        }
        let controller = Controller::new(ControllerDeps {
            env: env.clone(),
            store: Arc::clone(&store),
            epoch,
            host: HostId::first(),
            sealer,
            fabric: drivers.fabric,
            agents: drivers.agents,
            connect: drivers.connect,
            recipes,
            service_url: drivers.agents_url,
            agent_ca: drivers.agents_ca,
            settings,
        });
        Self {
            edge,
            tokens,
            reviews,
            registries: images,
            store: Arc::clone(&store),
            routes,
            controller,
            history,
            sealing,
            channels,
            deadlines,
            reaper: GroupReaper::new(env.clone(), store, vec![clusters, identities, registries]),
            env: env.clone(),
        }
    }

    /// The ARM API.
    pub fn edge(&self) -> Edge {
        self.edge.clone()
    }

    /// The token service.
    pub fn tokens(&self) -> Arc<TokenService> {
        Arc::clone(&self.tokens)
    }

    /// The decisions of role assignments in clusters.
    pub fn reviews(&self) -> Arc<dyn AccessReviews> {
        Arc::clone(&self.reviews)
    }

    /// The registries of images, if their images are kept.
    pub fn registries(&self) -> Option<Registries> {
        self.registries.clone()
    }

    /// All that the ARM API offers, by namespace.
    pub fn routes(&self) -> &[(&'static str, Route)] {
        &self.routes
    }

    /// The activity of the loops.
    pub fn activity(&self) -> watch::Receiver<Activity> {
        self.controller.activity()
    }

    /// What the loops count.
    pub fn loop_meter(&self) -> LoopMeter {
        self.controller.meter()
    }

    /// The parts to run, each as a separate task, until `stopped`.
    pub fn parts(self, stopped: &watch::Receiver<bool>) -> Vec<Part> {
        let Self {
            edge: _,
            tokens,
            reviews: _,
            registries,
            store,
            routes: _,
            controller,
            reaper,
            history,
            sealing,
            channels,
            deadlines,
            env,
        } = self;
        let controller = Arc::new(controller);
        let reaper = Arc::new(reaper);
        let ending = stopped.clone();
        // Keys without a store are never rotated.
        let looked_after = tokens.is_kept().then(|| {
            let stopped = stopped.clone();
            Part::new("keys and sign-ins", &env, &stopped.clone(), move || {
                let (tokens, ending) = (Arc::clone(&tokens), until(stopped.clone()));
                async move {
                    tokio::select! {
                        () = tokens.tend() => {}
                        () = ending => {}
                    }
                }
            })
        });
        let mut parts = vec![
            Part::new("control loops", &env, stopped, {
                let stopped = stopped.clone();
                move || {
                    let (controller, stopped) = (Arc::clone(&controller), stopped.clone());
                    async move { controller.run(stopped).await }
                }
            }),
            Part::new("deletion of resource groups", &env, stopped, move || {
                let (reaper, ending) = (Arc::clone(&reaper), until(ending.clone()));
                async move { reaper.run(ending).await }
            }),
            Part::new("metrics of clusters", &env, stopped, {
                let stopped = stopped.clone();
                move || {
                    let (history, ending) = (Arc::clone(&history), until(stopped.clone()));
                    async move {
                        tokio::select! {
                            () = history.run() => {}
                            () = ending => {}
                        }
                    }
                }
            }),
            channels.part(stopped),
            deadlines.part(stopped),
        ];
        parts.extend(looked_after);
        parts.extend(registries.map(|registries| {
            let (of_part, stopped) = (env.clone(), stopped.clone());
            Part::new("images of registries", &env, &stopped.clone(), move || {
                let work = registries::tend(of_part.clone(), Arc::clone(&store), registries.clone());
                let ending = until(stopped.clone());
                async move {
                    tokio::select! {
                        () = work => {}
                        () = ending => {}
                    }
                }
            })
        }));
        parts.push(Part::new("sealing keys", &env, stopped, {
            let stopped = stopped.clone();
            move || {
                let (sealing, ending) = (Arc::clone(&sealing), until(stopped.clone()));
                async move {
                    // Biased: chance has no part in it.
                    tokio::select! {
                        biased;
                        () = ending => {}
                        () = sealing.run() => {}
                    }
                }
            }
        }));
        parts
    }
}

/// Completes when the service is stopped.
pub async fn until(mut stopped: watch::Receiver<bool>) {
    // The sender is gone only when the whole process ends.
    drop(stopped.wait_for(|stop| *stop).await);
}
