//! `landfall serve`: the parts of the service, put together.
//!
//! ```text
//! settings ─► store ─► hub (agents dial in) ─► fabric ─► controller
//!                └───► token service, providers ─► edge (ARM over TLS)      admin socket (commands of this host)
//! ```
//!
//! Always true: one service a stamp (it holds the lock); it may be killed at any point; machines go on without it and are
//! found again when it starts.

mod backups;
mod credentials;
mod drivers;
mod first;
mod logging;
mod recipes;

use std::{net::SocketAddr, sync::Arc};

use anyhow::{Context as _, Result};
use arm_edge::{Edge, EdgeConfig, ServerTls};
use arm_wire::Provider;
use base_env::Env;
use cluster_versions::Offered;
use control_loops::{Controller, ControllerDeps};
use control_store::{RedbStore, Sealer, Store};
use identity::{IdentityConfig, TokenService};
use providers_containerservice::{Archived, BackupApi, ContainerService, OwnApi, ProviderConfig};
use providers_resources::{GroupReaper, ResourcesConfig, ResourcesProvider};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::JoinSet,
};

use crate::{
    admin, args, background,
    commands::Context,
    problem::Problem,
    stamp::{self, LOCATION, Places, Settings},
};

pub(crate) use drivers::open_fabric;

/// Two workers serve thousands of clusters; more would each keep memory of their own.
const WORKERS: usize = 2;

/// Runs the service until it is told to end.
pub(crate) fn run(context: Context, args: &args::Serve) -> Result<()> {
    context.require_root("run the service")?;
    if Settings::load(&context.places)?.is_none() {
        stamp::check_listen(
            &context.places,
            args.layout.listen.unwrap_or(stamp::DEFAULT_LISTEN),
        )?;
    }
    let taken = stamp::taken_ranges();
    let settings = Settings::load_or_make(&context.places, &args.layout, &taken, &context.env)?;
    context.places.make()?;
    let _held = background::hold(&context.places)?;
    settings.note_running(&context.places)?;
    if args.background {
        // Away from the terminal that started us: its end is not ours. Fails only for a group's leader, which is away already.
        let _ = nix::unistd::setsid();
    }
    logging::start(
        args.background.then(|| context.places.log()).as_deref(),
        context.printer.is_verbose(),
    )?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .max_blocking_threads(16)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let outcome = runtime.block_on(service(&context, settings));
    if let Err(error) = &outcome {
        tracing::error!(error = format!("{error:#}"), "the service ends");
    }
    // Blocking work (a build in the background) is not waited for: it can be done again.
    runtime.shutdown_background();
    outcome
}

async fn service(context: &Context, settings: Settings) -> Result<()> {
    let (places, env) = (&context.places, &context.env);
    tracing::info!(
        stamp = places.name,
        version = env!("CARGO_PKG_VERSION"),
        "starting"
    );
    let listener = listen(settings.listen, &places.name).await?;
    let tls = first::endpoint_tls(places, &settings, env.clock.now())?;
    let sealer =
        Arc::new(Sealer::open(&places.secrets().join("sealing.key")).context("cannot open the sealing key")?);
    let store: Arc<dyn Store> = Arc::new(
        RedbStore::open(&places.store(), env)
            .with_context(|| format!("cannot open {}", places.store().display()))?,
    );
    first::records(&*store, places, &settings, env).await?;

    let drivers = drivers::Drivers::start(context, &settings, &store).await?;
    let backups::Kept { archive, mirror } = backups::open(places, &settings, &sealer, env)?;
    drivers.keep_backups(&archive, &store);
    let (stop, stopped) = watch::channel(false);
    let ending = |mut stopped: watch::Receiver<bool>| async move {
        // The sender is gone only when everything ends.
        drop(stopped.wait_for(|stop| *stop).await);
    };

    let clusters = Arc::new(ContainerService::new(
        env.clone(),
        Arc::clone(&store),
        Arc::clone(&sealer),
        ProviderConfig {
            location: LOCATION.to_owned(),
            domain: settings.domain_or_own(),
            offered: Offered::pinned(),
            reserved_ranges: vec![(settings.range, "the stamp's own network".to_owned())],
        },
        Arc::new(credentials::SealedCredentials {
            env: env.clone(),
            store: Arc::clone(&store),
            sealer: Arc::clone(&sealer),
            names: settings.domain.is_some(),
        }),
    ));
    let backups: Arc<dyn Provider> = Arc::new(BackupApi::new(
        env.clone(),
        Arc::clone(&clusters),
        Arc::new(Archived(Arc::clone(&archive))),
        Arc::clone(&drivers.agents),
    ));
    let aks: Arc<dyn Provider> = clusters;
    let resources: Arc<dyn Provider> = Arc::new(ResourcesProvider::new(
        ResourcesConfig {
            location: LOCATION.to_owned(),
            location_display: "Local".to_owned(),
            tenant_id: settings.tenant.clone(),
            tenant_name: format!("Landfall {}", places.name),
        },
        env.clone(),
        Arc::clone(&store),
        vec![Arc::clone(&aks)],
    ));
    let own: Arc<dyn Provider> = Arc::new(OwnApi::new(env.clone(), Arc::clone(&store)));
    let providers = vec![Arc::clone(&aks), resources, own, backups];
    let edge = edge(places, &settings, env, &store, providers)?;

    let mut tasks: JoinSet<Result<()>> = JoinSet::new();
    let controller = Controller::new(ControllerDeps {
        env: env.clone(),
        store: Arc::clone(&store),
        sealer: Arc::clone(&sealer),
        fabric: Arc::clone(&drivers.fabric),
        agents: Arc::clone(&drivers.agents),
        connect: Arc::clone(&drivers.connect),
        recipes: Arc::new(recipes::of_this_host(&settings)),
        service_url: drivers.service_url.clone(),
        agent_ca: drivers.agent_ca.clone(),
        settings: control_loops::Settings::default(),
    });
    let told = stopped.clone();
    tasks.spawn(async move {
        controller.run(told).await;
        Ok(())
    });
    let tending = backups::tend(env.clone(), Arc::clone(&store), archive);
    let told = ending(stopped.clone());
    tasks.spawn(async move {
        tokio::select! {
            () = tending => {}
            () = told => {}
        }
        Ok(())
    });
    if let Some(mirror) = mirror {
        let copying = backups::copy(env.clone(), mirror);
        let told = ending(stopped.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = copying => {}
                () = told => {}
            }
            Ok(())
        });
    }
    let reaper = GroupReaper::new(env.clone(), Arc::clone(&store), vec![aks]);
    let told = ending(stopped.clone());
    tasks.spawn(async move {
        reaper.run(told).await;
        Ok(())
    });
    let server_tls = ServerTls::from_pem(&tls.cert_pem, &tls.key_pem)?;
    let told = ending(stopped.clone());
    tasks.spawn(async move {
        edge.serve(listener, Some(server_tls), told)
            .await
            .context("the ARM API ended")
    });
    let sources = Arc::new(admin::Sources {
        name: places.name.clone(),
        settings,
        started_at: env.clock.now(),
        store,
        agents: Arc::clone(&drivers.agents),
        fabric: Arc::clone(&drivers.fabric),
        image_builds: drivers.image_builds(),
    });
    let told = ending(stopped.clone());
    let socket = places.socket();
    tasks.spawn(async move { admin::serve(&socket, sources, told).await });
    drivers.serve(&mut tasks, ending(stopped));
    tracing::info!("ready");

    // The first part that ends without being told is a fault, and takes the others along: a service that half runs helps nobody.
    let outcome = tokio::select! {
        () = told_to_end()? => Ok(()),
        Some(ended) = tasks.join_next() => match ended {
            Ok(Ok(())) => Err(anyhow::anyhow!("a part of the service ended by itself")),
            Ok(Err(error)) => Err(error),
            Err(error) => Err(error).context("a part of the service failed"),
        },
    };
    tracing::info!("ending; machines go on");
    stop.send_replace(true);
    while let Some(ended) = tasks.join_next().await {
        match ended {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(error = format!("{error:#}"), "a part ended badly"),
            Err(error) => tracing::warn!(%error, "a part ended badly"),
        }
    }
    outcome
}

fn edge(
    places: &Places,
    settings: &Settings,
    env: &Env,
    store: &Arc<dyn Store>,
    providers: Vec<Arc<dyn Provider>>,
) -> Result<Edge> {
    let base_url = settings.arm_url();
    let identity = IdentityConfig {
        issuer: format!("{base_url}/adfs"),
        tenant_id: settings.tenant.clone(),
        // The address of the API as well: clients that are told no audience ask for the API by its URL.
        audiences: vec![
            settings.audience(),
            base_url.clone(),
            "https://management.core.windows.net".to_owned(),
        ],
        resources: Vec::new(),
    };
    let key = first::signing_key(places)?;
    let tokens = TokenService::new(identity, key, env.clone(), Arc::clone(store));
    let config = EdgeConfig {
        stamp: places.name.clone(),
        base_url,
        domain: settings.domain_or_own(),
        location: LOCATION.to_owned(),
    };
    Ok(Edge::new(
        config,
        env.clone(),
        Arc::clone(store),
        Arc::new(tokens),
        providers,
    ))
}

async fn listen(address: SocketAddr, stamp: &str) -> Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        let (sentence, next) = match error.kind() {
            std::io::ErrorKind::AddrInUse => (
                format!("the address {address} is in use by another program"),
                format!(
                    "stop that program, or choose another: landfall up --name {stamp} --listen {}:{}",
                    address.ip(),
                    address.port().saturating_add(1)
                ),
            ),
            _ => (
                format!("cannot listen at {address}"),
                format!("choose an address of this host: landfall up --name {stamp} --listen 127.0.0.1:8443"),
            ),
        };
        Problem::new(sentence, next).because(error).into()
    })
}

/// Ends when somebody asks the service to end.
fn told_to_end() -> Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot hear SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot hear SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
