//! Managed namespaces: what is to be of one in a cluster, and what became of it.

use std::collections::BTreeSet;

use cluster_spec::NamespaceSpec;

/// What is to be in a cluster under a namespace's name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NamespaceWish {
    /// The Namespace's name.
    pub name: String,
    /// Which of the resources that have had this name it is wished for by; the Namespace carries it.
    pub id: String,
    /// The generation of the wish: two wishes of one resource with the same generation have the same `spec`.
    pub generation: u64,
    /// What is to be in it.
    pub spec: NamespaceSpec,
    /// Whether the Namespace was seen to be this resource's, whatever it carries by now.
    pub held: bool,
    /// Whether the resource gives it up: it stays or goes, as the spec says.
    pub released: bool,
    /// Ids of the credentials whose users may work in it, and nowhere else.
    pub users: BTreeSet<String>,
}

impl NamespaceWish {
    /// Whether both ask for the same. That the Namespace is held by now is nothing that is asked for.
    pub fn asks_the_same(&self, other: &Self) -> bool {
        self.name == other.name
            && self.id == other.id
            && self.generation == other.generation
            && self.released == other.released
            && self.users == other.users
    }
}

/// What became of a [`NamespaceWish`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamespaceSeen {
    /// It is so.
    Set,
    /// The Namespace is somebody else's and is not taken over. Why, and what to do: sentences.
    Refused(String),
    /// The Namespace is being deleted, and what keeps it, where the cluster says so. Nothing else can be done meanwhile.
    Going(Option<String>),
    /// It is given up: gone, or nobody's.
    Released,
}
