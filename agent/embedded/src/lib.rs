//! The agent's static binary, embedded: a host needs only the one `landfall` binary.
//!
//! Built by this crate's build script. Always true: it is the release build of `machine/agent` of the same sources.

/// The program, a static ELF executable.
pub const AGENT: &[u8] = include_bytes!(env!("LANDFALL_AGENT"));

#[cfg(test)]
mod tests {
    #[test]
    fn it_is_a_static_program_that_says_its_version() {
        let directory = std::env::temp_dir().join(format!("landfall-agent-{}", std::process::id()));
        std::fs::write(&directory, super::AGENT).unwrap();
        std::fs::set_permissions(&directory, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        // An empty root has no loader and no libraries: only a static program runs there. Without root, a plain start.
        let output = std::process::Command::new(&directory)
            .arg("--version")
            .output()
            .unwrap();
        std::fs::remove_file(&directory).unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!(
            said.trim(),
            format!("landfall-agent {}", env!("CARGO_PKG_VERSION"))
        );
        let dynamic = super::AGENT
            .windows(b"/ld-linux".len())
            .any(|window| window == b"/ld-linux");
        assert!(!dynamic, "the program asks for a loader");
    }
}
