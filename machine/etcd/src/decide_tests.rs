use super::*;
use agent_protocol::programs::EtcdRestore;

fn named(name: &str) -> EtcdMember {
    EtcdMember {
        name: name.into(),
        address: [10, 0, 0, name.as_bytes()[0]].into(),
    }
}

/// The configuration of member `a`, one of these.
fn config(members: &[&str], formed: bool) -> EtcdConfig {
    EtcdConfig {
        formed,
        ..EtcdConfig::bare("a", members.iter().map(|name| named(name)))
    }
}

fn restoring(members: &[&str], by: &str) -> EtcdConfig {
    EtcdConfig {
        restore: Some(EtcdRestore {
            own: true,
            done: false,
            id: "r".into(),
            at: Some(jiff::Timestamp::UNIX_EPOCH),
            source: "uid".into(),
            by: by.into(),
        }),
        ..config(members, true)
    }
}

fn seen(data: Data) -> Seen {
    Seen {
        data,
        marker: Marker::default(),
        quick_exits: 0,
        room: true,
        others: Some(Vec::new()),
    }
}

fn member(id: u64, name: &str, started: bool, learner: bool) -> Member {
    Member {
        id,
        name: if started || !learner {
            name.into()
        } else {
            String::new()
        },
        peer_urls: vec![peer_url(&named(name))],
        client_urls: if started {
            vec!["https://x".into()]
        } else {
            Vec::new()
        },
        is_learner: learner,
    }
}

fn known(restored: bool, members: &[Member]) -> Option<Vec<Known>> {
    let mut all = vec![member(2, "b", true, false), member(3, "c", true, false)];
    all.extend_from_slice(members);
    Some(vec![Known {
        by: "b".into(),
        restored,
        cluster: 77,
        members: all,
    }])
}

const THREE: &[&str] = &["a", "b", "c"];

#[test]
fn a_member_with_data_just_starts_and_asks_nobody() {
    for formed in [false, true] {
        for members in [&["a"][..], THREE] {
            let seen = Seen {
                others: None,
                ..seen(Data::Whole)
            };
            assert_eq!(decide(&config(members, formed), &seen), Step::Start);
        }
    }
}

#[test]
fn one_alone_founds_once_and_restores_ever_after() {
    let with = |formed, had_data| {
        let mut seen = seen(Data::None);
        seen.marker.had_data = had_data;
        decide(&config(&["a"], formed), &seen)
    };
    assert_eq!(with(false, false), Step::Found);
    for (formed, had_data) in [(true, false), (false, true), (true, true)] {
        assert_eq!(with(formed, had_data), Step::Restore { wished: false });
    }
}

#[test]
fn of_several_nobody_founds_when_a_cluster_was_there() {
    let mut seen = seen(Data::None);
    seen.others = None;
    assert_eq!(decide(&config(THREE, false), &seen), Step::Ask);
    seen.others = Some(Vec::new());
    assert_eq!(decide(&config(THREE, false), &seen), Step::Found);
    assert!(matches!(decide(&config(THREE, true), &seen), Step::Wait(_)));
    seen.marker.had_data = true;
    assert!(matches!(decide(&config(THREE, false), &seen), Step::Wait(_)));
}

#[test]
fn the_way_into_a_cluster() {
    let (b, formed, fresh) = ("b".to_owned(), true, false);
    let leave = |id| Step::Leave {
        via: "b".into(),
        member: id,
    };
    let mut had = seen(Data::None);
    had.marker.had_data = true;
    let mut joined = seen(Data::None);
    joined.marker.joined = Some(9);
    let plain = seen(Data::None);
    for (formed, seen, own, step) in [
        (formed, &plain, None, Some(Step::Add { via: b.clone() })),
        (fresh, &plain, None, Some(Step::Add { via: b })),
        // Added, but the process died before it started: continues as that member.
        (formed, &plain, Some(member(9, "a", false, true)), None),
        // The join was started and its data was lost.
        (formed, &joined, Some(member(9, "a", false, true)), Some(leave(9))),
        (formed, &plain, Some(member(9, "a", true, true)), Some(leave(9))),
        (formed, &had, Some(member(1, "a", true, false)), Some(leave(1))),
        (formed, &plain, Some(member(1, "a", true, false)), Some(leave(1))),
        // A founder: started late, or already a member before.
        (
            fresh,
            &plain,
            Some(member(1, "a", false, false)),
            Some(Step::Found),
        ),
        (fresh, &had, Some(member(1, "a", false, false)), Some(leave(1))),
        (formed, &plain, Some(member(1, "a", false, false)), Some(leave(1))),
        (fresh, &plain, Some(member(1, "a", true, false)), Some(leave(1))),
    ] {
        let seen = Seen {
            others: known(true, own.as_slice()),
            ..seen.clone()
        };
        let decided = decide(&config(THREE, formed), &seen);
        match step {
            Some(step) => assert_eq!(decided, step, "{own:?} {formed}"),
            None => assert!(
                matches!(&decided, Step::Join { member: 9, cluster: 77, members } if members.len() == 3),
                "{decided:?}"
            ),
        }
    }
}

#[test]
fn data_that_etcd_cannot_start_with_is_set_aside_once() {
    let with = |quick_exits, room, aside| {
        let mut seen = seen(Data::Whole);
        (seen.quick_exits, seen.room, seen.marker.aside) = (quick_exits, room, aside);
        decide(&config(&["a"], true), &seen)
    };
    assert_eq!(with(QUICK_EXITS - 1, true, false), Step::Start);
    assert_eq!(with(QUICK_EXITS, true, false), Step::SetAside);
    assert_eq!(
        with(QUICK_EXITS + 9, false, false),
        Step::Start,
        "no data starts on a full disk"
    );
    assert_eq!(
        with(QUICK_EXITS, true, true),
        Step::Start,
        "then it was not the data"
    );
    assert_eq!(decide(&config(&["a"], true), &seen(Data::Part)), Step::SetAside);
}

#[test]
fn a_restore_is_done_by_one_and_followed_by_the_others() {
    let wished = Step::Restore { wished: true };
    for data in [Data::None, Data::Part, Data::Whole] {
        assert_eq!(decide(&restoring(THREE, "a"), &seen(data)), wished);
        assert_eq!(decide(&restoring(&["a"], "gone"), &seen(data)), wished);

        // No data is deleted before the other member has restored.
        let config = restoring(THREE, "b");
        let mut other = seen(data);
        assert!(matches!(decide(&config, &other), Step::Wait(_)), "{data:?}");
        other.others = known(false, &[member(1, "a", true, false)]);
        assert!(matches!(decide(&config, &other), Step::Wait(_)), "{data:?}");
        other.others = known(true, &[]);
        let step = match data {
            Data::None => Step::Add { via: "b".into() },
            _ => Step::Discard,
        };
        assert_eq!(decide(&config, &other), step);
        other.others = None;
        assert_eq!(decide(&config, &other), Step::Ask);

        // A restore is done once.
        let mut done = seen(data);
        done.marker.restore = Some("r".into());
        assert_ne!(decide(&restoring(THREE, "a"), &done), wished);
    }
    let mut done = seen(Data::Whole);
    done.marker.restore = Some("r".into());
    assert_eq!(decide(&restoring(THREE, "b"), &done), Step::Start);
}

#[test]
fn data_that_the_newest_state_takes_the_place_of_is_kept_aside() {
    let mut config = restoring(THREE, "b");
    config.restore.as_mut().unwrap().at = None;
    let mut with_data = seen(Data::Whole);
    with_data.others = known(true, &[]);
    assert_eq!(decide(&config, &with_data), Step::SetAside);
    config.restore.as_mut().unwrap().done = true;
    assert_eq!(decide(&config, &with_data), Step::SetAside);
}

#[test]
fn what_was_restored_once_is_not_gone_back_to_by_whoever_lost_everything_since() {
    let done = |members: &[&str], by: &str| {
        let mut config = restoring(members, by);
        if let Some(restore) = &mut config.restore {
            restore.done = true;
        }
        config
    };
    // A single member restores the newest state, not the earlier one. Existing data stays, whatever the
    // marker says.
    let newest = Step::Restore { wished: false };
    assert_eq!(decide(&done(&["a"], "a"), &seen(Data::None)), newest);
    assert_eq!(decide(&done(&["a"], "gone"), &seen(Data::None)), newest);
    assert_eq!(decide(&done(&["a"], "a"), &seen(Data::Whole)), Step::Start);
    // One of three joins the others, even if the restore names it.
    let config = done(THREE, "a");
    let mut lost = seen(Data::None);
    assert!(matches!(decide(&config, &lost), Step::Wait(_)));
    lost.others = known(true, &[]);
    assert_eq!(decide(&config, &lost), Step::Add { via: "b".into() });
    // A member that was off during the restore has data of another history.
    let mut late = seen(Data::Whole);
    assert!(matches!(decide(&config, &late), Step::Wait(_)));
    late.others = None;
    assert_eq!(decide(&config, &late), Step::Ask);
    late.others = known(true, &[]);
    assert_eq!(decide(&config, &late), Step::Discard);
}

#[test]
fn who_joined_what_was_restored_before_it_was_told_of_it_starts_with_that() {
    let told = restoring(&["a", "b", "c"], "b");
    let mut here = seen(Data::Whole);
    here.marker.cluster = 77;
    // The only other voter has no majority without this member, so it reports no leader.
    assert!(matches!(decide(&told, &here), Step::Wait(_)));
    assert!(
        !here.marker.recognise(&told, Data::Whole, Some(78)),
        "another restore's"
    );
    assert!(
        !here.marker.recognise(&told, Data::None, Some(77)),
        "it has lost it since"
    );
    assert!(here.marker.recognise(&told, Data::Whole, Some(77)));
    assert_eq!(here.marker.restore.as_deref(), Some("r"));
    assert_eq!(decide(&told, &here), Step::Start);
    assert!(
        !here.marker.recognise(&told, Data::Whole, Some(77)),
        "it is known by now"
    );
}
