//! Hooks of features into clusters beyond the body: whether it may be changed, the state during an operation,
//! additions to responses. One line for each in [`super::FEATURES`].

use arm_wire::ArmError;
use control_records::ClusterRecord;
use serde_json::Value;

use super::{FEATURES, draft::refuse_deleting, view::ClusterView};

/// See the module.
pub(crate) struct FeatureHooks {
    /// Whether the cluster and its pools may be changed.
    pub(crate) change: fn(&ClusterRecord) -> Result<(), ArmError>,
    /// The `provisioningState` during an operation of this name, where that is not `Updating`.
    pub(crate) under_way: fn(&str) -> Option<&'static str>,
    /// Fills in the properties of the cluster, or of a pool.
    pub(crate) show: fn(&ClusterView<'_>, &mut Value),
}

/// A cluster that is being deleted is not changed.
pub(crate) const DELETION: FeatureHooks = FeatureHooks {
    change: refuse_deleting,
    under_way: |_| None,
    show: |_, _| {},
};

/// Whether a cluster and its pools may be changed at present.
pub(crate) fn refuse_change(record: &ClusterRecord) -> Result<(), ArmError> {
    FEATURES.iter().try_for_each(|feature| (feature.change)(record))
}

/// The `provisioningState` during an operation, where a feature defines one.
pub(crate) fn under_way(operation: &str) -> Option<&'static str> {
    FEATURES.iter().find_map(|feature| (feature.under_way)(operation))
}

/// Adds the features' properties of the cluster, or of a pool, to a response.
pub(crate) fn show(view: &ClusterView<'_>, properties: &mut Value) {
    for feature in FEATURES {
        (feature.show)(view, properties);
    }
}
