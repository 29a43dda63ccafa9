//! Brings what is on the machine's disk to the service.
//!
//! Never stuck: what the service will never take, or what cannot be read any more, is given up. That is told, and a new base is
//! begun at once, so that only the seconds up to it are lost to the service.

use std::{
    fs::File,
    io::{BufReader, Seek as _, SeekFrom},
    sync::Arc,
    time::Duration,
};

use cluster_backup::{
    ObjectName, chain,
    frame::{self, Frames, Head},
    log,
};
use machine_program::pause;

use crate::{
    say,
    service::{BackupSink, Failure},
    shared::Shared,
    spool::Spool,
};

/// Changes that come together are shipped together: how far the service may be behind, and what it costs.
const ROUND: Duration = Duration::from_millis(500);
const IDLE: Duration = Duration::from_secs(30);
const FIRST_RETRY: Duration = Duration::from_millis(500);
const LONGEST_RETRY: Duration = Duration::from_secs(10);
/// A part of a log is not much larger.
const PART: usize = 1024 * 1024;

pub(crate) struct Shipper<C> {
    /// A way to the service.
    pub(crate) connect: C,
    pub(crate) spool: Spool,
    pub(crate) shared: Arc<Shared>,
}

/// Where to read on.
#[derive(Debug, Clone, Copy)]
struct Cursor {
    log: i64,
    offset: u64,
}

/// What the service is known to have.
pub(crate) struct Known<K> {
    service: K,
    /// The history that this is about.
    history: u64,
    bases: Vec<ObjectName>,
    cursor: Option<Cursor>,
}

/// A part of a log, ready to be shipped.
struct Part {
    bytes: Vec<u8>,
    /// `None`: there is nothing more in this log.
    name: Option<ObjectName>,
    /// Where the next one begins.
    end: u64,
}

impl<K: BackupSink, C: Fn() -> Result<K, String>> Shipper<C> {
    /// Ships for ever.
    pub(crate) fn run(&self) {
        let mut retry = FIRST_RETRY;
        let mut known = None;
        loop {
            self.shared.wait_for_work(IDLE, |state| {
                state.leads
                    && (state.written > state.acknowledged
                        || known.as_ref().is_none_or(|known: &Known<K>| {
                            state.base.is_some_and(|base| !known.bases.contains(&base))
                        }))
            });
            if !self.shared.state().leads {
                // Whoever leads meanwhile ships other things.
                known = None;
                continue;
            }
            match self.round(&mut known) {
                Ok(()) => {
                    retry = FIRST_RETRY;
                    self.shared.state().shipping = None;
                    pause::sleep(ROUND);
                }
                Err(why) => {
                    known = None;
                    self.shared.state().shipping = Some(format!("cannot ship: {why}"));
                    pause::sleep(retry);
                    retry = (retry * 2).min(LONGEST_RETRY);
                }
            }
        }
    }

    /// Finds out what the service has.
    fn learn(&self) -> Result<Known<K>, String> {
        let service = (self.connect)()?;
        let names = service.has().map_err(why)?;
        let has = chain::select(&names, None).map_or(0, |chain| chain.last);
        let mut state = self.shared.state();
        let bases: Vec<ObjectName> = names
            .into_iter()
            .filter(|name| matches!(name, ObjectName::Base { .. }))
            .collect();
        // More than was ever written here is of another history.
        let acknowledged = if has <= state.written { has } else { 0 };
        state.acknowledge(acknowledged);
        state.base_shipped = bases.iter().map(ObjectName::until).max().unwrap_or(0);
        Ok(Known {
            service,
            history: state.history,
            bases,
            cursor: None,
        })
    }

    /// Ships what there is.
    pub(crate) fn round(&self, known: &mut Option<Known<K>>) -> Result<(), String> {
        let history = self.shared.state().history;
        if known.as_ref().is_some_and(|known| known.history != history) {
            *known = None;
        }
        let known = match known {
            Some(known) => known,
            none => none.insert(self.learn()?),
        };
        let wanted = self.shared.state().written;
        while self.part(known)? {}
        self.bases(known)?;
        while self.part(known)? {}
        // Whatever no log tells of is in the newest base, if it is as new.
        let newest = known.bases.iter().max_by_key(|base| base.until());
        let mut state = self.shared.state();
        if state.history != known.history {
            return Ok(());
        }
        if let Some(ObjectName::Base { revision, .. }) = newest
            && *revision > state.acknowledged
            && *revision <= state.written
        {
            let revision = *revision;
            state.acknowledge(revision);
        }
        if state.acknowledged < wanted && !state.base_coming {
            let why = format!(
                "changes after revision {} cannot be read on this machine",
                state.acknowledged
            );
            say(&format!("{why}: a new base takes their place"));
            state.give_up(why);
        }
        Ok(())
    }

    fn bases(&self, known: &mut Known<K>) -> Result<(), String> {
        let base = self.shared.state().base;
        if base.is_none_or(|base| known.bases.contains(&base)) {
            return Ok(());
        }
        // After a time without the service there may be several: the log between leads from one to the next.
        let mut bases = self.spool.bases();
        bases.sort_by_key(ObjectName::until);
        for base in bases {
            if known.bases.contains(&base) {
                continue;
            }
            let path = self.spool.path(&base.to_string());
            if path.exists() {
                match known.service.take_file(&base, &path) {
                    Ok(()) => {}
                    Err(Failure::Away(why)) => return Err(why),
                    Err(Failure::Refused(why)) => {
                        self.give_up(&base, &why);
                        self.spool.drop_base(&base);
                        let mut state = self.shared.state();
                        if state.base == Some(base) {
                            state.base = None;
                        }
                        continue;
                    }
                }
            }
            known.bases.push(base);
            self.shared.state().base_shipped = base.until();
        }
        Ok(())
    }

    fn give_up(&self, name: &ObjectName, why: &str) {
        let why = format!("{name} is not taken: {why}");
        say(&format!("{why}; a new base takes its place"));
        self.shared.state().give_up(why);
    }

    /// Ships the next part of the log; whether there was one.
    fn part(&self, known: &mut Known<K>) -> Result<bool, String> {
        let (acknowledged, written) = {
            let state = self.shared.state();
            if state.history != known.history {
                return Ok(false);
            }
            (state.acknowledged, state.written)
        };
        if acknowledged >= written {
            return Ok(false);
        }
        let starts = self.spool.log_starts();
        let mut cursor = match known.cursor.filter(|cursor| starts.contains(&cursor.log)) {
            Some(cursor) => cursor,
            None => {
                // The log in which what is not acknowledged begins.
                let start = starts.iter().rev().find(|start| **start <= acknowledged);
                match start.or(starts.first()) {
                    Some(log) => Cursor { log: *log, offset: 0 },
                    None => return Ok(false),
                }
            }
        };
        loop {
            let part = self.read(cursor, acknowledged, written)?;
            cursor.offset = part.end;
            if let Some(name) = part.name {
                match known.service.take(&name, &part.bytes) {
                    Ok(()) => {}
                    Err(Failure::Away(why)) => return Err(why),
                    Err(Failure::Refused(why)) => self.give_up(&name, &why),
                }
                if let ObjectName::Log { last, .. } = name {
                    self.shared.state().acknowledge(last);
                }
                known.cursor = Some(cursor);
                return Ok(true);
            }
            // Nothing more in this one: the next, if it has begun.
            match starts.iter().find(|start| **start > cursor.log) {
                Some(next) => {
                    cursor = Cursor {
                        log: *next,
                        offset: 0,
                    }
                }
                None => {
                    known.cursor = Some(cursor);
                    return Ok(false);
                }
            }
        }
    }

    /// Frames from a place on that the service does not have and the disk surely has.
    fn read(&self, cursor: Cursor, acknowledged: i64, written: i64) -> Result<Part, String> {
        let path = self.spool.log_path(cursor.log);
        let failed = |error: std::io::Error| format!("cannot read {}: {error}", path.display());
        let mut file = File::open(&path).map_err(failed)?;
        file.seek(SeekFrom::Start(cursor.offset)).map_err(failed)?;
        let mut frames = Frames::new(BufReader::new(file));
        let (mut bytes, mut covers, mut end) = (Vec::new(), None::<(Head, Head)>, 0);
        // A torn end is what is being written at this moment.
        while let Some(Ok(frame)) = frames.next() {
            if frame.head.last > written {
                break;
            }
            // In one part only what the service will take as one.
            if covers.is_some_and(|(_, last)| !log::follows(last.last, last.last_seen, &frame.head)) {
                break;
            }
            end = frames.whole();
            if frame.head.last <= acknowledged {
                continue;
            }
            let packed = frame::write(&frame.head, &frame.payload).map_err(|error| error.to_string())?;
            bytes.extend(packed);
            covers = Some((covers.map_or(frame.head, |(first, _)| first), frame.head));
            if bytes.len() >= PART {
                break;
            }
        }
        let name = covers.map(|(first, last)| ObjectName::Log {
            previous: first.previous,
            last: last.last,
            first_seen: first.first_seen,
            last_seen: last.last_seen,
        });
        Ok(Part {
            bytes,
            name,
            end: cursor.offset + end,
        })
    }
}

fn why(failure: Failure) -> String {
    match failure {
        Failure::Refused(why) | Failure::Away(why) => why,
    }
}

#[cfg(test)]
#[path = "ship_tests.rs"]
mod tests;
