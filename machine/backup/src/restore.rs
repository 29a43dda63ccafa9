//! From a backup to a data directory that etcd starts with.
//!
//! The state of the moment is written into a temporary etcd on loopback with an empty directory; `etcdutl` makes the
//! member's data directory of its database. It raises the revision above every one that clients may know and
//! marks all earlier revisions as compacted: a client that watches from an earlier revision must list anew, so that
//! no cache keeps states of the abandoned history.

use std::{
    fs::{self, File},
    io::{BufReader, Read},
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use agent_protocol::programs::{EtcdConfig, EtcdRestore};
use cluster_backup::{
    BackupError, Entry, ObjectName, Totals,
    chain::{self, NotCovered, end_of_second},
    fold::Fold,
};
use jiff::Timestamp;
use machine_etcd::client::{Client, EtcdError, Write};
use machine_program::pause;

use crate::{
    now,
    service::{OWN, Service},
    spool::Spool,
};

/// Revisions that etcd may have acknowledged beyond the newest in a backup: minutes at a few thousand writes a second.
const UNSEEN: i64 = 1_000_000;
/// Changes in one transaction…
const CHANGES: usize = 1000;
/// …and their approximate size in bytes.
const BYTES: usize = 2 * 1024 * 1024;
/// Kubernetes' own length of leases; for leases of unknown length.
const LEASE_SECONDS: i64 = 3600;
const START_BOUND: Duration = Duration::from_secs(30);
const ASK_BOUND: Duration = Duration::from_secs(60);

/// Name of the file in a spool that names its cluster.
pub(crate) const WHOSE: &str = "cluster";

/// Paths of etcd's programs.
#[derive(Debug, Clone)]
pub struct Programs {
    /// The server.
    pub etcd: PathBuf,
    /// The tool for its data directories.
    pub etcdutl: PathBuf,
}

impl Default for Programs {
    fn default() -> Self {
        Self {
            etcd: "/usr/local/bin/etcd".into(),
            etcdutl: "/usr/local/bin/etcdutl".into(),
        }
    }
}

/// Why a restore failed. Nothing was changed then.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// There is no backup of that moment.
    #[error("there is no backup to restore: {why}{}", near(.source))]
    NotCovered {
        /// The place that was searched.
        why: String,
        /// The nearest moments.
        #[source]
        source: NotCovered,
    },
    /// A file of the backup cannot be used.
    #[error("{name} of the backup cannot be used: {source}")]
    Object {
        /// The file.
        name: String,
        /// The reason.
        #[source]
        source: BackupError,
    },
    /// A file cannot be fetched.
    #[error("{name} of the backup cannot be had: {why}")]
    Fetch {
        /// The file.
        name: String,
        /// The reason.
        why: String,
    },
    /// The temporary etcd did not behave as expected.
    #[error("cannot write the restored state: {0}")]
    Etcd(#[from] EtcdError),
    /// A program failed.
    #[error("{program} failed: {why}")]
    Program {
        /// The program.
        program: &'static str,
        /// Its last output.
        why: String,
    },
    /// The disk.
    #[error("cannot {act} {path}: {source}")]
    Disk {
        /// The action.
        act: &'static str,
        /// The path.
        path: String,
        /// The reason.
        #[source]
        source: std::io::Error,
    },
}

fn near(error: &NotCovered) -> String {
    let time = |at: &Option<i64>| {
        at.and_then(|at| Timestamp::from_millisecond(at).ok())
            .map_or_else(|| "none".to_owned(), |at| at.to_string())
    };
    match error {
        NotCovered::Nothing => String::new(),
        NotCovered::Outside { before, after } => format!(
            "; the nearest moments that can be restored are {} before and {} after it",
            time(before),
            time(after)
        ),
    }
}

fn disk<'a>(act: &'static str, path: &'a Path) -> impl FnOnce(std::io::Error) -> RestoreError + 'a {
    move |source| RestoreError::Disk {
        act,
        path: path.display().to_string(),
        source,
    }
}

/// The result of a restore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// Its content.
    pub totals: Totals,
    /// The last revision of the backup in it.
    pub revision: i64,
    /// The last moment of the backup, milliseconds since 1970.
    pub until: i64,
}

/// Restores on one machine.
#[derive(Debug, Clone)]
pub struct Restore<'a> {
    /// The member that receives the data.
    pub config: &'a EtcdConfig,
    /// `/` except in tests.
    pub root: &'a Path,
    /// etcd's programs.
    pub programs: Programs,
}

/// Where a file of the backup is.
enum Place {
    Here(PathBuf),
    Service,
}

impl Restore<'_> {
    /// Makes a data directory with the requested state at `into`, which must not exist; without a request, of the newest state of the
    /// member's own cluster. The member is then the only one of a new cluster. Intermediate files are in a directory beside.
    ///
    /// # Errors
    /// When there is no such state, or a step fails: then there is no `into`.
    pub fn run(&self, wish: Option<&EtcdRestore>, into: &Path) -> Result<Restored, RestoreError> {
        let mut beside = into.as_os_str().to_owned();
        beside.push(".restoring");
        let work = PathBuf::from(beside);
        if work.exists() {
            fs::remove_dir_all(&work).map_err(disk("remove", &work))?;
        }
        fs::create_dir_all(&work).map_err(disk("create", &work))?;
        let restored = self.restore(wish, into, &work);
        // A left-over is removed at the next restore.
        let _stays = fs::remove_dir_all(&work);
        restored
    }

    fn restore(
        &self,
        wish: Option<&EtcdRestore>,
        into: &Path,
        work: &Path,
    ) -> Result<Restored, RestoreError> {
        let spool = Spool::at(Path::new(&self.config.spool));
        let whose = fs::read_to_string(spool.path(WHOSE)).ok();
        let own = wish.is_none_or(|wish| wish.own);
        // A machine that lost all data does not know its cluster.
        let here = own && wish.is_none_or(|wish| whose.as_ref().is_none_or(|whose| *whose == wish.source));
        let cluster = wish.filter(|_| !own).map_or(OWN, |wish| wish.source.as_str());

        let mut places: Vec<(ObjectName, Place)> = Vec::new();
        if here {
            places.extend(
                spool
                    .bases()
                    .into_iter()
                    .map(|name| (name, Place::Here(spool.path(&name.to_string())))),
            );
            places.extend(
                spool
                    .logs()
                    .into_iter()
                    .filter_map(|log| Some((log.name?, Place::Here(log.path)))),
            );
        }
        let cut = wish
            .and_then(|wish| wish.at)
            .map(|at| end_of_second(at.as_millisecond()));
        let here: Vec<ObjectName> = places.iter().map(|(name, _)| *name).collect();
        // The data of a single member is always newer than the service's: for the newest state the service is
        // not needed. The data of one of several members dates from its last time as leader, and must not
        // count as the newest.
        let stale = cut.is_none() && self.config.members.len() > 1 && !here.is_empty();
        let found = chain::select(&here, cut).ok().filter(|_| !stale);
        let service = Service::of_machine(self.root);
        let mut why = String::new();
        if found.is_none() || cut.is_some() {
            match service
                .as_ref()
                .map_err(Clone::clone)
                .and_then(|service| service.list(cluster))
            {
                Ok(names) => places.extend(
                    names
                        .into_iter()
                        .filter(|name| !here.contains(name))
                        .map(|name| (name, Place::Service)),
                ),
                Err(why) if stale => {
                    let name = "what the service has".to_owned();
                    return Err(RestoreError::Fetch { name, why });
                }
                Err(error) if found.is_none() => why = error,
                Err(_) => {}
            }
        }
        let names: Vec<ObjectName> = places.iter().map(|(name, _)| *name).collect();
        let chain = chain::select(&names, cut).map_err(|source| RestoreError::NotCovered { why, source })?;

        let open = |name: &ObjectName| -> Result<Box<dyn Read>, RestoreError> {
            let fetch = |why: String| RestoreError::Fetch {
                name: name.to_string(),
                why,
            };
            match places.iter().find(|(known, _)| known == name) {
                Some((_, Place::Here(path))) => {
                    let file = File::open(path).map_err(disk("read", path))?;
                    Ok(Box::new(BufReader::new(file)))
                }
                _ => {
                    let service = service.as_ref().map_err(|why| fetch(why.clone()))?;
                    Ok(Box::new(service.get(cluster, name).map_err(fetch)?))
                }
            }
        };
        let base = match chain.base {
            ObjectName::Base { revision, .. } => revision,
            ObjectName::Log { previous, .. } => previous,
        };
        let mut fold = Fold::onto(base, cut);
        for name in &chain.logs {
            let object = |source| RestoreError::Object {
                name: name.to_string(),
                source,
            };
            match (
                fold.log(open(name)?),
                places.iter().find(|(known, _)| known == name),
            ) {
                (Ok(()), _) => {}
                // The end of a log on this disk may be torn; its name has the length of the whole part.
                (Err(BackupError::Torn { .. } | BackupError::Damaged { .. }), Some((_, Place::Here(_)))) => {}
                (Err(source), _) => return Err(object(source)),
            }
            if let ObjectName::Log { last, .. } = name
                && !fold.is_beyond()
                && fold.position() < *last
            {
                return Err(object(BackupError::Gap {
                    from: fold.position(),
                    to: *last,
                }));
            }
        }

        let etcd = Beside::start(&self.programs, self.config, work)?;
        let written = self.write(&etcd, fold, open(&chain.base)?, &chain.base, own);
        let database = etcd.stop()?;
        let (totals, position, revision) = written?;

        let newest = names
            .iter()
            .map(|name| match name {
                ObjectName::Base { revision, .. } => *revision,
                ObjectName::Log { last, .. } => *last,
            })
            .max()
            .unwrap_or(position);
        let made = work.join("data");
        self.finish(&database, newest + UNSEEN - revision, &made)?;
        sync_all(&made)?;
        fs::rename(&made, into).map_err(disk("create", into))?;
        if let Some(parent) = into.parent() {
            File::open(parent)
                .and_then(|parent| parent.sync_all())
                .map_err(disk("sync", parent))?;
        }
        Ok(Restored {
            totals,
            revision: position,
            until: cut.map_or(chain.until, |cut| cut.min(chain.until)),
        })
    }

    /// Writes the state; returns its content, the backup's revision, and etcd's own.
    fn write(
        &self,
        etcd: &Beside,
        fold: Fold,
        base: Box<dyn Read>,
        name: &ObjectName,
        own: bool,
    ) -> Result<(Totals, i64, i64), RestoreError> {
        let mut revision = 0;
        let mut failure: Option<EtcdError> = None;
        // Leases are known at the end, so keys with a lease wait.
        let mut leased: Vec<Entry> = Vec::new();
        let (mut writes, mut bytes) = (Vec::new(), 0);
        let mut send = |writes: &mut Vec<Write>| -> Result<(), BackupError> {
            if writes.is_empty() {
                return Ok(());
            }
            match etcd.client.txn(&[], writes) {
                Ok(written) => {
                    revision = written.unwrap_or(revision);
                    writes.clear();
                    Ok(())
                }
                Err(error) => {
                    let why = error.to_string();
                    failure = Some(error);
                    Err(BackupError::Medium(why))
                }
            }
        };
        let folded = fold
            .finish(base, |entry| {
                if !own && stays_behind(&entry.key) {
                    return Ok(());
                }
                if entry.lease != 0 {
                    leased.push(entry.clone());
                    return Ok(());
                }
                bytes += entry.key.len() + entry.value.len();
                writes.push(put(entry));
                if writes.len() >= CHANGES || bytes >= BYTES {
                    bytes = 0;
                    send(&mut writes)?;
                }
                Ok(())
            })
            .and_then(|folded| send(&mut writes).map(|()| folded));
        let folded = match (folded, failure) {
            (Ok(folded), _) => folded,
            (Err(_), Some(failure)) => return Err(failure.into()),
            (Err(source), None) => {
                return Err(RestoreError::Object {
                    name: name.to_string(),
                    source,
                });
            }
        };
        for lease in &folded.leases {
            let seconds = if lease.ttl > 0 { lease.ttl } else { LEASE_SECONDS };
            etcd.client.grant(lease.id, seconds)?;
        }
        for entries in leased.chunks(CHANGES) {
            let writes: Vec<Write> = entries.iter().map(put).collect();
            revision = etcd.client.txn(&[], &writes)?.unwrap_or(revision);
        }
        Ok((folded.totals, folded.revision, revision))
    }

    /// Makes a data directory for the member from a database.
    fn finish(&self, database: &Path, raise: i64, made: &Path) -> Result<(), RestoreError> {
        let address = self
            .config
            .members
            .iter()
            .find(|member| member.name == self.config.member)
            .map_or(Ipv4Addr::LOCALHOST, |member| member.address);
        let peer = format!("https://{address}:2380");
        // A unique cluster id: members of the earlier cluster cannot mistake it for theirs.
        let token = self
            .config
            .restore
            .as_ref()
            .map_or_else(|| format!("lost-{}", now()), |restore| restore.id.clone());
        let mut command = Command::new(&self.programs.etcdutl);
        command
            .args(["snapshot", "restore"])
            .arg(database)
            .arg("--data-dir")
            .arg(made)
            .args(["--name", &self.config.member])
            .args(["--initial-cluster", &format!("{}={peer}", self.config.member)])
            .args(["--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster-token", &token])
            .args(["--bump-revision", &raise.max(1).to_string()])
            .args(["--mark-compacted", "--skip-hash-check"]);
        let failed = |why: String| RestoreError::Program {
            program: "etcdutl",
            why,
        };
        let output = command.output().map_err(|error| failed(error.to_string()))?;
        if output.status.success() {
            return Ok(());
        }
        Err(failed(last_line(&output.stderr)))
    }
}

fn put(entry: &Entry) -> Write {
    Write::Put {
        key: entry.key.clone(),
        value: entry.value.clone(),
        lease: entry.lease,
    }
}

/// Keys that describe the machines of another cluster: the new cluster has others. Pods are made again by their controllers.
fn stays_behind(key: &[u8]) -> bool {
    [
        &b"/registry/minions/"[..],
        b"/registry/csinodes/",
        b"/registry/leases/kube-node-lease/",
        b"/registry/masterleases/",
        b"/registry/certificatesigningrequests/",
        b"/registry/pods/",
        b"/registry/volumeattachments/",
        // The CAs that aggregated API servers trust: the new cluster's own, which its API server writes there, and no others.
        b"/registry/configmaps/kube-system/extension-apiserver-authentication",
    ]
    .iter()
    .any(|prefix| key.starts_with(prefix))
}

fn last_line(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let last = text.lines().rev().find(|line| !line.trim().is_empty());
    last.unwrap_or("it said nothing").chars().take(500).collect()
}

fn sync_all(path: &Path) -> Result<(), RestoreError> {
    if path.is_dir() {
        for entry in fs::read_dir(path).map_err(disk("read", path))? {
            let entry = entry.map_err(disk("read", path))?;
            sync_all(&entry.path())?;
        }
    }
    File::open(path)
        .and_then(|file| file.sync_all())
        .map_err(disk("sync", path))
}

/// The temporary etcd of a restore: one member, on loopback, with an empty directory.
struct Beside {
    child: Child,
    client: Client,
    data: PathBuf,
}

impl Beside {
    fn start(programs: &Programs, config: &EtcdConfig, work: &Path) -> Result<Self, RestoreError> {
        let failed = |why: String| RestoreError::Program { program: "etcd", why };
        let port = || -> std::io::Result<u16> {
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
                .local_addr()
                .map(|address| address.port())
        };
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let client = url(port().map_err(|error| failed(error.to_string()))?);
        let peer = url(port().map_err(|error| failed(error.to_string()))?);
        let data = work.join("beside");
        let log = work.join("beside.log");
        let output = File::create(&log).map_err(disk("create", &log))?;
        let child = Command::new(&programs.etcd)
            .args(["--name", "beside", "--data-dir"])
            .arg(&data)
            .args([
                "--listen-client-urls",
                &client,
                "--advertise-client-urls",
                &client,
            ])
            .args([
                "--listen-peer-urls",
                &peer,
                "--initial-advertise-peer-urls",
                &peer,
            ])
            .args(["--initial-cluster", &format!("beside={peer}")])
            // It lives for seconds; its writes are made durable once, at the end.
            .arg("--unsafe-no-fsync")
            .args(["--heartbeat-interval", "10", "--election-timeout", "100"])
            .args(["--max-txn-ops", "4096", "--max-request-bytes", "67108864"])
            .args(["--quota-backend-bytes", "8589934592"])
            .args(["--logger", "zap", "--log-level", "error"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(output)
            .spawn()
            .map_err(|error| failed(error.to_string()))?;
        let mut etcd = Self {
            child,
            client: Client::new(&client, &config.identity, ASK_BOUND)?,
            data,
        };
        let begun = pause::monotonic();
        loop {
            match etcd.client.status() {
                Ok(status) if status.leads() => return Ok(etcd),
                Ok(_) | Err(_) => {}
            }
            let ended = etcd.child.try_wait().map_err(|error| failed(error.to_string()))?;
            if ended.is_some() || pause::monotonic() - begun > START_BOUND {
                return Err(failed(last_line(&fs::read(&log).unwrap_or_default())));
            }
            pause::sleep(Duration::from_millis(20));
        }
    }

    /// Stops it, so that all writes are in its database; returns the path of that.
    fn stop(mut self) -> Result<PathBuf, RestoreError> {
        let failed = |why: String| RestoreError::Program { program: "etcd", why };
        let pid = i32::try_from(self.child.id()).unwrap_or(i32::MAX);
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM)
            .map_err(|error| failed(error.to_string()))?;
        self.child.wait().map_err(|error| failed(error.to_string()))?;
        Ok(self.data.join("member/snap/db"))
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        // After `stop` there is no process.
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

/// For `landfall-agent etcd`.
#[derive(Debug, Clone)]
pub struct FromBackup {
    /// `/` except in tests.
    pub root: PathBuf,
    /// etcd's programs.
    pub programs: Programs,
    /// Receives the result.
    pub log: fn(&str),
}

impl machine_etcd::prepare::Restorer for FromBackup {
    fn restore(&self, config: &EtcdConfig, wish: Option<&EtcdRestore>, into: &Path) -> Result<(), String> {
        let restore = Restore {
            config,
            root: &self.root,
            programs: self.programs.clone(),
        };
        let begun = pause::monotonic();
        let restored = restore.run(wish, into).map_err(|error| error.to_string())?;
        (self.log)(&format!(
            "restored {} keys as of {} (revision {}) in {} ms",
            restored.totals.keys,
            Timestamp::from_millisecond(restored.until).unwrap_or_default(),
            restored.revision,
            (pause::monotonic() - begun).as_millis(),
        ));
        Ok(())
    }
}

#[cfg(test)]
#[path = "restore_tests.rs"]
mod tests;
