//! An agent's contact with the service: it enrols with its token, asks for configurations, reports, and sends logs.
//!
//! The behaviour of a real agent (`machine/agent`) is simulated here; the service's answers come from its own
//! code ([`agent_sessions::Sessions`]). Only TLS between the two is left out: a certificate is represented by
//! its name and key. A machine that cannot reach the service has no connection, and requests in progress are
//! cut off.

use std::{sync::Arc, time::Duration};

use agent_api::{Agents, LogError, WakeUp};
use agent_protocol::{LEVEL, LogRequest, MachineConfig, Report};
use agent_sessions::{Admitted, ConfigAnswer, Sessions};
use async_trait::async_trait;
use base_env::Clock;
use fabric_api::Power;
use futures::stream::BoxStream;
use tokio::sync::Notify;

use crate::{
    Inner, SimWorld,
    enrolment::{Identity, Service, Tied},
    faults::{Call, Verdict},
    state::{Machine, State},
};

/// The longest wait of a request for a configuration, seconds.
const WAIT: u64 = 30;
/// A report is sent at least this often.
const HEARTBEAT: Duration = Duration::from_secs(5 * 60);
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LONGEST_RETRY: Duration = Duration::from_secs(5);
/// The line limit of a log.
const LINES_MAX: u32 = 10_000;

/// A retry interval that doubles up to a limit.
struct Retry(Duration);

impl Retry {
    fn new() -> Self {
        Self(FIRST_RETRY)
    }

    async fn wait(&mut self, clock: &Arc<dyn Clock>) {
        clock.sleep(self.0).await;
        self.0 = (self.0 * 2).min(LONGEST_RETRY);
    }
}

/// A machine's connection to the service.
struct Line {
    inner: Arc<Inner>,
    sessions: Sessions,
    id: String,
    boot: u64,
    wake: Arc<Notify>,
}

impl Line {
    /// Runs as long as both ends exist.
    async fn run(self, wait: Duration) {
        self.inner.env.clock.sleep(wait).await;
        if let Some(key) = self.enrol().await {
            tokio::join!(self.ask(&key), self.tell(&key));
        }
    }

    fn of_machine<T>(&self, look: impl FnOnce(&mut Machine) -> T) -> Option<T> {
        self.inner.state().machines.get_mut(&self.id).map(look)
    }

    /// The enrolled key; retries until the service accepts it.
    async fn enrol(&self) -> Option<String> {
        let mut retry = Retry::new();
        loop {
            let (identity, token) =
                self.of_machine(|machine| (machine.identity.clone(), machine.token.clone()))?;
            let Identity { key, enrolled } = identity?;
            if enrolled {
                return Some(key);
            }
            let taken = match self.sessions.claim(&self.id, &token).await {
                Ok(claim) => self.sessions.bind(&claim, &key).await,
                Err(refusal) => Err(refusal),
            };
            if taken.is_ok() {
                self.of_machine(|machine| {
                    if let Some(identity) = &mut machine.identity {
                        identity.enrolled = true;
                    }
                });
                return Some(key);
            }
            retry.wait(&self.inner.env.clock).await;
        }
    }

    /// Requests configurations for ever.
    async fn ask(&self, key: &str) {
        let mut retry = Retry::new();
        loop {
            let Ok(machine) = self.sessions.admit(&self.id, key).await else {
                retry.wait(&self.inner.env.clock).await;
                continue;
            };
            retry = Retry::new();
            let after = self.of_machine(|machine| {
                let config = machine.in_force.as_ref();
                config.map_or(0, |config| config.generation)
            });
            match self
                .sessions
                .config(&machine, after.unwrap_or(0), LEVEL, WAIT)
                .await
            {
                ConfigAnswer::Newer(config) => self.take(&config).await,
                ConfigAnswer::Report => {
                    self.wake.notify_one();
                    // The request stays on the service's list until a report answers it.
                    self.inner.env.clock.sleep(FIRST_RETRY).await;
                }
                ConfigAnswer::Nothing => {}
            }
        }
    }

    async fn take(&self, config: &Arc<MachineConfig>) {
        let (inner, id) = (&self.inner, &self.id);
        let wait = inner.delay(&inner.options.config, id, "config", config.generation);
        inner.env.clock.sleep(wait).await;
        inner.take(id, self.boot, config);
    }

    /// Sends reports for ever.
    async fn tell(&self, key: &str) {
        let mut retry = Retry::new();
        let clock = &self.inner.env.clock;
        while let Some(report) = self.report() {
            let Ok(machine) = self.sessions.admit(&self.id, key).await else {
                retry.wait(clock).await;
                continue;
            };
            retry = Retry::new();
            for wish in self.sessions.take_report(&machine, report).logs {
                self.send_log(&machine, &wish);
            }
            // Without changes, it reports all the same.
            let _news = clock.timeout(HEARTBEAT, self.wake.notified()).await;
        }
    }

    fn report(&self) -> Option<Report> {
        let mut state = self.inner.state();
        state.machines.get_mut(&self.id)?.sequence += 1;
        self.inner.content(&state, &self.id)
    }

    fn send_log(&self, machine: &Admitted, wish: &LogRequest) {
        let LogRequest {
            request,
            process,
            lines,
            ..
        } = wish;
        if let Some(asker) = self.sessions.log_asker(machine, request) {
            let log: String = (1..=(*lines).min(LINES_MAX))
                .map(|line| format!("{process} on {}: simulated line {line}\n", self.id))
                .collect();
            asker.answer(log.as_bytes());
        }
    }
}

impl Inner {
    /// The agent connects after a while, if there is a service that it can reach and it has no connection.
    pub(crate) fn dial(self: &Arc<Self>, state: &mut State, id: &str, wait: Duration) {
        let Some(sessions) = state.service.as_ref().map(|service| service.sessions.clone()) else {
            return;
        };
        let reaches = state.reaches(id);
        let Some(machine) = state.machines.get_mut(id) else {
            return;
        };
        let calls = machine.up && machine.power == Power::Running && reaches;
        if !calls || machine.line.is_some() {
            return;
        }
        let line = Line {
            inner: Arc::clone(self),
            sessions,
            id: id.to_owned(),
            boot: machine.boot,
            wake: Arc::clone(&machine.wake),
        };
        machine.line = Some(Tied::to(line.run(wait)));
    }

    /// A machine's disk has lost the key; its agent restarts and creates another one. `false` when the
    /// machine does not exist.
    pub(crate) fn lose_key(self: &Arc<Self>, id: &str) -> bool {
        let mut state = self.state();
        let Some(identity) = state
            .machines
            .get_mut(id)
            .and_then(|machine| machine.identity.as_mut())
        else {
            return false;
        };
        *identity = identity.anew();
        Self::hang_up(&mut state, id);
        self.dial(&mut state, id, Duration::ZERO);
        true
    }

    /// Cuts the agent's connection to the service.
    pub(crate) fn hang_up(state: &mut State, id: &str) {
        if let Some(machine) = state.machines.get_mut(id) {
            machine.line = None;
        }
    }

    /// From now on, agents connect to this service.
    fn serve(self: &Arc<Self>, sessions: &Sessions) {
        let silence = sessions.clone();
        let mut state = self.state();
        state.service = Some(Service {
            sessions: sessions.clone(),
            _silence: Tied::to(async move { match silence.watch_silence().await {} }),
        });
        let up: Vec<(String, u64)> = state
            .machines
            .iter()
            .filter(|(_, machine)| machine.up)
            .map(|(id, machine)| (id.clone(), machine.boot))
            .collect();
        for (id, boot) in up {
            Self::hang_up(&mut state, &id);
            let wait = self.delay(&self.options.config, &id, "dial", boot);
            self.dial(&mut state, &id, wait);
        }
    }
}

impl SimWorld {
    /// The world's agents, which connect to this service from now on.
    pub fn agents(&self, sessions: Sessions) -> Arc<dyn Agents> {
        self.inner.serve(&sessions);
        Arc::new(Way {
            inner: Arc::clone(&self.inner),
            sessions,
        })
    }

    /// The service is gone with all connections; its machines run on. Their agents connect to the next one.
    pub fn lose_service(&self) {
        let mut state = self.inner.state();
        state.service = None;
        for machine in state.machines.values_mut() {
            machine.line = None;
        }
    }
}

/// The service's sessions, with faults in operations that take time.
struct Way {
    inner: Arc<Inner>,
    sessions: Sessions,
}

#[async_trait]
impl Agents for Way {
    fn publish(&self, machine: &str, config: Arc<MachineConfig>) {
        self.sessions.publish(machine, config);
    }

    fn forget(&self, machine: &str) {
        self.sessions.forget(machine);
    }

    fn report(&self, machine: &str) -> Option<Arc<Report>> {
        self.sessions.report(machine)
    }

    fn contact(&self, machine: &str) -> Option<Duration> {
        self.sessions.contact(machine)
    }

    fn hung_up(&self, machine: &str) -> Option<Duration> {
        self.sessions.hung_up(machine)
    }

    fn has_lost_key(&self, machine: &str) -> bool {
        self.sessions.has_lost_key(machine)
    }

    fn subscribe(&self) -> BoxStream<'static, WakeUp> {
        self.sessions.subscribe()
    }

    async fn logs(&self, machine: &str, process: &str, lines: u32) -> Result<String, LogError> {
        if self.inner.judge(Call::Logs, machine).await != Verdict::Works {
            return Err(LogError::Timeout(machine.to_owned()));
        }
        let answer = self.sessions.logs(machine, process, lines).await;
        self.inner.done(Call::Logs, machine, None).await;
        answer
    }
}
