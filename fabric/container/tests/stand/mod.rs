//! A temporary stamp for a test: its own name, ranges and directories, and a check that nothing of it is
//! left.

use std::{
    collections::BTreeMap,
    fs,
    net::Ipv4Addr,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use base_env::Env;
use base_testkit::needs;
use fabric_api::{
    Attach, Fabric, MachineId, MachineSpec, NetworkId, NetworkSpec, NicSpec, StampNetwork, SubnetSpec, Uplink,
};
use fabric_container::{ContainerConfig, ContainerFabric, Images};
use fabric_net::{Names, route_destinations, stamp_range};
use tokio::process::Command;

const BUSYBOX: &str = "/bin/busybox";

/// The service's port.
pub(crate) const SERVICE_PORT: u16 = 7443;

/// An agent that sets a trap for SIGTERM and prints on the console when it fires.
pub(crate) const AGENT: &str =
    "#!/bin/sh\ntrap 'echo asked to stop; exit 0' TERM\necho started\nwhile :; do sleep 1 & wait $!; done\n";

/// Whether these tests can run here; otherwise they are skipped.
pub(crate) fn possible() -> bool {
    needs::root_and(&["runc", "nft", "ip", "unshare", "busybox"])
}

struct OneImage(PathBuf);

impl Images for OneImage {
    fn layers(&self, version: &str) -> Option<Vec<PathBuf>> {
        (version == "1.0.0").then(|| vec![self.0.clone()])
    }
}

pub(crate) struct Stand {
    pub(crate) env: Env,
    pub(crate) stamp: String,
    pub(crate) network: StampNetwork,
    pub(crate) fabric: ContainerFabric,
    place: tempfile::TempDir,
}

impl Stand {
    pub(crate) async fn new(test: &str) -> Self {
        Self::with_uplink(test, Uplink::None).await
    }

    pub(crate) async fn with_uplink(test: &str, uplink: Uplink) -> Self {
        let env = Env::system();
        let stamp = format!("t-{test}-{}", env.ids.short());
        let place = tempfile::tempdir().unwrap();
        make_image(&place.path().join("image"));
        let routes = output(&["ip", "-j", "route", "show", "table", "all"]).await;
        let network = StampNetwork {
            range: stamp_range(&stamp, &route_destinations(&routes).unwrap()).unwrap(),
            uplink,
        };
        let config = config(&stamp, place.path(), &network);
        let fabric = ContainerFabric::new(env.clone(), config).unwrap();
        fabric.ensure_stamp().await.unwrap();
        Self {
            env,
            stamp,
            network,
            fabric,
            place,
        }
    }

    pub(crate) fn config(&self) -> ContainerConfig {
        config(&self.stamp, self.place.path(), &self.network)
    }

    /// Deletes the stamp, twice, and checks for left-overs.
    pub(crate) async fn close(&self) {
        self.fabric.delete_stamp().await.unwrap();
        self.fabric.delete_stamp().await.unwrap();
        self.nothing_but_disks().await;
        assert!(!self.state_dir().exists(), "the state directory is left");
        assert!(!self.run_dir().exists(), "the run directory is left");
    }

    /// Checks that nothing of the stamp is on the host except files.
    pub(crate) async fn nothing_but_disks(&self) {
        let names = Names::new(&self.stamp);
        let tag = names.tag();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(
            !mounts.contains(tag) && !mounts.contains(&self.state_dir().display().to_string()),
            "{mounts}"
        );
        let links = output(&["ip", "-br", "link"]).await;
        assert!(!links.contains(tag), "{links}");
        let ports = output(&["ip", "-br", "link", "show", "type", "veth"]).await;
        for id in ["m", "a1", "a2", "b1", "cp", "gone"] {
            assert!(
                !ports.contains(&names.port(&MachineId::from(id), "eth0")),
                "{ports}"
            );
        }
        for id in ["na", "nb"] {
            assert!(
                !ports.contains(&names.uplink_port(&NetworkId::from(id))),
                "{ports}"
            );
        }
        let spaces = output(&["ip", "netns", "list"]).await;
        assert!(!spaces.contains(tag), "{spaces}");
        let tables = output(&["nft", "list", "tables"]).await;
        assert!(!tables.contains(tag), "{tables}");
        let routes = output(&["ip", "route", "show", "table", "all"]).await;
        assert!(!routes.contains(&self.network.range.to_string()), "{routes}");
        let groups = fs::read_dir("/sys/fs/cgroup")
            .unwrap()
            .flatten()
            .map(|entry| entry.path());
        for place in groups.chain([PathBuf::from("/sys/fs/cgroup")]) {
            assert!(
                !place.join(names.cgroup().trim_start_matches('/')).exists(),
                "{}",
                place.display()
            );
        }
        assert!(!self.run_dir().join("runc").exists());
        // The kernel releases the last of a machine's disk asynchronously; a volume is waited for.
        let volumes = self.place.path().canonicalize().unwrap().join("state/volumes");
        for device in fs::read_dir("/sys/block").unwrap().flatten() {
            let held = fs::read_to_string(device.path().join("loop/backing_file")).unwrap_or_default();
            assert!(!Path::new(&held).starts_with(&volumes), "{held}");
        }
    }

    pub(crate) fn state_dir(&self) -> PathBuf {
        self.place.path().join("state")
    }

    pub(crate) fn run_dir(&self) -> PathBuf {
        self.place.path().join("run")
    }

    pub(crate) fn machine_dir(&self, id: &str) -> PathBuf {
        self.state_dir().join("machines").join(id)
    }

    pub(crate) fn console(&self, id: &str) -> String {
        fs::read_to_string(self.machine_dir(id).join("console.log")).unwrap()
    }

    /// The stamp's address with this number; from the VIPs' half for 200 and more.
    pub(crate) fn address(&self, number: u32) -> Ipv4Addr {
        let base = if number < 200 {
            self.network.machines()
        } else {
            self.network.vips()
        };
        Ipv4Addr::from(u32::from(base.network()) + number)
    }

    /// The node image: one directory.
    pub(crate) fn layer(&self) -> PathBuf {
        self.place.path().join("image")
    }

    /// The output of a command inside a machine.
    pub(crate) async fn output(&self, id: &str, command: &str) -> String {
        let root = self.run_dir().join("runc").display().to_string();
        let container = Names::new(&self.stamp).container(&MachineId::from(id));
        output(&[
            "runc", "--root", &root, "exec", &container, "/bin/sh", "-c", command,
        ])
        .await
    }

    pub(crate) async fn pings(&self, id: &str, address: &str) -> bool {
        self.output(id, &format!("ping -c1 -W1 {address} >/dev/null 2>&1 && echo yes"))
            .await
            .trim()
            == "yes"
    }

    /// Those of these addresses that answer; all are tried at once, because each failure takes its time-out.
    pub(crate) async fn answering(&self, id: &str, addresses: &[String]) -> Vec<String> {
        let pings: String = addresses
            .iter()
            .map(|address| format!("(ping -c1 -W1 {address} >/dev/null 2>&1 && echo {address}) & "))
            .collect();
        let answers = self.output(id, &format!("{pings} wait")).await;
        answers.lines().map(str::to_owned).collect()
    }

    /// Whether a connection succeeds.
    pub(crate) async fn connects(&self, id: &str, address: &str, port: u16) -> bool {
        let command = format!("/bin/busybox nc -w1 {address} {port} </dev/null && echo yes");
        self.output(id, &command).await.trim() == "yes"
    }

    pub(crate) async fn host_pings(&self, address: &str) -> bool {
        status(&[BUSYBOX, "ping", "-c1", "-W1", address]).await
    }

    pub(crate) async fn succeeds(&self, argv: &[&str]) -> bool {
        status(argv).await
    }

    pub(crate) async fn host(&self, argv: &[&str]) {
        assert!(status(argv).await, "{argv:?}");
    }

    /// The first process of a machine, by its process id on the host.
    pub(crate) async fn pid(&self, id: &str) -> u32 {
        let names = Names::new(&self.stamp);
        let pids = output(&[
            "ip",
            "netns",
            "pids",
            &names.machine_namespace(&MachineId::from(id)),
        ])
        .await;
        pids.lines()
            .filter_map(|line| line.trim().parse().ok())
            .min()
            .expect("something runs")
    }

    pub(crate) async fn kill(&self, id: &str) {
        let pid = self.pid(id).await.to_string();
        self.host(&[BUSYBOX, "kill", "-9", &pid]).await;
    }
}

impl Drop for Stand {
    /// Cleans up after a failed test too. Blocking is fine here: it is the end.
    fn drop(&mut self) {
        if std::thread::panicking() {
            let fabric = self.fabric.clone();
            tokio::task::block_in_place(|| {
                if let Err(error) = tokio::runtime::Handle::current().block_on(fabric.delete_stamp()) {
                    println!("the stamp of a failed test is left: {error}");
                }
            });
        }
    }
}

fn config(stamp: &str, place: &Path, network: &StampNetwork) -> ContainerConfig {
    ContainerConfig {
        stamp: stamp.to_owned(),
        state_dir: place.join("state"),
        run_dir: place.join("run"),
        network: network.clone(),
        service_port: SERVICE_PORT,
        uplink_allow: Vec::new(),
        agent: AGENT.as_bytes().into(),
        shared_agent: None,
        images: Arc::new(OneImage(place.join("image"))),
    }
}

/// Waits for a condition, for ten seconds at most.
pub(crate) async fn wait<T>(stand: &Stand, what: &str, condition: impl AsyncFn() -> Result<T, String>) -> T {
    let deadline = stand.env.clock.monotonic() + Duration::from_secs(10);
    loop {
        match condition().await {
            Ok(value) => return value,
            Err(status) => {
                assert!(
                    stand.env.clock.monotonic() < deadline,
                    "waited for {what}; last seen: {status}"
                );
                stand.env.clock.sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

fn make_image(layer: &Path) {
    for place in [
        "bin",
        "usr/local/bin",
        "etc",
        "proc",
        "sys",
        "dev",
        "run",
        "tmp",
        "var/lib",
        "var/log",
        "root",
    ] {
        fs::create_dir_all(layer.join(place)).unwrap();
    }
    fs::copy(BUSYBOX, layer.join("bin/busybox")).unwrap();
    for applet in [
        "sh", "sleep", "ping", "cat", "ls", "echo", "mkdir", "rm", "stat", "hostname", "ip", "mount", "cp",
        "dd", "sync",
    ] {
        symlink("busybox", layer.join("bin").join(applet)).unwrap();
    }
}

pub(crate) fn machine(id: &str, nics: Vec<NicSpec>) -> MachineSpec {
    MachineSpec {
        id: MachineId::from(id),
        hostname: format!("host-{id}"),
        image: "1.0.0".into(),
        cpu_millis: 1000,
        memory_mib: 64,
        disk_gib: None,
        nics,
        seed_files: [("/etc/landfall/seed.json".to_owned(), format!("seed of {id}\n"))].into(),
        labels: BTreeMap::new(),
    }
}

pub(crate) fn network(stand: &Stand, id: &str, uplink: u32) -> NetworkSpec {
    let subnet = |name: &str, range: &str, gateway: &str| SubnetSpec {
        name: name.into(),
        range: range.parse().unwrap(),
        gateway: gateway.parse().unwrap(),
        filter: None,
        serves: None,
    };
    NetworkSpec {
        id: NetworkId::from(id),
        address_space: vec!["10.224.0.0/12".parse().unwrap()],
        subnets: vec![
            subnet("nodes", "10.224.0.0/16", "10.224.0.1"),
            subnet("control-plane", "10.239.0.0/24", "10.239.0.1"),
        ],
        reserved: vec!["10.244.0.0/16".parse().unwrap()],
        routes: Vec::new(),
        uplink: stand.address(uplink),
        balancers: Vec::new(),
        egress: None,
    }
}

pub(crate) fn on_subnet(network: &str, address: &str) -> NicSpec {
    let address: Ipv4Addr = address.parse().unwrap();
    let (subnet, prefix, gateway) = if address.octets()[1] == 239 {
        ("control-plane", 24, "10.239.0.1")
    } else {
        ("nodes", 16, "10.224.0.1")
    };
    NicSpec {
        name: "eth0".into(),
        attach: Attach::Subnet {
            network: NetworkId::from(network),
            subnet: subnet.into(),
        },
        address: format!("{address}/{prefix}").parse().unwrap(),
        extra: Vec::new(),
        gateway: Some(gateway.parse().unwrap()),
        routes: Vec::new(),
        sending: None,
    }
}

pub(crate) fn on_stamp(stand: &Stand, number: u32, vip: Option<u32>) -> NicSpec {
    NicSpec {
        name: "eth0".into(),
        attach: Attach::Stamp,
        address: format!("{}/{}", stand.address(number), stand.network.range.prefix_len())
            .parse()
            .unwrap(),
        extra: vip.map(|number| stand.address(number)).into_iter().collect(),
        gateway: Some(stand.network.gateway()),
        routes: Vec::new(),
        sending: None,
    }
}

async fn output(argv: &[&str]) -> String {
    let output = Command::new(argv[0]).args(&argv[1..]).output().await.unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

async fn status(argv: &[&str]) -> bool {
    Command::new(argv[0])
        .args(&argv[1..])
        .output()
        .await
        .unwrap()
        .status
        .success()
}
