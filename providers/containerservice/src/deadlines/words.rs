//! What is told of deadlines. Sentences without a full stop, as events have them.

use control_records::deadlines::AtDeadline;
use jiff::Timestamp;
use policy_support::clocks::{Act, Deed};

/// What a deed makes of the cluster.
fn what(deed: Deed) -> &'static str {
    match deed {
        Deed::Stop => "stopped",
        Deed::Archive => {
            "archived (its control plane is then in its backup alone, and its machines are gone)"
        }
        Deed::Delete => "deleted with all it has",
        Deed::LeaveSupport => "out of support",
        Deed::RefuseLatest => "not updated to the latest version any more",
        Deed::RefuseUpdates => "not updated any more",
        Deed::Restore => "restored",
        Deed::Unregister => "without a connection, and has to be deployed anew to have one",
    }
}

/// Why a rule says so.
fn why(rule: &str) -> &'static str {
    match rule {
        "L1" => "a cluster that is stopped is kept for 12 months",
        "L2" => "all its nodes have been deallocated by hand for 30 days",
        "L3" => "no node has been Ready, and none of their machines has run, for 30 days",
        "L4" => "it has been out of support for 30 days",
        "L5" => "it has been stopped for so long",
        "S1" => "its subscription is disabled",
        "S2" => "its subscription was deleted",
        _ => "its subscription has been disabled or deleted for so long",
    }
}

/// What its owner can do.
fn remedy(rule: &str, deed: Deed) -> &'static str {
    match (rule, deed) {
        ("L1" | "L5", _) => "next: az aks start, or delete what is not needed",
        ("L2", _) => "next: start nodes, or stop the cluster with az aks stop",
        ("L3", _) => "next: see to its nodes (landfall status), or stop the cluster with az aks stop",
        ("L4", _) => "next: bring it back into support, for example with az aks upgrade",
        ("S1" | "S3", _) => "next: enable the subscription (landfall subscription enable)",
        _ => "nothing is to be done",
    }
}

/// Notice of what is done at an instant.
pub(super) fn notice(act: &Act, at: Timestamp, mode: AtDeadline) -> String {
    let Act { rule, deed, .. } = act;
    let what = what(*deed);
    let will = match mode {
        AtDeadline::Tell if deed.takes() => {
            format!("would be {what} by its support policy, of which this stamp only tells")
        }
        AtDeadline::Tell | AtDeadline::Act => format!("is {what}"),
    };
    format!(
        "{rule}: at {at} the cluster {will}: {}; {}",
        why(rule),
        remedy(rule, *deed)
    )
}

/// That the time of what takes nothing has come.
pub(super) fn come(act: &Act) -> String {
    let Act { rule, deed, .. } = act;
    format!(
        "{rule}: the cluster is {}: {}; {}",
        what(*deed),
        why(rule),
        remedy(rule, *deed)
    )
}

/// That the time of something has come, in a stamp that does nothing about it.
pub(super) fn only_told(act: &Act) -> String {
    let Act { rule, deed, .. } = act;
    format!(
        "{rule}: by its support policy the cluster would be {} now: {}; this stamp only tells of it, and nothing is done",
        what(*deed),
        why(rule)
    )
}

/// That something is due, and waits.
pub(super) fn waits(act: &Act, obstacle: &str) -> String {
    let Act { rule, deed, .. } = act;
    format!(
        "{rule}: the cluster is to be {}, which waits: {obstacle}",
        what(*deed)
    )
}

/// That something is done now.
pub(super) fn begins(act: &Act) -> String {
    let Act { rule, deed, .. } = act;
    format!("{rule}: the cluster is {} now: {}", what(*deed), why(rule))
}

/// That something was not done.
pub(super) fn refused(act: &Act, error: &str) -> String {
    let Act { rule, deed, .. } = act;
    format!(
        "{rule}: the cluster is to be {}, which was refused: {error}",
        what(*deed)
    )
}
