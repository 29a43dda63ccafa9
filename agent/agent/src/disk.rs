//! What the agent keeps and writes: atomically, and only where it is different.

use std::{
    collections::BTreeSet,
    fs,
    io::Write as _,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

use agent_protocol::{File, MachineConfig, Seed};

use crate::Paths;

/// Something could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {act} {path}")]
pub struct DiskError {
    act: &'static str,
    path: String,
    #[source]
    source: std::io::Error,
}

fn failed(act: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> DiskError {
    let path = path.display().to_string();
    move |source| DiskError { act, path, source }
}

/// What the machine was born with.
///
/// # Errors
/// When there is no seed, or it is not one.
pub fn seed(paths: &Paths) -> Result<Seed, DiskError> {
    let path = paths.seed();
    let bytes = fs::read(&path).map_err(failed("read", &path))?;
    serde_json::from_slice(&bytes).map_err(|error| failed("read", &path)(error.into()))
}

/// The configuration that was in force when the machine was last here. A damaged one counts as none: the service has it.
pub fn config(paths: &Paths) -> Option<MachineConfig> {
    serde_json::from_slice(&fs::read(paths.state("config.json")).ok()?).ok()
}

/// Keeps a configuration.
///
/// # Errors
/// When the disk does not take it.
pub fn keep_config(paths: &Paths, config: &MachineConfig) -> Result<(), DiskError> {
    let path = paths.state("config.json");
    let bytes = serde_json::to_vec(config).map_err(|error| failed("write", &path)(error.into()))?;
    write(&path, &bytes, 0o600)
}

/// Writes files that are different; adds their paths, as the configuration names them, to `changed`.
///
/// # Errors
/// At the first file that cannot be written; those before it are, and are in `changed`.
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

/// Writes a file whole or not at all.
///
/// # Errors
/// When the disk does not take it.
pub fn write(path: &Path, content: &[u8], mode: u32) -> Result<(), DiskError> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(directory).map_err(failed("create", directory))?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let beside = directory.join(name);
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&beside)
        .map_err(failed("write", &beside))?;
    // The mode at creation is masked, and a left-over of a write that was cut short has its own.
    file.set_permissions(fs::Permissions::from_mode(mode))
        .map_err(failed("write", &beside))?;
    file.write_all(content).map_err(failed("write", &beside))?;
    file.sync_all().map_err(failed("write", &beside))?;
    fs::rename(&beside, path).map_err(failed("write", path))?;
    // The rename is durable when the directory is.
    fs::File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(failed("write", directory))
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
