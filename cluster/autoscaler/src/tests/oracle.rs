//! A second, simple implementation of the rules, and 200 small clusters in which the decision has to agree
//! with it.

use base_seed::Seed;

use super::*;

/// Whether a node with these other pods takes a pod, rule by rule.
fn takes(pod: &Pod, node: &Node, beside: &[&Pod]) -> bool {
    let cpu: u64 = beside.iter().map(|other| other.rules.request.cpu).sum();
    let large_enough = cpu + pod.rules.request.cpu <= node.room.cpu && beside.len() < 30;
    let selected = pod.rules.nodes.iter().flatten().flatten().all(|wanted| {
        let found = node.labels.get(&wanted.key);
        found.is_some_and(|found| wanted.values.contains(found))
    });
    let borne = node.taints.iter().all(|taint| {
        let mut bearable = pod.rules.tolerations.iter();
        bearable.any(|own| own.key == taint.key)
    });
    let app = |pod: &Pod| pod.rules.labels["app"].clone();
    let far = |one: &Pod, other: &Pod| !one.rules.apart.is_empty() && app(one) == app(other);
    let alone = beside.iter().all(|other| !far(pod, other) && !far(other, pod));
    let ports = beside
        .iter()
        .all(|other| pod.rules.ports.is_disjoint(&other.rules.ports));
    large_enough && selected && borne && alone && ports
}

/// Whether all of these pods fit on these nodes, by trying all combinations.
fn all_fit(pods: &[&Pod], nodes: &mut [(&Node, Vec<&Pod>)]) -> bool {
    let Some((first, rest)) = pods.split_first() else {
        return true;
    };
    (0..nodes.len()).any(|index| {
        if !takes(first, nodes[index].0, &nodes[index].1) {
            return false;
        }
        let mut next: Vec<(&Node, Vec<&Pod>)> = nodes.to_vec();
        next[index].1.push(first);
        all_fit(rest, &mut next)
    })
}

/// A small random cluster.
fn generated(seed: Seed) -> Stage {
    let mut drawn = 0;
    let mut draw = |below: u64| {
        drawn += 1;
        seed.draw(drawn) % below
    };
    let count = 1 + u32::try_from(draw(3)).unwrap();
    let mut stage = Stage::new(&[("a", count, 1, 4), ("b", 1, 0, 3)]);
    stage.profile.unneeded = 0;
    if draw(2) == 0 {
        let taint = Taint {
            key: "b".to_owned(),
            value: String::new(),
            effect: "NoSchedule".to_owned(),
        };
        stage.pools[1].template.taints.push(taint.clone());
        let own = stage
            .work
            .nodes
            .iter_mut()
            .filter(|node| node.name.starts_with('b'));
        own.for_each(|node| node.taints.push(taint.clone()));
    }
    let names: Vec<String> = stage.work.nodes.iter().map(|node| node.name.clone()).collect();
    for number in 0..draw(9) {
        let app = ["web", "db", "job"][draw(3) as usize];
        let at = draw(names.len() as u64 + 2) as usize;
        let node = names.get(at).map(String::as_str);
        let mut pod = pod(&format!("{app}-{number}"), 100 * (1 + draw(12)), node);
        if draw(3) == 0 {
            pod.rules.apart = vec![Term {
                topology: HOSTNAME.to_owned(),
                namespaces: None,
                selector: Some(vec![Requirement::equals("app", app)]),
            }];
        }
        if draw(4) == 0 {
            let pool = ["a", "b"][draw(2) as usize];
            pod.rules.nodes = vec![vec![vec![Requirement::equals("agentpool", pool)]]];
        }
        if draw(2) == 0 {
            pod.rules.tolerations = vec![Toleration {
                key: "b".to_owned(),
                exists: true,
                value: String::new(),
                effect: String::new(),
            }];
        }
        if draw(6) == 0 {
            pod.rules.ports.insert(("TCP".to_owned(), 80, String::new()));
        }
        pod.stays.replicated = draw(5) > 0;
        pod.stays.local_storage = draw(6) == 0;
        pod.stays.daemon = false;
        stage.work.pods.push(pod);
    }
    if draw(3) == 0 {
        stage.work.budgets.push(Budget {
            namespace: "d".to_owned(),
            selector: vec![Requirement::equals("app", "web")],
            allowed: u32::try_from(draw(2)).unwrap(),
        });
    }
    stage
}

fn on<'s>(stage: &'s Stage, node: &str) -> Vec<&'s Pod> {
    let pods = stage.work.pods.iter();
    pods.filter(|pod| pod.node.as_deref() == Some(node)).collect()
}

/// Growth: it happens where it helps, and only then; and each new node is needed by a pod.
fn check_growth(stage: &Stage, decision: &Decision) {
    let pending: Vec<&Pod> = stage.work.pods.iter().filter(|pod| pod.node.is_none()).collect();
    let outcome = |pod: &Pod| stage.outcome(decision, &pod.name);
    for pod in &pending {
        let anywhere = stage
            .work
            .nodes
            .iter()
            .any(|node| takes(pod, node, &on(stage, &node.name)));
        if *outcome(pod) == Outcome::Fits {
            assert!(anywhere, "{} has no place", pod.name);
        }
        let helps = stage
            .pools
            .iter()
            .any(|pool| pool.count < pool.max && takes(pod, &pool.template, &[]));
        match outcome(pod) {
            Outcome::Comes(name) => {
                let pool = stage.pools.iter().find(|pool| pool.name == *name).unwrap();
                assert!(
                    takes(pod, &pool.template, &[]),
                    "{} is not helped by {name}",
                    pod.name
                );
                assert!(decision.sizes[name] > pool.count);
            }
            Outcome::Nowhere(reasons) => {
                let crowded = reasons.keys().any(|why| why.contains("other pods"));
                assert!(!helps || crowded, "{} would be helped: {reasons:?}", pod.name);
                assert!(!reasons.is_empty());
            }
            Outcome::Fits | Outcome::NotYet => {}
        }
    }
    if let Some((name, size)) = decision.sizes.iter().find(|(name, size)| {
        let pool = stage.pools.iter().find(|pool| pool.name == **name).unwrap();
        **size > pool.count
    }) {
        let pool = stage.pools.iter().find(|pool| pool.name == *name).unwrap();
        let come = pending
            .iter()
            .filter(|pod| *outcome(pod) == Outcome::Comes(name.clone()));
        let come: Vec<&Pod> = come.copied().collect();
        let new = (size - pool.count) as usize;
        assert!(come.len() >= new, "{new} nodes for {} pods", come.len());
        let mut nodes = vec![(&pool.template, Vec::new()); new];
        assert!(all_fit(&come, &mut nodes), "they do not hold them");
    }
}

/// Shrinking: each unneeded node is unneeded by every rule; and an empty node is not kept without a reason.
fn check_shrinking(stage: &Stage, decision: &Decision) {
    for name in decision.memory.unneeded.keys().chain(&decision.remove) {
        let pods = on(stage, name);
        let used: u64 = pods.iter().map(|pod| pod.rules.request.cpu).sum();
        assert!(used * 2 < CORES, "{name} is used");
        for pod in &pods {
            assert!(
                pod.stays.replicated && !pod.stays.local_storage,
                "{} on {name}",
                pod.name
            );
        }
        for budget in &stage.work.budgets {
            let web = pods.iter().filter(|pod| pod.rules.labels["app"] == "web").count();
            assert!(web <= budget.allowed as usize, "a budget holds {name}");
        }
        let others = stage.work.nodes.iter().filter(|node| node.name != *name);
        let mut others: Vec<(&Node, Vec<&Pod>)> = others.map(|node| (node, on(stage, &node.name))).collect();
        assert!(all_fit(&pods, &mut others), "the pods of {name} have no place");
    }
    for pool in &stage.pools {
        let gone = pool
            .nodes
            .keys()
            .filter(|name| decision.remove.contains(*name))
            .count();
        assert!(pool.count as usize - gone >= pool.min as usize);
        let idle = |name: &&String| on(stage, name).is_empty() && decision.kept.contains_key(*name);
        let kept = pool.nodes.keys().filter(idle).count();
        assert!(
            kept <= pool.min as usize || !decision.verdicts.is_empty(),
            "{kept} idle nodes of {} are kept: {:?}",
            pool.name,
            decision.kept
        );
    }
}

#[test]
fn two_hundred_clusters_are_decided_as_the_rules_say() {
    let (mut grown, mut shrunk) = (0, 0);
    for case in 0..200 {
        let seed = Seed::new(7).child(&case.to_string());
        let stage = generated(seed);
        let decision = stage.decide();
        for (name, size) in &decision.sizes {
            let pool = stage.pools.iter().find(|pool| pool.name == *name).unwrap();
            assert!((pool.min..=pool.max).contains(size), "case {case}: {name} {size}");
        }
        check_growth(&stage, &decision);
        check_shrinking(&stage, &decision);
        grown += u32::from(!decision.memory.growing.is_empty());
        shrunk += u32::from(!decision.remove.is_empty());
    }
    assert!(
        grown > 10 && shrunk > 10,
        "{grown} grew and {shrunk} shrank: the cases say little"
    );
}
