//! Components that are partly in C, and what this host compiles them with.
//!
//! Always true: such a program is static, so that it runs in machines whatever libc the host has that compiled it; all that
//! gets into it from the host (compiler, libc, libraries) is part of its key, and the libraries are in the bill of
//! materials. What the host lacks is told when a build is planned, not in the middle of it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde::Deserialize;

use crate::{
    components::Catalog,
    digest,
    error::{ImageError, IoContext as _},
    store::Tools,
};

/// The archive of the libc.
const LIBC: &str = "libc.a";
/// For compiler and linker; without debug information, which the linker would leave out.
const FLAGS: &str = "-O2";
/// Variables by which other files would get into a program than those that its key tells of.
const UNSET: &[&str] = &[
    "CGO_CPPFLAGS",
    "COMPILER_PATH",
    "CPATH",
    "C_INCLUDE_PATH",
    "GCC_EXEC_PREFIX",
    "LIBRARY_PATH",
    "PKG_CONFIG_LIBDIR",
    "PKG_CONFIG_PATH",
    "PKG_CONFIG_SYSROOT_DIR",
];
/// The text in a libc that tells its version begins with this; the length to look for the version in.
const BANNER: (&[u8], usize) = (b"GNU C Library (", 120);

/// What a component that is partly in C needs on the host that compiles it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Cgo {
    /// C libraries besides the libc, like `libseccomp`: pkg-config's name, and without `.a` that of the archive.
    pub(crate) libraries: Vec<String>,
    /// The Debian packages with compiler, pkg-config and libraries.
    pub(crate) packages: Vec<String>,
}

/// The Debian packages that a host needs to compile the components that are partly in C, each once.
pub fn build_packages() -> Vec<String> {
    let mut packages = Vec::new();
    for cgo in Catalog::embedded()
        .components
        .into_iter()
        .filter_map(|component| component.cgo)
    {
        for package in cgo.packages {
            if !packages.contains(&package) {
                packages.push(package);
            }
        }
    }
    packages
}

/// The C compiler of this host, and the libraries that a component is linked to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CToolchain {
    gcc: PathBuf,
    pkg_config: PathBuf,
    /// Name and version.
    libraries: Vec<(String, String)>,
    /// What the result depends on.
    inputs: Vec<String>,
}

impl CToolchain {
    /// Looks for everything that compiling `component` needs.
    pub(crate) fn of_this_host(tools: &Tools, component: &str, cgo: &Cgo) -> Result<Self, ImageError> {
        let lacking = |what: &str| ImageError::NoCompiler {
            component: component.to_owned(),
            lacking: what.to_owned(),
            packages: cgo.packages.join(" "),
        };
        let gcc = tools.gcc.clone().ok_or_else(|| lacking("gcc"))?;
        let pkg_config = tools.pkg_config.clone().ok_or_else(|| lacking("pkg-config"))?;

        let compiler = said(&gcc, &["--version"]).ok_or_else(|| lacking("gcc"))?;
        let libc = archive(&gcc, "", LIBC).ok_or_else(|| lacking(LIBC))?;
        let mut inputs = vec![compiler, FLAGS.to_owned(), digest::of_file(&libc)?];
        let mut libraries = vec![libc_version(&fs::read(&libc).at("read", &libc)?)];
        for name in &cgo.libraries {
            let asked = |question: &str| said(&pkg_config, &[question, name]).ok_or_else(|| lacking(name));
            let (version, headers, flags) = (asked("--modversion")?, asked("--cflags")?, asked("--libs")?);
            let file = format!("{name}.a");
            let archive = archive(&gcc, &flags, &file).ok_or_else(|| lacking(&file))?;
            libraries.push((name.clone(), version.clone()));
            inputs.extend([name.clone(), version, headers, flags, digest::of_file(&archive)?]);
        }
        Ok(Self {
            gcc,
            pkg_config,
            libraries,
            inputs,
        })
    }

    /// Has `go build` compile the parts in C, with this compiler.
    pub(crate) fn enable(&self, command: &mut Command) {
        forget(command);
        command
            .env("CGO_ENABLED", "1")
            .env("CC", &self.gcc)
            .env("PKG_CONFIG", &self.pkg_config)
            .env("CGO_CFLAGS", FLAGS)
            .env("CGO_LDFLAGS", FLAGS);
    }

    /// The libraries that get into the program, the libc first: name and version.
    pub(crate) fn libraries(&self) -> &[(String, String)] {
        &self.libraries
    }

    /// For keys.
    pub(crate) fn inputs(&self) -> impl Iterator<Item = &str> {
        self.inputs.iter().map(String::as_str)
    }
}

fn forget(command: &mut Command) {
    for variable in UNSET {
        command.env_remove(variable);
    }
}

/// The output of a tool; `None` if it fails.
fn said(program: &Path, arguments: &[&str]) -> Option<String> {
    let mut command = Command::new(program);
    forget(&mut command);
    let output = command
        .args(arguments)
        .env("LC_ALL", "C")
        .output()
        .inspect_err(|error| tracing::warn!(program = %program.display(), %error, "cannot be run"))
        .ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The archive that the linker takes: from a directory that `flags` name with `-L`, else from its own.
fn archive(gcc: &Path, flags: &str, name: &str) -> Option<PathBuf> {
    let named = flags
        .split_whitespace()
        .filter_map(|flag| flag.strip_prefix("-L"))
        .map(|directory| Path::new(directory).join(name))
        .find(|path| path.is_file());
    named.or_else(|| {
        // A name that it does not know is answered as it is.
        let path = PathBuf::from(said(gcc, &[&format!("-print-file-name={name}")])?);
        (path.is_absolute() && path.is_file()).then_some(path)
    })
}

/// Name and version of a libc. Debian's version is in the text that the GNU one has for people:
/// `GNU C Library (Debian GLIBC 2.36-9+deb12u10) stable release version 2.36.`
fn libc_version(archive: &[u8]) -> (String, String) {
    let (begin, length) = BANNER;
    let version = archive
        .windows(begin.len())
        .position(|window| window == begin)
        .and_then(|at| archive.get(at + begin.len()..))
        .and_then(|text| {
            let text = String::from_utf8_lossy(text.get(..length).unwrap_or(text));
            text.split(|c: char| c.is_whitespace() || c == ')')
                .find(|word| word.starts_with(|c: char| c.is_ascii_digit()))
                .map(|word| word.trim_end_matches('.').to_owned())
        });
    match version {
        Some(version) => ("glibc".to_owned(), version),
        None => ("libc".to_owned(), "unknown".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ImageStore, Silent, Source,
        fixture::{calls, script, store},
    };

    const LIBC_TEXT: &str =
        "\0GNU C Library (Debian GLIBC 2.36-9+deb12u10) stable release version 2.36.\nCopyright\0";

    /// A store whose etcd is partly in C. Its gcc and pkg-config find the archives in `cache/lib`.
    fn partly_in_c(cache: &Path) -> ImageStore {
        let mut store = store(cache);
        let etcd = store.catalog.components.iter_mut().find(|c| c.name == "etcd");
        let etcd = etcd.unwrap();
        etcd.tags = vec!["seccomp".to_owned(), "netgo".to_owned()];
        etcd.cgo = Some(Cgo {
            libraries: vec!["libseccomp".to_owned()],
            packages: vec!["gcc".to_owned(), "libseccomp-dev".to_owned()],
        });
        let lib = cache.join("lib");
        fs::create_dir_all(&lib).unwrap();
        let lib = lib.display();
        let gcc = format!(
            "#!/bin/sh\ncase $1 in --version) echo 'gcc 12.2.0'; exit;; esac\nname=${{1#*=}}\n\
             [ -f '{lib}'/$name ] && echo '{lib}'/$name || echo $name\n"
        );
        let pkg_config = format!(
            "#!/bin/sh\n[ -f '{lib}'/$2.a ] || exit 1\ncase $1 in --modversion) echo 2.5.4;; --libs) echo -lseccomp;; esac\n"
        );
        store.tools.gcc = Some(script(cache, "gcc", &gcc));
        store.tools.pkg_config = Some(script(cache, "pkg-config", &pkg_config));
        store
    }

    fn has(cache: &Path, archive: &str, content: &str) {
        fs::write(cache.join("lib").join(archive), content).unwrap();
    }

    #[test]
    fn what_a_host_lacks_is_told_before_anything_is_built() {
        let dir = tempfile::tempdir().unwrap();
        let full = partly_in_c(dir.path());
        let refused = |store: &ImageStore| {
            let error = store
                .ensure("1.36.3", &Source::Modules, &Silent)
                .unwrap_err()
                .to_string();
            let (lacking, rest) = error
                .strip_prefix("etcd is partly in C, and ")
                .and_then(|rest| rest.split_once(" to compile that is missing: "))
                .unwrap_or_else(|| panic!("{error}"));
            assert!(
                rest.starts_with("run 'apt-get install gcc libseccomp-dev', or bring a finished image"),
                "{error}"
            );
            lacking.to_owned()
        };
        let mut bare = full.clone();
        bare.tools.gcc = None;
        assert_eq!(refused(&bare), "gcc");
        let mut bare = full.clone();
        bare.tools.pkg_config = None;
        assert_eq!(refused(&bare), "pkg-config");
        assert_eq!(refused(&full), "libc.a");
        has(dir.path(), "libc.a", LIBC_TEXT);
        assert_eq!(refused(&full), "libseccomp");
        assert!(calls(dir.path()).is_empty());
        has(dir.path(), "libseccomp.a", "one");
        full.ensure("1.36.3", &Source::Modules, &Silent).unwrap();
        // Nothing is compiled from programs that are brought along.
        let mut bare = full;
        bare.tools.gcc = None;
        let error = bare.build("1.36.3", &Source::Directory("/nowhere".into()), &Silent);
        assert!(matches!(error, Err(ImageError::NoProgram { .. })), "{error:?}");
    }

    #[test]
    fn only_what_is_partly_in_c_is_compiled_so() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = partly_in_c(dir.path());
        has(dir.path(), "libc.a", LIBC_TEXT);
        has(dir.path(), "libseccomp.a", "one");
        let told = dir.path().join("told");
        let go = format!(
            "#!/bin/sh\nfor last; do :; done\n[ \"$1\" = env ] || echo \"$last $CGO_ENABLED $CGO_CFLAGS ${{CC##*/}} $*\" >> '{}'\nexec '{}' \"$@\"\n",
            told.display(),
            store.tools.go.as_ref().unwrap().display()
        );
        store.tools.go = Some(script(dir.path(), "telling-go", &go));
        store.ensure("1.36.3", &Source::Modules, &Silent).unwrap();
        let told = fs::read_to_string(told).unwrap();
        assert_eq!(told.lines().count(), 4, "{told}");
        for line in told.lines() {
            if line.starts_with("go.etcd.io/etcd ") {
                assert!(line.starts_with("go.etcd.io/etcd 1 -O2 gcc build "), "{line}");
                assert!(line.contains(" -tags seccomp,netgo "), "{line}");
            } else {
                assert_eq!(line.split(' ').nth(1), Some("0"), "{line}");
                assert!(!line.contains("-tags"), "{line}");
            }
        }
    }

    #[test]
    fn a_mended_library_makes_the_program_anew() {
        let dir = tempfile::tempdir().unwrap();
        let store = partly_in_c(dir.path());
        has(dir.path(), "libc.a", LIBC_TEXT);
        has(dir.path(), "libseccomp.a", "one");
        let build = || store.build("1.36.3", &Source::Modules, &Silent).unwrap();
        let before = build();
        assert_eq!(build().key, before.key);
        has(dir.path(), "libseccomp.a", "two");
        let after = build();
        assert_ne!(after.key, before.key);
        let calls = calls(dir.path());
        let times = |name: &str| calls.iter().filter(|call| *call == name).count();
        assert_eq!((times("etcd"), times("kubelet"), times("base")), (2, 1, 1));
    }

    #[test]
    fn the_version_of_a_libc_is_read_from_it() {
        let of = |text: &str| libc_version(text.as_bytes());
        let glibc = |version: &str| ("glibc".to_owned(), version.to_owned());
        assert_eq!(of(LIBC_TEXT), glibc("2.36-9+deb12u10"));
        assert_eq!(
            of("GNU C Library (GNU libc) stable release version 2.40."),
            glibc("2.40")
        );
        for other in ["", "musl", "GNU C Library ("] {
            assert_eq!(of(other), ("libc".to_owned(), "unknown".to_owned()), "{other}");
        }
    }

    #[test]
    fn pinned_programs_that_are_partly_in_c_are_static() {
        let catalog = Catalog::embedded();
        let partly: Vec<_> = catalog.components.iter().filter(|c| c.cgo.is_some()).collect();
        assert!(partly.iter().any(|component| component.name == "runc"));
        for component in partly {
            assert!(
                component.ldflags().contains("-extldflags -static"),
                "{} would need the libraries of the host that compiles it",
                component.name
            );
            // Go's own resolver and users: those of a static libc would load libraries when they are asked.
            for wanted in ["netgo", "osusergo"] {
                let has = component.tags.iter().any(|tag| tag == wanted);
                assert!(has, "{} lacks the tag {wanted}", component.name);
            }
        }
        assert!(!catalog.base.packages.iter().any(|package| package == "runc"));
        assert_eq!(
            build_packages(),
            ["gcc", "libc6-dev", "pkg-config", "libseccomp-dev"]
        );
    }
}
