//! The agent's files: written atomically, and only when their content differs.

use std::{collections::BTreeSet, fs, os::unix::fs::PermissionsExt as _};

use agent_protocol::{File, MachineConfig, Seed};
use machine_program::disk::{DiskError, failed, write};

use crate::Paths;

/// Reads the seed of the machine.
///
/// # Errors
/// When the seed is missing or invalid.
pub fn seed(paths: &Paths) -> Result<Seed, DiskError> {
    let path = paths.seed();
    let bytes = fs::read(&path).map_err(failed("read", &path))?;
    serde_json::from_slice(&bytes).map_err(|error| failed("read", &path)(error.into()))
}

/// The configuration that was last in force. A damaged one counts as none: the service has it.
pub fn config(paths: &Paths) -> Option<MachineConfig> {
    serde_json::from_slice(&fs::read(paths.state("config.json")).ok()?).ok()
}

/// Stores a configuration.
///
/// # Errors
/// When the disk refuses.
pub fn keep_config(paths: &Paths, config: &MachineConfig) -> Result<(), DiskError> {
    let path = paths.state("config.json");
    let bytes = serde_json::to_vec(config).map_err(|error| failed("write", &path)(error.into()))?;
    write(&path, &bytes, 0o600)
}

/// Writes files whose content differs; adds their paths, as named in the configuration, to `changed`.
///
/// # Errors
/// At the first file that cannot be written; earlier ones are written and are in `changed`.
pub fn write_files(paths: &Paths, files: &[File], changed: &mut BTreeSet<String>) -> Result<(), DiskError> {
    for file in files {
        let path = paths.machine(&file.path);
        let present = fs::read(&path).ok();
        let mode = fs::metadata(&path)
            .map(|found| found.permissions().mode() & 0o7777)
            .ok();
        if present.as_deref() == Some(file.content.as_bytes()) && mode == Some(file.mode) {
            continue;
        }
        write(&path, file.content.as_bytes(), file.mode)?;
        changed.insert(file.path.clone());
    }
    Ok(())
}

/// Removes files of the previous configuration that the new one does not have; adds their paths to `changed`.
///
/// # Errors
/// At the first file that cannot be removed.
pub fn remove_files(
    paths: &Paths,
    before: &[File],
    now: &[File],
    changed: &mut BTreeSet<String>,
) -> Result<(), DiskError> {
    let stays: BTreeSet<&str> = now.iter().map(|file| file.path.as_str()).collect();
    for file in before.iter().filter(|file| !stays.contains(file.path.as_str())) {
        let path = paths.machine(&file.path);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(failed("remove", &path)(error));
            }
            _ => drop(changed.insert(file.path.clone())),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_different_is_written() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::below(root.path());
        let file = |content: &str, mode| File {
            path: "/etc/x/y".into(),
            mode,
            content: content.into(),
        };
        let written = |file| {
            let mut changed = BTreeSet::new();
            write_files(&paths, &[file], &mut changed).unwrap();
            changed.len()
        };
        assert_eq!(written(file("a", 0o600)), 1);
        assert_eq!(written(file("a", 0o600)), 0);
        assert_eq!(written(file("a", 0o644)), 1);
        assert_eq!(written(file("b", 0o644)), 1);
        let mode = fs::metadata(paths.machine("/etc/x/y"))
            .unwrap()
            .permissions()
            .mode()
            & 0o7777;
        assert_eq!(mode, 0o644);
    }

    #[test]
    fn what_is_no_longer_configured_is_removed() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::below(root.path());
        let file = |path: &str| File {
            path: path.into(),
            mode: 0o600,
            content: "x".into(),
        };
        let (before, now) = ([file("/etc/a"), file("/etc/b"), file("/etc/c")], [file("/etc/b")]);
        let mut changed = BTreeSet::new();
        write_files(&paths, &before[..2], &mut changed).unwrap();
        changed.clear();
        remove_files(&paths, &before, &now, &mut changed).unwrap();
        assert_eq!(changed, ["/etc/a", "/etc/c"].map(str::to_owned).into());
        assert!(!paths.machine("/etc/a").exists() && paths.machine("/etc/b").exists());
    }

    #[test]
    fn a_damaged_configuration_is_none() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::below(root.path());
        assert_eq!(config(&paths), None);
        keep_config(
            &paths,
            &MachineConfig {
                generation: 3,
                ..MachineConfig::default()
            },
        )
        .unwrap();
        assert_eq!(config(&paths).unwrap().generation, 3);
        fs::write(paths.state("config.json"), "{").unwrap();
        assert_eq!(config(&paths), None);
    }
}
