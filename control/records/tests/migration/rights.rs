//! Who may do what, and in which subscriptions, after a migration.

use control_records::{
    LoginRecord, PrincipalRecord, SubscriptionRecord, SubscriptionState, access, access::AssignmentRecord,
    key, migrate, migrate::FORMAT,
};
use control_store::{Store, Txn, get_record, list_records, put_record};
use serde_json::json;

use crate::{AT, fifth, first, fourth, second, third};

/// Until format 5 every principal might do everything.
#[tokio::test]
async fn every_principal_keeps_what_it_might_do_and_may_lose_it_later() {
    for store in [first().await, second().await, third().await, fourth().await] {
        migrate(&store).await.unwrap();
        let (principals, _) = list_records::<PrincipalRecord>(&store, "/principals/")
            .await
            .unwrap();
        assert!(!principals.is_empty());
        let (given, _) = list_records::<AssignmentRecord>(&store, access::ASSIGNMENTS)
            .await
            .unwrap();
        let mut given: Vec<_> = given.into_iter().map(|(_, given)| given.value).collect();
        let mut wanted: Vec<_> = principals
            .into_iter()
            .map(|(_, found)| found.value)
            .map(|found| access::owner_of_all(&found.object_id, &found.kind, found.created_at).unwrap())
            .collect();
        given.sort_by(|a, b| a.name.cmp(&b.name));
        wanted.sort_by(|a, b| a.name.cmp(&b.name));
        assert_eq!(given, wanted);
        // Each as if it had been made by this release: so it can be removed like any other.
        let removed = given.iter().flat_map(AssignmentRecord::removal);
        let txn = removed.fold(Txn::default(), Txn::with);
        store.txn(txn).await.unwrap();
        assert_eq!(store.list("/access/").await.unwrap().0, []);
        let again = migrate(&store).await.unwrap();
        assert_eq!((again.from, again.records), (FORMAT, 0), "it is not done twice");
        assert_eq!(store.list("/access/").await.unwrap().0, []);
    }
}

/// Since format 5 rights are what was given.
#[tokio::test]
async fn rights_of_the_fifth_format_are_left_as_they_are() {
    let store = fifth().await;
    let (before, _) = store.list("/access/").await.unwrap();
    let done = migrate(&store).await.unwrap();
    assert_eq!((done.from, done.records), (5, 2), "one login of each principal");
    assert_eq!(store.list("/access/").await.unwrap().0, before);
    let (given, _) = list_records::<AssignmentRecord>(&store, access::ASSIGNMENTS)
        .await
        .unwrap();
    assert_eq!(given.len(), 2);
    for (key, given) in given {
        assert_eq!(given.value.key(), key);
    }
    let (roles, _) = list_records::<access::RoleRecord>(&store, access::ROLES)
        .await
        .unwrap();
    assert_eq!(roles.len(), 1);
    let (locks, _) = list_records::<access::LockRecord>(&store, access::LOCKS)
        .await
        .unwrap();
    assert_eq!(locks[0].1.value.key(), locks[0].0);
    let (principals, _) = list_records::<PrincipalRecord>(&store, key::PRINCIPALS)
        .await
        .unwrap();
    let mut credentials = principals.iter().map(|(_, found)| &found.value.credentials);
    assert!(credentials.any(|credentials| !credentials.is_empty()));
}

/// Until format 6 a login was looked for among all principals.
#[tokio::test]
async fn every_login_is_found_by_the_index() {
    for store in [
        first().await,
        second().await,
        third().await,
        fourth().await,
        fifth().await,
    ] {
        let twice = json!({ "v": 1, "objectId": "ffffffff-ffff-4fff-8fff-ffffffffffff", "login": "A/B%", "kind": "User",
            "displayName": "", "secretHash": "", "createdAt": AT });
        let txn = Txn::default().with(put_record(
            "/principals/ffffffff-ffff-4fff-8fff-ffffffffffff",
            &twice,
        ));
        store.txn(txn).await.unwrap();
        migrate(&store).await.unwrap();
        let (principals, _) = list_records::<PrincipalRecord>(&store, key::PRINCIPALS)
            .await
            .unwrap();
        assert!(principals.len() > 1);
        for (_, found) in &principals {
            let index = get_record::<LoginRecord>(&store, &key::login(&found.value.login))
                .await
                .unwrap();
            assert_eq!(index.unwrap().value.principal, found.value.object_id);
        }
        let (logins, _) = store.list("/directory/login/").await.unwrap();
        assert_eq!(logins.len(), principals.len());
    }
}

#[tokio::test]
async fn a_subscription_of_before_can_be_changed_in() {
    for store in [first().await, second().await, third().await] {
        migrate(&store).await.unwrap();
        let (all, _) = list_records::<SubscriptionRecord>(&store, key::SUBSCRIPTIONS)
            .await
            .unwrap();
        assert!(!all.is_empty());
        for (key, found) in all {
            assert_eq!(found.value.state, SubscriptionState::Enabled, "{key}");
        }
    }
    let disabled = SubscriptionState::Disabled;
    assert_eq!(json!(disabled), disabled.as_str());
}
