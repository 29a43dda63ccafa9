//! Managed namespaces in the ideal world: made at once, taken over as their policy says, gone with the second look.

use cluster_api::{NamespaceSeen, NamespaceWish};
use cluster_spec::AdoptionPolicy;

use super::*;

impl Ideal {
    pub(super) fn set_namespace(&mut self, wish: &NamespaceWish) {
        let api = &mut self.seen.api;
        let before = api.namespaces.get(&wish.name).map(|set| &set.seen);
        let going = matches!(before, Some(NamespaceSeen::Going(_)));
        let theirs = self.strangers.contains(&wish.name) && !wish.held;
        let seen = if wish.released && wish.held && !going {
            NamespaceSeen::Going(None)
        } else if wish.released {
            NamespaceSeen::Released
        } else if theirs && wish.spec.adoption != AdoptionPolicy::Always {
            NamespaceSeen::Refused("it exists".to_owned())
        } else {
            NamespaceSeen::Set
        };
        let set = NamespaceSet {
            wish: wish.clone(),
            seen,
            at: self.now,
            change: api.change,
        };
        api.namespaces.insert(wish.name.clone(), set);
    }

    pub(super) fn forget_namespace(&mut self, name: &str) {
        let set = &self.seen.api.namespaces[name];
        assert_eq!(set.seen, NamespaceSeen::Released, "a record goes last");
        self.seen.namespaces.retain(|record| record.name != name);
    }
}
