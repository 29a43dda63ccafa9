//! A stamp in memory where every caller has all permissions.

use std::{ops::Deref, sync::Arc};

use arm_kernel::{AccessControl, Provider};
use arm_testkit::{ARM, Parts, SECRET};
pub(crate) use arm_testkit::{Answer, SUBSCRIPTION};
use arm_wire::PrincipalKind;
use async_trait::async_trait;
use providers_containerregistry::{ContainerRegistry, ContainerRegistryConfig, Occupancy, OccupancyError};
use serde_json::Value;

/// Each registry holds this much.
pub(crate) const BYTES: u64 = 4096;

struct Constant;

#[async_trait]
impl Occupancy for Constant {
    async fn bytes(&self, _: &str) -> Result<u64, OccupancyError> {
        Ok(BYTES)
    }
}

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
    /// A stamp with the groups `g` and `h`; with images, or without.
    pub(crate) async fn new(images: bool) -> Self {
        let inner = arm_testkit::Stamp::new(&[], |env, store| {
            let config = ContainerRegistryConfig {
                location: "local".to_owned(),
                location_display: "Local Region".to_owned(),
                host: "127.0.0.1:8443".to_owned(),
            };
            let occupancy = images.then(|| Arc::new(Constant) as Arc<dyn Occupancy>);
            let own = ContainerRegistry::new(config, env.clone(), Arc::clone(store), occupancy);
            Parts {
                providers: vec![Arc::new(own) as Arc<dyn Provider>],
                access: AccessControl::allow_all(),
            }
        })
        .await;
        inner.principal(PrincipalKind::Application, "owner").await;
        let token = inner.client_token("owner", SECRET, ARM).await.unwrap();
        for group in ["g", "h"] {
            inner.group(&token, group).await;
        }
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
