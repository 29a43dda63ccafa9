//! The cluster autoscaler's settings: `autoScalerProfile`, with AKS' names, formats and defaults.
//!
//! Always true: a profile written as texts ([`AutoscalerProfile::texts`]) is read back as the same profile;
//! the table of a cluster's properties checks with the same formats.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The permitted counts of a pool with an autoscaler, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolRange {
    /// Minimum; at most [`Self::max`].
    pub min: u32,
    /// Maximum.
    pub max: u32,
}

/// The choice of the pool that grows, if several pools would help.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Expander {
    /// A random one.
    #[default]
    Random,
    /// The one with the least unused resources on its new nodes.
    LeastWaste,
    /// The one whose new nodes take the most pods.
    MostPods,
    /// By the ConfigMap `kube-system/cluster-autoscaler-priority-expander`.
    Priority,
}

impl Expander {
    /// All, with AKS' names.
    const ALL: [(&'static str, Self); 4] = [
        ("random", Self::Random),
        ("least-waste", Self::LeastWaste),
        ("most-pods", Self::MostPods),
        ("priority", Self::Priority),
    ];
}

/// The settings. Times are in seconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AutoscalerProfile {
    /// `balance-similar-node-groups`: new nodes are distributed over similar pools.
    pub balance_similar: bool,
    /// `ignore-daemonsets-utilization`: requests of DaemonSets' pods do not count as utilization.
    pub ignore_daemons: bool,
    /// `expander`.
    pub expander: Expander,
    /// `max-empty-bulk-delete`: number of empty nodes that are removed at once.
    pub empty_at_once: u32,
    /// `max-graceful-termination-sec`: the longest time that pods may delay the removal of their node.
    pub graceful: u64,
    /// `max-node-provision-time`: a new node that is not ready after it is given up.
    pub provision: u64,
    /// `max-total-unready-percentage`, percent of all nodes: with more nodes not ready, nothing is changed.
    pub unready_share: u32,
    /// `ok-total-unready-count`: this number of nodes may be not ready in any case.
    pub unready_count: u32,
    /// `new-pod-scale-up-delay`: younger pods are ignored.
    pub new_pods: u64,
    /// `scan-interval`.
    pub scan: u64,
    /// `scale-down-delay-after-add`.
    pub after_add: u64,
    /// `scale-down-delay-after-delete`; by default the scan interval.
    pub after_delete: u64,
    /// `scale-down-delay-after-failure`.
    pub after_failure: u64,
    /// `scale-down-unneeded-time`.
    pub unneeded: u64,
    /// `scale-down-unready-time`.
    pub unready: u64,
    /// `scale-down-utilization-threshold`, thousandths: a node with this utilization or more stays.
    pub threshold: u32,
    /// `skip-nodes-with-local-storage`: a node with a pod that keeps data on it stays.
    pub skip_local_storage: bool,
    /// `skip-nodes-with-system-pods`: a node with a pod of `kube-system` without a disruption budget stays.
    pub skip_system_pods: bool,
}

impl Default for AutoscalerProfile {
    /// AKS' documented defaults. Where AKS' specification and guide disagree
    /// (`skip-nodes-with-local-storage`), the specification's.
    fn default() -> Self {
        Self {
            balance_similar: false,
            ignore_daemons: false,
            expander: Expander::Random,
            empty_at_once: 10,
            graceful: 600,
            provision: 15 * 60,
            unready_share: 45,
            unready_count: 3,
            new_pods: 0,
            scan: 10,
            after_add: 10 * 60,
            after_delete: 10,
            after_failure: 3 * 60,
            unneeded: 10 * 60,
            unready: 20 * 60,
            threshold: 500,
            skip_local_storage: true,
            skip_system_pods: true,
        }
    }
}

/// The name of the setting whose default is the scan interval.
const AFTER_DELETE: &str = "scale-down-delay-after-delete";

impl AutoscalerProfile {
    /// Whether all settings have their defaults.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// The profile with these settings, by AKS' names, and defaults for the others. `None`: a name is
    /// unknown, or a value is malformed.
    pub fn read<'t>(texts: impl IntoIterator<Item = (&'t str, &'t str)>) -> Option<Self> {
        let mut profile = Self::default();
        let mut after_delete = None;
        for (name, text) in texts {
            if name == AFTER_DELETE {
                after_delete = Some(duration(text)?);
            } else {
                profile.set(name, text)?;
            }
        }
        profile.after_delete = after_delete.unwrap_or(profile.scan);
        Some(profile)
    }

    fn set(&mut self, name: &str, text: &str) -> Option<()> {
        match name {
            "balance-similar-node-groups" => self.balance_similar = text.parse().ok()?,
            // Without effect: pods of DaemonSets end with their node.
            name if KEPT_SETTINGS.iter().any(|(kept, _)| *kept == name) => {
                let _flag: bool = text.parse().ok()?;
            }
            "ignore-daemonsets-utilization" => self.ignore_daemons = text.parse().ok()?,
            "expander" => {
                let mut all = Expander::ALL.iter();
                self.expander = all.find(|(known, _)| *known == text)?.1;
            }
            "max-empty-bulk-delete" => self.empty_at_once = count(text)?,
            "max-graceful-termination-sec" => self.graceful = u64::from(count(text)?),
            "max-node-provision-time" => self.provision = minutes(text)?,
            "max-total-unready-percentage" => self.unready_share = percentage(text)?,
            "ok-total-unready-count" => self.unready_count = count(text)?,
            "new-pod-scale-up-delay" => self.new_pods = duration(text)?,
            "scan-interval" => self.scan = seconds(text)?,
            "scale-down-delay-after-add" => self.after_add = minutes(text)?,
            "scale-down-delay-after-failure" => self.after_failure = minutes(text)?,
            "scale-down-unneeded-time" => self.unneeded = minutes(text)?,
            "scale-down-unready-time" => self.unready = minutes(text)?,
            "scale-down-utilization-threshold" => self.threshold = share(text)?,
            "skip-nodes-with-local-storage" => self.skip_local_storage = text.parse().ok()?,
            "skip-nodes-with-system-pods" => self.skip_system_pods = text.parse().ok()?,
            _ => return None,
        }
        Some(())
    }

    /// All settings with an effect by AKS' names, as [`Self::read`] accepts them.
    pub fn texts(&self) -> BTreeMap<&'static str, String> {
        let expander = Expander::ALL.iter().find(|(_, known)| *known == self.expander);
        let minutes = |seconds: u64| format!("{}m", seconds / 60);
        BTreeMap::from([
            ("balance-similar-node-groups", self.balance_similar.to_string()),
            ("ignore-daemonsets-utilization", self.ignore_daemons.to_string()),
            (
                "expander",
                expander.map_or("random", |(name, _)| *name).to_owned(),
            ),
            ("max-empty-bulk-delete", self.empty_at_once.to_string()),
            ("max-graceful-termination-sec", self.graceful.to_string()),
            ("max-node-provision-time", minutes(self.provision)),
            ("max-total-unready-percentage", self.unready_share.to_string()),
            ("ok-total-unready-count", self.unready_count.to_string()),
            ("new-pod-scale-up-delay", format!("{}s", self.new_pods)),
            ("scan-interval", format!("{}s", self.scan)),
            ("scale-down-delay-after-add", minutes(self.after_add)),
            (AFTER_DELETE, format!("{}s", self.after_delete)),
            ("scale-down-delay-after-failure", minutes(self.after_failure)),
            ("scale-down-unneeded-time", minutes(self.unneeded)),
            ("scale-down-unready-time", minutes(self.unready)),
            ("scale-down-utilization-threshold", share_text(self.threshold)),
            (
                "skip-nodes-with-local-storage",
                self.skip_local_storage.to_string(),
            ),
            ("skip-nodes-with-system-pods", self.skip_system_pods.to_string()),
        ])
    }
}

/// The only setting with an effect that is a boolean in AKS, and not a string.
pub const BOOLEAN_SETTING: &str = "ignore-daemonsets-utilization";

/// Settings that are kept without an effect, with AKS' defaults. They are booleans.
pub const KEPT_SETTINGS: [(&str, bool); 2] = [
    ("daemonset-eviction-for-empty-nodes", false),
    ("daemonset-eviction-for-occupied-nodes", true),
];

/// The longest permitted time of a setting: a week.
const LONGEST: u64 = 7 * 24 * 60 * 60;

/// A whole number without a sign, at most a million.
pub fn count(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number: u32 = text.parse().ok().filter(|_| digits)?;
    (number <= 1_000_000).then_some(number)
}

/// A whole percentage, `0` to `100`.
pub fn percentage(text: &str) -> Option<u32> {
    count(text).filter(|number| *number <= 100)
}

/// Whole minutes such as `10m`, in seconds; AKS accepts no other unit there.
pub fn minutes(text: &str) -> Option<u64> {
    let minutes = count(text.strip_suffix('m')?)?;
    Some(u64::from(minutes) * 60).filter(|seconds| *seconds <= LONGEST)
}

/// Whole seconds, at least 1, such as `10s` or `10`.
pub fn seconds(text: &str) -> Option<u64> {
    let seconds = u64::from(count(text.strip_suffix('s').unwrap_or(text))?);
    (1..=LONGEST).contains(&seconds).then_some(seconds)
}

/// A whole number with `s`, `m` or `h`, in seconds.
pub fn duration(text: &str) -> Option<u64> {
    let (number, factor) = match text.strip_suffix('s') {
        Some(number) => (number, 1),
        None => match text.strip_suffix('h') {
            Some(number) => (number, 3600),
            None => (text.strip_suffix('m')?, 60),
        },
    };
    Some(u64::from(count(number)?) * factor).filter(|seconds| *seconds <= LONGEST)
}

/// A fraction from `0` to `1` such as `0.5`, in thousandths.
pub fn share(text: &str) -> Option<u32> {
    let (whole, rest) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.len() > 1 || rest.len() > 9 || !digits(whole) || !digits(rest) || whole.len() + rest.len() == 0 {
        return None;
    }
    let thousandths: String = rest.chars().chain("000".chars()).take(3).collect();
    let whole: u32 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let sum = whole * 1000 + thousandths.parse::<u32>().ok()?;
    (sum <= 1000).then_some(sum)
}

fn share_text(thousandths: u32) -> String {
    let rest = format!("{:03}", thousandths % 1000);
    let rest = rest.trim_end_matches('0');
    if rest.is_empty() {
        (thousandths / 1000).to_string()
    } else {
        format!("{}.{rest}", thousandths / 1000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let other = AutoscalerProfile {
            balance_similar: true,
            expander: Expander::LeastWaste,
            threshold: 625,
            scan: 30,
            after_delete: 90,
            unneeded: 60,
            skip_local_storage: false,
            ..AutoscalerProfile::default()
        };
        for profile in [AutoscalerProfile::default(), other] {
            let texts = profile.texts();
            let read = AutoscalerProfile::read(texts.iter().map(|(name, text)| (*name, text.as_str())));
            assert_eq!(read.as_ref(), Some(&profile));
        }
    }

    #[test]
    fn what_is_not_said_is_as_aks_documents_it() {
        assert_eq!(AutoscalerProfile::read([]), Some(AutoscalerProfile::default()));
        let slow = AutoscalerProfile::read([("scan-interval", "45")]).unwrap();
        assert_eq!((slow.scan, slow.after_delete), (45, 45));
    }

    #[test]
    fn forms_are_those_of_aks() {
        assert_eq!(minutes("10m"), Some(600));
        assert_eq!(seconds("10"), Some(10));
        assert_eq!(duration("2h"), Some(7200));
        for (text, thousandths) in [("0.5", 500), ("1", 1000), ("0", 0), (".25", 250), ("0.1239", 123)] {
            assert_eq!(share(text), Some(thousandths), "{text}");
        }
        for wrong in ["10s", "10", "m", "-1m", "1.5m", "99999999m"] {
            assert_eq!(minutes(wrong), None, "{wrong}");
        }
        for wrong in ["", "0", "0s", "1m", "+1"] {
            assert_eq!(seconds(wrong), None, "{wrong}");
        }
        for wrong in ["", ".", "1.1", "-0.5", "0,5", "50%"] {
            assert_eq!(share(wrong), None, "{wrong}");
        }
        assert_eq!(percentage("101"), None);
        assert_eq!(AutoscalerProfile::read([("expander", "price")]), None);
        assert_eq!(AutoscalerProfile::read([("made-up", "1")]), None);
    }
}
