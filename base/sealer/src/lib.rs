//! The sealer: secrets at rest, AES-256-GCM under a stamp's keys.
//!
//! ```text
//!  made ──► seals ──(the next is made)──► opens only ──(nothing is sealed with it)──► kept for copies ──► dropped
//! ```
//!
//! One key seals; the others open what they have sealed. The file of the keys and what is sealed have two forms:
//!
//! | | key file | what is sealed |
//! |---|---|---|
//! | the first key of a stamp | its 32 bytes | `1`, nonce, ciphertext |
//! | from the second key on | a list, a line for each key (`file.rs`) | `2`, the key's id, nonce, ciphertext |
//!
//! Always true: what was sealed under one name is not unsealed under another; a key file is whole or not there, and only its owner may
//! read it; a key is on disk before it seals, and leaves the file only by [`Sealer::drop_key`].
//!
//! Called by: whoever writes a secret into the store, an archive or a copy; `control/sealing` changes the keys.

mod file;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey},
    digest, rand,
};
use jiff::Timestamp;
use zeroize::Zeroizing;

/// Bytes of a key.
const KEY_LEN: usize = 32;
/// Bytes of a key's id.
const ID_LEN: usize = 8;
/// The first byte of what the first key has sealed: nonce and ciphertext follow.
const FIRST: u8 = 1;
/// The first byte of what later keys have sealed: the key's id, nonce and ciphertext follow.
const NAMED: u8 = 2;

/// The reason why sealing or unsealing failed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The key file cannot be read, made or changed.
    #[error("cannot {act} the key file {path}: {why}")]
    KeyFile {
        /// `read`, `create` or `write`.
        act: &'static str,
        /// The path of the file.
        path: PathBuf,
        /// The reason, and a remedy.
        why: String,
    },
    /// The text is not what was sealed under this name with one of these keys.
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

/// A key, for people: no secret is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealingKey {
    /// Its id, 16 hexadecimal digits. It follows from the key.
    pub id: String,
    /// When it was made; `None`: with the stamp.
    pub made_at: Option<Timestamp>,
    /// Whether it is the one that seals.
    pub seals: bool,
    /// Since when nothing is known to be sealed with it; `None`: it seals, or something may be.
    pub unused_since: Option<Timestamp>,
}

/// What never changes of a key.
struct Secret {
    id: [u8; ID_LEN],
    /// Whether what it seals says its id: not of a stamp's first key.
    is_named: bool,
    bytes: Zeroizing<[u8; KEY_LEN]>,
    cipher: RandomizedNonceKey,
}

impl Secret {
    fn new(bytes: &[u8; KEY_LEN], is_named: bool) -> Self {
        let mut hash = digest::Context::new(&digest::SHA256);
        hash.update(b"landfall sealing key\n");
        hash.update(bytes);
        let mut id = [0; ID_LEN];
        id.copy_from_slice(&hash.finish().as_ref()[..ID_LEN]);
        Self {
            id,
            is_named,
            bytes: Zeroizing::new(*bytes),
            cipher: RandomizedNonceKey::new(&AES_256_GCM, bytes).expect("an AES-256 key has 32 bytes"),
        }
    }

    /// Opens nonce and ciphertext; `None`: they are not of this key and name.
    fn open(&self, name: &str, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (nonce, text) = sealed.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut text = Zeroizing::new(text.to_vec());
        let length = self
            .cipher
            .open_in_place(nonce, Aad::from(name.as_bytes()), &mut text)
            .ok()?
            .len();
        text.truncate(length);
        Some(text)
    }
}

/// A key with what is known of it.
#[derive(Clone)]
struct Key {
    secret: Arc<Secret>,
    made_at: Option<Timestamp>,
    unused_since: Option<Timestamp>,
}

/// Seals with one key, and unseals with all that there are. The name under which a secret is sealed is bound to it: what was sealed as one
/// record cannot be passed off as another.
pub struct Sealer {
    /// Oldest first; the last one seals. Never empty.
    ring: RwLock<Arc<Vec<Key>>>,
    /// Where they are kept, if anywhere. Locked while they are changed: one at a time.
    file: Mutex<Option<PathBuf>>,
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealer").finish_non_exhaustive()
    }
}

impl Sealer {
    /// Reads the keys from `path`; makes a first one there (mode 0600, durable) if there is no such file.
    ///
    /// # Errors
    /// [`SealError::KeyFile`]: not readable, no keys, or open to others than its owner.
    pub fn open(path: &Path) -> Result<Self, SealError> {
        let ring = match file::read(path)? {
            Some(ring) => ring,
            None => file::create(path)?,
        };
        Ok(Self::with(ring, Some(path.to_owned())))
    }

    /// A key from elsewhere (a vault, a test). Keys that follow it are kept nowhere.
    pub fn from_key(key: &[u8; KEY_LEN]) -> Self {
        Self::with(vec![first(key)], None)
    }

    fn with(ring: Vec<Key>, file: Option<PathBuf>) -> Self {
        Self {
            ring: RwLock::new(Arc::new(ring)),
            file: Mutex::new(file),
        }
    }

    fn ring(&self) -> Arc<Vec<Key>> {
        Arc::clone(&self.ring.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Seals `secret` under `name` with a fresh random nonce.
    ///
    /// # Errors
    /// [`SealError::Seal`] when the cryptographic module fails.
    pub fn seal(&self, name: &str, secret: &[u8]) -> Result<Vec<u8>, SealError> {
        let ring = self.ring();
        let key = &sealing(&ring).secret;
        let mut text = secret.to_vec();
        let nonce = key
            .cipher
            .seal_in_place_append_tag(Aad::from(name.as_bytes()), &mut text)
            .map_err(|_unspecified| SealError::Seal {
                name: name.to_owned(),
            })?;
        let mut sealed = Vec::with_capacity(1 + ID_LEN + NONCE_LEN + text.len());
        if key.is_named {
            sealed.push(NAMED);
            sealed.extend_from_slice(&key.id);
        } else {
            sealed.push(FIRST);
        }
        sealed.extend_from_slice(nonce.as_ref());
        sealed.append(&mut text);
        Ok(sealed)
    }

    /// Unseals a secret that was sealed under `name`.
    ///
    /// # Errors
    /// [`SealError::Unseal`]: another name, another key, or damaged.
    pub fn unseal(&self, name: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let ring = self.ring();
        let opened = of(&ring, sealed).and_then(|(key, rest)| key.secret.open(name, rest));
        opened.ok_or_else(|| SealError::Unseal {
            name: name.to_owned(),
        })
    }

    /// The id of the key that seals.
    pub fn current(&self) -> String {
        hex::encode(sealing(&self.ring()).secret.id)
    }

    /// The id of the key that something is sealed with, by what it says of itself; `None`: there is no such key here.
    pub fn key_of(&self, sealed: &[u8]) -> Option<String> {
        of(&self.ring(), sealed).map(|(key, _)| hex::encode(key.secret.id))
    }

    /// Whether something says that it is sealed with the key that seals.
    pub fn is_current(&self, sealed: &[u8]) -> bool {
        let ring = self.ring();
        of(&ring, sealed).is_some_and(|(key, _)| key.secret.id == sealing(&ring).secret.id)
    }

    /// The keys that there are, oldest first; the last one seals.
    pub fn keys(&self) -> Vec<SealingKey> {
        let ring = self.ring();
        let seals = sealing(&ring).secret.id;
        ring.iter()
            .map(|key| SealingKey {
                id: hex::encode(key.secret.id),
                made_at: key.made_at,
                seals: key.secret.id == seals,
                unused_since: key.unused_since,
            })
            .collect()
    }

    /// Makes a key, which seals from now on. Its id.
    ///
    /// # Errors
    /// [`SealError::KeyFile`] when it cannot be kept; then everything is as before.
    pub fn rotate(&self, now: Timestamp) -> Result<String, SealError> {
        let mut bytes = Zeroizing::new([0; KEY_LEN]);
        self.change("no randomness", |ring| {
            rand::fill(bytes.as_mut()).ok()?;
            let secret = Arc::new(Secret::new(&bytes, true));
            let id = hex::encode(secret.id);
            ring.push(Key {
                secret,
                made_at: Some(now),
                unused_since: None,
            });
            Some(id)
        })
    }

    /// Notes since when nothing is sealed with a key, or that something is. Of the key that seals, and of one that is not there, nothing is noted.
    ///
    /// # Errors
    /// [`SealError::KeyFile`] when it cannot be kept; then everything is as before.
    pub fn note_unused(&self, id: &str, since: Option<Timestamp>) -> Result<(), SealError> {
        self.change("", |ring| {
            let (_, others) = ring.split_last_mut()?;
            for key in others {
                if hex::encode(key.secret.id) == id {
                    key.unused_since = since;
                }
            }
            Some(())
        })
    }

    /// Forgets a key: what is sealed with it can be opened by nobody from then on. The key that seals stays.
    ///
    /// # Errors
    /// [`SealError::KeyFile`] when the others cannot be kept without it; then everything is as before.
    pub fn drop_key(&self, id: &str) -> Result<(), SealError> {
        self.change("", |ring| {
            let seals = ring.last()?.secret.id;
            ring.retain(|key| key.secret.id == seals || hex::encode(key.secret.id) != id);
            Some(())
        })
    }

    /// Changes the keys: first in their file, then here. Where `change` cannot, this is why.
    fn change<T>(
        &self,
        why: &'static str,
        change: impl FnOnce(&mut Vec<Key>) -> Option<T>,
    ) -> Result<T, SealError> {
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let mut ring = Vec::clone(&self.ring());
        let done = change(&mut ring).ok_or_else(|| SealError::KeyFile {
            act: "write",
            path: file.clone().unwrap_or_default(),
            why: why.to_owned(),
        })?;
        if let Some(path) = &*file {
            file::write(path, &ring)?;
        }
        *self.ring.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(ring);
        Ok(done)
    }
}

/// The first key of a stamp.
fn first(bytes: &[u8; KEY_LEN]) -> Key {
    Key {
        secret: Arc::new(Secret::new(bytes, false)),
        made_at: None,
        unused_since: None,
    }
}

/// The key that seals.
fn sealing(ring: &[Key]) -> &Key {
    ring.last()
        .expect("there is a key from the beginning on, and the last one is never dropped")
}

/// The key that something says it is sealed with, and nonce and ciphertext.
fn of<'r, 's>(ring: &'r [Key], sealed: &'s [u8]) -> Option<(&'r Key, &'s [u8])> {
    let (form, rest) = sealed.split_first()?;
    match *form {
        FIRST => Some((ring.iter().find(|key| !key.secret.is_named)?, rest)),
        NAMED => {
            let (id, rest) = rest.split_at_checked(ID_LEN)?;
            let named = |key: &&Key| key.secret.is_named && key.secret.id == id;
            Some((ring.iter().find(named)?, rest))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn what_was_sealed_comes_back_under_its_name_only() {
        let sealer = Sealer::from_key(&[7; 32]);
        for _ in 0..2 {
            let sealed = sealer.seal("/pki/a", b"secret").unwrap();
            assert_eq!(sealer.unseal("/pki/a", &sealed).unwrap().as_slice(), b"secret");
            assert!(sealer.unseal("/pki/b", &sealed).is_err());
            assert!(Sealer::from_key(&[8; 32]).unseal("/pki/a", &sealed).is_err());
            assert!(!sealed.windows(6).any(|window| window == b"secret"));
            sealer.rotate(at(1)).unwrap();
        }
    }

    #[test]
    fn damage_is_noticed_and_never_panics() {
        let sealer = Sealer::from_key(&[7; 32]);
        for _ in 0..2 {
            let sealed = sealer.seal("n", b"").unwrap();
            for length in 0..sealed.len() {
                assert!(sealer.unseal("n", &sealed[..length]).is_err());
            }
            for index in 0..sealed.len() {
                let mut damaged = sealed.clone();
                damaged[index] ^= 1;
                assert!(sealer.unseal("n", &damaged).is_err());
            }
            sealer.rotate(at(1)).unwrap();
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

    #[test]
    fn keys_follow_each_other_and_all_are_there_after_a_start() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        let sealer = Sealer::open(&path).unwrap();
        let first = sealer.current();
        let old = sealer.seal("n", b"old").unwrap();
        let second = sealer.rotate(at(10)).unwrap();
        let new = sealer.seal("n", b"new").unwrap();
        assert!(sealer.is_current(&new) && !sealer.is_current(&old));
        sealer.note_unused(&first, Some(at(20))).unwrap();
        // The one that seals is in use.
        sealer.note_unused(&second, Some(at(20))).unwrap();
        let again = Sealer::open(&path).unwrap();
        for sealer in [&sealer, &again] {
            let key = |id: &String, made_at, seals, unused_since| SealingKey {
                id: id.clone(),
                made_at,
                seals,
                unused_since,
            };
            assert_eq!(
                sealer.keys(),
                [
                    key(&first, None, false, Some(at(20))),
                    key(&second, Some(at(10)), true, None)
                ]
            );
            assert_eq!(sealer.key_of(&old), Some(first.clone()));
            assert_eq!(sealer.key_of(&new), Some(second.clone()));
            assert_eq!(sealer.unseal("n", &old).unwrap().as_slice(), b"old");
            assert_eq!(sealer.unseal("n", &new).unwrap().as_slice(), b"new");
        }
        again.drop_key(&first).unwrap();
        again.drop_key(&second).unwrap();
        let last = Sealer::open(&path).unwrap();
        assert_eq!(last.keys().len(), 1, "the one that seals stays");
        assert!(last.unseal("n", &old).is_err() && last.key_of(&old).is_none());
        assert_eq!(last.unseal("n", &new).unwrap().as_slice(), b"new");
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }

    #[test]
    fn a_key_that_cannot_be_kept_does_not_seal() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        let sealer = Sealer::open(&path).unwrap();
        let first = sealer.current();
        // In the way of the file that is written beside.
        let in_the_way = directory.path().join(".key.new");
        std::fs::create_dir(&in_the_way).unwrap();
        assert!(sealer.rotate(at(1)).is_err());
        assert_eq!(sealer.current(), first);
        std::fs::remove_dir(&in_the_way).unwrap();
        assert_ne!(sealer.rotate(at(1)).unwrap(), first);
    }

    #[test]
    fn a_list_of_keys_that_is_damaged_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        Sealer::open(&path).unwrap().rotate(at(1)).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let same_length = |line: &str| {
            let end = if line.ends_with('0') { '1' } else { '0' };
            format!("{}{end}", &line[..line.len() - 1])
        };
        for damaged in [
            text.replace("landfall", "something"),
            lines[0].to_owned(),
            format!("{}\n{}\n", lines[0], &lines[1][..lines[1].len() - 2]),
            format!("{}\n{}\n", lines[0], same_length(lines[1])),
        ] {
            std::fs::write(&path, &damaged).unwrap();
            let error = Sealer::open(&path).unwrap_err().to_string();
            assert!(error.contains("put the right one back"), "{error}");
        }
        std::fs::write(&path, &text).unwrap();
        assert_eq!(Sealer::open(&path).unwrap().keys().len(), 2);
    }
}
