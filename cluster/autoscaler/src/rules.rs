//! The scheduler's rules that decide whether a node takes a pod.
//!
//! Preferences, and taints with `PreferNoSchedule`, have no influence and are not read.

use std::collections::{BTreeMap, BTreeSet};

use crate::quantity::Resources;

/// The label with a unique value for each node.
pub const HOSTNAME: &str = "kubernetes.io/hostname";

/// The requirements of a pod on its node and on other pods. Pods with equal rules are interchangeable.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rules {
    /// The pod's namespace.
    pub namespace: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its requests, including itself as one of `pods`.
    pub request: Resources,
    /// All of these must have a term that the node's labels fulfil: `nodeSelector`, required node affinity,
    /// node affinity of bound volumes.
    pub nodes: Vec<Vec<Vec<Requirement>>>,
    /// Taints that it tolerates.
    pub tolerations: Vec<Toleration>,
    /// Host ports.
    pub ports: BTreeSet<Port>,
    /// Required pod affinity.
    pub with: Vec<Term>,
    /// Required pod anti-affinity.
    pub apart: Vec<Term>,
    /// Topology spread constraints with `DoNotSchedule`.
    pub spread: Vec<Spread>,
}

/// One requirement about labels.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Requirement {
    /// The label.
    pub key: String,
    /// The comparison.
    pub operator: Operator,
    /// The values to compare with.
    pub values: Vec<String>,
}

/// How a label is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operator {
    /// The label has one of the values.
    In,
    /// The label has none of the values, or is absent.
    NotIn,
    /// The label is present.
    Exists,
    /// The label is absent.
    DoesNotExist,
    /// The label is a number greater than the value.
    Gt,
    /// The label is a number less than the value.
    Lt,
    /// An unknown operator: never fulfilled.
    Unknown,
}

impl Requirement {
    /// A label must have this value.
    pub fn equals(key: &str, value: &str) -> Self {
        Self {
            key: key.to_owned(),
            operator: Operator::In,
            values: vec![value.to_owned()],
        }
    }

    /// Whether labels fulfil it.
    pub fn holds(&self, labels: &BTreeMap<String, String>) -> bool {
        let found = labels.get(&self.key);
        let number = |text: Option<&String>| text.and_then(|text| text.parse::<i64>().ok());
        match self.operator {
            Operator::In => found.is_some_and(|found| self.values.contains(found)),
            Operator::NotIn => found.is_none_or(|found| !self.values.contains(found)),
            Operator::Exists => found.is_some(),
            Operator::DoesNotExist => found.is_none(),
            Operator::Gt => number(found)
                .zip(number(self.values.first()))
                .is_some_and(|(own, than)| own > than),
            Operator::Lt => number(found)
                .zip(number(self.values.first()))
                .is_some_and(|(own, than)| own < than),
            Operator::Unknown => false,
        }
    }
}

/// Whether labels fulfil all of these.
pub fn all_hold(requirements: &[Requirement], labels: &BTreeMap<String, String>) -> bool {
    requirements.iter().all(|requirement| requirement.holds(labels))
}

/// A set of pods in a term of pod affinity, anti-affinity or topology spread.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Term {
    /// The topology key: nodes with the same value of this label are one domain.
    pub topology: String,
    /// Namespaces of the pods; `None`: all.
    pub namespaces: Option<BTreeSet<String>>,
    /// Labels of the pods; `None`: no pods.
    pub selector: Option<Vec<Requirement>>,
}

impl Term {
    /// Whether it selects a pod with these rules.
    pub fn selects(&self, pod: &Rules) -> bool {
        let here = self
            .namespaces
            .as_ref()
            .is_none_or(|namespaces| namespaces.contains(&pod.namespace));
        here && self
            .selector
            .as_ref()
            .is_some_and(|selector| all_hold(selector, &pod.labels))
    }
}

/// A topology spread constraint.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Spread {
    /// The pods and the topology.
    pub term: Term,
    /// `maxSkew`: the permitted difference between domains.
    pub most: u64,
    /// `minDomains`: with fewer domains than this, the global minimum counts as 0.
    pub places: u64,
}

/// A taint.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Taint {
    /// Its key.
    pub key: String,
    /// Its value.
    pub value: String,
    /// `NoSchedule`, `NoExecute` or `PreferNoSchedule`.
    pub effect: String,
}

/// A toleration.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Toleration {
    /// Its key; empty with [`Self::exists`]: all keys.
    pub key: String,
    /// Operator `Exists`: all values.
    pub exists: bool,
    /// Its value.
    pub value: String,
    /// Its effect; empty: all effects.
    pub effect: String,
}

impl Toleration {
    fn bears(&self, taint: &Taint) -> bool {
        let effect = self.effect.is_empty() || self.effect == taint.effect;
        let key = self.key == taint.key || (self.key.is_empty() && self.exists);
        effect && key && (self.exists || self.value == taint.value)
    }
}

/// A port of a node: protocol, number, address (empty: all).
pub type Port = (String, u32, String);

/// Whether two ports conflict.
fn clash(one: &Port, other: &Port) -> bool {
    let every = |address: &str| address.is_empty() || address == "0.0.0.0";
    one.0 == other.0 && one.1 == other.1 && (one.2 == other.2 || every(&one.2) || every(&other.2))
}

impl Rules {
    /// The reason why a node with these labels and taints does not take the pod, in upstream's words; `None`:
    /// labels and taints permit it.
    pub fn refused_by(&self, labels: &BTreeMap<String, String>, taints: &[Taint]) -> Option<String> {
        let fulfilled = self
            .nodes
            .iter()
            .all(|terms| terms.iter().any(|term| all_hold(term, labels)));
        if !fulfilled {
            return Some("node(s) didn't match Pod's node affinity/selector".to_owned());
        }
        let hard = |taint: &&Taint| taint.effect == "NoSchedule" || taint.effect == "NoExecute";
        let unborne = |taint: &&Taint| !self.tolerations.iter().any(|own| own.bears(taint));
        let taint = taints.iter().filter(hard).find(unborne)?;
        Some(format!(
            "node(s) had untolerated taint {{{}: {}}}",
            taint.key, taint.value
        ))
    }

    /// Whether the pod's ports conflict with ports in use.
    pub fn clashes<'p>(&self, mut taken: impl Iterator<Item = &'p Port>) -> bool {
        !self.ports.is_empty() && taken.any(|port| self.ports.iter().any(|own| clash(own, port)))
    }
}
