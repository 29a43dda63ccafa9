//! The program: its configuration, its sockets, and its end.

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

/// The stack of each thread that serves a blocking call.
const STACK: usize = 256 * 1024;
/// Concurrent blocking calls: one for each volume that a node may have, and some more for queries.
const THREADS: usize = 48;

/// Runs until a signal ends it. `log` receives a line for each action.
///
/// # Errors
/// When it cannot start, or a listener fails: an invalid configuration, a directory in which it may not
/// create a socket.
pub fn run(file: &Path, log: fn(&str)) -> Result<(), String> {
    let text = fs::read(file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    let config: CsiConfig =
        serde_json::from_slice(&text).map_err(|error| format!("cannot use {}: {error}", file.display()))?;
    // Before any thread starts, so that all threads and child programs inherit the mask: started steps are
    // completed.
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
    // Running calls are waited for when the runtime is dropped.
    runtime.block_on(async {
        match &config.second {
            // An error of one driver ends the program, with both.
            Some(second) => tokio::try_join!(one(&config.first), one(second)).map(drop),
            None => one(&config.first).await,
        }
    })
}

/// Serves this driver and registers it until `left` completes.
pub(crate) async fn serve(
    config: &CsiDriver,
    driver: Arc<dyn Service>,
    mut left: Receiver<bool>,
    log: fn(&str),
) -> Result<(), String> {
    let (socket, registration) = (Path::new(&config.socket), Path::new(&config.registration));
    // A kubelet that sees the registration socket calls this one at once.
    let calls = listen(socket)?;
    let asks = listen(registration)?;
    let registrar: Arc<dyn Service> = Arc::new(Registration {
        config: config.clone(),
        log,
    });
    let outcome = tokio::select! {
        error = grpc::serve(calls, driver) => Err(format!("{} takes no more calls: {error}", config.socket)),
        error = grpc::serve(asks, registrar) => Err(format!("{} takes no more calls: {error}", config.registration)),
        // Also when the sender is gone.
        _ = left.changed() => Ok(()),
    };
    // First the registration socket, by which the kubelet detects the driver.
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
