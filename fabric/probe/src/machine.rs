//! A simulated machine: a thread in a separate network namespace, with an interface.
//!
//! Always true: the namespace has no name and is held only by the thread, so the kernel removes it, with
//! interface and veth pair, when the thread or the process ends.

use std::{
    io::{self, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    process::{Command, Stdio},
    sync::mpsc,
    thread,
};

use fabric_net::mac;
use ipnet::Ipv4Net;
use nix::{
    sched::{CloneFlags, unshare},
    unistd::gettid,
};

use crate::ProbeError;

type Work = Box<dyn FnOnce(&mut Vec<TcpListener>) + Send>;

pub(crate) struct Machine {
    work: Option<mpsc::Sender<Work>>,
    thread: Option<thread::JoinHandle<()>>,
    port: String,
    address: Ipv4Addr,
}

impl Machine {
    /// A namespace with an interface of this address, whose other end on the host is `port`, in `bridge` if
    /// one is given.
    pub(crate) fn plugged(
        port: &str,
        bridge: Option<&str>,
        address: Ipv4Net,
        gateway: Option<Ipv4Addr>,
    ) -> Result<Self, ProbeError> {
        let failed = |error| ProbeError::new("make a network namespace for trying", error);
        let (tell, told) = mpsc::channel::<Result<i32, io::Error>>();
        let (work, todo) = mpsc::channel::<Work>();
        let thread = thread::Builder::new()
            .name("probe".into())
            .spawn(move || {
                let inside = unshare(CloneFlags::CLONE_NEWNET).map_err(io::Error::from);
                let inside = inside.map(|()| gettid().as_raw());
                let ready = inside.is_ok();
                // The receiver waits for this.
                drop(tell.send(inside));
                let mut listeners = Vec::new();
                while ready && let Ok(act) = todo.recv() {
                    act(&mut listeners);
                }
            })
            .map_err(failed)?;
        let id = told
            .recv()
            .map_err(|_| failed(io::Error::other("the thread ended")))?
            .map_err(failed)?;
        // Left over from a probe that was killed a moment ago: the kernel removes it asynchronously.
        drop(run("ip", &["link", "delete", port], None));
        let master = bridge
            .map(|bridge| format!("master {bridge} "))
            .unwrap_or_default();
        // The same hardware address each time, as machines have: the host's neighbour table has the one of an
        // earlier probe.
        let hardware = mac(address.addr());
        let plug = format!(
            "link add {port} {master}type veth peer name eth0 address {hardware} netns {id}\nlink set {port} up\n"
        );
        run("ip", &["-batch", "-"], Some(&plug)).map_err(failed)?;
        let machine = Self {
            work: Some(work),
            thread: Some(thread),
            port: port.to_owned(),
            address: address.addr(),
        };
        let route = gateway
            .map(|gateway| format!("route add default via {gateway}\n"))
            .unwrap_or_default();
        let script = format!("link set lo up\naddress add {address} dev eth0\nlink set eth0 up\n{route}");
        machine
            .begin(move || run("ip", &["-batch", "-"], Some(&script)))
            .recv()
            .map_err(|_| failed(io::Error::other("the thread ended")))?
            .map_err(failed)?;
        Ok(machine)
    }

    pub(crate) fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Starts a function inside the namespace; its result is sent.
    pub(crate) fn begin<T: Send + 'static>(
        &self,
        act: impl FnOnce() -> T + Send + 'static,
    ) -> mpsc::Receiver<T> {
        let (tell, told) = mpsc::channel();
        self.send(Box::new(move |_| drop(tell.send(act()))));
        told
    }

    /// Listens inside the namespace for its lifetime. The kernel accepts connections by itself.
    pub(crate) fn listen(&self, at: SocketAddr) -> Result<(), ProbeError> {
        let (tell, told) = mpsc::channel();
        self.send(Box::new(move |listeners| {
            drop(tell.send(TcpListener::bind(at).map(|listener| listeners.push(listener))));
        }));
        told.recv()
            .unwrap_or_else(|_| Err(io::Error::other("the thread ended")))
            .map_err(|error| ProbeError::new(format!("listen at {at}"), error))
    }

    fn send(&self, act: Work) {
        // A thread that has ended shows as a missing answer.
        drop(self.work.as_ref().map(|work| work.send(act)));
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // The kernel removes a namespace asynchronously; an explicit delete removes the veth pair at once.
        drop(run("ip", &["link", "delete", &self.port], None));
        drop(self.work.take());
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// Runs a program in the network namespace of the calling thread.
pub(crate) fn run(program: &str, arguments: &[&str], input: Option<&str>) -> io::Result<String> {
    let mut child = Command::new(program)
        .args(arguments)
        .env("PATH", search_path())
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| io::Error::new(error.kind(), format!("{program}: {error}")))?;
    if let (Some(mut pipe), Some(text)) = (child.stdin.take(), input) {
        // A program that exits without reading everything explains it on its error output.
        drop(pipe.write_all(text.as_bytes()));
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.lines().map(str::trim).filter(|line| !line.is_empty());
    Err(io::Error::other(format!(
        "{program} ended with {}: {}",
        output.status,
        said.collect::<Vec<_>>().join("; ")
    )))
}

/// PATH with the directories of administration programs, which services often lack.
pub(crate) fn search_path() -> String {
    const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    std::env::var("PATH").map_or_else(|_| PATH.to_owned(), |path| format!("{path}:{PATH}"))
}
