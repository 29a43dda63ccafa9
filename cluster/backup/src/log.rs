//! Logs: every change after a revision, in order.

use std::io::Read;

use crate::{
    BackupError, Change, Lease,
    codec::{Reader, put_bytes, put_number, put_signed},
    frame::{self, FULL, Frames, Head, Kind},
};

const PUT: u8 = 1;
const DELETE: u8 = 2;
const LEASE: u8 = 3;

/// Collects changes into the next frame of a log.
pub struct LogWriter {
    /// The last revision of the previous frame.
    previous: i64,
    payload: Vec<u8>,
    count: u32,
    first_seen: i64,
    last_seen: i64,
    last: i64,
    /// Whether the frame has a change.
    begun: bool,
}

impl LogWriter {
    /// A log whose next change follows this revision; all its changes are seen at or after `seen`,
    /// milliseconds since 1970.
    pub fn after(revision: i64, seen: i64) -> Self {
        Self {
            previous: revision,
            payload: Vec::new(),
            count: 0,
            first_seen: seen,
            last_seen: seen,
            last: revision,
            begun: false,
        }
    }

    /// The last revision that was added.
    pub fn last(&self) -> i64 {
        self.last
    }

    /// The time of the last change: the next cannot be earlier, whatever the clock says.
    pub fn last_seen(&self) -> i64 {
        self.last_seen
    }

    /// Later changes are seen at or after this time, milliseconds since 1970: a base was made then, and
    /// changes after it are distinguished from its content by their time.
    pub fn not_before(&mut self, seen: i64) {
        self.last_seen = self.last_seen.max(seen);
        if !self.begun {
            self.first_seen = self.last_seen;
        }
    }

    /// Whether no changes were added since the last frame.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether the pending changes fill a frame.
    pub fn is_full(&self) -> bool {
        self.payload.len() >= FULL
    }

    /// Adds a lease.
    pub fn lease(&mut self, lease: Lease) {
        self.payload.push(LEASE);
        put_signed(&mut self.payload, lease.id);
        put_signed(&mut self.payload, lease.ttl);
        self.count += 1;
    }

    /// Adds a change.
    ///
    /// # Errors
    /// When its revision or time is before that of the previous change.
    pub fn add(&mut self, change: &Change) -> Result<(), BackupError> {
        if change.revision < self.last || change.revision <= self.previous || change.seen < self.last_seen {
            return Err(BackupError::Order(change.revision));
        }
        if !self.begun {
            // Not at the start of the frame: leases may come first.
            self.begun = true;
            self.first_seen = change.seen;
            self.last_seen = change.seen;
        }
        let put = change.now.as_ref();
        self.payload.push(if put.is_some() { PUT } else { DELETE });
        put_number(&mut self.payload, (change.revision - self.last).cast_unsigned());
        put_number(&mut self.payload, (change.seen - self.last_seen).cast_unsigned());
        put_bytes(&mut self.payload, &change.key);
        if let Some((value, lease)) = put {
            put_signed(&mut self.payload, *lease);
            put_bytes(&mut self.payload, value);
        }
        self.count += 1;
        self.last = change.revision;
        self.last_seen = change.seen;
        Ok(())
    }

    /// Closes the frame: its head, and its bytes. All changes of a transaction must be in it: the next frame
    /// starts with a later revision.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn flush(&mut self) -> Result<(Head, Vec<u8>), BackupError> {
        let head = Head {
            kind: Kind::Log,
            previous: self.previous,
            last: self.last,
            first_seen: self.first_seen,
            last_seen: self.last_seen,
            count: self.count,
        };
        let bytes = frame::write(&head, &self.payload)?;
        self.payload.clear();
        self.count = 0;
        self.begun = false;
        self.first_seen = self.last_seen;
        self.previous = self.last;
        Ok((head, bytes))
    }
}

/// An item of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A change.
    Change(Change),
    /// A lease.
    Lease(Lease),
}

/// Reads the changes of one frame.
///
/// # Errors
/// When it is not a frame of a log, or does not match its head.
pub fn items(
    frame: &frame::Frame,
    mut each: impl FnMut(Item) -> Result<(), BackupError>,
) -> Result<(), BackupError> {
    let head = frame.head;
    let wrong = |why| BackupError::Damaged { whole: frame.at, why };
    if head.kind != Kind::Log {
        return Err(wrong("a block of a base in a log"));
    }
    let mut reader = Reader::new(&frame.payload, frame.at);
    let (mut revision, mut seen) = (head.previous, head.first_seen);
    for _ in 0..head.count {
        let tag = reader.byte()?;
        if tag == LEASE {
            each(Item::Lease(Lease {
                id: reader.signed()?,
                ttl: reader.signed()?,
            }))?;
            continue;
        }
        let (step, later) = (reader.signed()?, reader.signed()?);
        revision = revision.checked_add(step).ok_or(BackupError::Order(revision))?;
        seen = seen.checked_add(later).ok_or(BackupError::Order(revision))?;
        if step < 0 || later < 0 || revision <= head.previous || revision > head.last || seen > head.last_seen
        {
            return Err(BackupError::Order(revision));
        }
        let key = reader.bytes()?;
        let now = match tag {
            PUT => {
                let lease = reader.signed()?;
                Some((reader.bytes()?, lease))
            }
            DELETE => None,
            _ => return Err(wrong("a change of an unknown kind")),
        };
        each(Item::Change(Change {
            revision,
            seen,
            key,
            now,
        }))?;
    }
    if reader.is_empty() {
        Ok(())
    } else {
        Err(wrong("a block holds more than it says"))
    }
}

/// The range covered by a file of a log, up to its last whole frame.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Extent {
    /// Bytes up to the end of the last whole frame.
    pub bytes: u64,
    /// The revision that it continues, its last one, and the times of its first and last change. `None`: no
    /// whole frame.
    pub covers: Option<(i64, i64, i64, i64)>,
}

/// Whether a frame continues data that ends with this revision, seen at this time, in the same file.
pub fn follows(last: i64, last_seen: i64, head: &Head) -> bool {
    head.previous == last && head.first_seen >= last_seen
}

/// The whole part of a file: up to a torn or damaged frame, or one that does not continue the previous one.
pub fn extent(source: impl Read) -> Extent {
    let mut extent = Extent::default();
    let mut frames = Frames::new(source);
    while let Some(Ok(frame)) = frames.next() {
        let head = frame.head;
        match extent.covers {
            _ if head.kind != Kind::Log => break,
            None => extent.covers = Some((head.previous, head.last, head.first_seen, head.last_seen)),
            Some((previous, last, first_seen, last_seen)) => {
                if !follows(last, last_seen, &head) {
                    break;
                }
                extent.covers = Some((previous, head.last, first_seen, head.last_seen));
            }
        }
        extent.bytes = frames.whole();
    }
    extent
}

/// Reads a whole part of a log: every frame of it, and every change in them.
///
/// # Errors
/// Its first problem, if any: then the whole part must be rejected.
pub fn check(source: impl Read) -> Result<Extent, BackupError> {
    let mut extent = Extent::default();
    let mut frames = Frames::new(source);
    while let Some(frame) = frames.next() {
        let frame = frame?;
        items(&frame, |_| Ok(()))?;
        let head = frame.head;
        extent.covers = match extent.covers {
            None => Some((head.previous, head.last, head.first_seen, head.last_seen)),
            Some((_, last, ..)) if head.previous != last => {
                return Err(BackupError::Gap {
                    from: last,
                    to: head.previous,
                });
            }
            Some((_, last, _, last_seen)) if !follows(last, last_seen, &head) => {
                return Err(BackupError::Order(head.last));
            }
            Some((previous, _, first_seen, _)) => Some((previous, head.last, first_seen, head.last_seen)),
        };
        extent.bytes = frames.whole();
    }
    Ok(extent)
}

/// Merges consecutive parts of a log into one with large frames: small frames compress badly.
///
/// # Errors
/// When a part is damaged or does not continue the previous one.
pub fn merge<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<u8>, BackupError> {
    let mut out = Vec::new();
    let mut writer: Option<LogWriter> = None;
    for part in parts {
        for frame in Frames::new(part) {
            let frame = frame?;
            let head = frame.head;
            let writer = writer.get_or_insert_with(|| LogWriter::after(head.previous, head.first_seen));
            if head.previous != writer.last() {
                return Err(BackupError::Gap {
                    from: writer.last(),
                    to: head.previous,
                });
            }
            items(&frame, |item| match item {
                Item::Lease(lease) => {
                    writer.lease(lease);
                    Ok(())
                }
                Item::Change(change) => writer.add(&change),
            })?;
            // A frame ends with a whole transaction, so a frame may end here.
            if writer.is_full() {
                out.extend(writer.flush()?.1);
            }
        }
    }
    if let Some(mut writer) = writer.filter(|writer| !writer.is_empty()) {
        out.extend(writer.flush()?.1);
    }
    Ok(out)
}
