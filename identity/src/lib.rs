//! Authentication: principals, their secrets, and a token service that the Azure CLI accepts as AAD or as AD
//! FS.
//!
//! Always true: a secret is stored as a salted hash only, and is compared in constant time; guessing is
//! limited before it costs work; no secret and no token is ever logged or part of a `Debug`; a token is valid
//! for one hour, for one audience, and only while its principal exists, is enabled, and its tokens were not
//! revoked since.
//!
//! Called by: the edge ([`TokenService::answer`] for its HTTP paths, [`TokenService::authenticate`] for every ARM request)
//! and the binary (first principals with [`create_principal`], [`SigningKey`], [`EndpointTls`]).

mod assertion;
mod authorize;
mod browser;
mod codes;
mod device;
mod device_page;
mod endpoint_tls;
mod federated;
#[cfg(test)]
mod flows;
mod form;
mod grants;
mod keys;
mod keys_api;
mod known;
mod login;
mod page;
mod principals;
mod refresh;
mod refusal;
mod ring;
mod sealing_api;
mod secret;
mod service;
mod shape;
mod throttle;
mod tokens;

pub use endpoint_tls::{EndpointCa, EndpointTls, TlsError};
pub use federated::{Elsewhere, Fetch, IssuerError, Issuers};
pub use identity_directory::{
    groups_of,
    secret::{Secret, generate_secret, hash_secret, is_outdated, verify_secret},
};
pub use keys::{KeyError, SigningKey};
pub use keys_api::{IDENTITY_API_VERSIONS, IDENTITY_NAMESPACE, IdentityApi};
pub use principals::{IdentityError, NewPrincipal, create_principal, find_principal};
pub use ring::{Listed, RingError, Rotated, SigningKeys, TOKEN_LIFETIME, Wish};
pub use service::{Caller, TokenService};
pub use shape::{IdentityConfig, Shape};
pub use tokens::TokenError;
