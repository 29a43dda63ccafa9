//! Small durable writes at random places of an existing file, as databases write.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::Path,
    thread,
};

use nix::fcntl::OFlag;

/// The file that is written to.
const FILE: &str = "written";
/// How large it is.
const SIZE: u64 = 256 * 1024 * 1024;
/// How much is written at a time.
const BLOCK: usize = 4096;

/// Direct I/O, without the page cache, needs buffers aligned to a block.
#[repr(align(4096))]
struct Block([u8; BLOCK]);

static CONTENT: Block = Block([0x5a; BLOCK]);

/// Makes the file, written from end to end: the first write of an unwritten block costs the filesystem an
/// additional metadata update.
pub(crate) fn prepare(directory: &Path) -> io::Result<()> {
    let mut file = File::create(directory.join(FILE))?;
    let chunk = vec![0xa5; 1024 * 1024];
    for _ in 0..SIZE / (1024 * 1024) {
        file.write_all(&chunk)?;
    }
    file.sync_all()
}

/// Writes this many blocks concurrently, as long as `goes_on`; each is on the disk before the next one of its
/// sequence begins. Gives the number of writes.
pub(crate) fn write(directory: &Path, in_flight: u32, goes_on: impl Fn() -> bool + Sync) -> io::Result<u64> {
    let file = OpenOptions::new()
        .write(true)
        .custom_flags((OFlag::O_DIRECT | OFlag::O_DSYNC).bits())
        .open(directory.join(FILE))
        .map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("{FILE} in {}: {error}", directory.display()),
            )
        })?;
    let (file, goes_on) = (&file, &goes_on);
    thread::scope(|scope| {
        let writers: Vec<_> = (0..in_flight)
            .map(|writer| scope.spawn(move || one(file, writer, goes_on)))
            .collect();
        let mut written = 0;
        for writer in writers {
            written += writer
                .join()
                .map_err(|_| io::Error::other("a writer panicked"))??;
        }
        Ok(written)
    })
}

/// One of them.
fn one(file: &File, writer: u32, goes_on: &(impl Fn() -> bool + Sync)) -> io::Result<u64> {
    let mut chance = u64::from(writer);
    let mut written = 0;
    while goes_on() {
        file.write_all_at(&CONTENT.0, place(&mut chance))?;
        written += 1;
    }
    Ok(written)
}

/// Where the next block goes: the same places in the same order wherever this runs (splitmix64).
fn place(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let blocks = SIZE / BLOCK as u64;
    (mixed ^ (mixed >> 31)) % blocks * BLOCK as u64
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn blocks_lie_within_the_file_at_their_boundaries_and_all_over_it() {
        let mut state = 1;
        let places: Vec<u64> = (0..10_000).map(|_| place(&mut state)).collect();
        assert!(
            places
                .iter()
                .all(|place| place % 4096 == 0 && place + 4096 <= SIZE)
        );
        let eighths: BTreeSet<u64> = places.iter().map(|place| place * 8 / SIZE).collect();
        assert_eq!(eighths.len(), 8);
        let different: BTreeSet<&u64> = places.iter().collect();
        assert!(different.len() > 9_000, "{}", different.len());
    }

    #[test]
    fn the_same_places_in_the_same_order_each_time() {
        let of = |mut state: u64| -> Vec<u64> { (0..10).map(|_| place(&mut state)).collect() };
        assert_eq!(of(3), of(3));
        assert_ne!(of(3), of(4));
    }

    #[test]
    fn content_lies_where_the_kernel_takes_it_from() {
        assert_eq!(CONTENT.0.as_ptr().addr() % 4096, 0);
    }
}
