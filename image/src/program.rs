//! Finished programs, each stored under its key as soon as it is built: a killed build leaves them for the
//! next.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use serde::{Deserialize, Serialize};

use crate::{
    buildinfo,
    cgo::CToolchain,
    components::{Component, Module, Program, architecture},
    digest,
    error::{ImageError, IoContext as _},
    layer::{self, Linked},
    process::{self, Runner},
    release::{self, Download},
};

/// The way a program is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Recipe {
    /// `go build` in this directory, which holds go.mod and go.sum.
    Module {
        go: PathBuf,
        directory: PathBuf,
        /// Of a component that is partly in C.
        c: Option<CToolchain>,
    },
    /// A copy of this file.
    File(PathBuf),
    /// A download, from this mirror.
    Download(Download, Option<String>),
}

/// The metadata of a finished program. Stored beside it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Finished {
    pub(crate) sha256: String,
    pub(crate) size: u64,
    pub(crate) linked: Option<Linked>,
}

const RECORD: &str = "program.json";

/// The finished program under `key`, if it exists.
pub(crate) fn find(
    programs: &Path,
    key: &str,
    name: &str,
) -> Result<Option<(PathBuf, Finished)>, ImageError> {
    let directory = programs.join(key);
    let record = directory.join(RECORD);
    let text = match fs::read(&record) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.at("read", &record)?,
    };
    let finished = serde_json::from_slice(&text).map_err(|error| ImageError::Damaged {
        path: record.display().to_string(),
        detail: error.to_string(),
        remove: directory.display().to_string(),
    })?;
    Ok(Some((directory.join(name), finished)))
}

/// Whether the program in `directory` is unchanged since it was finished.
pub(crate) fn is_whole(directory: &Path) -> bool {
    let finished = || {
        let record: Finished = serde_json::from_slice(&fs::read(directory.join(RECORD)).ok()?).ok()?;
        let mut files = fs::read_dir(directory)
            .ok()?
            .flatten()
            .filter(|entry| entry.file_name() != RECORD);
        let program = files.next()?.path();
        Some(digest::of_file(&program).ok()? == record.sha256)
    };
    finished().unwrap_or(false)
}

/// The environment in which programs are built.
#[derive(Debug)]
pub(crate) struct Workshop<'a> {
    pub(crate) runner: &'a Runner,
    pub(crate) programs: &'a Path,
    pub(crate) downloads: &'a Path,
    pub(crate) scratch: &'a Path,
    pub(crate) log: PathBuf,
    /// The directory of Go's caches if there is no home directory.
    pub(crate) go_caches: &'a Path,
}

impl Workshop<'_> {
    /// Builds the program, checks its version, stores it under `key`.
    pub(crate) fn make(
        &self,
        component: &Component,
        program: &Program,
        recipe: &Recipe,
        key: &str,
    ) -> Result<(), ImageError> {
        let directory = self.scratch.join(format!("program-{key}"));
        fs::create_dir_all(&directory).at("create", &directory)?;
        let file = directory.join(&program.name);
        match recipe {
            Recipe::Module { go, directory, c } => {
                self.go_build(go, directory, c.as_ref(), component, program, &file)?;
            }
            Recipe::File(from) => fs::copy(from, &file).map(drop).at("copy", from)?,
            Recipe::Download(download, mirror) => {
                release::program(download, mirror.as_deref(), self.downloads, self.scratch, &file)?;
            }
        }
        layer::mode(&file, 0o755)?;
        check_version(&file, component, program)?;
        let mut info = buildinfo::of_file(&file)?;
        if let (Some(info), Recipe::Module { c: Some(c), .. }) = (&mut info, recipe) {
            info.libraries = c.libraries().to_vec();
        }
        let finished = Finished {
            sha256: digest::of_file(&file)?,
            size: file.metadata().at("read", &file)?.len(),
            linked: info.map(Linked::from),
        };
        let record = directory.join(RECORD);
        let text = serde_json::to_vec(&finished).expect("strings and numbers only");
        fs::write(&record, text).at("write", &record)?;
        fs::create_dir_all(self.programs).at("create", self.programs)?;
        let place = self.programs.join(key);
        fs::rename(&directory, &place).at("keep a finished program as", &place)
    }

    fn go_build(
        &self,
        go: &Path,
        module: &Path,
        c: Option<&CToolchain>,
        component: &Component,
        program: &Program,
        file: &Path,
    ) -> Result<(), ImageError> {
        let mut command = Command::new(go);
        go_environment(&mut command, self.go_caches);
        if let Some(c) = c {
            c.enable(&mut command);
        }
        command.current_dir(module).arg("build").args(COMPILER);
        if !component.tags.is_empty() {
            command.args(["-tags", &component.tags.join(",")]);
        }
        command
            .args(["-ldflags", &component.ldflags(), "-o"])
            .arg(file)
            .arg(&program.package);
        self.runner.run(&program.name, &mut command, &self.log)
    }
}

/// Settings besides the files that affect the result of `go build`. Proxies and caches are the user's.
const GO: &[(&str, &str)] = &[
    ("CGO_ENABLED", "0"),
    ("GO111MODULE", "on"),
    ("GOFLAGS", "-mod=readonly -buildvcs=false"),
    ("GOOS", "linux"),
    ("GOWORK", "off"),
    ("GOEXPERIMENT", ""),
    ("GOAMD64", "v1"),
    ("GOARM64", "v8.0"),
];

/// Arguments of `go build` besides the stamps. The linker drops DWARF anyway (`-w`), so the compiler need not
/// generate it; stack traces do not need it.
const COMPILER: &[&str] = &["-trimpath", "-gcflags=all=-dwarf=false"];

pub(crate) fn go_environment(command: &mut Command, caches: &Path) {
    command.envs(GO.iter().copied()).env("GOARCH", architecture());
    // A service may have no home; Go then needs the paths of its caches.
    let unset = |name: &str| std::env::var_os(name).is_none_or(|value| value.is_empty());
    if unset("HOME") {
        for (name, directory) in [("GOCACHE", "go-build"), ("GOPATH", "go")] {
            if unset(name) {
                command.env(name, caches.join(directory));
            }
        }
    }
}

/// All settings, for keys.
pub(crate) fn go_settings() -> impl Iterator<Item = String> {
    GO.iter()
        .map(|(name, value)| format!("{name}={value}"))
        .chain([format!("GOARCH={}", architecture())])
        .chain(COMPILER.iter().map(|flag| (*flag).to_owned()))
}

/// The directory with go.mod and go.sum, under a name made of their content: written once.
pub(crate) fn module_directory(modules: &Path, folder: &str, module: &Module) -> Result<PathBuf, ImageError> {
    let digest = digest::of_bytes(format!("{}\0{}", module.go_mod, module.go_sum).as_bytes());
    let place = modules.join(format!("{folder}-{}", crate::key::short(&digest)));
    if place.is_dir() {
        return Ok(place);
    }
    fs::create_dir_all(modules).at("create", modules)?;
    let scratch = modules.join(format!(".{folder}-{}", std::process::id()));
    fs::create_dir_all(&scratch).at("create", &scratch)?;
    for (name, content) in [("go.mod", &module.go_mod), ("go.sum", &module.go_sum)] {
        let path = scratch.join(name);
        fs::write(&path, content).at("write", &path)?;
    }
    match fs::rename(&scratch, &place) {
        // Another process was faster with the same content.
        Err(_) if place.is_dir() => fs::remove_dir_all(&scratch).at("remove", &scratch)?,
        other => other.at("write", &place)?,
    }
    Ok(place)
}

fn check_version(file: &Path, component: &Component, program: &Program) -> Result<(), ImageError> {
    let arguments: Vec<_> = program.ask.iter().map(String::as_str).collect();
    let answer = process::ask(file, &arguments)?;
    if says(&answer, component.number()) {
        return Ok(());
    }
    Err(ImageError::WrongVersion {
        program: program.name.clone(),
        wanted: component.version.clone(),
        said: answer
            .lines()
            .next()
            .unwrap_or("nothing")
            .chars()
            .take(120)
            .collect(),
    })
}

/// Whether `number` is in `answer` as a whole version, not as a part of another one.
fn says(answer: &str, number: &str) -> bool {
    answer.match_indices(number).any(|(at, _)| {
        let before = answer[..at].chars().next_back();
        let mut after = answer[at + number.len()..].chars();
        let alone = |c: Option<char>| !c.is_some_and(|c| c.is_ascii_digit());
        let next = after.next();
        // "1.36.3" is neither in "11.36.3", "0.1.36.3" nor in "1.36.30", "1.36.3.1", "1.36.3-rc.1".
        alone(before)
            && before != Some('.')
            && alone(next)
            && next != Some('-')
            && !(next == Some('.') && after.next().is_some_and(|c| c.is_ascii_digit()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_recognised_as_a_whole() {
        for answer in [
            "Kubernetes v1.36.3\n",
            "etcd Version: 1.36.3\nGit",
            "(1.36.3)",
            "CNI x plugin v1.36.3",
            "at 1.36.3.",
        ] {
            assert!(says(answer, "1.36.3"), "{answer}");
        }
        for answer in [
            "v1.36.30",
            "v11.36.3",
            "v1.36.3-rc.0",
            "v0.1.36.3",
            "1.36.3.1",
            "v0.0.0-master",
            "",
        ] {
            assert!(!says(answer, "1.36.3"), "{answer}");
        }
    }

    #[test]
    fn a_module_directory_is_written_once_per_content() {
        let dir = tempfile::tempdir().unwrap();
        let module = |text: &str| Module {
            go_mod: text.to_owned(),
            go_sum: String::new(),
        };
        let one = module_directory(dir.path(), "etcd", &module("a")).unwrap();
        assert_eq!(module_directory(dir.path(), "etcd", &module("a")).unwrap(), one);
        assert_ne!(module_directory(dir.path(), "etcd", &module("b")).unwrap(), one);
        assert_eq!(fs::read_to_string(one.join("go.mod")).unwrap(), "a");
    }
}
