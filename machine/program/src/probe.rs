//! Asking a process whether it is ready.

use std::{fs, path::Path, time::Duration};

use agent_protocol::Probe;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use crate::https::{Bounds, client};

/// An answer longer than this is not one to a probe.
const LARGEST: u64 = 64 * 1024;

/// Asks one process again and again, over one connection for as long as it answers.
#[derive(Default)]
pub struct Asker {
    client: Option<ureq::Agent>,
}

impl Asker {
    /// Whether it is ready. Paths of the probe lie below `root`; no answer within `bound` is a no.
    pub fn ask(&mut self, root: &Path, probe: &Probe, bound: Duration) -> bool {
        let machine = |path: &str| root.join(path.trim_start_matches('/'));
        match probe {
            Probe::Unix { path } => accepts(&machine(path)),
            Probe::Http { url, ca, identity } => {
                // Files may not be there yet, or be written anew: an unready process gets a new client each time.
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
                    // Read to the end, the connection serves the next probe as well.
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

/// Whether somebody listens at this socket and takes what comes. Without waiting: one that takes nothing any more has a
/// full queue one day, and a plain connection would wait for a place in it for ever.
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

/// Whether somebody has stopped this process (SIGSTOP): then it answers nobody, though the kernel still takes connections in
/// its name.
pub fn is_stopped(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        // The name before it is in parentheses and may contain anything.
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
