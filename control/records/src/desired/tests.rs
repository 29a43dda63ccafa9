use cluster_spec::{
    AutoscalerProfile, ClusterSpec, DirectoryAccess, IngressReach, IngressSpec, PodNetworking, PoolRange,
    Tier, testkit,
};

use super::*;

fn pool(name: &str) -> PoolSpec {
    PoolSpec {
        labels: [("team".to_owned(), "blue".to_owned())].into(),
        taints: vec!["a=b:NoSchedule".to_owned()],
        surge: 2,
        unavailable: 1,
        drain_minutes: 45,
        soak_minutes: 5,
        undrainable: cluster_spec::Undrainable::Cordon,
        autoscale: Some(PoolRange { min: 1, max: 5 }),
        image: Some("2026.11.28".to_owned()),
        ..testkit::pool(name, 3)
    }
}

/// Nothing of it is as a body that says nothing has it.
fn spec() -> ClusterSpec {
    ClusterSpec {
        kubernetes_version: "1.37.1".to_owned(),
        pools: vec![pool("a"), pool("b")],
        disable_local_accounts: true,
        tier: Tier::Premium,
        restore: Some(RestoreSpec {
            id: "r1".to_owned(),
            at: Some(1),
            source: "other".to_owned(),
        }),
        stopped: true,
        archived: true,
        issuer: Some("https://h/oidc/u/".to_owned()),
        workload_identity: true,
        directory: Some(DirectoryAccess {
            tenant: "t".to_owned(),
            admins: vec!["admins".to_owned()],
            roles: true,
        }),
        disks_off: true,
        forced_until: Some(1_767_225_600_000),
        emulated: Some("1.36".to_owned()),
        files_off: true,
        snapshots_off: true,
        ingress: IngressSpec {
            controller: Some(IngressReach::Internal),
            gateway_api: true,
        },
        autoscaler: AutoscalerProfile {
            unneeded: 60,
            ..AutoscalerProfile::default()
        },
        ..testkit::cluster()
    }
}

#[test]
fn everything_of_a_spec_follows_from_body_and_decisions() {
    let all = [
        PodNetworking::Kubenet,
        PodNetworking::AzureFlat,
        PodNetworking::AzureOverlay,
        PodNetworking::None,
    ];
    for plugin in all {
        for (stopped, tier) in [(true, Tier::Free), (false, Tier::Standard)] {
            let mut spec = ClusterSpec {
                stopped,
                archived: stopped,
                tier,
                ..spec()
            };
            spec.network.plugin = plugin;
            spec.network.outbound = stopped;
            let state = DesiredState::of_spec(&spec);
            assert_eq!(state.spec(), &spec);
            let stored = serde_json::to_value(&state).unwrap();
            assert!(stored.get("spec").is_none(), "{stored}");
            assert_eq!(serde_json::from_value::<DesiredState>(stored).unwrap(), state);
        }
    }
}

#[test]
fn pools_are_changed_with_what_was_decided_about_them() {
    let state = DesiredState::of_spec(&spec());
    let mut pools = state.pools();
    assert_eq!(pools.len(), 2);
    assert_eq!(pools[1].spec(), &state.spec().pools[1]);
    pools.remove(0);
    pools.push(DesiredPool::of_spec(&pool("c")));
    pools[0] = pools[0].emptied().unwrap();
    let changed = state.with_pools(pools.clone()).unwrap();
    assert_eq!(changed.pools(), pools);
    let names: Vec<_> = changed.decided().pools.keys().collect();
    assert_eq!(names, ["b", "c"]);
    assert_eq!(changed.spec().pools[0].count, 0);
    assert_eq!(changed.spec().pools[0].incarnation, "b-1");
    pools.push(pools[0].clone());
    assert!(state.with_pools(pools).unwrap_err().to_string().contains("twice"));
}

#[test]
fn shares_of_nodes_are_rounded_as_aks_does() {
    let at = |count: u32, settings: Value| {
        let mut body = DesiredPool::of_spec(&pool("a")).body().clone();
        body["count"] = json!(count);
        body["upgradeSettings"] = settings;
        let pool = DesiredPool::new(body, DecidedPool::of(&pool("a"))).unwrap();
        (pool.spec().surge, pool.spec().unavailable)
    };
    assert_eq!(
        at(10, json!({ "maxSurge": "33%", "maxUnavailable": "10%" })),
        (4, 1)
    );
    assert_eq!(
        at(0, json!({ "maxSurge": "10%", "maxUnavailable": "0%" })),
        (1, 0)
    );
    assert_eq!(at(3, json!({ "maxSurge": "5", "maxUnavailable": "2" })), (5, 2));
    // As bodies of earlier releases are.
    assert_eq!(at(30, json!({})), (3, 0));
    let mut body = DesiredPool::of_spec(&pool("a")).body().clone();
    body.as_object_mut().unwrap().remove("upgradeSettings");
    let older = DesiredPool::new(body, DecidedPool::of(&pool("a"))).unwrap();
    assert_eq!((older.spec().surge, older.spec().unavailable), (1, 0));
}

#[test]
fn what_upgrades_wait_for_follows_from_the_body() {
    let at = |settings: Value| {
        let mut body = DesiredPool::of_spec(&pool("a")).body().clone();
        body["upgradeSettings"] = settings;
        let pool = DesiredPool::new(body, DecidedPool::of(&pool("a"))).unwrap();
        let spec = pool.spec();
        (
            spec.drain_minutes,
            spec.soak_minutes,
            spec.undrainable.is_default(),
        )
    };
    assert_eq!(at(json!({})), (30, 0, true));
    // azurerm sends 0 for the default.
    assert_eq!(at(json!({ "drainTimeoutInMinutes": 0 })), (30, 0, true));
    let all = json!({
        "drainTimeoutInMinutes": 1440, "nodeSoakDurationInMinutes": 30, "undrainableNodeBehavior": "Cordon",
    });
    assert_eq!(at(all), (1440, 30, false));

    let forced = |settings: Value| {
        let state = DesiredState::of_spec(&spec());
        let changed = state.with(|body, _| {
            body["properties"]["upgradeSettings"] = json!({ "overrideSettings": settings });
        });
        changed.map(|state| state.spec().forced_until)
    };
    assert_eq!(forced(json!({ "forceUpgrade": true })), Ok(None));
    assert_eq!(forced(json!({ "until": "1970-01-01T00:00:01Z" })), Ok(None));
    let both = json!({ "forceUpgrade": true, "until": "1970-01-01T00:00:01Z" });
    assert_eq!(forced(both), Ok(Some(1000)));
}

#[test]
fn a_pool_that_is_stopped_keeps_its_count() {
    let spec = PoolSpec {
        stopped: true,
        ..pool("a")
    };
    let desired = DesiredPool::of_spec(&spec);
    assert_eq!(desired.spec(), &spec);
    assert_eq!((spec.count, spec.wanted()), (3, 0));
    let started = desired.with(|body, _| body["powerState"] = json!({ "code": "Running" }));
    assert_eq!(started.unwrap().spec().wanted(), 3);
}

#[test]
fn a_body_from_which_no_spec_follows_is_refused_by_name() {
    let state = DesiredState::of_spec(&spec());
    for (pointer, wrong) in [
        ("/location", Value::Null),
        ("/properties/nodeResourceGroup", json!(1)),
        ("/properties/disableLocalAccounts", json!("yes")),
        ("/properties/networkProfile/networkPlugin", json!("other")),
        ("/properties/networkProfile/serviceCidr", json!("10.0.0.0")),
        ("/properties/networkProfile/dnsServiceIP", Value::Null),
        ("/properties/agentPoolProfiles", json!({})),
        ("/properties/agentPoolProfiles/0/name", json!("other")),
        ("/properties/agentPoolProfiles/0/count", json!(-1)),
        ("/properties/agentPoolProfiles/0/mode", json!("Other")),
        ("/properties/agentPoolProfiles/0/nodeTaints", json!(["a=b"])),
        (
            "/properties/agentPoolProfiles/0/upgradeSettings/maxSurge",
            json!("many"),
        ),
    ] {
        let refused = state.with(|body, _| *body.pointer_mut(pointer).unwrap() = wrong);
        let Malformed { path, .. } = refused.unwrap_err();
        let name = pointer.rsplit('/').next().unwrap();
        assert!(
            path.ends_with(name) || path.ends_with("other"),
            "{pointer}: {path}"
        );
    }
    let lost = state.with(|_, decided| drop(decided.pools.remove("b")));
    assert!(lost.unwrap_err().path.ends_with('b'));
    let more = state.with(|_, decided| {
        decided.pools.insert("x".to_owned(), DecidedPool::of(&pool("x")));
    });
    assert_eq!(more.unwrap_err().path, POOLS);
}

#[test]
fn a_pool_keeps_what_its_nodes_were_for_one_step_back() {
    let pool = DesiredPool::of_spec(&pool("a"));
    let same = pool.with(|_, decided| decided.go_to("1.36.3", Some("2026.11.28".to_owned()), 5));
    assert_eq!(same.unwrap(), pool, "nothing else is asked for");
    let newer = pool.with(|_, decided| decided.go_to("1.37.1", Some("2026.12.05".to_owned()), 7));
    let newer = newer.unwrap();
    let last = newer.decided().last.clone().unwrap();
    assert_eq!(
        (last.kubernetes_version.as_str(), last.image.as_deref(), last.at),
        ("1.36.3", Some("2026.11.28"), 7)
    );
    let state = DesiredState::of_spec(&spec());
    let mut pools = state.pools();
    pools[0] = newer;
    let state = state.with_pools(pools).unwrap();
    // It is kept with the cluster, although the spec does not tell of it.
    assert_eq!(state.pools()[0].decided().last.as_ref(), Some(&last));
    let back = state.pools()[0]
        .with(|_, decided| decided.go_back(&last))
        .unwrap();
    assert_eq!(back.spec().kubernetes_version, "1.36.3");
    assert_eq!(back.spec().image.as_deref(), Some("2026.11.28"));
    assert_eq!(back.decided().left.as_deref(), Some("2026.12.05"));
    assert_eq!(back.decided().last, None, "there is one step");
}

#[test]
fn a_control_plane_emulates_until_it_is_finalised() {
    let state = DesiredState::of_spec(&spec());
    assert_eq!(state.spec().emulated.as_deref(), Some("1.36"));
    let finalised = state.with(|_, decided| decided.soak = None).unwrap();
    assert_eq!(finalised.spec().emulated, None);
}
