//! Builds the agent: another target (static), another profile (small), so a separate call of cargo with its
//! own target directory. C libraries that the outer call has built are not compiled again.

use std::{
    env,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The agent and all workspace crates that it depends on.
const SOURCES: &[&str] = &[
    "agent/protocol",
    "base/files",
    "cluster/backup",
    "machine/agent",
    "machine/backup",
    "machine/csi",
    "machine/etcd",
    "machine/image",
    "machine/program",
    "machine/vip",
    "Cargo.lock",
    "Cargo.toml",
];
const TARGET: &str = "x86_64-unknown-linux-gnu";
/// The path of an agent that was already built from the same sources: for packagers, which build it once, and
/// for checks of other crates, which do not need it.
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
    let libraries = built_libraries();
    if !libraries.is_empty() {
        let file = out.join("libraries.toml");
        fs::write(&file, libraries).expect("a build script may write into its own directory");
        cargo.arg("--config").arg(&file);
    }
    // Variables that the outer call set for itself (clippy's wrapper, its flags, coverage) must not reach
    // this one.
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let outer = text.starts_with("CARGO_")
            && text != "CARGO_HOME"
            // The job server of the outer call: both together use no more cores than one would.
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
        // Fat LTO with one codegen unit took three times as long for a program two thirds the size.
        .env("CARGO_PROFILE_RELEASE_LTO", "off")
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

/// A cargo configuration that replaces the build scripts of C libraries by their output in the outer call.
///
/// A crate with `links = "NAME"` passes its build directory to dependents as `DEP_NAME_ROOT`; the file
/// `output` beside that directory holds the build script's output. Without that file nothing is replaced, and
/// the library is compiled again.
fn built_libraries() -> String {
    let mut config = String::new();
    for (name, root) in env::vars() {
        let Some(name) = name
            .strip_prefix("DEP_")
            .and_then(|name| name.strip_suffix("_ROOT"))
        else {
            continue;
        };
        let output = Path::new(&root).with_file_name("output");
        let Ok(said) = fs::read_to_string(&output) else {
            println!("cargo::warning=no {}: {name} is compiled again", output.display());
            continue;
        };
        println!("cargo::rerun-if-changed={}", output.display());
        // aws-lc-rs passes the values of aws-lc-sys on, under its own name.
        let name = name.to_lowercase();
        let links = match name.strip_prefix("aws_lc_rs_") {
            Some(_) => match library_of(&said) {
                Some(links) => links,
                None => continue,
            },
            None => name,
        };
        writeln!(config, "[target.{TARGET}.{links}]").expect("a string takes it");
        config += &replacement(&said);
    }
    config
}

/// `aws_lc_0_47_0`, from a library `aws_lc_0_47_0_crypto`.
fn library_of(said: &str) -> Option<String> {
    said.lines()
        .find_map(|line| line.strip_prefix("cargo:libcrypto="))
        .and_then(|library| library.strip_suffix("_crypto"))
        .map(str::to_owned)
}

/// The output of a build script as a table of cargo's configuration: lists for the linker and the compiler,
/// the rest as metadata.
fn replacement(said: &str) -> String {
    const LISTS: [&str; 3] = ["rustc-link-lib", "rustc-link-search", "rustc-cfg"];
    let mut table = String::new();
    let directives: Vec<(&str, &str)> = said
        .lines()
        .filter_map(|line| line.strip_prefix("cargo:"))
        .filter_map(|line| line.trim_start_matches(':').split_once('='))
        .collect();
    for list in LISTS {
        let values: Vec<String> = directives
            .iter()
            .filter(|(key, _)| *key == list)
            .map(|(_, value)| format!("{value:?}"))
            .collect();
        if !values.is_empty() {
            writeln!(table, "{list} = [{}]", values.join(", ")).expect("a string takes it");
        }
    }
    for (key, value) in directives {
        // `rerun-if-…`, `rustc-…` and warnings are for the outer call.
        if !key.contains('-') && key != "warning" {
            writeln!(table, "{key} = {value:?}").expect("a string takes it");
        }
    }
    table
}
