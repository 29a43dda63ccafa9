//! The container images of every node, and their content.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use crate::{
    components::{Catalog, Component, Place, Program},
    error::ImageError,
    oci::{Image, Member},
    process, references,
};

/// All images, from the base system's static programs and the programs pinned for images (by name in `programs`).
pub(crate) fn images(
    catalog: &Catalog,
    base: &Path,
    programs: &BTreeMap<String, PathBuf>,
) -> Result<Vec<Image>, ImageError> {
    let mut images = vec![
        pause(base, references::PAUSE)?,
        busybox(base, references::BUSYBOX)?,
    ];
    for component in catalog
        .components
        .iter()
        .filter(|component| component.layer == Place::Images)
    {
        for program in &component.programs {
            let from = programs
                .get(&program.name)
                .expect("the builder makes every program of the plan first");
            let mut files = skeleton();
            files.push(directory("etc/ssl", 0o755));
            files.push(directory("etc/ssl/certs", 0o755));
            let certificates = "etc/ssl/certs/ca-certificates.crt";
            files.push(file(certificates, 0o644, base.join(certificates)));
            files.push(file(&program.name, 0o755, from.clone()));
            images.push(Image {
                reference: reference(component, program),
                created: component.build_date.clone(),
                entrypoint: vec![format!("/{}", program.name)],
                files,
                ..Image::default()
            });
        }
    }
    Ok(images)
}

/// The image reference of a pinned program in pods.
pub(crate) fn reference(component: &Component, program: &Program) -> String {
    format!("landfall.dev/{}:{}", program.name, component.version)
}

/// The last part of a reference, without its tag: the name of the archive.
pub(crate) fn name(reference: &str) -> &str {
    let last = reference.rsplit('/').next().unwrap_or(reference);
    last.split(':').next().unwrap_or(last)
}

/// The pause container of a pod, from a tree with Debian's catatonit, which is made for this: with `-P` it
/// starts no program, and reaps orphaned processes of the pod's other containers.
///
/// # Errors
/// [`ImageError::NoProgram`] when the tree has none.
pub fn pause(base: &Path, reference: &str) -> Result<Image, ImageError> {
    Ok(Image {
        reference: reference.to_owned(),
        created: EPOCH.to_owned(),
        entrypoint: vec!["/pause".to_owned(), "-P".to_owned()],
        files: vec![file("pause", 0o755, program(base, "catatonit")?)],
        ..Image::default()
    })
}

/// A shell and small programs, from a tree with Debian's static busybox.
///
/// # Errors
/// [`ImageError::NoProgram`] when the tree has none, and others when it does not list its applets.
pub fn busybox(base: &Path, reference: &str) -> Result<Image, ImageError> {
    let program = program(base, "busybox")?;
    let applets = process::ask(&program, &["--list"])?;
    let mut files = skeleton();
    files.push(directory("bin", 0o755));
    files.push(file("bin/busybox", 0o755, program));
    let mut names: Vec<_> = applets
        .lines()
        .map(str::trim)
        .filter(|name| is_applet(name))
        .collect();
    names.sort_unstable();
    names.dedup();
    files.extend(names.into_iter().map(|name| Member::Link {
        path: format!("bin/{name}"),
        target: "busybox".to_owned(),
    }));
    Ok(Image {
        reference: reference.to_owned(),
        created: EPOCH.to_owned(),
        command: vec!["sh".to_owned()],
        files,
        ..Image::default()
    })
}

const EPOCH: &str = "1970-01-01T00:00:00Z";

fn is_applet(name: &str) -> bool {
    !name.is_empty()
        && name != "busybox"
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"[-_.+".contains(&b))
}

/// Files that programs expect: names of the usual users, and writable directories.
pub(crate) fn skeleton() -> Vec<Member> {
    vec![
        directory("etc", 0o755),
        text(
            "etc/passwd",
            "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n",
        ),
        text("etc/group", "root:x:0:\nnogroup:x:65534:\n"),
        directory("root", 0o700),
        directory("tmp", 0o1777),
    ]
}

fn directory(path: &str, mode: u32) -> Member {
    Member::Directory {
        path: path.to_owned(),
        mode,
    }
}

fn file(path: &str, mode: u32, from: PathBuf) -> Member {
    Member::File {
        path: path.to_owned(),
        mode,
        from,
    }
}

fn text(path: &str, content: &str) -> Member {
    Member::Text {
        path: path.to_owned(),
        content: content.to_owned(),
    }
}

fn program(base: &Path, name: &str) -> Result<PathBuf, ImageError> {
    ["usr/bin", "bin", "usr/sbin"]
        .iter()
        .map(|directory| base.join(directory).join(name))
        .find(|path| path.is_file())
        .ok_or_else(|| ImageError::NoProgram {
            program: name.to_owned(),
            directory: base.display().to_string(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_are_named_after_their_images() {
        assert_eq!(name(references::COREDNS), "coredns");
        assert_eq!(name(references::PAUSE), "pause");
        assert_eq!(name("x"), "x");
    }

    #[test]
    fn only_plain_names_become_links() {
        assert!(is_applet("[["));
        assert!(is_applet("run-parts"));
        assert!(!is_applet("../../etc"));
        assert!(!is_applet(""));
        assert!(!is_applet("busybox"));
    }
}
