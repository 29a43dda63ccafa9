//! The directory over a store in memory.

use std::collections::{BTreeMap, BTreeSet};

use base_env::Env;
use control_records::{
    Credential, PrincipalGroupRecord, PrincipalRecord, Proof,
    access::{AssignmentRecord, owner_of_all},
    key,
};
use control_store::{Store as _, Txn};
use proptest::prelude::*;
use storage_redb::MemoryStore;

use super::*;

struct Stamp {
    store: MemoryStore,
    env: Env,
}

impl Stamp {
    fn new() -> Self {
        Self {
            store: MemoryStore::new(),
            env: Env::simulated(1),
        }
    }

    fn writer(&self) -> Writer<'_> {
        Writer::unnoted(&self.store, &self.env)
    }

    async fn user(&self, login: &str) -> PrincipalRecord {
        let record = PrincipalRecord {
            login: login.to_owned(),
            display_name: login.to_owned(),
            kind: "User".to_owned(),
            secret_hash: "sha256$00$00".to_owned(),
            ..PrincipalRecord::new("", self.env.clock.now())
        };
        create(&self.writer(), record).await.unwrap()
    }

    async fn group(&self, name: &str) -> PrincipalGroupRecord {
        let new = NewGroup {
            display_name: name.to_owned(),
            description: String::new(),
            nickname: name.to_owned(),
        };
        create_group(&self.writer(), new).await.unwrap()
    }

    async fn own(&self, id: &str, kind: &str) -> AssignmentRecord {
        let owner = owner_of_all(id, kind, self.env.clock.now()).unwrap();
        self.store.txn(owner.make(Txn::default())).await.unwrap();
        owner
    }

    async fn keys(&self) -> BTreeSet<String> {
        let (all, _) = self.store.list("/").await.unwrap();
        all.into_iter().map(|(key, _)| key).collect()
    }
}

fn secret(id: &str) -> Credential {
    Credential {
        id: id.to_owned(),
        display_name: String::new(),
        created_at: jiff::Timestamp::UNIX_EPOCH,
        expires_at: None,
        proof: Proof::Secret {
            hash: "sha256$00$00".to_owned(),
            hint: "abc".to_owned(),
        },
    }
}

fn federated(name: &str, subject: &str) -> Credential {
    Credential {
        proof: Proof::Federated {
            name: name.to_owned(),
            issuer: "https://issuer.example".to_owned(),
            subject: subject.to_owned(),
            audiences: vec!["api://AzureADTokenExchange".to_owned()],
        },
        ..secret(name)
    }
}

#[tokio::test]
async fn a_login_is_had_once_and_is_free_again_when_its_owner_is_gone() {
    let stamp = Stamp::new();
    let before = stamp.keys().await;
    let ada = stamp.user("Ada@local").await;
    let bob = stamp.user("bob@local").await;
    let taken = create(
        &stamp.writer(),
        PrincipalRecord {
            login: "ADA@LOCAL".to_owned(),
            ..ada.clone()
        },
    )
    .await;
    assert!(matches!(taken, Err(DirectoryError::Taken { .. })), "{taken:?}");
    let found = find_login(&stamp.store, "aDA@local").await.unwrap().unwrap();
    assert_eq!(found.value, ada);
    let writer = stamp.writer();
    let renamed = update_principal(&writer, &ada.object_id, |record| {
        record.login = "ada@elsewhere".to_owned();
        Ok(())
    });
    renamed.await.unwrap();
    assert!(find_login(&stamp.store, "ada@local").await.unwrap().is_none());
    let writer = stamp.writer();
    let taken = update_principal(&writer, &bob.object_id, |record| {
        record.login = "Ada@Elsewhere".to_owned();
        Ok(())
    });
    assert!(matches!(taken.await, Err(DirectoryError::Taken { .. })));
    stamp.user("ada@local").await;
    for login in ["ada@local", "ada@elsewhere", "bob@local"] {
        let found = find_login(&stamp.store, login).await.unwrap().unwrap();
        delete_principal(&stamp.writer(), &found.value.object_id)
            .await
            .unwrap();
    }
    assert_eq!(stamp.keys().await, before, "nothing is left");
    for wrong in ["", " ", "a\nb", " a", &"x".repeat(MAX_LOGIN_CHARS + 1)] {
        assert!(check_login(wrong).is_err(), "{wrong:?}");
    }
}

#[tokio::test]
async fn groups_in_groups_and_in_circles_are_found() {
    let stamp = Stamp::new();
    let ada = stamp.user("ada@local").await;
    let (one, two, three) = (
        stamp.group("one").await,
        stamp.group("two").await,
        stamp.group("three").await,
    );
    let writer = stamp.writer();
    for (group, member) in [
        (&one, &ada.object_id),
        (&two, &one.object_id),
        (&three, &two.object_id),
        (&one, &three.object_id),
    ] {
        add_member(&writer, &group.object_id, member).await.unwrap();
    }
    let mut of = groups_of(&stamp.store, &ada.object_id.to_uppercase())
        .await
        .unwrap();
    of.sort();
    let mut all = vec![
        one.object_id.clone(),
        two.object_id.clone(),
        three.object_id.clone(),
    ];
    all.sort();
    assert_eq!(of, all);
    let mut above = groups_of(&stamp.store, &one.object_id).await.unwrap();
    above.sort();
    let mut others = vec![two.object_id.clone(), three.object_id.clone()];
    others.sort();
    assert_eq!(above, others, "a group is not in itself");
    let again = add_member(&writer, &one.object_id, &ada.object_id).await;
    assert!(matches!(again, Err(DirectoryError::MemberAlready { .. })));
    assert!(add_member(&writer, &one.object_id, &one.object_id).await.is_err());
    assert!(add_member(&writer, &one.object_id, "nobody").await.is_err());
    assert!(add_member(&writer, "../x", &ada.object_id).await.is_err());
    remove_member(&writer, &two.object_id, &one.object_id)
        .await
        .unwrap();
    assert_eq!(
        groups_of(&stamp.store, &ada.object_id).await.unwrap(),
        vec![one.object_id.clone()]
    );
    let gone = remove_member(&writer, &two.object_id, &one.object_id).await;
    assert!(matches!(gone, Err(DirectoryError::Missing { .. })));
    delete_group(&writer, &one.object_id).await.unwrap();
    assert!(groups_of(&stamp.store, &ada.object_id).await.unwrap().is_empty());
    assert!(members(&stamp.store, &three.object_id).await.unwrap() == [two.object_id.clone()]);
    delete_principal(&writer, &ada.object_id).await.unwrap();
    delete_group(&writer, &two.object_id).await.unwrap();
    delete_group(&writer, &three.object_id).await.unwrap();
    assert!(stamp.keys().await.is_empty());
    assert!(groups_of(&stamp.store, "/principals").await.unwrap().is_empty());
}

#[tokio::test]
async fn a_group_with_many_members_goes_with_all_of_them() {
    let stamp = Stamp::new();
    let group = stamp.group("many").await;
    let before = stamp.keys().await;
    for number in 0..100 {
        let user = stamp.user(&format!("u{number}")).await;
        add_member(&stamp.writer(), &group.object_id, &user.object_id)
            .await
            .unwrap();
    }
    assert_eq!(members(&stamp.store, &group.object_id).await.unwrap().len(), 100);
    delete_group(&stamp.writer(), &group.object_id).await.unwrap();
    for user in principals(&stamp.store).await.unwrap() {
        delete_principal(&stamp.writer(), &user.object_id).await.unwrap();
    }
    assert!(stamp.keys().await.is_empty() && !before.is_empty());
}

#[tokio::test]
async fn somebody_who_can_give_rights_is_always_left() {
    let stamp = Stamp::new();
    let (ada, bob) = (stamp.user("ada").await, stamp.user("bob").await);
    let group = stamp.group("admins").await;
    let writer = stamp.writer();
    let owner = stamp.own(&ada.object_id, "User").await;
    // Neither an empty group nor a principal without roles counts as an administrator.
    stamp.own(&group.object_id, "Group").await;
    let disable = async |id: &str| {
        let writer = stamp.writer();
        let off = update_principal(&writer, id, |record| {
            record.disabled = true;
            Ok(())
        });
        off.await.map(drop)
    };
    assert!(matches!(
        disable(&ada.object_id).await,
        Err(DirectoryError::LastAdmin)
    ));
    assert!(matches!(
        delete_principal(&writer, &ada.object_id).await,
        Err(DirectoryError::LastAdmin)
    ));
    let bare = update_principal(&writer, &ada.object_id, |record| {
        record.secret_hash.clear();
        Ok(())
    });
    assert!(
        matches!(bare.await, Err(DirectoryError::LastAdmin)),
        "who cannot log in is nobody"
    );
    assert!(
        admin_left(&stamp.store, Without::Assignment(&owner.key()))
            .await
            .unwrap()
            .is_none()
    );
    // A member of the group counts, as long as it is enabled.
    add_member(&writer, &group.object_id, &bob.object_id)
        .await
        .unwrap();
    disable(&ada.object_id).await.unwrap();
    for refused in [
        disable(&bob.object_id).await,
        delete_principal(&writer, &bob.object_id).await.map(drop),
        delete_group(&writer, &group.object_id).await,
        remove_member(&writer, &group.object_id, &bob.object_id).await,
    ] {
        assert!(matches!(refused, Err(DirectoryError::LastAdmin)), "{refused:?}");
    }
    // The decision depends on the remaining administrator.
    let left = admin_left(&stamp.store, Without::Principal(&ada.object_id))
        .await
        .unwrap()
        .unwrap();
    let rests_on: Vec<&str> = left
        .compare
        .iter()
        .map(|one| match one {
            control_store::Compare::At(key, _) | control_store::Compare::Absent(key) => key.as_str(),
        })
        .collect();
    for key in [
        key::principal(&bob.object_id),
        key::principal_group(&group.object_id),
        key::member(&group.object_id, &bob.object_id),
    ] {
        assert!(rests_on.contains(&key.as_str()), "{rests_on:?}");
    }
    delete_principal(&writer, &ada.object_id).await.unwrap();
}

#[tokio::test]
async fn an_application_and_its_service_principal_have_the_same_credentials() {
    let stamp = Stamp::new();
    let before = stamp.keys().await;
    let writer = stamp.writer();
    let new = NewApplication {
        display_name: "shop".to_owned(),
        identifier_uris: vec!["api://shop".to_owned()],
        web_redirect_uris: vec!["https://shop.example/back".to_owned()],
        public_redirect_uris: Vec::new(),
        credentials: vec![secret("a")],
    };
    let application = create_application(&writer, new).await.unwrap();
    assert!(
        find_login(&stamp.store, &application.app_id)
            .await
            .unwrap()
            .is_none()
    );
    let principal = create_service_principal(&writer, &application.app_id, true)
        .await
        .unwrap();
    assert_eq!(principal.credentials, application.credentials);
    assert_eq!(principal.redirect_uris, ["https://shop.example/back"]);
    let twice = create_service_principal(&writer, &application.app_id, true).await;
    assert!(matches!(twice, Err(DirectoryError::Taken { .. })));
    // The service principal's own credentials stay.
    let own = update_principal(&writer, &principal.object_id, |record| {
        record.credentials.push(secret("own"));
        Ok(())
    });
    own.await.unwrap();
    let changed = update_application(&writer, &application.object_id, |record| {
        record.credentials = vec![federated("ci", "job")];
        record.display_name = "store".to_owned();
        record.public_redirect_uris = vec!["http://localhost".to_owned()];
        Ok(())
    });
    changed.await.unwrap();
    let found = find_login(&stamp.store, &application.app_id)
        .await
        .unwrap()
        .unwrap()
        .value;
    let ids: Vec<&str> = found.credentials.iter().map(|one| one.id.as_str()).collect();
    assert_eq!((ids, found.display_name.as_str()), (vec!["own", "ci"], "store"));
    assert_eq!(
        found.redirect_uris,
        ["https://shop.example/back", "http://localhost"]
    );
    let other = NewApplication {
        display_name: "other".to_owned(),
        identifier_uris: vec!["API://shop".to_owned()],
        web_redirect_uris: vec!["https://shop.example/back".to_owned()],
        public_redirect_uris: Vec::new(),
        credentials: Vec::new(),
    };
    assert!(matches!(
        create_application(&writer, other).await,
        Err(DirectoryError::Taken { .. })
    ));
    let bad = update_application(&writer, &application.object_id, |record| {
        record.credentials.push(federated("again", "job"));
        Ok(())
    });
    assert!(matches!(bad.await, Err(DirectoryError::Taken { .. })));
    delete_application(&writer, &application.object_id).await.unwrap();
    assert_eq!(stamp.keys().await, before);
}

proptest! {
    /// Against the closure of the same memberships, computed in another way.
    #[test]
    fn what_somebody_is_in_is_the_closure(edges in prop::collection::vec((0_usize..6, 0_usize..6), 0..16)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let stamp = Stamp::new();
            let mut ids = Vec::new();
            for number in 0..6 {
                ids.push(stamp.group(&format!("g{number}")).await.object_id);
            }
            let mut reach = BTreeMap::<usize, BTreeSet<usize>>::new();
            for (group, member) in &edges {
                if group != member && add_member(&stamp.writer(), &ids[*group], &ids[*member]).await.is_ok() {
                    reach.entry(*member).or_default().insert(*group);
                }
            }
            for _ in 0..6 {
                let known = reach.clone();
                for groups in reach.values_mut() {
                    let more: Vec<usize> = groups.iter().filter_map(|one| known.get(one)).flatten().copied().collect();
                    groups.extend(more);
                }
            }
            for (number, id) in ids.iter().enumerate() {
                let found: BTreeSet<String> = groups_of(&stamp.store, id).await.unwrap().into_iter().collect();
                let mut wanted = reach.get(&number).cloned().unwrap_or_default();
                wanted.remove(&number);
                let wanted: BTreeSet<String> = wanted.into_iter().map(|one| ids[one].clone()).collect();
                assert_eq!(found, wanted);
            }
        });
    }
}
