//! What requests about a managed namespace come to. Pure.

use arm_ids::same_location;
use arm_kernel::{
    Context, Decision, Tags, quote,
    schema::{Problems, clean},
    system_data,
};
use arm_wire::{ArmError, ErrorCode};
use cluster_namespaces::{NAME_LABEL, is_system};
use cluster_spec::NamespaceSpec;
use control_records::{
    ClusterRecord, OperationError, OperationRecord, OperationStatus, Owner, namespace::NamespaceRecord,
};
use serde_json::{Map, Value};

use super::{DELETE, PUT, State, TREE, id_of, not_found, tags_of};
use crate::{
    ProviderConfig,
    clusters::{body::not_an_object, draft::refuse_deleting},
    formats::is_namespace_name,
    records::{ClusterPath, StoredCluster},
};

/// Managed namespaces of a cluster: each is compared with the cluster now and then.
const MOST: usize = 100;
/// Operations of a namespace that may be under way; a further one takes the place of the oldest.
const MOST_RUNNING: usize = 8;
/// Bytes of all labels and annotations: Kubernetes keeps four times as much.
const MOST_TEXT: usize = 64 << 10;

/// What is written.
pub(crate) struct Change {
    pub(super) record: NamespaceRecord,
    pub(super) operation: Option<OperationRecord>,
    /// Operations that it ends.
    pub(super) ended: Vec<OperationRecord>,
}

/// Decides a PUT.
pub(super) fn put(
    context: &Context<'_, ProviderConfig>,
    state: &State,
    body: &Value,
) -> Result<Change, ArmError> {
    let at = ClusterPath::of(context.info.path)?;
    let cluster = state.cluster.as_ref().ok_or_else(|| at.parent_not_found())?;
    refuse_deleting(&cluster.record.value)?;
    let present = state.record();
    match present {
        Some(present) if present.deleting => return Err(going(present)),
        Some(_) => {}
        None => check_new(at, state)?,
    }
    if !body.is_object() {
        return Err(not_an_object());
    }
    let name = present.map_or(at.child, |present| present.name.as_str());
    let mut problems = Problems::default();
    let mut cleaned = clean(&TREE, body, context.info.api_version, &mut problems).body;
    let location = cleaned.get("location").and_then(Value::as_str);
    if let Some(asked) = location.filter(|asked| !same_location(asked, &context.config.location)) {
        let message = format!(
            "The location {} is not available here; use '{}'.",
            quote(asked),
            context.config.location
        );
        problems.add(ErrorCode::LOCATION_NOT_AVAILABLE, "location", message);
    }
    let properties = match cleaned.remove("properties") {
        Some(Value::Object(properties)) => properties,
        _ => Map::new(),
    };
    check(name, &properties, &mut problems);
    problems.into_result()?;
    let mut spec: NamespaceSpec =
        serde_json::from_value(Value::Object(properties)).map_err(ArmError::internal)?;
    // Kubernetes sets that one, and tells of it; clients send back what they read.
    spec.labels.remove(NAME_LABEL);
    let tags = tags_of(&mut cleaned);
    next(context, cluster, state, name, PUT, |record| NamespaceRecord {
        spec,
        tags,
        ..record
    })
}

/// Decides a DELETE.
pub(super) fn delete(
    context: &Context<'_, ProviderConfig>,
    state: &State,
) -> Result<Decision<Change>, ArmError> {
    let (Some(cluster), Some(present)) = (&state.cluster, state.record()) else {
        return Ok(Decision::Unchanged);
    };
    let record = &cluster.record.value;
    refuse_deleting(record)?;
    let deletion = state.running.iter().rev().find(|one| one.value.deletes);
    if let Some(deletion) = deletion.filter(|_| present.deleting) {
        return Ok(Decision::InProgress(deletion.value.id.clone()));
    }
    refuse_still(record, present)?;
    let name = present.name.clone();
    let change = next(context, cluster, state, &name, DELETE, |record| NamespaceRecord {
        deleting: true,
        ..record
    })?;
    Ok(Decision::Write(change))
}

/// Decides to give it other tags, which the cluster does not see.
pub(super) fn tags(
    context: &Context<'_, ProviderConfig>,
    state: &State,
    tags: Tags,
) -> Result<Change, ArmError> {
    let at = ClusterPath::of(context.info.path)?;
    let present = state.record().ok_or_else(|| not_found(at))?;
    if present.deleting {
        return Err(going(present));
    }
    let data = system_data::touched(Some(&present.system_data), context.info.principal, context.now);
    Ok(Change {
        record: NamespaceRecord {
            tags,
            generation: present.generation + 1,
            system_data: data,
            ..present.clone()
        },
        operation: None,
        ended: Vec::new(),
    })
}

fn check_new(at: ClusterPath<'_>, state: &State) -> Result<(), ArmError> {
    if !is_namespace_name(at.child) {
        let message = format!(
            "The namespace name {} must have 1 to 63 lower-case letters, digits and hyphens, beginning and ending with a letter or digit.",
            quote(at.child)
        );
        return Err(ArmError::new(ErrorCode::INVALID_RESOURCE_NAME, message).target("name"));
    }
    if is_system(at.child) {
        let message = format!(
            "The namespace {} is a system namespace and cannot be a managed namespace; choose another name.",
            quote(at.child)
        );
        return Err(ArmError::new(ErrorCode::OPERATION_NOT_ALLOWED, message).target("name"));
    }
    if state.count >= MOST {
        let message = format!(
            "The cluster {} has {MOST} managed namespaces, and can have no more; delete some first.",
            quote(at.cluster)
        );
        return Err(ArmError::new(ErrorCode::OPERATION_NOT_ALLOWED, message));
    }
    Ok(())
}

/// Checks what the table cannot say.
fn check(name: &str, properties: &Map<String, Value>, problems: &mut Problems) {
    let texts = ["labels", "annotations"].into_iter();
    let texts = texts.filter_map(|member| properties.get(member)?.as_object());
    let length = |(key, value): (&String, &Value)| key.len() + value.as_str().map_or(0, str::len);
    let size: usize = texts.flatten().map(length).sum();
    if size > MOST_TEXT {
        let message = format!(
            "Labels and annotations have {size} bytes together; at most {MOST_TEXT} are taken. Keep large texts in a ConfigMap."
        );
        problems.add(ErrorCode::INVALID_PARAMETER, "properties.annotations", message);
    }
    let own = properties.get("labels").and_then(|labels| labels.get(NAME_LABEL));
    if own.is_some_and(|own| *own != *name) {
        let message = format!("The label '{NAME_LABEL}' is Kubernetes' own and says '{name}'; leave it out.");
        problems.add(
            ErrorCode::INVALID_PARAMETER,
            format!("properties.labels.{NAME_LABEL}"),
            message,
        );
    }
}

fn going(record: &NamespaceRecord) -> ArmError {
    let message = format!(
        "The namespace '{}' is being deleted, which cannot be taken back. Wait until it is gone, then make it anew.",
        record.name
    );
    ArmError::new(ErrorCode::CONFLICT, message)
}

/// What is in the cluster cannot be let go while nobody answers there on purpose.
fn refuse_still(cluster: &ClusterRecord, record: &NamespaceRecord) -> Result<(), ArmError> {
    if !cluster.spec().stopped && !cluster.requests.halted {
        return Ok(());
    }
    let message = format!(
        "The cluster '{}' does not run, so the namespace '{}' cannot be taken out of it. Start the cluster first (az aks start), or delete it.",
        cluster.name, record.name
    );
    Err(ArmError::new(ErrorCode::OPERATION_NOT_ALLOWED, message))
}

/// The next generation of a record, with the operation for it.
fn next(
    context: &Context<'_, ProviderConfig>,
    cluster: &StoredCluster,
    state: &State,
    name: &str,
    operation: &str,
    change: impl FnOnce(NamespaceRecord) -> NamespaceRecord,
) -> Result<Change, ArmError> {
    let present = state.record();
    let id = context.ids.uuid().to_string();
    let data = present.map(|present| &present.system_data);
    let data = system_data::touched(data, context.info.principal, context.now);
    let wished = present.map_or(0, |present| present.wished) + 1;
    let mut record = change(NamespaceRecord {
        v: 1,
        name: name.to_owned(),
        id: present.map_or_else(|| context.ids.short(), |present| present.id.clone()),
        generation: present.map_or(0, |present| present.generation) + 1,
        wished,
        spec: present.map(|present| present.spec.clone()).unwrap_or_default(),
        tags: present.map(|present| present.tags.clone()).unwrap_or_default(),
        deleting: false,
        operations: Vec::new(),
        system_data: data,
    });
    let owner = Owner::cluster(cluster.record.value.uid.as_str());
    let accepted = OperationRecord {
        creates: present.is_none(),
        deletes: record.deleting,
        asked_by: Some(context.info.principal.object_id.clone()),
        ..OperationRecord::accepted(
            id.as_str(),
            operation,
            id_of(cluster, name),
            owner,
            wished,
            context.now,
        )
    };
    let too_many = (state.running.len() + 1).saturating_sub(MOST_RUNNING);
    let (over, running) = state.running.split_at(too_many.min(state.running.len()));
    let ended = over.iter().map(|stored| OperationRecord {
        status: OperationStatus::Canceled,
        ended_at: Some(context.now),
        error: Some(OperationError {
            code: ErrorCode::PREEMPTED.code.to_owned(),
            message: format!("A later request took this one's place: {operation} (operation {id})."),
        }),
        ..stored.value.clone()
    });
    let ended = ended.collect();
    let running = running.iter().map(|stored| stored.value.id.clone());
    record.operations = running.chain([id.clone()]).collect();
    Ok(Change {
        record,
        operation: Some(accepted),
        ended,
    })
}

#[cfg(test)]
mod tests {
    use cluster_spec::NamespaceNetwork;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_the_table_cannot_say() {
        let refused = |properties: &Value| {
            let mut problems = Problems::default();
            check("dev", properties.as_object().unwrap(), &mut problems);
            problems.into_result().is_err()
        };
        assert!(!refused(&json!({ "labels": { NAME_LABEL: "dev" } })));
        assert!(refused(&json!({ "labels": { NAME_LABEL: "other" } })));
        assert!(!refused(
            &json!({ "annotations": { "a": "x".repeat(MOST_TEXT - 1) } })
        ));
        assert!(refused(&json!({ "annotations": { "a": "x".repeat(MOST_TEXT) } })));
    }

    #[test]
    fn a_network_policy_that_is_given_in_part_has_the_rest_filled_in() {
        let spec = |body: Value| serde_json::from_value::<NamespaceSpec>(body).unwrap();
        assert_eq!(spec(json!({})).network, None);
        assert_eq!(
            spec(json!({ "defaultNetworkPolicy": {} })).network,
            Some(NamespaceNetwork::default())
        );
    }
}
