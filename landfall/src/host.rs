//! Running programs of the host.
//!
//! Always true: an error names the program and its last output; output of a program never goes directly to
//! the terminal; [`run`] runs the same file that [`find`] finds.

use std::{
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

/// Searched after PATH: with `sudo`, `su` and service managers, PATH may lack the administrator's
/// directories.
const MORE: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/local/sbin", "/usr/local/go/bin"];

/// Runs a program to its end. Returns its standard output.
pub(crate) fn run<S: AsRef<OsStr>>(program: &str, arguments: &[S]) -> Result<String> {
    run_command(Command::new(program).args(arguments))
}

/// As [`run`], with a prepared command.
pub(crate) fn run_command(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .env("PATH", search_path())
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        let text = if text.trim().is_empty() {
            String::from_utf8_lossy(&output.stdout)
        } else {
            text
        };
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        let tail = lines[lines.len().saturating_sub(3)..].join(" · ");
        bail!("{program} ended with {}: {tail}", output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// PATH for programs that this one runs: its own, and the administrator's directories.
pub(crate) fn search_path() -> OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let all = std::env::split_paths(&path).chain(MORE.map(PathBuf::from));
    // A directory of PATH cannot contain the separator.
    std::env::join_paths(all).unwrap_or(path)
}

/// The path of a program, if it is installed.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    find_in(&search_path(), program)
}

/// The path at which a user's shell finds a program by its name.
pub(crate) fn on_path(program: &str) -> Option<PathBuf> {
    find_in(&std::env::var_os("PATH")?, program)
}

fn find_in(path: &OsStr, program: &str) -> Option<PathBuf> {
    std::env::split_paths(path)
        .map(|dir| dir.join(program))
        .find(|file| nix::unistd::access(file, nix::unistd::AccessFlags::X_OK).is_ok() && file.is_file())
}

/// Cores of this host.
pub(crate) fn cores() -> u64 {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    u64::try_from(cores).unwrap_or(u64::MAX)
}

/// Memory of this host, if /proc shows it.
pub(crate) fn memory_mib() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let kib: u64 = text.lines().next()?.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1024)
}

/// A path in shell syntax.
pub(crate) fn quoted(path: &Path) -> String {
    let text = path.to_string_lossy();
    if text
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c))
    {
        text.into_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_quoted_for_a_shell() {
        assert_eq!(quoted(Path::new("/var/lib/x-1")), "/var/lib/x-1");
        assert_eq!(quoted(Path::new("/a b/c'd")), r"'/a b/c'\''d'");
    }

    #[test]
    fn a_program_is_a_file_that_can_be_run() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tool");
        std::fs::write(&file, "").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        std::fs::create_dir(dir.path().join("folder")).unwrap();
        assert_eq!(find_in(dir.path().as_os_str(), "tool"), None);
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(find_in(dir.path().as_os_str(), "tool"), Some(file));
        assert_eq!(find_in(dir.path().as_os_str(), "folder"), None);
    }
}
