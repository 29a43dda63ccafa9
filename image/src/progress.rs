//! What a build tells while it runs.

use std::time::Duration;

use crate::Estimate;

/// Something that a person waiting wants to know.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Event<'a> {
    /// What is going to happen. First, once; not sent when the image was there.
    Planned(&'a Estimate),
    /// Another process builds into the same store; this one waits for it.
    Waiting {
        /// That process, where it is known.
        holder: Option<u32>,
    },
    /// A step begins. Two steps can run at the same time.
    Started {
        /// As in the estimate.
        step: &'a str,
        /// On this machine, with empty caches.
        expected: Duration,
    },
    /// A step ended well.
    Finished {
        /// As in the estimate.
        step: &'a str,
        /// What it really took.
        took: Duration,
    },
    /// A step has nothing to do: an earlier build left its result.
    Cached {
        /// As in the estimate.
        step: &'a str,
    },
}

/// Who is told. Called from several threads.
pub trait Progress: Send + Sync {
    /// Must not block for long: the build waits.
    fn event(&self, event: Event<'_>);
}

/// Tells nobody.
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
