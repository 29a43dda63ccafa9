//! Access reviews: API servers ask the stamp whether role assignments permit a request in their cluster.
//! Field names are those of `SubjectAccessReview`.

use async_trait::async_trait;
use serde::Deserialize;

/// Decides access reviews.
#[async_trait]
pub trait AccessReviews: Send + Sync {
    /// Whether the request is permitted in the cluster that has this machine as control plane member.
    async fn permits(&self, machine: &str, asked: &ReviewSpec) -> Result<bool, ReviewError>;
}

/// The review could not be decided.
#[derive(Debug, thiserror::Error)]
#[error("role assignments cannot be read")]
pub struct ReviewError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// The request under review.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ReviewSpec {
    /// The object id in the user's token.
    pub uid: String,
    /// A request for a resource.
    pub resource_attributes: Option<ResourceAttributes>,
    /// A request for a path outside the resource API.
    pub non_resource_attributes: Option<NonResourceAttributes>,
}

/// A request for a resource. Missing fields are empty.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct ResourceAttributes {
    /// E.g. `get`.
    pub verb: String,
    /// API group.
    pub group: String,
    /// E.g. `pods`.
    pub resource: String,
    /// E.g. `log`.
    pub subresource: String,
    /// Empty for all namespaces and for cluster-scoped resources.
    pub namespace: String,
}

/// A request for a path.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct NonResourceAttributes {
    /// E.g. `get`.
    pub verb: String,
    /// E.g. `/metrics`.
    pub path: String,
}
