//! The world follows the contracts of fabric, agents and clusters, in virtual time.

use std::{collections::BTreeMap, time::Duration};

use agent_protocol::ProcessState;
use base_testkit::wait_for;
use cluster_api::{ClusterError, Connect, NodeWish};
use fabric_api::{Fabric, FabricError, MachineId, NetworkId, Power};
use fabric_sim::Call;
use futures::StreamExt as _;
use serde_json::json;

use crate::stand::{BOUND, Stand, cluster, config, endpoint, machine, network, node_ready};

#[tokio::test(start_paused = true)]
async fn the_same_seed_gives_the_same_history() {
    let mut histories = Vec::new();
    for seed in [1, 1, 2] {
        let (Stand { env, world, .. }, _) = cluster(seed).await;
        histories.push((env.clock.monotonic(), world.dump()));
    }
    // The clock is the runtime's: only differences are comparable.
    let first = histories[0].1.clone();
    assert_eq!(first, histories[1].1);
    assert_eq!(
        first,
        "stamp up\n\
         network c1 uplink=100.64.0.9 subnets=nodes\n\
         machine cp ready image=1.36.3 cluster=c1 role=control-plane host=host-cp address=10.224.0.4 generation=1\n\
         machine n1 ready image=1.36.3 cluster=c1 role=node host=host-n1 address=10.224.0.5 generation=1\n\
         cluster c1 api=ready\n\
         \x20 node host-n1 Ready v1.36.3 serving=pending\n"
    );
    assert_eq!(histories[0].0, histories[1].0);
    assert_ne!(histories[0].0, histories[2].0);
}

#[tokio::test(start_paused = true)]
async fn a_node_needs_its_own_configuration_and_an_api() {
    let stand = Stand::new(1);
    let Stand {
        env, world, agents, ..
    } = &stand;
    world.ensure_network(&network()).await.unwrap();
    stand.make("n1", "node", "10.224.0.5").await;
    let api = world.connect("c1", &endpoint()).unwrap();
    env.clock.sleep(BOUND).await;
    assert!(matches!(api.ready().await, Err(ClusterError::Unavailable(_))));
    let changes = api.changes();
    let seen = changes.count();
    stand.make("cp", "control-plane", "10.224.0.4").await;
    node_ready(env, &api, "host-n1", true).await;
    assert_ne!(changes.count(), seen);

    let report = agents.report("cp").unwrap();
    assert_eq!(
        (report.generation, report.processes["main"].state),
        (1, ProcessState::Ready)
    );
    // A newer configuration is accepted.
    agents.publish("cp", config("control-plane", 3));
    wait_for(&env.clock, "generation 3", BOUND, async || {
        match agents.report("cp") {
            Some(report) if report.generation == 3 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    // The service keeps the newer one.
    agents.publish("cp", config("control-plane", 2));
    env.clock.sleep(BOUND).await;
    assert_eq!(agents.report("cp").unwrap().generation, 3);
}

#[tokio::test(start_paused = true)]
async fn a_cluster_holds_what_it_was_given() {
    let (Stand { env, world, .. }, api) = cluster(1).await;
    let wish = NodeWish {
        name: "host-n1".into(),
        pod_range: Some("10.244.0.0/24".parse().unwrap()),
        labels: BTreeMap::from([("a".to_owned(), "1".to_owned())]),
        taints: vec!["k=v:NoSchedule".into()],
        inherited: None,
        takes_pods: true,
        address: Some("10.224.0.5".parse().unwrap()),
    };
    api.set_node(&wish).await.unwrap();
    let changes = api.changes();
    let seen = changes.count();
    api.set_node(&wish).await.unwrap();
    assert_eq!(changes.count(), seen, "the same again is no change");
    let stranger = NodeWish {
        address: Some("10.224.0.6".parse().unwrap()),
        ..wish.clone()
    };
    assert_eq!(api.approve_serving(&[stranger]).await.unwrap(), 0);
    assert_eq!(api.approve_serving(std::slice::from_ref(&wish)).await.unwrap(), 1);
    assert_eq!(api.approve_serving(std::slice::from_ref(&wish)).await.unwrap(), 0);
    let fewer = NodeWish {
        labels: BTreeMap::new(),
        taints: Vec::new(),
        ..wish.clone()
    };
    api.set_node(&fewer).await.unwrap();
    let node = api.nodes().await.unwrap().remove(0);
    assert!(!node.labels.contains_key("a") && node.taints.is_empty());
    assert_eq!(node.pod_range.as_deref(), Some("10.244.0.0/24"));
    let other_range = NodeWish {
        pod_range: Some("10.244.1.0/24".parse().unwrap()),
        ..wish
    };
    assert!(matches!(
        api.set_node(&other_range).await,
        Err(ClusterError::Refused { .. })
    ));

    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "kube-system", "name": "x"}});
    assert_eq!(api.apply(std::slice::from_ref(&object)).await.unwrap(), 1);
    assert_eq!(api.apply(std::slice::from_ref(&object)).await.unwrap(), 0);
    assert!(world.dump().contains("  object v1/ConfigMap kube-system/x\n"));
    assert!(world.remove_object("c1", "v1/ConfigMap kube-system/x"));
    assert_eq!(api.apply(&[object]).await.unwrap(), 1);

    assert!(api.drain("host-n1").await.unwrap().left > 0);
    wait_for(&env.clock, "the pods to go", BOUND, async || {
        match api.drain("host-n1").await {
            Ok(drained) if drained.left == 0 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    api.delete_node("host-n1").await.unwrap();
    api.delete_node("host-n1").await.unwrap();
    env.clock.sleep(BOUND).await;
    assert!(
        api.nodes().await.unwrap().is_empty(),
        "a kubelet makes its node object once"
    );
}

#[tokio::test(start_paused = true)]
async fn machines_stop_crash_vanish_and_come_back() {
    let (
        Stand {
            env, world, agents, ..
        },
        api,
    ) = cluster(1).await;
    assert!(world.crash(&MachineId::from("n1")));
    assert_eq!(world.power(&MachineId::from("n1")), Some(Power::Stopped));
    node_ready(&env, &api, "host-n1", false).await;
    world
        .ensure_machine(&machine("n1", "node", "10.224.0.5"))
        .await
        .unwrap();
    node_ready(&env, &api, "host-n1", true).await;

    // A control plane that restarts keeps its cluster; without its machine the cluster is gone.
    world.stop_machine(&MachineId::from("cp")).await.unwrap();
    assert!(api.ready().await.is_err());
    world
        .ensure_machine(&machine("cp", "control-plane", "10.224.0.4"))
        .await
        .unwrap();
    node_ready(&env, &api, "host-n1", true).await;
    assert!(world.vanish(&MachineId::from("cp")));
    assert!(!world.vanish(&MachineId::from("cp")));
    assert!(!world.dump().contains("  node "));

    world.fail_boots(1);
    world
        .ensure_machine(&machine("n2", "node", "10.224.0.6"))
        .await
        .unwrap();
    env.clock.sleep(BOUND).await;
    assert_eq!(world.power(&MachineId::from("n2")), Some(Power::Running));
    assert!(agents.report("n2").is_none(), "it runs and says nothing");
    world.delete_machine(&MachineId::from("n2")).await.unwrap();
    world.delete_machine(&MachineId::from("n2")).await.unwrap();
    assert_eq!(world.violations(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn calls_fail_as_told_and_are_counted() {
    let Stand { env, world, .. } = Stand::new(1);
    world.fail_next(Call::EnsureNetwork, 1);
    world.lose_answer(Call::EnsureNetwork, 1);
    assert!(matches!(
        world.ensure_network(&network()).await,
        Err(FabricError::Failed { .. })
    ));
    assert!(
        world.list().await.unwrap().networks.is_empty(),
        "it failed before"
    );
    assert!(world.ensure_network(&network()).await.is_err());
    assert_eq!(world.list().await.unwrap().networks.len(), 1, "it failed after");
    world.ensure_network(&network()).await.unwrap();
    let tally = world.tally(Call::EnsureNetwork);
    assert_eq!((tally.calls, tally.failed), (3, 2));

    // Interrupted: the machine exists partially, and another call completes it.
    let cut = env
        .clock
        .timeout(
            Duration::from_millis(1),
            world.ensure_machine(&machine("n1", "node", "10.224.0.5")),
        )
        .await;
    assert!(cut.is_err());
    assert_eq!(world.power(&MachineId::from("n1")), Some(Power::Partial));
    world
        .ensure_machine(&machine("n1", "node", "10.224.0.5"))
        .await
        .unwrap();
    assert_eq!(world.power(&MachineId::from("n1")), Some(Power::Running));

    // Actions that would break a real host are recorded.
    world
        .ensure_machine(&machine("n2", "node", "10.224.0.5"))
        .await
        .unwrap();
    world.delete_network(&NetworkId::from("c1")).await.unwrap();
    assert_eq!(world.violations().len(), 2, "{:?}", world.violations());
    let lost = machine("n3", "node", "10.224.0.7");
    assert!(matches!(
        world.ensure_machine(&lost).await,
        Err(FabricError::NotFound(_))
    ));
    for call in Call::ALL {
        assert_eq!(call.name().parse::<Call>(), Ok(*call));
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_that_restarts_finds_everything_again() {
    let (mut stand, api) = cluster(1).await;
    let before = stand.world.dump();
    stand.restart_service();
    let Stand {
        env, world, agents, ..
    } = &stand;
    assert!(agents.report("cp").is_none());
    let mut reports = agents.subscribe();
    reports.next().await.unwrap();
    wait_for(&env.clock, "reports", BOUND, async || match agents.report("cp") {
        Some(_) => Ok(()),
        None => Err("none".into()),
    })
    .await;
    assert_eq!(world.dump(), before);
    api.ready().await.unwrap();

    agents.forget("n1");
    assert!(agents.report("n1").is_none());
    world.stall_api("c1", true);
    assert!(api.ready().await.is_err());
    world.stall_api("c1", false);
    api.ready().await.unwrap();
    assert!(agents.logs("cp", "main", 3).await.unwrap().lines().count() == 3);
    assert!(agents.logs("none", "main", 3).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_lost_its_disk_has_another_key() {
    let (
        Stand {
            env, world, agents, ..
        },
        _,
    ) = cluster(1).await;
    let id = MachineId::from("n1");
    let boot = || agents.report("n1").map(|report| report.boot.clone());
    let first = boot();
    // With its disk it is the enrolled machine…
    assert!(world.crash(&id));
    world
        .ensure_machine(&machine("n1", "node", "10.224.0.5"))
        .await
        .unwrap();
    env.clock.sleep(BOUND).await;
    let second = boot();
    assert_ne!(first, second);
    // …and without it another one, under the same name, so `start_machine` refuses.
    assert!(world.vanish(&id));
    let spec = machine("n1", "node", "10.224.0.5");
    let refused = world.start_machine(&spec).await.unwrap_err();
    assert!(matches!(refused, FabricError::NoDisk(_)), "{refused}");
    assert_eq!(world.power(&id), None);
    world
        .ensure_machine(&machine("n1", "node", "10.224.0.5"))
        .await
        .unwrap();
    env.clock.sleep(BOUND).await;
    assert_eq!(world.power(&id), Some(Power::Running));
    assert_eq!(boot(), second);
    assert!(!agents.heard("n1"));
}
