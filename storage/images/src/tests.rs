use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::*;

const LIMIT: u64 = 1 << 20;

struct Stand {
    directory: tempfile::TempDir,
    now: Timestamp,
    uploads: u32,
}

fn repository(name: &str) -> Repository {
    Repository::parse(name).unwrap()
}

fn tag(name: &str) -> Reference {
    Reference::parse(name).unwrap()
}

fn descriptor(content: &[u8]) -> Value {
    json!({ "mediaType": "x", "digest": Digest::of(content).to_string(), "size": content.len() })
}

fn image(config: &[u8], layer: &[u8]) -> Vec<u8> {
    json!({
        "schemaVersion": 2, "mediaType": "m", "config": descriptor(config), "layers": [descriptor(layer)],
    })
    .to_string()
    .into_bytes()
}

impl Stand {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            now: Timestamp::from_second(1_790_000_000).unwrap(),
            uploads: 0,
        }
    }

    /// As after a start of the service: nothing is remembered.
    fn registry(&self) -> Arc<Registry> {
        Images::new(self.directory.path().to_owned()).of("u1")
    }

    fn later(&mut self, time: Duration) {
        self.now += SignedDuration::try_from(time).unwrap();
    }

    fn send(&mut self, registry: &Registry, to: &Repository, content: &[u8]) -> Result<Digest, ImagesError> {
        self.uploads += 1;
        let id = UploadId::parse(&format!("upload-{}", self.uploads)).unwrap();
        registry.begin_upload(to, &id)?;
        let mut at = 0;
        for piece in content.chunks(3) {
            at = registry.append(to, &id, at, piece, LIMIT)?;
        }
        let digest = Digest::of(content);
        registry.finish(to, &id, &digest, self.now)?;
        Ok(digest)
    }

    /// Pushes an image.
    fn push(&mut self, registry: &Registry, to: &Repository, name: &str, layer: &[u8]) -> Digest {
        self.send(registry, to, b"config").unwrap();
        self.send(registry, to, layer).unwrap();
        let manifest = image(b"config", layer);
        let reference = tag(name);
        registry
            .put_manifest(to, &reference, Some("m"), &manifest, LIMIT, self.now)
            .unwrap()
    }
}

#[test]
fn what_was_pushed_is_pulled_also_after_a_kill() {
    let mut stand = Stand::new();
    let app = repository("team/app");
    let digest = stand.push(&stand.registry(), &app, "1.0", b"layer");
    let registry = stand.registry();
    let pulled = registry.manifest(&app, &tag("1.0")).unwrap();
    assert_eq!((&pulled.digest, pulled.media_type.as_str()), (&digest, "m"));
    assert_eq!(pulled.content, image(b"config", b"layer"));
    assert_eq!(
        registry.manifest(&app, &Reference::Digest(digest)).unwrap(),
        pulled
    );
    let (mut file, size) = registry.blob(&app, &Digest::of(b"layer")).unwrap();
    let mut content = Vec::new();
    io::Read::read_to_end(&mut file, &mut content).unwrap();
    assert_eq!((content.as_slice(), size), (&b"layer"[..], 5));
    assert_eq!(registry.repositories().unwrap(), ["team/app"]);
    let tags = registry.tags(&app).unwrap();
    assert_eq!((tags.len(), tags[0].name.as_str()), (1, "1.0"));
    let seen = registry.manifests(&app).unwrap();
    assert_eq!((seen.len(), &seen[0].tags), (1, &vec!["1.0".to_owned()]));
    // A blob is read through a repository that has it, and through no other.
    let other = repository("other");
    assert!(matches!(
        registry.blob(&other, &Digest::of(b"layer")),
        Err(ImagesError::NoBlob)
    ));
    let mounted = registry.mount(&other, &app, &Digest::of(b"layer"), stand.now);
    assert!(mounted.unwrap());
    assert!(registry.blob(&other, &Digest::of(b"layer")).is_ok());
}

#[test]
fn an_upload_goes_on_where_it_stopped_and_has_to_be_what_it_says() {
    let stand = Stand::new();
    let app = repository("app");
    let id = UploadId::parse("u").unwrap();
    let registry = stand.registry();
    registry.begin_upload(&app, &id).unwrap();
    assert_eq!(registry.append(&app, &id, 0, b"abc", LIMIT).unwrap(), 3);
    // After a kill.
    let registry = stand.registry();
    assert_eq!(registry.upload_size(&app, &id).unwrap(), 3);
    assert!(matches!(
        registry.append(&app, &id, 0, b"abc", LIMIT),
        Err(ImagesError::NotNext { has: 3 })
    ));
    registry.append(&app, &id, 3, b"def", LIMIT).unwrap();
    let wrong = registry.finish(&app, &id, &Digest::of(b"abc"), stand.now);
    assert!(matches!(wrong, Err(ImagesError::OtherContent { .. })));
    let digest = Digest::of(b"abcdef");
    // Its answer may be lost.
    for _ in 0..2 {
        registry.finish(&app, &id, &digest, stand.now).unwrap();
    }
    assert_eq!(registry.blob_size(&app, &digest, stand.now).unwrap(), 6);
    assert!(matches!(registry.cancel(&app, &id), Err(ImagesError::NoUpload)));
}

#[test]
fn a_manifest_needs_all_that_it_refers_to() {
    let mut stand = Stand::new();
    let (app, registry) = (repository("app"), stand.registry());
    stand.send(&registry, &app, b"config").unwrap();
    let manifest = image(b"config", b"layer");
    let refused = registry.put_manifest(&app, &tag("1"), Some("m"), &manifest, LIMIT, stand.now);
    assert!(
        matches!(&refused, Err(ImagesError::Missing(missing)) if *missing == [Digest::of(b"layer")]),
        "{refused:?}"
    );
    let other = registry.put_manifest(&app, &tag("1"), Some("n"), &manifest, LIMIT, stand.now);
    assert!(matches!(other, Err(ImagesError::Manifest(_))));
    assert!(matches!(
        registry.manifest(&app, &tag("1")),
        Err(ImagesError::NoManifest)
    ));
}

#[test]
fn a_registry_never_holds_more_than_its_limit() {
    let mut stand = Stand::new();
    let (app, registry) = (repository("app"), stand.registry());
    let large = vec![7_u8; (LIMIT - 10) as usize];
    let id = UploadId::parse("u").unwrap();
    registry.begin_upload(&app, &id).unwrap();
    registry.append(&app, &id, 0, &large, LIMIT).unwrap();
    let full = registry.append(&app, &id, large.len() as u64, &[1; 11], LIMIT);
    assert!(
        matches!(full, Err(ImagesError::Full { limit: LIMIT })),
        "{full:?}"
    );
    assert_eq!(registry.upload_size(&app, &id).unwrap(), large.len() as u64);
    assert_eq!(
        stand.registry().used().unwrap(),
        large.len() as u64,
        "counted anew"
    );
    // The same content takes no further room.
    registry
        .finish(&app, &id, &Digest::of(&large), stand.now)
        .unwrap();
    stand.send(&registry, &app, b"12345").unwrap();
    stand.send(&registry, &app, b"12345").unwrap();
    assert_eq!(registry.used().unwrap(), large.len() as u64 + 5);
    assert_eq!(stand.registry().used().unwrap(), registry.used().unwrap());
}

#[test]
fn what_nothing_refers_to_goes_when_it_is_old_and_nothing_else_does() {
    let mut stand = Stand::new();
    let (app, other) = (repository("app"), repository("other"));
    let registry = stand.registry();
    let first = stand.push(&registry, &app, "1", b"first");
    stand.push(&registry, &app, "2", b"second");
    stand.push(&registry, &other, "2", b"second");
    let id = UploadId::parse("left").unwrap();
    registry.begin_upload(&app, &id).unwrap();
    registry.append(&app, &id, 0, b"abc", LIMIT).unwrap();
    let path = registry.uploads_dir().join("app/left");
    crate::blobs::touch(&path, stand.now).unwrap();
    let removed = registry.delete_manifest(&app, &first).unwrap();
    assert_eq!(
        (removed.tags.as_slice(), removed.manifests.len()),
        (&["1".to_owned()][..], 1)
    );
    assert_eq!(registry.sweep(stand.now).unwrap(), Swept::default(), "it is new");
    stand.later(GUARD + Duration::from_secs(1));
    // Somebody is about to push it again.
    registry
        .blob_size(&app, &Digest::of(b"first"), stand.now)
        .unwrap();
    let before = registry.used().unwrap();
    let swept = registry.sweep(stand.now).unwrap();
    assert_eq!((swept.blobs, swept.uploads), (1, 1), "the manifest, the upload");
    assert_eq!(registry.used().unwrap(), before - swept.bytes);
    stand.push(&registry, &app, "1", b"first");
    registry.delete_repository(&app).unwrap();
    stand.later(GUARD + Duration::from_secs(1));
    let swept = registry.sweep(stand.now).unwrap();
    assert_eq!(swept.blobs, 2, "the first layer and its manifest");
    let left = registry.manifest(&other, &tag("2")).unwrap();
    assert_eq!(left.content, image(b"config", b"second"));
    assert!(registry.blob(&other, &Digest::of(b"second")).is_ok());
    assert_eq!(stand.registry().used().unwrap(), registry.used().unwrap());
    assert!(matches!(
        registry.delete_repository(&app),
        Err(ImagesError::NoRepository)
    ));
    let images = Images::new(stand.directory.path().to_owned());
    for _ in 0..2 {
        images.remove("u1").unwrap();
    }
    assert_eq!(stand.registry().used().unwrap(), 0);
}
