//! Tenants, subscriptions, locations.

use arm_ids::subscription_id;
use arm_kernel::Items;
use arm_wire::{ArmError, ErrorCode, Request, Response};
use control_records::{SubscriptionRecord, key};
use control_store::{Store, Stored, get_record, list_records};
use serde_json::{Value, json};

use crate::{ResourcesProvider, store_error, subscription};

impl ResourcesProvider {
    pub(crate) fn tenants(&self) -> Items {
        let tenant = &self.config.tenant_id;
        Items::ById(vec![json!({
            "id": format!("/tenants/{tenant}"),
            "tenantId": tenant,
            "displayName": self.config.tenant_name,
            "tenantCategory": "Home",
        })])
    }

    pub(crate) async fn list_subscriptions(&self) -> Result<Items, ArmError> {
        let (all, _) = list_records::<SubscriptionRecord>(&*self.store, key::SUBSCRIPTIONS)
            .await
            .map_err(store_error)?;
        let bodies = all
            .into_iter()
            .map(|(_, stored)| subscription_body(&stored.value));
        Ok(Items::ById(bodies.collect()))
    }

    pub(crate) async fn get_subscription(&self, request: &Request) -> Result<Response, ArmError> {
        Ok(Response::ok(subscription_body(
            &self.subscription(subscription(request)?).await?.value,
        )))
    }

    pub(crate) async fn locations(&self, request: &Request) -> Result<Items, ArmError> {
        let subscription = self.subscription(subscription(request)?).await?.value.id;
        let id = subscription_id(&subscription);
        let (name, display) = (&self.config.location, &self.config.location_display);
        Ok(Items::ById(vec![json!({
            "id": format!("{id}/locations/{name}"),
            "subscriptionId": subscription,
            "name": name,
            "type": "Region",
            "displayName": display,
            "regionalDisplayName": display,
            "metadata": { "regionType": "Physical", "regionCategory": "Recommended", "pairedRegion": [] },
        })]))
    }

    /// A subscription.
    pub(crate) async fn subscription(&self, id: &str) -> Result<Stored<SubscriptionRecord>, ArmError> {
        find(&*self.store, id).await
    }
}

/// A subscription.
pub(crate) async fn find(store: &dyn Store, id: &str) -> Result<Stored<SubscriptionRecord>, ArmError> {
    let found = get_record(store, &key::subscription(id))
        .await
        .map_err(store_error)?;
    found.ok_or_else(|| {
        ArmError::new(
            ErrorCode::SUBSCRIPTION_NOT_FOUND,
            format!("The subscription '{id}' could not be found."),
        )
    })
}

fn subscription_body(record: &SubscriptionRecord) -> Value {
    json!({
        "id": subscription_id(&record.id),
        "subscriptionId": record.id,
        "tenantId": record.tenant_id,
        "displayName": record.display_name,
        "state": record.state.as_str(),
        "authorizationSource": "RoleBased",
        "managedByTenants": [],
        "subscriptionPolicies": {
            "locationPlacementId": "Internal_2014-09-01",
            "quotaId": "Internal_2014-09-01",
            "spendingLimit": "Off",
        },
    })
}
