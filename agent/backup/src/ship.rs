//! Brings what is on the machine's disk to the service.

use std::{
    fs::File,
    io::{BufReader, Seek as _, SeekFrom},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use agent_ground::pause;
use cluster_backup::{
    ObjectName, chain,
    frame::{self, Frames, Head},
};

use crate::{
    service::{OWN, Service},
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

pub(crate) struct Shipper {
    pub(crate) root: PathBuf,
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
struct Known {
    service: Service,
    bases: Vec<ObjectName>,
    cursor: Option<Cursor>,
}

impl Shipper {
    /// Ships for ever.
    pub(crate) fn run(&self) {
        let mut retry = FIRST_RETRY;
        let mut known = None;
        loop {
            self.shared.wait_for_work(IDLE, |state| {
                state.leads
                    && (state.written > state.acknowledged
                        || known.as_ref().is_none_or(|known: &Known| {
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
    fn learn(&self) -> Result<Known, String> {
        let service = Service::of_machine(&self.root)?;
        let names = service.list(OWN)?;
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
            bases,
            cursor: None,
        })
    }

    fn round(&self, known: &mut Option<Known>) -> Result<(), String> {
        let known = match known {
            Some(known) => known,
            none => none.insert(self.learn()?),
        };
        while self.part(known)? {}
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
                known.service.put_file(&base, &path)?;
            }
            known.bases.push(base);
            self.shared.state().base_shipped = base.until();
        }
        Ok(())
    }

    /// Ships the next part of the log; whether there was one.
    fn part(&self, known: &mut Known) -> Result<bool, String> {
        let (acknowledged, written) = {
            let state = self.shared.state();
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
            let (bytes, name, offset) = self.read(cursor, acknowledged, written)?;
            cursor.offset = offset;
            if let Some(name) = name {
                known.service.put(&name, &bytes)?;
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

    /// Frames from a place on that the service does not have and the disk surely has; where they end.
    fn read(
        &self,
        cursor: Cursor,
        acknowledged: i64,
        written: i64,
    ) -> Result<(Vec<u8>, Option<ObjectName>, u64), String> {
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
            if covers.is_some_and(|(_, last)| last.last != frame.head.previous) {
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
        Ok((bytes, name, cursor.offset + end))
    }
}
