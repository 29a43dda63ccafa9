//! The format of a copy: one zstd stream.
//!
//! | part | content |
//! |---|---|
//! | a line of JSON | [`Header`] |
//! | for each record, in order of keys | length of the key (4 bytes), of the value (4), revision (8), all little-endian; key; value |
//!
//! Always true: a truncated copy, or one with bytes after its last record, is refused.

use std::io::{self, BufRead as _, BufReader, Read, Write};

use base_env::Env;
use control_records::{Epoch, StoreRecord, key};
use control_store::{Revision, Store, StoreError, Versioned};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The format that this release writes and reads.
const FORMAT: u32 = 1;
/// Fast; most of the data are sealed bytes as text.
const LEVEL: i32 = 3;
/// No header is longer.
const LONGEST_HEADER: u64 = 4096;
/// The largest key or value: etcd takes 1.5 MiB, and all records are much smaller.
const LARGEST: u32 = 64 * 1024 * 1024;

/// The header of a copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Header {
    /// Format.
    pub v: u32,
    /// Of which store.
    pub id: String,
    /// Its epoch.
    pub epoch: Epoch,
    /// The revision of the copy.
    pub revision: Revision,
    /// When it was made.
    pub at: Timestamp,
    /// How many records follow.
    pub records: u64,
}

/// A store at one revision. Values are shared with the store, so it takes memory for the keys only.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Identifies the store and its state.
    pub header: Header,
    /// All records, in order of their keys.
    pub records: Vec<(String, Versioned)>,
}

impl Snapshot {
    /// The present store. It must have an identity ([`control_records::epoch::identify`]).
    ///
    /// # Errors
    /// When the store fails.
    pub async fn of(store: &dyn Store, env: &Env) -> Result<Self, StoreError> {
        let (records, revision) = store.list("/").await?;
        let corrupt = |why: String| StoreError::Corrupt {
            key: key::STORE.to_owned(),
            why,
        };
        let own = records
            .binary_search_by(|(name, _)| name.as_str().cmp(key::STORE))
            .map_err(|_absent| corrupt("it does not exist".to_owned()))?;
        let own: StoreRecord =
            serde_json::from_slice(&records[own].1.value).map_err(|error| corrupt(error.to_string()))?;
        Ok(Self {
            header: Header {
                v: FORMAT,
                id: own.id,
                epoch: own.epoch,
                revision,
                at: env.clock.now(),
                records: records.len() as u64,
            },
            records,
        })
    }
}

/// Writes a copy.
///
/// # Errors
/// Those of `out`.
pub fn encode(snapshot: &Snapshot, out: impl Write) -> io::Result<()> {
    let mut packed = zstd::Encoder::new(out, LEVEL)?;
    serde_json::to_writer(&mut packed, &snapshot.header)?;
    packed.write_all(b"\n")?;
    let length = |bytes: usize| {
        let length = u32::try_from(bytes).ok().filter(|length| *length <= LARGEST);
        length.ok_or_else(|| io::Error::other("a record is too large for a copy of the store"))
    };
    for (key, found) in &snapshot.records {
        packed.write_all(&length(key.len())?.to_le_bytes())?;
        packed.write_all(&length(found.value.len())?.to_le_bytes())?;
        packed.write_all(&found.revision.0.to_le_bytes())?;
        packed.write_all(key.as_bytes())?;
        packed.write_all(&found.value)?;
    }
    packed.finish()?.flush()
}

/// A copy as it is read, record by record.
pub struct Decoded<R: Read> {
    source: BufReader<zstd::Decoder<'static, BufReader<R>>>,
    left: u64,
}

fn damaged(why: impl std::fmt::Display) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("the copy of the store is damaged: {why}"),
    )
}

/// Begins to read a copy.
///
/// # Errors
/// [`io::ErrorKind::InvalidData`] when it is no copy, or of a newer release; errors of `source`.
pub fn decode<R: Read>(source: R) -> io::Result<(Header, Decoded<R>)> {
    let mut source = BufReader::new(zstd::Decoder::new(source)?);
    let mut line = String::new();
    (&mut source)
        .take(LONGEST_HEADER)
        .read_line(&mut line)
        .map_err(damaged)?;
    let header: Header = serde_json::from_str(&line).map_err(damaged)?;
    if header.v != FORMAT {
        return Err(damaged(format!(
            "its format is {} and this release knows {FORMAT}; use the release that wrote it",
            header.v
        )));
    }
    let left = header.records;
    Ok((header, Decoded { source, left }))
}

impl<R: Read> Decoded<R> {
    fn record(&mut self) -> io::Result<(String, Versioned)> {
        let mut number = || -> io::Result<u32> {
            let mut bytes = [0; 4];
            self.source.read_exact(&mut bytes)?;
            Ok(u32::from_le_bytes(bytes))
        };
        let (key, value) = (number()?, number()?);
        if key.max(value) > LARGEST {
            return Err(damaged("a record of an impossible size"));
        }
        let mut revision = [0; 8];
        self.source.read_exact(&mut revision)?;
        let mut bytes = |length: u32| -> io::Result<Vec<u8>> {
            let mut bytes = vec![0; length as usize];
            self.source.read_exact(&mut bytes)?;
            Ok(bytes)
        };
        let key = String::from_utf8(bytes(key)?).map_err(damaged)?;
        Ok((
            key,
            Versioned {
                revision: Revision(u64::from_le_bytes(revision)),
                value: bytes(value)?.into(),
            },
        ))
    }

    fn end(&mut self) -> io::Result<()> {
        match self.source.read(&mut [0])? {
            0 => Ok(()),
            _ => Err(damaged("there is something behind its end")),
        }
    }
}

impl<R: Read> Iterator for Decoded<R> {
    type Item = io::Result<(String, Versioned)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        let mut found = self.record();
        if self.left == 0 && found.is_ok() {
            found = self.end().and(found);
        }
        if found.is_err() {
            self.left = 0;
        }
        Some(found.map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => damaged("it ends before its end"),
            _ => error,
        }))
    }
}

#[cfg(test)]
mod tests {
    use control_records::epoch::identify;
    use control_store::{Op, Txn};
    use storage_redb::MemoryStore;

    use super::*;

    async fn snapshot() -> Snapshot {
        let (store, env) = (MemoryStore::new(), Env::system());
        identify(&store, || env.ids.short()).await.unwrap();
        for (key, size) in [("/a", 0), ("/b", 10), ("/c/u/desired", 300_000)] {
            let put = Op::Put(key.to_owned(), vec![7; size]);
            store.txn(Txn::default().with(put)).await.unwrap();
        }
        Snapshot::of(&store, &env).await.unwrap()
    }

    fn read(bytes: &[u8]) -> io::Result<(Header, Vec<(String, Versioned)>)> {
        let (header, records) = decode(bytes)?;
        Ok((header, records.collect::<io::Result<_>>()?))
    }

    #[tokio::test]
    async fn a_copy_is_what_the_store_was() {
        let snapshot = snapshot().await;
        let mut copy = Vec::new();
        encode(&snapshot, &mut copy).unwrap();
        assert!(copy.len() < 10_000, "it is packed");
        let (header, records) = read(&copy).unwrap();
        assert_eq!((header, records), (snapshot.header, snapshot.records));
    }

    #[tokio::test]
    async fn a_copy_that_was_cut_short_or_changed_is_refused() {
        let mut snapshot = snapshot().await;
        let mut copy = Vec::new();
        encode(&snapshot, &mut copy).unwrap();
        for length in 0..copy.len() {
            assert!(read(&copy[..length]).is_err(), "{length} of {}", copy.len());
        }
        snapshot.header.records -= 1;
        let mut longer = Vec::new();
        encode(&snapshot, &mut longer).unwrap();
        assert!(read(&longer).is_err(), "one record too many");
        snapshot.header.v += 1;
        let mut newer = Vec::new();
        encode(&snapshot, &mut newer).unwrap();
        assert!(read(&newer).unwrap_err().to_string().contains("use the release"));
    }

    #[tokio::test]
    async fn a_store_that_does_not_know_what_it_is_is_not_copied() {
        assert!(Snapshot::of(&MemoryStore::new(), &Env::system()).await.is_err());
    }
}
