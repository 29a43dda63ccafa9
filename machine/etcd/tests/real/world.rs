//! Real etcd members on loopback addresses, each with its own directory.

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use agent_protocol::programs::{EtcdIdentity, EtcdMember};
use cluster_pki::{ClusterPki, Subject};
use machine_etcd::client::Client;
use machine_program::pause;

/// Longer than any wait takes here on a busy machine.
pub(crate) const BOUND: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_secs(2);

/// The etcd binary under test.
pub(crate) fn program() -> PathBuf {
    PathBuf::from(std::env::var_os(base_testkit::needs::ETCD).expect("the test has asked for it"))
}

/// A directory, certificates, and addresses that no other test on this host uses.
pub(crate) struct World {
    root: tempfile::TempDir,
    net: [u8; 2],
}

impl World {
    pub(crate) fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        // Enough to separate tests that run in parallel: each member needs the fixed ports at its own
        // address.
        let name = root.path().file_name().unwrap().as_encoded_bytes();
        let hash = name.iter().fold(7_u32, |hash, byte| {
            hash.wrapping_mul(31).wrapping_add(u32::from(*byte))
        });
        let world = Self {
            root,
            net: [2 + (hash % 250) as u8, (hash / 250 % 250) as u8],
        };
        world.certificates();
        world
    }

    fn certificates(&self) {
        let now = jiff::Timestamp::UNIX_EPOCH + jiff::SignedDuration::try_from(pause::wall()).unwrap();
        let pki = ClusterPki::generate(now).unwrap();
        let mut subject = Subject::peer("etcd").ip(Ipv4Addr::LOCALHOST);
        for index in 0..6 {
            subject = subject.ip(self.address(index));
        }
        let leaf = pki.etcd.issue(&subject, now).unwrap();
        fs::write(self.path("ca.crt"), pki.etcd.certificate.as_bytes()).unwrap();
        fs::write(self.path("leaf.crt"), leaf.certificate.as_bytes()).unwrap();
        fs::write(self.path("leaf.key"), leaf.key.as_bytes()).unwrap();
    }

    pub(crate) fn address(&self, index: u8) -> Ipv4Addr {
        Ipv4Addr::new(127, self.net[0], self.net[1], index + 1)
    }

    pub(crate) fn member(&self, index: u8) -> EtcdMember {
        EtcdMember {
            name: format!("m-{index}"),
            address: self.address(index),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    pub(crate) fn identity(&self) -> EtcdIdentity {
        EtcdIdentity {
            ca: self.text("ca.crt"),
            certificate: self.text("leaf.crt"),
            key: self.text("leaf.key"),
        }
    }

    /// Flags of etcd besides those that identify the member.
    pub(crate) fn flags(&self, index: u8) -> Vec<String> {
        let address = self.address(index);
        let (ca, certificate, key) = (self.text("ca.crt"), self.text("leaf.crt"), self.text("leaf.key"));
        vec![
            format!("--listen-client-urls=https://{address}:2379"),
            format!("--advertise-client-urls=https://{address}:2379"),
            format!("--listen-peer-urls=https://{address}:2380"),
            format!("--trusted-ca-file={ca}"),
            format!("--cert-file={certificate}"),
            format!("--key-file={key}"),
            "--client-cert-auth=true".to_owned(),
            format!("--peer-trusted-ca-file={ca}"),
            format!("--peer-cert-file={certificate}"),
            format!("--peer-key-file={key}"),
            "--peer-client-cert-auth=true".to_owned(),
            "--log-level=warn".to_owned(),
            "--watch-progress-notify-interval=1s".to_owned(),
        ]
    }

    pub(crate) fn client(&self, index: u8) -> Client {
        let endpoint = format!("https://{}:2379", self.address(index));
        Client::new(&endpoint, &self.identity(), PATIENCE).unwrap()
    }

    /// A cluster of one member.
    pub(crate) fn alone(&self) -> Running {
        let peer = format!("https://{}:2380", self.address(0));
        let mut command = Command::new(program());
        command
            .args([
                "--name=m-0".to_owned(),
                format!("--data-dir={}", self.text("data-0")),
            ])
            .arg(format!("--initial-advertise-peer-urls={peer}"))
            .arg(format!("--initial-cluster=m-0={peer}"))
            .args(self.flags(0));
        let running = Running::spawn(command, &self.path("etcd-0.log"));
        wait_for("etcd to have a leader", || {
            self.client(0).status().ok().filter(|s| s.leader != 0)
        });
        running
    }
}

/// A child process that ends with the test.
pub(crate) struct Running(pub(crate) Child);

impl Running {
    pub(crate) fn spawn(mut command: Command, log: &Path) -> Self {
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .unwrap();
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        Self(command.spawn().unwrap())
    }

    pub(crate) fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A process that has already ended is fine.
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// Polls until there is a value.
pub(crate) fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = pause::monotonic() + BOUND;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(pause::monotonic() < deadline, "waited {BOUND:?} for {what}");
        pause::sleep(Duration::from_millis(50));
    }
}
