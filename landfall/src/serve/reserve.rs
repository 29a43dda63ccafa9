//! Room for the store on a disk that others fill: machines and backups share the stamp's disk, and a service that cannot write its
//! records can neither delete a cluster nor stop a machine to make room.
//!
//! The blocks after the store's end are allocated in advance and belong to its file, so no other program can
//! take them. Files of secrets have no such room: they are small and seldom written, a failed write leaves
//! the old content (`base/files`) and is repeated later. None of them is needed to make room: a service
//! starts with its present certificate if it cannot write the next one.
//!
//! Always true: the file's length and content are not touched.

use std::{fs::File, os::unix::fs::MetadataExt as _, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};
use base_env::Env;
use nix::fcntl::{FallocateFlags, fallocate};

/// Space for the store to grow on a full disk: the records of hundreds of machines.
const RESERVE: i64 = 64 << 20;
/// Interval of restoring the reserve: the store grows into it.
const LOOK: Duration = Duration::from_secs(30);

/// Keeps the reserve for ever.
pub(super) async fn keep(env: Env, store: PathBuf) {
    let mut well = true;
    loop {
        let path = store.clone();
        let kept = tokio::task::spawn_blocking(move || hold(&path)).await;
        let kept = kept
            .context("the store's room cannot be looked at")
            .and_then(|kept| kept);
        match &kept {
            Ok(()) if !well => tracing::info!("the store has reserved space again"),
            Ok(()) => {}
            Err(error) if well => tracing::error!(
                error = format!("{error:#}"),
                "the disk of the stamp is full: soon no record can be written; delete clusters or backups that are not needed"
            ),
            Err(_said_already) => {}
        }
        well = kept.is_ok();
        env.clock.sleep(LOOK).await;
    }
}

/// Has the file's blocks, those of its holes and those after its end allocated.
fn hold(store: &std::path::Path) -> Result<()> {
    let file = File::options().write(true).open(store);
    let file = file.with_context(|| format!("cannot open {}", store.display()))?;
    let length = i64::try_from(file.metadata()?.size()).unwrap_or(i64::MAX);
    match fallocate(
        &file,
        FallocateFlags::FALLOC_FL_KEEP_SIZE,
        0,
        length.saturating_add(RESERVE),
    ) {
        // Filesystems without such allocation have none to keep.
        Err(nix::errno::Errno::EOPNOTSUPP) => Ok(()),
        allocated => allocated.with_context(|| {
            format!(
                "{} cannot have {} MiB more than it takes",
                store.display(),
                RESERVE >> 20
            )
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write as _, process::Command};

    use super::*;

    #[test]
    fn a_store_can_be_written_on_a_disk_that_somebody_else_has_filled() {
        if !base_testkit::needs::root_and(&["mount", "umount"]) {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let mount = |program: &str, args: &[&str]| {
            let done = Command::new(program).args(args).arg(dir.path()).status().unwrap();
            assert!(done.success());
        };
        mount("mount", &["-t", "tmpfs", "-o", "size=80m", "none"]);
        let full = |name: &str| {
            let mut file = File::options()
                .append(true)
                .create(true)
                .open(dir.path().join(name))
                .unwrap();
            let piece = vec![1; 1 << 20];
            (0..100).take_while(|_| file.write_all(&piece).is_ok()).count()
        };
        let store = dir.path().join("store.redb");
        fs::write(&store, b"records").unwrap();
        hold(&store).unwrap();
        let (somebody, own) = (full("somebody"), full("store.redb"));
        let kept = fs::read(&store).unwrap().starts_with(b"records");
        // On a full disk an error is reported, and the store is unchanged.
        let said = hold(&store).is_err();
        mount("umount", &[]);
        assert!((10..20).contains(&somebody), "{somebody}");
        assert!(own >= 60, "{own} MiB");
        assert!(kept && said);
    }
}
