//! Who may do what, as the stamp knows it: implemented by the assembly of the service.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

/// A right at a registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Right {
    /// To see and pull what is in it.
    Pull,
    /// To push.
    Push,
    /// To delete images, tags and repositories.
    Delete,
}

impl Right {
    /// The action that role assignments permit.
    pub fn action(self) -> &'static str {
        match self {
            Self::Pull => "Microsoft.ContainerRegistry/registries/pull/read",
            Self::Push => "Microsoft.ContainerRegistry/registries/push/write",
            Self::Delete => "Microsoft.ContainerRegistry/registries/artifacts/delete",
        }
    }
}

/// A registry that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownRegistry {
    /// Its uid: the name of its directory.
    pub uid: String,
    /// Its name.
    pub name: String,
    /// Its ARM id: the scope of role assignments.
    pub id: String,
    /// Its login server.
    pub login_server: String,
    /// The bytes that it may hold.
    pub limit: u64,
}

/// Rights in a token, in the form of Docker's token specification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// `repository` or `registry`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Registry and repository, `acme/team/app`; or the registry's name.
    pub name: String,
    /// What may be done with it.
    pub actions: Vec<String>,
}

/// The claims of the registries' own tokens. Times are seconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// [`Claims::AUDIENCE`]: no other token of the stamp has this.
    pub aud: String,
    /// From when on it is valid.
    pub nbf: i64,
    /// When it was made.
    pub iat: i64,
    /// Until when it is valid.
    pub exp: i64,
    /// The object id of the principal.
    pub sub: String,
    /// `refresh_token`: good for tokens with rights only. `access_token`: has rights.
    pub grant_type: String,
    /// The rights of an access token.
    pub access: Vec<Access>,
}

impl Claims {
    /// The audience of the registries' tokens.
    pub const AUDIENCE: &str = "landfall.containerregistry";
    /// See [`Claims::grant_type`].
    pub const REFRESH: &str = "refresh_token";
    /// See [`Claims::grant_type`].
    pub const ACCESS: &str = "access_token";
}

/// Something could not be found out.
#[derive(Debug, thiserror::Error)]
#[error("what the stamp knows of registries and principals cannot be read")]
pub struct GateError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// What the stamp knows of registries and principals.
#[async_trait]
pub trait Gate: Send + Sync {
    /// The registry of this name.
    async fn registry(&self, name: &str) -> Result<Option<KnownRegistry>, GateError>;
    /// Whether the principal with this object id has a right at a registry now.
    async fn may(&self, object_id: &str, right: Right, registry: &KnownRegistry) -> Result<bool, GateError>;
    /// The object id of the principal that the kubelet of this machine is; `None` if it is no node of a cluster.
    async fn kubelet(&self, machine: &str) -> Result<Option<String>, GateError>;
    /// The object id of the principal of a token of the directory, if it is valid for registries or for ARM.
    async fn bearer(&self, token: &str) -> Result<Option<String>, GateError>;
    /// The object id of the service principal with this client id and secret.
    async fn password(
        &self,
        client: &str,
        secret: &str,
        address: Option<std::net::IpAddr>,
    ) -> Result<Option<String>, GateError>;
    /// Signs a token of the registries'.
    fn sign(&self, claims: &Claims) -> String;
    /// The claims of such a token, if it was signed here, is in its time, and its principal may still use it.
    async fn read(&self, token: &str) -> Result<Option<Claims>, GateError>;
}
