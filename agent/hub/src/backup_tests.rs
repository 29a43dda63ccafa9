//! The endpoints as seen by machines, behind TLS.

use agent_sessions::{MachineDirectory as _, Sessions, StoreDirectory};
use axum::body::to_bytes;
use base_env::Env;
use base_sealer::Sealer;
use cluster_archive::DirectoryStore;
use cluster_backup::{Change, log::LogWriter};
use cluster_spec::{ClusterSpec, RestoreSpec, testkit};
use control_records::{Assignment, ClusterRecord, Healing, MachineRecord, Role, directory, key};
use control_store::{Store, Txn, put_record};
use jiff::Timestamp;
use storage_redb::MemoryStore;

use super::*;
use crate::{
    AgentCa,
    caller::{Caller, Shown},
};

struct World {
    hub: Hub,
    archive: Arc<Archive>,
    store: Arc<dyn Store>,
    _directory: tempfile::TempDir,
}

fn machine(id: &str, cluster: &str, role: Role) -> MachineRecord {
    MachineRecord {
        v: 2,
        id: id.to_owned(),
        image: String::new(),
        build: None,
        token_hash: String::new(),
        token_sealed: Vec::new(),
        enrolled_key: Some(format!("key of {id}")),
        token_used: true,
        host: control_records::HostId::first(),
        assignment: Some(Assignment {
            cluster: cluster.to_owned(),
            role,
        }),
        deleting: false,
        work: None,
        emptying: None,
        inherited: None,
        healing: Healing::default(),
        created_at: Timestamp::UNIX_EPOCH,
    }
}

fn control_plane(id: &str, cluster: &str) -> MachineRecord {
    let address = "100.64.0.5".parse().unwrap();
    machine(id, cluster, Role::ControlPlane { index: 0, address })
}

fn cluster(uid: &str, source: Option<&str>) -> ClusterRecord {
    let spec = ClusterSpec {
        name: uid.to_owned(),
        restore: source.map(|source| RestoreSpec {
            id: "r1".to_owned(),
            at: None,
            source: source.to_owned(),
        }),
        ..testkit::cluster()
    };
    ClusterRecord::of_spec(uid, &spec, Timestamp::UNIX_EPOCH)
}

impl World {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let node = Role::Node {
            pool: "p".to_owned(),
            incarnation: "1".to_owned(),
            index: 0,
            node_name: "n".to_owned(),
            address: "10.224.0.4".parse().unwrap(),
            pod_range: None,
        };
        let machines = [
            control_plane("m1", "u1"),
            control_plane("m2", "u2"),
            control_plane("m3", "u3"),
            machine("n1", "u1", node),
        ];
        let mut txn = Txn::default();
        for machine in &machines {
            let uid = &machine.assignment.as_ref().unwrap().cluster;
            txn = directory::new_machine(txn, uid, machine);
        }
        // u3 is to start with the state of u1.
        for (uid, source) in [("u1", None), ("u2", None), ("u3", Some("u1"))] {
            txn = directory::new_cluster(txn, &cluster(uid, source));
        }
        store.txn(txn).await.unwrap();
        let objects = DirectoryStore::open(directory.path()).unwrap();
        let archive = Arc::new(Archive::new(
            Arc::new(objects),
            Arc::new(Sealer::from_key(&[7; 32])),
        ));
        let env = Env::simulated(1);
        let ca = AgentCa::generate(env.clock.now()).unwrap();
        let directory_of_store = Arc::new(StoreDirectory::new(Arc::clone(&store)));
        let hub = Hub::new(env.clone(), ca, Sessions::new(env, directory_of_store));
        hub.keep_backups(BackupReceiver {
            archive: Arc::clone(&archive),
            store: Arc::clone(&store),
        });
        Self {
            hub,
            archive,
            store,
            _directory: directory,
        }
    }

    /// As the router does before each request of a machine.
    async fn admit(&self, machine: &str) -> Result<Extension<Admitted>, Response> {
        let shown = Shown::new(machine, &format!("key of {machine}"));
        self.hub.admit(&Caller(Some(shown))).await.map(Extension)
    }

    async fn put(&self, machine: &str, cluster: &str, object: &str, body: Body) -> (StatusCode, String) {
        let path = Path((cluster.to_owned(), object.to_owned()));
        let answer = match self.admit(machine).await {
            Ok(machine) => put(State(self.hub.clone()), machine, path, body).await,
            Err(refused) => Err(refused),
        };
        match answer {
            Ok(status) => (status, String::new()),
            Err(response) => said(response).await,
        }
    }

    async fn get(&self, machine: &str, cluster: &str, object: &str) -> Result<Vec<u8>, StatusCode> {
        let path = Path((cluster.to_owned(), object.to_owned()));
        let machine = self.admit(machine).await.map_err(|refused| refused.status())?;
        let answer = get(State(self.hub.clone()), machine, path).await;
        let response = answer.map_err(|response| response.status())?;
        Ok(to_bytes(response.into_body(), usize::MAX).await.unwrap().to_vec())
    }

    async fn list(&self, machine: &str, cluster: &str) -> Result<Vec<String>, StatusCode> {
        let path = Path(cluster.to_owned());
        let machine = self.admit(machine).await.map_err(|refused| refused.status())?;
        let answer = list(State(self.hub.clone()), machine, path).await;
        answer.map(|names| names.0).map_err(|response| response.status())
    }
}

async fn said(response: Response) -> (StatusCode, String) {
    let status = response.status();
    let bytes = to_bytes(response.into_body(), 4096).await.unwrap();
    (status, String::from_utf8_lossy(&bytes).into_owned())
}

/// A part of a log with a value of this size.
fn part(size: usize) -> (String, Vec<u8>) {
    let mut log = LogWriter::after(5, 100);
    // Incompressible content.
    let mut number: u32 = 1;
    let value = (0..size).map(|_| {
        number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (number >> 24) as u8
    });
    let change = Change {
        revision: 6,
        seen: 110,
        key: b"/registry/secrets/default/till".to_vec(),
        now: Some((value.collect(), 0)),
    };
    log.add(&change).unwrap();
    let (head, bytes) = log.flush().unwrap();
    let name = ObjectName::Log {
        previous: head.previous,
        last: head.last,
        first_seen: head.first_seen,
        last_seen: head.last_seen,
    };
    (name.to_string(), bytes)
}

#[tokio::test]
async fn a_machine_hands_over_its_own_clusters_and_gets_it_back() {
    let world = World::new().await;
    // More than fits in flight at once.
    let (name, bytes) = part(PIECE * (PIECES + 3));
    assert_eq!(world.list("m1", OWN).await, Ok(Vec::new()));
    let (status, _) = world.put("m1", OWN, &name, Body::from(bytes.clone())).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    assert_eq!(world.list("m1", "u1").await, Ok(vec![name.clone()]));
    assert!(world.get("m1", OWN, &name).await == Ok(bytes));
    assert_eq!(world.archive.clusters().unwrap(), ["u1"]);
    let none = name.replace("log-0000000000000005", "log-0000000000000004");
    assert_eq!(world.get("m1", OWN, &none).await, Err(StatusCode::NOT_FOUND));
}

#[tokio::test]
async fn another_clusters_is_given_only_to_whoever_begins_with_its_state_and_taken_from_nobody() {
    let world = World::new().await;
    let (name, bytes) = part(10);
    world.put("m1", OWN, &name, Body::from(bytes.clone())).await;
    assert_eq!(world.list("m2", "u1").await, Err(StatusCode::FORBIDDEN));
    assert_eq!(world.get("m2", "u1", &name).await, Err(StatusCode::FORBIDDEN));
    assert!(world.get("m3", "u1", &name).await == Ok(bytes.clone()));
    let (status, _) = world.put("m3", "u1", &name, Body::from(bytes.clone())).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    // Refused for a node, and for a machine that was forgotten.
    assert_eq!(world.list("n1", OWN).await, Err(StatusCode::FORBIDDEN));
    let gone = directory::remove_machine(Txn::default(), "u1", "m1", Timestamp::UNIX_EPOCH);
    world.store.txn(gone).await.unwrap();
    let (status, _) = world.put("m1", OWN, &name, Body::from(bytes)).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn what_is_damaged_is_refused_for_good_and_what_broke_off_is_not() {
    let world = World::new().await;
    let (name, bytes) = part(1000);
    let half = bytes[..bytes.len() / 2].to_vec();
    let (status, why) = world.put("m1", OWN, &name, Body::from(half.clone())).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(why.contains("in the middle of a block"), "{why}");
    let broken = futures::stream::iter([
        Ok(Bytes::from(half)),
        Err(io::Error::new(io::ErrorKind::ConnectionReset, "gone")),
    ]);
    let (status, _) = world.put("m1", OWN, &name, Body::from_stream(broken)).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    let other = name.replace("log-0000000000000005", "log-0000000000000004");
    let (status, _) = world.put("m1", OWN, &other, Body::from(bytes)).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    for wrong in ["key", "..", "log-1", "base-0000000000000001"] {
        let (status, _) = world.put("m1", OWN, wrong, Body::empty()).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{wrong}");
    }
    assert_eq!(world.list("m1", OWN).await, Ok(Vec::new()));
}

#[tokio::test]
async fn a_machine_that_is_being_removed_is_heard_until_its_record_is_gone() {
    use agent_api::Agents as _;
    let world = World::new().await;
    let leaving = |id: &str| MachineRecord {
        deleting: true,
        token_used: false,
        ..control_plane(id, "u1")
    };
    let new = MachineRecord {
        enrolled_key: None,
        ..leaving("m4")
    };
    let txn = Txn::default().with(put_record(key::machine("u1", "m1"), &leaving("m1")));
    let txn = directory::new_machine(txn, "u1", &new);
    world.store.txn(txn).await.unwrap();
    assert_eq!(world.list("m1", OWN).await, Ok(Vec::new()));
    assert!(
        world
            .hub
            .inner
            .sessions
            .contact("m1")
            .is_some_and(|ago| ago < agent_api::SILENT_AFTER)
    );
    // A machine that is being removed does not enrol.
    let directory = StoreDirectory::new(Arc::clone(&world.store));
    assert!(!directory.bind_key("m4", "a key").await.unwrap());
    let gone = directory::remove_machine(Txn::default(), "u1", "m1", Timestamp::UNIX_EPOCH);
    world.store.txn(gone).await.unwrap();
    assert_eq!(world.list("m1", OWN).await, Err(StatusCode::FORBIDDEN));
}
