//! What a test needs of its host. A test that cannot run is told as skipped; it never passes silently.

use std::{
    env,
    fs::{self, OpenOptions},
    io::Write as _,
    path::{Path, PathBuf},
    thread,
};

/// Names the file that skipped tests are written to, a line each: `NAME: WHY`. Set by `cargo xtask test`, which counts them.
pub const SKIPPED: &str = "LANDFALL_TEST_SKIPPED";
/// Names etcd.
pub const ETCD: &str = "LANDFALL_TEST_ETCD";
/// Names etcdutl.
pub const ETCDUTL: &str = "LANDFALL_TEST_ETCDUTL";
/// The layers of a node image, top first, separated by colons.
pub const LAYERS: &str = "LANDFALL_TEST_LAYERS";

/// Tells that the calling test cannot run on this host, and why. The test returns after it.
///
/// # Panics
/// When the list of skipped tests cannot be written: a skipped test that nobody counts would pass.
#[expect(
    clippy::print_stderr,
    reason = "people who run one test see why it did nothing"
)]
pub fn skipped(why: &str) {
    let thread = thread::current();
    let name = thread.name().unwrap_or("a test");
    eprintln!("skipped: {name}: {why}");
    if let Some(file) = env::var_os(SKIPPED) {
        let line = format!("{name}: {why}\n");
        let written = OpenOptions::new()
            .append(true)
            .create(true)
            .open(&file)
            // One write a line: lines of tests that run side by side do not mix.
            .and_then(|mut file| file.write_all(line.as_bytes()));
        if let Err(error) = written {
            panic!("cannot write to {}: {error}", Path::new(&file).display());
        }
    }
}

/// What an environment variable names; without it the test is skipped.
pub fn file(variable: &str) -> Option<PathBuf> {
    let found = env::var_os(variable).map(PathBuf::from);
    if found.is_none() {
        skipped(&format!("{variable} is not set; 'cargo xtask test' sets it"));
    }
    found
}

/// Whether the test has root and these programs; otherwise it is skipped.
pub fn root_and(programs: &[&str]) -> bool {
    let root = fs::read_to_string("/proc/self/status").is_ok_and(|status| status.contains("\nUid:\t0\t0"));
    if !root {
        skipped("needs root");
        return false;
    }
    let places = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];
    let missing: Vec<&str> = programs
        .iter()
        .filter(|name| !places.iter().any(|place| Path::new(place).join(name).exists()))
        .copied()
        .collect();
    if !missing.is_empty() {
        skipped(&format!("needs {}", missing.join(", ")));
    }
    missing.is_empty()
}
