//! Managed namespaces: brought about, taken over or not, put right, given up; and how their operations end.

use cluster_api::NamespaceSeen;
use cluster_spec::{AdoptionPolicy, CredentialKind, NamespaceSpec, Tier};
use control_records::{
    Restored, SystemData,
    credential::CredentialRecord,
    namespace::{NamespaceRecord, NamespaceState},
};

use super::{healing::standing, *};

fn record(name: &str, wished: u64) -> NamespaceRecord {
    NamespaceRecord {
        v: 1,
        name: name.to_owned(),
        id: format!("id-{name}"),
        generation: wished,
        wished,
        spec: NamespaceSpec::default(),
        tags: BTreeMap::new(),
        deleting: false,
        operations: Vec::new(),
        system_data: SystemData {
            created_at: at(0),
            created_by: "ada".to_owned(),
            created_by_type: "User".to_owned(),
            modified_at: at(0),
            modified_by: "ada".to_owned(),
            modified_by_type: "User".to_owned(),
        },
    }
}

/// Asks for one, with an operation; `deletes`: for it to go.
fn ask(ideal: &mut Ideal, mut wanted: NamespaceRecord, deletes: bool) -> String {
    let id = format!("{}-{}", wanted.name, wanted.wished);
    let operation = OperationRecord {
        deletes,
        ..OperationRecord::accepted(
            id.clone(),
            "ManagedNamespaces_CreateOrUpdate",
            "",
            Owner::cluster("0123456789"),
            wanted.wished,
            ideal.now,
        )
    };
    ideal.seen.namespace_operations.push(operation);
    wanted.deleting = deletes;
    let mut known = ideal.seen.namespaces.iter();
    let before = known.find(|before| before.name == wanted.name);
    wanted.operations = before.map(|before| before.operations.clone()).unwrap_or_default();
    wanted.operations.push(id.clone());
    ideal.seen.namespaces.retain(|before| before.name != wanted.name);
    ideal.seen.namespaces.push(Arc::new(wanted));
    id
}

fn state<'i>(ideal: &'i Ideal, name: &str) -> Option<&'i NamespaceState> {
    ideal.seen.observed.namespaces.get(name)
}

fn planned(ideal: &Ideal) -> usize {
    let plan = ideal.plan();
    let effects = plan.effects.iter();
    effects
        .filter(|effect| matches!(effect, Effect::Api(ApiEffect::SetNamespace(_))))
        .count()
}

fn ended(ideal: &Ideal, id: &str) -> Option<OperationStatus> {
    let found = ideal.ended.iter().find(|(ended, _)| ended == id);
    found.map(|(_, status)| *status)
}

#[test]
fn a_namespace_is_brought_about_and_its_operation_ends() {
    let mut ideal = standing(Tier::Free, vec![pool("a", 1)]);
    assert_eq!(planned(&ideal), 0);
    let generation = ideal.seen.observed.generation;
    let one = ask(&mut ideal, record("one", 1), false);
    ask(&mut ideal, record("two", 1), false);
    assert_eq!(planned(&ideal), 2, "side by side");
    ideal.run();
    assert!(state(&ideal, "one").is_some_and(|state| state.held && state.wished == 1));
    assert_eq!(ended(&ideal, &one), Some(OperationStatus::Succeeded));
    assert_eq!(
        ideal.seen.observed.generation, generation,
        "the cluster is what it was"
    );
    assert!(ideal.plan().settled() && ideal.plan().look_again.is_none());
    // A change is another generation of it.
    let again = ask(&mut ideal, record("one", 2), false);
    assert_eq!(planned(&ideal), 1);
    ideal.run();
    assert_eq!(ended(&ideal, &again), Some(OperationStatus::Succeeded));
}

#[test]
fn one_that_is_somebody_elses_fails_and_says_why_until_it_is_asked_for_otherwise() {
    let mut ideal = standing(Tier::Free, vec![pool("a", 1)]);
    ideal.strangers.insert("theirs".to_owned());
    let id = ask(&mut ideal, record("theirs", 1), false);
    ideal.run();
    assert_eq!(ended(&ideal, &id), Some(OperationStatus::Failed));
    let seen = state(&ideal, "theirs").unwrap();
    assert!(!seen.held && seen.problem.as_deref().is_some_and(|why| why.contains("exists")));
    assert!(ideal.plan().settled(), "nobody waits for it");
    let told = ideal
        .told
        .iter()
        .filter(|(_, event)| event.subject == "namespace theirs");
    assert_eq!(told.count(), 1);
    let mut adopted = record("theirs", 2);
    adopted.spec.adoption = AdoptionPolicy::Always;
    let id = ask(&mut ideal, adopted, false);
    ideal.run();
    assert_eq!(ended(&ideal, &id), Some(OperationStatus::Succeeded));
    assert!(state(&ideal, "theirs").is_some_and(|state| state.held && state.problem.is_none()));
}

#[test]
fn what_goes_is_waited_for_and_its_record_goes_last() {
    let mut ideal = standing(Tier::Free, vec![pool("a", 1)]);
    ask(&mut ideal, record("one", 1), false);
    ideal.run();
    let id = ask(&mut ideal, record("one", 2), true);
    ideal.pass();
    assert!(matches!(
        ideal.seen.api.namespaces["one"].seen,
        NamespaceSeen::Going(_)
    ));
    assert_eq!(
        (ideal.seen.namespaces.len(), planned(&ideal)),
        (1, 0),
        "not before it is time"
    );
    // Nothing is planned until the timer: a run ends there, and the next one goes on.
    ideal.run();
    ideal.run();
    assert!(ideal.seen.namespaces.is_empty() && state(&ideal, "one").is_none());
    assert_eq!(ended(&ideal, &id), Some(OperationStatus::Succeeded));
}

#[test]
fn a_deletion_overtakes_what_was_asked_before() {
    let mut ideal = standing(Tier::Free, vec![pool("a", 1)]);
    let first = ask(&mut ideal, record("one", 1), false);
    let second = ask(&mut ideal, record("one", 2), true);
    ideal.run();
    assert_eq!(ended(&ideal, &first), Some(OperationStatus::Canceled));
    assert_eq!(ended(&ideal, &second), Some(OperationStatus::Succeeded));
}

#[test]
fn what_is_changed_in_the_cluster_is_put_right_after_a_pause_and_after_a_restore() {
    let mut ideal = standing(Tier::Free, vec![pool("a", 1)]);
    ask(&mut ideal, record("one", 1), false);
    ideal.run();
    let set = ideal.seen.api.namespaces["one"].at;
    ideal.now = set;
    ideal.seen.api.change += 1;
    assert_eq!(planned(&ideal), 0, "not each time");
    ideal.now = after(set, Duration::from_secs(2));
    assert_eq!(planned(&ideal), 1);
    ideal.run();
    assert_eq!(planned(&ideal), 0);
    ideal.now = after(ideal.now, Duration::from_secs(1));
    ideal.seen.observed.restored = Some(Restored {
        id: "r".to_owned(),
        at: ideal.now,
    });
    assert_eq!(planned(&ideal), 1);
    ideal.run();
    assert_eq!(planned(&ideal), 0);
}

#[test]
fn a_cluster_that_stands_still_keeps_it_and_applies_it_when_it_starts() {
    let mut ideal = standing(Tier::Free, vec![pool("a", 1)]);
    let turn = |ideal: &mut Ideal, stopped: bool| {
        ideal.desired.change_spec(|spec| spec.stopped = stopped);
        ideal.desired.generation += 1;
        ideal.desired.requests.generation = ideal.desired.generation;
        ideal.run();
    };
    turn(&mut ideal, true);
    let id = ask(&mut ideal, record("one", 1), false);
    ideal.run();
    assert_eq!(
        ended(&ideal, &id),
        Some(OperationStatus::Succeeded),
        "it is written down"
    );
    assert_eq!(state(&ideal, "one"), None);
    turn(&mut ideal, false);
    assert!(state(&ideal, "one").is_some_and(|state| state.held));
}

#[test]
fn while_nobody_answers_an_operation_waits_and_fails_in_the_end() {
    let mut ideal = standing(Tier::Free, vec![pool("a", 1)]);
    ideal.seen.api.reach = Reach::Away;
    let id = ask(&mut ideal, record("one", 1), false);
    assert_eq!(planned(&ideal), 0);
    let plan = ideal.plan();
    let progress = plan.writes.iter().find_map(|write| match write {
        Write::Progress { progress, .. } => Some(progress.step.as_str()),
        _ => None,
    });
    assert_eq!(progress, Some("waiting for the API server to answer"));
    ideal.now = after(ideal.now, ideal.policy.operation_bound);
    let plan = ideal.plan();
    let failed = plan.writes.iter().any(|write| match write {
        Write::EndOperation {
            id: ended,
            status: OperationStatus::Failed,
            error: Some(error),
        } => *ended == id && error.code == OPERATION_TIMED_OUT,
        _ => false,
    });
    assert!(failed, "{:?}", plan.writes);
    assert!(plan.observed.namespaces["one"].problem.is_some());
}

#[test]
fn a_deletion_of_the_cluster_ends_what_was_asked() {
    let mut ideal = standing(Tier::Free, vec![pool("a", 1)]);
    let id = ask(&mut ideal, record("one", 1), false);
    ideal.desired.deleting = true;
    ideal.desired.generation += 1;
    ideal.run();
    assert_eq!(ended(&ideal, &id), Some(OperationStatus::Canceled));
}

#[test]
fn a_credential_of_a_namespace_is_granted_there_and_nowhere_else() {
    let mut ideal = standing(Tier::Free, vec![pool("a", 1)]);
    ask(&mut ideal, record("one", 1), false);
    ideal.run();
    let credential = CredentialRecord {
        v: 1,
        id: "a1".to_owned(),
        kind: CredentialKind::User,
        namespace: Some("one".to_owned()),
        ticket: None,
        asked_by: "o".to_owned(),
        asked_by_name: "ada".to_owned(),
        address: None,
        issued_at: ideal.now,
        expires_at: after(ideal.now, Duration::from_secs(3600)),
        round: 0,
        revoked: None,
    };
    ideal.seen.credentials.push(Arc::new(credential));
    ideal.run();
    assert!(ideal.seen.observed.credentials.contains("a1"));
    let granted = ideal.seen.api.credentials.as_ref();
    assert!(granted.is_none_or(|set| set.wish.granted.is_empty()));
    assert!(ideal.seen.api.namespaces["one"].wish.users.contains("a1"));
    // It ends, and is forgotten.
    ideal.now = after(ideal.now, Duration::from_secs(3600));
    ideal.run();
    assert!(ideal.seen.observed.credentials.is_empty() && ideal.seen.credentials.is_empty());
}
