//! A service and a machine: a real hub on a loopback port, and the real agent as first process of a pid
//! namespace, with a temporary root. The machine dies as a whole with its agent, as in a container.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agent_api::Agents as _;
use agent_hub::{AgentCa, Hub, limits_for_open_files};
use agent_protocol::{File, MachineConfig, Process, Report, Seed};
use agent_sessions::{DirectoryError, Enrolment, MachineDirectory, Sessions};
use async_trait::async_trait;
use base_env::Env;
use futures::StreamExt as _;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// The only machine.
pub(crate) const MACHINE: &str = "m-1";
/// Its token.
pub(crate) const TOKEN: &str = "token";
const SHA256_OF_TOKEN: &str = "3c469e9d6c5875d37a43f353d4f88e61fcf812c66eee3457465a40b0da4153e0";
/// Longer than any wait takes here on a busy machine.
pub(crate) const BOUND: Duration = Duration::from_secs(30);

/// One machine, in memory.
#[derive(Default)]
pub(crate) struct Book {
    key: Mutex<Option<String>>,
    used: Mutex<bool>,
    /// The number of token look-ups.
    pub(crate) asked: AtomicU32,
}

#[async_trait]
impl MachineDirectory for Book {
    async fn token(&self, machine: &str) -> Result<Option<Enrolment>, DirectoryError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        Ok((machine == MACHINE).then(|| Enrolment {
            token_hash: SHA256_OF_TOKEN.to_owned(),
            enrolled_key: self.key.lock().unwrap().clone(),
            token_used: *self.used.lock().unwrap(),
        }))
    }

    async fn bind_key(&self, _: &str, key_hash: &str) -> Result<bool, DirectoryError> {
        if *self.used.lock().unwrap() {
            return Ok(false);
        }
        let mut key = self.key.lock().unwrap();
        Ok(key.get_or_insert_with(|| key_hash.to_owned()) == key_hash)
    }

    async fn token_used(&self, _: &str) -> Result<(), DirectoryError> {
        *self.used.lock().unwrap() = true;
        Ok(())
    }
}

impl Book {
    /// Whether a key enrolled.
    pub(crate) fn enrolled(&self) -> bool {
        self.key.lock().unwrap().is_some()
    }
}

/// The running service.
struct Service {
    sessions: Sessions,
    stop: oneshot::Sender<()>,
    served: JoinHandle<()>,
}

/// The service, the machine, and the machine's root directory.
pub(crate) struct World {
    /// Clock and ids.
    pub(crate) env: Env,
    /// The service's record of the machine.
    pub(crate) book: Arc<Book>,
    ca: AgentCa,
    address: SocketAddr,
    service: Option<Service>,
    agent: Option<Child>,
    root: tempfile::TempDir,
}

impl World {
    /// A running service and a stopped machine whose seed has this token.
    pub(crate) async fn new(token: &str) -> Self {
        let env = Env::system();
        let ca = AgentCa::generate(env.clock.now()).unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let root = tempfile::tempdir().unwrap();
        let seed = Seed {
            machine: MACHINE.to_owned(),
            service: format!("https://{address}"),
            ca: ca.certificate_pem().to_owned(),
            token: token.to_owned(),
        };
        fs::create_dir_all(root.path().join("etc/landfall")).unwrap();
        let text = serde_json::to_string(&seed).unwrap();
        fs::write(root.path().join("etc/landfall/seed.json"), text).unwrap();
        let mut world = Self {
            env,
            book: Arc::default(),
            ca,
            address,
            service: None,
            agent: None,
            root,
        };
        world.serve(listener);
        world
    }

    fn serve(&mut self, listener: TcpListener) {
        let sessions = Sessions::new(self.env.clone(), Arc::clone(&self.book) as _);
        let hub = Hub::new(self.env.clone(), self.ca.clone(), sessions.clone());
        let (stop, stopped) = oneshot::channel::<()>();
        let (server, addresses) = (hub, [self.address.ip()]);
        // A separate runtime: when it is dropped, every connection is closed, as with a killed service.
        let served = tokio::task::spawn_blocking(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            let listener = listener.into_std().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).unwrap();
                let stopped = async { drop(stopped.await) };
                let limits = limits_for_open_files(8192);
                server.serve(listener, &addresses, limits, stopped).await.unwrap();
            });
        });
        self.service = Some(Service {
            sessions,
            stop,
            served,
        });
    }

    /// Stops the service, with all its state in memory.
    pub(crate) async fn stop_service(&mut self) {
        let service = self.service.take().expect("it runs");
        service.stop.send(()).unwrap();
        service.served.await.unwrap();
    }

    /// Starts a new service at the same address, without state.
    pub(crate) async fn start_service(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.serve(listener);
    }

    /// The service.
    pub(crate) fn sessions(&self) -> &Sessions {
        &self.service.as_ref().expect("it runs").sessions
    }

    /// Starts the machine.
    pub(crate) fn start_machine(&mut self) {
        assert!(self.agent.is_none(), "it is off");
        let program = program();
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--kill-child", "--mount-proc"]);
        if fs::metadata("/proc/self").is_ok_and(|me| std::os::unix::fs::MetadataExt::uid(&me) != 0) {
            command.args(["--user", "--map-root-user"]);
        }
        command
            .arg(program)
            .arg("--root")
            .arg(self.root.path())
            .stdin(Stdio::null());
        self.agent = Some(command.spawn().expect("util-linux is there"));
    }

    /// The agent's process id in the pid namespace of the test.
    pub(crate) fn agent_pid(&self) -> u32 {
        let unshare = self.agent.as_ref().expect("it is on").id();
        let children = format!("/proc/{unshare}/task/{unshare}/children");
        let children = fs::read_to_string(children).unwrap();
        children.trim().parse().expect("unshare has one child")
    }

    /// The file of the running agent.
    pub(crate) fn agent_program(&self) -> PathBuf {
        fs::read_link(format!("/proc/{}/exe", self.agent_pid())).unwrap()
    }

    /// Puts another agent at the agent path and announces it, as an upgrade does.
    pub(crate) fn put_agent(&self, program: &[u8]) {
        let sum: String = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, program)
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        self.sessions().offer_agent(&sum);
        self.slip_agent(program);
    }

    /// Puts another agent there without an announcement.
    pub(crate) fn slip_agent(&self, program: &[u8]) {
        let place = self.path(agent_protocol::AGENT_PATH);
        let new = place.with_extension("new");
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::write(&new, program).unwrap();
        fs::set_permissions(&new, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        fs::rename(&new, &place).unwrap();
    }

    fn signal(&self, name: &str) {
        let pid = self.agent_pid().to_string();
        assert!(
            Command::new("kill")
                .args([name, &pid])
                .status()
                .unwrap()
                .success()
        );
    }

    /// Kills the agent (`kill -9`), as at a power cut.
    pub(crate) fn cut_power(&mut self) {
        self.signal("-KILL");
        self.agent.take().expect("it is on").wait().unwrap();
    }

    /// Requests a shut-down of the machine, and waits for its end.
    pub(crate) async fn shut_down(&mut self, signal: &str) {
        self.signal(signal);
        let agent = Mutex::new(self.agent.as_mut().expect("it is on"));
        let what = format!("the machine to end after {signal}");
        let ended = base_testkit::wait_for(&self.env.clock, &what, BOUND, || async {
            let ended = agent.lock().unwrap().try_wait().unwrap();
            ended.ok_or_else(|| "it runs".to_owned())
        })
        .await;
        assert!(ended.success(), "{ended}");
        self.agent = None;
    }

    /// Publishes a configuration.
    pub(crate) fn publish(&self, config: MachineConfig) {
        self.sessions().publish(MACHINE, Arc::new(config));
    }

    /// Waits for a report that satisfies the condition.
    pub(crate) async fn report(&self, what: &str, is: impl Fn(&Report) -> bool) -> Arc<Report> {
        let mut news = self.sessions().subscribe();
        let found = self.env.clock.timeout(BOUND, async {
            loop {
                if let Some(report) = self.sessions().report(MACHINE).filter(|report| is(report)) {
                    return report;
                }
                news.next().await.expect("the hub stays");
            }
        });
        match found.await {
            Ok(report) => report,
            Err(_) => panic!(
                "waited {BOUND:?} for {what}; last seen: {:?}",
                self.sessions().report(MACHINE)
            ),
        }
    }

    /// Waits until the content of a file of the machine satisfies the condition.
    pub(crate) async fn file(&self, path: &str, is: impl Fn(&str) -> bool) -> String {
        base_testkit::wait_for(&self.env.clock, path, BOUND, || async {
            match fs::read_to_string(self.path(path)) {
                Ok(text) if is(&text) => Ok(text),
                Ok(text) => Err(text),
                Err(error) => Err(error.to_string()),
            }
        })
        .await
    }

    /// The path of a file of the machine on the host.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path.trim_start_matches('/'))
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            // Ends the whole pid namespace.
            agent.kill().expect("it was not waited for");
            agent.wait().expect("it was not waited for");
        }
        if let Some(service) = self.service.take() {
            // Its end is not awaited here: the test's runtime does that.
            let _stopped_already = service.stop.send(());
        }
    }
}

/// The agent under test.
pub(crate) fn program() -> PathBuf {
    let given = std::env::var_os("LANDFALL_AGENT_PROGRAM");
    given
        .unwrap_or_else(|| env!("CARGO_BIN_EXE_landfall-agent").into())
        .into()
}

/// A process that runs a shell line; `$R` in it is the machine's root.
pub(crate) fn shell(world: &World, name: &str, line: &str) -> Process {
    Process {
        name: name.to_owned(),
        argv: ["/bin/sh", "-c", line].map(str::to_owned).into(),
        env: BTreeMap::from([("R".to_owned(), world.root.path().display().to_string())]),
        probe: None,
        restart_on: Vec::new(),
        stop_order: 1,
        grace_seconds: 5,
        ..Process::default()
    }
}

/// A file of the machine.
pub(crate) fn file(path: &str, content: &str) -> File {
    File {
        path: path.to_owned(),
        mode: 0o600,
        content: content.to_owned(),
    }
}
