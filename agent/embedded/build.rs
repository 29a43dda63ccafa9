//! Builds the agent: another target (static), another profile (small), so another call of cargo with a directory of its
//! own, beside the one that calls us.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

/// The agent and every crate of ours that is in it.
const SOURCES: &[&str] = &[
    "agent/protocol",
    "base/files",
    "cluster/backup",
    "machine/agent",
    "machine/backup",
    "machine/etcd",
    "machine/program",
    "machine/vip",
    "Cargo.lock",
    "Cargo.toml",
];
const TARGET: &str = "x86_64-unknown-linux-gnu";
/// Names an agent that was built before, of the same sources: packagers build it once, and checks of other crates need none.
const PREBUILT: &str = "LANDFALL_AGENT_PREBUILT";

fn main() {
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let workspace = here
        .ancestors()
        .nth(2)
        .expect("agent/embedded is two levels below the workspace")
        .to_owned();
    for source in SOURCES {
        println!("cargo::rerun-if-changed={}", workspace.join(source).display());
    }
    println!("cargo::rerun-if-env-changed={PREBUILT}");
    if let Some(prebuilt) = env::var_os(PREBUILT) {
        let prebuilt = PathBuf::from(prebuilt);
        assert!(prebuilt.is_file(), "{PREBUILT} names no file");
        println!("cargo::rerun-if-changed={}", prebuilt.display());
        println!("cargo::rustc-env=LANDFALL_AGENT={}", prebuilt.display());
        return;
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    let target = target_directory(&out).join("agent");

    let mut cargo = Command::new(env::var_os("CARGO").expect("cargo sets it"));
    cargo
        .current_dir(&workspace)
        .args([
            "build",
            "--locked",
            "--release",
            "--package",
            "machine-agent",
            "--bin",
            "landfall-agent",
            "--target",
            TARGET,
        ])
        .arg("--target-dir")
        .arg(&target);
    // What the outer call set for itself (clippy's wrapper, its flags, coverage) is not for this one.
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let outer = text.starts_with("CARGO_")
            && text != "CARGO_HOME"
            // The job server of the outer call: both together take no more cores than one would.
            && text != "CARGO_MAKEFLAGS"
            && !text.starts_with("CARGO_REGISTRIES")
            && !text.starts_with("CARGO_NET")
            && !text.starts_with("CARGO_HTTP")
            && !text.starts_with("CARGO_SOURCE");
        if outer || text.starts_with("RUSTC") || text == "CLIPPY_ARGS" || text == "RUSTFLAGS" {
            cargo.env_remove(&name);
        }
    }
    cargo
        .env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=+crt-static")
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "s")
        .env("CARGO_PROFILE_RELEASE_LTO", "fat")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1")
        .env("CARGO_PROFILE_RELEASE_PANIC", "abort")
        .env("CARGO_PROFILE_RELEASE_STRIP", "symbols");
    let status = cargo.status().expect("cargo can be called again");
    assert!(status.success(), "the agent could not be built");

    let built = target.join(TARGET).join("release/landfall-agent");
    println!("cargo::rustc-env=LANDFALL_AGENT={}", built.display());
}

/// The directory that holds `debug` and `release`, found from a build script's own directory in it.
fn target_directory(out: &Path) -> &Path {
    // …/target/{profile}/build/{package}-{hash}/out
    out.ancestors()
        .nth(4)
        .expect("a build script's directory lies four levels below the target directory")
}
