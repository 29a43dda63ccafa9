//! Requirements of tests on their host. A test that cannot run is reported as skipped; it never passes
//! silently.

use std::{
    env,
    fs::{self, OpenOptions},
    io::Write as _,
    path::{Path, PathBuf},
    thread,
};

/// The path of the file that skipped tests are written to, one line each: `NAME: WHY`. Set by
/// `cargo xtask test`, which counts them.
pub const SKIPPED: &str = "LANDFALL_TEST_SKIPPED";
/// The path of etcd.
pub const ETCD: &str = "LANDFALL_TEST_ETCD";
/// The path of etcdutl.
pub const ETCDUTL: &str = "LANDFALL_TEST_ETCDUTL";
/// The layers of a node image, top first, separated by colons.
pub const LAYERS: &str = "LANDFALL_TEST_LAYERS";

/// Reports that the calling test cannot run on this host, and why. The test returns after it.
///
/// # Panics
/// When the list of skipped tests cannot be written: an uncounted skipped test would pass.
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
            // One write per line: lines of parallel tests do not mix.
            .and_then(|mut file| file.write_all(line.as_bytes()));
        if let Err(error) = written {
            panic!("cannot write to {}: {error}", Path::new(&file).display());
        }
    }
}

/// The path in an environment variable; without it the test is skipped.
pub fn file(variable: &str) -> Option<PathBuf> {
    let found = env::var_os(variable).map(PathBuf::from);
    if found.is_none() {
        skipped(&format!("{variable} is not set; 'cargo xtask test' sets it"));
    }
    found
}

/// Whether the test runs as root and these programs exist; otherwise it is skipped.
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
