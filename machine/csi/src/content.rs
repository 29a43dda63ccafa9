//! The content of a device: our filesystem, nothing, or other data.
//!
//! Always true: only a device whose first and last MiB are all zeros counts as empty and is formatted. A
//! formatting program that is interrupted leaves structures that cannot be told from data. So a mark is
//! written before formatting starts and removed when it has ended, before the filesystem can be mounted: a
//! device with the mark holds no data.

use std::{fs::File, io, os::unix::fs::FileExt as _};

/// Bytes that are read at either end.
const LOOK: usize = 1 << 20;
/// Distance of the mark from the end: outside the range that formatting wipes, inside the range that a new
/// filesystem does not use.
const MARK_FROM_END: usize = LOOK / 2;
/// Its length.
const MARK: usize = 512;
/// The superblock of ext4, and the offsets of its fields.
const SUPERBLOCK: usize = 1024;
const BLOCKS: usize = SUPERBLOCK + 4;
const BLOCK_SIZE: usize = SUPERBLOCK + 24;
const MAGIC: usize = SUPERBLOCK + 56;
const INCOMPATIBLE: usize = SUPERBLOCK + 96;
const BLOCKS_HIGH: usize = SUPERBLOCK + 336;
/// The largest block size, as doublings of a KiB.
const LARGEST_BLOCK: u32 = 6;
/// The flag for 64-bit block numbers.
const WIDE: u32 = 0x80;

/// The content of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    /// Nothing.
    Empty,
    /// Formatting was started, and the filesystem has not been mounted since.
    Unfinished,
    /// An ext4 filesystem of this number of bytes.
    Filesystem { bytes: u64 },
    /// Something else.
    Other,
}

/// Reads the content of a device of this size. `name` is the name in the mark.
pub(crate) fn read(device: &File, bytes: u64, name: &str) -> io::Result<Content> {
    let end = last(bytes)?;
    let (mut first, mut last) = (vec![0; LOOK], vec![0; LOOK]);
    device.read_exact_at(&mut first, 0)?;
    device.read_exact_at(&mut last, end)?;
    Ok(of(&first, &last, name))
}

/// Writes the mark durably.
pub(crate) fn mark(device: &File, bytes: u64, name: &str) -> io::Result<()> {
    device.write_all_at(&sector(name), mark_at(bytes)?)?;
    device.sync_all()
}

/// Removes the mark, if present.
pub(crate) fn unmark(device: &File, bytes: u64, name: &str) -> io::Result<()> {
    let at = mark_at(bytes)?;
    let mut found = [0; MARK];
    device.read_exact_at(&mut found, at)?;
    // Otherwise the filesystem has written something in its place.
    if found == sector(name) {
        device.write_all_at(&[0; MARK], at)?;
    }
    device.sync_all()
}

/// The offset of the last part.
fn last(bytes: u64) -> io::Result<u64> {
    let small = || io::Error::other(format!("a device of {bytes} bytes is too small for a filesystem"));
    let least = 2 * LOOK as u64;
    bytes
        .checked_sub(LOOK as u64)
        .filter(|_| bytes >= least)
        .ok_or_else(small)
}

fn mark_at(bytes: u64) -> io::Result<u64> {
    Ok(last(bytes)? + (LOOK - MARK_FROM_END) as u64)
}

fn sector(name: &str) -> [u8; MARK] {
    let mut sector = [0; MARK];
    let text = format!("landfall: formatting of {name} has begun\n");
    for (place, byte) in sector.iter_mut().zip(text.bytes()) {
        *place = byte;
    }
    sector
}

/// The content, derived from the first and the last MiB.
fn of(first: &[u8], last: &[u8], name: &str) -> Content {
    let marked = last.get(LOOK - MARK_FROM_END..LOOK - MARK_FROM_END + MARK);
    if marked == Some(&sector(name)[..]) {
        return Content::Unfinished;
    }
    if let Some(bytes) = filesystem(first) {
        return Content::Filesystem { bytes };
    }
    let zero = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0);
    if zero(first) && zero(last) {
        Content::Empty
    } else {
        Content::Other
    }
}

/// The size of the filesystem, if it is one.
fn filesystem(first: &[u8]) -> Option<u64> {
    let number = |at: usize| {
        let bytes = first.get(at..at + 4)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    };
    if first.get(MAGIC..MAGIC + 2)? != [0x53, 0xEF] {
        return None;
    }
    let high = if number(INCOMPATIBLE)? & WIDE == 0 {
        0
    } else {
        number(BLOCKS_HIGH)?
    };
    let blocks = (u64::from(high) << 32) | u64::from(number(BLOCKS)?);
    let size = number(BLOCK_SIZE).filter(|size| *size <= LARGEST_BLOCK)?;
    blocks.checked_mul(1024 << size)
}

#[cfg(test)]
mod tests {
    use std::io::{Seek as _, Write as _};

    use super::*;

    const BYTES: u64 = 16 << 20;

    /// The first MiB of a filesystem of this number of 4 KiB blocks.
    fn superblock(blocks: u64) -> Vec<u8> {
        let mut first = vec![0; LOOK];
        let mut put = |at: usize, bytes: &[u8]| first[at..at + bytes.len()].copy_from_slice(bytes);
        put(BLOCKS, &blocks.to_le_bytes()[..4]);
        put(BLOCKS_HIGH, &blocks.to_le_bytes()[4..]);
        put(BLOCK_SIZE, &2_u32.to_le_bytes());
        put(INCOMPATIBLE, &(WIDE | 0x2).to_le_bytes());
        put(MAGIC, &[0x53, 0xEF]);
        first
    }

    #[test]
    fn only_zeros_are_nothing() {
        let zeros = vec![0; LOOK];
        assert_eq!(of(&zeros, &zeros, "v"), Content::Empty);
        for at in [0, 510, 4096, LOOK - 1] {
            let mut data = zeros.clone();
            data[at] = 1;
            assert_eq!(of(&data, &zeros, "v"), Content::Other, "{at}");
            assert_eq!(of(&zeros, &data, "v"), Content::Other, "{at}");
        }
    }

    #[test]
    fn a_filesystem_tells_its_size() {
        let zeros = vec![0; LOOK];
        for blocks in [1 << 18, 5 << 32] {
            let bytes = blocks * 4096;
            assert_eq!(
                of(&superblock(blocks), &zeros, "v"),
                Content::Filesystem { bytes }
            );
        }
        // Without the 64-bit flag, the bytes of the upper half mean something else.
        let mut narrow = superblock((5 << 32) | 7);
        narrow[INCOMPATIBLE] = 0x2;
        assert_eq!(of(&narrow, &zeros, "v"), Content::Filesystem { bytes: 7 * 4096 });
        // A size that no filesystem has.
        let mut absurd = superblock(u64::MAX);
        absurd[BLOCK_SIZE] = 63;
        assert_eq!(of(&absurd, &zeros, "v"), Content::Other);
    }

    #[test]
    fn a_mark_is_of_one_volume_and_goes_before_all_else() {
        let mut file = tempfile::tempfile().unwrap();
        file.set_len(BYTES).unwrap();
        mark(&file, BYTES, "v").unwrap();
        file.rewind().unwrap();
        file.write_all(&superblock(1 << 12)).unwrap();
        assert_eq!(read(&file, BYTES, "v").unwrap(), Content::Unfinished);
        let bytes = BYTES;
        assert_eq!(
            read(&file, BYTES, "other").unwrap(),
            Content::Filesystem { bytes }
        );
        unmark(&file, BYTES, "v").unwrap();
        assert_eq!(read(&file, BYTES, "v").unwrap(), Content::Filesystem { bytes });
    }

    #[test]
    fn what_took_the_place_of_the_mark_stays() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(BYTES).unwrap();
        mark(&file, BYTES, "v").unwrap();
        let at = mark_at(BYTES).unwrap();
        file.write_all_at(b"data", at).unwrap();
        unmark(&file, BYTES, "v").unwrap();
        let mut found = [0; 4];
        file.read_exact_at(&mut found, at).unwrap();
        assert_eq!(&found, b"data");
        assert!(read(&file, 1 << 20, "v").is_err(), "too small");
    }
}
