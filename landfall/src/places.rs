//! Where a stamp's files are on this host.
//!
//! | place | holds |
//! |---|---|
//! | `/var/lib/landfall/STAMP/stamp.toml` | [`crate::stamp::Settings`] |
//! | `…/secrets/` | the sealing keys, the service principal's secret, CA keys; directory 0700, files 0600 |
//! | `…/store.redb`, `…/fabric/` | the store and the disks of machines |
//! | `…/registries/` | images of registries |
//! | `…/log/` | the service's log, bounded |
//! | `…/catalogue.signed` | a version catalogue that was imported, with its signature |
//! | `…/ca.pem` | the certificate that clients of the ARM API trust |
//! | `/run/landfall/STAMP/` | (0700) lock with the service's pid, admin socket, and the settings of the running stamp |
//!
//! Always true: paths are absolute, since the service works in `/`; files are written whole or not at all.

use std::{
    fs,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::problem::Problem;

/// The paths of a stamp's files.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    pub(crate) name: String,
    pub(crate) state: PathBuf,
    pub(crate) run: PathBuf,
}

impl Places {
    /// The places of the stamp of this name. No file is touched.
    pub(crate) fn of(name: &str) -> Result<Self> {
        let good = (1..=20).contains(&name.len())
            && name.starts_with(|c: char| c.is_ascii_lowercase())
            && !name.ends_with('-')
            && name
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
        if !good {
            return Err(Problem::usage(
                format!("{name:?} is not a name for a stamp"),
                "use 1 to 20 lower-case letters, digits and dashes, with a letter first",
            )
            .into());
        }
        let base = |variable: &str, default: &str| {
            std::env::var_os(variable)
                .filter(|value| !value.is_empty())
                .map_or_else(|| PathBuf::from(default), PathBuf::from)
        };
        let absolute = |path: PathBuf| {
            std::path::absolute(&path).with_context(|| format!("cannot find {}", path.display()))
        };
        Ok(Self {
            name: name.to_owned(),
            state: absolute(base("LANDFALL_STATE_DIR", "/var/lib/landfall"))?.join(name),
            run: absolute(base("LANDFALL_RUN_DIR", "/run/landfall"))?.join(name),
        })
    }

    pub(crate) fn settings(&self) -> PathBuf {
        self.state.join("stamp.toml")
    }
    pub(crate) fn secrets(&self) -> PathBuf {
        self.state.join("secrets")
    }
    /// The keys that seal the stamp's secrets.
    pub(crate) fn sealing_key(&self) -> PathBuf {
        self.secrets().join("sealing.key")
    }
    pub(crate) fn store(&self) -> PathBuf {
        self.state.join("store.redb")
    }
    pub(crate) fn fabric(&self) -> PathBuf {
        self.state.join("fabric")
    }
    /// The images of registries.
    pub(crate) fn registries(&self) -> PathBuf {
        self.state.join("registries")
    }
    pub(crate) fn log(&self) -> PathBuf {
        self.state.join("log/serve.log")
    }
    /// A version catalogue that was imported.
    pub(crate) fn catalogue(&self) -> PathBuf {
        self.state.join("catalogue.signed")
    }
    pub(crate) fn ca(&self) -> PathBuf {
        self.state.join("ca.pem")
    }
    /// The settings of the stamp that runs under this name on this host, with its state directory.
    pub(crate) fn running(&self) -> PathBuf {
        self.run.join("stamp.toml")
    }
    pub(crate) fn lock(&self) -> PathBuf {
        self.run.join("serve.lock")
    }
    pub(crate) fn socket(&self) -> PathBuf {
        self.run.join("admin.sock")
    }

    /// Makes the directories, with the right modes.
    pub(crate) fn make(&self) -> Result<()> {
        for (path, mode) in [
            (self.state.clone(), 0o755),
            (self.secrets(), 0o700),
            (self.state.join("log"), 0o750),
            (self.run.clone(), 0o700),
        ] {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(mode)
                .create(&path)
                .with_context(|| format!("cannot create {}", path.display()))?;
            // An existing file may have another mode, from an earlier release or by hand.
            fs::set_permissions(&path, fs::Permissions::from_mode(mode))
                .with_context(|| format!("cannot protect {}", path.display()))?;
        }
        Ok(())
    }
}

/// Writes a file atomically and durably.
pub(crate) fn write_whole(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    base_files::write(path, content, mode).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_that_are_there_get_the_modes_that_they_are_to_have() {
        let dir = tempfile::tempdir().unwrap();
        let places = Places {
            name: "t".into(),
            state: dir.path().join("s"),
            run: dir.path().join("r"),
        };
        for path in [places.secrets(), places.run.clone(), places.state.join("log")] {
            fs::create_dir_all(&path).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
        }
        places.make().unwrap();
        let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let modes = [
            places.secrets(),
            places.run.clone(),
            places.state.join("log"),
            places.state.clone(),
        ]
        .map(mode);
        assert_eq!(modes, [0o700, 0o700, 0o750, 0o755]);
    }

    #[test]
    fn names_are_checked() {
        for good in ["landfall", "a", "t-1"] {
            assert!(Places::of(good).is_ok(), "{good}");
        }
        for bad in ["", "A", "1a", "a_b", "a-", "../x", "aaaaaaaaaaaaaaaaaaaaa"] {
            assert!(Places::of(bad).is_err(), "{bad}");
        }
    }
}
