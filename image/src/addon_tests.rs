//! Images of add-ons from the outside, with fake tools.

use std::{fs, sync::Mutex};

use crate::{
    Event, ImageError, Imported, Silent, Source,
    fixture::{calls, store},
};

#[test]
fn an_image_is_built_once_and_when_it_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    store.ensure("1.36.3", &Source::Modules, &Silent).unwrap();
    assert!(store.addon("warden").unwrap().is_none());
    assert!(!calls(dir.path()).contains(&"warden".to_owned()));
    assert_eq!(store.addon_names(), ["warden"]);
    let estimate = store.estimate_addon("warden", &Source::Modules).unwrap();
    let steps: Vec<_> = estimate.steps.iter().map(|(step, _)| step.as_str()).collect();
    assert_eq!(steps, ["warden", "container image"]);

    let before = calls(dir.path()).len();
    let seen = Mutex::new(Vec::new());
    let progress = |event: Event<'_>| seen.lock().unwrap().push(format!("{event:?}"));
    let image = store.ensure_addon("warden", &Source::Modules, &progress).unwrap();
    assert_eq!(calls(dir.path())[before..], ["warden", "packages"]);
    assert!(seen.into_inner().unwrap()[0].starts_with("Planned"));
    assert_eq!(image.manifest.image.reference, "landfall.dev/warden:v2.1.0");
    assert_eq!(image.manifest.packages[0].version, "7.17-1");
    assert!(image.archive().is_file() && image.sbom().is_file());
    let sbom = fs::read_to_string(image.sbom()).unwrap();
    assert!(sbom.contains("pkg:deb/debian/ipset@7.17-1") && sbom.contains("SPDXRef-Program-warden"));

    // Again, in all ways: nothing is run.
    for _ in 0..2 {
        let again = store.ensure_addon("warden", &Source::Modules, &Silent).unwrap();
        assert_eq!(again.manifest, image.manifest);
        store.build_addon("warden", &Source::Modules, &Silent).unwrap();
    }
    assert_eq!(calls(dir.path()).len(), before + 2);
    assert_eq!(store.addons().unwrap().len(), 1);
    let estimate = store.estimate_addon("warden", &Source::Modules).unwrap();
    assert!(estimate.steps.is_empty() && estimate.disk_mb == 0);
    assert!(matches!(
        store.addon("etcd"),
        Err(ImageError::UnknownAddon { .. })
    ));
}

#[test]
fn without_tools_an_image_says_what_is_missing_and_what_was_finished_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let full = store(dir.path());
    let with = |change: &dyn Fn(&mut crate::Tools)| {
        let mut store = full.clone();
        change(&mut store.tools);
        store
            .ensure_addon("warden", &Source::Modules, &Silent)
            .unwrap_err()
    };
    let error = with(&|tools| tools.go = None).to_string();
    assert!(error.contains("install Go 1.26.0 or newer"), "{error}");
    assert!(matches!(
        with(&|tools| tools.mmdebstrap = None),
        ImageError::NoMmdebstrap
    ));
    assert!(matches!(with(&|tools| tools.root = false), ImageError::NotRoot));
    assert!(calls(dir.path()).is_empty(), "nothing was begun");

    fs::write(dir.path().join("broken"), "warden\n").unwrap();
    assert!(matches!(
        full.ensure_addon("warden", &Source::Modules, &Silent),
        Err(ImageError::Failed { .. })
    ));
    fs::remove_file(dir.path().join("broken")).unwrap();
    let image = full.ensure_addon("warden", &Source::Modules, &Silent).unwrap();
    // Lost, it is packed again from the program that was kept.
    fs::remove_file(image.archive()).unwrap();
    assert!(full.addon("warden").unwrap().is_none());
    let again = full.ensure_addon("warden", &Source::Modules, &Silent).unwrap();
    assert_eq!(again.manifest.image, image.manifest.image);
    let built = calls(dir.path()).iter().filter(|call| *call == "warden").count();
    assert_eq!(built, 1);
}

#[test]
fn an_exported_image_is_the_same_elsewhere_and_a_damaged_one_is_refused() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let from = store(here.path());
    let mut to = store(there.path());
    (to.tools.go, to.tools.mmdebstrap) = (None, None);
    let file = here.path().join("warden.tar.zst");
    assert!(matches!(
        from.export_addon("warden", &file),
        Err(ImageError::AddonNotBuilt { .. })
    ));
    let image = from.ensure_addon("warden", &Source::Modules, &Silent).unwrap();
    from.export_addon("warden", &file).unwrap();
    for _ in 0..2 {
        let Imported::Addon(imported) = to.import_any(&file).unwrap() else {
            panic!("it is an add-on's");
        };
        assert_eq!(imported.manifest, image.manifest);
    }
    to.ensure_addon("warden", &Source::Modules, &Silent).unwrap();
    assert_eq!(to.verify_addon("warden").unwrap().differences, []);
    assert!(calls(there.path()).is_empty());

    // Changed after its build: the export has it, the import refuses it.
    let archive = fs::read(image.archive()).unwrap();
    let mut other = archive.clone();
    other[700] ^= 1;
    fs::write(image.archive(), &other).unwrap();
    assert_eq!(from.verify_addon("warden").unwrap().differences.len(), 1);
    from.export_addon("warden", &file).unwrap();
    let error = to.import_any(&file).unwrap_err().to_string();
    assert!(error.contains("image.tar has SHA-256"), "{error}");
    assert!(!there.path().join("node-images/scratch").exists());
    // Taken away, and made again.
    assert_eq!(from.discard_addon("warden").unwrap(), [image.directory()]);
    let again = from.ensure_addon("warden", &Source::Modules, &Silent).unwrap();
    assert_eq!(fs::read(again.archive()).unwrap(), archive);
    assert!(from.discard_addon("warden").unwrap().is_empty());
}
