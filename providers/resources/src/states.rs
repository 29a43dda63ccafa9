//! `Landfall.Subscription`: disabling and enabling subscriptions, for administrators of the stamp.
//!
//! | | |
//! |---|---|
//! | POST `/providers/Landfall.Subscription/subscriptions/{id}/disable` | it can be read, and its resources can be deleted; all else is refused |
//! | POST `…/subscriptions/{id}/enable` | all requests are accepted again |
//!
//! Azure's own operations (`Microsoft.Subscription/cancel`, `enable`) are at the subscription's scope, and
//! its owner may do both. An owner must not undo an operator's decision, so these are at the stamp's scope: a
//! role at `/` is needed.

use std::sync::Arc;

use arm_ids::subscription_id;
use arm_kernel::{Call, Mode, Namespace, Operation, ResourceType, Scope, Verb};
use arm_wire::{ArmError, Response};
use base_env::Env;
use control_records::{SubscriptionState, key};
use control_store::{Store, StoreError, Txn, put_record};
use serde_json::json;

use crate::{store_error, subscriptions::find};

/// The namespace.
pub const SUBSCRIPTIONS_NAMESPACE: &str = "Landfall.Subscription";
/// Its api-versions.
pub const SUBSCRIPTIONS_API_VERSIONS: &[&str] = &["2026-11-01"];

/// The provider.
pub struct Subscriptions {
    env: Env,
    store: Arc<dyn Store>,
}

impl Subscriptions {
    /// A provider over the store.
    pub fn new(env: Env, store: Arc<dyn Store>) -> Self {
        Self { env, store }
    }

    /// Sets the state of a subscription. A repeated request writes nothing.
    async fn set(&self, call: &Call, state: SubscriptionState, mode: Mode) -> Result<Response, ArmError> {
        let id = call.request.path.name(0).unwrap_or_default();
        loop {
            let mut found = find(&*self.store, id).await?;
            let told = json!({
                "id": subscription_id(&found.value.id),
                "subscriptionId": found.value.id,
                "displayName": found.value.display_name,
                "state": state.as_str(),
            });
            if found.value.state == state || mode == Mode::Preview {
                return Ok(Response::ok(told));
            }
            found.value.state = state;
            found.value.state_since = Some(self.env.clock.now());
            let key = key::subscription(&found.value.id);
            let txn = Txn::default()
                .at(&key, found.revision)
                .with(put_record(&key, &found.value));
            match self.store.txn(txn).await {
                Ok(_) => return Ok(Response::ok(told)),
                Err(StoreError::Conflict { .. }) => {}
                Err(error) => return Err(store_error(error)),
            }
        }
    }
}

type Row = Operation<Subscriptions>;

const SUBSCRIPTIONS: ResourceType<Subscriptions> = ResourceType {
    path: "subscriptions",
    versions: SUBSCRIPTIONS_API_VERSIONS,
    schema: None,
    members: None,
    operations: &[
        Row::write(
            Verb::Action("disable"),
            "Subscriptions_Disable",
            |own, call| Box::pin(own.set(call, SubscriptionState::Disabled, Mode::Commit)),
            |own, call| Box::pin(own.set(call, SubscriptionState::Disabled, Mode::Preview)),
        )
        .at(Scope::Tenant),
        Row::write(
            Verb::Action("enable"),
            "Subscriptions_Enable",
            |own, call| Box::pin(own.set(call, SubscriptionState::Enabled, Mode::Commit)),
            |own, call| Box::pin(own.set(call, SubscriptionState::Enabled, Mode::Preview)),
        )
        .at(Scope::Tenant),
    ],
};

impl Namespace for Subscriptions {
    const NAME: &'static str = SUBSCRIPTIONS_NAMESPACE;
    const TYPES: &'static [&'static ResourceType<Self>] = &[&SUBSCRIPTIONS];
}
