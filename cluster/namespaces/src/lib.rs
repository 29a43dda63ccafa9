//! Managed namespaces: what there is of one in a cluster, whose it is, and what is to be done about it. Pure.
//!
//! | object | name | as AKS has it |
//! |---|---|---|
//! | Namespace | the resource's | the label [`LABEL`]; the annotation [`OWNER`] is ours |
//! | ResourceQuota | [`QUOTA`] | yes |
//! | NetworkPolicy | [`NETWORK_POLICY`] | yes |
//! | RoleBinding | [`USERS`] | no: whom the resource has handed a credential out to |
//!
//! Always true: a Namespace that neither carries the resource's id nor was seen to be its own is changed only where the adoption policy lets
//! it, and is never deleted; one that is given up with the policy `Keep` keeps all that is in it, and is nobody's from then on.

mod quantity;

use cluster_addons::namespace_binding;
use cluster_api::NamespaceWish;
use cluster_spec::{AdoptionPolicy, DeletePolicy, NamespaceQuota, NetworkRule};
use serde_json::{Map, Value, json};

pub use quantity::quantity;

/// The label (key, value) of every managed namespace and of what is managed in it.
pub const LABEL: (&str, &str) = ("kubernetes.azure.com/managedByArm", "true");
/// It as a selector.
pub const SELECTOR: &str = "kubernetes.azure.com/managedByArm=true";
/// The annotation of a Namespace that says which resource manages it.
pub const OWNER: &str = "landfall.dev/managed-namespace";
/// The name of the ResourceQuota.
pub const QUOTA: &str = "defaultresourcequota";
/// The name of the NetworkPolicy.
pub const NETWORK_POLICY: &str = "defaultnetworkpolicy";
/// The name of the RoleBinding.
pub const USERS: &str = "landfall:namespace-users";

/// The label that Kubernetes itself gives each Namespace: its name.
pub const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// Namespaces that are the cluster's own or bring parts of it, which nobody manages. Kubernetes never lets `default` go.
const SYSTEM: [&str; 12] = [
    "aks-command",
    "app-routing-system",
    "calico-system",
    "dataprotection-microsoft",
    "default",
    "flux-system",
    "gatekeeper-system",
    "istio-system",
    "kube-node-lease",
    "kube-public",
    "kube-system",
    "tigera-operator",
];
/// What names of AKS' own namespaces begin with.
const SYSTEM_PREFIX: &str = "aks-istio-";

/// Whether a namespace is the system's, which cannot be managed.
pub fn is_system(name: &str) -> bool {
    SYSTEM.contains(&name) || name.starts_with(SYSTEM_PREFIX)
}

/// A kind of object that a namespace has one of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// `apiVersion`.
    pub version: &'static str,
    /// `kind`.
    pub kind: &'static str,
    /// `metadata.name`.
    pub name: &'static str,
}

/// The ResourceQuota.
pub const QUOTA_PART: Part = Part {
    version: "v1",
    kind: "ResourceQuota",
    name: QUOTA,
};
/// The NetworkPolicy.
pub const NETWORK_PART: Part = Part {
    version: "networking.k8s.io/v1",
    kind: "NetworkPolicy",
    name: NETWORK_POLICY,
};
/// The RoleBinding.
pub const USERS_PART: Part = Part {
    version: "rbac.authorization.k8s.io/v1",
    kind: "RoleBinding",
    name: USERS,
};
/// All that a namespace may have.
pub const PARTS: [Part; 3] = [QUOTA_PART, NETWORK_PART, USERS_PART];

/// What there is of it in the cluster.
#[derive(Debug, Clone, Copy, Default)]
pub struct Found<'a> {
    /// The Namespace.
    pub namespace: Option<&'a Value>,
    /// The ResourceQuota of our name. Only looked at where a Namespace is taken over that must not differ.
    pub quota: Option<&'a Value>,
    /// The NetworkPolicy of our name, likewise.
    pub policy: Option<&'a Value>,
}

/// What is to be done next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Apply [`objects`], and remove the [`PARTS`] that are not among them.
    Apply,
    /// Nothing: it is somebody else's. Why, and what to do.
    Refuse(String),
    /// Nothing: it is being deleted. What keeps it.
    Wait(Option<String>),
    /// Take label and annotation off ([`unmarked`]), and the RoleBinding: it is nobody's from then on.
    LetGo,
    /// Delete the Namespace.
    Remove,
    /// Nothing: it is given up.
    Nothing,
}

/// Whether what is found has to be compared with the wish, part by part.
pub fn compares(wish: &NamespaceWish, namespace: Option<&Value>) -> bool {
    !wish.released
        && wish.spec.adoption == AdoptionPolicy::IfIdentical
        && namespace.is_some_and(|found| !is_ours(wish, found))
}

/// Decides.
pub fn next(wish: &NamespaceWish, found: &Found<'_>) -> Next {
    let Some(namespace) = found.namespace else {
        return if wish.released { Next::Nothing } else { Next::Apply };
    };
    let (ours, going) = (is_ours(wish, namespace), is_going(namespace));
    if wish.released {
        return match wish.spec.deletion {
            _ if !ours => Next::Nothing,
            DeletePolicy::Delete if going => Next::Wait(keeper(namespace)),
            DeletePolicy::Delete => Next::Remove,
            DeletePolicy::Keep if going => Next::Nothing,
            DeletePolicy::Keep => Next::LetGo,
        };
    }
    if going {
        return Next::Wait(keeper(namespace));
    }
    if ours {
        return Next::Apply;
    }
    let exists = format!("The namespace '{}' exists in the cluster already", wish.name);
    match wish.spec.adoption {
        AdoptionPolicy::Always => Next::Apply,
        AdoptionPolicy::Never => Next::Refuse(format!(
            "{exists}, and the adoption policy is Never. Choose another name, delete it there, or take it over with the adoption policy \
             IfIdentical or Always (az aks namespace update --adoption-policy)."
        )),
        AdoptionPolicy::IfIdentical => match difference(wish, found) {
            None => Next::Apply,
            Some(what) => Next::Refuse(format!(
                "{exists} and is not identical, as the adoption policy IfIdentical needs it: {what}. Ask for what is there, or overwrite \
                 it with the adoption policy Always (az aks namespace update --adoption-policy Always)."
            )),
        },
    }
}

fn is_ours(wish: &NamespaceWish, namespace: &Value) -> bool {
    wish.held || namespace["metadata"]["annotations"][OWNER] == wish.id.as_str()
}

fn is_going(namespace: &Value) -> bool {
    !namespace["metadata"]["deletionTimestamp"].is_null()
}

/// What keeps a Namespace that is being deleted, in Kubernetes' words.
fn keeper(namespace: &Value) -> Option<String> {
    let conditions = namespace["status"]["conditions"].as_array()?;
    let told = conditions
        .iter()
        .filter(|condition| condition["status"] == "True");
    let told: Vec<&str> = told
        .filter_map(|condition| condition["message"].as_str())
        .collect();
    (!told.is_empty()).then(|| told.join("; "))
}

/// What a Namespace has that is not as wished, if anything.
fn difference(wish: &NamespaceWish, found: &Found<'_>) -> Option<String> {
    let metadata = &found.namespace?["metadata"];
    let not_theirs = [
        NAME_LABEL,
        LABEL.0,
        OWNER,
        "kubectl.kubernetes.io/last-applied-configuration",
    ];
    for (what, wanted) in [
        ("labels", &wish.spec.labels),
        ("annotations", &wish.spec.annotations),
    ] {
        let there = metadata[what].as_object();
        let there = there.into_iter().flatten();
        let there = there.filter(|(name, _)| !not_theirs.contains(&name.as_str()));
        let wanted = wanted
            .iter()
            .filter(|(name, _)| !not_theirs.contains(&name.as_str()));
        let there = there.map(|(name, value)| (name.as_str(), value.as_str().unwrap_or_default()));
        if !there.eq(wanted.map(|(name, value)| (name.as_str(), value.as_str()))) {
            return Some(format!("its {what} are others"));
        }
    }
    let hard = found.quota.map(|quota| &quota["spec"]["hard"]);
    let hard = hard.and_then(Value::as_object);
    let there = hard.into_iter().flatten();
    let there = there.map(|(name, value)| (name.as_str(), value.as_str().and_then(quantity)));
    let wanted = wish.spec.quota.as_ref().map(amounts).unwrap_or_default();
    let wanted = wanted.iter();
    if !there.eq(wanted.map(|(name, value)| (name.as_str(), value.as_str().and_then(quantity)))) {
        return Some(format!("its ResourceQuota '{QUOTA}' is another one"));
    }
    let rules = |policy: &Value| {
        let spec = &policy["spec"];
        // What the server leaves out is an empty list.
        let list = |name: &str| spec[name].as_array().cloned().unwrap_or_default();
        let mut types = list("policyTypes");
        types.sort_by_key(ToString::to_string);
        (
            spec["podSelector"].clone(),
            types,
            list("ingress"),
            list("egress"),
        )
    };
    let wanted = network_policy(wish);
    if found.policy.map(rules) != wanted.as_ref().map(rules) {
        return Some(format!("its NetworkPolicy '{NETWORK_POLICY}' is another one"));
    }
    None
}

/// All objects of a wish, the Namespace first.
pub fn objects(wish: &NamespaceWish) -> Vec<Value> {
    let mut labels = wish.spec.labels.clone();
    // Kubernetes sets that one, and the same for everybody.
    labels.remove(NAME_LABEL);
    labels.insert(LABEL.0.to_owned(), LABEL.1.to_owned());
    let mut annotations = wish.spec.annotations.clone();
    annotations.insert(OWNER.to_owned(), wish.id.clone());
    let namespace = json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": { "name": wish.name, "labels": labels, "annotations": annotations }
    });
    let hard = wish
        .spec
        .quota
        .as_ref()
        .map(amounts)
        .filter(|hard| !hard.is_empty());
    let quota = hard.map(|hard| {
        json!({
            "apiVersion": QUOTA_PART.version, "kind": QUOTA_PART.kind, "metadata": metadata(wish, QUOTA),
            "spec": { "hard": hard }
        })
    });
    let users = (!wish.users.is_empty()).then(|| {
        let mut binding = namespace_binding(&wish.name, USERS, wish.users.iter());
        binding["metadata"] = metadata(wish, USERS);
        binding
    });
    std::iter::once(namespace)
        .chain(quota)
        .chain(network_policy(wish))
        .chain(users)
        .collect()
}

fn metadata(wish: &NamespaceWish, name: &str) -> Value {
    json!({ "namespace": wish.name, "name": name, "labels": { LABEL.0: LABEL.1 } })
}

/// As a ResourceQuota names them.
fn amounts(quota: &NamespaceQuota) -> Map<String, Value> {
    let all = [
        ("limits.cpu", &quota.cpu_limit),
        ("limits.memory", &quota.memory_limit),
        ("requests.cpu", &quota.cpu_request),
        ("requests.memory", &quota.memory_request),
    ];
    let given = all
        .into_iter()
        .filter_map(|(name, amount)| Some((name, amount.as_ref()?)));
    given
        .map(|(name, amount)| (name.to_owned(), json!(amount)))
        .collect()
}

fn network_policy(wish: &NamespaceWish) -> Option<Value> {
    let network = wish.spec.network?;
    let rules = |rule, peers: &str| match rule {
        NetworkRule::DenyAll => json!([]),
        NetworkRule::AllowAll => json!([{}]),
        NetworkRule::AllowSameNamespace => json!([{ peers: [{ "podSelector": {} }] }]),
    };
    Some(json!({
        "apiVersion": NETWORK_PART.version, "kind": NETWORK_PART.kind, "metadata": metadata(wish, NETWORK_POLICY),
        "spec": {
            "podSelector": {},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": rules(network.ingress, "from"),
            "egress": rules(network.egress, "to"),
        }
    }))
}

/// What is merged into a Namespace, or into a part, that is given up and stays.
pub fn unmarked() -> Value {
    json!({ "metadata": { "labels": { LABEL.0: null }, "annotations": { OWNER: null } } })
}

#[cfg(test)]
mod tests;
