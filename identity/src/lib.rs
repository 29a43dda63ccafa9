//! Who asks: principals, their secrets, and a token service that the Azure CLI accepts as AAD or as AD FS.
//!
//! Always true: a secret is stored as a salted hash only, and is compared in constant time; guessing is bounded before it costs anything; no secret and no token is
//! ever logged or part of a `Debug`; a token is good for one hour, for one audience, and only while its principal exists.
//!
//! Called by: the edge ([`TokenService::answer`] for its HTTP paths, [`TokenService::authenticate`] for every ARM request)
//! and the binary (first principals with [`create_principal`], [`SigningKey`], [`EndpointTls`]).

mod device;
mod endpoint_tls;
mod form;
mod grants;
mod keys;
mod page;
mod principals;
mod secret;
mod service;
mod shape;
mod throttle;
mod tokens;

pub use endpoint_tls::{EndpointCa, EndpointTls, TlsError};
pub use keys::{KeyError, SigningKey};
pub use principals::{IdentityError, NewPrincipal, create_principal, find_principal};
pub use secret::{Secret, generate_secret, hash_secret, is_outdated, verify_secret};
pub use service::{Caller, TokenService};
pub use shape::{IdentityConfig, Shape};
pub use tokens::{TOKEN_LIFETIME, TokenError};
