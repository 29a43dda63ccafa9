//! `Microsoft.Authorization`: roles, assignments and locks; and the authorization decision.
//!
//! All types are extensions, at any scope: `{scope}/providers/Microsoft.Authorization/…`.
//!
//! Always true: a response reflects the store, and a change takes effect with the next request
//! ([`RoleAuthorizer`] has no cache); a caller needs permission to assign roles at the scope of an
//! assignment; none is made at a scope that is being deleted.
//!
//! Called by: the edge, for its types and for each request; the assembly.

mod assignments;
mod authorizer;
mod body;
mod definitions;
mod locks;
mod permissions;
mod place;
mod types;
mod written;

use std::sync::Arc;

use arm_kernel::Host;
use base_env::Env;
use control_store::Store;

pub use authorizer::RoleAuthorizer;

/// The namespace.
pub const NAMESPACE: &str = "Microsoft.Authorization";

/// The provider.
pub struct Authorization {
    env: Env,
    store: Arc<dyn Store>,
    tenant: String,
}

impl Authorization {
    /// A provider over a store; `tenant` is the GUID of the stamp's tenant.
    pub fn new(env: Env, store: Arc<dyn Store>, tenant: impl Into<String>) -> Self {
        Self {
            env,
            store,
            tenant: tenant.into(),
        }
    }
}

impl Host for Authorization {
    /// The GUID of the tenant.
    type Config = String;

    fn config(&self) -> &String {
        &self.tenant
    }

    fn env(&self) -> &Env {
        &self.env
    }

    fn store(&self) -> &dyn Store {
        &*self.store
    }

    /// No operation of this provider is long-running.
    fn location(&self) -> &str {
        ""
    }
}
