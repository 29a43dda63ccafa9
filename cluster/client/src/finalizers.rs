//! Finalizers, which keep an object until its resource is gone.

use serde_json::{Value, json};

/// The patch that adds or removes a finalizer of an object, if needed. Others change finalizers as well: the
/// patch is only valid for this version of the object.
pub(crate) fn patch(object: &Value, finalizer: &str, wanted: bool) -> Option<Value> {
    let metadata = &object["metadata"];
    let mut finalizers: Vec<Value> = metadata["finalizers"].as_array().cloned().unwrap_or_default();
    if finalizers.iter().any(|found| found == finalizer) == wanted {
        return None;
    }
    if wanted {
        finalizers.push(json!(finalizer));
    } else {
        finalizers.retain(|found| found != finalizer);
    }
    Some(json!({
        "metadata": { "resourceVersion": metadata["resourceVersion"], "finalizers": finalizers }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_stay_and_what_is_so_already_is_left() {
        let object = json!({ "metadata": { "resourceVersion": "7", "finalizers": ["other", "ours"] } });
        let without = patch(&object, "ours", false);
        let wanted = json!({ "metadata": { "resourceVersion": "7", "finalizers": ["other"] } });
        assert_eq!(without, Some(wanted.clone()));
        assert_eq!(patch(&object, "ours", true), None);
        assert_eq!(patch(&wanted, "ours", true), Some(object));
        assert_eq!(patch(&json!({}), "ours", false), None);
    }
}
