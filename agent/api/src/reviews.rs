//! What an API server asks the stamp about: whether role assignments permit something in its cluster. The words of `SubjectAccessReview`.

use async_trait::async_trait;
use serde::Deserialize;

/// Decides.
#[async_trait]
pub trait AccessReviews: Send + Sync {
    /// Whether what is asked is permitted in the cluster that this machine is a control plane member of.
    async fn permits(&self, machine: &str, asked: &ReviewSpec) -> Result<bool, ReviewError>;
}

/// It could not be decided.
#[derive(Debug, thiserror::Error)]
#[error("what role assignments permit cannot be read")]
pub struct ReviewError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// Who asks for what.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ReviewSpec {
    /// The object id in the token that it came with.
    pub uid: String,
    /// What is to be done with a resource.
    pub resource_attributes: Option<ResourceAttributes>,
    /// What is to be done with a path that is no resource's.
    pub non_resource_attributes: Option<NonResourceAttributes>,
}

/// Something that is to be done with a resource. What it does not say is empty.
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
    /// Empty for all, and for what is in none.
    pub namespace: String,
}

/// Something that is to be done with a path.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct NonResourceAttributes {
    /// E.g. `get`.
    pub verb: String,
    /// E.g. `/metrics`.
    pub path: String,
}
