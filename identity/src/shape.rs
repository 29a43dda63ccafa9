//! The two protocols of the token service: Azure's (AAD), and that of AD FS, which Azure Stack has.
//!
//! Always true: both are served, whichever one is announced to clients; differences between the shapes
//! (issuer, endpoints, discovery) are decided only here.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The first segment of all AD FS paths. The Azure CLI takes a login endpoint that ends in it for AD FS.
pub(crate) const ADFS: &str = "adfs";

/// The protocol of a client; in the configuration, the one that is announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Shape {
    /// `/{tenant}/…`, as Azure has it.
    Aad,
    /// `/adfs/…`
    AdFs,
}

impl Shape {
    /// The name in settings and status.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Aad => "aad",
            Self::AdFs => ADFS,
        }
    }
}

/// AAD's two sets of endpoints. AD FS has the second only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// The audience comes as `resource`; times in responses are texts.
    V1,
    /// The audience comes as `scope`.
    V2,
}

/// Configuration of the token service.
#[derive(Debug, Clone)]
pub struct IdentityConfig {
    /// The address of the stamp for clients, without a trailing slash, e.g. `https://127.0.0.1:8443`: issuers
    /// are below it.
    pub base_url: String,
    /// The shape that is announced to clients.
    pub shape: Shape,
    /// GUID of the tenant.
    pub tenant_id: String,
    /// The audiences that ARM accepts; the first is what `/metadata/endpoints` announces. Trailing slashes do not matter.
    pub audiences: Vec<String>,
    /// Further resources that tokens are issued for (Graph, the AKS server application), not valid for ARM.
    pub resources: Vec<String>,
}

impl IdentityConfig {
    /// The `iss` of tokens that are requested in this shape. Discovery is below it. The first segment of its
    /// path is the tenant, or `adfs`: the Azure CLI takes the tenant from it.
    pub fn issuer(&self, shape: Shape) -> String {
        let base = self.base_url.trim_end_matches('/');
        format!("{base}{}", self.issuer_path(shape))
    }

    /// The path of [`Self::issuer`]. Discovery is below it at each address of the stamp.
    pub fn issuer_path(&self, shape: Shape) -> String {
        match shape {
            Shape::Aad => format!("/{}/v2.0", self.tenant_id),
            Shape::AdFs => format!("/{ADFS}"),
        }
    }

    /// Every `iss` of our tokens.
    pub fn issuers(&self) -> Vec<String> {
        [Shape::Aad, Shape::AdFs].map(|shape| self.issuer(shape)).to_vec()
    }

    /// The login endpoint of a stamp at `base_url`: clients append a tenant to it.
    pub fn login_endpoint(&self, base_url: &str) -> String {
        match self.shape {
            Shape::Aad => base_url.to_owned(),
            Shape::AdFs => format!("{base_url}/{ADFS}"),
        }
    }

    /// The authority for a client without a valid token: login endpoint and tenant.
    pub fn authority(&self, base_url: &str) -> String {
        match self.shape {
            Shape::Aad => format!("{base_url}/{}", self.tenant_id),
            Shape::AdFs => format!("{base_url}/{ADFS}"),
        }
    }

    /// Whether this is the first segment of an AAD path.
    pub(crate) fn is_tenant(&self, segment: &str) -> bool {
        segment.eq_ignore_ascii_case(&self.tenant_id)
            || segment.eq_ignore_ascii_case("common")
            || segment.eq_ignore_ascii_case("organizations")
    }
}

/// Properties of a client that follow from its request's path: the address it used, and the shape.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// The address that it used, without a trailing slash.
    pub(crate) base_url: String,
    pub(crate) shape: Shape,
    pub(crate) version: Version,
    /// The first segment of the path, in lower case: `adfs`, a tenant, `common`, `organizations`.
    pub(crate) first: String,
}

impl Place {
    /// The URL of a neighbouring endpoint, e.g. `token`.
    pub(crate) fn endpoint(&self, name: &str) -> String {
        let Self { base_url, first, .. } = self;
        match (self.shape, self.version) {
            (Shape::AdFs, _) | (Shape::Aad, Version::V1) => format!("{base_url}/{first}/oauth2/{name}"),
            (Shape::Aad, Version::V2) => format!("{base_url}/{first}/oauth2/v2.0/{name}"),
        }
    }

    /// The discovery document.
    pub(crate) fn document(&self, config: &IdentityConfig) -> Value {
        let Self { base_url, first, .. } = self;
        let keys = match self.shape {
            Shape::AdFs => format!("{base_url}/{first}/discovery/keys"),
            Shape::Aad => format!("{base_url}/{first}/discovery/v2.0/keys"),
        };
        json!({
            "issuer": config.issuer(self.shape),
            "authorization_endpoint": self.endpoint("authorize"),
            "token_endpoint": self.endpoint("token"),
            "device_authorization_endpoint": self.endpoint("devicecode"),
            "jwks_uri": keys,
            "token_endpoint_auth_methods_supported": ["client_secret_post", "client_secret_basic", "private_key_jwt"],
            "token_endpoint_auth_signing_alg_values_supported": ["RS256", "PS256"],
            "grant_types_supported": ["client_credentials", "password", "authorization_code", "refresh_token",
                "urn:ietf:params:oauth:grant-type:device_code"],
            "response_types_supported": ["code"],
            "response_modes_supported": ["query", "fragment", "form_post"],
            "code_challenge_methods_supported": ["S256"],
            "subject_types_supported": ["public"],
            "scopes_supported": ["openid", "profile", "email", "offline_access"],
            "claims_supported": ["aud", "iss", "iat", "nbf", "exp", "sub", "oid", "tid", "appid", "name", "upn",
                "unique_name", "preferred_username"],
            "id_token_signing_alg_values_supported": ["RS256"],
        })
    }

    /// The response of instance discovery, for a client that does not know the authority.
    pub(crate) fn instance(&self, config: &IdentityConfig) -> Value {
        let Self { base_url, .. } = self;
        let host = host(base_url);
        json!({
            "tenant_discovery_endpoint":
                format!("{base_url}/{}/v2.0/.well-known/openid-configuration", config.tenant_id),
            "api-version": "1.1",
            "metadata": [{ "preferred_network": host, "preferred_cache": host, "aliases": [host] }],
        })
    }
}

/// Host and port of a URL.
pub(crate) fn host(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split(['/', '?', '#']).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn discovery_is_below_the_issuer_that_it_names_in_both_shapes() {
        let config = IdentityConfig {
            base_url: "https://h:1".to_owned(),
            shape: Shape::Aad,
            tenant_id: "t".to_owned(),
            audiences: Vec::new(),
            resources: Vec::new(),
        };
        for (shape, first, tenant) in [(Shape::Aad, "t", "t"), (Shape::AdFs, "adfs", "adfs")] {
            let place = Place {
                base_url: "https://h:1".to_owned(),
                shape,
                version: Version::V2,
                first: first.to_owned(),
            };
            let document = place.document(&config);
            let issuer = document["issuer"].as_str().unwrap();
            assert_eq!(issuer.split('/').nth(3), Some(tenant));
            assert!(
                document["token_endpoint"]
                    .as_str()
                    .unwrap()
                    .starts_with("https://h:1/")
            );
        }
        assert_eq!(config.login_endpoint("https://x"), "https://x");
        assert_eq!(config.authority("https://x"), "https://x/t");
    }

    #[test]
    fn a_host_ends_where_the_path_begins() {
        for url in ["https://h:1", "https://h:1/a", "h:1/a?b", "https://h:1?x"] {
            assert_eq!(host(url), "h:1", "{url}");
        }
    }
}
