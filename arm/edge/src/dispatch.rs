//! The dispatcher: from a parsed path to a provider's route, by the providers' tables alone.

use std::sync::Arc;

use arm_ids::ResourcePath;
use arm_wire::{ArmError, ErrorCode, Provider, Route, Scope, Shape};
use http::Method;

/// The provider of all paths without a namespace: `/subscriptions`, resource groups, `/…/providers`, …
///
/// Such a path is looked up as ARM names its type: `/subscriptions/{s}/resourceGroups/{g}` is the item
/// `subscriptions/resourceGroups` of this namespace, at tenant scope.
pub(crate) const GENERIC: &str = "Microsoft.Resources";

/// The providers of a stamp.
pub(crate) struct Table {
    providers: Vec<Arc<dyn Provider>>,
}

/// A path as the tables know it.
struct View {
    namespace: String,
    scope: Scope,
    types: Vec<String>,
    /// Whether it was looked up as one of [`GENERIC`].
    generic: bool,
    shapes: &'static [Shape],
}

/// A path with a provider, before the method is looked at.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) provider: Arc<dyn Provider>,
    /// All routes at this path, any method.
    routes: Vec<&'static Route>,
    pub(crate) generic: bool,
}

impl Table {
    pub(crate) fn new(providers: Vec<Arc<dyn Provider>>) -> Self {
        Self { providers }
    }

    /// The provider of a namespace.
    pub(crate) fn provider(&self, namespace: &str) -> Result<&Arc<dyn Provider>, ArmError> {
        self.providers
            .iter()
            .find(|provider| provider.namespace().eq_ignore_ascii_case(namespace))
            .ok_or_else(|| {
                ArmError::new(
                    ErrorCode::INVALID_RESOURCE_NAMESPACE,
                    format!(
                        "The resource namespace '{namespace}' is invalid: there is no such provider here."
                    ),
                )
            })
    }

    /// What is served at a path.
    pub(crate) fn target(&self, path: &ResourcePath) -> Result<Target, ArmError> {
        let view = self.view(path);
        if !view.generic {
            self.provider(&view.namespace)?;
        } else if let Some(namespace) = &path.namespace {
            // `/subscriptions/{s}/providers/{ns}`: the namespace is the name of the item.
            self.provider(namespace)?;
        }
        let provider = self.provider(&view.namespace)?;
        // Nothing here offers extension resources, and the generic types are reached without their namespace.
        let reachable = path.parent.is_none() && (view.generic || !own_tenant_path(&view));
        let of_type: Vec<&'static Route> = provider
            .routes()
            .iter()
            .filter(|route| reachable && route.scope == view.scope && same_types(route.path, &view.types))
            .collect();
        let routes: Vec<&'static Route> = of_type
            .iter()
            .copied()
            .filter(|route| view.shapes.contains(&route.shape()))
            .collect();
        if !routes.is_empty() {
            return Ok(Target {
                provider: Arc::clone(provider),
                routes,
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

    fn view(&self, path: &ResourcePath) -> View {
        const ITEM: &[Shape] = &[Shape::Item];
        const OPEN: &[Shape] = &[Shape::Collection, Shape::Action];
        let shapes = if path.types.len() > path.names.len() {
            OPEN
        } else {
            ITEM
        };
        match &path.namespace {
            Some(namespace) if !path.types.is_empty() && !self.is_provider_action(path) => View {
                namespace: namespace.clone(),
                scope: match (&path.subscription, &path.resource_group) {
                    (_, Some(_)) => Scope::ResourceGroup,
                    (Some(_), None) => Scope::Subscription,
                    (None, None) => Scope::Tenant,
                },
                types: path.types.clone(),
                generic: false,
                shapes,
            },
            _ => {
                let mut types = Vec::new();
                if path.subscription.is_some() {
                    types.push("subscriptions".to_owned());
                }
                if path.resource_group.is_some() {
                    types.push("resourceGroups".to_owned());
                }
                if path.namespace.is_some() {
                    types.push("providers".to_owned());
                }
                types.extend(path.types.iter().cloned());
                View {
                    namespace: GENERIC.to_owned(),
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
            && self.provider(GENERIC).is_ok_and(|generic| {
                generic.routes().iter().any(|route| {
                    route
                        .path
                        .strip_prefix("subscriptions/providers/:")
                        .is_some_and(|action| action.eq_ignore_ascii_case(&path.types[0]))
                })
            })
    }
}

impl Target {
    /// The route of a method.
    pub(crate) fn route(&self, method: &Method) -> Result<&'static Route, (ArmError, String)> {
        let found = self.routes.iter().find(|route| route.method == method.as_str());
        found.copied().ok_or_else(|| {
            let mut allowed: Vec<&str> = self.routes.iter().map(|route| route.method).collect();
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

    /// Whether the path is the resource group itself.
    pub(crate) fn is_group(&self) -> bool {
        self.generic
            && self
                .routes
                .iter()
                .any(|route| same_path(route.path, "subscriptions/resourceGroups"))
    }
}

fn own_tenant_path(view: &View) -> bool {
    view.scope == Scope::Tenant && view.namespace.eq_ignore_ascii_case(GENERIC)
}

fn same_types(path: &str, types: &[String]) -> bool {
    let mut own = path.split('/').filter(|segment| !segment.is_empty());
    types.iter().all(|kind| {
        own.next()
            .is_some_and(|own| own.trim_start_matches(':').eq_ignore_ascii_case(kind))
    }) && own.next().is_none()
}

fn same_path(a: &str, b: &str) -> bool {
    a.trim_end_matches('/').eq_ignore_ascii_case(b)
}
