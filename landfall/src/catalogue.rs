//! The version catalogue of a stamp: that of the program, or one that was imported (`catalogue.signed`); and the bills of materials of its node images.
//!
//! Always true: an imported catalogue is in force only while a key that the stamp trusts has signed it and its serial is greater than the program's; this is looked at each time
//! it is read.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{ErrorKind, Read as _},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context as _, Result};
use async_trait::async_trait;
use base_blocking::Pool;
use image::ImageStore;
use policy_catalogue::{
    Catalogue,
    bill::Bill,
    signed::{MOST_FILE, PublicKey, SignedError, open},
};
use providers_containerservice::{InForce, SupportData};

use crate::{
    images,
    problem::Problem,
    stamp::{Places, Settings},
};

/// The largest bill of materials, bytes.
const MOST_BILL: u64 = 64 << 20;

/// A catalogue that was read, and its text.
pub(crate) struct Active {
    pub(crate) in_force: InForce,
    pub(crate) text: String,
}

/// The catalogue that is in force in a stamp; of a stamp that is not made yet, that of the program.
pub(crate) fn active(places: &Places) -> Active {
    let mut own = Active {
        in_force: InForce::built_in(),
        text: Catalogue::BUILT_IN.to_owned(),
    };
    match imported(places) {
        Ok(Some(found)) if found.in_force.catalogue.serial > own.in_force.catalogue.serial => return found,
        // None is there, or that of a newer program has taken its place.
        Ok(_) => {}
        Err(error) => own.in_force.refused = Some(format!("{error:#}")),
    }
    own
}

/// The one that was imported, if it is there.
pub(crate) fn imported(places: &Places) -> Result<Option<Active>> {
    match read(&places.catalogue(), MOST_FILE as u64) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == ErrorKind::NotADirectory => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", places.catalogue().display())),
        Ok(bytes) => check(&bytes, &trusted(places)?).map(Some),
    }
}

/// The keys that a stamp trusts; none before it is made.
pub(crate) fn trusted(places: &Places) -> Result<Vec<PublicKey>> {
    let keys = Settings::load(places)?.map(|settings| settings.catalogue_keys);
    let keys = keys.unwrap_or_default();
    let keys = keys.iter().map(|key| PublicKey::shown(key));
    keys.collect::<Result<_, _>>().map_err(|error| {
        let settings = places.settings();
        Problem::new(
            format!("{}: catalogue_keys cannot be read", settings.display()),
            "name the keys again: landfall catalogue trust FILE",
        )
        .because(error)
        .into()
    })
}

/// Reads a signed catalogue, of which nothing is believed before.
pub(crate) fn check(file: &[u8], trusted: &[PublicKey]) -> Result<Active> {
    let (text, key) = open(file, trusted).map_err(|error| {
        let next = next(&error);
        Problem::new(error.to_string(), next)
    })?;
    let catalogue = Catalogue::parse(text).map_err(|error| {
        Problem::new(
            error.to_string(),
            "whoever signed it has to mend it, and sign it again with a greater serial",
        )
    })?;
    Ok(Active {
        in_force: InForce {
            catalogue: Arc::new(catalogue),
            signed_by: Some(key),
            refused: None,
        },
        text: text.to_owned(),
    })
}

/// What can be done about a file that is not taken.
fn next(error: &SignedError) -> &'static str {
    match error {
        SignedError::NotSigned => "sign it first: landfall catalogue sign FILE --key KEY",
        SignedError::NoKey { .. } | SignedError::Untrusted { .. } => {
            "if that is the key that you expect, trust its file: landfall catalogue trust KEY.pub"
        }
        SignedError::BadKey { .. } => {
            "give a file that landfall catalogue key or openssl genpkey -algorithm ed25519 has written"
        }
        SignedError::TooLarge { .. } => "give a smaller catalogue",
        SignedError::Header { .. }
        | SignedError::Length { .. }
        | SignedError::Signature { .. }
        | SignedError::NotText => "get the file again from where it came, whole",
    }
}

/// The bytes of a file; at most one more than `most`.
pub(crate) fn read(path: &Path, most: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(most.saturating_add(1))
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What a running service reads.
pub(crate) struct Knowledge {
    places: Places,
    images: ImageStore,
    /// By the images' keys: an image never changes.
    bills: Arc<Mutex<BTreeMap<String, Arc<Bill>>>>,
    pool: Pool,
}

impl Knowledge {
    pub(crate) fn open(places: &Places) -> Result<Self> {
        Ok(Self {
            places: places.clone(),
            images: images::store(places)?,
            bills: Arc::default(),
            pool: Pool::new(base_blocking::SUPPORT),
        })
    }
}

#[async_trait]
impl SupportData for Knowledge {
    async fn catalogue(&self) -> InForce {
        let places = self.places.clone();
        let read = self.pool.run(move || active(&places).in_force).await;
        read.unwrap_or_else(|error| {
            tracing::warn!(%error, "the version catalogue was not read; that of the program is taken");
            InForce {
                refused: Some(error.to_string()),
                ..InForce::built_in()
            }
        })
    }

    async fn bills(&self, version: &str) -> Result<Vec<Arc<Bill>>, String> {
        let (images, kept, version) = (self.images.clone(), Arc::clone(&self.bills), version.to_owned());
        let read = self.pool.run(move || bills(&images, &kept, &version)).await;
        read.map_err(|error| error.to_string())?
    }
}

fn bills(
    images: &ImageStore,
    kept: &Mutex<BTreeMap<String, Arc<Bill>>>,
    version: &str,
) -> Result<Vec<Arc<Bill>>, String> {
    let all = images.list().map_err(|error| error.to_string())?;
    let mut found = Vec::new();
    for image in all.iter().filter(|image| image.version == version) {
        let known = kept
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&image.key)
            .cloned();
        if let Some(bill) = known {
            found.push(bill);
            continue;
        }
        let path = image.sbom();
        let unread = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let bytes = read(&path, MOST_BILL).map_err(|error| unread(&error))?;
        let bill = Arc::new(Bill::of_spdx(&bytes).map_err(|error| unread(&error))?);
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        // Images that are gone are dropped with the rest: there are few, and they are read again.
        if kept.len() > 64 {
            kept.clear();
        }
        kept.insert(image.key.clone(), Arc::clone(&bill));
        found.push(bill);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use policy_catalogue::signed::{PrivateKey, sign};

    use super::*;

    fn places(directory: &Path) -> Places {
        Places {
            name: "t".into(),
            state: directory.join("state"),
            run: directory.join("run"),
        }
    }

    /// The program's catalogue with another serial.
    fn text(serial: u64) -> String {
        let own = format!("serial = {}", Catalogue::built_in().serial);
        Catalogue::BUILT_IN.replacen(&own, &format!("serial = {serial}"), 1)
    }

    fn stamp(places: &Places, keys: &[&PrivateKey]) {
        std::fs::create_dir_all(&places.state).unwrap();
        let keys: Vec<String> = keys
            .iter()
            .map(|key| format!("{:?}", key.public().to_string()))
            .collect();
        let settings = format!(
            "v = 1\ntenant = \"t\"\nsubscription = \"s\"\nclient = \"c\"\nlisten = \"127.0.0.1:8443\"\nrange = \"100.64.0.0/20\"\n\
             uplink = \"none\"\ncatalogue_keys = [{}]\ncreated_at = \"2026-11-30T00:00:00Z\"\n",
            keys.join(", ")
        );
        std::fs::write(places.settings(), settings).unwrap();
    }

    #[test]
    fn a_newer_catalogue_of_a_trusted_key_is_in_force() {
        let directory = tempfile::tempdir().unwrap();
        let places = places(directory.path());
        let own = Catalogue::built_in().serial;
        assert_eq!(
            active(&places).in_force.catalogue.serial,
            own,
            "there is no stamp"
        );
        let key = PrivateKey::of_seed(&[1; 32]).unwrap();
        stamp(&places, &[&key]);
        let install = |serial: u64, key: &PrivateKey| {
            std::fs::write(places.catalogue(), sign(&text(serial), key).unwrap()).unwrap();
            active(&places).in_force
        };
        let newer = install(own + 5, &key);
        assert_eq!(
            (newer.catalogue.serial, newer.signed_by),
            (own + 5, Some(key.public()))
        );
        // That of a newer program takes its place.
        let older = install(own - 1, &key);
        assert_eq!(
            (older.catalogue.serial, older.signed_by, older.refused),
            (own, None, None)
        );
        // A key that is not trusted any more.
        let other = PrivateKey::of_seed(&[2; 32]).unwrap();
        let refused = install(own + 9, &other);
        assert_eq!(refused.catalogue.serial, own);
        assert!(refused.refused.unwrap().contains("not trusted here"));
        stamp(&places, &[]);
        let refused = install(own + 9, &key).refused.unwrap();
        assert!(refused.contains("no key is trusted"), "{refused}");
    }

    #[test]
    fn a_file_that_is_too_large_is_not_read_to_its_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("large");
        std::fs::write(&path, vec![b'x'; MOST_FILE + 100]).unwrap();
        let bytes = read(&path, MOST_FILE as u64).unwrap();
        assert_eq!(bytes.len(), MOST_FILE + 1);
        let error = check(&bytes, &[]).err().unwrap();
        assert!(error.to_string().contains("at most"), "{error}");
    }

    #[test]
    fn every_refusal_has_a_next_step() {
        let key = PrivateKey::of_seed(&[1; 32]).unwrap();
        let file = sign(&text(9_000_000_000_000_000_000), &key).unwrap();
        let said = |file: &str, trusted: &[PublicKey]| {
            let error = check(file.as_bytes(), trusted).err().unwrap();
            let told = crate::problem::told(&error);
            (told.sentence, told.next.unwrap())
        };
        let (sentence, next) = said(&file, &[]);
        assert!(
            sentence.contains("no key is trusted") && next.contains("landfall catalogue trust"),
            "{next}"
        );
        let (_, next) = said(&file[..file.len() - 1], &[key.public()]);
        assert!(next.contains("again"), "{next}");
        let (_, next) = said(&text(5), &[key.public()]);
        assert!(next.contains("landfall catalogue sign"), "{next}");
        let broken = sign("format = 1\n", &key).unwrap();
        let (sentence, next) = said(&broken, &[key.public()]);
        assert!(
            sentence.contains("cannot be read") && next.contains("sign it again"),
            "{sentence}"
        );
        assert!(check(file.as_bytes(), &[key.public()]).is_ok());
    }
}
