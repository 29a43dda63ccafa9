//! etcd, and the programs that coordinate several members of a control plane: etcd's membership, and the
//! holder of the VIP. These are subcommands of the agent's binary, each with its own configuration file.
//!
//! Always true: peers connect over the VNET, with certificates for their addresses there; a running member's
//! files change only by the planner, which restarts members one at a time.

use std::net::Ipv4Addr;

use agent_protocol::{
    AGENT_PATH, Command, File, Probe, Process,
    programs::{
        BACKUP, BackupConfig, ETCD, EtcdConfig, EtcdIdentity, EtcdMember, MEMBERSHIP, MembershipConfig,
        VipConfig,
    },
};
use cluster_pki::{ClusterPki, Subject};
use cluster_spec::{ClusterSpec, Tier};
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use crate::{
    API_PORT, BootstrapError, ControlPlanePlace, configuration, pair,
    paths::{ETCD_CA_FILE, ETCD_PKI},
    process::{HANG_SECONDS, https, process},
    words,
};

const ETCD_CONFIG: &str = "/etc/landfall/etcd.json";
const MEMBERSHIP_CONFIG: &str = "/etc/landfall/etcd-keeper.json";
const BACKUP_CONFIG: &str = "/etc/landfall/etcd-backup.json";
const VIP_CONFIG: &str = "/etc/landfall/vip.json";
const STATUS: &str = "/run/landfall";
/// etcd's data directory. Files that must outlive it are beside it.
const DATA: &str = "/var/lib/etcd/data";
const SPOOL: &str = "/var/lib/landfall/etcd-backup";
/// The longest time between two bases of the continuous backup.
const BASE_EVERY_SECONDS: u32 = 30 * 60;
/// The interface in the stamp's network.
pub(crate) const STAMP_CARD: &str = "eth0";

/// Azure reserves the first four addresses of a subnet; control plane members have the next.
const FIRST_MEMBER: u32 = 4;
/// The number of addresses of control plane members: three, and some for replacements and members being
/// removed.
const NUMBERS: u32 = 6;

/// The address in the VNET of the control plane member with this number; `None` beyond its subnet.
pub fn member_address(spec: &ClusterSpec, number: u32) -> Option<Ipv4Addr> {
    let range = spec.network.control_plane_range;
    let address = Ipv4Addr::from(u32::from(range.network()).checked_add(FIRST_MEMBER + number)?);
    (range.contains(&address) && address != range.broadcast()).then_some(address)
}

/// Before any process runs.
pub(crate) fn setup() -> Vec<Command> {
    vec![Command {
        argv: words(["mkdir", "-p", STATUS]),
    }]
}

/// Whether the membership controller is needed: with more than one member, or after a cluster had several.
fn keeps(place: &ControlPlanePlace) -> bool {
    place.roaming || place.members.len() > 1
}

fn etcd_members(place: &ControlPlanePlace) -> Vec<EtcdMember> {
    place
        .members
        .iter()
        .map(|member| EtcdMember {
            name: member.machine.clone(),
            address: member.vnet,
        })
        .collect()
}

fn identity() -> EtcdIdentity {
    EtcdIdentity {
        ca: format!("{ETCD_PKI}/ca.crt"),
        certificate: format!("{ETCD_PKI}/keeper.crt"),
        key: format!("{ETCD_PKI}/keeper.key"),
    }
}

pub(crate) fn files(
    spec: &ClusterSpec,
    pki: &ClusterPki,
    place: &ControlPlanePlace,
    now: Timestamp,
) -> Result<Vec<File>, BootstrapError> {
    let client = pki.etcd.issue(&Subject::client("landfall-keeper"), now)?;
    let mut files = Vec::from(pair(&format!("{ETCD_PKI}/keeper"), &client));
    files.push(configuration(ETCD_CONFIG, &etcd_config(place)));
    let backup = BackupConfig {
        cluster: place.cluster.clone(),
        member: place.machine.clone(),
        identity: identity(),
        spool: SPOOL.to_owned(),
        base_every_seconds: BASE_EVERY_SECONDS,
        status: format!("{STATUS}/etcd-backup.json"),
    };
    files.push(configuration(BACKUP_CONFIG, &backup));
    if keeps(place) {
        let config = MembershipConfig {
            member: place.machine.clone(),
            members: etcd_members(place),
            identity: identity(),
            status: format!("{STATUS}/etcd-keeper.json"),
        };
        files.push(configuration(MEMBERSHIP_CONFIG, &config));
    }
    if place.roaming {
        let config = VipConfig {
            address: place.at.vip,
            interface: STAMP_CARD.to_owned(),
            own: place.at.vnet,
            // All possible members' addresses, so that the VIP program is not restarted when a member is
            // added or removed.
            peers: (0..NUMBERS)
                .filter_map(|number| member_address(spec, number))
                .filter(|address| *address != place.at.vnet)
                .collect(),
            key: vip_key(pki),
            health: https(API_PORT, "/readyz"),
            status: format!("{STATUS}/vip.json"),
        };
        files.push(configuration(VIP_CONFIG, &config));
    }
    Ok(files)
}

/// The key of adverts: derived from a secret that every member has, and no other machine.
fn vip_key(pki: &ClusterPki) -> String {
    let mut hash = Sha256::new_with_prefix(b"landfall vip ");
    hash.update(&pki.encryption_key);
    hex::encode(hash.finalize())
}

fn etcd_config(place: &ControlPlanePlace) -> EtcdConfig {
    EtcdConfig {
        member: place.machine.clone(),
        members: etcd_members(place),
        formed: place.formed,
        data: DATA.to_owned(),
        spool: SPOOL.to_owned(),
        flags: flags(place, place.limits),
        identity: identity(),
        restore: place.restore.clone(),
    }
}

/// The limit of etcd's database size, above which it accepts no more writes. A single member shares its host
/// with many others: it has etcd's own default; the others have upstream's recommended maximum.
fn quota(limits: Tier) -> u64 {
    const GIB: u64 = 1 << 30;
    match limits {
        Tier::Free => 2 * GIB,
        Tier::Standard | Tier::Premium => 8 * GIB,
    }
}

/// The name in the certificates that members show each other. One CA signs them and the certificates of etcd's
/// clients.
pub(crate) const PEER: &str = "etcd-peer";

/// A client's certificate does not make anybody a member.
fn peers_only() -> String {
    format!("--peer-cert-allowed-cn={PEER}")
}

fn flags(place: &ControlPlanePlace, limits: Tier) -> Vec<String> {
    let own = place.at.vnet;
    vec![
        // The API server connects to its local member; joining members send their requests here.
        format!("--listen-client-urls=https://127.0.0.1:2379,https://{own}:2379"),
        format!("--advertise-client-urls=https://{own}:2379"),
        format!("--listen-peer-urls=https://{own}:2380"),
        // Loopback only, for health checks without a certificate of the etcd CA.
        "--listen-metrics-urls=http://127.0.0.1:2381".to_owned(),
        format!("--trusted-ca-file={ETCD_PKI}/ca.crt"),
        format!("--cert-file={ETCD_PKI}/server.crt"),
        format!("--key-file={ETCD_PKI}/server.key"),
        "--client-cert-auth=true".to_owned(),
        format!("--peer-trusted-ca-file={ETCD_PKI}/ca.crt"),
        format!("--peer-cert-file={ETCD_PKI}/peer.crt"),
        format!("--peer-key-file={ETCD_PKI}/peer.key"),
        "--peer-client-cert-auth=true".to_owned(),
        peers_only(),
        format!("--quota-backend-bytes={}", quota(limits)),
        // The API server compacts every 5 minutes; this is a fallback.
        "--auto-compaction-mode=periodic".to_owned(),
        "--auto-compaction-retention=1h".to_owned(),
        // Entries since the last snapshot, and some earlier ones for followers, stay in memory. A follower
        // that is further behind gets a snapshot.
        "--snapshot-count=2000".to_owned(),
        "--snapshot-catchup-entries=500".to_owned(),
        // A member that could not win an election does not disturb the leader.
        "--pre-vote=true".to_owned(),
        "--logger=zap".to_owned(),
        "--log-level=warn".to_owned(),
    ]
}

/// The command line of etcd without preparation of its data: used by the bench's floor.
pub fn bare_etcd(place: &ControlPlanePlace) -> Vec<String> {
    let (name, own) = (&place.machine, place.at.vnet);
    let all: Vec<_> = place
        .members
        .iter()
        .map(|member| format!("{}=https://{}:2380", member.machine, member.vnet))
        .collect();
    let mut argv = vec![
        "/usr/local/bin/etcd".to_owned(),
        format!("--name={name}"),
        format!("--data-dir={DATA}"),
        format!("--initial-advertise-peer-urls=https://{own}:2380"),
        format!("--initial-cluster={}", all.join(",")),
    ];
    argv.extend(flags(place, place.limits));
    argv
}

/// Increased when programs of the agent's binary must be restarted for a change in them. Programs started by
/// an older release otherwise keep running.
const PROGRAMS: u64 = 1;

/// A subcommand of the agent's binary.
pub(crate) fn beside(name: &str, file: &str, probe: Option<Probe>, stop_order: u8) -> Process {
    let health = Probe::Http {
        url: String::new(),
        ca: None,
        identity: None,
    };
    Process {
        argv: words([AGENT_PATH, name, file]),
        env: Default::default(),
        restart: PROGRAMS,
        hang_seconds: probe.as_ref().map(|_| HANG_SECONDS),
        probe,
        ..process(name, Vec::new(), health, stop_order, &[file])
    }
}

pub(crate) fn etcd(place: &ControlPlanePlace) -> Process {
    // Its own answer, with or without a majority, and whether or not it is full: a restart would fix neither.
    let probe = Probe::Http {
        url: "http://127.0.0.1:2381/health?serializable=true&exclude=NOSPACE".to_owned(),
        ca: None,
        identity: None,
    };
    let env = process("etcd", Vec::new(), probe.clone(), 1, &[]).env;
    Process {
        env,
        // Who is a member, and whether it was formed, only matters to a start that comes anyway. Its certificates it reads again, and not whom
        // it trusts.
        restart_on: words([ETCD_CA_FILE]),
        restart: reason_to_restart(place, &flags(place, place.limits)),
        goes_on_with: goes_on_with(place),
        needs: vec![format!("{DATA}/member/snap/db")],
        status: Some(etcd_config(place).status()),
        ..beside(ETCD, ETCD_CONFIG, Some(probe), 1)
    }
}

/// The continuous backup of etcd.
pub(crate) fn backup() -> Process {
    let process = beside(BACKUP, BACKUP_CONFIG, None, 2);
    Process {
        // A few threads that allocate little: one arena for all of them.
        env: [("MALLOC_ARENA_MAX".to_owned(), "1".to_owned())].into(),
        restart_on: words([BACKUP_CONFIG, ETCD_CA_FILE]),
        status: Some(format!("{STATUS}/etcd-backup.json")),
        ..process
    }
}

/// A process that caches content of etcd must restart after a restore.
pub(crate) fn forgets(place: &ControlPlanePlace, process: Process) -> Process {
    let restore = place.restore.as_ref();
    Process {
        restart: process.restart ^ restore.map_or(0, |restore| short(restore.id.as_bytes())),
        ..process
    }
}

/// 32 bits, so that it can be increased for other reasons.
fn short(bytes: &[u8]) -> u64 {
    let hash = Sha256::digest(bytes);
    u64::from(u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]))
}

/// The parts of its configuration for which a running etcd must restart.
fn reason_to_restart(place: &ControlPlanePlace, flags: &[String]) -> u64 {
    let restore = place.restore.as_ref().map(|restore| &restore.id);
    let parts =
        serde_json::to_vec(&(flags, restore)).expect("configurations are plain data with string keys");
    short(&parts)
}

/// What a running etcd goes on with: neither a larger limit of the database nor the check of members' names
/// alone justifies seconds without an API server. Releases up to the first with a quota per tier gave the
/// largest to all, and those up to the first with the check did not check.
fn goes_on_with(place: &ControlPlanePlace) -> Vec<u64> {
    let roomier = [Tier::Free, Tier::Standard]
        .into_iter()
        .filter(|tier| quota(*tier) > quota(place.limits));
    let checked: Vec<Vec<String>> = std::iter::once(place.limits)
        .chain(roomier)
        .map(|tier| flags(place, tier))
        .collect();
    let unchecked: Vec<Vec<String>> = checked
        .iter()
        .map(|flags| {
            let others = flags.iter().filter(|flag| **flag != peers_only());
            others.cloned().collect::<Vec<String>>()
        })
        .collect();
    // The first is what it is started with.
    checked
        .iter()
        .skip(1)
        .chain(&unchecked)
        .map(|flags| reason_to_restart(place, flags))
        .collect()
}

/// The programs that coordinate several members.
pub(crate) fn programs_of_several(place: &ControlPlanePlace) -> Vec<Process> {
    let status = |name: &str| Some(format!("{STATUS}/{name}.json"));
    let mut processes = Vec::new();
    if keeps(place) {
        processes.push(Process {
            status: status(MEMBERSHIP),
            restart_on: words([MEMBERSHIP_CONFIG, ETCD_CA_FILE]),
            ..beside(MEMBERSHIP, MEMBERSHIP_CONFIG, None, 2)
        });
    }
    if place.roaming {
        processes.push(Process {
            status: status("vip"),
            // It stops first: clients use another member when the API server stops.
            ..beside("vip", VIP_CONFIG, None, 4)
        });
    }
    processes
}
