//! Whether etcd never has a majority again: pure, from what is left of its members and from what their own etcd says.
//!
//! Whose machine is to be a member does not vote for that: it may still be a learner, or not be let in yet. Who votes, members tell of
//! their own etcd ([`Standing`]). A member is elected by the voters of the list that it has applied itself, and only a leader has it
//! apply another one. So where all that have data know no leader, and none of their lists has a majority of such as have data, nobody is
//! ever elected and no list ever changes. One who was made a voter by a leader that is lost since, unknown to the others, either has
//! applied that and says so itself, or never does. A learner is no candidate, whoever would vote for it.
//!
//! Always true: what is not known counts for a majority. Only where so many members have nothing left that it matters to nobody who
//! votes, nobody has to say so.

use agent_protocol::programs::Standing;

/// A member's machine, as far as etcd goes.
#[derive(Debug, Clone)]
pub(crate) struct Member<'a> {
    /// Its name in etcd.
    pub(crate) name: &'a str,
    /// Whether it is to be a member from now on as well.
    pub(crate) stays: bool,
    /// Whether nothing is left of its data.
    pub(crate) without_data: bool,
    /// What its etcd says; `None`: not known.
    pub(crate) standing: Option<Standing>,
}

/// Whether none of these members is ever elected again. `others`: there may be machines of the cluster besides them.
pub(crate) fn is_lost(members: &[Member<'_>], others: bool) -> bool {
    let has_data = |name: &String| {
        let member = members.iter().find(|member| member.name == *name);
        member.map_or(others, |member| !member.without_data)
    };
    let left = members.iter().filter(|member| !member.without_data);
    let (mut all_told, mut voter) = (true, false);
    for member in left {
        match &member.standing {
            Some(Standing::Led) => return false,
            Some(Standing::Leaderless { voters }) => {
                let able = voters.iter().filter(|name| has_data(name)).count();
                if able * 2 > voters.len() {
                    return false;
                }
                voter = true;
            }
            Some(Standing::Learner) => {}
            None => all_told = false,
        }
    }
    // Learners alone do not tell who votes: it may be somebody who is not among these.
    if all_told && (voter || !others) {
        return true;
    }
    let staying = members.iter().filter(|member| member.stays);
    let without_data = staying.clone().filter(|member| member.without_data).count();
    without_data * 2 > staying.count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn voters(names: &[&str]) -> Option<Standing> {
        let voters = names.iter().map(|name| (*name).to_owned()).collect();
        Some(Standing::Leaderless { voters })
    }

    fn has(name: &str, standing: Option<Standing>) -> Member<'_> {
        Member {
            name,
            stays: true,
            without_data: false,
            standing,
        }
    }

    fn empty(name: &str) -> Member<'_> {
        Member {
            without_data: true,
            ..has(name, None)
        }
    }

    fn leaving(member: Member<'_>) -> Member<'_> {
        Member {
            stays: false,
            ..member
        }
    }

    const LEARNER: Option<Standing> = Some(Standing::Learner);
    const LED: Option<Standing> = Some(Standing::Led);

    #[test]
    fn of_two_voters_one_is_no_majority_whoever_learns_beside_it() {
        let two = || voters(&["a", "b"]);
        assert!(is_lost(&[empty("a"), has("b", two()), has("c", LEARNER)], false));
        // The third was not let in yet.
        assert!(is_lost(&[empty("a"), has("b", two()), empty("c")], false));
        // Of two, the other has left the records, or is about to.
        assert!(is_lost(&[has("b", two()), has("c", LEARNER)], false));
        assert!(is_lost(
            &[leaving(empty("a")), has("b", two()), empty("d")],
            false
        ));
    }

    #[test]
    fn who_was_made_a_voter_unknown_to_the_others_says_so_itself() {
        let (two, three) = (|| voters(&["a", "b"]), || voters(&["a", "b", "c"]));
        assert!(!is_lost(&[empty("a"), has("b", two()), has("c", three())], false));
        assert!(!is_lost(&[empty("a"), has("b", two()), has("c", LED)], false));
        assert!(!is_lost(&[empty("a"), has("b", LED), has("c", LEARNER)], false));
        // It does not say anything: it may have been.
        assert!(!is_lost(&[empty("a"), has("b", two()), has("c", None)], false));
        assert!(!is_lost(&[empty("a"), has("b", None), has("c", LEARNER)], false));
    }

    #[test]
    fn an_only_voter_is_a_majority_however_many_wait_to_be_let_in() {
        assert!(!is_lost(
            &[has("a", voters(&["a"])), empty("b"), empty("c")],
            false
        ));
        assert!(!is_lost(&[has("a", LED), empty("b"), empty("c")], false));
        // It is lost, and who learnt from it has no vote.
        assert!(is_lost(&[empty("a"), has("b", LEARNER)], false));
        assert!(is_lost(&[empty("a"), has("b", LEARNER), empty("c")], false));
    }

    #[test]
    fn of_three_voters_two_are_a_majority_and_one_is_none() {
        let three = || voters(&["a", "b", "c"]);
        assert!(!is_lost(
            &[empty("a"), has("b", three()), has("c", three())],
            false
        ));
        assert!(is_lost(&[empty("a"), empty("b"), has("c", three())], false));
        assert!(is_lost(&[empty("a"), empty("b"), empty("c")], false));
        // One that is on its way out has data and votes.
        assert!(!is_lost(
            &[leaving(has("a", three())), empty("b"), has("c", three())],
            false
        ));
    }

    #[test]
    fn what_agents_from_before_do_not_tell_is_no_reason() {
        assert!(!is_lost(&[empty("a"), has("b", None), has("c", None)], false));
        assert!(!is_lost(&[empty("a"), has("b", None)], false));
        assert!(!is_lost(&[has("a", None), has("b", None), has("c", None)], false));
        // So many are empty that it does not matter who votes: two of three, as ever.
        assert!(is_lost(&[empty("a"), empty("b"), has("c", None)], false));
        assert!(is_lost(
            &[empty("a"), empty("b"), has("c", None), leaving(has("d", None))],
            false
        ));
    }

    #[test]
    fn a_voter_that_is_in_no_record_counts_as_long_as_it_may_be_there() {
        let members = [has("b", voters(&["a", "b"])), empty("c")];
        assert!(!is_lost(&members, true));
        assert!(is_lost(&members, false));
        let learns = [has("b", LEARNER), empty("c")];
        assert!(!is_lost(&learns, true));
        assert!(is_lost(&learns, false));
    }
}
