//! `locations/usages`: the use of a subscription's quota by clusters. `Microsoft.Compute` and
//! `Microsoft.Network` have others.

use arm_ids::same_location;
use arm_kernel::{Operation, ResourceType, Scope, Verb, quote, store_error};
use arm_wire::{ArmError, ErrorCode, Request, Response};
use control_records::usage::Usage;
use serde_json::{Value, json};

use crate::{ContainerService, api_versions::API_VERSIONS};

type Row = Operation<ContainerService>;

pub(crate) const TYPE: ResourceType<ContainerService> = ResourceType {
    path: "locations/usages",
    versions: API_VERSIONS,
    schema: None,
    members: None,
    operations: &[
        Row::read(Verb::List, "ContainerServiceUsages_List", |provider, call| {
            Box::pin(provider.usages(&call.request))
        })
        .at(Scope::Subscription),
    ],
};

impl ContainerService {
    async fn usages(&self, request: &Request) -> Result<Response, ArmError> {
        let asked = request.path.name(0).unwrap_or_default();
        if !same_location(asked, &self.config.location) {
            let message = format!(
                "The location {} is not available here; use '{}'.",
                quote(asked),
                self.config.location
            );
            return Err(ArmError::new(ErrorCode::LOCATION_NOT_AVAILABLE, message).target("location"));
        }
        let usage = Usage::read(&*self.store).await.map_err(store_error)?;
        let own = usage
            .record
            .of(request.path.subscription.as_deref().unwrap_or_default());
        let limits = &self.config.limits;
        let lines = [
            (
                "ManagedClusters",
                "Managed Clusters",
                own.clusters,
                limits.clusters,
            ),
            ("Nodes", "Nodes", own.nodes, limits.nodes),
            ("Cores", "Total Regional Cores", own.all_cores(), limits.cores),
        ];
        let lines = lines.into_iter().map(|(name, title, value, most)| {
            json!({
                "unit": "Count",
                "currentValue": value,
                // Without a limit: the largest value that every client can hold.
                "limit": most.unwrap_or(i32::MAX as u64),
                "name": { "value": name, "localizedValue": title },
            })
        });
        Ok(Response::ok(json!({ "value": lines.collect::<Vec<Value>>() })))
    }
}
