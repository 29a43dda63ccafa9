//! A stamp in memory where every caller has all permissions.

use std::{ops::Deref, sync::Arc};

use arm_kernel::{AccessControl, Provider};
use arm_testkit::{ARM, Parts, SECRET};
pub(crate) use arm_testkit::{Answer, SUBSCRIPTION, TENANT};
use arm_wire::PrincipalKind;
use providers_managedidentity::{ManagedIdentity, ManagedIdentityConfig};
use serde_json::Value;

pub(crate) struct Stamp {
    inner: arm_testkit::Stamp,
    token: String,
}

impl Deref for Stamp {
    type Target = arm_testkit::Stamp;

    fn deref(&self) -> &arm_testkit::Stamp {
        &self.inner
    }
}

impl Stamp {
    /// A stamp with the group `g`.
    pub(crate) async fn new() -> Self {
        let inner = arm_testkit::Stamp::new(&[], |env, store| {
            let config = ManagedIdentityConfig {
                location: "local".to_owned(),
                location_display: "Local Region".to_owned(),
                tenant_id: TENANT.to_owned(),
            };
            let own = ManagedIdentity::new(config, env.clone(), Arc::clone(store));
            Parts {
                providers: vec![Arc::new(own) as Arc<dyn Provider>],
                access: AccessControl::allow_all(),
            }
        })
        .await;
        inner.principal(PrincipalKind::Application, "owner").await;
        let token = inner.client_token("owner", SECRET, ARM).await.unwrap();
        inner.group(&token, "g").await;
        Self { inner, token }
    }

    pub(crate) async fn ask(&self, method: &str, path: &str, body: Option<Value>) -> Answer {
        self.inner.ask(&self.token, method, path, body).await
    }

    /// Runs a reaper until the returned handle is aborted.
    pub(crate) fn reaper(&self) -> tokio::task::JoinHandle<()> {
        let own = self.providers.iter().take(1).cloned();
        self.inner.reaper(own.collect())
    }
}
