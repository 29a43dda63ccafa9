//! The tags API: the tags of a group, or of a resource of any provider, as an extension resource,
//! `{id}/providers/Microsoft.Resources/tags/default`.
//!
//! Always true: the tagged resource is read and written by its own type, so its preconditions, refusals,
//! operations and eTags hold here, too.

use arm_ids::ResourcePath;
use arm_kernel::{Call, Mode, Operation, Tags, TagsWish, Verb, quote, read_tags, schema::Problems, tags_at};
use arm_wire::{ArmError, ErrorCode, Request, Response};
use http::Method;
use serde_json::Value;

use crate::{ResourcesProvider, groups::Groups};

/// The row of GET.
pub(crate) const fn read(name: &'static str) -> Operation<ResourcesProvider> {
    Operation::read(Verb::Get, name, |provider, call| {
        Box::pin(provider.tags(call, Mode::Commit))
    })
}

/// The row of an operation that changes tags.
pub(crate) const fn write(verb: Verb, name: &'static str) -> Operation<ResourcesProvider> {
    Operation::write(
        verb,
        name,
        |provider, call| Box::pin(provider.tags(call, Mode::Commit)),
        |provider, call| Box::pin(provider.tags(call, Mode::Preview)),
    )
}

impl ResourcesProvider {
    async fn tags(&self, call: &Call, mode: Mode) -> Result<Response, ArmError> {
        let path = &call.request.path;
        if path
            .name(0)
            .is_none_or(|name| !name.eq_ignore_ascii_case("default"))
        {
            let message = format!("Nothing is served at '{path}'; the tags are called 'default'.");
            return Err(ArmError::new(ErrorCode::NOT_FOUND, message));
        }
        let wish = wish(&call.request)?;
        let mut request = call.request.clone();
        match &path.parent {
            None => {
                request.path = ResourcePath {
                    subscription: path.subscription.clone(),
                    resource_group: path.resource_group.clone(),
                    ..ResourcePath::default()
                };
                tags_at::<Groups>(self, &call.with(request), &wish, mode).await
            }
            Some(resource) => {
                let target = self.registry.target(resource)?;
                if !resource.is_item() {
                    let message = format!("'{resource}' is no resource.");
                    return Err(ArmError::new(ErrorCode::NOT_FOUND, message));
                }
                request.path = (**resource).clone();
                // The api-version of tags does not apply to the resource.
                let newest = target.versions().first().copied().unwrap_or_default();
                newest.clone_into(&mut request.api_version);
                target.tags(&call.with(request), &wish, mode).await
            }
        }
    }
}

/// The contents of a request.
fn wish(request: &Request) -> Result<TagsWish, ArmError> {
    let body = &request.body;
    match request.method {
        Method::PUT => Ok(TagsWish::Replace(tags(body)?)),
        Method::PATCH => {
            let operation = body["operation"].as_str().unwrap_or_default();
            match operation.to_ascii_lowercase().as_str() {
                "replace" => Ok(TagsWish::Replace(tags(body)?)),
                "merge" => Ok(TagsWish::Merge(tags(body)?)),
                "delete" => Ok(TagsWish::Remove(tags(body)?)),
                _ => {
                    let message = format!(
                        "The operation {} is none of 'Replace', 'Merge' and 'Delete'.",
                        quote(operation)
                    );
                    Err(ArmError::new(ErrorCode::INVALID_PARAMETER, message).target("operation"))
                }
            }
        }
        Method::DELETE => Ok(TagsWish::Clear),
        _ => Ok(TagsWish::Read),
    }
}

/// The tags of a body.
fn tags(body: &Value) -> Result<Tags, ArmError> {
    let mut problems = Problems::default();
    let tags = read_tags(body["properties"].get("tags"), &mut problems);
    problems.into_result()?;
    tags.ok_or_else(|| {
        let message = "The request needs a body with 'properties.tags'.";
        ArmError::new(ErrorCode::INVALID_REQUEST_CONTENT, message).target("properties.tags")
    })
}
