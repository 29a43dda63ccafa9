//! A client of an API server that asks all the time, and what it met with.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, ensure};

use super::joined;
use crate::{
    clients::{Kubectl, attempt},
    journal::Journal,
};

/// A client that sends requests without a pause, one at a time, while another step runs.
pub(super) struct Load {
    sent: u32,
    /// Seconds that the slowest took.
    longest: f64,
    failed: Vec<String>,
}

impl Load {
    pub(super) fn over(
        journal: &Journal,
        kubectl: &Kubectl,
        act: impl FnOnce() -> Result<()>,
    ) -> Result<Self> {
        let over = AtomicBool::new(false);
        let load = std::thread::scope(|scope| {
            let load = scope.spawn(|| -> Result<Self> {
                let (mut sent, mut longest, mut failed) = (0, 0.0_f64, Vec::new());
                while !over.load(Ordering::SeqCst) {
                    sent += 1;
                    let mut get = kubectl.command(&["get", "namespaces", "--request-timeout=20s"]);
                    let (output, seconds) = crate::journal::stopwatch(|| attempt(&mut get));
                    longest = longest.max(seconds);
                    let output = output?;
                    if !output.status.success() {
                        failed.push(String::from_utf8_lossy(&output.stderr).trim().to_owned());
                    }
                }
                Ok(Self {
                    sent,
                    longest,
                    failed,
                })
            });
            let done = act();
            over.store(true, Ordering::SeqCst);
            let load = joined(load)?;
            done.map(|()| load)
        })?;
        let (failed, sent, longest) = (load.failed.len(), load.sent, load.longest);
        journal.note(&format!(
            "{failed} of {sent} requests failed, the slowest took {longest:.1} s"
        ));
        Ok(load)
    }

    /// One client, one request at a time: each time the VIP moves, at most the request that was under way broke.
    pub(super) fn undisturbed(&self, moves: usize) -> Result<()> {
        let (failed, sent) = (self.failed.len(), self.sent);
        ensure!(
            failed <= moves,
            "{failed} of {sent} requests failed:\n        {}",
            self.failed.join("\n        ")
        );
        Ok(())
    }
}
