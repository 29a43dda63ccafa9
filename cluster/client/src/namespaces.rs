//! Managed namespaces: brought to what they are to be, taken over, let go.

use std::collections::BTreeSet;

use base_env::Env;
use cluster_api::{ClusterError, NamespaceSeen, NamespaceWish};
use cluster_namespaces::{
    Found, NETWORK_PART, Next, PARTS, Part, QUOTA_PART, SELECTOR, USERS_PART, compares, next, objects,
    unmarked,
};
use kube::api::WatchParams;
use serde_json::Value;
use tokio::sync::watch;

use crate::{Cluster, Failure, apply::listed, watches::Follower};

/// Objects that are followed while there are managed namespaces. Not their quotas: the status of a quota changes with each pod.
const FOLLOWED: [(&str, &str); 2] = [("v1", "Namespace"), ("networking.k8s.io/v1", "NetworkPolicy")];

fn path(name: &str) -> String {
    listed("v1", "Namespace", None) + "/" + name
}

fn path_of(part: Part, namespace: &str) -> String {
    listed(part.version, part.kind, Some(namespace)) + "/" + part.name
}

impl Cluster {
    /// See [`cluster_api::ClusterApi::set_namespace`].
    pub(crate) async fn bring_namespace(&self, wish: &NamespaceWish) -> Result<NamespaceSeen, ClusterError> {
        let namespace = self.look_at(&path(&wish.name)).await?;
        let (mut quota, mut policy) = (None, None);
        if compares(wish, namespace.as_ref()) {
            quota = self.look_at(&path_of(QUOTA_PART, &wish.name)).await?;
            policy = self.look_at(&path_of(NETWORK_PART, &wish.name)).await?;
        }
        let found = Found {
            namespace: namespace.as_ref(),
            quota: quota.as_ref(),
            policy: policy.as_ref(),
        };
        let seen = match next(wish, &found) {
            Next::Apply => {
                self.apply_namespace(wish).await?;
                NamespaceSeen::Set
            }
            Next::Refuse(why) => NamespaceSeen::Refused(why),
            Next::Wait(why) => NamespaceSeen::Going(why),
            Next::LetGo => {
                self.let_namespace_go(&wish.name).await?;
                NamespaceSeen::Released
            }
            Next::Remove => {
                let path = path(&wish.name);
                settled(self.delete(&format!("remove {path}"), &path).await)?;
                // What is in it goes first; the next look finds it gone.
                NamespaceSeen::Going(None)
            }
            Next::Nothing => NamespaceSeen::Released,
        };
        self.managed.send_if_modified(|managed| match seen {
            NamespaceSeen::Set => managed.insert(wish.name.clone()),
            NamespaceSeen::Released => managed.remove(&wish.name),
            NamespaceSeen::Refused(_) | NamespaceSeen::Going(_) => false,
        });
        Ok(seen)
    }

    async fn look_at(&self, path: &str) -> Result<Option<Value>, ClusterError> {
        match self.get(&format!("read {path}"), path).await {
            Ok(found) => Ok(Some(found)),
            Err(failure) if failure.is_absent() => Ok(None),
            Err(failure) => Err(failure.into()),
        }
    }

    /// The Namespace first: the others are in it.
    async fn apply_namespace(&self, wish: &NamespaceWish) -> Result<(), ClusterError> {
        let objects = objects(wish);
        for object in &objects {
            self.apply_one(object).await?;
        }
        for part in PARTS {
            if !objects.iter().any(|object| object["kind"] == part.kind) {
                self.remove_part(part, &wish.name).await?;
            }
        }
        Ok(())
    }

    async fn let_namespace_go(&self, name: &str) -> Result<(), ClusterError> {
        self.remove_part(USERS_PART, name).await?;
        let unmarked = unmarked();
        for path in [
            path_of(QUOTA_PART, name),
            path_of(NETWORK_PART, name),
            // The last: as long as it is marked, all of this is done again.
            path(name),
        ] {
            settled(self.merge(&format!("let {path} go"), &path, &unmarked).await)?;
        }
        Ok(())
    }

    async fn remove_part(&self, part: Part, namespace: &str) -> Result<(), ClusterError> {
        let path = path_of(part, namespace);
        settled(self.delete(&format!("remove {path}"), &path).await)
    }
}

/// What is not there is as it is to be.
fn settled(outcome: Result<Value, Failure>) -> Result<(), ClusterError> {
    match outcome {
        Err(failure) if !failure.is_absent() => Err(failure.into()),
        _ => Ok(()),
    }
}

/// Follows managed namespaces and their network policies, as they change, and nothing while none was set.
pub(crate) async fn follow(
    env: &Env,
    client: &kube::Client,
    sender: &watch::Sender<u64>,
    number: usize,
    mut managed: watch::Receiver<BTreeSet<String>>,
) {
    let (version, kind) = FOLLOWED[number];
    loop {
        let some = !managed.borrow_and_update().is_empty();
        if !some {
            if managed.changed().await.is_err() {
                return;
            }
            continue;
        }
        let path = listed(version, kind, None);
        let mut follower = Follower::new(client.clone(), path, WatchParams::default().labels(SELECTOR));
        loop {
            tokio::select! {
                changed = managed.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let none = managed.borrow_and_update().is_empty();
                    if none {
                        break;
                    }
                }
                // It goes on where it was.
                () = follower.follow(env, sender) => {}
            }
        }
    }
}

/// How many kinds of objects are followed.
pub(crate) const KINDS: usize = FOLLOWED.len();

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        sync::{Arc, Mutex},
    };

    use cluster_namespaces::OWNER;
    use cluster_spec::{AdoptionPolicy, DeletePolicy, NamespaceNetwork, NamespaceQuota, NamespaceSpec};
    use http::Method;
    use serde_json::json;

    use super::*;
    use crate::fake;

    type Objects = Arc<Mutex<BTreeMap<String, Value>>>;

    /// A server that keeps what it is given, by path.
    fn server() -> (Cluster, fake::Log, Objects) {
        let objects = Objects::default();
        let kept = Arc::clone(&objects);
        let (cluster, log) = fake::cluster(move |asked| {
            let mut kept = kept.lock().unwrap();
            let path = asked.path.split('?').next().unwrap_or_default().to_owned();
            match asked.method {
                Method::PATCH if asked.path.contains("fieldManager=landfall") => {
                    kept.insert(path, asked.body.clone());
                    (200, asked.body.clone())
                }
                Method::DELETE => match kept.remove(&path) {
                    Some(found) => (200, found),
                    None => fake::refusal(404, "not found"),
                },
                _ => match kept.get(&path) {
                    Some(found) => (200, found.clone()),
                    None => fake::refusal(404, "not found"),
                },
            }
        });
        (cluster, log, objects)
    }

    fn wish() -> NamespaceWish {
        NamespaceWish {
            name: "dev".to_owned(),
            id: "r1".to_owned(),
            generation: 1,
            spec: NamespaceSpec {
                quota: Some(NamespaceQuota {
                    cpu_limit: Some("1".to_owned()),
                    ..NamespaceQuota::default()
                }),
                network: Some(NamespaceNetwork::default()),
                deletion: DeletePolicy::Delete,
                ..NamespaceSpec::default()
            },
            held: false,
            released: false,
            users: ["a1".to_owned()].into(),
        }
    }

    const DEV: &str = "/api/v1/namespaces/dev";

    #[tokio::test]
    async fn a_namespace_is_made_put_right_and_removed() {
        let (cluster, log, objects) = server();
        let mut wish = wish();
        assert_eq!(cluster.bring_namespace(&wish).await.unwrap(), NamespaceSeen::Set);
        let there: Vec<String> = objects.lock().unwrap().keys().cloned().collect();
        assert_eq!(
            there,
            [
                DEV,
                "/api/v1/namespaces/dev/resourcequotas/defaultresourcequota",
                "/apis/networking.k8s.io/v1/namespaces/dev/networkpolicies/defaultnetworkpolicy",
                "/apis/rbac.authorization.k8s.io/v1/namespaces/dev/rolebindings/landfall:namespace-users",
            ]
        );
        assert!(cluster.managed.borrow().contains("dev"));
        let applied = fake::paths(&log, &Method::PATCH);
        assert!(
            applied[0].starts_with(&format!("{DEV}?")),
            "the Namespace comes first: {applied:?}"
        );
        // What is not asked for any more goes, with the same name or not.
        wish.users.clear();
        wish.spec.network = None;
        assert_eq!(cluster.bring_namespace(&wish).await.unwrap(), NamespaceSeen::Set);
        assert_eq!(objects.lock().unwrap().len(), 2);
        wish.released = true;
        assert_eq!(
            cluster.bring_namespace(&wish).await.unwrap(),
            NamespaceSeen::Going(None)
        );
        assert_eq!(
            cluster.bring_namespace(&wish).await.unwrap(),
            NamespaceSeen::Released
        );
        assert!(cluster.managed.borrow().is_empty());
    }

    #[tokio::test]
    async fn what_is_somebody_elses_is_left_alone() {
        let (cluster, log, objects) = server();
        let theirs = json!({ "metadata": { "name": "dev" } });
        objects.lock().unwrap().insert(DEV.to_owned(), theirs);
        let mut wish = wish();
        for policy in [AdoptionPolicy::Never, AdoptionPolicy::IfIdentical] {
            wish.spec.adoption = policy;
            let seen = cluster.bring_namespace(&wish).await.unwrap();
            assert!(
                matches!(&seen, NamespaceSeen::Refused(why) if why.contains("exists")),
                "{seen:?}"
            );
        }
        wish.released = true;
        assert_eq!(
            cluster.bring_namespace(&wish).await.unwrap(),
            NamespaceSeen::Released
        );
        let changed = log
            .lock()
            .unwrap()
            .iter()
            .filter(|asked| asked.method != Method::GET)
            .count();
        assert_eq!(changed, 0);
    }

    #[tokio::test]
    async fn what_is_kept_loses_its_marks_and_its_users() {
        let (cluster, log, objects) = server();
        let own = json!({ "metadata": { "name": "dev", "annotations": { OWNER: "r1" } } });
        objects.lock().unwrap().insert(DEV.to_owned(), own);
        let mut wish = wish();
        wish.spec.deletion = DeletePolicy::Keep;
        wish.released = true;
        assert_eq!(
            cluster.bring_namespace(&wish).await.unwrap(),
            NamespaceSeen::Released
        );
        let merged = fake::paths(&log, &Method::PATCH);
        assert_eq!(merged.last().map(String::as_str), Some(DEV), "{merged:?}");
        assert_eq!(fake::paths(&log, &Method::DELETE).len(), 1);
        assert!(objects.lock().unwrap().contains_key(DEV));
    }
}
