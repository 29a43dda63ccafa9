//! What is true of any facts.

use jiff::Timestamp;
use proptest::prelude::*;

use super::{releases, t};
use crate::{
    Area, Change, ChangeKind, Fact, Facts, Means, Minor, Plugin, Pool, Profile, Registration, Stamp, State,
    Subscription, clocks::DAY, next_change, support_state,
};

/// A moment within three years from 2027 on.
fn moment() -> impl Strategy<Value = Timestamp> {
    (0_i64..3 * 365 * 24 * 60)
        .prop_map(|minute| Timestamp::from_second(t("2027-01-01").as_second() + minute * 60).unwrap())
}

fn maybe() -> impl Strategy<Value = Option<Timestamp>> {
    prop::option::of(moment())
}

fn profile() -> impl Strategy<Value = Profile> {
    prop::sample::select(Profile::ALL.to_vec())
}

fn change() -> impl Strategy<Value = Change> {
    let kind = prop::sample::select(vec![
        ChangeKind::ManagedObject,
        ChangeKind::Node,
        ChangeKind::SystemMetadata,
        ChangeKind::NodeGroup,
        ChangeKind::ManagedRules,
        ChangeKind::Extension,
        ChangeKind::BrokenByDaemonSet,
    ]);
    let means = prop::sample::select(vec![
        Means::Infrastructure,
        Means::DaemonSet,
        Means::Kubernetes,
        Means::Service,
    ]);
    (kind, means, moment(), maybe()).prop_map(|(kind, means, at, undone)| Change {
        kind,
        means,
        what: "a file".to_owned(),
        who: None,
        at,
        undone,
    })
}

fn some_facts() -> impl Strategy<Value = Facts> {
    let versions = (34_u32..38, prop::option::of(34_u32..38), any::<bool>());
    let course = (maybe(), maybe(), maybe(), prop::option::of(0_u32..2), maybe());
    let stamp = (maybe(), prop::option::of(0_u32..3), maybe());
    let subscription = prop::sample::select(vec![
        Subscription::Active,
        Subscription::Active,
        Subscription::Suspended,
        Subscription::Deleted,
    ]);
    let plugin = prop::sample::select(vec![Plugin::AzureCni, Plugin::Own, Plugin::Calico]);
    let more = (subscription, maybe(), plugin, maybe(), maybe());
    let changes = prop::collection::vec(change(), 0..3);
    (versions, course, stamp, more, changes).prop_map(|(versions, course, stamp, more, changes)| {
        let (minor, pool, long_term) = versions;
        let mut facts = Facts::of(t("2027-01-01"), Minor::one(minor), releases());
        facts.long_term = long_term;
        facts.pools = pool
            .map(|minor| Pool {
                name: "np1".to_owned(),
                version: Fact::now(Minor::one(minor)),
                oldest_node: more.3,
                newest_image: more.4,
            })
            .into_iter()
            .collect();
        (facts.stopped, facts.deallocated, facts.unready) = (course.0, course.1, course.2);
        (facts.running, facts.archived) = (course.3, course.4);
        facts.stamp = Stamp {
            platform_end: stamp.0,
            releases_behind: stamp.1.map(Fact::now),
            registration: stamp.2.map_or(Registration::Unknown, Registration::Reached),
        };
        facts.subscription = Fact {
            value: more.0,
            since: more.1,
        };
        facts.plugin = Fact::now(more.2);
        facts.changes = changes;
        facts
    })
}

proptest! {
    /// Between now and the next change, nothing is another state; at it, something is.
    #[test]
    fn a_state_holds_until_the_next_change_and_not_longer(
        facts in some_facts(),
        profile in profile(),
        now in moment(),
        within in 0_i64..1_000_000,
    ) {
        let of = |at: Timestamp| {
            let state = support_state(&facts, profile, at);
            (state.state, state.areas)
        };
        let next = next_change(&facts, profile, now);
        prop_assert_eq!(support_state(&facts, profile, now).until, next);
        let end = next.unwrap_or_else(|| now.checked_add(DAY * 2000).unwrap());
        prop_assert!(end > now);
        let whole = end.as_second() - now.as_second();
        let part = whole * within / 1_000_000;
        let between = Timestamp::from_second(now.as_second() + part.min(whole - 1)).unwrap();
        prop_assert_eq!(of(between), of(now), "{} of {:?}", between, next);
        if let Some(next) = next {
            prop_assert_ne!(of(next), of(now));
        }
    }

    /// A state is the gravest of its reasons, and no area is better than the whole.
    #[test]
    fn a_state_is_that_of_its_reasons(facts in some_facts(), profile in profile(), now in moment()) {
        let told = support_state(&facts, profile, now);
        let gravest = |area: Option<Area>| {
            let own = told.reasons.iter().filter(|reason| reason.area == area);
            own.map(|reason| reason.state).max().unwrap_or(State::Supported)
        };
        prop_assert_eq!(told.state, gravest(None));
        for (area, state) in &told.areas {
            prop_assert_eq!(*state, gravest(None).max(gravest(Some(*area))));
        }
        let rules: Vec<&str> = crate::rules::IDS.lines().collect();
        for reason in &told.reasons {
            prop_assert!(rules.contains(&reason.rule) && !reason.sentence.is_empty() && !reason.fact.is_empty(), "{:?}", reason);
            // Whatever is no good has a way out of it.
            prop_assert!(reason.state == State::Supported || !reason.remedy.is_empty() || matches!(reason.rule, "V2" | "S2" | "C3"), "{:?}", reason);
        }
        let states: Vec<State> = told.reasons.iter().map(|reason| reason.state).collect();
        prop_assert!(states.is_sorted_by(|a, b| a >= b));
        prop_assert_eq!(&support_state(&facts, profile, now), &told);
    }

    /// What was told of a moment then is told of it later, as far as facts carry times.
    #[test]
    fn facts_of_an_earlier_time_begin_no_later(facts in some_facts(), at in moment()) {
        let (then, _) = facts.at(at);
        for since in [then.stopped, then.deallocated, then.unready, then.archived].into_iter().flatten() {
            prop_assert!(since <= at);
        }
        prop_assert!(then.changes.iter().all(|change| change.at <= at));
        prop_assert_eq!(then.at(at).0, then);
    }
}
