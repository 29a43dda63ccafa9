//! A set of objects that is to be exactly so: what is not in it goes.

use cluster_api::{ClusterError, IsOwn, ObjectRef, Watch};
use serde_json::Value;

use crate::{Cluster, apply::listed};

impl Cluster {
    /// See [`cluster_api::ClusterApi::replace`].
    pub(crate) async fn replace_all(
        &self,
        of: &Watch,
        own: IsOwn,
        objects: &[Value],
        gone: &[String],
    ) -> Result<u32, ClusterError> {
        let path = listed(of.version, of.kind, of.namespace);
        let mut changed = 0;
        // By their names and first: whoever may change them may take off the label by which the rest is found, or make so many that they
        // cannot be listed.
        for name in gone {
            changed += u32::from(self.remove(&path, name).await?);
        }
        let selector = of.labels.map_or_else(String::new, |labels| {
            format!(
                "?labelSelector={}",
                labels.replace('/', "%2F").replace('=', "%3D")
            )
        });
        let act = format!("list {path}");
        let found = self.list(&act, &format!("{path}{selector}")).await?;
        let mut missing: Vec<Value> = objects.to_vec();
        for item in &found {
            let name = item["metadata"]["name"].as_str().unwrap_or_default();
            if !own(name) {
                continue;
            }
            let wanted = missing
                .iter()
                .position(|object| object["metadata"]["name"] == *name);
            match wanted {
                Some(place) if is_so(item, &missing[place]) => drop(missing.swap_remove(place)),
                // Some of what they are made of cannot be changed: they are made anew.
                Some(_) | None => changed += u32::from(self.remove(&path, name).await?),
            }
        }
        if !missing.is_empty() {
            changed += self.apply_all(&missing).await?;
        }
        Ok(changed)
    }

    /// Removes these, in this order; how many were there.
    pub(crate) async fn delete_all(&self, objects: &[ObjectRef]) -> Result<u32, ClusterError> {
        let mut gone = 0;
        for object in objects {
            let path = listed(object.version, object.kind, object.namespace);
            gone += u32::from(self.remove(&path, object.name).await?);
        }
        Ok(gone)
    }

    /// Removes one; whether it was there.
    async fn remove(&self, path: &str, name: &str) -> Result<bool, ClusterError> {
        let path = format!("{path}/{name}");
        match self.delete(&format!("remove {path}"), &path).await {
            Ok(_) => Ok(true),
            Err(failure) if failure.is_absent() => Ok(false),
            Err(failure) => Err(failure.into()),
        }
    }
}

/// Whether an object in a list is what it is to be, but for its metadata.
fn is_so(item: &Value, wanted: &Value) -> bool {
    let own = wanted.as_object().into_iter().flatten();
    own.filter(|(field, _)| !["metadata", "apiVersion", "kind"].contains(&field.as_str()))
        .all(|(field, value)| item.get(field) == Some(value))
}

#[cfg(test)]
mod tests {
    use http::Method;
    use serde_json::json;

    use super::*;
    use crate::fake;

    const OF: Watch = Watch {
        version: "rbac.authorization.k8s.io/v1",
        kind: "ClusterRoleBinding",
        namespace: None,
        labels: Some("by=us"),
        name: None,
    };
    const PATH: &str = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";

    fn binding(name: &str, role: &str) -> Value {
        json!({
            "apiVersion": OF.version, "kind": OF.kind, "metadata": { "name": name, "labels": { "by": "us" } },
            "roleRef": { "name": role }, "subjects": [{ "name": name }]
        })
    }

    #[tokio::test]
    async fn what_is_to_be_is_made_and_what_is_not_goes() {
        let (cluster, log) = fake::cluster(|asked| match (&asked.method, asked.path.as_str()) {
            (&Method::GET, path) if path.starts_with(PATH) => {
                // As a list has them: without what each is, and with what the server adds.
                let item = |name: &str, role: &str| {
                    let mut item = binding(name, role);
                    item["metadata"]["uid"] = json!("u");
                    item.as_object_mut().unwrap().remove("kind");
                    item
                };
                let items = [
                    item("own:kept", "admin"),
                    item("own:changed", "another"),
                    item("own:over", "admin"),
                    item("somebody", "admin"),
                ];
                (200, json!({ "metadata": {}, "items": items }))
            }
            (&Method::DELETE, path) if path.ends_with("own:revoked") => fake::refusal(404, "not found"),
            _ => (200, json!({ "metadata": { "uid": "new" }, "items": [] })),
        });
        let objects = ["own:kept", "own:changed", "own:new"].map(|name| binding(name, "admin"));
        let own = |name: &str| name.starts_with("own:");
        let changed = cluster
            .replace_all(&OF, own, &objects, &["own:revoked".to_owned()])
            .await
            .unwrap();
        assert_eq!(changed, 4);
        let named = |method: &Method| {
            let mut names: Vec<String> = fake::paths(&log, method)
                .iter()
                .filter_map(|path| path.strip_prefix(PATH)?.split('?').next().map(str::to_owned))
                .collect();
            names.sort();
            names
        };
        assert_eq!(
            named(&Method::DELETE),
            ["/own:changed", "/own:over", "/own:revoked"]
        );
        assert_eq!(named(&Method::PATCH), ["/own:changed", "/own:new"]);
        let first = log.lock().unwrap()[0].clone();
        assert_eq!(
            first.method,
            Method::DELETE,
            "what is revoked goes before anything can go wrong"
        );
    }
}
