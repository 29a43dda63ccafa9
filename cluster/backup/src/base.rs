//! Bases: every key at one revision.

use std::io::Read;

use crate::{
    BackupError, Entry, Lease, Tally, Totals,
    codec::{Reader, put_bytes, put_number, put_signed},
    frame::{self, FULL, Frames, Head, Kind},
};

/// Writes a base: entries in key order, then the end.
pub struct BaseWriter {
    revision: i64,
    at: i64,
    payload: Vec<u8>,
    count: u32,
    last_key: Option<Vec<u8>>,
    tally: Tally,
}

impl BaseWriter {
    /// A base at this revision. `at`: the time when the revision was the newest, milliseconds since 1970; all
    /// changes up to the revision were seen by then.
    pub fn new(revision: i64, at: i64) -> Self {
        Self {
            revision,
            at,
            payload: Vec::new(),
            count: 0,
            last_key: None,
            tally: Tally::default(),
        }
    }

    fn head(&self, kind: Kind, count: u32) -> Head {
        Head {
            kind,
            previous: self.revision,
            last: self.revision,
            first_seen: self.at,
            last_seen: self.at,
            count,
        }
    }

    /// Adds an entry; returns bytes to write when a frame is full.
    ///
    /// # Errors
    /// When its key is not after the previous one.
    pub fn add(&mut self, entry: &Entry) -> Result<Option<Vec<u8>>, BackupError> {
        if self.last_key.as_ref().is_some_and(|last| *last >= entry.key) {
            return Err(BackupError::Order(entry.revision));
        }
        self.last_key = Some(entry.key.clone());
        self.tally.add(entry);
        self.count += 1;
        put_bytes(&mut self.payload, &entry.key);
        put_signed(&mut self.payload, entry.revision);
        put_signed(&mut self.payload, entry.lease);
        put_bytes(&mut self.payload, &entry.value);
        if self.payload.len() < FULL {
            return Ok(None);
        }
        self.flush().map(Some)
    }

    fn flush(&mut self) -> Result<Vec<u8>, BackupError> {
        let bytes = frame::write(&self.head(Kind::Base, self.count), &self.payload)?;
        self.payload.clear();
        self.count = 0;
        Ok(bytes)
    }

    /// The last bytes, and the totals of the base.
    ///
    /// # Errors
    /// When a frame cannot be written.
    pub fn finish(mut self, leases: &[Lease]) -> Result<(Vec<u8>, Totals), BackupError> {
        let mut bytes = if self.count > 0 { self.flush()? } else { Vec::new() };
        let head = self.head(Kind::End, u32::try_from(leases.len()).unwrap_or(u32::MAX));
        let totals = self.tally.totals();
        let mut payload = Vec::new();
        put_number(&mut payload, totals.keys);
        put_number(&mut payload, totals.bytes);
        put_bytes(&mut payload, totals.digest.as_bytes());
        for lease in leases {
            put_signed(&mut payload, lease.id);
            put_signed(&mut payload, lease.ttl);
        }
        bytes.extend(frame::write(&head, &payload)?);
        Ok((bytes, totals))
    }
}

/// The end record of a base.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseEnd {
    /// Its revision.
    pub revision: i64,
    /// The time when it was the newest, milliseconds since 1970.
    pub at: i64,
    /// Its totals.
    pub totals: Totals,
    /// Its leases.
    pub leases: Vec<Lease>,
}

/// Reads a whole base, in order. Its end is returned only if everything before it matches.
///
/// # Errors
/// When it is torn, damaged, in a wrong order or unfinished; or an error of `each`.
pub fn read(
    source: impl Read,
    mut each: impl FnMut(Entry) -> Result<(), BackupError>,
) -> Result<BaseEnd, BackupError> {
    let mut last_key: Option<Vec<u8>> = None;
    let mut tally = Tally::default();
    let mut end = None;
    for frame in Frames::new(source) {
        let frame = frame?;
        let mut reader = Reader::new(&frame.payload, frame.at);
        let wrong = |why| BackupError::Damaged { whole: frame.at, why };
        if end.is_some() {
            return Err(wrong("something follows the end"));
        }
        match frame.head.kind {
            Kind::Log => return Err(wrong("a block of a log in a base")),
            Kind::Base => {
                for _ in 0..frame.head.count {
                    let entry = Entry {
                        key: reader.bytes()?,
                        revision: reader.signed()?,
                        lease: reader.signed()?,
                        value: reader.bytes()?,
                    };
                    if last_key.as_ref().is_some_and(|last| *last >= entry.key)
                        || entry.revision > frame.head.last
                    {
                        return Err(BackupError::Order(entry.revision));
                    }
                    last_key = Some(entry.key.clone());
                    tally.add(&entry);
                    each(entry)?;
                }
            }
            Kind::End => {
                let totals = Totals {
                    keys: reader.number()?,
                    bytes: reader.number()?,
                    digest: String::from_utf8_lossy(&reader.bytes()?).into_owned(),
                };
                let mut leases = Vec::new();
                for _ in 0..frame.head.count {
                    leases.push(Lease {
                        id: reader.signed()?,
                        ttl: reader.signed()?,
                    });
                }
                end = Some(BaseEnd {
                    revision: frame.head.last,
                    at: frame.head.last_seen,
                    totals,
                    leases,
                });
            }
        }
    }
    let end = end.ok_or(BackupError::Unfinished)?;
    let found = tally.totals();
    if found != end.totals {
        return Err(BackupError::Miscount {
            found: found.keys,
            said: end.totals.keys,
        });
    }
    Ok(end)
}
