//! The trace of events, in order: each commit of the store, each call into the world, each response to a
//! request.
//!
//! Always true: it depends only on the seed. Random values (keys, tokens, sealed data) are left out. Two runs
//! with the same seed have the same [`Trace::hash`].

use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Write as _,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use base_env::Clock;
use sha2::{Digest as _, Sha256};

/// Lines that are kept for people.
const KEPT: usize = 4000;

#[derive(Default)]
struct Inner {
    hash: Sha256,
    lines: VecDeque<(Duration, String)>,
    count: u64,
    /// Lines that [`Trace::take`] has given out.
    taken: u64,
    /// The names of machines and clusters.
    names: BTreeMap<String, String>,
}

/// See the module.
pub struct Trace {
    clock: Arc<dyn Clock>,
    inner: Mutex<Inner>,
}

impl Trace {
    /// An empty one.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            inner: Mutex::default(),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Every change below is whole, even after a panic elsewhere.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a line.
    pub fn note(&self, line: &str) {
        let at = self.clock.monotonic();
        let mut inner = self.inner();
        inner.hash.update(at.as_nanos().to_le_bytes());
        inner.hash.update(line.as_bytes());
        inner.hash.update(b"\n");
        inner.count += 1;
        inner.lines.push_back((at, line.to_owned()));
        if inner.lines.len() > KEPT {
            inner.lines.pop_front();
        }
    }

    /// Shows this name instead of the id from now on.
    pub fn name(&self, id: &str, name: &str) {
        self.inner().names.insert(id.to_owned(), name.to_owned());
    }

    /// A text with identities replaced by names.
    pub fn told(&self, text: &str) -> String {
        told(&self.inner().names, text)
    }

    /// The hash of all lines so far.
    pub fn hash(&self) -> String {
        hex::encode(self.inner().hash.clone().finalize())
    }

    /// The number of lines.
    pub fn count(&self) -> u64 {
        self.inner().count
    }

    /// The last lines, with names.
    pub fn tail(&self, lines: usize) -> Vec<String> {
        let inner = self.inner();
        let skip = inner.lines.len().saturating_sub(lines);
        inner
            .lines
            .iter()
            .skip(skip)
            .map(|(at, line)| print(*at, &told(&inner.names, line)))
            .collect()
    }

    /// The lines since the last call that begin with one of these words, without that word.
    pub fn take(&self, kinds: &[&str]) -> Vec<String> {
        let mut inner = self.inner();
        let first = inner.count - inner.lines.len() as u64;
        let skip = usize::try_from(inner.taken.saturating_sub(first)).unwrap_or(usize::MAX);
        inner.taken = inner.count;
        inner
            .lines
            .iter()
            .skip(skip)
            .filter_map(|(at, line)| {
                let (kind, rest) = line.split_once(' ')?;
                kinds
                    .contains(&kind)
                    .then(|| print(*at, &told(&inner.names, rest)))
            })
            .collect()
    }
}

fn print(at: Duration, line: &str) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write!(text, "{:>9.3}s {line}", at.as_secs_f64());
    text
}

/// Replaces ids that occur as whole words.
fn told(names: &BTreeMap<String, String>, text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut word = String::new();
    for letter in text.chars().chain(std::iter::once('\n')) {
        if letter.is_ascii_alphanumeric() {
            word.push(letter);
            continue;
        }
        out.push_str(names.get(&word).unwrap_or(&word));
        word.clear();
        out.push(letter);
    }
    out.pop();
    out
}

impl std::fmt::Debug for Trace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trace")
            .field("count", &self.count())
            .finish_non_exhaustive()
    }
}
