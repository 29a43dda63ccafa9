//! The protocol between the service and the agents.
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
//! | `GET /agent/v1/images/{name}/{tag}?have={digest}` | | 200: the archive of an add-on's image; 204: it has this digest; 404: the service does not have it (yet) |
//!
//! Always true: a machine is identified by the common name of its client certificate, never by a value in its
//! messages; an agent refuses a configuration with a lower generation than its own, and does not receive one
//! that needs a newer agent. Fields that agents before [`LEVEL`] do not send count as 0. Records only; no
//! I/O.

pub mod programs;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Validity of a machine's certificate, years of 365 days. Machines outlive services; a machine's certificate is renewed only by making the
/// machine anew.
pub const CERTIFICATE_YEARS: i64 = 10;

/// The path of the seed file inside a machine; its content is [`Seed`] as JSON.
pub const SEED_PATH: &str = "/etc/landfall/seed.json";

/// The path of the agent inside a machine; each machine has its own copy. An upgrade of the service replaces
/// the file, in running machines too: the agent switches to it if its sum is [`ReportAnswer::agent_sha256`].
pub const AGENT_PATH: &str = "/opt/landfall/agent/landfall-agent";

/// The capabilities of this release's agent. Increased when a configuration may hold fields that earlier
/// agents do not know or ignore. 2: [`Process::goes_on_with`]. 3: [`Process::after`]. 4: the program
/// [`programs::CSI`]. 5: a second driver of that program ([`programs::CsiConfig::second`]).
pub const LEVEL: u32 = 5;

/// The initial data of a machine.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Seed {
    /// The machine's id.
    pub machine: String,
    /// The service's URL, e.g. `https://100.64.16.1:7443`.
    pub service: String,
    /// PEM of the CA that signed the service's certificate and will sign this machine's.
    pub ca: String,
    /// Valid for one enrolment.
    pub token: String,
}

/// An agent's first request.
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

/// The whole configuration of a machine. Replaces the previous one as a whole.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MachineConfig {
    /// Increases with each change; an agent refuses a lower one.
    pub generation: u64,
    /// Agents below this level ([`LEVEL`]) do not receive it.
    #[serde(default)]
    pub level: u32,
    /// The role, for people: `control-plane` or `node`; empty for a standby machine.
    pub role: String,
    /// Files to write (atomically, only where different), before `setup`.
    pub files: Vec<File>,
    /// Commands to run once per boot, in order, each idempotent; before any process.
    pub setup: Vec<Command>,
    /// Processes to keep running. All start at once, except those with [`Process::after`].
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
    /// Program and arguments.
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
    /// The readiness probe; `None`: ready as soon as it runs.
    pub probe: Option<Probe>,
    /// Paths of configuration files whose change restarts it.
    pub restart_on: Vec<String>,
    /// Shut-down order: higher stops first (kubelet before containerd, API server before etcd).
    pub stop_order: u8,
    /// Seconds between SIGTERM and SIGKILL, 1..=120.
    pub grace_seconds: u32,
    /// Seconds after which a running process that does not answer its probe counts as hanging: it is killed
    /// (SIGKILL to its process group) and started again. Counted from the last answer, or, three times as
    /// long, from the start of a process that has never answered. `None`: never.
    #[serde(default)]
    pub hang_seconds: Option<u32>,
    /// Paths that exist as long as the process is ready. When one has vanished, the process no longer serves
    /// the data on disk: it is killed and started again.
    #[serde(default)]
    pub needs: Vec<String>,
    /// Names of processes that must be ready whenever this one is started; names of missing processes are
    /// ignored. For programs that exit if another is not there yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<String>,
    /// A new value restarts it.
    #[serde(default)]
    pub restart: u64,
    /// Values of `restart` that do not cause a restart when replaced by the new one: the change then applies
    /// at the next start.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub goes_on_with: Vec<u64>,
    /// Path of a JSON file with the process's status, written by it (atomically), at most 8 KiB: carried in
    /// [`ProcessSeen::status`].
    #[serde(default)]
    pub status: Option<String>,
}

/// A readiness probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum Probe {
    /// A GET that returns 200.
    Http {
        /// `http://` or `https://`, with an IP address as host.
        url: String,
        /// PEM file with the CA of an `https` server.
        ca: Option<String>,
        /// PEM files of a client certificate and its key.
        identity: Option<(String, String)>,
    },
    /// A Unix socket that accepts connections.
    Unix {
        /// Its path.
        path: String,
    },
}

/// An agent's report about its machine: sent at every change, and at least every five minutes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Increases within a boot.
    pub sequence: u64,
    /// A new random value for each start of the machine.
    pub boot: String,
    /// The agent's version.
    pub agent_version: String,
    /// The agent's [`LEVEL`].
    #[serde(default)]
    pub agent_level: u32,
    /// The generation that is in force, 0 before the first.
    pub generation: u64,
    /// The reason why the latest configuration could not be applied, if so.
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
    /// The status of a process, see [`Process::status`]; `None` if there is none, or none of this type.
    pub fn status<'r, T: Deserialize<'r>>(&'r self, process: &str) -> Option<T> {
        T::deserialize(self.processes.get(process)?.status.as_ref()?).ok()
    }
}

/// An observed file system. Reported again when its usage changes by a tenth, not at every byte.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DiskSeen {
    /// A directory on it.
    pub path: String,
    /// Its size, MiB.
    pub total_mib: u64,
    /// Space for new data, MiB.
    pub free_mib: u64,
}

/// An observed process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProcessSeen {
    /// Its state.
    pub state: ProcessState,
    /// Its process id inside the machine, if it runs.
    pub pid: Option<u32>,
    /// The number of restarts in this boot.
    pub restarts: u32,
    /// The way it last ended, e.g. `exit status 1` or `signal 9`.
    pub last_exit: Option<String>,
    /// The last lines of its log when it is not ready for long or keeps ending; at most 20 lines.
    pub last_lines: Vec<String>,
    /// The number of times it was killed in this boot because it hung or a needed path had vanished.
    #[serde(default)]
    pub hangs: u32,
    /// Its status, see [`Process::status`].
    #[serde(default)]
    pub status: Option<serde_json::Value>,
}

/// The state of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ProcessState {
    /// Runs, its probe has not succeeded yet.
    Starting,
    /// Runs, its probe succeeds.
    Ready,
    /// Runs, its probe succeeded before and now fails.
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
    /// Requested logs.
    pub logs: Vec<LogRequest>,
    /// SHA-256, in hexadecimal digits, of the agent program of the service's release: the only program that
    /// may replace an agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_sha256: Option<String>,
}

/// A request for the end of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogRequest {
    /// The id for the answer.
    pub request: String,
    /// The name of the process, or `agent`.
    pub process: String,
    /// The number of lines, 1..=10000.
    pub lines: u32,
    /// Only lines with this text, also of what was set aside of the log. An agent that does not know this sends the end of the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub containing: Option<String>,
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
