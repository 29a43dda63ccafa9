//! What is told of the continuous backup.

use super::*;

fn told(ideal: &Ideal) -> Vec<(EventKind, String)> {
    let of_backup = |(_, event): &&(Timestamp, Event)| event.subject == "the backup";
    let told = ideal.told.iter().filter(of_backup);
    told.map(|(_, event)| (event.kind, event.message.clone()))
        .collect()
}

fn says(ideal: &mut Ideal, change: impl FnOnce(&mut BackupStatus)) {
    change(ideal.backup.get_or_insert_with(|| BackupStatus {
        ships: true,
        ..BackupStatus::default()
    }));
    for _ in 0..3 {
        ideal.pass();
    }
}

#[test]
fn a_backup_that_falls_behind_is_told_once_and_so_is_that_it_is_well() {
    let mut ideal = converged(PodNetworking::Kubenet, vec![pool("a", 1)]);
    says(&mut ideal, |status| status.lag_ms = 59_000);
    assert_eq!(told(&ideal), []);
    says(&mut ideal, |status| {
        status.lag_ms = 60_000;
        status.problem = Some("cannot ship: it is away".to_owned());
    });
    says(&mut ideal, |status| status.lag_ms = 90_000);
    says(&mut ideal, |status| status.lag_ms = 30_000);
    let behind = (
        EventKind::ProblemBegan,
        "it is 60 s behind the cluster: cannot ship: it is away".to_owned(),
    );
    assert_eq!(told(&ideal), [behind]);
    // One that does not ship says nothing about how far shipping is.
    says(&mut ideal, |status| {
        status.ships = false;
        status.lag_ms = 0;
    });
    assert_eq!(told(&ideal).len(), 1);
    says(&mut ideal, |status| status.ships = true);
    assert_eq!(told(&ideal)[1].0, EventKind::ProblemEnded);
    says(&mut ideal, |_| {});
    assert_eq!(told(&ideal).len(), 2);
}

#[test]
fn what_could_not_be_shipped_is_told_each_time() {
    let mut ideal = converged(PodNetworking::Kubenet, vec![pool("a", 1)]);
    says(&mut ideal, |status| {
        status.given_up = 1;
        status.gave_up = Some("log-1 is not taken".to_owned());
    });
    assert_eq!(told(&ideal).len(), 1);
    assert!(told(&ideal)[0].1.starts_with("log-1 is not taken; a new base"));
    says(&mut ideal, |status| status.given_up = 3);
    assert_eq!(told(&ideal).len(), 2);
    // The program was started again, and it happens again.
    says(&mut ideal, |status| status.given_up = 0);
    says(&mut ideal, |status| status.given_up = 1);
    assert_eq!(told(&ideal).len(), 3);
}
