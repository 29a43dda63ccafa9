//! `landfall serve`: the process of the service: its lock, its log, its files and sockets, its drivers, its
//! shutdown.
//!
//! Always true: one service per stamp (it holds the lock); it may be killed at any point; machines keep
//! running and are found again when it starts.

pub(crate) mod backups;
mod drivers;
mod endpoint;
mod first;
mod host_seen;
mod image_upkeep;
mod issuers;
mod listener;
mod logging;
pub(crate) mod metrics;
mod open_files;
pub(crate) mod panics;
mod recipes;
mod reserve;
mod store;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use arm_edge::ServerTls;
use base_env::Env;
use base_sealer::Sealer;
use base_tls::ServedCertificate;
use control_backup::Copies;
use control_store::Store;
use service::{
    Config, Part, Records, Service, contain,
    operator::{self, MeteredStore, Operator},
    store_copies::StoreCopies,
    until,
};
use storage_images::Images;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::JoinSet,
};

use crate::{
    addresses, admin, args, background,
    commands::Context,
    images, limits,
    problem::Problem,
    stamp::{self, LOCATION, Places, Settings},
};

pub(crate) use drivers::open_fabric;

use listener::Listener;

/// Two workers serve thousands of clusters; each further one would need memory.
const WORKERS: usize = 2;

/// Runs the service until it is asked to end.
pub(crate) fn run(context: Context, args: &args::Serve) -> Result<()> {
    context.require_root("run the service")?;
    if Settings::load(&context.places)?.is_none() {
        addresses::check_listen(
            &context.places,
            args.layout.listen.unwrap_or(stamp::DEFAULT_LISTEN),
        )?;
    }
    let taken = addresses::taken_ranges();
    let cache = images::cache_dir(&context.places)?;
    let mut settings = Settings::load_or_make(&context.places, &args.layout, &taken, &context.env)?;
    settings.remember_cache(&context.places, cache)?;
    context.places.make()?;
    let _held = background::hold(&context.places)?;
    settings.note_running(&context.places)?;
    if args.background {
        // A separate session, so that the end of the terminal does not end this process. Fails only for a
        // group leader, which has its own already.
        let _ = nix::unistd::setsid();
    }
    logging::start(
        args.background.then(|| context.places.log()).as_deref(),
        context.printer.is_verbose(),
    )?;
    panics::count();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .max_blocking_threads(base_blocking::THREADS)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let outcome = runtime.block_on(service(&context, settings));
    if let Err(error) = &outcome {
        tracing::error!(error = format!("{error:#}"), "the service ends");
    }
    // Blocking work (a build in the background) is not waited for: it can be repeated.
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
    let metrics_listener = match settings.metrics_listen {
        Some(address) => Some(metrics::listen(address, &places.name).await?),
        None => None,
    };
    let sealer = Arc::new(Sealer::open(&places.sealing_key()).context("cannot open the sealing keys")?);
    let tls = endpoint::at_start(places, &settings, &sealer, env.clock.now())?;
    let certificate = ServedCertificate::from_pem(&tls.cert_pem, &tls.key_pem)
        .context("the endpoint's certificate cannot be used")?;
    let backups::Kept {
        archive,
        mirror,
        mut sealed,
    } = backups::open(places, &settings, &sealer, env)?;
    sealed.push(Arc::new(endpoint::SealedCa {
        places: places.clone(),
        settings: settings.clone(),
        sealer: Arc::clone(&sealer),
        env: env.clone(),
    }));
    let copies = Copies::new(Arc::clone(&archive));
    let metered = MeteredStore::new(Arc::new(store::open(context, &copies).await?), env);
    let meter = metered.meter();
    let store: Arc<dyn Store> = Arc::new(metered);
    let migrated = control_records::migrate(&*store)
        .await
        .with_context(|| format!("cannot use {}", places.store().display()))?;
    if migrated.records > 0 {
        tracing::info!(
            from = migrated.from,
            records = migrated.records,
            "the store was migrated"
        );
    }
    if control_records::usage::keep(&*store).await? {
        tracing::warn!("the recorded usage of clusters was wrong; it was counted again");
    }
    let identity = control_records::epoch::identify(&*store, || env.ids.short())
        .await
        .with_context(|| format!("cannot use {}", places.store().display()))?;
    let config = config(places, &settings);
    let limits = config.limits.clone();
    first::records(&*store, places, &settings, &config, env).await?;

    let identity_config = config.identity();
    let registry_host = config.registry_host().to_owned();
    let drivers = drivers::Drivers::start(context, &settings, &store).await?;
    drivers.keep_backups(&archive, &store);
    let service = Service::new(
        env,
        config,
        Records {
            store: Arc::clone(&store),
            epoch: identity.epoch,
            sealer: Arc::clone(&sealer),
        },
        drivers.of_service(
            &archive,
            issuers::of(&settings, env),
            sealed,
            Arc::new(Images::new(places.registries())),
        ),
        first::signing_keys(places, env, &store, &sealer).await?,
        Arc::new(recipes::of_this_host(
            &settings,
            drivers.authority(&identity_config),
            drivers.registry(&registry_host),
        )),
        control_loops::Settings::default(),
    );

    drivers.answer_for(&service);

    let (stop, stopped) = watch::channel(false);
    let mut tasks: JoinSet<Result<()>> = JoinSet::new();
    let edge = service.edge();
    let loop_meter = service.loop_meter();
    let mut parts = service.parts(&stopped);
    parts.push(endless("upkeep of backups", env, &stopped, {
        let (env, store) = (env.clone(), Arc::clone(&store));
        move || service::backups::tend(env.clone(), Arc::clone(&store), Arc::clone(&archive))
    }));
    parts.push(endless("renewal of the endpoint's certificate", env, &stopped, {
        let (places, settings, env) = (places.clone(), settings.clone(), env.clone());
        let (sealer, certificate) = (Arc::clone(&sealer), certificate.clone());
        move || {
            endpoint::renew(
                places.clone(),
                settings.clone(),
                Arc::clone(&sealer),
                env.clone(),
                certificate.clone(),
            )
        }
    }));
    parts.push(endless("room for the store", env, &stopped, {
        let (env, store) = (env.clone(), places.store());
        move || reserve::keep(env.clone(), store.clone())
    }));
    parts.push(endless("newer node images", env, &stopped, {
        let (env, store, images) = (env.clone(), Arc::clone(&store), drivers.node_images());
        move || image_upkeep::tend(env.clone(), Arc::clone(&store), Arc::clone(&images))
    }));
    let copies = Arc::new(StoreCopies::new(env, Arc::clone(&store), identity, copies));
    parts.push(endless("copies of the store", env, &stopped, {
        let copies = Arc::clone(&copies);
        move || {
            let copies = Arc::clone(&copies);
            async move { copies.run().await }
        }
    }));
    let started_at = env.clock.now();
    let operator = Arc::new(Operator::new(operator::Sources {
        env: env.clone(),
        version: env!("CARGO_PKG_VERSION"),
        store: Arc::clone(&store),
        sealer: Arc::clone(&sealer),
        agents: Arc::clone(&drivers.agents),
        images: drivers.node_images(),
        limits,
        host: Arc::new(host_seen::ThisHost {
            places: places.clone(),
            images: drivers.node_images(),
            started_at,
        }),
        loops: Some(loop_meter),
        edge: Some(edge.clone()),
        metered: Some(meter),
        copies: Some(Arc::clone(&copies)),
    }));
    parts.push(endless("alerts", env, &stopped, {
        let operator = Arc::clone(&operator);
        move || {
            let operator = Arc::clone(&operator);
            async move { operator.watch_alerts().await }
        }
    }));
    parts.push(endless("records of usage", env, &stopped, {
        let operator = Arc::clone(&operator);
        move || {
            let operator = Arc::clone(&operator);
            async move { operator.keep_usage().await }
        }
    }));
    if let Some(mirror) = mirror {
        parts.push(endless("copy of backups", env, &stopped, {
            let env = env.clone();
            move || service::backups::copy(env.clone(), mirror.anew())
        }));
    }
    for part in parts {
        tasks.spawn(async move {
            part.work.await;
            tracing::debug!(part = part.name, "ended");
            Ok(())
        });
    }
    let server_tls = ServerTls::new(&certificate)?;
    let listener = Listener::new(listener)?;
    let called = edge.clone();
    tasks.spawn({
        let (env, stopped) = (env.clone(), stopped.clone());
        async move {
            contain(&env, "the ARM API", &stopped, || {
                let (edge, tls, ending) = (edge.clone(), server_tls.clone(), until(stopped.clone()));
                let listener = listener.again();
                async move {
                    edge.serve(listener?, Some(tls), ending)
                        .await
                        .context("the ARM API ended")
                }
            })
            .await
        }
    });
    if let Some(listener) = metrics_listener {
        let listener = Listener::new(listener)?;
        let token = stamp::secret(places, metrics::TOKEN)?;
        let door = metrics::Door::new(env, Arc::clone(&operator), &certificate, &token)?;
        tasks.spawn({
            let (env, stopped) = (env.clone(), stopped.clone());
            async move {
                contain(&env, "metrics for Prometheus", &stopped, || {
                    let (door, listener, ending) = (door.clone(), listener.again(), until(stopped.clone()));
                    async move { door.serve(listener?, ending).await }
                })
                .await
            }
        });
    }
    let sources = Arc::new(admin::Sources {
        name: places.name.clone(),
        settings,
        env: env.clone(),
        started_at,
        edge: called,
        store,
        sealer: Arc::clone(&sealer),
        copies,
        agents: Arc::clone(&drivers.agents),
        fabric: Arc::clone(&drivers.fabric),
        operator,
        image_builds: drivers.image_builds(),
    });
    let socket = places.socket();
    tasks.spawn({
        let (env, stopped) = (env.clone(), stopped.clone());
        async move {
            contain(&env, "the admin socket", &stopped, || {
                admin::serve(&socket, Arc::clone(&sources), until(stopped.clone()))
            })
            .await
        }
    });
    drivers.serve(&mut tasks, env.clone(), stopped)?;
    tracing::info!("ready");

    // A panic ends no part for good. A part that ends without a request, e.g. because its socket cannot be
    // made, ends the service: half a service is of no use.
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

/// The names and addresses of the stamp, for the service.
fn config(places: &Places, settings: &Settings) -> Config {
    Config {
        name: places.name.clone(),
        location: LOCATION.to_owned(),
        tenant: settings.tenant.clone(),
        tenant_name: format!("Landfall {}", places.name),
        domain: settings.domain_or_own(),
        names: settings.domain.is_some(),
        base_url: settings.arm_url(),
        shape: settings.identity,
        audience: settings.audience(),
        limits: limits::limits(places, settings),
        budgets: settings.limits.budgets(),
        credential_lifetime: Duration::from_secs(u64::from(settings.kubeconfig_hours) * 60 * 60),
        support: settings.support,
    }
}

/// A part that ends only when it is stopped.
fn endless<W: Future<Output = ()> + Send + 'static>(
    name: &'static str,
    env: &Env,
    stopped: &watch::Receiver<bool>,
    mut work: impl FnMut() -> W + Send + 'static,
) -> Part {
    let ending = stopped.clone();
    Part::new(name, env, stopped, move || {
        let (work, ending) = (work(), until(ending.clone()));
        async move {
            tokio::select! {
                () = work => {}
                () = ending => {}
            }
        }
    })
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

/// Ends on a signal to end the service.
fn told_to_end() -> Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot handle SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot handle SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
