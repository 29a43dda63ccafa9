//! The state of support of clusters: which facts the records hold, and what is said of them where.
//!
//! The rules are `policy/support`'s. A state is computed when it is asked for ([`crate::landfall`]), from the records of that moment; no record
//! has it. Writes of a cluster or pool whose version is out of support are answered with a warning ([`warning`]), which needs no record.

pub(crate) mod facts;
pub(crate) mod gather;
pub(crate) mod warning;

use std::sync::Arc;

use cluster_versions::Offered;
use policy_support::Profile;

use crate::{NodeImages, SameImages};

/// What states of support are computed with, beside records.
pub struct Support {
    /// The stamp's profile.
    pub profile: Profile,
    /// The versions that it offers.
    pub offered: Offered,
    /// What is known of node images.
    pub images: Arc<dyn NodeImages>,
}

impl Default for Support {
    fn default() -> Self {
        Self {
            profile: Profile::default(),
            offered: Offered::pinned(),
            images: Arc::new(SameImages),
        }
    }
}
