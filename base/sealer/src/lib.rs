//! The sealer: secrets at rest, AES-256-GCM under a stamp's key.
//!
//! Always true: what was sealed under one name is not unsealed under another; a key file is whole or not there, only its owner may
//! read it, and it is never overwritten.
//!
//! Called by: whoever writes a secret into the store, an archive or a copy.

use std::{
    io::Read as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey},
    rand,
};
use zeroize::Zeroizing;

/// Bytes of the key.
const KEY_LEN: usize = 32;
/// The first byte of everything sealed: nonce and ciphertext under one key follow.
const FORMAT: u8 = 1;

/// The reason why sealing or unsealing failed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The key file cannot be read or made.
    #[error("cannot {act} the key file {path}: {why}")]
    KeyFile {
        /// `read` or `create`.
        act: &'static str,
        /// The path of the file.
        path: PathBuf,
        /// The reason, and a remedy.
        why: String,
    },
    /// The text is not what was sealed under this name with this key.
    #[error("{name} cannot be unsealed: it is damaged, or was sealed with another key")]
    Unseal {
        /// The name.
        name: String,
    },
    /// The cryptographic module failed.
    #[error("{name} cannot be sealed: the cryptographic module refused")]
    Seal {
        /// The name.
        name: String,
    },
}

/// Seals and unseals with one key. The name under which a secret is sealed is bound to it: what was sealed as one record
/// cannot be passed off as another.
pub struct Sealer {
    key: RandomizedNonceKey,
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealer").finish_non_exhaustive()
    }
}

impl Sealer {
    /// Reads the key from `path`; makes a new one there (mode 0600, durable) if there is no such file.
    ///
    /// # Errors
    /// [`SealError::KeyFile`]: not readable, not 32 bytes, or open to others than its owner.
    pub fn open(path: &Path) -> Result<Self, SealError> {
        match read_key(path)? {
            Some(key) => Ok(Self::from_key(&key)),
            None => create_key(path),
        }
    }

    /// A key from elsewhere (a vault, a test).
    pub fn from_key(key: &[u8; KEY_LEN]) -> Self {
        Self {
            key: RandomizedNonceKey::new(&AES_256_GCM, key).expect("an AES-256 key has 32 bytes"),
        }
    }

    /// Seals `secret` under `name` with a fresh random nonce.
    ///
    /// # Errors
    /// [`SealError::Seal`] when the cryptographic module fails.
    pub fn seal(&self, name: &str, secret: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut text = secret.to_vec();
        let nonce = self
            .key
            .seal_in_place_append_tag(Aad::from(name.as_bytes()), &mut text)
            .map_err(|_unspecified| SealError::Seal {
                name: name.to_owned(),
            })?;
        let mut sealed = Vec::with_capacity(1 + NONCE_LEN + text.len());
        sealed.push(FORMAT);
        sealed.extend_from_slice(nonce.as_ref());
        sealed.append(&mut text);
        Ok(sealed)
    }

    /// Unseals a secret that was sealed under `name`.
    ///
    /// # Errors
    /// [`SealError::Unseal`]: another name, another key, or damaged.
    pub fn unseal(&self, name: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let refused = || SealError::Unseal {
            name: name.to_owned(),
        };
        let (format, rest) = sealed.split_first().ok_or_else(refused)?;
        let (nonce, text) = rest.split_at_checked(NONCE_LEN).ok_or_else(refused)?;
        if *format != FORMAT {
            return Err(refused());
        }
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_unspecified| refused())?;
        let mut text = Zeroizing::new(text.to_vec());
        let length = self
            .key
            .open_in_place(nonce, Aad::from(name.as_bytes()), &mut text)
            .map_err(|_unspecified| refused())?
            .len();
        text.truncate(length);
        Ok(text)
    }
}

fn read_key(path: &Path) -> Result<Option<Zeroizing<[u8; KEY_LEN]>>, SealError> {
    let failed = |why: String| SealError::KeyFile {
        act: "read",
        path: path.to_owned(),
        why,
    };
    let mut file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error.to_string())),
    };
    let metadata = file.metadata().map_err(|error| failed(error.to_string()))?;
    if metadata.permissions().mode() & 0o077 != 0 {
        return Err(failed(
            "others than its owner may use it; set its mode to 0600".to_owned(),
        ));
    }
    if metadata.len() != KEY_LEN as u64 {
        return Err(failed(format!(
            "it has {} bytes instead of {KEY_LEN}; put the right one back from a backup",
            metadata.len()
        )));
    }
    let mut key = Zeroizing::new([0; KEY_LEN]);
    file.read_exact(key.as_mut())
        .map_err(|error| failed(error.to_string()))?;
    Ok(Some(key))
}

/// The file is never there half-written, and never overwritten.
fn create_key(path: &Path) -> Result<Sealer, SealError> {
    let failed = |why: String| SealError::KeyFile {
        act: "create",
        path: path.to_owned(),
        why,
    };
    let mut key = Zeroizing::new([0; KEY_LEN]);
    rand::fill(key.as_mut()).map_err(|_unspecified| failed("no randomness".to_owned()))?;
    match base_files::create_new(path, key.as_ref(), 0o600) {
        Ok(()) => Ok(Sealer::from_key(&key)),
        Err(error) if std::io::Error::kind(&error) == std::io::ErrorKind::AlreadyExists => {
            // Somebody else was first: theirs counts.
            let key = read_key(path)?.ok_or_else(|| failed("it comes and goes".to_owned()))?;
            Ok(Sealer::from_key(&key))
        }
        Err(error) => Err(failed(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sealed_comes_back_under_its_name_only() {
        let sealer = Sealer::from_key(&[7; 32]);
        let sealed = sealer.seal("/pki/a", b"secret").unwrap();
        assert_eq!(sealer.unseal("/pki/a", &sealed).unwrap().as_slice(), b"secret");
        assert!(sealer.unseal("/pki/b", &sealed).is_err());
        assert!(Sealer::from_key(&[8; 32]).unseal("/pki/a", &sealed).is_err());
        assert!(!sealed.windows(6).any(|window| window == b"secret"));
    }

    #[test]
    fn damage_is_noticed_and_never_panics() {
        let sealer = Sealer::from_key(&[7; 32]);
        let sealed = sealer.seal("n", b"").unwrap();
        for length in 0..sealed.len() {
            assert!(sealer.unseal("n", &sealed[..length]).is_err());
        }
        for index in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[index] ^= 1;
            assert!(sealer.unseal("n", &damaged).is_err());
        }
    }

    #[test]
    fn two_seals_of_one_secret_differ() {
        let sealer = Sealer::from_key(&[7; 32]);
        assert_ne!(sealer.seal("n", b"x").unwrap(), sealer.seal("n", b"x").unwrap());
    }

    #[test]
    fn a_key_file_is_made_once_private_and_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        let sealed = Sealer::open(&path).unwrap().seal("n", b"x").unwrap();
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(
            Sealer::open(&path)
                .unwrap()
                .unseal("n", &sealed)
                .unwrap()
                .as_slice(),
            b"x"
        );
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_key_file_that_others_may_read_or_of_a_wrong_size_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        std::fs::write(&path, [0; 32]).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(Sealer::open(&path).unwrap_err().to_string().contains("0600"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&path, [0; 31]).unwrap();
        assert!(Sealer::open(&path).unwrap_err().to_string().contains("31 bytes"));
    }
}
