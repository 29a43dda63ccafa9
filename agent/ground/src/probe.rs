//! Asking a process whether it is ready.

use std::{fs, os::unix::net::UnixStream, path::Path, time::Duration};

use agent_protocol::Probe;

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
            Probe::Unix { path } => UnixStream::connect(machine(path)).is_ok(),
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
