//! Credentials: granted as their records say, taken back at once, forgotten when they have ended.

use cluster_spec::{CredentialKind, Tier};
use control_records::{
    ChildRecord, Restored, SystemData,
    credential::{CredentialRecord, Revoked},
};
use serde_json::json;

use super::{healing::standing, *};

const HOUR: Duration = Duration::from_secs(60 * 60);

fn hand_out(ideal: &mut Ideal, id: &str, kind: CredentialKind, lasts: Duration) {
    let record = CredentialRecord {
        v: 1,
        id: id.to_owned(),
        kind,
        namespace: None,
        ticket: None,
        asked_by: "o".to_owned(),
        asked_by_name: "ada".to_owned(),
        address: None,
        issued_at: ideal.now,
        expires_at: after(ideal.now, lasts),
        round: 0,
        revoked: None,
    };
    ideal.seen.credentials.push(Arc::new(record));
}

fn revoke(ideal: &mut Ideal, id: &str) {
    let now = ideal.now;
    for record in &mut ideal.seen.credentials {
        if record.id == id {
            Arc::make_mut(record).revoked = Some(Revoked { at: now, by: None });
        }
    }
}

/// What is planned to be set.
fn set(ideal: &Ideal) -> Option<CredentialsWish> {
    let plan = ideal.plan();
    let mut wishes = plan.effects.into_iter().filter_map(|effect| match effect {
        Effect::Api(ApiEffect::SetCredentials(wish)) => Some(wish),
        _ => None,
    });
    wishes.next_back()
}

fn ids(of: &BTreeMap<String, CredentialKind>) -> Vec<&str> {
    of.keys().map(String::as_str).collect()
}

fn granted(ideal: &Ideal) -> Vec<&str> {
    ideal
        .seen
        .observed
        .credentials
        .iter()
        .map(String::as_str)
        .collect()
}

#[test]
fn a_credential_is_granted_at_once_and_taken_back_at_once() {
    let mut ideal = standing(Tier::Free, vec![pool("a", 1)]);
    assert_eq!(set(&ideal), None, "nothing is to be granted");
    let generation = ideal.seen.observed.generation;
    hand_out(&mut ideal, "one", CredentialKind::Admin, HOUR);
    hand_out(&mut ideal, "two", CredentialKind::User, HOUR);
    let wish = set(&ideal).unwrap();
    assert_eq!(ids(&wish.granted), ["one", "two"]);
    assert_eq!(wish.granted["two"], CredentialKind::User);
    ideal.run();
    assert_eq!(granted(&ideal), ["one", "two"]);

    revoke(&mut ideal, "one");
    let wish = set(&ideal).unwrap();
    assert_eq!(
        (ids(&wish.granted), ids(&wish.withdrawn)),
        (vec!["two"], vec!["one"])
    );
    ideal.run();
    assert_eq!(granted(&ideal), ["two"]);
    assert_eq!(set(&ideal), None);
    assert_eq!(
        ideal.seen.credentials.len(),
        2,
        "it is known until it would have ended"
    );
    assert_eq!(
        ideal.seen.observed.generation, generation,
        "the cluster is what it was"
    );
}

#[test]
fn what_has_ended_is_taken_back_and_forgotten_with_the_next_look() {
    let mut ideal = standing(Tier::Free, vec![pool("a", 1)]);
    hand_out(&mut ideal, "one", CredentialKind::Admin, HOUR);
    revoke(&mut ideal, "one");
    hand_out(&mut ideal, "two", CredentialKind::Admin, HOUR);
    hand_out(&mut ideal, "long", CredentialKind::Admin, 9 * HOUR);
    ideal.run();
    assert!(
        ideal.plan().look_again.is_none(),
        "its certificate ends by itself: no cluster is woken for it"
    );
    ideal.now = after(ideal.now, HOUR);
    let wish = set(&ideal).unwrap();
    assert_eq!((ids(&wish.granted), ids(&wish.withdrawn)), (vec!["long"], vec![]));
    ideal.run();
    assert_eq!(granted(&ideal), ["long"]);
    let left: Vec<&str> = ideal
        .seen
        .credentials
        .iter()
        .map(|record| record.id.as_str())
        .collect();
    assert_eq!(left, ["long"]);
}

#[test]
fn where_local_accounts_are_off_nothing_works_and_nothing_comes_back() {
    let mut ideal = standing(Tier::Free, vec![pool("a", 1)]);
    // More than one transaction takes.
    for number in 0..100 {
        hand_out(&mut ideal, &format!("c{number:03}"), CredentialKind::Admin, HOUR);
    }
    ideal.run();
    assert_eq!(granted(&ideal).len(), 100);
    let boots = ideal.boots.clone();
    ideal
        .desired
        .change_spec(|spec| spec.disable_local_accounts = true);
    ideal.desired.generation += 1;
    assert_eq!(
        ids(&set(&ideal).unwrap().granted),
        [""; 0],
        "all at once, whatever is written"
    );
    ideal.run();
    assert_eq!(granted(&ideal), [""; 0]);
    assert!(
        ideal
            .seen
            .credentials
            .iter()
            .all(|record| record.revoked.is_some())
    );
    assert_eq!(ideal.seen.observed.generation, ideal.desired.generation);
    ideal
        .desired
        .change_spec(|spec| spec.disable_local_accounts = false);
    ideal.desired.generation += 1;
    ideal.run();
    assert_eq!(granted(&ideal), [""; 0]);
    assert_eq!(ideal.boots, boots, "no machine is started again for it");
}

#[test]
fn while_nobody_answers_credentials_wait() {
    let mut ideal = standing(Tier::Free, vec![pool("a", 1)]);
    ideal.seen.api.reach = Reach::Away;
    hand_out(&mut ideal, "one", CredentialKind::Admin, HOUR);
    assert_eq!(set(&ideal), None);
    ideal.run();
    assert_eq!(granted(&ideal), ["one"]);
}

#[test]
fn what_is_granted_is_compared_where_the_cluster_has_changed_and_set_anew_after_a_restore() {
    let mut ideal = standing(Tier::Free, vec![pool("a", 1)]);
    hand_out(&mut ideal, "one", CredentialKind::Admin, HOUR);
    ideal.run();
    ideal.seen.api.change += 1;
    assert_eq!(set(&ideal), None, "not each time");
    ideal.run();
    ideal.seen.api.change += 1;
    ideal.now = after(ideal.now, ideal.policy.addons_pause);
    assert!(set(&ideal).is_some());
    ideal.run();
    ideal.now = after(ideal.now, Duration::from_secs(1));
    ideal.seen.observed.restored = Some(Restored {
        id: "r".to_owned(),
        at: ideal.now,
    });
    assert_eq!(ids(&set(&ideal).unwrap().granted), ["one"]);
    ideal.run();
    assert_eq!(set(&ideal), None);
}

/// A trusted access role binding is written down.
fn trust(ideal: &mut Ideal, name: &str, principal: &str, roles: &[&str]) {
    let at = ideal.now;
    let record = ChildRecord {
        v: 1,
        name: name.to_owned(),
        generation: 1,
        properties: json!({ "roles": roles }),
        principal: Some(principal.to_owned()),
        system_data: SystemData {
            created_at: at,
            created_by: "ada".to_owned(),
            created_by_type: "User".to_owned(),
            modified_at: at,
            modified_by: "ada".to_owned(),
            modified_by_type: "User".to_owned(),
        },
    };
    ideal.seen.trusted.retain(|known| known.name != name);
    ideal.seen.trusted.push(Arc::new(record));
}

#[test]
fn who_is_trusted_is_what_the_bindings_say_with_or_without_local_accounts() {
    let mut ideal = standing(Tier::Free, vec![pool("a", 1)]);
    let first = ideal.now;
    trust(&mut ideal, "Backup", "p1", &["s/reader", "s/scaler"]);
    let wish = set(&ideal).unwrap();
    let grant = &wish.trusted["backup"];
    assert_eq!((grant.principal.as_str(), grant.changed_at), ("p1", first));
    assert!(grant.roles.iter().eq(["s/reader", "s/scaler"]));
    ideal.run();
    assert_eq!(ideal.seen.observed.trusted["backup"], first);
    assert_eq!(set(&ideal), None);

    ideal.now = after(ideal.now, HOUR);
    let second = ideal.now;
    trust(&mut ideal, "Backup", "p1", &["s/reader"]);
    ideal
        .desired
        .change_spec(|spec| spec.disable_local_accounts = true);
    ideal.desired.generation += 1;
    ideal.run();
    assert_eq!(ideal.seen.observed.trusted["backup"], second);

    ideal.seen.trusted.clear();
    assert!(set(&ideal).unwrap().trusted.is_empty());
    ideal.run();
    assert!(ideal.seen.observed.trusted.is_empty());
}

/// What is done and noted before any time goes by. A cluster that has nothing else to do waits for the end of a ticket's credential.
fn at_once(ideal: &mut Ideal) {
    let now = ideal.now;
    for _ in 0..5 {
        ideal.pass();
        ideal.now = now;
    }
}

#[test]
fn a3_what_a_ticket_gives_is_taken_away_when_its_time_is_over_and_only_then_forgotten() {
    let mut ideal = standing(Tier::Free, vec![pool("a", 1)]);
    let generation = ideal.seen.observed.generation;
    hand_out(&mut ideal, "one", CredentialKind::Support, HOUR);
    hand_out(&mut ideal, "two", CredentialKind::Support, 2 * HOUR);
    assert_eq!(ids(&set(&ideal).unwrap().granted), ["one", "two"]);
    at_once(&mut ideal);
    assert_eq!(granted(&ideal), ["one", "two"]);
    assert_eq!(
        ideal.plan().look_again,
        Some(after(ideal.now, HOUR)),
        "an idle cluster is looked at when it ends"
    );
    ideal.now = after(ideal.now, HOUR);
    let wish = set(&ideal).unwrap();
    assert_eq!(
        (ids(&wish.granted), ids(&wish.withdrawn)),
        (vec!["two"], vec!["one"])
    );
    at_once(&mut ideal);
    assert_eq!(granted(&ideal), ["two"]);

    // The service is down when the second ends, and knows nothing of what is granted.
    ideal.now = after(ideal.now, 3 * HOUR);
    ideal.seen.api.credentials = None;
    let plan = ideal.plan();
    assert!(
        !plan
            .writes
            .iter()
            .any(|write| matches!(write, Write::ForgetCredential(_))),
        "not before it is gone"
    );
    assert_eq!(ids(&set(&ideal).unwrap().withdrawn), ["two"]);
    ideal.run();
    assert_eq!(granted(&ideal), [""; 0]);
    assert!(ideal.seen.credentials.is_empty(), "{:?}", ideal.seen.credentials);
    assert_eq!(set(&ideal), None);
    assert_eq!(ideal.seen.observed.generation, generation);
}

#[test]
fn a3_a_ticket_that_is_closed_takes_back_at_once_and_local_accounts_are_another_matter() {
    let mut ideal = standing(Tier::Free, vec![pool("a", 1)]);
    ideal
        .desired
        .change_spec(|spec| spec.disable_local_accounts = true);
    ideal.desired.generation += 1;
    hand_out(&mut ideal, "one", CredentialKind::Support, HOUR);
    at_once(&mut ideal);
    assert_eq!(granted(&ideal), ["one"], "there was consent");
    assert!(ideal.seen.credentials[0].revoked.is_none());
    revoke(&mut ideal, "one");
    assert_eq!(ids(&set(&ideal).unwrap().withdrawn), ["one"]);
    ideal.run();
    assert_eq!(granted(&ideal), [""; 0]);
    ideal.now = after(ideal.now, HOUR);
    ideal.run();
    assert!(ideal.seen.credentials.is_empty());
}
