//! Contact with the service: enrolment, configurations, reports, logs. Two threads; processes keep running
//! without either.

use std::{
    fs,
    sync::{Arc, Condvar, Mutex, PoisonError, mpsc::Sender},
    time::Duration,
};

use agent_protocol::{
    EnrollAnswer, EnrollRequest, LEVEL, LogRequest, MachineConfig, Report, ReportAnswer, Seed,
};
use machine_program::{
    disk,
    https::{Bounds, client},
    pause,
};
use rcgen::KeyPair;

use crate::{
    Paths,
    console::{say, thread},
    news::News,
    process,
};

/// The time-out of a long poll for a configuration.
const WAIT: Duration = Duration::from_secs(30);
/// A report is sent at least this often.
const HEARTBEAT: Duration = Duration::from_secs(5 * 60);
/// Changes within this time are reported together.
const COALESCE: Duration = Duration::from_millis(5);
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LONGEST_RETRY: Duration = Duration::from_secs(5);
const BOUND: Duration = Duration::from_secs(30);
/// The largest configuration or answer that is read.
const LARGEST: u64 = 16 * 1024 * 1024;

/// The newest report, and whether it must be sent.
#[derive(Default)]
pub struct Outbox {
    state: Mutex<Pending>,
    changed: Condvar,
}

#[derive(Default)]
struct Pending {
    report: Report,
    due: bool,
}

impl Outbox {
    /// Replaces the report; it is sent soon.
    pub fn put(&self, report: Report) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        *state = Pending { report, due: true };
        self.changed.notify_one();
    }

    /// Marks the report to be sent: the service requests one.
    fn ask(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).due = true;
        self.changed.notify_one();
    }

    /// Waits until a report must be sent, or until the heartbeat.
    fn take(&self) -> Report {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (state, _) = self
            .changed
            .wait_timeout_while(state, HEARTBEAT, |state| !state.due)
            .unwrap_or_else(PoisonError::into_inner);
        drop(state);
        pause::sleep(COALESCE);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.due = false;
        state.report.clone()
    }
}

/// A machine's contact with its service.
pub struct Contact {
    paths: Paths,
    seed: Seed,
}

struct Identity {
    certificate: String,
    key: String,
}

/// A retry interval that doubles up to a limit.
struct Retry(Duration);

impl Retry {
    fn new() -> Self {
        Self(FIRST_RETRY)
    }

    fn wait(&mut self) {
        pause::sleep(self.0);
        self.0 = (self.0 * 2).min(LONGEST_RETRY);
    }
}

impl Contact {
    /// The contact of the machine with this seed.
    pub fn new(paths: Paths, seed: Seed) -> Self {
        Self { paths, seed }
    }

    /// Enrols if not yet enrolled; retries until it succeeds.
    fn identity(&self) -> Identity {
        let key = self.key();
        let kept = fs::read_to_string(self.paths.state("client.crt"));
        if let Ok(certificate) = kept {
            return Identity {
                certificate,
                key: key.serialize_pem(),
            };
        }
        let mut retry = Retry::new();
        loop {
            match self.enroll(&key) {
                Ok(certificate) => {
                    return Identity {
                        certificate,
                        key: key.serialize_pem(),
                    };
                }
                Err(why) => say(&format!("cannot enrol at {}: {why}", self.seed.service)),
            }
            retry.wait();
        }
    }

    /// The key is created once and kept: the same key may repeat an enrolment whose answer was lost.
    fn key(&self) -> KeyPair {
        let path = self.paths.state("client.key");
        let mut retry = Retry::new();
        loop {
            if let Some(key) = fs::read_to_string(&path)
                .ok()
                .and_then(|pem| KeyPair::from_pem(&pem).ok())
            {
                return key;
            }
            match KeyPair::generate() {
                Ok(key) => match disk::write(&path, key.serialize_pem().as_bytes(), 0o600) {
                    Ok(()) => return key,
                    Err(error) => say(&error.to_string()),
                },
                Err(error) => say(&format!("cannot make a key: {error}")),
            }
            retry.wait();
        }
    }

    fn enroll(&self, key: &KeyPair) -> Result<String, String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let csr = rcgen::CertificateParams::default()
            .serialize_request(key)
            .and_then(|csr| csr.pem());
        let request = EnrollRequest {
            machine: self.seed.machine.clone(),
            token: self.seed.token.clone(),
            csr: csr.map_err(|error| text(&error))?,
        };
        let client = client(Some(&self.seed.ca), None, Bounds::whole(BOUND)).ok_or("no client")?;
        let url = format!("{}/agent/v1/enroll", self.seed.service);
        let mut answer = client
            .post(&url)
            .send_json(&request)
            .map_err(|error| text(&error))?;
        if answer.status().as_u16() != 200 {
            return Err(format!("the service answers {}", answer.status()));
        }
        let answer: EnrollAnswer = answer
            .body_mut()
            .with_config()
            .limit(LARGEST)
            .read_json()
            .map_err(|error| text(&error))?;
        disk::write(
            &self.paths.state("client.crt"),
            answer.certificate.as_bytes(),
            0o600,
        )
        .map_err(|error| text(&error))?;
        Ok(answer.certificate)
    }

    /// Polls for configurations for ever; a second thread sends reports.
    pub fn run(self, mut after: u64, outbox: &Arc<Outbox>, news: &Sender<News>) {
        let identity = self.identity();
        let shown = (identity.certificate, identity.key);
        let (poll, tell) = (WAIT + BOUND, BOUND);
        let Some(client_for_config) = client(Some(&self.seed.ca), Some(&shown), Bounds::whole(poll)) else {
            say("the client certificate cannot be used");
            return;
        };
        let Some(client_for_reports) = client(Some(&self.seed.ca), Some(&shown), Bounds::whole(tell)) else {
            return;
        };
        let reporter = Reporter {
            paths: self.paths.clone(),
            service: self.seed.service.clone(),
            client: client_for_reports,
            outbox: Arc::clone(outbox),
            news: news.clone(),
            agent_sha256: None,
        };
        thread("report", move || reporter.run());

        let mut retry = Retry::new();
        loop {
            let url = format!(
                "{}/agent/v1/config?after={after}&wait={}&level={LEVEL}",
                self.seed.service,
                WAIT.as_secs()
            );
            match client_for_config.get(&url).call() {
                Ok(mut answer) if answer.status().as_u16() == 200 => {
                    match answer
                        .body_mut()
                        .with_config()
                        .limit(LARGEST)
                        .read_json::<MachineConfig>()
                    {
                        Ok(config) => {
                            retry = Retry::new();
                            after = after.max(config.generation);
                            if news.send(News::Config(config)).is_err() {
                                return;
                            }
                        }
                        Err(error) => {
                            say(&format!("a configuration cannot be read: {error}"));
                            retry.wait();
                        }
                    }
                }
                Ok(answer) if answer.status().as_u16() == 204 => {
                    retry = Retry::new();
                    if answer.headers().contains_key("landfall-report") {
                        outbox.ask();
                        // The request stays on the service's list until the report answers it.
                        pause::sleep(FIRST_RETRY);
                    }
                }
                Ok(answer) => {
                    say(&format!(
                        "the service answers {} to the configuration",
                        answer.status()
                    ));
                    retry.wait();
                }
                Err(_) => {
                    // A restarted service has no reports: send one as soon as it listens.
                    outbox.ask();
                    retry.wait();
                }
            }
        }
    }
}

struct Reporter {
    paths: Paths,
    service: String,
    client: ureq::Agent,
    outbox: Arc<Outbox>,
    news: Sender<News>,
    /// The SHA-256 of the agent program that the service offered last.
    agent_sha256: Option<String>,
}

impl Reporter {
    fn run(mut self) {
        let mut retry = Retry::new();
        loop {
            let report = self.outbox.take();
            match self.send(&report) {
                Ok(answer) => {
                    retry = Retry::new();
                    if let Some(sha256) = answer.agent_sha256
                        && self.agent_sha256.as_ref() != Some(&sha256)
                    {
                        self.agent_sha256 = Some(sha256.clone());
                        if self.news.send(News::Agent(sha256)).is_err() {
                            return;
                        }
                    }
                    for wish in &answer.logs {
                        // The requester of a log that does not arrive requests it again.
                        let _lost = self.send_log(wish);
                    }
                }
                Err(_) => {
                    retry.wait();
                    self.outbox.ask();
                }
            }
        }
    }

    fn send(&self, report: &Report) -> Result<ReportAnswer, String> {
        let url = format!("{}/agent/v1/report", self.service);
        let mut answer = self
            .client
            .post(&url)
            .send_json(report)
            .map_err(|error| error.to_string())?;
        if answer.status().as_u16() != 200 {
            return Err(answer.status().to_string());
        }
        answer
            .body_mut()
            .with_config()
            .limit(LARGEST)
            .read_json()
            .map_err(|error| error.to_string())
    }

    fn send_log(&self, wish: &LogRequest) -> Result<(), String> {
        let known = wish
            .process
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '-');
        let lines = if known {
            let (log, most) = (
                self.paths.log(&wish.process),
                wish.lines.clamp(1, 10_000) as usize,
            );
            let found = match &wish.containing {
                Some(text) => process::lines_with(&log, text, most),
                None => process::tail(&log, most),
            };
            found.unwrap_or_else(|error| vec![format!("there is no log of {}: {error}", wish.process)])
        } else {
            vec!["that is not the name of a process".to_owned()]
        };
        let url = format!("{}/agent/v1/logs/{}", self.service, wish.request);
        self.client
            .post(&url)
            .send(lines.join("\n"))
            .map(drop)
            .map_err(|error| error.to_string())
    }
}
