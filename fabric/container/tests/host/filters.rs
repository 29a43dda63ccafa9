//! Filters of subnets: they also hold between machines on one bridge, change while machines run, and keep
//! permitted connections.

use fabric_api::{Fabric as _, Filter, FilterRule, Protocol};

use crate::{
    run,
    stand::{Stand, machine, network, on_subnet},
};

fn rule(allow: bool, protocol: Protocol, from: &str, to: &str) -> FilterRule {
    FilterRule {
        allow,
        protocol,
        ..FilterRule::allow(vec![from.parse().unwrap()], vec![to.parse().unwrap()])
    }
}

/// One machine does not reach the other; everything else is unchanged.
fn filter() -> Filter {
    let all = "0.0.0.0/0";
    Filter {
        inbound: vec![
            rule(false, Protocol::Icmp, "10.224.0.4/32", "10.224.0.5/32"),
            rule(true, Protocol::Any, "10.224.0.0/12", "10.224.0.0/12"),
        ],
        outbound: vec![rule(true, Protocol::Any, all, all)],
    }
}

#[test]
fn a_filter_holds_within_a_subnet_and_follows_the_specification() {
    run("filter", async |stand: &Stand| {
        let fabric = &stand.fabric;
        let mut spec = network(stand, "na", 10);
        fabric.ensure_network(&spec).await.unwrap();
        for (id, address) in [("a1", "10.224.0.4"), ("a2", "10.224.0.5"), ("cp", "10.239.0.4")] {
            let spec = machine(id, vec![on_subnet("na", address)]);
            fabric.ensure_machine(&spec).await.unwrap();
        }
        assert!(stand.pings("a1", "10.224.0.5").await, "there is no filter yet");
        spec.subnets[0].filter = Some(filter());
        // Twice: the second time changes nothing.
        for _ in 0..2 {
            fabric.ensure_network(&spec).await.unwrap();
            assert!(!stand.pings("a1", "10.224.0.5").await, "on the same bridge");
            assert!(stand.pings("a2", "10.224.0.4").await, "the other way round");
            assert!(stand.pings("cp", "10.224.0.5").await, "from another subnet");
            assert!(stand.pings("a1", "10.239.0.4").await, "to another subnet");
        }
        // A machine that is added later is filtered too.
        let later = machine("a3", vec![on_subnet("na", "10.224.0.6")]);
        fabric.ensure_machine(&later).await.unwrap();
        assert!(stand.pings("a3", "10.224.0.5").await);
        assert!(stand.pings("a1", "10.224.0.6").await);
        if let Some(filter) = &mut spec.subnets[0].filter {
            filter
                .inbound
                .insert(0, rule(false, Protocol::Any, "10.224.0.6/32", "10.224.0.4/31"));
        }
        fabric.ensure_network(&spec).await.unwrap();
        assert!(!stand.pings("a3", "10.224.0.5").await);
        // A recreated machine is filtered too. It pings an address that it never reached: a ping is
        // identified by its process id, ids start again with the machine, and flows from before the filter
        // stay permitted.
        fabric.stop_machine(&later.id).await.unwrap();
        fabric.ensure_machine(&later).await.unwrap();
        assert!(!stand.pings("a3", "10.224.0.4").await);
        // Traffic without a matching rule is dropped.
        spec.subnets[0].filter = Some(Filter::default());
        fabric.ensure_network(&spec).await.unwrap();
        assert!(!stand.pings("cp", "10.224.0.5").await);
        spec.subnets[0].filter = None;
        fabric.ensure_network(&spec).await.unwrap();
        for from in ["a1", "a3", "cp"] {
            assert!(stand.pings(from, "10.224.0.5").await, "{from}");
        }
    });
}

#[test]
fn a_closed_network_lets_nothing_out_but_to_what_it_names() {
    run("closed", async |stand: &Stand| {
        let fabric = &stand.fabric;
        let mut spec = network(stand, "na", 10);
        fabric.ensure_network(&spec).await.unwrap();
        for (id, address) in [("a1", "10.224.0.4"), ("a2", "10.224.0.5")] {
            let spec = machine(id, vec![on_subnet("na", address)]);
            fabric.ensure_machine(&spec).await.unwrap();
        }
        let outside = fabric.stamp_network().gateway();
        assert!(stand.pings("a1", &outside.to_string()).await, "it is open");
        // Whoever is root in a machine does not change that.
        spec.egress = Some(Vec::new());
        for _ in 0..2 {
            fabric.ensure_network(&spec).await.unwrap();
            assert!(!stand.pings("a1", &outside.to_string()).await, "it is closed");
            assert!(stand.pings("a1", "10.224.0.5").await, "inside");
        }
        spec.egress = Some(vec![outside]);
        fabric.ensure_network(&spec).await.unwrap();
        assert!(stand.pings("a1", &outside.to_string()).await, "it is named");
        spec.egress = None;
        fabric.ensure_network(&spec).await.unwrap();
        assert!(stand.pings("a2", &outside.to_string()).await);
    });
}
