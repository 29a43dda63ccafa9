//! Shipping to an archive like the service's.

use std::{cell::Cell, fs, path::Path, rc::Rc, sync::Arc};

use base_sealer::Sealer;
use cluster_archive::{Archive, ArchiveError, DirectoryStore};
use cluster_backup::{Change, ObjectName, base::BaseWriter, log::LogWriter};

use super::*;

/// A service that can be unreachable.
struct Stand {
    archive: Rc<Archive>,
    away: Rc<Cell<bool>>,
}

impl Stand {
    fn put(&self, name: &ObjectName, bytes: &[u8]) -> Result<(), Failure> {
        if self.away.get() {
            return Err(Failure::Away("it is away".to_owned()));
        }
        match self.archive.put("u1", *name, bytes) {
            Ok(()) => Ok(()),
            Err(ArchiveError::Damaged { source, .. }) => Err(Failure::Refused(source.to_string())),
            Err(error) => Err(Failure::Away(error.to_string())),
        }
    }
}

impl BackupSink for Stand {
    fn has(&self) -> Result<Vec<ObjectName>, Failure> {
        Ok(self.archive.holding("u1").unwrap().names())
    }

    fn take(&self, name: &ObjectName, bytes: &[u8]) -> Result<(), Failure> {
        self.put(name, bytes)
    }

    fn take_file(&self, name: &ObjectName, path: &Path) -> Result<(), Failure> {
        self.put(name, &fs::read(path).unwrap())
    }
}

struct World {
    directory: tempfile::TempDir,
    archive: Rc<Archive>,
    away: Rc<Cell<bool>>,
    shared: Arc<Shared>,
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let objects = DirectoryStore::open(&directory.path().join("objects")).unwrap();
        let world = Self {
            archive: Rc::new(Archive::new(
                Arc::new(objects),
                Arc::new(Sealer::from_key(&[7; 32])),
            )),
            directory,
            away: Rc::new(Cell::new(false)),
            shared: Arc::new(Shared::default()),
        };
        world.shared.state().leads = true;
        world
    }

    fn spool(&self) -> Spool {
        Spool::open(&self.directory.path().join("spool")).unwrap()
    }

    fn shipper(&self) -> Shipper<impl Fn() -> Result<Stand, String> + use<>> {
        let (archive, away) = (Rc::clone(&self.archive), Rc::clone(&self.away));
        Shipper {
            connect: move || {
                Ok(Stand {
                    archive: Rc::clone(&archive),
                    away: Rc::clone(&away),
                })
            },
            spool: self.spool(),
            shared: Arc::clone(&self.shared),
        }
    }

    /// A finished base.
    fn base(&self, revision: i64, at: i64) -> ObjectName {
        let name = ObjectName::Base { revision, at };
        let spool = self.spool();
        let mut base = spool.begin_base().unwrap();
        base.write(&BaseWriter::new(revision, at).finish(&[]).unwrap().0)
            .unwrap();
        spool.finish_base(base, name).unwrap();
        let mut state = self.shared.state();
        state.base = Some(name);
        state.base_wished = false;
        state.base_coming = false;
        name
    }

    /// Frames at the end of a log, each of one change: revision and when it was seen.
    fn write(&self, log: i64, changes: &[(i64, i64)]) {
        let path = self.spool().log_path(log);
        let mut bytes = fs::read(&path).unwrap_or_default();
        for change in changes {
            bytes.extend(frame(change.0, change.1));
            self.shared.state().wrote(change.0, change.1);
        }
        fs::write(path, bytes).unwrap();
    }

    /// The newest revision that the service can restore.
    fn restorable(&self) -> i64 {
        let (_, folded) = self.archive.index("u1", None).unwrap();
        folded.revision
    }

    fn acknowledged(&self) -> (i64, i64) {
        let state = self.shared.state();
        (state.acknowledged, state.written)
    }
}

fn frame(revision: i64, seen: i64) -> Vec<u8> {
    let mut writer = LogWriter::after(revision - 1, 0);
    let change = Change {
        revision,
        seen,
        key: format!("/registry/configmaps/default/{revision}").into_bytes(),
        now: Some((b"value".to_vec(), 0)),
    };
    writer.add(&change).unwrap();
    writer.flush().unwrap().1
}

#[test]
fn what_is_written_down_is_shipped_and_then_what_is_new() {
    let world = World::new();
    world.shared.state().begin(5);
    world.base(5, 100);
    let (shipper, mut known) = (world.shipper(), None);
    world.write(5, &[(6, 110), (7, 120)]);
    shipper.round(&mut known).unwrap();
    assert_eq!((world.restorable(), world.acknowledged()), (7, (7, 7)));
    world.write(5, &[(8, 130)]);
    shipper.round(&mut known).unwrap();
    assert_eq!((world.restorable(), world.acknowledged()), (8, (8, 8)));
    assert_eq!(world.shared.state().status(200).given_up, 0);
}

#[test]
fn frames_whose_time_goes_back_do_not_hold_up_those_behind() {
    let world = World::new();
    world.shared.state().begin(5);
    world.base(5, 100);
    // Times as left by a clock that was set back, or by an old writer.
    world.write(5, &[(6, 500), (7, 400), (8, 600)]);
    world.shipper().round(&mut None).unwrap();
    assert_eq!((world.restorable(), world.acknowledged()), (8, (8, 8)));
}

#[test]
fn a_log_that_was_cut_under_the_shipper_is_read_anew() {
    let world = World::new();
    world.shared.state().begin(5);
    world.base(5, 100);
    world.write(5, &[(6, 110), (7, 120), (8, 130)]);
    let (shipper, mut known) = (world.shipper(), None);
    shipper.round(&mut known).unwrap();
    // The disk lost a log end that the service already has; the next session continues after the whole part.
    fs::write(world.spool().log_path(5), frame(6, 110)).unwrap();
    world.shared.state().begin(6);
    world.write(5, &[(7, 125), (8, 135), (9, 140)]);
    shipper.round(&mut known).unwrap();
    assert_eq!((world.restorable(), world.acknowledged()), (9, (9, 9)));
}

#[test]
fn what_cannot_be_read_any_more_is_given_up_for_a_new_base() {
    let world = World::new();
    world.shared.state().begin(5);
    world.base(5, 100);
    let (shipper, mut known) = (world.shipper(), None);
    world.write(5, &[(6, 110), (7, 120), (8, 130)]);
    let path = world.spool().log_path(5);
    let mut bytes = fs::read(&path).unwrap();
    bytes[frame(6, 110).len() + 60] ^= 1;
    fs::write(&path, bytes).unwrap();
    shipper.round(&mut known).unwrap();
    assert_eq!((world.restorable(), world.acknowledged()), (6, (6, 8)));
    let status = world.shared.state().status(200);
    assert_eq!(status.given_up, 1);
    assert!(world.shared.state().base_wished, "a base is wished for");
    // One request is enough while the base is on its way.
    shipper.round(&mut known).unwrap();
    assert_eq!(world.shared.state().status(200).given_up, 1);
    world.base(8, 150);
    world.write(8, &[(9, 160)]);
    shipper.round(&mut known).unwrap();
    assert_eq!((world.restorable(), world.acknowledged()), (9, (9, 9)));
}

#[test]
fn a_base_that_is_refused_makes_room_for_another() {
    let world = World::new();
    world.shared.state().begin(5);
    let bad = world.base(5, 100);
    let path = world.spool().path(&bad.to_string());
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 3]).unwrap();
    let (shipper, mut known) = (world.shipper(), None);
    world.write(5, &[(6, 110)]);
    shipper.round(&mut known).unwrap();
    assert!(world.shared.state().base_wished && !path.exists());
    let status = world.shared.state().status(200);
    assert!(status.gave_up.unwrap().contains("middle of a block"));
    world.base(6, 150);
    world.write(6, &[(7, 160)]);
    shipper.round(&mut known).unwrap();
    assert_eq!((world.restorable(), world.acknowledged()), (7, (7, 7)));
}

#[test]
fn a_service_that_is_away_makes_nothing_be_given_up() {
    let world = World::new();
    world.shared.state().begin(5);
    world.base(5, 100);
    world.write(5, &[(6, 110)]);
    world.away.set(true);
    let (shipper, mut known) = (world.shipper(), None);
    assert!(shipper.round(&mut known).is_err());
    assert!(shipper.round(&mut known).is_err());
    assert_eq!(world.shared.state().status(200).given_up, 0);
    world.away.set(false);
    shipper.round(&mut known).unwrap();
    assert_eq!((world.restorable(), world.acknowledged()), (6, (6, 6)));
}

#[test]
fn a_history_with_lower_revisions_is_shipped_all_the_same() {
    let world = World::new();
    world.shared.state().begin(50);
    world.base(50, 100);
    world.write(50, &[(51, 110), (52, 120)]);
    let (shipper, mut known) = (world.shipper(), None);
    shipper.round(&mut known).unwrap();
    // etcd lost its end: the recording is set aside, and a base starts another history.
    world.spool().set_aside().unwrap();
    world.shared.state().begin(20);
    world.base(20, 200);
    world.write(20, &[(21, 210)]);
    shipper.round(&mut known).unwrap();
    assert_eq!((world.restorable(), world.acknowledged()), (21, (21, 21)));
}

#[test]
fn an_etcd_that_jumped_ahead_is_acknowledged_with_its_base() {
    let world = World::new();
    world.shared.state().begin(5);
    world.base(5, 100);
    world.write(5, &[(6, 110)]);
    let (shipper, mut known) = (world.shipper(), None);
    shipper.round(&mut known).unwrap();
    // Restored: revisions continue far above, and no log leads there.
    world.shared.state().begin(1_000_006);
    world.shared.state().base_coming = true;
    shipper.round(&mut known).unwrap();
    world.base(1_000_006, 200);
    shipper.round(&mut known).unwrap();
    assert_eq!(
        (world.restorable(), world.acknowledged()),
        (1_000_006, (1_000_006, 1_000_006))
    );
    assert_eq!(world.shared.state().status(300).given_up, 0);
}
