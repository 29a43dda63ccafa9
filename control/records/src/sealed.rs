//! What is sealed in records: where it is, and under which name. For those who count it or seal it with another key.
//!
//! Always true: every record that holds something sealed is known here. What is added elsewhere has to be added here as well: a key of which
//! nothing is found is dropped in the end.

use std::collections::BTreeMap;

use control_store::{Op, StoreError, Versioned, parse_record, put_record};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    ClusterRecord, DeletedRecord, MachineRecord, PkiRecord, SealedRecord, SigningKeysRecord,
    command::{CommandRecord, Part},
    key,
};

/// A record with something sealed in it.
enum Holder<'a> {
    /// What a cluster is to be.
    Cluster,
    /// A cluster's keys.
    Pki { uid: &'a str },
    /// What is left of a deleted cluster.
    Deleted { uid: &'a str },
    /// A machine.
    Machine { id: &'a str },
    /// A [`SealedRecord`], sealed as this.
    Whole { sealed_as: String },
    /// The keys that sign tokens.
    SigningKeys,
}

impl<'a> Holder<'a> {
    fn of(name: &'a str) -> Option<Self> {
        if name == key::SIGNING_KEYS {
            return Some(Self::SigningKeys);
        }
        if let Some(uid) = name.strip_prefix(key::DELETED) {
            return Some(Self::Deleted { uid });
        }
        let (uid, rest) = key::of_cluster(name)?;
        let whole = |sealed_as| Some(Self::Whole { sealed_as });
        let parts: Vec<&str> = rest.split('/').collect();
        match *parts.as_slice() {
            ["desired"] => Some(Self::Cluster),
            ["pki"] => Some(Self::Pki { uid }),
            ["machine", id] => Some(Self::Machine { id }),
            ["machine-config", id] => whole(key::sealed::machine_config(id)),
            ["child", "credentialcertificates", id] => whole(key::sealed::credential(uid, id)),
            ["child", "commandinputs", id] => whole(CommandRecord::sealed_as(uid, id, Part::Input)),
            ["child", "commandoutputs", id] => whole(CommandRecord::sealed_as(uid, id, Part::Output)),
            _ => None,
        }
    }
}

/// Shows each sealed value of a record to `each`, with the name that it is sealed under, and takes what is given in the place of it. The
/// effect that writes the record then; `None`: nothing was given, or nothing is sealed in it.
///
/// # Errors
/// Those of `each`, and [`StoreError::Corrupt`] where the record cannot be read.
pub fn rewrite<E: From<StoreError>>(
    name: &str,
    found: &Versioned,
    each: &mut impl FnMut(&str, &[u8]) -> Result<Option<Vec<u8>>, E>,
) -> Result<Option<Op>, E> {
    let Some(holder) = Holder::of(name) else {
        return Ok(None);
    };
    match holder {
        Holder::Cluster => edit(name, found, |record: &mut ClusterRecord| cluster(record, each)),
        Holder::Pki { uid } => edit(name, found, |record: &mut PkiRecord| {
            one(&key::sealed::pki(uid), &mut record.sealed, each)
        }),
        Holder::Deleted { uid } => edit(name, found, |record: &mut DeletedRecord| {
            let mut changed = false;
            if let Some(last) = &mut record.last {
                changed |= cluster(last, each)?;
            }
            if let Some(pki) = &mut record.pki {
                changed |= one(&key::sealed::pki(uid), &mut pki.sealed, each)?;
            }
            Ok(changed)
        }),
        Holder::Machine { id } => edit(name, found, |record: &mut MachineRecord| {
            one(&key::sealed::machine_token(id), &mut record.token_sealed, each)
        }),
        Holder::Whole { sealed_as } => edit(name, found, |record: &mut SealedRecord| {
            one(&sealed_as, &mut record.sealed, each)
        }),
        Holder::SigningKeys => edit(name, found, |record: &mut SigningKeysRecord| {
            let mut changed = false;
            for key in &mut record.keys {
                let mut sealed = hex::decode(&key.sealed).map_err(|error| StoreError::Corrupt {
                    key: name.to_owned(),
                    why: format!("the key {}: {error}", key.id),
                })?;
                if one(&key::sealed::signing_key(&key.id), &mut sealed, each)? {
                    key.sealed = hex::encode(&sealed);
                    changed = true;
                }
            }
            Ok(changed)
        }),
    }
}

/// Reads a record, changes it, and gives the effect that writes it where `change` says that it changed.
fn edit<T: DeserializeOwned + Serialize, E: From<StoreError>>(
    name: &str,
    found: &Versioned,
    change: impl FnOnce(&mut T) -> Result<bool, E>,
) -> Result<Option<Op>, E> {
    let mut record = parse_record::<T>(name, found)?.value;
    Ok(change(&mut record)?.then(|| put_record(name, &record)))
}

/// The secrets of a cluster's body: of the last request, and of the one that an abort goes back to.
fn cluster<E>(
    record: &mut ClusterRecord,
    each: &mut impl FnMut(&str, &[u8]) -> Result<Option<Vec<u8>>, E>,
) -> Result<bool, E> {
    let ClusterRecord {
        uid,
        sealed,
        requests,
        ..
    } = record;
    let mut changed = secrets(uid, sealed, each)?;
    if let Some(reached) = &mut requests.reached {
        changed |= secrets(uid, &mut reached.sealed, each)?;
    }
    Ok(changed)
}

fn secrets<E>(
    uid: &str,
    sealed: &mut BTreeMap<String, Vec<u8>>,
    each: &mut impl FnMut(&str, &[u8]) -> Result<Option<Vec<u8>>, E>,
) -> Result<bool, E> {
    let mut changed = false;
    for (path, sealed) in sealed {
        changed |= one(&key::sealed::body_secret(uid, path), sealed, each)?;
    }
    Ok(changed)
}

fn one<E>(
    sealed_as: &str,
    sealed: &mut Vec<u8>,
    each: &mut impl FnMut(&str, &[u8]) -> Result<Option<Vec<u8>>, E>,
) -> Result<bool, E> {
    let Some(anew) = each(sealed_as, sealed)? else {
        return Ok(false);
    };
    *sealed = anew;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use control_store::Revision;
    use serde_json::{Value, json};

    use super::*;

    fn found(value: &Value) -> Versioned {
        Versioned {
            revision: Revision(1),
            value: serde_json::to_vec(value).unwrap().into(),
        }
    }

    /// What is shown of a record, and the record when each value has been given another first byte.
    fn walk(name: &str, value: &Value) -> (Vec<(String, Vec<u8>)>, Option<Value>) {
        let mut shown = Vec::new();
        let op = rewrite::<StoreError>(name, &found(value), &mut |sealed_as, sealed| {
            shown.push((sealed_as.to_owned(), sealed.to_vec()));
            Ok(Some([&[9][..], sealed].concat()))
        });
        let written = op.unwrap().map(|op| match op {
            Op::Put(key, bytes) => {
                assert_eq!(key, name);
                serde_json::from_slice(&bytes).unwrap()
            }
            Op::Delete(key) => panic!("{key} is deleted"),
        });
        (shown, written)
    }

    #[test]
    fn records_that_are_sealed_as_a_whole_are_shown_under_their_names() {
        for (name, sealed_as) in [
            ("/c/u/pki".to_owned(), key::sealed::pki("u")),
            (key::machine_config("u", "m"), key::sealed::machine_config("m")),
            (
                crate::credential::CredentialRecord::certificate_key("u", "a"),
                key::sealed::credential("u", "a"),
            ),
            (
                CommandRecord::part_key("u", "a", Part::Input),
                CommandRecord::sealed_as("u", "a", Part::Input),
            ),
            (
                CommandRecord::part_key("u", "a", Part::Output),
                CommandRecord::sealed_as("u", "a", Part::Output),
            ),
        ] {
            // As it is written today, and as records of before hold it.
            for sealed in [json!("AQI="), json!([1, 2])] {
                let (shown, written) = walk(&name, &json!({ "v": 1, "generation": 1, "sealed": sealed }));
                assert_eq!(shown, [(sealed_as.clone(), vec![1, 2])], "{name}");
                assert_eq!(written.unwrap()["sealed"], "CQEC", "{name}");
            }
        }
    }

    #[test]
    fn keys_that_sign_tokens_are_shown_one_by_one() {
        let key = |id: &str, sealed: &str| json!({ "id": id, "sealed": sealed, "publishedAt": "2026-01-01T00:00:00Z", "signsFrom": null, "endsAt": null });
        let record = json!({ "v": 1, "keys": [key("a", "01ff"), key("b", "0a")] });
        let (shown, written) = walk(key::SIGNING_KEYS, &record);
        assert_eq!(
            shown,
            [
                ("/tokens/keys/a".to_owned(), vec![1, 255]),
                ("/tokens/keys/b".to_owned(), vec![10])
            ]
        );
        let written = written.unwrap();
        assert_eq!(
            (&written["keys"][0]["sealed"], &written["keys"][1]["sealed"]),
            (&json!("0901ff"), &json!("090a"))
        );
        let damaged = json!({ "v": 1, "keys": [key("a", "0")] });
        let refused = rewrite::<StoreError>(key::SIGNING_KEYS, &found(&damaged), &mut |_, _| Ok(None));
        assert!(matches!(refused, Err(StoreError::Corrupt { .. })), "{refused:?}");
    }

    #[test]
    fn a_clusters_secrets_are_shown_as_they_are_and_as_they_were_reached() {
        let at = jiff::Timestamp::UNIX_EPOCH;
        let mut record = ClusterRecord::of_spec("u", &cluster_spec::testkit::cluster(), at);
        let secret = |byte: u8| BTreeMap::from([("/a/secret".to_owned(), vec![byte])]);
        record.sealed = secret(1);
        record.requests.reached = Some(Box::new(crate::Reached {
            generation: 1,
            state: record.state.clone(),
            sealed: secret(2),
        }));
        let name = key::sealed::body_secret("u", "/a/secret");
        let (shown, written) = walk(&key::desired("u"), &serde_json::to_value(&record).unwrap());
        assert_eq!(shown, [(name.clone(), vec![1]), (name, vec![2])]);
        let mut written: ClusterRecord = serde_json::from_value(written.unwrap()).unwrap();
        assert_eq!(written.sealed["/a/secret"], [9, 1]);
        assert_eq!(
            written.requests.reached.as_ref().unwrap().sealed["/a/secret"],
            [9, 2]
        );
        written.sealed.clone_from(&record.sealed);
        written.requests.clone_from(&record.requests);
        assert_eq!(written, record, "nothing else has changed");
    }

    #[test]
    fn what_is_left_of_a_cluster_keeps_its_keys() {
        let record = json!({
            "v": 1, "uid": "u", "subscription": "s", "resourceGroup": "g", "name": "n",
            "createdAt": "2026-01-01T00:00:00Z", "deletedAt": "2026-01-01T00:00:00Z",
            "pki": { "v": 1, "generation": 1, "sealed": "AQI=" },
        });
        let (shown, written) = walk(&key::deleted("u"), &record);
        assert_eq!(shown, [(key::sealed::pki("u"), vec![1, 2])]);
        assert_eq!(written.unwrap()["pki"]["sealed"], "CQEC");
    }

    #[test]
    fn what_holds_nothing_sealed_or_is_not_to_change_is_not_written() {
        let (shown, written) = walk(key::STORE, &json!({}));
        assert!(shown.is_empty() && written.is_none());
        for other in ["/c/u/observed", "/c/u/child/credentials/a", "/c/u/event/1"] {
            assert!(Holder::of(other).is_none(), "{other}");
        }
        let record = found(&json!({ "v": 1, "sealed": "AQI=" }));
        let kept = rewrite::<StoreError>("/c/u/pki", &record, &mut |_, _| Ok(None));
        assert_eq!(kept.unwrap(), None);
    }
}
