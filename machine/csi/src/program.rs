//! The program: its file, its sockets, and when it ends.

use std::{
    fs::{self, DirBuilder},
    os::unix::fs::DirBuilderExt as _,
    path::Path,
    sync::Arc,
};

use agent_protocol::programs::{CsiConfig, CsiDriver};
use nix::sys::signal::{SigSet, Signal};
use tokio::{
    net::UnixListener,
    runtime::Builder,
    sync::watch::{self, Receiver},
};

use crate::{
    driver::{Driver, NODES},
    grpc::{self, Service},
    host::{Machine, remove_socket},
    registration::Registration,
};

/// Of each thread that a call blocks.
const STACK: usize = 256 * 1024;
/// Calls that may block at the same time. One for each volume that a node may have, and some more that only look.
const THREADS: usize = 48;

/// Runs until it is told to end. `log` hears what is being done.
///
/// # Errors
/// When it cannot begin, or a socket takes no more connections: a configuration that is none, a place in which it may not make a socket.
pub fn run(file: &Path, log: fn(&str)) -> Result<(), String> {
    let text = fs::read(file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    let config: CsiConfig =
        serde_json::from_slice(&text).map_err(|error| format!("cannot use {}: {error}", file.display()))?;
    // Before any thread starts, so that all inherit it. So do programs that are started: what has begun is done to its end.
    let signals: SigSet = [Signal::SIGTERM, Signal::SIGINT].into_iter().collect();
    signals
        .thread_block()
        .map_err(|error| format!("cannot block signals: {error}"))?;
    let (leave, left) = watch::channel(false);
    std::thread::Builder::new()
        .name("signals".to_owned())
        .stack_size(STACK)
        .spawn(move || {
            if signals.wait().is_ok() {
                let _ended = leave.send(true);
            }
        })
        .map_err(|error| format!("cannot start the signals thread: {error}"))?;
    let runtime = Builder::new_current_thread()
        .enable_io()
        .thread_stack_size(STACK)
        .max_blocking_threads(THREADS)
        .build()
        .map_err(|error| format!("cannot start the runtime: {error}"))?;
    let one = |driver: &CsiDriver| {
        let node = config.node.clone();
        let (driver, left) = (driver.clone(), left.clone());
        async move {
            let served = Driver::new(&driver, node, Machine::default(), Path::new(NODES), log);
            serve(&driver, Arc::new(served), left, log).await
        }
    };
    // Calls that have begun are waited for when the runtime goes.
    runtime.block_on(async {
        match &config.second {
            // What ends one of them ends the other.
            Some(second) => tokio::try_join!(one(&config.first), one(second)).map(drop),
            None => one(&config.first).await,
        }
    })
}

/// Serves this driver and registers it until it is told to leave.
pub(crate) async fn serve(
    config: &CsiDriver,
    driver: Arc<dyn Service>,
    mut left: Receiver<bool>,
    log: fn(&str),
) -> Result<(), String> {
    let (socket, registration) = (Path::new(&config.socket), Path::new(&config.registration));
    // A kubelet that sees the other one calls at this one at once.
    let calls = listen(socket)?;
    let asks = listen(registration)?;
    let registrar: Arc<dyn Service> = Arc::new(Registration {
        config: config.clone(),
        log,
    });
    let outcome = tokio::select! {
        error = grpc::serve(calls, driver) => Err(format!("{} takes no more calls: {error}", config.socket)),
        error = grpc::serve(asks, registrar) => Err(format!("{} takes no more calls: {error}", config.registration)),
        // Also when nobody is left who could tell.
        _ = left.changed() => Ok(()),
    };
    // First the one by which the kubelet takes it for being there.
    let gone = remove_socket(registration).and(remove_socket(socket));
    outcome.and(gone)
}

fn listen(path: &Path) -> Result<UnixListener, String> {
    if let Some(directory) = path.parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o750)
            .create(directory)
            .map_err(|error| format!("cannot make {}: {error}", directory.display()))?;
    }
    remove_socket(path)?;
    UnixListener::bind(path).map_err(|error| format!("cannot listen at {}: {error}", path.display()))
}
