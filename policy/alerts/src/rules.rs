//! The rules: one each for what an operator has to see to.

use std::time::Duration;

use control_records::alert::{AlertCluster, Severity};
use jiff::{SignedDuration, Timestamp};

use crate::{AgentFacts, Facts};

/// A rule. Names stay: dashboards and people filter by them.
#[derive(Debug)]
pub struct Rule {
    /// Its name.
    pub name: &'static str,
    /// What closes an alert of it, for people.
    pub closes: &'static str,
    /// The same for many clusters at once: what is so of them, behind their number.
    pub of_many: &'static str,
    /// What it finds; `None` where its facts are not known. Pure.
    pub find: fn(&Facts, Timestamp) -> Option<Vec<Finding>>,
}

/// Whether a finding is bad enough to open an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// It opens one.
    Opens,
    /// It keeps one open that is.
    Holds,
}

/// What a rule has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What it is about, as a part of the alert's name: letters, digits, dots and dashes; empty where the rule has one subject.
    pub subject: String,
    /// The cluster that it is about; `None`: the stamp.
    pub cluster: Option<AlertCluster>,
    /// How bad it is.
    pub severity: Severity,
    /// Whether it opens an alert.
    pub level: Level,
    /// What is so.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
}

/// How long after its time a renewal may take before it is missed.
const LATE_RENEWAL: SignedDuration = SignedDuration::from_hours(7 * 24);
/// With so much of its life left, or less, a certificate is a critical alert.
const SHORT_LIFE: SignedDuration = SignedDuration::from_hours(14 * 24);
/// Hundredths of the disk that are free: an alert opens below, is critical below, and closes from there on.
const DISK: (u64, u64, u64) = (10, 5, 15);
/// How long a backup may be behind; after that, how long before it is critical.
const BEHIND: (SignedDuration, SignedDuration) =
    (SignedDuration::from_mins(5), SignedDuration::from_mins(30));
/// Age of a node image from which on it is told: images are built weekly to monthly.
const IMAGE_AGE: SignedDuration = SignedDuration::from_hours(35 * 24);
/// Time of a commit of the store: an alert opens from, and closes below.
const COMMIT: (Duration, Duration) = (Duration::from_millis(500), Duration::from_millis(200));
/// Silent agents: an alert opens from so many hundredths on, and closes below; and how many there are at least.
const SILENT: (u64, u64, u64) = (20, 10, 3);

/// All rules.
pub const RULES: &[Rule] = &[
    Rule {
        name: "certificate-life",
        closes: "more than a third of its life is left",
        of_many: "have a certificate with less than a third of its life left",
        find: certificates,
    },
    Rule {
        name: "host-disk",
        closes: "15 % of the disk are free",
        of_many: "have too little disk",
        find: disk,
    },
    Rule {
        name: "backup-lag",
        closes: "the backup has all changes",
        of_many: "have a backup that is behind",
        find: backups,
    },
    Rule {
        name: "store-copy",
        closes: "a copy of the store has all changes",
        of_many: "are in no copy of the store",
        find: copies,
    },
    Rule {
        name: "store-latency",
        closes: "commits take less than 200 ms on average",
        of_many: "wait for the store",
        find: latency,
    },
    Rule {
        name: "image-age",
        closes: "there is a younger image of that version, or no cluster uses it",
        of_many: "use an old node image",
        find: images,
    },
    Rule {
        name: "version-support",
        closes: "the cluster runs a version that is offered",
        of_many: "run a version that is not offered any more",
        find: versions,
    },
    Rule {
        name: "repair-held",
        closes: "repairs go on, or the machines are well",
        of_many: "have machines whose repair is held up",
        find: repairs,
    },
    Rule {
        name: "version-lag",
        closes: "its machines have the configurations of this release",
        of_many: "have machines with the configurations of an earlier release",
        find: release,
    },
    Rule {
        name: "agents-silent",
        closes: "fewer than 10 % of the agents are silent",
        of_many: "have silent agents",
        find: agents,
    },
];

fn of_stamp(severity: Severity, level: Level, message: String, remedy: &str) -> Finding {
    Finding {
        subject: String::new(),
        cluster: None,
        severity,
        level,
        message,
        remedy: remedy.to_owned(),
    }
}

fn of_cluster(cluster: &AlertCluster, severity: Severity, message: String, remedy: String) -> Finding {
    Finding {
        subject: cluster.uid.clone(),
        cluster: Some(cluster.clone()),
        severity,
        level: Level::Opens,
        message,
        remedy,
    }
}

/// Days, for people.
fn days(left: SignedDuration) -> i64 {
    left.as_hours() / 24
}

/// One for each owner and certificate. It is told with a third of its life left; what renews itself later than that is told where the renewal is missed.
fn certificates(facts: &Facts, now: Timestamp) -> Option<Vec<Finding>> {
    let due = facts.certificates.as_ref()?.iter().filter_map(|certificate| {
        let (issued, expires) = (certificate.issued, certificate.expires);
        let third = expires.duration_since(issued) / 3;
        let late = certificate.renews.map(|renews| renews.checked_add(LATE_RENEWAL));
        let late = late.map(|late| late.unwrap_or(Timestamp::MAX));
        let opens = expires
            .checked_sub(third)
            .unwrap_or(Timestamp::MIN)
            .max(late.unwrap_or(Timestamp::MIN));
        // One that is so short that its renewal is late only after its end is told at its end.
        if now < opens.min(expires) {
            return None;
        }
        let left = expires.duration_since(now);
        let name = &certificate.name;
        let message = if left.is_positive() {
            format!("the certificate {name} ends at {expires}, in {} days", days(left))
        } else {
            format!("the certificate {name} has ended at {expires}")
        };
        let subject = match &certificate.cluster {
            Some(cluster) => format!("{}.{name}", cluster.uid),
            None => name.clone(),
        };
        Some(Finding {
            subject,
            cluster: certificate.cluster.clone(),
            severity: if left > SHORT_LIFE {
                Severity::Warning
            } else {
                Severity::Critical
            },
            level: Level::Opens,
            message,
            remedy: certificate.remedy.to_owned(),
        })
    });
    Some(due.collect())
}

fn disk(facts: &Facts, _: Timestamp) -> Option<Vec<Finding>> {
    let disk = facts.disk.filter(|disk| disk.total > 0)?;
    let hundredths = u128::from(disk.free) * 100 / u128::from(disk.total);
    let (opens, critical, closes) = DISK;
    if hundredths >= u128::from(closes) {
        return Some(Vec::new());
    }
    let level = if hundredths < u128::from(opens) {
        Level::Opens
    } else {
        Level::Holds
    };
    let severity = if hundredths < u128::from(critical) {
        Severity::Critical
    } else {
        Severity::Warning
    };
    let message = format!(
        "{hundredths} % of the disk with the stamp's files are free, {} GiB",
        disk.free >> 30
    );
    let remedy = "make room: 'landfall image list' shows node images that no cluster uses, 'landfall unknown list' what is in no record; or give \
                  the disk more room";
    Some(vec![of_stamp(severity, level, message, remedy)])
}

fn backups(facts: &Facts, now: Timestamp) -> Option<Vec<Finding>> {
    let clusters = facts.clusters.as_ref()?.iter().filter(|cluster| !cluster.rests);
    let behind = clusters.filter_map(|fact| {
        let since = fact.backup_behind?;
        let lag = now.duration_since(since);
        let (opens, critical) = BEHIND;
        (lag >= opens).then(|| {
            let severity = if lag >= critical { Severity::Critical } else { Severity::Warning };
            let remedy = format!(
                "landfall backup list says why; look at the place of the backups, and at 'landfall logs {}/{} etcd-backup'",
                fact.cluster.resource_group, fact.cluster.name
            );
            of_cluster(
                &fact.cluster,
                severity,
                format!("the backup is behind the cluster since {since}"),
                remedy,
            )
        })
    });
    Some(behind.collect())
}

fn copies(facts: &Facts, _: Timestamp) -> Option<Vec<Finding>> {
    let problem = facts.store.as_ref()?.copy_problem.clone();
    let remedy = "look at the place of the backups (landfall store show), then: landfall store backup";
    let found = problem.map(|problem| of_stamp(Severity::Critical, Level::Opens, problem, remedy));
    Some(found.into_iter().collect())
}

fn latency(facts: &Facts, _: Timestamp) -> Option<Vec<Finding>> {
    let (opens, closes) = COMMIT;
    // Where nothing is written, nothing waits.
    let commit = facts.store.as_ref()?.commit.unwrap_or_default();
    if commit < closes {
        return Some(Vec::new());
    }
    let level = if commit >= opens {
        Level::Opens
    } else {
        Level::Holds
    };
    let message = format!("a commit of the store takes {} ms on average", commit.as_millis());
    let remedy = "see what else writes to the disk with the stamp's files, or put them on a faster one";
    Some(vec![of_stamp(Severity::Warning, level, message, remedy)])
}

fn images(facts: &Facts, now: Timestamp) -> Option<Vec<Finding>> {
    let old = facts.images.as_ref()?.iter().filter_map(|image| {
        let age = now.duration_since(image.built_at);
        (age > IMAGE_AGE).then(|| Finding {
            subject: image.version.clone(),
            cluster: None,
            severity: Severity::Warning,
            level: Level::Opens,
            message: format!(
                "the newest node image of Kubernetes {} is {} days old",
                image.version,
                days(age)
            ),
            remedy: format!(
                "make a younger image of Kubernetes {0}: landfall image renew --kubernetes {0}, or bring one: landfall image import FILE; nodes get it \
                 with az aks nodepool upgrade --node-image-only, or by their channel",
                image.version
            ),
        })
    });
    Some(old.collect())
}

fn versions(facts: &Facts, _: Timestamp) -> Option<Vec<Finding>> {
    let oldest = facts.oldest_offered?;
    let outside = facts.clusters.as_ref()?.iter().filter_map(|fact| {
        let runs = fact.version?;
        ((runs.major, runs.minor) < (oldest.major, oldest.minor)).then(|| {
            let remedy = format!(
                "upgrade it: az aks upgrade --resource-group {} --name {} --kubernetes-version VERSION; az aks get-upgrades shows to what",
                fact.cluster.resource_group, fact.cluster.name
            );
            of_cluster(
                &fact.cluster,
                Severity::Warning,
                format!("the cluster runs Kubernetes {runs}, and the oldest minor that is offered is {}", oldest.minor_name()),
                remedy,
            )
        })
    });
    Some(outside.collect())
}

fn repairs(facts: &Facts, _: Timestamp) -> Option<Vec<Finding>> {
    let clusters = facts.clusters.as_ref()?.iter().filter(|cluster| !cluster.rests);
    let held = clusters.filter_map(|fact| {
        let first = fact.repairs_held.first()?;
        let more = match fact.repairs_held.len() - 1 {
            0 => String::new(),
            more => format!(", and {more} more"),
        };
        let remedy = format!(
            "landfall status and landfall events {}/{} say what it waits for; many machines that are silent at once are a fault of the host or its network",
            fact.cluster.resource_group, fact.cluster.name
        );
        Some(of_cluster(
            &fact.cluster,
            Severity::Warning,
            format!("a repair is held up: {first}{more}"),
            remedy,
        ))
    });
    Some(held.collect())
}

fn release(facts: &Facts, _: Timestamp) -> Option<Vec<Finding>> {
    let clusters = facts.clusters.as_ref()?.iter().filter(|cluster| !cluster.rests);
    let behind = clusters.filter_map(|fact| {
        let waits = fact.release_waits.as_ref()?;
        Some(of_cluster(
            &fact.cluster,
            Severity::Information,
            format!("machines of the cluster are configured by an earlier release: {waits}"),
            "it goes on in the cluster's window 'default'; landfall maintenance status shows when, landfall maintenance resume lets it".to_owned(),
        ))
    });
    Some(behind.collect())
}

fn agents(facts: &Facts, _: Timestamp) -> Option<Vec<Finding>> {
    let AgentFacts { expected, silent } = facts.agents?;
    let (opens, closes, least) = SILENT;
    let hundredths = silent.saturating_mul(100) / expected.max(1);
    if silent < least || hundredths < closes {
        return Some(Vec::new());
    }
    let level = if hundredths >= opens {
        Level::Opens
    } else {
        Level::Holds
    };
    let message = format!("{silent} of {expected} agents are silent");
    let remedy = "nothing is repaired while so many are silent: look at this host's load, memory and firewall (landfall doctor), and at landfall logs";
    Some(vec![of_stamp(Severity::Critical, level, message, remedy)])
}
