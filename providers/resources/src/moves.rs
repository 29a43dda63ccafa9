//! Moving resources to another group. No type can be moved, as managed clusters cannot in Azure: the response
//! says so, after the request was found to be valid.
//!
//! Always true: nothing is changed, so validation and the move have the same response.

use arm_ids::ResourcePath;
use arm_kernel::{Call, Operation, Scope, Verb, quote, schema::Problems};
use arm_wire::{ArmError, ErrorCode, Response};
use serde_json::Value;

use crate::ResourcesProvider;

/// The most resources of one request, as in ARM.
const MOST: usize = 800;

/// The row of an action of a group.
pub(crate) const fn row(action: &'static str, name: &'static str) -> Operation<ResourcesProvider> {
    Operation::<ResourcesProvider>::write(
        Verb::Action(action),
        name,
        |provider, call| Box::pin(provider.refuse_move(call)),
        |provider, call| Box::pin(provider.refuse_move(call)),
    )
    .at(Scope::Tenant)
}

impl ResourcesProvider {
    async fn refuse_move(&self, call: &Call) -> Result<Response, ArmError> {
        let path = &call.request.path;
        let subscription = path.subscription.as_deref().unwrap_or_default();
        let group = path.resource_group.as_deref().unwrap_or_default();
        let asked = asked(&call.request.body, subscription, group)?;
        let mut kinds = Vec::new();
        for provider in &self.others {
            for resource in provider.resources(subscription, Some(group)).await? {
                let id = resource["id"].as_str().unwrap_or_default();
                let Ok(id) = ResourcePath::parse(id) else { continue };
                if asked.iter().any(|wanted| wanted.same(&id)) {
                    kinds.push(id);
                }
            }
        }
        if let Some(missing) = asked
            .iter()
            .find(|wanted| !kinds.iter().any(|id| id.same(wanted)))
        {
            let message = format!("The resource {} was not found.", quote(&missing.to_string()));
            return Err(ArmError::new(ErrorCode::RESOURCE_NOT_FOUND, message).target("resources"));
        }
        let mut names: Vec<String> = kinds.iter().map(ResourcePath::full_type).collect();
        names.sort();
        names.dedup();
        let message = format!(
            "Resource move is not supported for resource types '{}'.",
            names.join(",")
        );
        Err(ArmError::new(ErrorCode::RESOURCE_MOVE_NOT_SUPPORTED, message))
    }
}

/// The resources in a body: of the group of the path, and to another one.
fn asked(body: &Value, subscription: &str, group: &str) -> Result<Vec<ResourcePath>, ArmError> {
    let mut problems = Problems::default();
    let ids = body["resources"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    if ids.is_empty() || ids.len() > MOST {
        let message = format!("'resources' has to be a list of 1 to {MOST} ids of resources.");
        problems.add(ErrorCode::INVALID_PARAMETER, "resources", message);
    }
    let mut asked = Vec::new();
    for (index, id) in ids.iter().take(MOST).enumerate() {
        let here = |path: &ResourcePath| {
            let own =
                |of: &Option<String>, name: &str| of.as_ref().is_some_and(|of| of.eq_ignore_ascii_case(name));
            path.is_item()
                && path.namespace.is_some()
                && own(&path.subscription, subscription)
                && own(&path.resource_group, group)
        };
        let path = id.as_str().and_then(|id| ResourcePath::parse(id).ok());
        match path.filter(here) {
            Some(path) => asked.push(path),
            None => {
                let message = format!("This is no id of a resource of the group {}.", quote(group));
                problems.add(
                    ErrorCode::INVALID_PARAMETER,
                    format!("resources[{index}]"),
                    message,
                );
            }
        }
    }
    let target = body["targetResourceGroup"].as_str().unwrap_or_default();
    let target = ResourcePath::parse(target).ok();
    let is_group = target.is_some_and(|target| target.resource_group.is_some() && target.namespace.is_none());
    if !is_group {
        let message = "'targetResourceGroup' has to be the id of a resource group.";
        problems.add(ErrorCode::INVALID_PARAMETER, "targetResourceGroup", message);
    }
    problems.into_result()?;
    Ok(asked)
}
