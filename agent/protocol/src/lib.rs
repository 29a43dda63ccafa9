//! What the service and the agents say to each other.
//!
//! Agents dial out, over TLS with client certificates, to `https://{service}:{port}`:
//!
//! | request | body | answer |
//! |---|---|---|
//! | `POST /agent/v1/enroll` | [`EnrollRequest`] | [`EnrollAnswer`]; 401 for a wrong or used token. No client certificate yet |
//! | `GET /agent/v1/config?after={generation}&wait={seconds}&level={level}` | | 200 [`MachineConfig`] newer than `after` that an agent of this [`LEVEL`] can take, or 204 after the wait |
//! | `POST /agent/v1/report` | [`Report`] | 200 [`ReportAnswer`] |
//! | `POST /agent/v1/logs/{request}` | text | 204: the answer to a [`LogRequest`] |
//! | `GET /agent/v1/backup/{cluster}` | | 200: names of the files of a cluster's backup; `own` is the machine's own cluster |
//! | `PUT /agent/v1/backup/own/{file}` | a base, or a part of the log | 204: it is kept |
//! | `GET /agent/v1/backup/{cluster}/{file}` | | 200: the file |
//!
//! Always true: a machine is named by the common name of its client certificate, never by what it says; a configuration
//! with a lower generation than the one an agent has is refused, and one that needs a newer agent is not given to it. What
//! agents before [`LEVEL`] existed do not send counts as 0. Records only; no I/O.

pub mod programs;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Where the seed file lies inside a machine; its content is [`Seed`] as JSON.
pub const SEED_PATH: &str = "/etc/landfall/seed.json";

/// Where the fabric keeps the agent inside a machine, each machine its own copy. After an upgrade of the service another one lies there, in
/// a machine that runs too: the agent becomes it, if it is the one of [`ReportAnswer::agent_sha256`].
pub const AGENT_PATH: &str = "/opt/landfall/agent/landfall-agent";

/// What agents of this release can do. Counted up when a configuration may hold what agents before it do not know or would
/// not do. 2: [`Process::goes_on_with`]. 3: [`Process::after`]. 4: the program [`programs::CSI`].
pub const LEVEL: u32 = 4;

/// What a machine is born with.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Seed {
    /// The machine's id.
    pub machine: String,
    /// Where the service is, e.g. `https://100.64.16.1:7443`.
    pub service: String,
    /// PEM of the CA that signed the service's certificate and will sign this machine's.
    pub ca: String,
    /// Good for one enrolment.
    pub token: String,
}

/// The first words of an agent.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EnrollRequest {
    /// The machine's id, as seeded.
    pub machine: String,
    /// The one-time token. Repeating an enrolment with the same token *and* the same key is allowed until the first
    /// request under the new certificate arrives, so that a lost answer does not lose the machine.
    pub token: String,
    /// PEM certificate signing request; only its key counts.
    pub csr: String,
}

/// The answer to [`EnrollRequest`].
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EnrollAnswer {
    /// PEM chain for the client certificate.
    pub certificate: String,
}

/// All that a machine is to be. Replaces the one before as a whole.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MachineConfig {
    /// Grows with each change; an agent refuses to go back.
    pub generation: u64,
    /// Agents below this level ([`LEVEL`]) are not given it.
    #[serde(default)]
    pub level: u32,
    /// What it is, for people: `control-plane` or `node`; empty while it stands by.
    pub role: String,
    /// Files to write (atomically, only where different), before `setup`.
    pub files: Vec<File>,
    /// Commands to run once per boot, in order, each idempotent; before any process.
    pub setup: Vec<Command>,
    /// Processes to keep running. All start at once, but for those that come after others ([`Process::after`]).
    pub processes: Vec<Process>,
    /// Commands to run once per boot beside the processes, each retried until it succeeds (e.g. image imports).
    pub tasks: Vec<Task>,
}

/// A file.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct File {
    /// Absolute path.
    pub path: String,
    /// Permission bits, e.g. 0o600.
    pub mode: u32,
    /// UTF-8 content.
    pub content: String,
}

/// A command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Command {
    /// Program (absolute, or found in PATH) and arguments.
    pub argv: Vec<String>,
}

/// A command that is retried until it succeeds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Task {
    /// Unique in its machine.
    pub name: String,
    /// What to run.
    pub argv: Vec<String>,
}

/// A process to keep running.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Process {
    /// Unique in its machine, `[a-z0-9-]+`; also the name of its log file.
    pub name: String,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Environment, replacing the agent's.
    pub env: BTreeMap<String, String>,
    /// How to tell that it is ready; `None`: as soon as it runs.
    pub probe: Option<Probe>,
    /// Paths of configuration files whose change restarts it.
    pub restart_on: Vec<String>,
    /// Shut-down order: higher stops first (kubelet before containerd, API server before etcd).
    pub stop_order: u8,
    /// Seconds between SIGTERM and SIGKILL, 1..=120.
    pub grace_seconds: u32,
    /// Seconds after which a process that runs and does not answer its probe counts as hanging: it is killed (SIGKILL, its
    /// whole process group) and started again. Counted from the last answer, or, three times as long, from the start
    /// of one that never answered. `None`: never.
    #[serde(default)]
    pub hang_seconds: Option<u32>,
    /// Paths that exist as long as it runs and is ready. When one has vanished, what it serves is no longer what is on
    /// disk: it is killed and started again.
    #[serde(default)]
    pub needs: Vec<String>,
    /// Names of processes that have to be ready whenever this one is started; what is no process of the machine is not waited for. For
    /// programs that end where another is not there yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<String>,
    /// A new value restarts it.
    #[serde(default)]
    pub restart: u64,
    /// Values of `restart` from which the new one is no reason to restart: it matters to a start that comes anyway.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub goes_on_with: Vec<u64>,
    /// Path of a JSON file that it writes about itself (atomically), at most 8 KiB: carried in [`ProcessSeen::status`].
    #[serde(default)]
    pub status: Option<String>,
}

/// How to tell that a process is ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum Probe {
    /// A GET answers 200.
    Http {
        /// `http://` or `https://`, with an IP address as host.
        url: String,
        /// PEM file with the CA of an `https` server.
        ca: Option<String>,
        /// PEM files of a client certificate and its key.
        identity: Option<(String, String)>,
    },
    /// A Unix socket accepts.
    Unix {
        /// Its path.
        path: String,
    },
}

/// What an agent says about its machine: at every change, and at least every five minutes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Counts up within a boot.
    pub sequence: u64,
    /// A new value each time the machine starts.
    pub boot: String,
    /// The agent's version.
    pub agent_version: String,
    /// Its [`LEVEL`].
    #[serde(default)]
    pub agent_level: u32,
    /// The generation that is in force, 0 before the first.
    pub generation: u64,
    /// Why the latest configuration could not be put into force, if so.
    pub config_error: Option<String>,
    /// By process name.
    pub processes: BTreeMap<String, ProcessSeen>,
    /// Names of the tasks that succeeded in this boot.
    pub tasks_done: Vec<String>,
    /// Resident memory of the agent itself, KiB.
    pub agent_rss_kib: u64,
    /// The file systems that the machine needs space on.
    #[serde(default)]
    pub disks: Vec<DiskSeen>,
}

impl Report {
    /// What a process says about itself, see [`Process::status`]; `None` if it has said nothing, or nothing of this kind.
    pub fn status<'r, T: Deserialize<'r>>(&'r self, process: &str) -> Option<T> {
        T::deserialize(self.processes.get(process)?.status.as_ref()?).ok()
    }
}

/// A file system as seen. Told again when its state of filling changes by a tenth, not at every byte.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DiskSeen {
    /// A directory on it.
    pub path: String,
    /// Its size, MiB.
    pub total_mib: u64,
    /// What may still be written, MiB.
    pub free_mib: u64,
}

/// A supervised process as seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProcessSeen {
    /// Where it is in its life.
    pub state: ProcessState,
    /// Its process id inside the machine, if it runs.
    pub pid: Option<u32>,
    /// How often it was started again in this boot.
    pub restarts: u32,
    /// How it ended the last time, e.g. `exit status 1` or `signal 9`.
    pub last_exit: Option<String>,
    /// The last lines of its log when it is not ready for long or keeps ending; at most 20 lines.
    pub last_lines: Vec<String>,
    /// How often it was killed in this boot because it hung or what it needs had vanished.
    #[serde(default)]
    pub hangs: u32,
    /// What it says about itself, see [`Process::status`].
    #[serde(default)]
    pub status: Option<serde_json::Value>,
}

/// Where a process is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ProcessState {
    /// Runs, its probe does not answer yet.
    Starting,
    /// Runs, its probe answers.
    Ready,
    /// Runs, its probe answered before and does not any more.
    Unready,
    /// Ended; will be started again after a back-off.
    BackOff,
    /// Stopped because the configuration no longer has it, or for shut-down.
    Stopped,
}

/// The answer to a [`Report`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReportAnswer {
    /// Logs somebody wants.
    pub logs: Vec<LogRequest>,
    /// SHA-256, in hexadecimal digits, of the agent's program of the service's release: the only one that an agent gives way to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_sha256: Option<String>,
}

/// A wish for the end of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogRequest {
    /// To answer under.
    pub request: String,
    /// Which process, or `agent`.
    pub process: String,
    /// How many lines, 1..=10000.
    pub lines: u32,
}

impl std::fmt::Debug for MachineConfig {
    /// File contents are secrets: only paths are shown.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MachineConfig")
            .field("generation", &self.generation)
            .field("role", &self.role)
            .field(
                "files",
                &self.files.iter().map(|file| &file.path).collect::<Vec<_>>(),
            )
            .field(
                "processes",
                &self
                    .processes
                    .iter()
                    .map(|process| &process.name)
                    .collect::<Vec<_>>(),
            )
            .finish_non_exhaustive()
    }
}
