//! `landfall-agent etcd-backup FILE`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use agent_protocol::programs::{BackupConfig, BackupStatus};
use machine_etcd::client::{Client, EtcdError, LOCAL};
use machine_program::{disk, pause};

use crate::{
    now,
    record::{End, Recorder, thread},
    restore::WHOSE,
    say,
    service::Service,
    shared::Shared,
    ship::Shipper,
    spool::Spool,
};

/// The time for a page of a base, on a busy disk.
const BOUND: Duration = Duration::from_secs(30);
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LONGEST_RETRY: Duration = Duration::from_secs(2);
const STANDBY: Duration = Duration::from_secs(2);
/// A status in which only numbers changed is sent at this interval.
const STATUS_EVERY: Duration = Duration::from_secs(60);

/// Runs until a signal ends it. `root` is `/` except in tests.
pub fn run(file: &Path, root: &Path) -> ExitCode {
    let config = fs::read(file)
        .map_err(|error| error.to_string())
        .and_then(|bytes| serde_json::from_slice::<BackupConfig>(&bytes).map_err(|error| error.to_string()));
    let config = match config {
        Ok(config) => config,
        Err(why) => {
            say(&format!("cannot read {}: {why}", file.display()));
            return ExitCode::from(2);
        }
    };
    let identity = config.identity.clone();
    match record(&config, root, &move || Client::new(LOCAL, &identity, BOUND)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            say(&why);
            ExitCode::FAILURE
        }
    }
}

/// The program, with a replaceable connection to etcd for tests. Only returns when it cannot start.
pub(crate) fn record(
    config: &BackupConfig,
    root: &Path,
    connect: &dyn Fn() -> Result<Client, EtcdError>,
) -> Result<(), String> {
    let spool = Spool::open(Path::new(&config.spool))
        .map_err(|error| format!("cannot use {}: {error}", config.spool))?;
    // For a restore: the cluster that the files belong to.
    disk::write(&spool.path(WHOSE), config.cluster.as_bytes(), 0o600).map_err(|error| error.to_string())?;
    let shared = Arc::new(Shared::default());
    let home = root.to_owned();
    let shipper = Shipper {
        connect: move || Service::of_machine(&home),
        spool: spool.clone(),
        shared: Arc::clone(&shared),
    };
    thread("ship", move || shipper.run()).map_err(|end| format!("{end:?}"))?;
    let status = StatusFile {
        path: PathBuf::from(&config.status),
        last: Mutex::new(None),
    };
    let tick = || status.tell(&shared.state().status(now()));
    let recorder = Recorder {
        root,
        connect,
        spool,
        shared: Arc::clone(&shared),
        base_every: Duration::from_secs(config.base_every_seconds.into()),
        tick: &tick,
    };
    let (mut gap, mut retry) = (false, FIRST_RETRY);
    loop {
        let begun = pause::monotonic();
        let end = recorder.session(gap);
        if pause::monotonic() - begun > LONGEST_RETRY {
            retry = FIRST_RETRY;
        }
        gap = end == End::Gap;
        match end {
            End::Gap => {}
            End::StandsBy => {
                shared.state().writing = None;
                tick();
                pause::sleep(STANDBY);
            }
            End::Failed(why) => {
                // etcd is briefly unreachable whenever it restarts: not a problem yet.
                if retry >= LONGEST_RETRY {
                    shared.state().writing = Some(why);
                }
                tick();
                pause::sleep(retry);
                retry = (retry * 2).min(LONGEST_RETRY);
            }
        }
    }
}

struct StatusFile {
    path: PathBuf,
    last: Mutex<Option<(BackupStatus, Duration)>>,
}

impl StatusFile {
    /// Written when anything other than a number changes, and at intervals.
    fn tell(&self, status: &BackupStatus) {
        let now = pause::monotonic();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let same = last.as_ref().is_some_and(|(before, at)| {
            let essence = |status: &BackupStatus| BackupStatus {
                written: 0,
                acknowledged: 0,
                ..status.clone()
            };
            essence(before) == essence(status) && (before == status || now < *at + STATUS_EVERY)
        });
        if same {
            return;
        }
        let bytes = serde_json::to_vec(status).unwrap_or_default();
        match disk::show(&self.path, &bytes) {
            Ok(()) => *last = Some((status.clone(), now)),
            Err(error) => say(&error.to_string()),
        }
    }
}
