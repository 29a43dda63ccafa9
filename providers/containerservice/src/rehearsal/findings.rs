//! The obstacles of an upgrade, from all that was read of a cluster. Pure.

use std::collections::BTreeSet;

use cluster_versions::Version;
use serde_json::{Value, json};

use super::seen::{Budget, Part, Pod, Seen, Use, Volume, Webhook};

/// The number of names in a message; the others are counted.
const NAMES: usize = 3;

/// What a finding means for the upgrade, worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Weight {
    /// The upgrade is refused.
    Refused,
    /// Nodes are not drained within their drain timeout, and are given up.
    HoldsUp,
    /// Pods or data are lost.
    Loses,
    /// A part could not be read.
    Unknown,
    /// Information without an effect on the upgrade.
    Note,
}

impl Weight {
    /// As in answers.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "Refused",
            Self::HoldsUp => "HoldsUp",
            Self::Loses => "Loses",
            Self::Unknown => "Unknown",
            Self::Note => "Note",
        }
    }
}

/// An obstacle of an upgrade.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) weight: Weight,
    /// The kind of obstacle, for programs.
    pub(crate) kind: &'static str,
    pub(crate) subject: String,
    pub(crate) message: String,
    /// The remedy.
    pub(crate) next: String,
}

impl Finding {
    /// As in answers.
    pub(crate) fn answer(&self) -> Value {
        json!({
            "weight": self.weight.as_str(),
            "kind": self.kind,
            "subject": self.subject,
            "message": self.message,
            "next": self.next,
        })
    }
}

/// The requested upgrade, and the state of the cluster.
pub(crate) struct Facts<'a> {
    /// The requested version.
    pub(crate) target: Version,
    /// Whether the control plane is upgraded to another minor release.
    pub(crate) minor: bool,
    /// Whether an override permits upgrades despite APIs in use.
    pub(crate) forced: bool,
    /// Names of the nodes that would be replaced.
    pub(crate) nodes: &'a BTreeSet<String>,
    /// Deprecated APIs in use.
    pub(crate) uses: &'a Part<Vec<Use>>,
    pub(crate) seen: &'a Seen,
    /// The limits that the additional nodes would exceed, for people.
    pub(crate) excesses: &'a [String],
}

/// Whether a version lacks an API in use.
pub(crate) fn is_removed(used: &Use, target: Version) -> bool {
    used.removed_in <= (target.major, target.minor)
}

/// All obstacles, worst first.
pub(crate) fn findings(facts: &Facts<'_>) -> Vec<Finding> {
    let mut all = Vec::new();
    apis(facts, &mut all);
    for excess in facts.excesses {
        all.push(Finding {
            weight: Weight::Refused,
            kind: "Room",
            subject: String::new(),
            message: excess.clone(),
            next: "give the pools a smaller maxSurge, or make room".to_owned(),
        });
    }
    let seen = facts.seen;
    match &seen.pods {
        Ok(pods) => {
            let moving: Vec<&Pod> = pods
                .iter()
                .filter(|pod| facts.nodes.contains(&pod.node))
                .collect();
            budgets(&moving, &seen.budgets, &mut all);
            bare(&moving, &mut all);
            pinned(&moving, &mut all);
            volumes(&moving, &seen.volumes, &mut all);
        }
        Err(why) => unknown("Pods", why, &mut all),
    }
    hooks(seen, &mut all);
    all.sort_by(|one, other| {
        let key = |finding: &Finding| (finding.weight, finding.kind, finding.subject.clone());
        key(one).cmp(&key(other))
    });
    all
}

fn unknown(kind: &'static str, why: &str, all: &mut Vec<Finding>) {
    all.push(Finding {
        weight: Weight::Unknown,
        kind,
        subject: String::new(),
        message: format!("it could not be looked at: {why}"),
        next: "see that the API server answers (landfall status), then ask again".to_owned(),
    });
}

fn apis(facts: &Facts<'_>, all: &mut Vec<Finding>) {
    let uses = match facts.uses {
        Ok(uses) => uses,
        Err(why) => return unknown("DeprecatedApi", why, all),
    };
    for used in uses {
        let (major, minor) = used.removed_in;
        let gone = is_removed(used, facts.target);
        all.push(Finding {
            weight: if gone && facts.minor && !facts.forced {
                Weight::Refused
            } else if gone {
                Weight::Loses
            } else {
                Weight::Note
            },
            kind: "DeprecatedApi",
            subject: used.api.clone(),
            message: format!(
                "it was used within twelve hours ({} requests since the API server was started), and is not in {major}.{minor} any more",
                used.requests
            ),
            next: "find who uses it (its user agent is in audit logs and in managedFields of objects) and let it use a newer version"
                .to_owned(),
        });
    }
}

/// The number of pods, and the names of the first ones.
fn names<'p>(pods: impl Iterator<Item = &'p &'p Pod>) -> (usize, String) {
    let all: Vec<String> = pods
        .map(|pod| format!("{}/{}", pod.namespace, pod.name))
        .collect();
    let first = all.iter().take(NAMES).cloned().collect::<Vec<_>>().join(", ");
    let more = all.len().saturating_sub(NAMES);
    let text = if more > 0 {
        format!("{first} and {more} more")
    } else {
        first
    };
    (all.len(), text)
}

/// Whether a disruption budget covers a pod.
pub(crate) fn covers(budget: &Budget, pod: &Pod) -> bool {
    pod.namespace == budget.namespace && selects(&budget.selector, &pod.labels)
}

fn budgets(moving: &[&Pod], budgets: &Part<Vec<Budget>>, all: &mut Vec<Finding>) {
    let budgets = match budgets {
        Ok(budgets) => budgets,
        Err(why) => return unknown("DisruptionBudget", why, all),
    };
    for budget in budgets.iter().filter(|budget| budget.allowed <= 0) {
        let (count, pods) = names(moving.iter().filter(|pod| covers(budget, pod)));
        if count == 0 {
            continue;
        }
        all.push(Finding {
            weight: Weight::HoldsUp,
            kind: "DisruptionBudget",
            subject: format!("{}/{}", budget.namespace, budget.name),
            message: format!("it allows no disruption now, and covers pods that have to move: {pods}"),
            next: format!(
                "give it more replicas or let it allow one: kubectl -n {} describe pdb {}",
                budget.namespace, budget.name
            ),
        });
    }
    // Kubernetes never evicts a pod that two budgets cover.
    let two = |pod: &&&Pod| budgets.iter().filter(|budget| covers(budget, pod)).count() > 1;
    for pod in moving.iter().filter(two) {
        all.push(Finding {
            weight: Weight::HoldsUp,
            kind: "DisruptionBudget",
            subject: format!("{}/{}", pod.namespace, pod.name),
            message: "more than one disruption budget covers the pod, which Kubernetes never evicts then"
                .to_owned(),
            next: format!("leave it to one of them: kubectl -n {} get pdb", pod.namespace),
        });
    }
}

fn bare(moving: &[&Pod], all: &mut Vec<Finding>) {
    for pod in moving.iter().filter(|pod| !pod.owned) {
        all.push(Finding {
            weight: Weight::Loses,
            kind: "BarePod",
            subject: format!("{}/{}", pod.namespace, pod.name),
            message: format!("nobody makes the pod anew when node {} goes", pod.node),
            next: "let a Deployment, a StatefulSet or a Job make it".to_owned(),
        });
    }
}

fn pinned(moving: &[&Pod], all: &mut Vec<Finding>) {
    for pod in moving {
        let Some(node) = &pod.pinned else { continue };
        all.push(Finding {
            weight: Weight::Loses,
            kind: "PinnedPod",
            subject: format!("{}/{}", pod.namespace, pod.name),
            message: format!("the pod asks for node {node} by its name, and new nodes have other names"),
            next: "choose nodes by labels of their pool (az aks nodepool update --labels)".to_owned(),
        });
    }
}

fn volumes(moving: &[&Pod], volumes: &Part<Vec<Volume>>, all: &mut Vec<Finding>) {
    let volumes = match volumes {
        Ok(volumes) => volumes,
        Err(why) => return unknown("Volume", why, all),
    };
    for volume in volumes {
        let (namespace, claim) = &volume.claim;
        let user = moving
            .iter()
            .find(|pod| pod.namespace == *namespace && pod.claims.contains(claim));
        let Some(user) = user else { continue };
        all.push(Finding {
            weight: Weight::Loses,
            kind: "Volume",
            subject: format!("{namespace}/{claim}"),
            message: format!(
                "its volume {} is on one node only and does not move with pod {}/{}; what is on it goes with the node",
                volume.name, user.namespace, user.name
            ),
            next: "copy it to a claim of a class for disks (kubectl get storageclass)".to_owned(),
        });
    }
}

fn hooks(seen: &Seen, all: &mut Vec<Finding>) {
    let hooks: &[Webhook] = match &seen.webhooks {
        Ok(hooks) => hooks,
        Err(why) => return unknown("Webhook", why, all),
    };
    let endpoints = match &seen.endpoints {
        Ok(endpoints) => endpoints,
        Err(why) if !hooks.is_empty() => return unknown("Webhook", why, all),
        Err(_) => return,
    };
    for hook in hooks {
        let Some(service) = &hook.service else { continue };
        let (namespace, name) = service;
        let ready = endpoints.get(service).copied().unwrap_or_default();
        let (weight, message) = match ready {
            0 => (
                Weight::HoldsUp,
                format!(
                    "pods are let in and evicted only with its word, and nobody answers behind its Service {namespace}/{name}"
                ),
            ),
            1 => (
                Weight::Note,
                format!(
                    "pods are let in only with its word, and one pod alone answers behind its Service {namespace}/{name}: while that \
                     one moves, no other pod starts outside of kube-system"
                ),
            ),
            _ => continue,
        };
        all.push(Finding {
            weight,
            kind: "Webhook",
            subject: format!("{}/{}", hook.configuration, hook.name),
            message,
            next: "see that two of its pods run, let it leave its own namespace out, or let failurePolicy be Ignore".to_owned(),
        });
    }
}

/// Whether a label selector selects an object with these labels. As in `policy/v1`: an empty one selects all, none selects nothing.
fn selects(selector: &Value, labels: &Value) -> bool {
    if !selector.is_object() {
        return false;
    }
    let label = |key: &str| labels.get(key).and_then(Value::as_str);
    let mut pairs = selector["matchLabels"].as_object().into_iter().flatten();
    let mut expressions = selector["matchExpressions"].as_array().into_iter().flatten();
    pairs.all(|(key, value)| label(key).is_some() && label(key) == value.as_str())
        && expressions.all(|expression| {
            let own = label(expression["key"].as_str().unwrap_or_default());
            let values = || expression["values"].as_array().into_iter().flatten();
            let among = || values().any(|value| own.is_some() && value.as_str() == own);
            match expression["operator"].as_str().unwrap_or_default() {
                "In" => among(),
                "NotIn" => !among(),
                "Exists" => own.is_some(),
                "DoesNotExist" => own.is_none(),
                _ => false,
            }
        })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn pod(name: &str, node: &str, labels: Value) -> Pod {
        Pod {
            namespace: "d".to_owned(),
            name: name.to_owned(),
            node: node.to_owned(),
            owned: true,
            labels,
            ..Pod::default()
        }
    }

    fn nothing() -> Seen {
        Seen {
            pods: Ok(Vec::new()),
            budgets: Ok(Vec::new()),
            webhooks: Ok(Vec::new()),
            endpoints: Ok(BTreeMap::new()),
            volumes: Ok(Vec::new()),
        }
    }

    fn judged(seen: &Seen, uses: &[Use], forced: bool) -> Vec<(Weight, &'static str, String)> {
        let facts = Facts {
            target: "1.37.1".parse().unwrap(),
            minor: true,
            forced,
            nodes: &BTreeSet::from(["n1".to_owned()]),
            uses: &Ok(uses.to_vec()),
            seen,
            excesses: &[],
        };
        findings(&facts)
            .into_iter()
            .map(|finding| (finding.weight, finding.kind, finding.subject))
            .collect()
    }

    #[test]
    fn a_cluster_in_which_nothing_is_wrong_meets_nothing() {
        let mut seen = nothing();
        seen.pods = Ok(vec![pod("web", "n1", json!({ "app": "web" }))]);
        seen.budgets = Ok(vec![Budget {
            namespace: "d".to_owned(),
            allowed: 1,
            selector: json!({}),
            ..Budget::default()
        }]);
        assert_eq!(judged(&seen, &[], false), []);
    }

    #[test]
    fn a_budget_matters_where_it_covers_pods_that_have_to_move() {
        let budget = |selector: Value| Budget {
            namespace: "d".to_owned(),
            name: "web".to_owned(),
            allowed: 0,
            selector,
        };
        let mut seen = nothing();
        seen.budgets = Ok(vec![budget(json!({ "matchLabels": { "app": "web" } }))]);
        seen.pods = Ok(vec![pod("web", "n2", json!({ "app": "web" }))]);
        assert_eq!(judged(&seen, &[], false), [], "on a node that stays");
        seen.pods = Ok(vec![pod("other", "n1", json!({ "app": "other" }))]);
        assert_eq!(judged(&seen, &[], false), [], "another pod");
        seen.pods = Ok(vec![pod("web", "n1", json!({ "app": "web" }))]);
        let expected = (Weight::HoldsUp, "DisruptionBudget", "d/web".to_owned());
        assert_eq!(judged(&seen, &[], false), [expected]);
        seen.budgets = Ok(vec![
            Budget {
                allowed: 5,
                ..budget(json!({}))
            };
            2
        ]);
        let expected = (Weight::HoldsUp, "DisruptionBudget", "d/web".to_owned());
        assert_eq!(judged(&seen, &[], false), [expected], "two of them for one pod");
    }

    #[test]
    fn an_api_that_is_gone_refuses_a_minor_upgrade_unless_it_is_forced() {
        let used = |minor| Use {
            api: "g.r.v1beta1".to_owned(),
            removed_in: (1, minor),
            requests: 7,
        };
        let weight = |minor, forced| judged(&nothing(), &[used(minor)], forced)[0].0;
        assert_eq!(weight(37, false), Weight::Refused);
        assert_eq!(weight(36, false), Weight::Refused);
        assert_eq!(weight(37, true), Weight::Loses);
        assert_eq!(weight(38, false), Weight::Note);
    }

    #[test]
    fn what_does_not_come_back_is_told() {
        let mut seen = nothing();
        let bare = Pod {
            owned: false,
            claims: vec!["data".to_owned()],
            pinned: Some("n1".to_owned()),
            ..pod("one", "n1", Value::Null)
        };
        seen.pods = Ok(vec![bare]);
        seen.volumes = Ok(vec![Volume {
            name: "v".to_owned(),
            claim: ("d".to_owned(), "data".to_owned()),
        }]);
        let kinds: Vec<_> = judged(&seen, &[], false)
            .into_iter()
            .map(|found| found.1)
            .collect();
        assert_eq!(kinds, ["BarePod", "PinnedPod", "Volume"]);
    }

    #[test]
    fn a_webhook_that_nobody_answers_for_holds_pods_up() {
        let mut seen = nothing();
        let service = ("g".to_owned(), "guard".to_owned());
        seen.webhooks = Ok(vec![Webhook {
            configuration: "guard".to_owned(),
            name: "guard.example.com".to_owned(),
            service: Some(service.clone()),
        }]);
        assert_eq!(judged(&seen, &[], false)[0].0, Weight::HoldsUp);
        seen.endpoints = Ok(BTreeMap::from([(service.clone(), 1)]));
        assert_eq!(judged(&seen, &[], false)[0].0, Weight::Note);
        seen.endpoints = Ok(BTreeMap::from([(service, 2)]));
        assert_eq!(judged(&seen, &[], false), []);
    }

    #[test]
    fn what_was_not_looked_at_is_not_called_well() {
        let failed = || "connection refused".to_owned();
        let seen = Seen {
            pods: Err(failed()),
            budgets: Err(failed()),
            webhooks: Err(failed()),
            endpoints: Err(failed()),
            volumes: Err(failed()),
        };
        let facts = Facts {
            target: "1.37.1".parse().unwrap(),
            minor: true,
            forced: false,
            nodes: &BTreeSet::new(),
            uses: &Err(failed()),
            seen: &seen,
            excesses: &["too many cores".to_owned()],
        };
        let found = findings(&facts);
        let kinds: Vec<_> = found
            .iter()
            .map(|finding| (finding.weight, finding.kind))
            .collect();
        assert_eq!(
            kinds,
            [
                (Weight::Refused, "Room"),
                (Weight::Unknown, "DeprecatedApi"),
                (Weight::Unknown, "Pods"),
                (Weight::Unknown, "Webhook"),
            ]
        );
    }

    #[test]
    fn selectors_select_as_kubernetes_does() {
        let labels = json!({ "app": "web", "tier": "front" });
        for (selector, selected) in [
            (json!({}), true),
            (Value::Null, false),
            (json!({ "matchLabels": { "app": "web" } }), true),
            (json!({ "matchLabels": { "app": "web", "x": "y" } }), false),
            (
                json!({ "matchExpressions": [{ "key": "tier", "operator": "In", "values": ["front", "back"] }] }),
                true,
            ),
            (
                json!({ "matchExpressions": [{ "key": "tier", "operator": "NotIn", "values": ["front"] }] }),
                false,
            ),
            (
                json!({ "matchExpressions": [{ "key": "x", "operator": "NotIn", "values": ["front"] }] }),
                true,
            ),
            (
                json!({ "matchExpressions": [{ "key": "x", "operator": "Exists" }] }),
                false,
            ),
            (
                json!({ "matchExpressions": [{ "key": "x", "operator": "DoesNotExist" }] }),
                true,
            ),
        ] {
            assert_eq!(selects(&selector, &labels), selected, "{selector}");
        }
    }
}
