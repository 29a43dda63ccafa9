//! Checks whether this host passes a stamp's traffic: connections are tried over the very paths that machines
//! use, and for a dropped one the firewall rule and a remedy are found.
//!
//! | path | traffic |
//! |---|---|
//! | machine → service | agents dial the hub at the stamp's gateway address |
//! | machine → VIP | nodes reach their API server; bridged, but seen by the host's firewall where br_netfilter is on |
//! | host → VIP | `kubectl` and the service reach an API server |
//! | machine → outside | pods reach the world; with an uplink only |
//!
//! Always true: test machines are threads in unnamed network namespaces, so they end with the process,
//! however it ends; their addresses are never given to machines or VIPs; a firewall is read and traced, never
//! changed, except for a table of this crate that is removed again.
//!
//! Blocking code: call it from `spawn_blocking`. Called by: `landfall up` and `landfall doctor`, as root.

mod culprit;
mod diagnosis;
mod iptables;
mod machine;
mod remedy;
mod trace;

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use base_env::Env;
use fabric_api::{StampNetwork, Uplink};
use fabric_net::{BLACKHOLE_METRIC, Names, NamespaceSeen, Surroundings, stamp_ruleset, stamp_script};
use ipnet::Ipv4Net;

pub use culprit::Culprit;

use machine::{Machine, run};

/// The port of the service at the gateway, and of API servers at their VIP.
const HUB_PORT: u16 = 7443;
const API_PORT: u16 = 443;

/// The time-out of a connection: on one host it takes less than a millisecond; a lost packet is sent again
/// after a second.
const BOUND: Duration = Duration::from_millis(1_500);

/// Ranges for the simulated outside: reserved for tests and documentation, so never routed.
const OUTSIDE: [&str; 3] = ["198.18.91.0/30", "203.0.113.248/30", "192.0.2.248/30"];

/// A path that machines, or clients on this host, need.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Path {
    /// A machine to the service.
    MachineToService,
    /// A machine to the VIP of an API server.
    MachineToVip,
    /// This host to the VIP of an API server.
    HostToVip,
    /// A machine to the outside, through this host.
    MachineToOutside,
}

impl Path {
    /// The name for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::MachineToService => "from machines to the service",
            Self::MachineToVip => "from machines to API servers",
            Self::HostToVip => "from this host to API servers",
            Self::MachineToOutside => "from machines to the outside",
        }
    }
}

/// A closed path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocked {
    /// The path.
    pub path: Path,
    /// The destination of the connection.
    pub to: SocketAddr,
    /// The rule that drops it; `None` if neither nftables nor iptables shows it.
    pub culprit: Option<Culprit>,
    /// The command that opens the path; `None` if the rule was not found.
    pub remedy: Option<String>,
}

/// The result of a probe.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The tested paths.
    pub tried: Vec<Path>,
    /// The closed ones.
    pub blocked: Vec<Blocked>,
}

/// The paths cannot be tested.
#[derive(Debug, thiserror::Error)]
#[error("cannot {act}")]
pub struct ProbeError {
    act: String,
    #[source]
    source: io::Error,
}

impl ProbeError {
    fn new(act: impl Into<String>, source: io::Error) -> Self {
        Self {
            act: act.into(),
            source,
        }
    }
}

/// The network to test: the stamp's own if it is up, else a temporary one like it.
#[derive(Debug, Clone)]
pub struct Probe {
    names: Names,
    network: StampNetwork,
    taken: Vec<Ipv4Net>,
}

impl Probe {
    /// For a stamp with this network. `taken`: ranges that this host routes.
    pub fn new(stamp: &str, network: StampNetwork, taken: &[Ipv4Net]) -> Self {
        Self {
            names: Names::new(stamp),
            network,
            taken: taken.to_vec(),
        }
    }

    /// Tests every path. Takes a tenth of a second if all are open, and less than ten seconds if none is.
    ///
    /// # Errors
    /// When namespaces and links for the test cannot be created.
    pub fn run(&self, env: &Env) -> Result<Outcome, ProbeError> {
        let bridge = self.names.bridge();
        if run("ip", &["link", "show", "dev", &bridge], None).is_ok() {
            return self.attempt(env);
        }
        let (stand_in, _guard) = self.stand_in()?;
        stand_in.attempt(env)
    }

    /// A network like the stamp's, with a name and a range that no stamp has.
    fn stand_in(&self) -> Result<(Self, impl Drop), ProbeError> {
        struct Remove(Names, Ipv4Net);
        impl Drop for Remove {
            fn drop(&mut self) {
                remove(&self.0, self.1);
            }
        }
        // No stamp's name contains a question mark.
        let name = format!("{}?", self.names.stamp());
        let names = Names::new(&name);
        let range = fabric_net::stamp_range(&name, &self.taken).unwrap_or(self.network.range);
        let network = StampNetwork {
            range,
            uplink: self.network.uplink,
        };
        let act = "make a network for trying";
        let failed = |error| ProbeError::new(act, error);
        // Left over from a probe that was killed.
        remove(&names, range);
        let guard = Remove(names.clone(), range);
        let around = Surroundings {
            service_port: HUB_PORT,
            ..Surroundings::default()
        };
        let rules = stamp_ruleset(&names, &network, &around);
        run("nft", &["-f", "-"], Some(&rules)).map_err(failed)?;
        let script = stamp_script(&names, &network, &NamespaceSeen::default(), &[]).join("\n") + "\n";
        run("ip", &["-batch", "-"], Some(&script)).map_err(failed)?;
        let probe = Self {
            names,
            network,
            taken: self.taken.clone(),
        };
        Ok((probe, guard))
    }

    fn attempt(&self, env: &Env) -> Result<Outcome, ProbeError> {
        let stand = Stand::new(self)?;
        let paths = stand.paths();
        let closed: Vec<Path> = stand
            .connect(&paths, BOUND)
            .into_iter()
            .filter_map(|(path, open)| (!open).then_some(path))
            .collect();
        let mut blocked = Vec::new();
        for path in &closed {
            let Some(culprit) = diagnosis::find(env, &self.names, &stand, *path)? else {
                // A packet was lost once, and the path is open.
                continue;
            };
            blocked.push(Blocked {
                path: *path,
                to: stand.target(*path),
                remedy: culprit
                    .as_ref()
                    .map(|culprit| remedy::command(culprit, &self.names.bridge())),
                culprit,
            });
        }
        Ok(Outcome {
            tried: paths,
            blocked,
        })
    }
}

fn remove(names: &Names, range: Ipv4Net) {
    // Usually most of it does not exist.
    let table = names.table();
    drop(run(
        "ip",
        &["-force", "-batch", "-"],
        Some(&format!(
            "link delete {}\nroute delete unreachable {range} metric {BLACKHOLE_METRIC}\n",
            names.bridge()
        )),
    ));
    drop(run(
        "nft",
        &["-f", "-"],
        Some(&format!("table inet {table}\ndelete table inet {table}\n")),
    ));
}

/// The participants: two machines on the bridge, one of them with a VIP, and the simulated outside.
struct Stand {
    client: Machine,
    _server: Machine,
    outside: Option<(Machine, Ipv4Addr)>,
    gateway: Ipv4Addr,
    vip: Ipv4Addr,
    /// The probe's own listener, if the service does not use the port.
    _hub: Option<TcpListener>,
}

impl Stand {
    fn new(probe: &Probe) -> Result<Self, ProbeError> {
        let (names, network) = (&probe.names, &probe.network);
        let (gateway, range) = (network.gateway(), network.range);
        let bridge = names.bridge();
        // The last address of the machines' half and the first of the VIPs' half: the planner assigns
        // neither.
        let (address, vip) = (network.machines().broadcast(), network.vips().network());
        let within =
            |address| Ipv4Net::new(address, range.prefix_len()).expect("the length comes from a range");
        let port = |which: char| format!("lf{which}{}", names.tag());
        let client = Machine::plugged(&port('y'), Some(&bridge), within(address), Some(gateway))?;
        let server = Machine::plugged(&port('z'), Some(&bridge), within(vip), None)?;
        server.listen(SocketAddr::new(vip.into(), API_PORT))?;
        let mut outside = None;
        if network.uplink == Uplink::Host && forwarding() {
            outside = Some(stand_in_outside(&port('x'), &probe.taken)?);
        }
        let hub = match TcpListener::bind((gateway, HUB_PORT)) {
            Ok(listener) => Some(listener),
            // The service is listening.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => None,
            Err(error) => return Err(ProbeError::new("listen at the gateway", error)),
        };
        Ok(Self {
            client,
            _server: server,
            outside,
            gateway,
            vip,
            _hub: hub,
        })
    }

    fn paths(&self) -> Vec<Path> {
        let mut paths = vec![Path::MachineToService, Path::MachineToVip, Path::HostToVip];
        paths.extend(self.outside.is_some().then_some(Path::MachineToOutside));
        paths
    }

    fn target(&self, path: Path) -> SocketAddr {
        match path {
            Path::MachineToService => (self.gateway, HUB_PORT).into(),
            Path::MachineToVip | Path::HostToVip => (self.vip, API_PORT).into(),
            Path::MachineToOutside => {
                let address = self
                    .outside
                    .as_ref()
                    .map_or(self.gateway, |(_, address)| *address);
                (address, API_PORT).into()
            }
        }
    }

    /// The address whose packets show the state of a path.
    fn addresses(&self, path: Path) -> Ipv4Addr {
        match (path, self.target(path)) {
            // The gateway has other traffic, the machine has none.
            (Path::MachineToService, _) | (_, SocketAddr::V6(_)) => self.client.address(),
            (_, SocketAddr::V4(target)) => *target.ip(),
        }
    }

    /// Tries to connect over all of these paths concurrently.
    fn connect(&self, paths: &[Path], bound: Duration) -> Vec<(Path, bool)> {
        let all: Vec<(Path, SocketAddr)> = paths.iter().map(|path| (*path, self.target(*path))).collect();
        let (host, machine): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|(path, _)| *path == Path::HostToVip);
        let from_machine = self.client.begin(move || connect_all(&machine, bound));
        let mut outcome = connect_all(&host, bound);
        outcome.extend(from_machine.recv().unwrap_or_default());
        outcome.sort_unstable();
        outcome
    }
}

/// Connects from the network namespace of the calling thread.
fn connect_all(targets: &[(Path, SocketAddr)], bound: Duration) -> Vec<(Path, bool)> {
    thread::scope(|scope| {
        let running: Vec<_> = targets
            .iter()
            .map(|(path, to)| {
                let attempt = move || (*path, TcpStream::connect_timeout(to, bound).is_ok());
                scope.spawn(attempt)
            })
            .collect();
        running
            .into_iter()
            .filter_map(|attempt| attempt.join().ok())
            .collect()
    })
}

fn forwarding() -> bool {
    std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").is_ok_and(|text| text.trim() == "1")
}

/// A namespace behind this host that is not on the bridge: packets to it are forwarded like those to the
/// uplink.
fn stand_in_outside(port: &str, taken: &[Ipv4Net]) -> Result<(Machine, Ipv4Addr), ProbeError> {
    let range = OUTSIDE
        .iter()
        .filter_map(|text| text.parse::<Ipv4Net>().ok())
        .find(|range| {
            !taken
                .iter()
                .any(|other| other.contains(range) || range.contains(other))
        })
        .ok_or_else(|| {
            ProbeError::new(
                "stand in for the outside",
                io::Error::other("this host routes all ranges that are reserved for tests"),
            )
        })?;
    let first = u32::from(range.network());
    let (near, far) = (Ipv4Addr::from(first + 1), Ipv4Addr::from(first + 2));
    let far_within = Ipv4Net::new(far, range.prefix_len()).expect("the length comes from a range");
    let machine = Machine::plugged(port, None, far_within, Some(near))?;
    let near = format!("{near}/{}", range.prefix_len());
    run("ip", &["address", "add", &near, "dev", port], None)
        .map_err(|error| ProbeError::new("stand in for the outside", error))?;
    machine.listen(SocketAddr::new(far.into(), API_PORT))?;
    Ok((machine, far))
}
