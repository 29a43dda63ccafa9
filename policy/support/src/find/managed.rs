//! M1 to M10: what is the service's, and was changed by somebody else; X1 to X5: what an engine's definition may not have.

use super::{Found, Says};
use crate::{Area, Change, ChangeKind, Facts, Means, Plugin, Profile, State, engine};

pub(super) fn find<'a>(facts: &'a Facts, profile: Profile, found: &mut Found<'a>) {
    for change in &facts.changes {
        if profile == Profile::HubEngine {
            owned(change, found);
        } else if profile.is_managed() {
            managed(change, profile, found);
        }
    }
    plugin(facts, profile, found);
    if profile == Profile::HubEngine {
        for option in &facts.options {
            if let Some(rule) = engine::rule_of(&option.value) {
                if let Some(since) = option.since {
                    found.out(since);
                }
                found
                    .say(rule, State::OutOfSupport, Says::Unsupported(&option.value))
                    .since(option.since);
            }
        }
    }
}

/// Whether a change was undone by now.
fn is_undone(change: &Change, found: &mut Found<'_>) -> bool {
    change.undone.is_some_and(|undone| found.has_come(undone))
}

fn managed<'a>(change: &'a Change, profile: Profile, found: &mut Found<'a>) {
    if change.means == Means::Service || !found.has_come(change.at) {
        return;
    }
    let undone = is_undone(change, found);
    let out = |found: &mut Found<'a>| found.out(change.at);
    match change.kind {
        ChangeKind::ManagedObject if undone => {
            let says = Says::Reverted(change);
            found
                .say("M1", State::Supported, says)
                .of(Area::AddOns)
                .since(change.undone);
        }
        ChangeKind::ManagedObject => {
            let says = Says::Standing(change);
            found
                .say("M1", State::Unsupportable, says)
                .of(Area::AddOns)
                .since(change.at);
        }
        _ if undone => {}
        // The way to tune nodes.
        ChangeKind::Node if change.means == Means::DaemonSet => {}
        ChangeKind::Node => {
            out(found);
            found
                .say("M2", State::Unsupportable, Says::NodeChanged(change))
                .since(change.at);
            found
                .say("M4", State::Warning, Says::NotKept(change))
                .of(Area::Nodes)
                .since(change.at);
        }
        ChangeKind::SystemMetadata => {
            out(found);
            found
                .say("M3", State::OutOfSupport, Says::MetadataChanged(change))
                .since(change.at);
        }
        ChangeKind::NodeGroup if profile == Profile::Aks => {
            out(found);
            found
                .say("M5", State::OutOfSupport, Says::GroupChanged(change))
                .since(change.at);
        }
        ChangeKind::ManagedRules => {
            found
                .say("M6", State::OutOfSupport, Says::RulesChanged(change))
                .of(Area::Network)
                .since(change.at);
        }
        ChangeKind::Extension if profile == Profile::Aks => {
            out(found);
            found
                .say("M7", State::Unsupportable, Says::Extension(change))
                .since(change.at);
        }
        ChangeKind::BrokenByDaemonSet => {
            found
                .say("M8", State::OutOfSupport, Says::NodeBroken(change))
                .of(Area::Nodes)
                .since(change.at);
        }
        // On hosts of one's own these are the node itself.
        ChangeKind::NodeGroup | ChangeKind::Extension => {
            out(found);
            found
                .say("M2", State::Unsupportable, Says::NodeChanged(change))
                .since(change.at);
        }
    }
}

/// An engine's masters and nodes are the owner's: what is changed there is lost by the next upgrade.
fn owned<'a>(change: &'a Change, found: &mut Found<'a>) {
    if change.means == Means::Service || !found.has_come(change.at) || is_undone(change, found) {
        return;
    }
    if matches!(change.kind, ChangeKind::Node | ChangeKind::ManagedObject) {
        found
            .say("M10", State::Warning, Says::OwnerChanged(change))
            .of(Area::Nodes)
            .since(change.at);
    }
}

fn plugin<'a>(facts: &'a Facts, profile: Profile, found: &mut Found<'a>) {
    let plugin = facts.plugin;
    match plugin.value {
        Plugin::Own if profile == Profile::Aks => {
            found
                .say("M9", State::OutOfSupport, Says::Plugin(Plugin::Own))
                .of(Area::Network)
                .since(plugin.since);
        }
        Plugin::Own => {
            found
                .say("C2", State::OutOfSupport, Says::Plugin(Plugin::Own))
                .of(Area::Network)
                .since(plugin.since);
        }
        Plugin::Flannel | Plugin::Calico if profile.is_hybrid() => {
            found
                .say("C3", State::BestEffort, Says::Basic(plugin.value))
                .of(Area::Network)
                .since(plugin.since);
        }
        Plugin::Kubenet | Plugin::AzureCni | Plugin::Flannel | Plugin::Calico => {}
    }
}
