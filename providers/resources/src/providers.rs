//! Resource providers: what there is, and which subscription has registered it.

use std::collections::BTreeMap;

use arm_ids::subscription_id;
use arm_kernel::{Items, Mode, Provider, expands};
use arm_wire::{ArmError, ErrorCode, Request, Response};
use control_records::{SubscriptionRecord, key};
use control_store::{StoreError, Txn, put_record};
use serde_json::{Value, json};

use crate::{NAMESPACE, ResourcesProvider, store_error, subscription};

/// What every subscription has registered.
const ALWAYS: &[&str] = &["microsoft.resources", "microsoft.authorization"];

/// Types of which resources have no location of their own.
const GLOBAL: &[&str] = &["operations"];

/// What `$expand` may ask for: the metadata is always shown; of no type are there aliases.
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

    /// Registers a provider for the subscription, or no longer.
    pub(crate) async fn register(
        &self,
        request: &Request,
        wanted: bool,
        mode: Mode,
    ) -> Result<Response, ArmError> {
        let provider = self.provider(request)?;
        let name = provider.namespace().to_ascii_lowercase();
        loop {
            let mut found = self.subscription(subscription(request)?).await?;
            if found.value.registered.contains(&name) != wanted {
                if wanted {
                    found.value.registered.push(name.clone());
                } else {
                    found.value.registered.retain(|other| *other != name);
                }
                let key = key::subscription(&found.value.id);
                if mode == Mode::Preview {
                    return Ok(Response::ok(self.provider_body(
                        provider,
                        Some(&found.value),
                        false,
                    )));
                }
                let txn = Txn::default()
                    .at(&key, found.revision)
                    .with(put_record(&key, &found.value));
                match self.store.txn(txn).await {
                    Ok(_) => {}
                    Err(StoreError::Conflict { .. }) => continue,
                    Err(error) => return Err(store_error(error)),
                }
            }
            return Ok(Response::ok(self.provider_body(
                provider,
                Some(&found.value),
                false,
            )));
        }
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
                    // `az resource` takes the first.
                    "apiVersions": versions,
                    "capabilities": "None",
                });
                if aliases {
                    kind["aliases"] = json!([]);
                }
                kind
            })
            .collect();
        let mut body = json!({
            "namespace": namespace,
            "registrationPolicy": "RegistrationRequired",
            "resourceTypes": types,
        });
        match subscription {
            None => body["id"] = json!(format!("/providers/{namespace}")),
            Some(record) => {
                let lower = namespace.to_ascii_lowercase();
                let registered = ALWAYS.contains(&lower.as_str()) || record.registered.contains(&lower);
                body["id"] = json!(format!("{}/providers/{namespace}", subscription_id(&record.id)));
                body["registrationState"] = json!(if registered { "Registered" } else { "NotRegistered" });
            }
        }
        body
    }
}
