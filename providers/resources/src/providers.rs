//! Resource providers, and their registration in subscriptions.

use std::collections::BTreeMap;

use arm_ids::subscription_id;
use arm_kernel::{Items, Mode, Provider, expands};
use arm_wire::{ArmError, ErrorCode, Request, Response};
use control_records::{SubscriptionRecord, key, needs_registration};
use control_store::{StoreError, Txn, put_record};
use serde_json::{Value, json};

use crate::{NAMESPACE, ResourcesProvider, store_error, subscription};

/// Types whose resources have no location.
const GLOBAL: &[&str] = &["operations"];

/// Values of `$expand`: the metadata is always shown; no type has aliases.
pub(crate) const EXPANDED: &[&str] = &["metadata", ALIASES];
const ALIASES: &str = "resourceTypes/aliases";

impl ResourcesProvider {
    pub(crate) async fn list_providers(&self, request: &Request) -> Result<Items, ArmError> {
        let registered = self.registered(request).await?;
        let own: &dyn Provider = self;
        let all = self.others.iter().map(|provider| &**provider).chain([own]);
        let aliases = expands(request, ALIASES);
        let bodies = all.map(|provider| self.provider_body(provider, registered.as_ref(), aliases));
        Ok(Items::ById(bodies.collect()))
    }

    pub(crate) async fn get_provider(&self, request: &Request) -> Result<Response, ArmError> {
        let registered = self.registered(request).await?;
        Ok(Response::ok(self.provider_body(
            self.provider(request)?,
            registered.as_ref(),
            expands(request, ALIASES),
        )))
    }

    /// Registers a provider for the subscription, or unregisters it, where it has no resources there.
    pub(crate) async fn register(
        &self,
        request: &Request,
        wanted: bool,
        mode: Mode,
    ) -> Result<Response, ArmError> {
        let provider = self.provider(request)?;
        let (namespace, id) = (provider.namespace(), subscription(request)?);
        let mut record = self.subscription(id).await?.value;
        if record.uses(namespace) != wanted {
            if !needs_registration(namespace) {
                let message = format!("Every subscription uses '{namespace}'; it cannot be unregistered.");
                return Err(ArmError::new(ErrorCode::OPERATION_NOT_ALLOWED, message));
            }
            if !wanted {
                self.check_unused(provider, id).await?;
            }
            set_registered(&mut record, namespace, wanted);
            if mode == Mode::Commit {
                record = self.set_registered(id, namespace, wanted).await?;
                // A request that was accepted before may have made a resource since: then unregistering is
                // undone and refused.
                if !wanted && let Err(used) = self.check_unused(provider, id).await {
                    self.set_registered(id, namespace, true).await?;
                    return Err(used);
                }
            }
        }
        Ok(Response::ok(self.provider_body(provider, Some(&record), false)))
    }

    /// Records whether a subscription uses a provider.
    async fn set_registered(
        &self,
        id: &str,
        namespace: &str,
        wanted: bool,
    ) -> Result<SubscriptionRecord, ArmError> {
        loop {
            let mut found = self.subscription(id).await?;
            set_registered(&mut found.value, namespace, wanted);
            let key = key::subscription(&found.value.id);
            let txn = Txn::default()
                .at(&key, found.revision)
                .with(put_record(&key, &found.value));
            match self.store.txn(txn).await {
                Ok(_) => return Ok(found.value),
                Err(StoreError::Conflict { .. }) => {}
                Err(error) => return Err(store_error(error)),
            }
        }
    }

    /// Refuses to unregister a provider with resources in a subscription.
    async fn check_unused(&self, provider: &dyn Provider, subscription: &str) -> Result<(), ArmError> {
        let resources = provider.resources(subscription, None).await?;
        let Some(first) = resources.first() else {
            return Ok(());
        };
        let message = format!(
            "The resource provider '{}' cannot be unregistered: the subscription has {} of its resources, among them '{}'. Delete them first.",
            provider.namespace(),
            resources.len(),
            first["id"].as_str().unwrap_or_default()
        );
        Err(ArmError::new(ErrorCode::CONFLICT, message))
    }

    fn provider(&self, request: &Request) -> Result<&dyn Provider, ArmError> {
        let wanted = request.path.namespace.as_deref().unwrap_or_default();
        if wanted.eq_ignore_ascii_case(NAMESPACE) {
            return Ok(self);
        }
        let found = self
            .others
            .iter()
            .find(|provider| provider.namespace().eq_ignore_ascii_case(wanted));
        found.map(|provider| &**provider).ok_or_else(|| {
            ArmError::new(
                ErrorCode::INVALID_RESOURCE_NAMESPACE,
                format!("The resource namespace '{wanted}' is invalid."),
            )
        })
    }

    async fn registered(&self, request: &Request) -> Result<Option<SubscriptionRecord>, ArmError> {
        if request.path.subscription.is_none() {
            return Ok(None);
        }
        Ok(Some(self.subscription(subscription(request)?).await?.value))
    }

    fn provider_body(
        &self,
        provider: &dyn Provider,
        subscription: Option<&SubscriptionRecord>,
        aliases: bool,
    ) -> Value {
        let namespace = provider.namespace();
        let types: BTreeMap<&str, &[&str]> = provider
            .routes()
            .iter()
            .map(|route| (route.path, route.versions))
            .collect();
        let types: Vec<Value> = types
            .iter()
            .map(|(path, versions)| {
                let locations: &[&str] = if GLOBAL.contains(path) {
                    &[]
                } else {
                    &[self.config.location_display.as_str()]
                };
                let mut kind = json!({
                    "resourceType": path,
                    "locations": locations,
                    // `az resource` uses the first.
                    "apiVersions": versions,
                    "capabilities": "None",
                });
                if aliases {
                    kind["aliases"] = json!([]);
                }
                kind
            })
            .collect();
        let policy = if needs_registration(namespace) {
            "RegistrationRequired"
        } else {
            "RegistrationFree"
        };
        let mut body = json!({
            "namespace": namespace,
            "registrationPolicy": policy,
            "resourceTypes": types,
        });
        match subscription {
            None => body["id"] = json!(format!("/providers/{namespace}")),
            Some(record) => {
                let state = if record.uses(namespace) {
                    "Registered"
                } else {
                    "Unregistered"
                };
                body["id"] = json!(format!("{}/providers/{namespace}", subscription_id(&record.id)));
                body["registrationState"] = json!(state);
            }
        }
        body
    }
}

fn set_registered(record: &mut SubscriptionRecord, namespace: &str, wanted: bool) {
    record
        .unregistered
        .retain(|other| !other.eq_ignore_ascii_case(namespace));
    if !wanted {
        record.unregistered.push(namespace.to_ascii_lowercase());
    }
}
