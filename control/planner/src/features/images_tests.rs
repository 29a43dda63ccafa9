//! Images of add-ons, in a world where plans take effect at once.

use cluster_spec::{AddonImage, IngressReach, KUBE_ROUTER, NetworkPolicy};

use super::*;

fn with(policy: NetworkPolicy) -> Ideal {
    let mut cluster = cluster(PodNetworking::AzureOverlay, vec![pool("np1", 2)]);
    cluster.change_spec(|spec| spec.network.policy = policy);
    Ideal::new(cluster, nothing_yet())
}

fn builds(plan: &Plan) -> usize {
    let builds = |effect: &&Effect| matches!(effect, Effect::Fabric(FabricEffect::EnsureAddonImage(_)));
    plan.effects.iter().filter(builds).count()
}

fn has_label(ideal: &Ideal) -> usize {
    let label = AddonImage::named(KUBE_ROUTER).unwrap().label();
    let nodes = ideal.seen.api.nodes.iter();
    nodes.filter(|node| node.labels.contains_key(&label)).count()
}

fn configs(ideal: &Ideal) -> Vec<ConfigSeen> {
    let machines = ideal.seen.machines.values();
    machines.map(|machine| machine.config.clone()).collect()
}

#[test]
fn a_cluster_without_an_engine_asks_for_no_image() {
    let mut ideal = with(NetworkPolicy::None);
    ideal.run();
    assert!(ideal.seen.images.is_empty());
    assert_eq!(has_label(&ideal), 0);
}

#[test]
fn an_image_is_made_sure_of_once_and_nodes_that_have_it_are_labelled() {
    let mut ideal = with(NetworkPolicy::Calico);
    // From the start: nothing else is waited for.
    assert_eq!(builds(&ideal.plan()), 1);
    ideal.run();
    assert_eq!(has_label(&ideal), 2);
    assert_eq!(builds(&ideal.plan()), 0);
    assert_eq!(ideal.seen.observed.generation, ideal.desired.generation);
}

#[test]
fn a_cluster_is_not_finished_while_its_image_is_being_built() {
    let mut ideal = with(NetworkPolicy::Azure);
    let image = Subject::Image(KUBE_ROUTER.to_owned());
    for _ in 0..50 {
        ideal.seen.held.insert(
            image.clone(),
            Held {
                attempts: 1,
                until: after(ideal.now, Duration::from_secs(60)),
                why: "it is being built".to_owned(),
            },
        );
        ideal.pass();
    }
    // All that does not need it is there.
    assert_eq!(ideal.seen.api.nodes.len(), 2);
    assert!(ideal.seen.api.addons.is_some());
    assert!(ideal.seen.observed.generation < ideal.desired.generation);
    let plan = ideal.plan();
    assert!(
        plan.waits.iter().any(|why| why.contains(KUBE_ROUTER)),
        "{:?}",
        plan.waits
    );
    ideal.seen.held.clear();
    ideal.run();
    assert_eq!(has_label(&ideal), 2);
}

#[test]
fn a_node_keeps_its_label_while_its_agent_is_not_heard_of() {
    let mut ideal = with(NetworkPolicy::Calico);
    ideal.run();
    // As after a start of the service.
    ideal.seen.images.clear();
    ideal.seen.api.set.clear();
    ideal.seen.api.addons = None;
    for machine in ideal.seen.machines.values_mut() {
        machine.report = None;
    }
    let plan = ideal.plan();
    assert_eq!(builds(&plan), 1);
    let mut set = 0;
    for effect in &plan.effects {
        if let Effect::Api(ApiEffect::SetNode { images, .. }) = effect {
            assert!(images.contains(KUBE_ROUTER), "{plan:?}");
            set += 1;
        }
    }
    assert_eq!(set, 2);
    assert!(plan.waits.is_empty(), "what was there is there: {:?}", plan.waits);
    ideal.run();
    assert_eq!(has_label(&ideal), 2);
}

#[test]
fn what_the_engine_is_called_makes_no_machine_be_configured_anew() {
    let mut ideal = with(NetworkPolicy::Calico);
    ideal.run();
    let before = configs(&ideal);
    ideal.desired.generation += 1;
    ideal
        .desired
        .change_spec(|spec| spec.network.policy = NetworkPolicy::Azure);
    ideal.run();
    assert_eq!(configs(&ideal), before);
}

#[test]
fn a_controller_has_an_image_of_its_own_and_where_it_is_reached_is_no_machine_s_affair() {
    let mut ideal = with(NetworkPolicy::Calico);
    ideal.run();
    ideal.desired.generation += 1;
    ideal
        .desired
        .change_spec(|spec| spec.ingress.controller = Some(IngressReach::External));
    assert_eq!(builds(&ideal.plan()), 1, "the engine's is there");
    ideal.run();
    let before = configs(&ideal);
    ideal.desired.generation += 1;
    ideal.desired.change_spec(|spec| {
        spec.ingress.controller = Some(IngressReach::Internal);
        spec.ingress.gateway_api = true;
    });
    ideal.run();
    assert_eq!(configs(&ideal), before);
    assert_eq!(ideal.seen.observed.generation, ideal.desired.generation);
}
