//! Progress messages of a build.

use std::time::Duration;

use crate::Estimate;

/// An event for a person who waits.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Event<'a> {
    /// The plan. First, once; not sent if the image exists.
    Planned(&'a Estimate),
    /// Another process builds into the same store; this one waits for it.
    Waiting {
        /// The process id, if known.
        holder: Option<u32>,
    },
    /// A step starts. Two steps can run at the same time.
    Started {
        /// The name, as in the estimate.
        step: &'a str,
        /// The expected time on this machine, with empty caches.
        expected: Duration,
    },
    /// A step succeeded.
    Finished {
        /// The name, as in the estimate.
        step: &'a str,
        /// The actual time.
        took: Duration,
    },
    /// A step is not needed: an earlier build left its result.
    Cached {
        /// The name, as in the estimate.
        step: &'a str,
    },
}

/// The receiver of events. Called from several threads.
pub trait Progress: Send + Sync {
    /// Must not block for long: the build waits.
    fn event(&self, event: Event<'_>);
}

/// Ignores events.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn event(&self, _event: Event<'_>) {}
}

impl<F: Fn(Event<'_>) + Send + Sync> Progress for F {
    fn event(&self, event: Event<'_>) {
        self(event);
    }
}
