//! The VIP program, in network namespaces:
//!
//! ```sh
//! cargo test -p machine-agent --test vip -- --ignored
//! ```
#![expect(clippy::unwrap_used, reason = "all of this is test code, helpers included")]

use std::{
    fs,
    os::unix::net::UnixListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use agent_protocol::{
    Probe,
    programs::{VipConfig, VipStatus},
};
use machine_program::pause;

const VIP: &str = "100.127.250.99";
const BOUND: Duration = Duration::from_secs(20);

fn ip(line: &str) {
    let output = Command::new("ip").args(line.split(' ')).output().unwrap();
    assert!(
        output.status.success(),
        "ip {line}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Three machines and a client on one bridge; invisible to the host.
struct Lan {
    directory: tempfile::TempDir,
    prefix: String,
    members: Vec<Option<Child>>,
    health: Vec<Option<UnixListener>>,
}

impl Lan {
    fn new() -> Self {
        let prefix = format!("lfvip{}", std::process::id());
        let lan = Self {
            directory: tempfile::tempdir().unwrap(),
            prefix,
            members: vec![None, None, None],
            health: vec![None, None, None],
        };
        let switch = lan.namespace("sw");
        ip(&format!("netns add {switch}"));
        ip(&format!("-n {switch} link add br0 type bridge"));
        ip(&format!("-n {switch} link set br0 up"));
        for (index, name) in ["0", "1", "2", "client"].into_iter().enumerate() {
            let namespace = lan.namespace(name);
            ip(&format!("netns add {namespace}"));
            ip(&format!(
                "-n {switch} link add p{index} type veth peer name eth0 netns {namespace}"
            ));
            ip(&format!("-n {switch} link set p{index} master br0 up"));
            ip(&format!(
                "-n {namespace} addr add 100.127.250.{}/24 dev eth0",
                index + 1
            ));
            ip(&format!("-n {namespace} link set eth0 up"));
            ip(&format!("-n {namespace} link set lo up"));
        }
        lan
    }

    fn namespace(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    fn socket(&self, index: usize) -> PathBuf {
        self.directory.path().join(format!("{index}.sock"))
    }

    fn fall_ill(&mut self, index: usize) {
        self.health[index] = None;
        fs::remove_file(self.socket(index)).unwrap();
    }

    fn start(&mut self, index: usize) {
        if self.health[index].is_none() {
            self.health[index] = Some(UnixListener::bind(self.socket(index)).unwrap());
        }
        let address = |index: usize| format!("100.127.250.{}", index + 1).parse().unwrap();
        let config = VipConfig {
            address: VIP.parse().unwrap(),
            interface: "eth0".to_owned(),
            own: address(index),
            peers: (0..3).filter(|peer| *peer != index).map(address).collect(),
            key: "5a".repeat(32),
            health: Probe::Unix {
                path: self.socket(index).display().to_string(),
            },
            status: self.status(index).display().to_string(),
        };
        let file = self.directory.path().join(format!("{index}.json"));
        fs::write(&file, serde_json::to_vec(&config).unwrap()).unwrap();
        let child = Command::new("ip")
            .args(["netns", "exec", &self.namespace(&index.to_string())])
            .args([env!("CARGO_BIN_EXE_landfall-agent"), "vip"])
            .arg(&file)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        self.members[index] = Some(child);
    }

    fn status(&self, index: usize) -> PathBuf {
        self.directory.path().join(format!("{index}.status"))
    }

    fn signal(&mut self, index: usize, signal: &str) {
        let mut child = self.members[index].take().unwrap();
        let pid = child.id().to_string();
        assert!(
            Command::new("kill")
                .args([signal, &pid])
                .status()
                .unwrap()
                .success()
        );
        child.wait().unwrap();
    }

    /// Whether the interface of this member has the address, according to the kernel.
    fn has(&self, index: usize) -> bool {
        let namespace = self.namespace(&index.to_string());
        let output = Command::new("ip")
            .args(["-n", &namespace, "-4", "addr", "show", "dev", "eth0"])
            .output();
        String::from_utf8_lossy(&output.unwrap().stdout).contains(&format!("{VIP}/32"))
    }

    fn holders(&self) -> Vec<usize> {
        (0..3).filter(|index| self.has(*index)).collect()
    }

    /// Whether the client's ARP entry for the VIP is this member's hardware address.
    fn client_sees(&self, index: usize) -> bool {
        let output = |line: String| {
            let output = Command::new("ip").args(line.split(' ')).output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        let known = output(format!("-n {} neigh show {VIP}", self.namespace("client")));
        let card = output(format!(
            "-n {} -o link show eth0",
            self.namespace(&index.to_string())
        ));
        let hardware = card
            .split("link/ether ")
            .nth(1)
            .unwrap()
            .split(' ')
            .next()
            .unwrap();
        known.contains(hardware)
    }

    fn wait(&self, what: &str, is: impl Fn(&Self) -> bool) -> Duration {
        let start = pause::monotonic();
        while !is(self) {
            assert!(
                pause::monotonic() - start < BOUND,
                "waited for {what}; {:?} hold it",
                self.holders()
            );
            pause::sleep(Duration::from_millis(5));
        }
        pause::monotonic() - start
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        for child in self.members.iter_mut().flatten() {
            // A process that has already ended is fine.
            let _ended = child.kill();
            let _reaped = child.wait();
        }
        for name in ["0", "1", "2", "client", "sw"] {
            let namespace = self.namespace(name);
            let _not_there = Command::new("ip")
                .args(["netns", "del", &namespace])
                .stderr(Stdio::null())
                .status();
        }
    }
}

#[test]
fn the_address_moves_to_whoever_is_well() {
    if !base_testkit::needs::root_and(&["ip"]) {
        return;
    }
    let mut lan = Lan::new();
    for index in 0..3 {
        lan.start(index);
    }
    lan.wait("a first holder", |lan| lan.holders() == [0]);
    // A neighbour with an ARP entry is informed of every move.
    let client = lan.namespace("client");
    ip(&format!(
        "-n {client} neigh replace {VIP} lladdr 02:00:00:00:00:01 dev eth0 nud reachable"
    ));

    lan.signal(0, "-TERM");
    let took = lan.wait("the next after an orderly end", |lan| {
        lan.holders() == [1] && lan.client_sees(1)
    });
    println!("moved {took:?} after SIGTERM");

    // After its return, the current holder keeps it.
    lan.start(0);
    lan.wait("it to be healthy", |lan| {
        fs::read(lan.status(0))
            .ok()
            .and_then(|text| serde_json::from_slice::<VipStatus>(&text).ok())
            .is_some_and(|status| status.healthy && !status.holds)
    });
    assert_eq!(lan.holders(), [1]);

    lan.fall_ill(1);
    let took = lan.wait("the next after an illness", |lan| {
        lan.holders() == [0] && lan.client_sees(0)
    });
    println!("moved {took:?} after the health was lost");

    // A killed holder's interface keeps the address: only ARP shows who serves. The left-over address is
    // removed at its next start.
    lan.signal(0, "-KILL");
    let took = lan.wait("the next after a death", |lan| lan.has(2) && lan.client_sees(2));
    println!("moved {took:?} after SIGKILL");
    lan.start(0);
    lan.wait("the left-over to go", |lan| lan.holders() == [2]);
}
