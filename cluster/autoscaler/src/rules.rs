//! Where a pod may run: the rules of the scheduler that decide about a node.
//!
//! Preferences, and taints with `PreferNoSchedule`, decide nothing and are not read.

use std::collections::{BTreeMap, BTreeSet};

use crate::quantity::Resources;

/// A label that says which machine it is: each node has another.
pub const HOSTNAME: &str = "kubernetes.io/hostname";

/// What a pod asks of its node and its neighbours. Pods with the same rules are alike.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rules {
    /// The pod's namespace.
    pub namespace: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// What it takes, itself counted as one of `pods`.
    pub request: Resources,
    /// Each of these has a term that the node's labels fulfil: `nodeSelector`, required node affinity, where bound volumes are.
    pub nodes: Vec<Vec<Vec<Requirement>>>,
    /// Taints that it bears.
    pub tolerations: Vec<Toleration>,
    /// Ports of the node that it takes.
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
    /// How it is compared.
    pub operator: Operator,
    /// With what.
    pub values: Vec<String>,
}

/// How a label is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operator {
    /// It is one of the values.
    In,
    /// It is none of them, or not there.
    NotIn,
    /// It is there.
    Exists,
    /// It is not.
    DoesNotExist,
    /// It is a number greater than the value.
    Gt,
    /// It is a number less than the value.
    Lt,
    /// An operator that is not known: never fulfilled.
    Unknown,
}

impl Requirement {
    /// That a label has a value.
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

/// Pods that a pod is to be near to, or far from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Term {
    /// The label whose value says which nodes are near to each other.
    pub topology: String,
    /// In these namespaces; `None`: in all.
    pub namespaces: Option<BTreeSet<String>>,
    /// Their labels. `None`: no pods at all.
    pub selector: Option<Vec<Requirement>>,
}

impl Term {
    /// Whether a pod with these rules is one of them.
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

/// That pods are spread over a topology.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Spread {
    /// Which pods, and over what.
    pub term: Term,
    /// By so many may one place have more than another.
    pub most: u64,
    /// With fewer places than this, the emptiest counts as empty.
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

/// A taint that a pod bears.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Toleration {
    /// Its key; empty with [`Self::exists`]: any.
    pub key: String,
    /// Whatever its value is.
    pub exists: bool,
    /// Its value.
    pub value: String,
    /// Its effect; empty: any.
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

/// Whether two ports are in each other's way.
fn clash(one: &Port, other: &Port) -> bool {
    let every = |address: &str| address.is_empty() || address == "0.0.0.0";
    one.0 == other.0 && one.1 == other.1 && (one.2 == other.2 || every(&one.2) || every(&other.2))
}

impl Rules {
    /// Why a node with these labels and taints does not take the pod, in upstream's words; `None`: it does, as far as these go.
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

    /// Whether these ports are in the way of the pod's.
    pub fn clashes<'p>(&self, mut taken: impl Iterator<Item = &'p Port>) -> bool {
        !self.ports.is_empty() && taken.any(|port| self.ports.iter().any(|own| clash(own, port)))
    }
}
