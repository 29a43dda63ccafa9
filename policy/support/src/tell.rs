//! Findings in words: what is so, what to do, and the fact it rests on.

use jiff::Timestamp;

use crate::{
    Advisory, Change, Plugin, Profile, Reason, State,
    clocks::{IDLE, STOPPED_NO_UPDATES, STOPPED_UNSUPPORTED},
    find::{Finding, Part, Says},
};

/// What is said of a finding.
struct Words {
    sentence: String,
    remedy: String,
    fact: String,
}

fn words(sentence: impl Into<String>, remedy: impl Into<String>, fact: impl Into<String>) -> Words {
    Words {
        sentence: sentence.into(),
        remedy: remedy.into(),
        fact: fact.into(),
    }
}

/// The day of an instant, in UTC.
fn day(at: Timestamp) -> String {
    let text = at.to_string();
    text.get(..10).unwrap_or(&text).to_owned()
}

fn days(wait: std::time::Duration) -> u64 {
    wait.as_secs() / (24 * 60 * 60)
}

fn who(change: &Change) -> &str {
    change.who.as_deref().unwrap_or("somebody unknown")
}

fn changed(change: &Change) -> String {
    format!("{} was changed by {}", change.what, who(change))
}

fn part(part: Part<'_>) -> String {
    match part {
        Part::ControlPlane => "the control plane".to_owned(),
        Part::Pool(name) => format!("the pool {name}"),
    }
}

fn upgrade(of: Part<'_>) -> String {
    match of {
        Part::ControlPlane => "upgrade the cluster: az aks get-upgrades, then az aks upgrade".to_owned(),
        Part::Pool(name) => format!("upgrade the pool: az aks nodepool upgrade --name {name}"),
    }
}

fn plugin(plugin: Plugin) -> &'static str {
    match plugin {
        Plugin::Kubenet => "kubenet",
        Plugin::AzureCni => "Azure CNI",
        Plugin::Flannel => "Flannel",
        Plugin::Calico => "Calico",
        Plugin::Own => "the tenant's own CNI plug-in",
    }
}

fn has_flaw(advisory: &Advisory) -> String {
    format!("{} has {}", advisory.component, advisory.id)
}

fn fix(advisory: &Advisory) -> String {
    if advisory.remedy.is_empty() {
        "wait for a fix, or reduce what can reach the component".to_owned()
    } else {
        format!("take {}", advisory.remedy)
    }
}

impl Finding<'_> {
    /// The reason that it is.
    pub(crate) fn tell(&self, profile: Profile) -> Reason {
        let Words {
            sentence,
            remedy,
            fact,
        } = self.words(profile);
        Reason {
            rule: self.rule,
            state: self.state,
            area: self.area,
            sentence,
            remedy,
            by: self.by,
            fact,
            since: self.since,
        }
    }

    fn words(&self, profile: Profile) -> Words {
        match self.says {
            Says::VersionEnds(..)
            | Says::VersionEnded(..)
            | Says::StillWorks(_)
            | Says::NoUpdates(_)
            | Says::Lags(_)
            | Says::PlatformEnds
            | Says::PlatformEnded
            | Says::EngineBehind(_)
            | Says::Alpha(..)
            | Says::Preview(_)
            | Says::ImageOld(..) => self.of_versions(profile),
            Says::Reverted(_)
            | Says::Standing(_)
            | Says::NodeChanged(_)
            | Says::NotKept(_)
            | Says::MetadataChanged(_)
            | Says::GroupChanged(_)
            | Says::RulesChanged(_)
            | Says::Extension(_)
            | Says::NodeBroken(_)
            | Says::OwnerChanged(_)
            | Says::Plugin(_)
            | Says::Basic(_)
            | Says::Unsupported(_) => self.of_changes(profile),
            Says::Problem(_)
            | Says::Failed(_)
            | Says::Behind
            | Says::Repairing(_)
            | Says::Fix(_)
            | Says::Young(_)
            | Says::Guidance(_)
            | Says::Foreign(_)
            | Says::Reboots(_)
            | Says::TooSmall(..)
            | Says::Issue(_) => self.of_running(),
            _ => self.of_course(profile),
        }
    }

    fn of_versions(&self, profile: Profile) -> Words {
        match self.says {
            Says::VersionEnds(of, minor) => words(
                format!(
                    "Kubernetes {minor} of {} goes out of support on {}",
                    part(of),
                    day(self.by.unwrap_or(Timestamp::MAX))
                ),
                upgrade(of),
                format!("{} runs Kubernetes {minor}", part(of)),
            ),
            Says::VersionEnded(of, minor, end) => words(
                format!(
                    "Kubernetes {minor} of {} is out of support since {}; whoever asks for support is asked to upgrade first",
                    part(of),
                    day(end)
                ),
                upgrade(of),
                format!("{} runs Kubernetes {minor}", part(of)),
            ),
            Says::StillWorks(minor) => words(
                format!(
                    "a cluster of Kubernetes {minor} goes on working and can be scaled, each time with a warning"
                ),
                "",
                format!("Kubernetes {minor} is deprecated"),
            ),
            Says::NoUpdates(minor) => words(
                format!("there are no more updates of Kubernetes {minor} and of its node images"),
                "upgrade to a minor that is supported",
                format!("Kubernetes {minor} is deprecated"),
            ),
            Says::Lags(minor) => words(
                format!("Kubernetes {minor} is released, and this stamp does not have it yet"),
                "az aks get-versions says what it has; a newer release of the stamp brings more",
                format!("the stamp has no Kubernetes {minor}"),
            ),
            Says::PlatformEnds | Says::PlatformEnded => words(
                match self.by {
                    Some(end) => format!("the platform's release goes out of support on {}", day(end)),
                    None => {
                        "the platform's release is out of support, and with it all clusters on it".to_owned()
                    }
                },
                "the operator updates the stamp",
                "the release of the stamp's platform",
            ),
            Says::EngineBehind(count) => words(
                format!(
                    "the engine is {count} releases behind; the newest and the one before it are supported"
                ),
                "update the engine to the release that goes with the stamp's update",
                format!("{count} releases of the engine are newer"),
            ),
            Says::Alpha(gate, sandbox) => words(
                if sandbox {
                    format!("the alpha feature {gate} is on: a sandbox may have it, production may not")
                } else {
                    format!("the alpha feature {gate} is on, and only stable and beta features are supported")
                },
                "turn the feature gate off, or keep the cluster for trying things out",
                format!("the feature gate {gate} is on"),
            ),
            Says::Preview(feature) => words(
                match profile {
                    Profile::HubEngine => format!("the preview feature {feature} is not supported"),
                    _ => format!(
                        "the preview feature {feature} is supported as well as it goes, in business hours, and not for production"
                    ),
                },
                "do without the preview feature in production",
                format!("the preview feature {feature} is used"),
            ),
            Says::ImageOld(pool, made) => words(
                format!(
                    "the pool {pool} has nodes of {}, and a newer node image is there since {}",
                    day(made),
                    day(self.since.unwrap_or(made))
                ),
                format!(
                    "az aks nodepool upgrade --node-image-only --name {pool}, or let a channel do it: az aks update --node-os-upgrade-channel NodeImage"
                ),
                format!("the oldest node of {pool} was made on {}", day(made)),
            ),
            _ => words("", "", ""),
        }
    }

    fn of_changes(&self, profile: Profile) -> Words {
        match self.says {
            Says::Reverted(change) => words(
                format!(
                    "{} is the service's; the change by {} was reverted",
                    change.what,
                    who(change)
                ),
                "",
                changed(change),
            ),
            Says::Standing(change) => words(
                format!(
                    "{} is the service's, and was changed by {}",
                    change.what,
                    who(change)
                ),
                "take the change back; the service reverts it as well",
                changed(change),
            ),
            Says::NodeChanged(change) => words(
                format!(
                    "{} was changed on a node past Kubernetes, by {}",
                    change.what,
                    who(change)
                ),
                "have the node made anew: az vmss reimage, or az aks nodepool upgrade --node-image-only; tune nodes with a DaemonSet",
                changed(change),
            ),
            Says::NotKept(change) => words(
                format!(
                    "what was changed on {} does not survive an upgrade, a scaling, an update or a reboot",
                    change.what
                ),
                "put it into a DaemonSet, or into the pool's own settings",
                changed(change),
            ),
            Says::MetadataChanged(change) => words(
                format!(
                    "{} was made by the service, and was changed by {}",
                    change.what,
                    who(change)
                ),
                "put the label or tag back as it was",
                changed(change),
            ),
            Says::GroupChanged(change) => words(
                format!(
                    "{} in the group of the nodes was changed by {}",
                    change.what,
                    who(change)
                ),
                "take the change back; change pools through az aks",
                changed(change),
            ),
            Says::RulesChanged(change) => words(
                format!(
                    "the rules of {} are the service's, and were changed by {}",
                    change.what,
                    who(change)
                ),
                "take the change back; security groups are for subnets of your own",
                changed(change),
            ),
            Says::Extension(change) => words(
                format!("the machine extension {} is forbidden on nodes", change.what),
                "remove the extension and have the node made anew",
                changed(change),
            ),
            Says::NodeBroken(change) => words(
                format!(
                    "the DaemonSet {} broke a node, which is its owner's to repair",
                    change.what
                ),
                "change or remove the DaemonSet",
                changed(change),
            ),
            Says::OwnerChanged(change) => words(
                format!(
                    "{} was changed by its owner; the next upgrade or scaling overwrites it",
                    change.what
                ),
                "keep a copy of it before an upgrade",
                changed(change),
            ),
            Says::Plugin(of) => words(
                format!("pods' network comes from {}: it is the tenant's", plugin(of)),
                "ask the vendor of the plug-in about its network; everything else of the cluster is supported",
                "networkPlugin is none",
            ),
            Says::Basic(of) => words(
                format!(
                    "of {} only installation and configuration are supported",
                    plugin(of)
                ),
                "",
                format!("pods' network comes from {}", plugin(of)),
            ),
            Says::Unsupported(path) => words(
                format!("'{path}' is not supported on {}", profile.document()),
                format!("leave '{path}' out of the definition and deploy again"),
                format!("the definition has {path}"),
            ),
            _ => words("", "", ""),
        }
    }

    fn of_running(&self) -> Words {
        match self.says {
            Says::Problem(problem) => words(
                format!("the service repairs it: {problem}"),
                "landfall status and landfall events say more",
                "the cluster has a problem",
            ),
            Says::Failed(what) => words(
                format!("the last request failed, and the service goes on trying: {what}"),
                "repeat the request, or go back with az aks operation-abort",
                "the last operation failed",
            ),
            Says::Behind => words(
                "the backup of etcd is more than 30 minutes behind: the service's to repair",
                "see where backups are kept: landfall backup list",
                "the backup is behind",
            ),
            Says::Repairing(what) => words(
                format!("a machine is being repaired: {what}"),
                "",
                "a repair is under way",
            ),
            Says::Fix(advisory) => words(
                format!("{}, and a fix is older than 30 days", has_flaw(advisory)),
                fix(advisory),
                has_flaw(advisory),
            ),
            Says::Young(advisory) => words(
                format!("{}; its fix is younger than 30 days", has_flaw(advisory)),
                fix(advisory),
                has_flaw(advisory),
            ),
            Says::Guidance(advisory) => words(
                format!(
                    "{}; all affected clusters are patched or told what to do",
                    has_flaw(advisory)
                ),
                fix(advisory),
                has_flaw(advisory),
            ),
            Says::Foreign(advisory) => words(
                format!("{}, which is no component of the service", has_flaw(advisory)),
                "ask its vendor",
                has_flaw(advisory),
            ),
            Says::Reboots(reboot) => words(
                format!(
                    "the node {} is started again on {}: {}",
                    reboot.node, reboot.at, reboot.why
                ),
                "",
                "the reboot was announced",
            ),
            Says::TooSmall(members, nodes) => words(
                format!(
                    "it has {members} masters and {nodes} agents; production needs at least three of each"
                ),
                "deploy it with three masters and three agents",
                format!("{members} masters, {nodes} agents"),
            ),
            Says::Issue(issue) => words(
                format!("it has the known issue {}: {}", issue.id, issue.title),
                if issue.fixed_in.is_empty() {
                    issue.workaround.clone()
                } else {
                    format!("{}; {} ends it", issue.workaround, issue.fixed_in)
                },
                format!("the detector of {} found it", issue.id),
            ),
            _ => words("", "", ""),
        }
    }

    fn of_course(&self, profile: Profile) -> Words {
        match self.says {
            Says::Kept(end) => words(
                format!(
                    "a stopped cluster is kept for 12 months, until {}; then it would be deleted",
                    day(end)
                ),
                "start it, or save what is in it before then: landfall backup restore --as",
                "the cluster is stopped",
            ),
            Says::Deallocated => words(
                match profile {
                    Profile::Aks => format!(
                        "all nodes were deallocated by hand, which is no way to stop a cluster; after {} days it would be stopped",
                        days(IDLE)
                    ),
                    _ => "all nodes were deallocated by hand, which is no way to stop a cluster".to_owned(),
                },
                "start the nodes (az vmss start), or stop the cluster with az aks stop",
                "all nodes are deallocated",
            ),
            Says::StopsIdle(running) => words(
                match running {
                    Some(_) => format!(
                        "no node is Ready and no machine of one runs; after {} days it would be stopped",
                        days(IDLE)
                    ),
                    None => format!(
                        "no node is Ready; a cluster of which no node's machine runs either would be stopped after {} days",
                        days(IDLE)
                    ),
                },
                "see what keeps the nodes from being Ready: landfall status",
                "no node is Ready",
            ),
            Says::Archivable => words(
                "out of support for 30 days and more, its control plane may be archived; a PUT that brings it back into support restores it",
                "bring it back into support",
                "it is out of support for 30 days and more",
            ),
            Says::Archived => words(
                "its control plane is archived",
                "any PUT that brings it back into support restores it, such as an upgrade",
                "the control plane is archived",
            ),
            Says::StoppedLong(_) if self.state == State::Warning => words(
                format!(
                    "a control plane that is stopped for {} days is out of support",
                    days(STOPPED_UNSUPPORTED)
                ),
                "start the cluster",
                "the cluster is stopped",
            ),
            Says::StoppedLong(since) => words(
                format!(
                    "the control plane is out of support: it is stopped since {}",
                    day(since)
                ),
                "start the cluster",
                "the cluster is stopped",
            ),
            Says::NoLatest => words(
                "stopped for more than 60 days, it cannot be updated to the latest version",
                "start the cluster and upgrade it to an earlier version",
                "the cluster is stopped",
            ),
            Says::NoUpdate => words(
                format!(
                    "stopped for more than {} days, it cannot be updated any more",
                    days(STOPPED_NO_UPDATES)
                ),
                "make a new cluster and move what is in it",
                "the cluster is stopped",
            ),
            Says::Disconnecting(last) => words(
                format!(
                    "the stamp has not reached its registration since {}; upgrades and scaling would stop 30 days after that",
                    day(last)
                ),
                "the operator connects the stamp",
                "the last connection",
            ),
            Says::Disconnected(last) => words(
                format!(
                    "the stamp has not reached its registration since {}: no upgrades, no scaling, no new machines until it does; workloads go on",
                    day(last)
                ),
                "the operator connects the stamp; everything comes back by itself then",
                "the last connection",
            ),
            Says::AirGapped => words(
                "the stamp is air-gapped: it has no registration to reach, and everything works from what it has",
                "",
                "the stamp has no connection by design",
            ),
            Says::Suspended(end) => words(
                if end == Timestamp::MAX {
                    "the subscription is suspended: its clusters would be stopped at once, and deleted after 90 days".to_owned()
                } else {
                    format!(
                        "the subscription is suspended: its clusters would be stopped at once, and deleted on {}",
                        day(end)
                    )
                },
                "the operator reinstates the subscription: landfall subscription enable",
                "the subscription is suspended",
            ),
            Says::Deleted => words(
                "the subscription was deleted, and its clusters with it",
                "",
                "the subscription is deleted",
            ),
            Says::Leaving(_, deleted) => words(
                "a cluster whose subscription is suspended or deleted is out of support after 60 days",
                reinstate(deleted),
                "the subscription is suspended or deleted",
            ),
            Says::Left(deleted) => words(
                "its subscription is suspended or deleted for more than 60 days",
                reinstate(deleted),
                "the subscription is suspended or deleted",
            ),
            _ => words("", "", ""),
        }
    }
}

fn reinstate(deleted: bool) -> &'static str {
    if deleted {
        "a deleted subscription's connection cannot be recovered: deploy anew"
    } else {
        "the operator reinstates the subscription: landfall subscription enable"
    }
}
