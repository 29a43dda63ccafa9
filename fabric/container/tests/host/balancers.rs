//! Balancers: permitted clients, targets, and the fate of connections when they change.
//!
//! Servers and clients are threads of the test inside the machines' networks: busybox has no server that
//! reports its client.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{BufRead as _, BufReader, ErrorKind, Result, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsFd as _,
    path::Path,
    thread,
    time::Duration,
};

use fabric_api::{
    BalancedPort, Balancer, Fabric as _, Filter, FilterRule, MachineId, NetworkId, Protocol, Side,
};
use fabric_net::Names;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::{
    run,
    stand::{Stand, machine, network, on_subnet},
};

/// The port of the machines' servers.
const TCP: u16 = 30080;
const UDP: u16 = 30053;

/// The time to wait for an answer, expected or not.
const PATIENCE: Duration = Duration::from_secs(2);

/// Enough attempts that chance does not miss one of two machines.
const OFTEN: usize = 20;

/// Runs a function inside a machine's network, or on the host. Sockets stay in the namespace where they were
/// created.
fn within<T: Send + 'static>(
    stand: &Stand,
    machine: Option<&str>,
    act: impl FnOnce() -> T + Send + 'static,
) -> T {
    let space = machine.map(|id| {
        let name = Names::new(&stand.stamp).machine_namespace(&MachineId::from(id));
        File::open(Path::new("/run/netns").join(name)).unwrap()
    });
    let there = thread::spawn(move || {
        if let Some(space) = space {
            move_into_link_name_space(space.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        }
        act()
    });
    there.join().unwrap()
}

/// Starts servers in a machine that report the machine and the client's address. The threads end with the
/// process.
fn serve(stand: &Stand, id: &'static str) {
    let (tcp, udp) = within(stand, Some(id), || {
        (
            TcpListener::bind(("0.0.0.0", TCP)).unwrap(),
            UdpSocket::bind(("0.0.0.0", UDP)).unwrap(),
        )
    });
    thread::spawn(move || {
        while let Ok((mut stream, from)) = tcp.accept() {
            thread::spawn(move || -> Result<()> {
                writeln!(stream, "{id} {}", from.ip())?;
                let mut lines = BufReader::new(stream.try_clone()?).lines();
                while lines.next().transpose()?.is_some() {
                    writeln!(stream, "still {id}")?;
                }
                Ok(())
            });
        }
    });
    thread::spawn(move || -> Result<()> {
        loop {
            let (_, from) = udp.recv_from(&mut [0; 16])?;
            udp.send_to(format!("{id} {}", from.ip()).as_bytes(), from)?;
        }
    });
}

/// A connection with its greeting.
struct Connection {
    greeting: String,
    stream: BufReader<TcpStream>,
}

impl Connection {
    fn open(stand: &Stand, from: Option<&str>, to: Ipv4Addr, port: u16) -> Result<Self> {
        let stream = within(stand, from, move || {
            TcpStream::connect_timeout(&SocketAddr::from((to, port)), PATIENCE)
        })?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut connection = Self {
            greeting: String::new(),
            stream: BufReader::new(stream),
        };
        connection.greeting = connection.line()?;
        Ok(connection)
    }

    fn say_something(&mut self) -> Result<String> {
        self.stream.get_mut().write_all(b"x\n")?;
        self.line()
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }
}

fn ask(
    stand: &Stand,
    from: Option<&str>,
    to: Ipv4Addr,
    protocol: Protocol,
    port: u16,
) -> std::result::Result<String, ErrorKind> {
    let answer = if protocol == Protocol::Tcp {
        Connection::open(stand, from, to, port).map(|connection| connection.greeting)
    } else {
        within(stand, from, move || -> Result<String> {
            let socket = UdpSocket::bind(("0.0.0.0", 0))?;
            socket.set_read_timeout(Some(PATIENCE))?;
            socket.connect((to, port))?;
            socket.send(b"x")?;
            let mut answer = [0; 64];
            let length = socket.recv(&mut answer)?;
            Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
        })
    };
    answer.map_err(|error| error.kind())
}

/// All distinct answers on connections to port 80.
fn answers(stand: &Stand, from: Option<&str>, to: Ipv4Addr) -> BTreeSet<String> {
    (0..OFTEN)
        .map(|_| ask(stand, from, to, Protocol::Tcp, 80).unwrap_or_else(|error| error.to_string()))
        .collect()
}

fn port(protocol: Protocol, port: u16, target: u16, machines: &[&str]) -> BalancedPort {
    BalancedPort {
        protocol,
        port,
        target,
        machines: machines.iter().map(|text| text.parse().unwrap()).collect(),
        sticky: false,
    }
}

fn balancer(address: Ipv4Addr, side: Side, ports: Vec<BalancedPort>) -> Balancer {
    Balancer {
        address,
        side,
        ports,
        sources: Vec::new(),
    }
}

/// The answers of all machines in rotation to this client.
fn both(client: impl std::fmt::Display) -> BTreeSet<String> {
    ["a1", "a2"].map(|id| format!("{id} {client}")).into()
}

const ROTATION: [&str; 2] = ["10.224.0.4", "10.224.0.5"];

#[test]
fn an_address_leads_to_all_machines_in_rotation_and_a_connection_stays_with_one() {
    run("balance", async |stand: &Stand| {
        let fabric = &stand.fabric;
        let mut spec = network(stand, "na", 10);
        let mut other = network(stand, "nb", 11);
        for spec in [&spec, &other] {
            fabric.ensure_network(spec).await.unwrap();
        }
        for (id, network, address) in [
            ("a1", "na", ROTATION[0]),
            ("a2", "na", ROTATION[1]),
            ("cp", "na", "10.239.0.4"),
            ("b1", "nb", "10.224.0.4"),
        ] {
            let spec = machine(id, vec![on_subnet(network, address)]);
            fabric.ensure_machine(&spec).await.unwrap();
        }
        for id in ["a1", "a2", "b1"] {
            serve(stand, id);
        }
        let (outside, inside) = (stand.address(205), Ipv4Addr::new(10, 224, 255, 250));
        spec.balancers = vec![
            balancer(
                outside,
                Side::Stamp,
                vec![
                    port(Protocol::Tcp, 80, TCP, &ROTATION),
                    port(Protocol::Tcp, 81, TCP, &[]),
                    port(Protocol::Udp, 53, UDP, &ROTATION[..1]),
                    port(Protocol::Udp, 54, UDP, &[]),
                ],
            ),
            balancer(
                inside,
                Side::Subnet,
                vec![port(Protocol::Tcp, 80, TCP, &ROTATION)],
            ),
        ];
        // Twice: the second time changes nothing.
        for _ in 0..2 {
            fabric.ensure_network(&spec).await.unwrap();
            assert_eq!(
                answers(stand, None, outside),
                both(stand.network.gateway()),
                "the host"
            );
        }
        assert_eq!(
            answers(stand, Some("b1"), outside),
            both(stand.address(11)),
            "another VNET, translated to its uplink"
        );
        for address in [outside, inside] {
            // Where answers return through the router, machines see the client's own address.
            assert_eq!(
                answers(stand, Some("cp"), address),
                both("10.239.0.4"),
                "{address}"
            );
            // From the same bridge, and from the target machine itself.
            assert_eq!(
                answers(stand, Some("a1"), address),
                both("10.224.0.1"),
                "{address}"
            );
        }
        let udp = ask(stand, None, outside, Protocol::Udp, 53);
        assert_eq!(udp, Ok(format!("a1 {}", stand.network.gateway())));
        let udp = ask(stand, Some("b1"), outside, Protocol::Udp, 53);
        assert_eq!(udp, Ok(format!("a1 {}", stand.address(11))));

        // A port without machines refuses at once; other ports do not answer, and no others are opened.
        for from in [None, Some("b1"), Some("a1")] {
            for (protocol, port) in [(Protocol::Tcp, 81), (Protocol::Udp, 54)] {
                let refused = ask(stand, from, outside, protocol, port);
                assert_eq!(refused, Err(ErrorKind::ConnectionRefused), "{from:?} {port}");
            }
            assert!(
                ask(stand, from, outside, Protocol::Tcp, TCP).is_err(),
                "{from:?}: a machine's port is none of the address"
            );
        }
        assert!(!stand.host_pings(&outside.to_string()).await);
        for address in [inside, stand.address(10)] {
            assert!(
                ask(stand, Some("b1"), address, Protocol::Tcp, 80).is_err(),
                "{address}"
            );
        }

        // One machine is removed. Its connections stay; new ones go elsewhere.
        let mut held = loop {
            let connection = Connection::open(stand, None, outside, 80).unwrap();
            if connection.greeting.starts_with("a2") {
                break connection;
            }
        };
        spec.balancers[0].ports[0] = port(Protocol::Tcp, 80, TCP, &ROTATION[..1]);
        fabric.ensure_network(&spec).await.unwrap();
        let only = BTreeSet::from([format!("a1 {}", stand.network.gateway())]);
        assert_eq!(answers(stand, None, outside), only);
        assert_eq!(held.say_something().unwrap(), "still a2");
        // A sticky client always gets the same machine; clients without permission get no answer.
        spec.balancers[0].ports[0] = port(Protocol::Tcp, 80, TCP, &ROTATION);
        spec.balancers[0].ports[0].sticky = true;
        spec.balancers[0].sources = vec![stand.address(11).into()];
        fabric.ensure_network(&spec).await.unwrap();
        let same = answers(stand, Some("b1"), outside);
        assert!(
            same.len() == 1 && same.is_subset(&both(stand.address(11))),
            "{same:?}"
        );
        for port in [80, 81] {
            let refused = ask(stand, None, outside, Protocol::Tcp, port);
            assert_eq!(refused, Err(ErrorKind::TimedOut), "{port}");
        }
        assert_eq!(held.say_something().unwrap(), "still a2");

        // The address is released with its balancer, and the other VNET may use it at once.
        spec.balancers.remove(0);
        fabric.ensure_network(&spec).await.unwrap();
        assert!(ask(stand, Some("a1"), outside, Protocol::Tcp, 80).is_err());
        assert_eq!(answers(stand, Some("cp"), inside), both("10.239.0.4"));
        other.balancers = vec![balancer(
            outside,
            Side::Stamp,
            vec![port(Protocol::Tcp, 80, TCP, &ROTATION[..1])],
        )];
        fabric.ensure_network(&other).await.unwrap();
        let moved = BTreeSet::from([format!("b1 {}", stand.network.gateway())]);
        assert_eq!(answers(stand, None, outside), moved);
        let moved = BTreeSet::from([format!("b1 {}", stand.address(10))]);
        assert_eq!(answers(stand, Some("a1"), outside), moved);
        other.balancers.clear();
        fabric.ensure_network(&other).await.unwrap();
        assert!(ask(stand, None, outside, Protocol::Tcp, 80).is_err());
        let space = Names::new(&stand.stamp).network_namespace(&NetworkId::from("nb"));
        assert!(
            !stand
                .succeeds(&[
                    "ip",
                    "netns",
                    "exec",
                    &space,
                    "nft",
                    "list",
                    "chain",
                    "inet",
                    "landfall",
                    "balancers"
                ])
                .await
        );
    });
}

#[test]
fn a_filter_sees_the_machine_behind_an_address() {
    run("guarded", async |stand: &Stand| {
        let fabric = &stand.fabric;
        let mut spec = network(stand, "na", 10);
        let all = || vec![ipnet::Ipv4Net::default()];
        spec.subnets[0].filter = Some(Filter {
            inbound: vec![FilterRule::allow(all(), vec!["10.224.0.4/32".parse().unwrap()])],
            outbound: vec![FilterRule::allow(all(), all())],
        });
        let outside = stand.address(205);
        let to = |machines: &[&str]| {
            vec![balancer(
                outside,
                Side::Stamp,
                vec![port(Protocol::Tcp, 80, TCP, machines)],
            )]
        };
        spec.balancers = to(&ROTATION[..1]);
        fabric.ensure_network(&spec).await.unwrap();
        for (id, address) in [("a1", ROTATION[0]), ("a2", ROTATION[1])] {
            let spec = machine(id, vec![on_subnet("na", address)]);
            fabric.ensure_machine(&spec).await.unwrap();
            serve(stand, id);
        }
        // Answers come through the router here, also from a neighbour; only a machine's connection to itself
        // needs translation.
        for (from, seen) in [
            (None, stand.network.gateway().to_string()),
            (Some("a2"), ROTATION[1].to_owned()),
            (Some("a1"), "10.224.0.1".to_owned()),
        ] {
            let answer = ask(stand, from, outside, Protocol::Tcp, 80);
            assert_eq!(answer, Ok(format!("a1 {seen}")), "{from:?}");
        }
        spec.balancers = to(&ROTATION[1..]);
        fabric.ensure_network(&spec).await.unwrap();
        for from in [None, Some("a1"), Some("a2")] {
            let answer = ask(stand, from, outside, Protocol::Tcp, 80);
            assert_eq!(answer, Err(ErrorKind::TimedOut), "{from:?}");
        }
    });
}
