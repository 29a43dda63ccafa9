//! From a path to its row, by the providers' types alone; for the edge, and for services that act for a
//! caller (a deployment's resources).

use std::sync::Arc;

use arm_ids::ResourcePath;
use arm_wire::{ArmError, ErrorCode, Response};
use http::Method;

use crate::{
    Call, Mode, TagsWish,
    provider::{Provider, Route},
    types::{Scope, Shape, Verb},
};

/// The provider of all paths without a namespace: `/subscriptions`, resource groups, `/…/providers`, …
///
/// Such a path is looked up as ARM names its type: `/subscriptions/{s}/resourceGroups/{g}` is the item
/// `subscriptions/resourceGroups` of this namespace, at tenant scope.
pub const GENERIC: &str = "Microsoft.Resources";

struct Entry {
    provider: Arc<dyn Provider>,
    routes: Vec<Arc<Route>>,
}

/// The providers of a stamp.
pub struct Registry {
    entries: Vec<Entry>,
}

/// The parts of a path that the tables compare.
struct View<'a> {
    namespace: &'a str,
    scope: Scope,
    types: Vec<&'a str>,
    /// Whether it was looked up as one of [`GENERIC`].
    generic: bool,
    shapes: &'static [Shape],
}

/// A path with a provider, before the method is looked at.
#[derive(Clone)]
pub struct Target {
    /// Its provider.
    pub provider: Arc<dyn Provider>,
    /// All routes at this path, any method; never empty.
    routes: Vec<Arc<Route>>,
    generic: bool,
}

impl Registry {
    /// A registry of these providers.
    pub fn new(providers: Vec<Arc<dyn Provider>>) -> Self {
        let entries = providers.into_iter().map(|provider| Entry {
            routes: provider.routes().into_iter().map(Arc::new).collect(),
            provider,
        });
        Self {
            entries: entries.collect(),
        }
    }

    fn entry(&self, namespace: &str) -> Result<&Entry, ArmError> {
        self.entries
            .iter()
            .find(|entry| entry.provider.namespace().eq_ignore_ascii_case(namespace))
            .ok_or_else(|| {
                ArmError::new(
                    ErrorCode::INVALID_RESOURCE_NAMESPACE,
                    format!(
                        "The resource namespace '{namespace}' is invalid: there is no such provider here."
                    ),
                )
            })
    }

    /// The api-versions of a namespace.
    ///
    /// # Errors
    /// When there is no such namespace.
    pub fn versions(&self, namespace: &str) -> Result<Vec<&'static str>, ArmError> {
        let mut versions: Vec<&'static str> = Vec::new();
        for route in &self.entry(namespace)?.routes {
            versions.extend(route.versions);
        }
        versions.sort_unstable_by(|a, b| b.cmp(a));
        versions.dedup();
        Ok(versions)
    }

    /// The operation of this name, of any namespace, for a stored long-running operation.
    pub fn operation(&self, name: &str) -> Option<&Route> {
        let mut routes = self.entries.iter().flat_map(|entry| &entry.routes);
        routes.find(|route| route.name == name).map(|route| &**route)
    }

    /// The resource type at a path.
    ///
    /// # Errors
    /// When there is none: names the unknown part of the path.
    pub fn target(&self, path: &ResourcePath) -> Result<Target, ArmError> {
        let view = self.view(path);
        if !view.generic {
            self.entry(view.namespace)?;
        } else if let Some(namespace) = &path.namespace {
            // `/subscriptions/{s}/providers/{ns}`: the namespace is the name of the item.
            self.entry(namespace)?;
        }
        let Entry { provider, routes } = self.entry(view.namespace)?;
        // The generic types are reached without their namespace, and have no parent.
        let reachable = if view.generic {
            path.parent.is_none()
        } else {
            !own_tenant_path(&view)
        };
        let here = |route: &Route| {
            reachable && (route.scope == view.scope || route.scope == Scope::Any && !view.generic)
        };
        let of_type: Vec<&Arc<Route>> = routes
            .iter()
            .filter(|route| here(route) && same_types(route, &view.types))
            .collect();
        let found: Vec<Arc<Route>> = of_type
            .iter()
            .copied()
            .filter(|route| view.shapes.contains(&route.verb.shape()))
            .cloned()
            .collect();
        if !found.is_empty() {
            return Ok(Target {
                provider: Arc::clone(provider),
                routes: found,
                generic: view.generic,
            });
        }
        let kind = view.types.join("/");
        if view.generic || !of_type.is_empty() {
            return Err(ArmError::new(
                ErrorCode::NOT_FOUND,
                format!("Nothing is served at '{path}'."),
            ));
        }
        Err(ArmError::new(
            ErrorCode::INVALID_RESOURCE_TYPE,
            format!(
                "The resource type '{kind}' could not be found in the namespace '{}' at this scope.",
                provider.namespace()
            ),
        ))
    }

    fn view<'a>(&self, path: &'a ResourcePath) -> View<'a> {
        const ITEM: &[Shape] = &[Shape::Item];
        const OPEN: &[Shape] = &[Shape::Collection, Shape::Action];
        let shapes = if path.types.len() > path.names.len() {
            OPEN
        } else {
            ITEM
        };
        match &path.namespace {
            Some(namespace) if !path.types.is_empty() && !self.is_provider_action(path) => View {
                namespace,
                scope: match (&path.parent, &path.subscription, &path.resource_group) {
                    (Some(_), _, _) => Scope::Resource,
                    (None, _, Some(_)) => Scope::ResourceGroup,
                    (None, Some(_), None) => Scope::Subscription,
                    (None, None, None) => Scope::Tenant,
                },
                types: path.types.iter().map(String::as_str).collect(),
                generic: false,
                shapes,
            },
            _ => {
                let mut types = Vec::new();
                if path.subscription.is_some() {
                    types.push("subscriptions");
                }
                if path.resource_group.is_some() {
                    types.push("resourceGroups");
                }
                if path.namespace.is_some() {
                    types.push("providers");
                }
                types.extend(path.types.iter().map(String::as_str));
                View {
                    namespace: GENERIC,
                    scope: Scope::Tenant,
                    types,
                    generic: true,
                    shapes,
                }
            }
        }
    }

    /// `/subscriptions/{s}/providers/{ns}/register` looks like a collection of the namespace and is an action on it.
    fn is_provider_action(&self, path: &ResourcePath) -> bool {
        path.subscription.is_some()
            && path.resource_group.is_none()
            && path.parent.is_none()
            && path.names.is_empty()
            && path.types.len() == 1
            && self.entry(GENERIC).is_ok_and(|generic| {
                generic.routes.iter().any(|route| {
                    route.path == "subscriptions/providers"
                        && matches!(route.verb, Verb::Action(action) if action.eq_ignore_ascii_case(&path.types[0]))
                })
            })
    }
}

impl Target {
    /// The route of a method.
    ///
    /// # Errors
    /// When the path has none of this method; with the methods that it has, for `Allow`.
    pub fn route(&self, method: &Method) -> Result<&Arc<Route>, (ArmError, String)> {
        let method = method.as_str();
        let found = self.routes.iter().find(|route| route.verb.method() == method);
        found.ok_or_else(|| {
            let mut allowed: Vec<&str> = self.routes.iter().map(|route| route.verb.method()).collect();
            allowed.sort_unstable();
            allowed.dedup();
            let allow = allowed.join(", ");
            // Only the known methods are repeated to the caller.
            (
                ArmError::new(
                    ErrorCode::METHOD_NOT_ALLOWED,
                    format!("This method is not allowed here; use {allow}."),
                ),
                allow,
            )
        })
    }

    /// Reads or changes the tags of the resource at the call's path, which is the path of this target.
    ///
    /// # Errors
    /// When it does not exist, has no tags or may not be changed.
    pub async fn tags(&self, call: &Call, wish: &TagsWish, mode: Mode) -> Result<Response, ArmError> {
        let route = self.routes.first();
        let route = route.ok_or_else(|| ArmError::internal("a target without a route"))?;
        self.provider.tags(route, call, wish, mode).await
    }

    /// The api-versions of the type, newest first.
    pub fn versions(&self) -> &'static [&'static str] {
        self.routes.first().map_or(&[], |route| route.versions)
    }

    /// Whether the path is a resource group itself.
    pub fn is_group(&self) -> bool {
        self.generic
            && self.routes.iter().any(|route| {
                route.path == "subscriptions/resourceGroups" && route.verb.shape() == Shape::Item
            })
    }
}

fn own_tenant_path(view: &View<'_>) -> bool {
    view.scope == Scope::Tenant && view.namespace.eq_ignore_ascii_case(GENERIC)
}

fn same_types(route: &Route, types: &[&str]) -> bool {
    let action = match route.verb {
        Verb::Action(action) => Some(action),
        _ => None,
    };
    // A fast path: every request compares all rows of its provider, and hardly any has the same length.
    let long = route.path.len() + action.map_or(0, |action| 1 + action.len());
    if types.iter().map(|kind| kind.len() + 1).sum::<usize>() != long + 1 {
        return false;
    }
    let mut own = route.path.split('/').chain(action);
    types
        .iter()
        .all(|kind| own.next().is_some_and(|own| own.eq_ignore_ascii_case(kind)))
        && own.next().is_none()
}
