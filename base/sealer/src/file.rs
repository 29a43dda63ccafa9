//! The file of the keys: the 32 bytes of the first one, or a list.
//!
//! ```text
//! landfall-sealing-keys 1
//! ID MADE UNUSED KIND KEY
//! ```
//!
//! Oldest first. `MADE` and `UNUSED` are times, or `-`; `KIND` is `first` or `named`; `ID` and `KEY` are hexadecimal.

use std::{
    io::{ErrorKind, Read as _},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    sync::Arc,
};

use aws_lc_rs::rand;
use jiff::Timestamp;
use zeroize::Zeroizing;

use crate::{KEY_LEN, Key, SealError, Secret, first};

/// The first line of a list.
const HEAD: &str = "landfall-sealing-keys 1";
/// No list is longer, in bytes.
const LONGEST: u64 = 64 * 1024;

fn failed<'a>(act: &'static str, path: &'a Path) -> impl Fn(String) -> SealError + 'a {
    move |why| SealError::KeyFile {
        act,
        path: path.to_owned(),
        why,
    }
}

/// The keys in a file; `None` where there is no file.
pub(crate) fn read(path: &Path) -> Result<Option<Vec<Key>>, SealError> {
    let failed = failed("read", path);
    let mut file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error.to_string())),
    };
    let metadata = file.metadata().map_err(|error| failed(error.to_string()))?;
    if metadata.permissions().mode() & 0o077 != 0 {
        return Err(failed(
            "others than its owner may use it; set its mode to 0600".to_owned(),
        ));
    }
    if metadata.len() == KEY_LEN as u64 {
        let mut key = Zeroizing::new([0_u8; KEY_LEN]);
        file.read_exact(key.as_mut())
            .map_err(|error| failed(error.to_string()))?;
        return Ok(Some(vec![first(&key)]));
    }
    let mut text = Zeroizing::new(String::new());
    let read = file.take(LONGEST).read_to_string(&mut text);
    match read.ok().and_then(|_| parse(&text)) {
        Some(ring) => Ok(Some(ring)),
        None => Err(failed(format!(
            "it is neither a key of {KEY_LEN} bytes nor a list of keys, and has {} bytes; put the right one back from a backup",
            metadata.len()
        ))),
    }
}

fn parse(text: &str) -> Option<Vec<Key>> {
    let mut lines = text.lines();
    if lines.next() != Some(HEAD) {
        return None;
    }
    let ring: Vec<Key> = lines.map(key).collect::<Option<_>>()?;
    (!ring.is_empty()).then_some(ring)
}

fn key(line: &str) -> Option<Key> {
    let fields: Vec<&str> = line.split(' ').collect();
    let &[id, made_at, unused_since, kind, secret] = fields.as_slice() else {
        return None;
    };
    let is_named = match kind {
        "named" => true,
        "first" => false,
        _ => return None,
    };
    let mut bytes = Zeroizing::new([0_u8; KEY_LEN]);
    hex::decode_to_slice(secret, &mut bytes[..]).ok()?;
    let secret = Secret::new(&bytes, is_named);
    (hex::encode(secret.id) == id).then_some(())?;
    Some(Key {
        secret: Arc::new(secret),
        made_at: time(made_at)?,
        unused_since: time(unused_since)?,
    })
}

/// A time or none; `None` where it is neither.
fn time(text: &str) -> Option<Option<Timestamp>> {
    match text {
        "-" => Some(None),
        text => text.parse().ok().map(Some),
    }
}

/// Puts a list in the place of what is there, durably.
pub(crate) fn write(path: &Path, ring: &[Key]) -> Result<(), SealError> {
    let mut text = Zeroizing::new(String::with_capacity(HEAD.len() + 1 + ring.len() * 256));
    text.push_str(HEAD);
    text.push('\n');
    let time = |time: Option<Timestamp>| time.map_or_else(|| "-".to_owned(), |time| time.to_string());
    for key in ring {
        let kind = if key.secret.is_named { "named" } else { "first" };
        let secret = Zeroizing::new(hex::encode(&key.secret.bytes[..]));
        for (field, end) in [
            (hex::encode(key.secret.id).as_str(), ' '),
            (time(key.made_at).as_str(), ' '),
            (time(key.unused_since).as_str(), ' '),
            (kind, ' '),
            (secret.as_str(), '\n'),
        ] {
            text.push_str(field);
            text.push(end);
        }
    }
    base_files::write(path, text.as_bytes(), 0o600).map_err(|error| failed("write", path)(error.to_string()))
}

/// Makes the first key. The file is never there half-written, and never overwritten here.
pub(crate) fn create(path: &Path) -> Result<Vec<Key>, SealError> {
    let failed = failed("create", path);
    let mut key = Zeroizing::new([0_u8; KEY_LEN]);
    rand::fill(key.as_mut()).map_err(|_unspecified| failed("no randomness".to_owned()))?;
    match base_files::create_new(path, key.as_ref(), 0o600) {
        Ok(()) => Ok(vec![first(&key)]),
        // Somebody else was first: theirs counts.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            read(path)?.ok_or_else(|| failed("it comes and goes".to_owned()))
        }
        Err(error) => Err(failed(error.to_string())),
    }
}
