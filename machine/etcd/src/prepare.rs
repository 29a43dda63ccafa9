//! `landfall-agent etcd FILE`: provides the data directory, then becomes etcd.

use std::{
    fs, io,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use agent_protocol::programs::{EtcdConfig, EtcdPhase, EtcdRestore, EtcdStatus};
use machine_program::{disk, pause};
use nix::sys::statvfs::statvfs;

use crate::{
    client::{Client, EtcdError, Member},
    decide::{Data, Known, Marker, Seen, Step, decide, peer_url},
};

/// Environment variable with the number of quick exits in a row without readiness in between. The supervisor sets it.
pub const QUICK_EXITS: &str = "LANDFALL_QUICK_EXITS";

/// A healthy member answers in milliseconds; an unhealthy one must not delay the start.
const ASK: Duration = Duration::from_millis(700);
/// A change of the membership waits for the disks of a majority.
const CHANGE: Duration = Duration::from_secs(10);
const AGAIN: Duration = Duration::from_millis(500);
/// Pause after a failed restore.
const RESTORE_AGAIN: Duration = Duration::from_secs(3);
/// With less free space than this, a disk counts as full for etcd: a log file alone takes 64 MB.
const ROOM: u64 = 80 * 1024 * 1024;
/// The flag that bounds the database.
const QUOTA: &str = "--quota-backend-bytes=";
/// Growth beyond its present size that a database is allowed whatever its quota.
const ROOM_TO_GROW: u64 = 256 * 1024 * 1024;

/// Makes data directories from backups. Implemented by `machine/backup`.
pub trait Restorer: Sync {
    /// Makes a data directory with the requested state at `into`, which must not exist; without a request, of the newest state of the
    /// member's own cluster. The member is then the only one of a new cluster, whose token is the id of `config.restore` if
    /// there is one, so that other members recognise the cluster by its id.
    ///
    /// # Errors
    /// The reason, in words; then there is no `into`.
    fn restore(&self, config: &EtcdConfig, wish: Option<&EtcdRestore>, into: &Path) -> Result<(), String>;
}

/// Why a member cannot be prepared.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// The configuration cannot be read.
    #[error("cannot use {path}: {why}")]
    Config {
        /// The file.
        path: String,
        /// The reason.
        why: String,
    },
    /// The disk failed.
    #[error("cannot {act} {path}")]
    Disk {
        /// The action.
        act: &'static str,
        /// The path.
        path: String,
        /// The reason.
        source: io::Error,
    },
    /// A file cannot be kept.
    #[error("cannot write the record of the data")]
    Keep(#[from] disk::DiskError),
}

fn failed<'a>(act: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> PrepareError + 'a {
    move |source| PrepareError::Disk {
        act,
        path: path.display().to_string(),
        source,
    }
}

/// A member in preparation.
pub struct Prepare<'a> {
    config: EtcdConfig,
    program: PathBuf,
    restorer: &'a dyn Restorer,
    quick_exits: u32,
    log: &'a (dyn Fn(&str) + Sync),
}

impl<'a> Prepare<'a> {
    /// Reads the configuration of the member from the file. `log` receives a line for each step.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn new(
        file: &Path,
        program: &Path,
        restorer: &'a dyn Restorer,
        log: &'a (dyn Fn(&str) + Sync),
    ) -> Result<Self, PrepareError> {
        let unusable = |why: String| PrepareError::Config {
            path: file.display().to_string(),
            why,
        };
        let text = fs::read(file).map_err(|error| unusable(error.to_string()))?;
        let config: EtcdConfig =
            serde_json::from_slice(&text).map_err(|error| unusable(error.to_string()))?;
        if !config.members.iter().any(|member| member.name == config.member) {
            return Err(unusable(format!("{} is not among its members", config.member)));
        }
        let quick_exits = std::env::var(QUICK_EXITS)
            .ok()
            .and_then(|count| count.parse().ok());
        Ok(Self {
            config,
            program: program.to_owned(),
            restorer,
            quick_exits: quick_exits.unwrap_or(0),
            log,
        })
    }

    /// Repeats steps until etcd can start, without a time limit; returns the command that starts etcd.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn run(&self) -> Result<Command, PrepareError> {
        let mut marker = self.marker();
        if self.quick_exits == 0 && marker.aside {
            marker.aside = false;
            self.keep(&marker)?;
        }
        let mut said = String::new();
        loop {
            let data = self.data();
            if data == Data::Whole && !marker.had_data {
                marker.had_data = true;
                self.keep(&marker)?;
            }
            if marker.recognise(&self.config, data, self.restored_cluster()) {
                self.keep(&marker)?;
            }
            let mut seen = Seen {
                data,
                marker: marker.clone(),
                quick_exits: self.quick_exits,
                room: self.room(),
                others: None,
            };
            let mut step = decide(&self.config, &seen);
            if step == Step::Ask {
                seen.others = Some(self.others());
                step = decide(&self.config, &seen);
            }
            if let Some(command) = self.take(step, &mut marker, &mut said)? {
                return Ok(command);
            }
        }
    }

    /// Becomes etcd.
    ///
    /// # Errors
    /// Those of [`Self::run`], or when etcd cannot be started.
    pub fn become_etcd(&self) -> Result<std::convert::Infallible, PrepareError> {
        let mut command = self.run()?;
        Err(failed("start", &self.program)(command.exec()))
    }

    fn take(
        &self,
        step: Step,
        marker: &mut Marker,
        said: &mut String,
    ) -> Result<Option<Command>, PrepareError> {
        let data = Path::new(&self.config.data);
        match step {
            Step::Start => return self.etcd("existing", &self.founders(), marker).map(Some),
            Step::Found => {
                (self.log)("founds a cluster");
                marker.cluster = 0;
                marker.restore = self.config.restore.as_ref().map(|restore| restore.id.clone());
                self.keep(marker)?;
                remove(data)?;
                return self.etcd("new", &self.founders(), marker).map(Some);
            }
            Step::Join {
                member,
                cluster,
                members,
            } => {
                (self.log)(&format!("joins as member {member:x}"));
                marker.joined = Some(member);
                marker.cluster = cluster;
                marker.restore = self.config.restore.as_ref().map(|restore| restore.id.clone());
                self.keep(marker)?;
                remove(data)?;
                self.show(EtcdPhase::Joining, None, marker);
                let members = self.named(&members);
                return self.etcd("existing", &members, marker).map(Some);
            }
            Step::Add { via } => {
                let own = self.own_url();
                self.change(&via, "adds it as a learner", marker, said, |client| {
                    client.add_learner(&own).map(drop)
                });
            }
            Step::Leave { via, member } => {
                self.change(&via, "removes its old membership", marker, said, |client| {
                    client.remove(member)
                });
            }
            Step::Restore { wished } => {
                self.show(EtcdPhase::Restoring, None, marker);
                (self.log)("restores from the backup");
                let wish = self.config.restore.as_ref().filter(|_| wished);
                let into = beside(data, "restored");
                remove(&into)?;
                match self.restorer.restore(&self.config, wish, &into) {
                    Ok(()) => {
                        // The restore of the newest state was not requested: the data here may hold changes that no backup has.
                        if wish.is_some_and(|wish| wish.at.is_none()) && data.exists() {
                            let aside = self.aside()?;
                            (self.log)(&format!("the earlier data is now {}", aside.display()));
                            fs::rename(data, &aside).map_err(failed("set aside", data))?;
                        }
                        remove(data)?;
                        fs::rename(&into, data).map_err(failed("create", data))?;
                        // The order matters: a marker without its data would present old data as restored.
                        marker.restore = self.config.restore.as_ref().map(|restore| restore.id.clone());
                        marker.had_data = true;
                        marker.cluster = 0;
                        self.keep(marker)?;
                    }
                    Err(why) => {
                        self.say(said, &format!("cannot restore: {why}"));
                        self.show(EtcdPhase::Restoring, Some(why), marker);
                        pause::sleep(RESTORE_AGAIN);
                    }
                }
            }
            Step::SetAside => {
                let aside = self.aside()?;
                self.say(
                    said,
                    &format!("its data is unusable; it is now {}", aside.display()),
                );
                marker.aside = true;
                marker.had_data = true;
                self.keep(marker)?;
                if data.exists() {
                    fs::rename(data, &aside).map_err(failed("set aside", data))?;
                }
            }
            Step::Discard => {
                self.say(said, "deletes its data: another member has restored");
                remove(data)?;
            }
            Step::Wait(what) => {
                self.say(said, &format!("waits for {what}"));
                self.show(EtcdPhase::Waiting, Some(what), marker);
                pause::sleep(AGAIN);
            }
            Step::Ask => unreachable!("the others were asked"),
        }
        Ok(None)
    }

    /// Requests a change of the membership from another member. The next look shows the result.
    fn change(
        &self,
        via: &str,
        what: &str,
        marker: &Marker,
        said: &mut String,
        change: impl FnOnce(&Client) -> Result<(), EtcdError>,
    ) {
        match self.client(via, CHANGE).and_then(|client| change(&client)) {
            Ok(()) => (self.log)(&format!("member {via} {what}")),
            Err(error) if error.is_not_found() => {}
            Err(error) => {
                self.say(said, &error.to_string());
                self.show(EtcdPhase::Joining, Some(error.to_string()), marker);
                pause::sleep(AGAIN);
            }
        }
    }

    /// Logs a line once, not at every check.
    fn say(&self, said: &mut String, line: &str) {
        if said != line {
            (self.log)(line);
            line.clone_into(said);
        }
    }

    fn client(&self, name: &str, bound: Duration) -> Result<Client, EtcdError> {
        let found = self.config.members.iter().find(|member| member.name == name);
        let address = found.map_or(std::net::Ipv4Addr::UNSPECIFIED, |member| member.address);
        Client::new(&format!("https://{address}:2379"), &self.config.identity, bound)
    }

    /// The answers of the other members, all requested at once.
    fn others(&self) -> Vec<Known> {
        // A finished restore may have been done by another machine than the configured one: only one cluster is left to be found.
        let done = self.config.restore.as_ref().is_some_and(|restore| restore.done);
        let expected = self.restored_cluster().filter(|_| !done);
        let ask = |name: &str| -> Option<Known> {
            let client = self.client(name, ASK).ok()?;
            let status = client.status().ok()?;
            if status.leader == 0 || status.is_learner {
                return None;
            }
            Some(Known {
                by: name.to_owned(),
                restored: expected.is_none_or(|expected| expected == status.header.cluster_id),
                cluster: status.header.cluster_id,
                members: client.members().ok()?,
            })
        };
        std::thread::scope(|scope| {
            let others = self
                .config
                .members
                .iter()
                .filter(|member| member.name != self.config.member);
            let asked: Vec<_> = others.map(|member| scope.spawn(|| ask(&member.name))).collect();
            asked
                .into_iter()
                .filter_map(|answer| answer.join().ok().flatten())
                .collect()
        })
    }

    /// The id of the cluster that the configured restore makes.
    fn restored_cluster(&self) -> Option<u64> {
        let restore = self.config.restore.as_ref()?;
        let mut members = self.config.members.iter();
        let by = members.find(|member| member.name == restore.by)?;
        Some(cluster_id(&peer_url(by), &restore.id))
    }

    fn own_url(&self) -> String {
        let own = self
            .config
            .members
            .iter()
            .find(|member| member.name == self.config.member);
        own.map(peer_url).unwrap_or_default()
    }

    fn founders(&self) -> Vec<(String, String)> {
        let members = self.config.members.iter();
        members
            .map(|member| (member.name.clone(), peer_url(member)))
            .collect()
    }

    /// Names and peer URLs as the cluster knows them. A member that has not started has no name there: any name will do.
    fn named(&self, members: &[Member]) -> Vec<(String, String)> {
        let own = self.own_url();
        let name = |member: &Member| match member {
            member if member.peer_urls.contains(&own) => self.config.member.clone(),
            member if member.name.is_empty() => format!("member-{:x}", member.id),
            member => member.name.clone(),
        };
        members
            .iter()
            .flat_map(|member| {
                member
                    .peer_urls
                    .iter()
                    .map(move |url| (name(member), url.clone()))
            })
            .collect()
    }

    fn etcd(
        &self,
        state: &str,
        members: &[(String, String)],
        marker: &Marker,
    ) -> Result<Command, PrepareError> {
        self.show(EtcdPhase::Started, None, marker);
        let all: Vec<String> = members
            .iter()
            .map(|(name, url)| format!("{name}={url}"))
            .collect();
        let data = Path::new(&self.config.data);
        if let Some(directory) = data.parent() {
            fs::create_dir_all(directory).map_err(failed("create", directory))?;
        }
        let database = fs::metadata(data.join("member/snap/db")).map_or(0, |found| found.len());
        let mut command = Command::new(&self.program);
        command
            .arg(format!("--name={}", self.config.member))
            .arg(format!("--data-dir={}", self.config.data))
            .arg(format!("--initial-advertise-peer-urls={}", self.own_url()))
            .arg(format!("--initial-cluster={}", all.join(",")))
            .arg(format!("--initial-cluster-state={state}"))
            .args(with_room(&self.config.flags, database))
            .env_remove(QUICK_EXITS);
        Ok(command)
    }

    fn data(&self) -> Data {
        let data = Path::new(&self.config.data);
        let logs = fs::read_dir(data.join("member/wal")).is_ok_and(|entries| {
            entries
                .filter_map(Result::ok)
                .any(|entry| entry.path().extension().is_some_and(|ending| ending == "wal"))
        });
        let database = data.join("member/snap/db").is_file();
        let empty = fs::read_dir(data).map_or(true, |mut entries| entries.next().is_none());
        match (logs, database) {
            (true, true) => Data::Whole,
            // The directory was opened before the log was made: an interrupted first start, which has promised nothing.
            (false, _) if empty || !self.marker().had_data => Data::None,
            _ => Data::Part,
        }
    }

    fn room(&self) -> bool {
        let data = Path::new(&self.config.data);
        let directory = data.parent().unwrap_or(data);
        statvfs(directory)
            .map(|found| found.blocks_available().saturating_mul(found.fragment_size()) >= ROOM)
            // A disk that cannot be examined is not known to be full.
            .unwrap_or(true)
    }

    /// A free name for data that is set aside; data that was set aside before is removed.
    fn aside(&self) -> Result<PathBuf, PrepareError> {
        let data = Path::new(&self.config.data);
        let (directory, name) = (
            data.parent().unwrap_or(data),
            data.file_name().unwrap_or_default(),
        );
        let prefix = format!("{}.broken-", name.display());
        let mut number = 0_u32;
        for entry in fs::read_dir(directory)
            .map_err(failed("read", directory))?
            .filter_map(Result::ok)
        {
            let file = entry.file_name();
            if let Some(old) = file.to_str().and_then(|file| file.strip_prefix(&prefix)) {
                number = number.max(old.parse().unwrap_or(0));
                remove(&entry.path())?;
            }
        }
        Ok(directory.join(format!("{prefix}{}", number + 1)))
    }

    fn marker_path(&self) -> PathBuf {
        beside(Path::new(&self.config.data), "marker.json")
    }

    /// A damaged marker counts as the safe case: there was data.
    fn marker(&self) -> Marker {
        match fs::read(self.marker_path()) {
            Ok(text) => serde_json::from_slice(&text).unwrap_or(Marker {
                had_data: true,
                ..Marker::default()
            }),
            Err(_) => Marker::default(),
        }
    }

    fn keep(&self, marker: &Marker) -> Result<(), PrepareError> {
        let text = serde_json::to_vec(marker).unwrap_or_default();
        Ok(disk::write(&self.marker_path(), &text, 0o600)?)
    }

    fn show(&self, phase: EtcdPhase, why: Option<String>, marker: &Marker) {
        let status = EtcdStatus {
            phase,
            why,
            restored: marker.restore.clone(),
            empty: phase == EtcdPhase::Waiting
                && (self.config.formed || marker.had_data)
                && self.data() == Data::None,
        };
        let text = serde_json::to_vec(&status).unwrap_or_default();
        // The status is for people and for the loops; etcd does not depend on it.
        let _full = disk::show(Path::new(&self.config.status()), &text);
    }
}

/// The flags for a database of this size. A database that exceeds the quota, because its tier was lowered, gets a larger one: otherwise
/// etcd would refuse all writes from its start on, including those that make the database smaller.
fn with_room(flags: &[String], database: u64) -> Vec<String> {
    let roomy = |flag: &String| {
        let quota: u64 = flag.strip_prefix(QUOTA)?.parse().ok()?;
        Some(format!(
            "{QUOTA}{}",
            quota.max(database.saturating_add(ROOM_TO_GROW))
        ))
    };
    flags
        .iter()
        .map(|flag| roomy(flag).unwrap_or_else(|| flag.clone()))
        .collect()
}

fn beside(data: &Path, ending: &str) -> PathBuf {
    let mut name = data.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    PathBuf::from(name)
}

fn remove(path: &Path) -> Result<(), PrepareError> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(_) => return Ok(()),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(error)),
        _ => Ok(()),
    }
}

/// The id that etcd gives a cluster that began with one member, at this URL and with this token.
fn cluster_id(peer: &str, token: &str) -> u64 {
    use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
    let number = |bytes: &[u8]| {
        let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, bytes);
        let mut first = [0; 8];
        first.copy_from_slice(&hash.as_ref()[..8]);
        u64::from_be_bytes(first)
    };
    let member = number(format!("{peer}{token}").as_bytes());
    number(&member.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_that_has_outgrown_its_quota_has_room_all_the_same() {
        let flags = |quota: u64| vec!["--pre-vote=true".to_owned(), format!("{QUOTA}{quota}")];
        let gib = 1 << 30;
        assert_eq!(with_room(&flags(2 * gib), gib), flags(2 * gib));
        assert_eq!(with_room(&flags(2 * gib), 3 * gib), flags(3 * gib + ROOM_TO_GROW));
    }
}
