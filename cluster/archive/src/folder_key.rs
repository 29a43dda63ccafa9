//! The key of a folder, as it lies there: sealed with one of the stamp's.

use std::io::{self, Read as _};

use base_sealer::Sealer;

use crate::ObjectStore;

/// The name of a folder's key in it.
pub(crate) const KEY: &str = "key";

/// The path of a folder's key. It is what the key is sealed as, too.
pub(crate) fn path(folder: &str) -> String {
    format!("{folder}/{KEY}")
}

/// A folder's key as it lies there; `None`: there is none.
pub(crate) fn read(objects: &dyn ObjectStore, folder: &str) -> io::Result<Option<Vec<u8>>> {
    match objects.get(&path(folder)) {
        Ok(mut file) => {
            let mut sealed = Vec::new();
            file.read_to_end(&mut sealed)?;
            Ok(Some(sealed))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Which of the stamp's keys a folder's key is sealed with, by its id; with `anew`, it is sealed with the one that seals. `None`: there is no
/// key, or it is of another stamp.
pub(crate) fn sealed_with(
    objects: &dyn ObjectStore,
    stamp: &Sealer,
    folder: &str,
    anew: bool,
) -> io::Result<Option<String>> {
    let Some(sealed) = read(objects, folder)? else {
        return Ok(None);
    };
    if stamp.is_current(&sealed) {
        return Ok(stamp.key_of(&sealed));
    }
    // What cannot be unsealed stays as it is, for who has the key.
    let Ok(key) = stamp.unseal(&path(folder), &sealed) else {
        return Ok(None);
    };
    if !anew {
        return Ok(stamp.key_of(&sealed));
    }
    let sealed = stamp.seal(&path(folder), &key).map_err(io::Error::other)?;
    objects.put(&path(folder), &mut |out| out.write_all(&sealed))?;
    Ok(stamp.key_of(&sealed))
}
