//! Frames: the units of base and log files.
//!
//! | bytes | what |
//! |---|---|
//! | 4 | `LFB1` |
//! | 4 | [`Kind`] as a little-endian number (as all numbers here) |
//! | 8 | the revision that it continues |
//! | 8 | its last revision |
//! | 8 + 8 | the times of its first and last change, milliseconds since 1970 |
//! | 4 | number of items |
//! | 4 + 4 | length of the payload, and of the payload as compressed (zstd) |
//! | 16 | the first half of SHA-256 over all that and the compressed payload |
//! | … | the compressed payload |

use std::io::Read;

use sha2::{Digest as _, Sha256};

use crate::BackupError;

const MAGIC: [u8; 4] = *b"LFB1";
const HEAD: usize = 52;
const SUM: usize = 16;
/// The size limit of a payload. etcd's limit for requests is 1.5 MiB, and a frame is closed as soon as it
/// exceeds [`FULL`].
const LARGEST: u32 = 64 * 1024 * 1024;
/// A payload of this size becomes a frame: small enough to hold several in memory, large enough to compress.
pub const FULL: usize = 256 * 1024;
/// Fast; the writer shares a machine with etcd.
const LEVEL: i32 = 1;

/// The content of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Keys of a base, in order.
    Base,
    /// Leases of a base, and its totals: the last frame.
    End,
    /// Changes.
    Log,
}

impl Kind {
    fn number(self) -> u32 {
        match self {
            Self::Base => 1,
            Self::End => 2,
            Self::Log => 3,
        }
    }

    fn of(number: u32) -> Option<Self> {
        [Self::Base, Self::End, Self::Log]
            .into_iter()
            .find(|kind| kind.number() == number)
    }
}

/// The header of a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The kind of content.
    pub kind: Kind,
    /// The revision that it continues: no changes are missing between that one and its first.
    pub previous: i64,
    /// Its last revision.
    pub last: i64,
    /// The time of its first change, milliseconds since 1970.
    pub first_seen: i64,
    /// The time of its last change.
    pub last_seen: i64,
    /// The number of items.
    pub count: u32,
}

/// A frame that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Its header.
    pub head: Head,
    /// The decompressed payload.
    pub payload: Vec<u8>,
    /// Its position in its file.
    pub at: u64,
}

/// A frame's bytes.
///
/// # Errors
/// When the payload is larger than any frame.
pub fn write(head: &Head, payload: &[u8]) -> Result<Vec<u8>, BackupError> {
    let length = u32::try_from(payload.len())
        .ok()
        .filter(|length| *length <= LARGEST)
        .ok_or_else(|| BackupError::Medium("a block is too large".to_owned()))?;
    let packed = zstd::bulk::compress(payload, LEVEL)?;
    let packed_length =
        u32::try_from(packed.len()).map_err(|_| BackupError::Medium("a block is too large".to_owned()))?;
    let mut out = Vec::with_capacity(HEAD + SUM + packed.len());
    out.extend(MAGIC);
    out.extend(head.kind.number().to_le_bytes());
    for number in [head.previous, head.last, head.first_seen, head.last_seen] {
        out.extend(number.to_le_bytes());
    }
    for number in [head.count, length, packed_length] {
        out.extend(number.to_le_bytes());
    }
    let sum = sum(&out, &packed);
    out.extend(sum);
    out.extend(packed);
    Ok(out)
}

fn sum(head: &[u8], packed: &[u8]) -> [u8; SUM] {
    let mut digest = Sha256::new();
    digest.update(head);
    digest.update(packed);
    let mut sum = [0; SUM];
    sum.copy_from_slice(&digest.finalize()[..SUM]);
    sum
}

/// Reads frames in order. Ends after an error.
pub struct Frames<R> {
    source: R,
    whole: u64,
    ended: bool,
}

impl<R: Read> Frames<R> {
    /// From the start of a file.
    pub fn new(source: R) -> Self {
        Self {
            source,
            whole: 0,
            ended: false,
        }
    }

    /// Bytes up to the end of the last whole frame.
    pub fn whole(&self) -> u64 {
        self.whole
    }

    fn damaged(&self, why: &'static str) -> BackupError {
        BackupError::Damaged {
            whole: self.whole,
            why,
        }
    }

    /// Fills the buffer; returns the number of bytes read.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, BackupError> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.source.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(filled)
    }

    fn read(&mut self) -> Result<Option<Frame>, BackupError> {
        let mut head = [0; HEAD + SUM];
        match self.fill(&mut head)? {
            0 => return Ok(None),
            full if full == head.len() => {}
            _ => return Err(BackupError::Torn { whole: self.whole }),
        }
        if head[..4] != MAGIC {
            return Err(self.damaged("there is no block"));
        }
        let small = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let large = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&head[at..at + 8]);
            i64::from_le_bytes(bytes)
        };
        let kind = Kind::of(small(4)).ok_or_else(|| self.damaged("a block of an unknown kind"))?;
        let (count, length, packed_length) = (small(40), small(44), small(48));
        if length > LARGEST || packed_length > LARGEST + LARGEST / 64 {
            return Err(self.damaged("a block of an impossible size"));
        }
        // Grows with the data that is there, so that a wrong length costs nothing.
        let mut packed = Vec::new();
        (&mut self.source)
            .take(u64::from(packed_length))
            .read_to_end(&mut packed)?;
        if packed.len() < packed_length as usize {
            return Err(BackupError::Torn { whole: self.whole });
        }
        if sum(&head[..HEAD], &packed) != head[HEAD..] {
            return Err(self.damaged("a wrong checksum"));
        }
        let payload = zstd::bulk::decompress(&packed, length as usize)
            .map_err(|_| self.damaged("a block that cannot be unpacked"))?;
        if payload.len() != length as usize {
            return Err(self.damaged("a block of another size than it says"));
        }
        let head = Head {
            kind,
            previous: large(8),
            last: large(16),
            first_seen: large(24),
            last_seen: large(32),
            count,
        };
        let at = self.whole;
        self.whole += (HEAD + SUM + packed.len()) as u64;
        Ok(Some(Frame { head, payload, at }))
    }
}

impl<R: Read> Iterator for Frames<R> {
    type Item = Result<Frame, BackupError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let next = self.read().transpose();
        self.ended = !matches!(next, Some(Ok(_)));
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(last: i64) -> Head {
        Head {
            kind: Kind::Log,
            previous: last - 1,
            last,
            first_seen: 5,
            last_seen: 6,
            count: 1,
        }
    }

    #[test]
    fn a_frame_comes_back() {
        let bytes = write(&head(9), b"payload").unwrap();
        let frames: Vec<_> = Frames::new(bytes.as_slice()).collect();
        let frame = frames[0].clone().unwrap();
        assert_eq!((frame.head, frame.payload.as_slice()), (head(9), &b"payload"[..]));
        assert_eq!(frames.len(), 1);
    }

    #[test]
    fn wherever_a_file_is_cut_the_whole_frames_before_are_found() {
        let first = write(&head(1), b"one").unwrap();
        let mut bytes = first.clone();
        bytes.extend(write(&head(2), b"two").unwrap());
        for length in first.len() + 1..bytes.len() {
            let mut frames = Frames::new(&bytes[..length]);
            assert!(frames.next().unwrap().is_ok());
            let whole = first.len() as u64;
            assert_eq!(frames.next(), Some(Err(BackupError::Torn { whole })));
            assert_eq!(frames.next(), None);
            assert_eq!(frames.whole(), whole);
        }
    }

    #[test]
    fn any_changed_bit_is_noticed() {
        let bytes = write(&head(1), b"some payload that is long enough").unwrap();
        for index in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[index] ^= 4;
            assert!(
                Frames::new(damaged.as_slice()).next().unwrap().is_err(),
                "{index}"
            );
        }
    }
}
