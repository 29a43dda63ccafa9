//! Against a real etcd on loopback:
//!
//! ```sh
//! LANDFALL_TEST_ETCD=…/etcd LANDFALL_TEST_ETCDUTL=…/etcdutl cargo test -p machine-backup -- --ignored
//! ```

use std::{
    collections::BTreeMap,
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use agent_protocol::programs::{
    BackupConfig, BackupStatus, EtcdConfig, EtcdIdentity, EtcdMember, EtcdRestore,
};
use base_testkit::{needs, port};
use cluster_pki::{ClusterPki, Subject};
use jiff::Timestamp;
use machine_etcd::client::{Client, EtcdError, Write};
use machine_program::pause;

use crate::{
    now,
    program::record,
    restore::{Programs, Restore, RestoreError},
    spool::Spool,
};

const BOUND: Duration = Duration::from_secs(60);
const OBJECTS: usize = 10_000;

type State = BTreeMap<Vec<u8>, (Vec<u8>, i64)>;

fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let begun = pause::monotonic();
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(pause::monotonic() - begun < BOUND, "waited too long for {what}");
        pause::sleep(Duration::from_millis(10));
    }
}

/// Whether these tests can run here; otherwise they are skipped.
fn can_run() -> bool {
    needs::file(needs::ETCD).is_some() && needs::file(needs::ETCDUTL).is_some()
}

fn program(variable: &str) -> PathBuf {
    std::env::var_os(variable)
        .unwrap_or_else(|| panic!("{variable} names the program"))
        .into()
}

struct World {
    directory: tempfile::TempDir,
    identity: EtcdIdentity,
    client: u16,
    peer: u16,
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _gone = self.0.wait();
    }
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name).display().to_string();
        let now = Timestamp::from_millisecond(now()).unwrap();
        let pki = ClusterPki::generate(now).unwrap();
        let pair = pki.etcd.issue(&Subject::client("test"), now).unwrap();
        let identity = EtcdIdentity {
            ca: at("ca.crt"),
            certificate: at("client.crt"),
            key: at("client.key"),
        };
        fs::write(&identity.ca, pki.etcd.certificate.as_str()).unwrap();
        fs::write(&identity.certificate, pair.certificate.as_str()).unwrap();
        fs::write(&identity.key, pair.key.as_str()).unwrap();
        Self {
            directory,
            identity,
            client: port(),
            peer: port(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.client)
    }

    fn client(&self) -> Client {
        Client::new(&self.url(), &self.identity, BOUND).unwrap()
    }

    fn etcd(&self, data: &Path) -> Running {
        let peer = format!("http://127.0.0.1:{}", self.peer);
        let child = Command::new(program(needs::ETCD))
            .args(["--name=m0", "--unsafe-no-fsync", "--log-level=error"])
            .arg(format!("--data-dir={}", data.display()))
            .arg(format!("--listen-client-urls={}", self.url()))
            .arg(format!("--advertise-client-urls={}", self.url()))
            .arg(format!("--listen-peer-urls={peer}"))
            .arg(format!("--initial-advertise-peer-urls={peer}"))
            .arg(format!("--initial-cluster=m0={peer}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let running = Running(child);
        let client = self.client();
        wait_for("etcd", || client.status().ok().filter(|status| status.leads()));
        running
    }

    /// The backup program, on a thread, until the test ends.
    fn back_up(&self, base_every_seconds: u32) {
        let config = BackupConfig {
            cluster: "u1".into(),
            member: "m0".into(),
            identity: self.identity.clone(),
            spool: self.path("spool").display().to_string(),
            base_every_seconds,
            status: self.path("status.json").display().to_string(),
        };
        let (root, url, identity) = (self.path("root"), self.url(), self.identity.clone());
        std::thread::spawn(move || {
            let connect = move || -> Result<Client, EtcdError> { Client::new(&url, &identity, BOUND) };
            record(&config, &root, &connect).unwrap();
        });
    }

    fn config(&self) -> EtcdConfig {
        EtcdConfig {
            member: "m0".into(),
            members: vec![EtcdMember {
                name: "m0".into(),
                address: Ipv4Addr::LOCALHOST,
            }],
            formed: true,
            data: self.path("data").display().to_string(),
            spool: self.path("spool").display().to_string(),
            flags: Vec::new(),
            identity: self.identity.clone(),
            restore: None,
        }
    }

    fn restore(&self, at: Option<i64>, into: &Path) -> Result<crate::restore::Restored, RestoreError> {
        let config = self.config();
        let wish = at.map(|at| EtcdRestore {
            id: "r1".into(),
            at: Some(Timestamp::from_millisecond(at).unwrap()),
            source: "u1".into(),
            by: "m0".into(),
            own: true,
            done: false,
        });
        Restore {
            config: &config,
            root: &self.path("root"),
            programs: Programs {
                etcd: program(needs::ETCD),
                etcdutl: program(needs::ETCDUTL),
            },
        }
        .run(wish.as_ref(), into)
    }

    fn written(&self) -> i64 {
        match Spool::at(&self.path("spool")).chain() {
            Ok(chain) => chain.last,
            Err(_) => 0,
        }
    }
}

fn key(number: usize) -> Vec<u8> {
    format!("/registry/configmaps/default/object-{number:05}").into_bytes()
}

fn put(number: usize, text: &str) -> Write {
    Write::Put {
        key: key(number),
        value: format!("{{\"object\":{number},\"text\":\"{text}\"}} {}", "x".repeat(300)).into_bytes(),
        lease: 0,
    }
}

fn state(client: &Client) -> State {
    let mut state = State::new();
    client
        .pages::<EtcdError>(&[0], &[0], 0, 500, |page| {
            state.extend(page.kvs.into_iter().map(|kv| (kv.key, (kv.value, kv.lease))));
            Ok(())
        })
        .unwrap();
    // `--bump-revision` leaves a key behind that no client wrote.
    state
}

/// Waits until all changes are recorded, and returns the latest second of their record: a change belongs to
/// the second in which it was recorded, which on a busy host is a later one. Later changes are in the next
/// second or after.
fn written_second(world: &World, client: &Client) -> i64 {
    let newest = client.range(&[0], &[0], 0, 1).unwrap().header.revision;
    wait_for("all changes to be written down", || {
        (world.written() >= newest).then_some(())
    });
    let end = now();
    wait_for("the next second", || (now() / 1000 > end / 1000).then_some(()));
    end
}

fn fill(client: &Client) -> i64 {
    let mut revision = 0;
    for chunk in (0..OBJECTS).collect::<Vec<_>>().chunks(100) {
        let writes: Vec<Write> = chunk.iter().map(|number| put(*number, "first")).collect();
        revision = client.txn(&[], &writes).unwrap().unwrap();
    }
    revision
}

#[test]
fn any_second_of_ten_thousand_objects_comes_back_exactly() {
    if !can_run() {
        return;
    }
    let world = World::new();
    let etcd = world.etcd(&world.path("data"));
    let client = world.client();
    client.put(b"/registry/namespaces/default", b"ns", 0).unwrap();
    world.back_up(3600);
    wait_for("the first base", || (world.written() > 0).then_some(()));
    fill(&client);
    client.grant(77, 3600).unwrap();
    client.put(b"/registry/events/default/e", b"event", 77).unwrap();

    // Changes over seconds: rewritten, deleted, created; the state after each second is kept.
    let mut states = vec![(written_second(&world, &client), state(&client))];
    for round in 0..4 {
        for number in 0..200 {
            let number = number * 37 + round;
            client
                .txn(&[], &[put(number, &format!("round {round}"))])
                .unwrap();
        }
        client
            .delete(&key(1000 + round * 300), &key(1000 + round * 300 + 250))
            .unwrap();
        client.txn(&[], &[put(OBJECTS + round, "made later")]).unwrap();
        states.push((written_second(&world, &client), state(&client)));
    }
    let last = client.range(&[0], &[0], 0, 1).unwrap().header.revision;
    wait_for("the last change to be written down", || {
        (world.written() >= last).then_some(())
    });
    drop(etcd);
    // The backup continues at the earlier address. The restored etcd is elsewhere: otherwise the backup would
    // take it for the same etcd and record it in the place of the data that is still to be restored.
    let world = World {
        client: port(),
        peer: port(),
        ..world
    };

    for (index, (at, expected)) in states.iter().enumerate().rev() {
        let into = world.path(&format!("restored-{index}"));
        let begun = pause::monotonic();
        let restored = world.restore(Some(*at), &into).unwrap();
        let took = pause::monotonic() - begun;
        let _etcd = world.etcd(&into);
        let client = world.client();
        let found = state(&client);
        eprintln!(
            "{} keys restored to second {} in {} ms",
            restored.totals.keys,
            at / 1000,
            took.as_millis()
        );
        assert_eq!(restored.totals.keys, expected.len() as u64);
        assert!(found == *expected, "another state than that of the second");
        // No client can keep a cache of the abandoned history: revisions are higher than ever before, and
        // earlier revisions are compacted.
        let revision = client.range(&[0], &[0], 0, 1).unwrap().header.revision;
        assert!(revision > last, "{revision} is not above {last}");
        let old = client.watch(&[0], &[0], last + 1, BOUND).unwrap().next();
        assert!(matches!(old, Err(EtcdError::Compacted { .. })), "{old:?}");
        assert_eq!(client.lease(77).unwrap(), Some(3600));
        client.put(b"/later", b"write", 0).unwrap();
    }
}

#[test]
fn a_lost_directory_comes_back_from_the_spool_and_the_backup_goes_on() {
    if !can_run() {
        return;
    }
    let world = World::new();
    let etcd = world.etcd(&world.path("data"));
    let client = world.client();
    fill(&client);
    world.back_up(3600);
    wait_for("the first base", || (world.written() > 0).then_some(()));
    for number in 0..500 {
        client.txn(&[], &[put(number, "second")]).unwrap();
    }
    let last = client.range(&[0], &[0], 0, 1).unwrap().header.revision;
    let expected = state(&client);
    wait_for("the last change to be written down", || {
        (world.written() >= last).then_some(())
    });
    drop(etcd);
    fs::remove_dir_all(world.path("data")).unwrap();

    let begun = pause::monotonic();
    world.restore(None, &world.path("data")).unwrap();
    eprintln!(
        "the newest state of {OBJECTS} objects in {} ms",
        (pause::monotonic() - begun).as_millis()
    );
    let etcd = world.etcd(&world.path("data"));
    let client = world.client();
    assert!(state(&client) == expected);
    // The backup finds another history, above the one before, and starts with a new base. Then it happens
    // again.
    client.txn(&[], &[put(3, "third")]).unwrap();
    let expected = state(&client);
    let last = client.range(&[0], &[0], 0, 1).unwrap().header.revision;
    wait_for("the backup to go on", || (world.written() >= last).then_some(()));
    drop(etcd);
    fs::remove_dir_all(world.path("data")).unwrap();
    world.restore(None, &world.path("data")).unwrap();
    let _etcd = world.etcd(&world.path("data"));
    assert!(state(&world.client()) == expected);
}

#[test]
fn bases_follow_each_other_and_say_what_base_and_log_give() {
    if !can_run() {
        return;
    }
    use cluster_backup::{ObjectName, base, fold::Fold};
    let world = World::new();
    let _etcd = world.etcd(&world.path("data"));
    let client = world.client();
    fill(&client);
    world.back_up(1);
    let spool = Spool::at(&world.path("spool"));
    let bases = || spool.bases();
    // Without a service no log is dropped: every log since the first base is still there.
    let mut number = 0;
    let first = wait_for("the first base", || bases().first().copied());
    let newest = wait_for("three bases", || {
        number += 1;
        client.txn(&[], &[put(number % 50, &number.to_string())]).unwrap();
        let newest = *bases().last().unwrap();
        let far = newest.until() - first.until() > 2000;
        let kept = spool.path(&first.to_string());
        // The first base is removed when a newer one exists; keep it for the comparison.
        if kept.exists() {
            let _first = fs::copy(&kept, world.path("first"));
        }
        far.then_some(newest)
    });
    let (ObjectName::Base { revision: from, .. }, ObjectName::Base { revision: to, .. }) = (first, newest)
    else {
        panic!("bases are bases");
    };
    let mut fold = Fold::onto(from, None).until_revision(to);
    for log in spool.logs() {
        fold.log(fs::read(&log.path).unwrap().as_slice()).unwrap();
    }
    let folded = fold
        .finish(fs::read(world.path("first")).unwrap().as_slice(), |_| Ok(()))
        .unwrap();
    let said = base::read(
        fs::read(spool.path(&newest.to_string())).unwrap().as_slice(),
        |_| Ok(()),
    )
    .unwrap();
    assert_eq!(folded.totals, said.totals);
    let status: BackupStatus = wait_for("the status", || {
        serde_json::from_slice(&fs::read(world.path("status.json")).ok()?).ok()
    });
    assert!(status.ships && status.base_at.is_some());
}

#[test]
fn a_moment_that_is_not_there_is_refused_and_nothing_is_left() {
    if !can_run() {
        return;
    }
    let world = World::new();
    let _etcd = world.etcd(&world.path("data"));
    world.back_up(3600);
    wait_for("the first base", || (world.written() > 0).then_some(()));
    let into = world.path("restored");
    let refused = world.restore(Some(now() - 3_600_000), &into).unwrap_err();
    assert!(matches!(refused, RestoreError::NotCovered { .. }), "{refused}");
    assert!(refused.to_string().contains("nearest"), "{refused}");
    assert!(!into.exists() && !world.path("restored.restoring").exists());
}
