//! Control groups: removing what a machine leaves behind, in every hierarchy of version 1 and 2.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};

use base_env::Env;
use fabric_api::FabricError;
use rustix::process::{Pid, Signal, kill_process};

use crate::files;

/// How often and how long to try: a killed process stays in its group until the kernel has done away with it.
const TRIES: u32 = 200;
const PAUSE: Duration = Duration::from_millis(25);

/// Where the hierarchies are mounted.
pub(crate) fn hierarchies() -> io::Result<Vec<PathBuf>> {
    Ok(mounted(&fs::read_to_string("/proc/self/mountinfo")?))
}

/// Mount points of control group hierarchies whose root is shown, from `mountinfo`.
fn mounted(mountinfo: &str) -> Vec<PathBuf> {
    let mut places: Vec<PathBuf> = mountinfo
        .lines()
        .filter_map(|line| {
            let (before, after) = line.split_once(" - ")?;
            let kind = after.split(' ').next()?;
            let mut fields = before.split(' ').skip(3);
            let (root, place) = (fields.next()?, fields.next()?);
            (matches!(kind, "cgroup" | "cgroup2") && root == "/").then(|| PathBuf::from(place))
        })
        .collect();
    places.sort_unstable();
    places.dedup();
    places
}

/// The groups directly below `group`, over all hierarchies.
pub(crate) fn below(group: &str) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for hierarchy in hierarchies()? {
        let place = inside(&hierarchy, group);
        for name in files::names_in(&place)? {
            if place.join(&name).is_dir() {
                names.push(name);
            }
        }
    }
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

/// Kills everything in a group and in those below it, and removes them.
pub(crate) async fn remove(env: &Env, group: &str) -> Result<(), FabricError> {
    let act = format!("remove the control group {group}");
    let places: Vec<PathBuf> = hierarchies()
        .map_err(|error| FabricError::failed(&act, error))?
        .iter()
        .map(|hierarchy| inside(hierarchy, group))
        .collect();
    let mut last = None;
    for _ in 0..TRIES {
        last = places
            .iter()
            .filter(|place| place.exists())
            .filter_map(|place| remove_tree(place).err())
            .fold(None, |_, error| Some(error));
        if last.is_none() {
            return Ok(());
        }
        env.clock.sleep(PAUSE).await;
    }
    Err(FabricError::failed(
        act,
        last.map_or_else(String::new, |error| error.to_string()),
    ))
}

fn inside(hierarchy: &Path, group: &str) -> PathBuf {
    hierarchy.join(group.trim_start_matches('/'))
}

/// Depth first: a group that has groups below it cannot be removed.
fn remove_tree(place: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(place) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    let mut failed = None;
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            failed = remove_tree(&entry.path()).err().or(failed);
        }
    }
    if let Some(error) = failed {
        return Err(error);
    }
    match fs::remove_dir(place) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => {
            kill_all(place);
            Err(error)
        }
        Ok(()) => Ok(()),
    }
}

fn kill_all(place: &Path) {
    // Version 2 has one word for all, groups below and those that are just being forked among them.
    if set(place, "cgroup.kill", "1").is_ok() {
        return;
    }
    // A frozen process takes no signal.
    let _ = set(place, "freezer.state", "THAWED").or_else(|_| set(place, "cgroup.freeze", "0"));
    let text = fs::read_to_string(place.join("cgroup.procs")).unwrap_or_default();
    for pid in text
        .lines()
        .filter_map(|line| line.parse().ok())
        .filter_map(Pid::from_raw)
    {
        // It may have ended meanwhile.
        let _ = kill_process(pid, Signal::KILL);
    }
}

/// Writes to a file that the kernel has put there; which ones depends on hierarchy and version.
fn set(place: &Path, file: &str, value: &str) -> io::Result<()> {
    fs::OpenOptions::new()
        .write(true)
        .open(place.join(file))?
        .write_all(value.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::process::ExitStatusExt as _,
        process::{Child, Command},
    };

    use super::*;

    fn sleeper() -> Child {
        Command::new("sleep").arg("1000").spawn().unwrap()
    }

    fn files_of(place: &Path) -> Vec<String> {
        files::names_in(place).unwrap().into_iter().collect()
    }

    /// A directory with files as the kernel of version 2 puts them there.
    fn fixture(files: &[(&str, &str)]) -> tempfile::TempDir {
        let place = tempfile::tempdir().unwrap();
        for (name, content) in files {
            fs::write(place.path().join(name), content).unwrap();
        }
        place
    }

    #[test]
    fn a_group_of_version_2_is_killed_with_one_word() {
        let place = fixture(&[("cgroup.procs", ""), ("cgroup.freeze", "1"), ("cgroup.kill", "")]);
        kill_all(place.path());
        assert_eq!(fs::read_to_string(place.path().join("cgroup.kill")).unwrap(), "1");
        assert_eq!(
            fs::read_to_string(place.path().join("cgroup.freeze")).unwrap(),
            "1"
        );
        assert_eq!(files_of(place.path()).len(), 3, "nothing of version 1 is written");
    }

    #[test]
    fn without_that_word_each_process_is_thawed_and_killed() {
        for freezer in ["cgroup.freeze", "freezer.state"] {
            let mut child = sleeper();
            let place = fixture(&[
                ("cgroup.procs", &format!("{}\n", child.id())),
                (freezer, "frozen"),
            ]);
            kill_all(place.path());
            assert_eq!(child.wait().unwrap().signal(), Some(9));
            let wanted = if freezer == "cgroup.freeze" {
                "0rozen"
            } else {
                "THAWED"
            };
            assert_eq!(fs::read_to_string(place.path().join(freezer)).unwrap(), wanted);
            assert_eq!(files_of(place.path()).len(), 2);
        }
    }

    #[tokio::test]
    async fn a_real_group_of_version_2_goes_with_all_that_is_in_it() {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let second = mounts.lines().find(|line| line.contains(" - cgroup2 "));
        let Some(root) = second.and_then(|line| mounted(line).pop()) else {
            base_testkit::needs::skipped("this host has no cgroup2");
            return;
        };
        let group = format!("/landfall-test-{}", std::process::id());
        let place = inside(&root, &group);
        if fs::create_dir_all(place.join("m1/pods")).is_err() {
            base_testkit::needs::skipped("this process may not make groups of version 2");
            return;
        }
        let children = [sleeper(), sleeper()];
        set(&place, "m1/cgroup.procs", &children[0].id().to_string()).unwrap();
        set(&place, "m1/pods/cgroup.procs", &children[1].id().to_string()).unwrap();
        set(&place, "m1/pods/cgroup.freeze", "1").unwrap();
        assert_eq!(below(&group).unwrap(), ["m1"]);
        // Whoever is killed is in its group until somebody has waited for it.
        let waiter = std::thread::spawn(move || children.map(|mut child| child.wait().unwrap().signal()));
        remove(&Env::system(), &group).await.unwrap();
        assert!(!place.exists());
        assert_eq!(waiter.join().unwrap(), [Some(9), Some(9)]);
    }

    #[test]
    fn hierarchies_of_both_versions_are_found() {
        let text = "32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n\
                    41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n\
                    50 31 0:29 /docker/x /mnt/cpu rw - cgroup cgroup rw,cpu\n\
                    27 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n";
        assert_eq!(
            mounted(text),
            [
                PathBuf::from("/sys/fs/cgroup/cpu"),
                PathBuf::from("/sys/fs/cgroup/unified")
            ]
        );
    }
}
