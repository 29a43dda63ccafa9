//! The store from the outside, with fake tools.

use std::{fs, sync::Mutex};

use crate::{
    Event, ImageError, Release, Silent, Source, digest,
    fixture::{calls, script, store},
    references,
};

const ALL: [&str; 5] = ["base", "coredns", "etcd", "kubectl", "kubelet"];

fn sorted(mut calls: Vec<String>) -> Vec<String> {
    calls.sort();
    calls
}

#[test]
fn an_image_is_built_once_and_complete() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    assert!(store.find("1.36.3").unwrap().is_none());
    let estimate = store.estimate("1.36", &Source::Modules).unwrap();
    assert_eq!(estimate.steps.len(), 7);
    assert!(estimate.cached.is_empty());

    let seen = Mutex::new(Vec::new());
    let progress = |event: Event<'_>| seen.lock().unwrap().push(format!("{event:?}"));
    let image = store.ensure("v1.36.3", &Source::Modules, &progress).unwrap();
    assert_eq!(sorted(calls(dir.path())), ALL);
    let seen = seen.into_inner().unwrap();
    assert!(seen[0].starts_with("Planned"), "{}", seen[0]);
    assert_eq!(
        seen.iter().filter(|event| event.starts_with("Finished")).count(),
        7
    );

    assert_eq!(image.version, "1.36.3");
    assert_eq!(image.layers.len(), 3);
    assert!(image.layers[0].join("usr/local/bin/kubelet").is_file());
    assert!(image.layers[1].join("opt/landfall/images/pause.tar").is_file());
    assert!(image.layers[2].join("var/lib/kubelet").is_dir());
    assert_eq!(
        image.program("kubectl").unwrap(),
        image.layers[0].join("usr/local/bin/kubectl")
    );
    assert_eq!(image.program("coredns"), None);
    let references: Vec<_> = image
        .manifest
        .images
        .iter()
        .map(|image| image.reference.as_str())
        .collect();
    assert_eq!(
        references,
        [references::PAUSE, references::BUSYBOX, references::COREDNS]
    );
    assert_eq!(image.manifest.packages[0].name, "runc");
    assert!(image.sbom().is_file());

    // Again, in all ways: nothing is run.
    for _ in 0..2 {
        assert_eq!(
            store.ensure("1.36", &Source::Modules, &Silent).unwrap().key,
            image.key
        );
        assert_eq!(
            store.build("1.36.3", &Source::Modules, &Silent).unwrap().key,
            image.key
        );
    }
    assert_eq!(calls(dir.path()).len(), ALL.len());
    assert_eq!(store.list().unwrap().len(), 1);
    assert!(!dir.path().join("node-images/scratch").exists());
}

#[test]
fn a_failed_build_keeps_what_is_finished() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    fs::write(dir.path().join("broken"), "kubectl\n").unwrap();
    let error = store.ensure("1.36.3", &Source::Modules, &Silent).unwrap_err();
    assert!(
        matches!(&error, ImageError::Failed { what, detail, .. } if what == "kubectl" && detail == "undefined: kubectl"),
        "{error}"
    );
    assert!(store.find("1.36.3").unwrap().is_none());

    fs::remove_file(dir.path().join("broken")).unwrap();
    let seen = Mutex::new(Vec::new());
    let progress = |event: Event<'_>| {
        if let Event::Cached { step } = event {
            seen.lock().unwrap().push(step.to_owned());
        }
    };
    store.ensure("1.36.3", &Source::Modules, &progress).unwrap();
    // The other lane was interrupted at any point; this one had finished its first program.
    let calls = calls(dir.path());
    assert_eq!(calls.iter().filter(|call| *call == "kubelet").count(), 1);
    assert!(seen.into_inner().unwrap().contains(&"kubelet".to_owned()));
}

#[test]
fn what_a_killed_build_left_is_cleaned_and_a_lost_layer_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let left = dir.path().join("node-images/scratch/base-x/rootfs/etc");
    fs::create_dir_all(&left).unwrap();
    let image = store.ensure("1.36.3", &Source::Modules, &Silent).unwrap();
    assert!(!left.exists());
    fs::remove_dir_all(image.layers[0].parent().unwrap()).unwrap();
    assert!(store.find("1.36.3").unwrap().is_none());
    let again = store.ensure("1.36.3", &Source::Modules, &Silent).unwrap();
    assert_eq!(again.key, image.key);
    assert!(again.layers[0].is_dir());
    assert_eq!(calls(dir.path()).len(), ALL.len());
}

#[test]
fn missing_tools_are_named_before_anything_starts() {
    let dir = tempfile::tempdir().unwrap();
    let full = store(dir.path());
    let with = |change: &dyn Fn(&mut crate::Tools)| {
        let mut store = full.clone();
        change(&mut store.tools);
        store.ensure("1.36.3", &Source::Modules, &Silent).unwrap_err()
    };
    let error = with(&|tools| tools.go = None);
    assert!(
        error.to_string().contains("install Go 1.26.0 or newer"),
        "{error}"
    );
    assert!(matches!(
        with(&|tools| tools.mmdebstrap = None),
        ImageError::NoMmdebstrap
    ));
    assert!(matches!(with(&|tools| tools.root = false), ImageError::NotRoot));
    let old = script(dir.path(), "old-go", "#!/bin/sh\necho go1.19.8\n");
    let error = with(&|tools| tools.go = Some(old.clone()));
    assert!(error.to_string().contains("go1.19.8 is too old"), "{error}");
    assert!(calls(dir.path()).is_empty());
    assert!(matches!(
        full.ensure("1.5.0", &Source::Modules, &Silent),
        Err(ImageError::UnknownVersion { .. })
    ));
    // With an existing image none of them is needed.
    full.ensure("1.36.3", &Source::Modules, &Silent).unwrap();
    let mut bare = full.clone();
    bare.tools.go = None;
    bare.ensure("1.36.3", &Source::Modules, &Silent).unwrap();
}

#[test]
fn brought_along_programs_are_asked_for_their_version() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let brought = dir.path().join("brought");
    fs::create_dir_all(brought.join("bin")).unwrap();
    let source = Source::Directory(brought.clone());
    let error = store.ensure("1.36.3", &source, &Silent).unwrap_err();
    assert!(
        matches!(&error, ImageError::NoProgram { program, .. } if program == "kubelet"),
        "{error}"
    );
    let bring = |name: &str, version: &str| {
        script(
            &brought.join("bin"),
            name,
            &format!("#!/bin/sh\necho '{name} {version}'\n"),
        );
    };
    bring("kubelet", "v1.36.3");
    bring("kubectl", "v1.36.4");
    bring("etcd", "3.6.16");
    bring("coredns", "CoreDNS-1.15.0");
    let error = store.ensure("1.36.3", &source, &Silent).unwrap_err();
    assert_eq!(
        error.to_string(),
        "kubectl says it is 'kubectl v1.36.4' and version v1.36.3 is pinned: bring that version"
    );
    bring("kubectl", "v1.36.3");
    let image = store.ensure("1.36.3", &source, &Silent).unwrap();
    assert_eq!(image.manifest.source, "directory");
    assert!(
        calls(dir.path()).iter().all(|call| call == "base"),
        "nothing was compiled"
    );
}

#[test]
fn a_release_needs_a_pin_for_each_program() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let source = Source::Release(Release::default());
    let error = store.ensure("1.36.3", &source, &Silent).unwrap_err();
    assert!(
        matches!(&error, ImageError::MissingPin { url } if url == "https://dl.k8s.io/v1.36.3/kubelet"),
        "{error}"
    );
}

#[test]
fn verify_names_every_difference() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    assert!(matches!(store.verify("1.36.3"), Err(ImageError::NotBuilt { .. })));
    let image = store.ensure("1.36.3", &Source::Modules, &Silent).unwrap();
    let found = store.verify("1.36.3").unwrap();
    assert_eq!(found.differences, []);
    assert!(found.paths > 20 && found.bytes > 0);

    fs::write(
        image.layers[0].join("usr/local/bin/kubelet"),
        "#!/bin/sh\necho evil\n",
    )
    .unwrap();
    fs::remove_file(image.layers[1].join("opt/landfall/images/coredns.tar")).unwrap();
    fs::write(image.layers[2].join("etc/new"), "").unwrap();
    fs::write(image.sbom(), "{}").unwrap();
    let found = store.verify("1.36.3").unwrap();
    let text: Vec<_> = found.differences.iter().map(ToString::to_string).collect();
    assert_eq!(text.len(), 4, "{text:#?}");
    assert!(text[0].contains("sbom.spdx.json has SHA-256"), "{text:#?}");
    assert!(
        text[1].starts_with("kubernetes:/usr/local/bin/kubelet has SHA-256"),
        "{text:#?}"
    );
    assert_eq!(text[2], "common:/opt/landfall/images/coredns.tar is missing");
    assert_eq!(text[3], "base:/etc/new does not belong here");
}

#[test]
fn an_exported_image_is_the_same_elsewhere() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let from = store(here.path());
    let image = from.ensure("1.36.3", &Source::Modules, &Silent).unwrap();
    let file = here.path().join("image.tar.zst");
    from.export("1.36.3", &file).unwrap();

    // A store without build tools.
    let mut to = store(there.path());
    (to.tools.go, to.tools.mmdebstrap) = (None, None);
    let imported = to.import(&file).unwrap();
    assert_eq!(imported.manifest, image.manifest);
    assert_eq!(to.verify("1.36.3").unwrap().differences, []);
    assert_eq!(
        to.ensure("1.36.3", &Source::Modules, &Silent).unwrap().key,
        image.key
    );
    assert_eq!(to.import(&file).unwrap().key, image.key);
    assert!(calls(there.path()).is_empty());
    assert!(!there.path().join("node-images/scratch").exists());
}

#[test]
fn an_import_with_other_debian_packages_stands_beside_the_own_layer() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (from, to) = (store(here.path()), store(there.path()));
    fs::write(here.path().join("flavour"), "newer").unwrap();
    from.ensure("1.36.3", &Source::Modules, &Silent).unwrap();
    let own = to.ensure("1.36.3", &Source::Modules, &Silent).unwrap();
    let file = here.path().join("image.tar.zst");
    from.export("1.36.3", &file).unwrap();
    for _ in 0..2 {
        let imported = to.import(&file).unwrap();
        assert_ne!(imported.layers[2], own.layers[2]);
        assert_eq!(imported.layers[0], own.layers[0]);
        assert_eq!(
            fs::read_to_string(imported.layers[2].join("etc/flavour")).unwrap(),
            "newer"
        );
        // Machines that run on the existing image still have it.
        assert_eq!(fs::read_to_string(own.layers[2].join("etc/flavour")).unwrap(), "");
        assert_eq!(to.verify("1.36.3").unwrap().differences, []);
    }
}

#[test]
fn a_damaged_export_is_refused_and_leaves_nothing() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let from = store(here.path());
    let image = from.ensure("1.36.3", &Source::Modules, &Silent).unwrap();
    let file = here.path().join("image.tar.zst");
    let to = store(there.path());
    let refused = |why: &str| {
        let error = to.import(&file).unwrap_err();
        assert!(matches!(error, ImageError::BadArchive { .. }), "{error}");
        assert!(error.to_string().contains(why), "{error}");
        assert!(to.list().unwrap().is_empty());
        assert!(!there.path().join("node-images/scratch").exists());
    };

    // Exported from a store with a changed program (its length stayed, otherwise the export itself fails).
    let kubelet = image.layers[0].join("usr/local/bin/kubelet");
    let text = fs::read_to_string(&kubelet).unwrap();
    fs::write(&kubelet, text.replace("echo", "eval")).unwrap();
    from.export("1.36.3", &file).unwrap();
    refused("kubernetes:/usr/local/bin/kubelet has SHA-256");
    fs::write(&kubelet, text).unwrap();

    from.export("1.36.3", &file).unwrap();
    let whole = fs::read(&file).unwrap();
    fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    refused("cut off or damaged");
    fs::write(&file, "hello").unwrap();
    refused("");
    let outside = zstd::encode_all(archive("../outside", b"x").as_slice(), 1).unwrap();
    fs::write(&file, outside).unwrap();
    refused("leads outside");
    assert!(!there.path().join("node-images/outside").exists());
    let device = zstd::encode_all(archive("passwd", b"x").as_slice(), 1).unwrap();
    fs::write(&file, device).unwrap();
    refused("does not belong there");
    // The intact archive still works.
    fs::write(&file, whole).unwrap();
    to.import(&file).unwrap();
}

/// An archive with one file under a name that the tar library would refuse to write.
fn archive(name: &str, content: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    header.set_cksum();
    let mut builder = tar::Builder::new(Vec::new());
    builder.append(&header, content).unwrap();
    builder.into_inner().unwrap()
}

#[test]
fn programs_of_a_layer_are_the_kept_ones_and_not_copies() {
    use std::os::unix::fs::MetadataExt as _;
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let image = store.ensure("1.36.3", &Source::Modules, &Silent).unwrap();
    let program = image.program("etcd").unwrap();
    assert_eq!(program.metadata().unwrap().nlink(), 2);
    let recorded = image
        .manifest
        .programs
        .iter()
        .find(|program| program.name == "etcd")
        .unwrap();
    assert_eq!(recorded.sha256, digest::of_file(&program).unwrap());
    assert_eq!(recorded.version, "v3.6.16");
}
