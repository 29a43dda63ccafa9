//! The planner alone: tables of decisions, and the property that it converges from any partial state.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use agent_protocol::{
    ProcessSeen, ProcessState, Report,
    programs::{BackupStatus, EtcdPhase, EtcdStatus, MembershipStatus},
};
use cluster_api::NodeSeen;
use cluster_spec::{
    ClusterSpec, NetworkProfile, PodNetworking, PoolSpec,
    testkit::{self, pool},
};
use control_records::{
    Assignment, ClusterRecord, EventKind, MachineRecord, ObservedRecord, OperationRecord, OperationStatus,
    Owner, RepairStep, Role,
};
use jiff::Timestamp;

use super::*;

#[path = "../features/addons/tests.rs"]
mod addons;
#[path = "../features/autoscale/tests.rs"]
mod autoscale;
#[path = "../features/backup/tests.rs"]
mod backup;
#[path = "../features/balancers/tests.rs"]
mod balancers;
#[path = "../features/commands/tests.rs"]
mod commands;
#[path = "../features/configurations/tests.rs"]
mod configurations;
#[path = "../features/credentials/tests.rs"]
mod credentials;
#[path = "../disturb/tests.rs"]
mod disturbances;
#[path = "../features/heal/tests.rs"]
mod healing;
#[path = "../features/heal/tests_members.rs"]
mod healing_members;
mod ideal;
mod ideal_machines;
mod ideal_namespaces;
mod ideal_volumes;
#[path = "../features/images_tests.rs"]
mod images;
#[path = "../features/members/tests.rs"]
mod members;
#[path = "../features/namespaces/tests.rs"]
mod namespaces;
#[path = "../features/network/tests.rs"]
mod network;
#[path = "../features/nodes/tests.rs"]
mod nodes;
mod operations;
mod partial;
#[path = "../features/power/tests.rs"]
mod power;
#[path = "../features/restore/tests.rs"]
mod restore;
#[path = "../features/rotation/tests.rs"]
mod rotation;
mod tables;
#[path = "../features/upgrade/tests.rs"]
mod upgrade;
#[path = "../features/upgrade/tests_rollback.rs"]
mod upgrade_rollback;
#[path = "../features/upgrade/tests_settings.rs"]
mod upgrade_settings;
#[path = "../features/volumes/tests.rs"]
mod volumes;
#[path = "../features/volumes/tests_attachments.rs"]
mod volumes_attachments;
#[path = "../features/volumes/tests_clusters.rs"]
mod volumes_clusters;
#[path = "../features/volumes/tests_disks.rs"]
mod volumes_disks;
#[path = "../features/volumes/tests_shares.rs"]
mod volumes_shares;
#[path = "../features/volumes/tests_snapshots.rs"]
mod volumes_snapshots;

use ideal::Ideal;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_767_225_600 + second).unwrap()
}

fn cluster(plugin: PodNetworking, pools: Vec<PoolSpec>) -> ClusterRecord {
    let spec = ClusterSpec {
        network: NetworkProfile {
            node_range: "10.224.0.0/22".parse().unwrap(),
            pod_range: Some("10.244.0.0/16".parse().unwrap()),
            ..testkit::network(plugin)
        },
        pools,
        ..testkit::cluster()
    };
    ClusterRecord {
        pool_generations: BTreeMap::new(),
        ..ClusterRecord::of_spec("0123456789", &spec, at(0))
    }
}

fn nothing_yet() -> Observation {
    Observation {
        observed: ObservedRecord::default(),
        renderers: RendererVersions::default(),
        maintenance: Maintenance::default(),
        pki: None,
        rotation: Default::default(),
        stamp: StampRanges {
            machines: "100.64.16.0/21".parse().unwrap(),
            vips: "100.64.24.0/21".parse().unwrap(),
        },
        taken: BTreeSet::new(),
        machines: BTreeMap::new(),
        inventory_stale: false,
        unknown_machines: UnknownMachines::None,
        kept: KeptPlaces::default(),
        neighbours: Neighbours::default(),
        guards: BTreeMap::new(),
        silent_machines: SilentMachines::default(),
        gaps: Arc::default(),
        network: NetworkSeen::Unknown,
        api: ApiSeen::default(),
        operations: Vec::new(),
        namespace_operations: Vec::new(),
        credentials: Vec::new(),
        trusted: Vec::new(),
        namespaces: Vec::new(),
        balancers: Vec::new(),
        volumes: Vec::new(),
        volumes_there: None,
        disks: BTreeMap::new(),
        publics: BTreeMap::new(),
        commands: BTreeMap::new(),
        images: BTreeSet::new(),
        busy: BTreeSet::new(),
        held: BTreeMap::new(),
    }
}

fn operation(generation: u64, deletes: bool) -> OperationRecord {
    OperationRecord {
        deletes,
        ..OperationRecord::accepted(
            format!("op{generation}"),
            "ManagedClusters_CreateOrUpdate",
            "",
            Owner::cluster("0123456789"),
            generation,
            at(0),
        )
    }
}

fn process(state: ProcessState) -> ProcessSeen {
    ProcessSeen {
        state,
        pid: None,
        restarts: 0,
        last_exit: None,
        last_lines: Vec::new(),
        hangs: 0,
        status: None,
    }
}

fn machine(id: &str, role: Role) -> Machine {
    Machine {
        record: MachineRecord {
            v: 1,
            id: id.to_owned(),
            image: "1.36.3".to_owned(),
            build: None,
            token_hash: String::new(),
            token_sealed: Vec::new(),
            enrolled_key: None,
            token_used: false,
            host: control_records::HostId::first(),
            assignment: Some(Assignment {
                cluster: "0123456789".to_owned(),
                role,
            }),
            deleting: false,
            work: None,
            emptying: None,
            inherited: None,
            healing: Healing::default(),
            created_at: at(0),
        },
        presence: Presence::Running,
        config: ConfigSeen::Unknown,
        report: None,
        drain: None,
        contact: Some(Duration::ZERO),
        hung_up: None,
        running_since: None,
        symptom: None,
        well_since: None,
        repaired: None,
        ended_boot: None,
    }
}

fn converged(plugin: PodNetworking, pools: Vec<PoolSpec>) -> Ideal {
    let mut ideal = Ideal::new(cluster(plugin, pools), nothing_yet());
    ideal.run();
    ideal
}

#[test]
fn features_have_names_of_their_own() {
    let names: BTreeSet<_> = FEATURES.iter().map(|feature| feature.name).collect();
    assert_eq!(names.len(), FEATURES.len(), "{names:?}");
}
