//! The directory of all files of one version.
//!
//! Always true: the directory's name follows from the inputs of its contents, so another pin, toolchain or
//! recipe is another directory, and a test that passed there was the same test; one process at a time has it
//! open.

use std::{
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};

use crate::{debian, images, programs};

/// The directory of a version, held until it is dropped.
pub(crate) struct Place {
    /// Like `1.37.1`.
    pub(crate) version: &'static str,
    /// `conformance/kubernetes-MINOR` of the checkout: go.mod and go.sum.
    pub(crate) module: PathBuf,
    /// `components` of the checkout.
    pub(crate) components: PathBuf,
    dir: PathBuf,
    /// Held, never read.
    _lock: File,
}

impl Place {
    /// Opens it, and makes it if necessary.
    pub(crate) fn open(checkout: &Path, cache: &Path, version: &'static str) -> Result<Self> {
        let module = checkout.join(format!("conformance/kubernetes-{}", minor(version)));
        let mut parts = Vec::new();
        for name in ["go.mod", "go.sum"] {
            let path = module.join(name);
            parts.push(fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?);
        }
        let go = programs::go(&module)?
            .arg("version")
            .output()
            .context("cannot run go")?;
        parts.push(go.stdout);
        for recipe in [programs::recipe(version), debian::recipe(), images::recipe()] {
            parts.push(recipe.into_bytes());
        }
        let dir = cache
            .join("conformance")
            .join(format!("{version}-{}", key(&parts)));
        fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let path = dir.join("lock");
        let lock = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => bail!("another run holds {}; wait for it", dir.display()),
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
        Ok(Self {
            version,
            module,
            components: checkout.join("components"),
            dir,
            _lock: lock,
        })
    }

    /// Programs, each under its name once it is whole.
    pub(crate) fn programs(&self) -> PathBuf {
        self.dir.join("programs")
    }

    /// Archives of images.
    pub(crate) fn images(&self) -> PathBuf {
        self.dir.join("images")
    }

    /// Debian's packages, unpacked.
    pub(crate) fn debian(&self) -> PathBuf {
        self.dir.join("debian")
    }

    /// The results of runs.
    pub(crate) fn results(&self) -> PathBuf {
        self.dir.join("results")
    }

    /// The place of an incomplete file before it gets its name.
    pub(crate) fn unfinished(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.unfinished"))
    }
}

/// `1.37` of `1.37.1`.
pub(crate) fn minor(version: &str) -> &str {
    version.rsplit_once('.').map_or(version, |(minor, _)| minor)
}

/// 16 hex digits.
fn key(parts: &[Vec<u8>]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(Sha256::digest(part));
    }
    hex::encode(&hash.finalize()[..8])
}

/// Which build of a program this is: the first 16 hex digits of its SHA-256.
pub(crate) fn digest_of(program: &Path) -> Result<String> {
    let mut file = File::open(program).with_context(|| format!("cannot open {}", program.display()))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 18];
    loop {
        let read = std::io::Read::read(&mut file, &mut buffer)
            .with_context(|| format!("cannot read {}", program.display()))?;
        if read == 0 {
            return Ok(hex::encode(&hash.finalize()[..8]));
        }
        hash.update(&buffer[..read]);
    }
}

/// Runs a command to its end; an error contains the end of its output.
pub(crate) fn ran(command: &mut Command) -> Result<Vec<u8>> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(std::process::Stdio::null())
        .output()
        .with_context(|| format!("cannot run {name}"))?;
    if !output.status.success() {
        bail!(
            "{name} ended with {}: {}",
            output.status,
            last_words(&output.stderr)
        );
    }
    Ok(output.stdout)
}

/// The last kilobytes of a program's output.
pub(crate) fn last_words(said: &[u8]) -> String {
    const KEPT: usize = 4096;
    let from = said.len().saturating_sub(KEPT);
    String::from_utf8_lossy(&said[from..]).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_of_other_parts_lies_elsewhere() {
        let part = |text: &str| vec![text.as_bytes().to_vec()];
        assert_eq!(key(&part("a")).len(), 16);
        assert_eq!(key(&part("a")), key(&part("a")));
        assert_ne!(key(&part("a")), key(&part("b")));
        let (one, other) = (["ab", "c"], ["a", "bc"]);
        let parts = |texts: [&str; 2]| texts.map(|text| text.as_bytes().to_vec()).to_vec();
        assert_ne!(key(&parts(one)), key(&parts(other)));
    }

    #[test]
    fn a_digest_is_of_the_content() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("x");
        fs::write(&file, "").unwrap();
        assert_eq!(digest_of(&file).unwrap(), "e3b0c44298fc1c14");
        fs::write(&file, "x").unwrap();
        assert_ne!(digest_of(&file).unwrap(), "e3b0c44298fc1c14");
    }

    #[test]
    fn the_minor_of_a_version() {
        assert_eq!(minor("1.37.1"), "1.37");
    }
}
