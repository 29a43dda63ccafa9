//! Readiness probes of a process.

use std::{fs, path::Path, time::Duration};

use agent_protocol::Probe;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use crate::https::{Bounds, client};

/// No answer to a probe is longer than this.
const LARGEST: u64 = 64 * 1024;

/// Probes one process repeatedly, over one connection for as long as it answers.
#[derive(Default)]
pub struct Asker {
    client: Option<ureq::Agent>,
}

impl Asker {
    /// Whether the process is ready. Paths of the probe are relative to `root`; no answer within `bound`
    /// means not ready.
    pub fn ask(&mut self, root: &Path, probe: &Probe, bound: Duration) -> bool {
        let machine = |path: &str| root.join(path.trim_start_matches('/'));
        match probe {
            Probe::Unix { path } => accepts(&machine(path)),
            Probe::Http { url, ca, identity } => {
                // Files may be missing or rewritten: an unready process gets a new client each time.
                let read = |path: &String| fs::read_to_string(machine(path)).ok();
                let made = self.client.take().or_else(|| {
                    let ca = ca.as_ref().and_then(read);
                    let identity = identity
                        .as_ref()
                        .and_then(|(certificate, key)| Some((read(certificate)?, read(key)?)));
                    client(ca.as_deref(), identity.as_ref(), Bounds::whole(bound))
                });
                let Some(client) = made else { return false };
                let ready = client.get(url).call().is_ok_and(|mut answer| {
                    let ok = answer.status().as_u16() == 200;
                    // Read to the end, so that the next probe can use the connection.
                    ok && answer
                        .body_mut()
                        .with_config()
                        .limit(LARGEST)
                        .read_to_vec()
                        .is_ok()
                });
                if ready {
                    self.client = Some(client);
                }
                ready
            }
        }
    }
}

/// Whether a process listens at this socket and accepts connections. Non-blocking: a listener that accepts
/// nothing has a full queue at some point, and a blocking connect would wait for ever.
fn accepts(path: &Path) -> bool {
    let connected = socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::NONBLOCK | SocketFlags::CLOEXEC,
        None,
    )
    .and_then(|socket| connect(&socket, &SocketAddrUnix::new(path)?));
    connected.is_ok()
}

/// Whether this process is stopped (SIGSTOP): it answers no request, though the kernel still accepts
/// connections for it.
pub fn is_stopped(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        // The preceding name is in parentheses and may contain any character.
        stat.rsplit_once(") ")
            .is_some_and(|(_, rest)| rest.starts_with(['T', 't']))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn a_socket_whose_queue_is_full_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let probe = Probe::Unix {
            path: "/socket".into(),
        };
        let ask = || Asker::default().ask(directory.path(), &probe, Duration::from_secs(1));
        assert!(!ask());
        let listener = UnixListener::bind(&path).unwrap();
        assert!(ask());
        rustix::net::listen(&listener, 0).unwrap();
        let full = (0..10).any(|_| !ask());
        assert!(full, "nobody takes what comes, and still there is always room");
    }
}
