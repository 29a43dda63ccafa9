//! Ships recorded data from the machine's disk to the service.
//!
//! Shipping never blocks: an object that the service will never accept, or that can no longer be read, is
//! skipped. The skip is reported, and a new base is started at once, so that the service misses only the
//! seconds up to it.

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

/// Changes within this time are shipped together: a balance of the service's lag and the cost.
const ROUND: Duration = Duration::from_millis(500);
const IDLE: Duration = Duration::from_secs(30);
const FIRST_RETRY: Duration = Duration::from_millis(500);
const LONGEST_RETRY: Duration = Duration::from_secs(10);
/// The approximate size limit of a part of a log.
const PART: usize = 1024 * 1024;

pub(crate) struct Shipper<C> {
    /// Connects to the service.
    pub(crate) connect: C,
    pub(crate) spool: Spool,
    pub(crate) shared: Arc<Shared>,
}

/// The read position.
#[derive(Debug, Clone, Copy)]
struct Cursor {
    log: i64,
    offset: u64,
}

/// The objects that the service is known to have.
pub(crate) struct Known<K> {
    service: K,
    /// The history that this describes.
    history: u64,
    bases: Vec<ObjectName>,
    cursor: Option<Cursor>,
}

/// A part of a log, ready to be shipped.
struct Part {
    bytes: Vec<u8>,
    /// `None`: this log has no more frames.
    name: Option<ObjectName>,
    /// The start of the next part.
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
                // Another leader ships other objects meanwhile.
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

    /// Requests the list of the service's objects.
    fn learn(&self) -> Result<Known<K>, String> {
        let service = (self.connect)()?;
        let names = service.has().map_err(why)?;
        let has = chain::select(&names, None).map_or(0, |chain| chain.last);
        let mut state = self.shared.state();
        let bases: Vec<ObjectName> = names
            .into_iter()
            .filter(|name| matches!(name, ObjectName::Base { .. }))
            .collect();
        // A revision above all that was written here belongs to another history.
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

    /// Ships all pending data.
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
        // Revisions that no log covers are in the newest base, if it is as new.
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
        // After a time without the service there may be several bases: the logs between them lead from one to
        // the next.
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

    /// Ships the next part of the log; returns whether there was one.
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
                // The log in which the first unacknowledged change lies.
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
            // The end of this log: continue with the next, if it exists.
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

    /// Frames from a position on that the service does not have and that are durable on the disk.
    fn read(&self, cursor: Cursor, acknowledged: i64, written: i64) -> Result<Part, String> {
        let path = self.spool.log_path(cursor.log);
        let failed = |error: std::io::Error| format!("cannot read {}: {error}", path.display());
        let mut file = File::open(&path).map_err(failed)?;
        file.seek(SeekFrom::Start(cursor.offset)).map_err(failed)?;
        let mut frames = Frames::new(BufReader::new(file));
        let (mut bytes, mut covers, mut end) = (Vec::new(), None::<(Head, Head)>, 0);
        // A torn end is the frame that is being written at this moment.
        while let Some(Ok(frame)) = frames.next() {
            if frame.head.last > written {
                break;
            }
            // A part holds only frames that the service accepts as one part.
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
