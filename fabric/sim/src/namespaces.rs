//! Managed namespaces in the world's clusters. They are objects among the others; what is in a Namespace goes with it.

use std::collections::BTreeMap;

use cluster_api::{NamespaceSeen, NamespaceWish};
use cluster_namespaces::{
    Found, LABEL, NETWORK_PART, Next, OWNER, PARTS, Part, QUOTA_PART, USERS_PART, next, objects,
};
use serde_json::Value;

use crate::state::Cluster;

fn key(name: &str) -> String {
    format!("v1/Namespace {name}")
}

fn key_of(part: Part, namespace: &str) -> String {
    format!("{}/{} {namespace}/{}", part.version, part.kind, part.name)
}

/// Brings one to a wish; whether anything changed, and what became of it.
pub(crate) fn set(cluster: &mut Cluster, wish: &NamespaceWish) -> (bool, NamespaceSeen) {
    let there = &mut cluster.objects;
    let found = Found {
        namespace: there.get(&key(&wish.name)),
        quota: there.get(&key_of(QUOTA_PART, &wish.name)),
        policy: there.get(&key_of(NETWORK_PART, &wish.name)),
    };
    match next(wish, &found) {
        Next::Apply => (apply(there, wish), NamespaceSeen::Set),
        Next::Refuse(why) => (false, NamespaceSeen::Refused(why)),
        Next::Wait(why) => (false, NamespaceSeen::Going(why)),
        Next::LetGo => {
            let kept = [
                key(&wish.name),
                key_of(QUOTA_PART, &wish.name),
                key_of(NETWORK_PART, &wish.name),
            ];
            for object in kept {
                if let Some(object) = there.get_mut(&object) {
                    unmark(&mut object["metadata"]["labels"], LABEL.0);
                    unmark(&mut object["metadata"]["annotations"], OWNER);
                }
            }
            there.remove(&key_of(USERS_PART, &wish.name));
            (true, NamespaceSeen::Released)
        }
        Next::Remove => {
            let (own, within) = (key(&wish.name), format!(" {}/", wish.name));
            there.retain(|name, _| *name != own && !name.contains(&within));
            (true, NamespaceSeen::Going(None))
        }
        Next::Nothing => (false, NamespaceSeen::Released),
    }
}

fn apply(there: &mut BTreeMap<String, Value>, wish: &NamespaceWish) -> bool {
    let mut wanted: BTreeMap<String, Value> = BTreeMap::new();
    for object in objects(wish) {
        let part = PARTS.into_iter().find(|part| object["kind"] == part.kind);
        let name = part.map_or_else(|| key(&wish.name), |part| key_of(part, &wish.name));
        wanted.insert(name, object);
    }
    let mut changed = false;
    for part in PARTS {
        let name = key_of(part, &wish.name);
        changed |= !wanted.contains_key(&name) && there.remove(&name).is_some();
    }
    for (name, object) in wanted {
        if there.get(&name) != Some(&object) {
            there.insert(name, object);
            changed = true;
        }
    }
    changed
}

fn unmark(of: &mut Value, name: &str) {
    if let Some(of) = of.as_object_mut() {
        of.remove(name);
    }
}
