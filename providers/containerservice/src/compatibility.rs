//! The compatibility page: what works, computed from the same tables that requests are checked with.

use std::fmt::Write as _;

use arm_kernel::{
    Gate, Namespace as _, Route, Scope, Shape, Verb, routes,
    schema::{Access, Class, Property},
};

use crate::{API_VERSIONS, ContainerService, HistoryApi, usages};

/// The operations of other namespaces, for the page.
#[derive(Debug, Default)]
pub struct OtherRoutes {
    /// Of `Microsoft.Resources`.
    pub resources: Vec<Route>,
    /// Of `Microsoft.Authorization`.
    pub authorization: Vec<Route>,
    /// Of `Microsoft.ManagedIdentity`.
    pub identities: Vec<Route>,
    /// Of `Microsoft.ContainerRegistry`.
    pub registries: Vec<Route>,
    /// Of `Microsoft.Insights`.
    pub insights: Vec<Route>,
    /// Of `Microsoft.Compute`.
    pub compute: Vec<Route>,
    /// Of `Microsoft.Network`.
    pub network: Vec<Route>,
    /// Of `Microsoft.Features`.
    pub features: Vec<Route>,
}

/// The page `docs/reference/compatibility.md`, in Markdown.
pub fn compatibility(others: &OtherRoutes) -> String {
    let mut page = String::from(
        "# Compatibility with the AKS API\n\n\
         This page is generated from the tables that requests are checked with (`cargo xtask docs`); do not edit it.\n\n\
         ## API versions\n\nAccepted: ",
    );
    page.push_str(&API_VERSIONS.join(", "));
    page.push_str(".\n\n## Operations\n\n");
    let routes = routes::<ContainerService>();
    let stable = routes.iter().filter(|route| route.path != usages::TYPE.path);
    let (works, all) = (stable.clone().filter(|route| route.works).count(), stable.count());
    let rest = if works == all {
        ""
    } else {
        "; the others answer 501 and name themselves"
    };
    line(
        &mut page,
        &format!("{works} of {all} stable operations work{rest}.\n"),
    );
    operations(&mut page, &routes);
    page.push_str(
        "\nOf private endpoints and private links, service meshes and outbound dependencies a stamp has none: their lists are empty, and \
         that is true.\n",
    );
    page.push_str(
        "\nRequests beyond a principal's budget are answered with 429, `SubscriptionRequestsThrottled` or `TenantRequestsThrottled`, and \
         `Retry-After`; answers say what is left (`x-ms-ratelimit-remaining-subscription-reads` and its like), as Azure's do. The figures are the \
         operator's ([guide](../guides/quotas.md#how-many-requests)).\n",
    );
    page.push_str(
        "\n## Properties\n\n\
         *effective*: acted on. *reported*: the service says it; ignored in requests. *kept, no effect yet*: validated and given back; nothing is \
         there that would act on it. *refused*: answered with `PropertyNotSupported`, but for the values named, which are what \
         happens anyway; where none is named, for false and empty. Null and empty strings mean absent; enum values ignore case. Each api-version \
         shows what it has, refuses what came later, and keeps what it cannot name.\n\n",
    );
    let schemas = || ContainerService::TYPES.iter().filter_map(|kind| kind.schema);
    page.push_str("| | effective | reported | kept, no effect yet | refused |\n|---|---|---|---|---|\n");
    for schema in schemas() {
        let count = |word: &str| {
            let properties = (schema.table)().of(schema.resource);
            properties.filter(|property| class(property) == word).count()
        };
        let counts =
            ["effective", "reported", "kept, no effect yet", "refused"].map(|word| count(word).to_string());
        line(
            &mut page,
            &format!("| {} | {} |", schema.title, counts.join(" | ")),
        );
    }
    for schema in schemas() {
        let title = schema.title;
        line(
            &mut page,
            &format!("\n### {title}\n\n| property | | accepted | note |\n|---|---|---|---|"),
        );
        for property in (schema.table)().of(schema.resource) {
            if property.class == Class::Group && property.access != Access::ReadOnly {
                continue;
            }
            let path = property.path;
            line(
                &mut page,
                &format!(
                    "| `{path}` | {} | {} | {} |",
                    class(property),
                    accepted(property),
                    note(property)
                ),
            );
        }
    }
    page.push_str(
        "\n## Resource groups, deployments and tags\n\n\
         Of `Microsoft.Resources`. At tenant scope the path is what follows `/`; at the scope of a resource it follows the resource's id and \
         `/providers/Microsoft.Resources/`.\n\n",
    );
    operations(&mut page, &others.resources);
    page.push_str(
        "\n## Roles and locks\n\n\
         Of `Microsoft.Authorization`. At any scope: the path follows `/`, or the id of a subscription, a group or a resource, and \
         `/providers/Microsoft.Authorization/`.\n\n",
    );
    operations(&mut page, &others.authorization);
    page.push_str(
        "\n## Managed identities\n\n\
         Of `Microsoft.ManagedIdentity`. Each is a real principal that can be given roles. It logs in with a token of an issuer that one of \
         its federated credentials names; there is no metadata service that hands out tokens.\n\n",
    );
    operations(&mut page, &others.identities);
    page.push_str(
        "\n## Registries of images\n\n\
         Of `Microsoft.ContainerRegistry` ([guide](../guides/registry.md)). A registry's login server is the stamp's own endpoint and the registry's \
         name, `HOST:PORT/NAME`; tiers differ in how much a registry holds. The image API works as far as clients of the distribution specification \
         and `az acr repository` need it; attributes of repositories cannot be changed. There are no admin users, tokens with scope maps, \
         webhooks, replications, tasks, caches of other registries (no pull-through), imports and private endpoints; `az aks check-acr` runs an image \
         of another registry and works only where that can be pulled.\n\n",
    );
    operations(&mut page, &others.registries);
    page.push_str(
        "\n## The activity log and metrics\n\n\
         Of `Microsoft.Insights`. The log has each write, each credential that was handed out and each refusal, as long as they are kept (90 days, 5,000 \
         of what was done and 1,000 of what was refused for each subscription). The same, oldest first, is at \
         `Landfall.ContainerService/activities`. Metrics are those of clusters, under AKS' names; a cluster is read each minute from the first \
         question about it until an hour after the last, and a day of that is kept in memory: what was before is a gap.\n\n",
    );
    operations(&mut page, &others.insights);
    page.push_str(
        "\n## Machines\n\n\
         Of `Microsoft.Compute`: the pools of clusters as scale sets, their nodes as instances, and the disks of those, in the group of \
         each cluster's nodes. They show the records of the machines and are changed through cluster and pools. Disks and snapshots of disks are also \
         made by tenants, in any group: empty ones, and copies ([guide](../guides/volumes.md#disks-of-your-own)).\n\n",
    );
    operations(&mut page, &others.compute);
    page.push_str(
        "\n## Networks\n\n\
         Of `Microsoft.Network`: what each cluster has, in the group of its nodes: its VNET and the subnet of its nodes, the addresses that it has \
         leased, what stands before its API server and before its Services of type LoadBalancer (`kubernetes`, `kubernetes-internal`: frontends and \
         nodes; ports are the cluster's to tell, so there are no rules and no probes), the rules that hold for its nodes, the routes to its pods; and the virtual networks, subnets, \
         network security groups and public IP addresses that tenants make. Services can have those addresses (`azure-pip-name`, \
         [guide](../guides/load-balancers.md#addresses-of-your-own)). Clusters can be put into those subnets (`vnetSubnetID`, [guide](../guides/networks.md)); rules of \
         security groups that subnets go by hold for the nodes in them.\n\n",
    );
    operations(&mut page, &others.network);
    page.push_str(
        "\n## Preview features\n\nOf `Microsoft.Features`: there are none, and nothing has to be registered.\n\n",
    );
    operations(&mut page, &others.features);
    page.push_str(
        "\n## Landfall's own\n\n\
         Of `Landfall.ContainerService`, a namespace beside Azure's: the history of clusters, credentials that were handed out, rehearsals of upgrades, \
         planned work; and what operators read: alerts, usage by the hour, certificates ([guide](../guides/monitoring.md)). There is nothing of Azure's \
         with the same content: AKS on Azure Stack Hub showed alerts and usage in the operator's portal, by APIs of the stamp itself. Alerts about the \
         stamp are shown to callers who may read alerts at `/`.\n\n",
    );
    operations(&mut page, &arm_kernel::routes::<HistoryApi>());
    page
}

/// A table of operations.
fn operations(page: &mut String, routes: &[Route]) {
    page.push_str("| operation | method | scope | path | permission | |\n|---|---|---|---|---|---|\n");
    for route in routes {
        let scope = match route.scope {
            Scope::Tenant => "tenant",
            Scope::Subscription => "subscription",
            Scope::ResourceGroup => "resource group",
            Scope::Resource => "resource",
            Scope::Any => "any",
        };
        let status = if route.works { "works" } else { "not yet" };
        line(
            page,
            &format!(
                "| {} | {} | {scope} | `{}` | {} | {status} |",
                route.name,
                route.verb.method(),
                path(route),
                permission(route)
            ),
        );
    }
}

/// What a caller needs.
fn permission(route: &Route) -> String {
    let action = route.action();
    match route.gate {
        Gate::Action => format!("`{action}`"),
        Gate::Anybody => "none".to_owned(),
        Gate::Reaches | Gate::ItemsReached => "any at, above or below it".to_owned(),
        Gate::Items => format!("`{action}` of each item shown"),
        Gate::ItemsByType => "reading of each item shown".to_owned(),
    }
}

/// A route's path below the namespace, e.g. `managedClusters/{name}/abort`.
fn path(route: &Route) -> String {
    let mut segments: Vec<&str> = route.path.split('/').flat_map(|kind| [kind, "{name}"]).collect();
    if route.verb.shape() == Shape::Collection {
        segments.pop();
    }
    if let Verb::Action(action) = route.verb {
        segments.push(action);
    }
    segments.join("/")
}

fn line(page: &mut String, text: &str) {
    // Writing to a String does not fail.
    let _ = writeln!(page, "{text}");
}

fn class(property: &Property) -> &'static str {
    match (property.access, property.class) {
        (Access::ReadOnly, _) => "reported",
        (_, Class::Works) => "effective",
        (_, Class::Kept) => "kept, no effect yet",
        (_, Class::Default | Class::Present | Class::NotYet) => "refused",
        (_, Class::Group) => "",
    }
}

fn accepted(property: &Property) -> String {
    if property.access == Access::ReadOnly {
        return String::new();
    }
    if property.class == Class::Present {
        return "the present value".to_owned();
    }
    let values = if property.accepts.is_empty() && property.class != Class::NotYet {
        &property.choices
    } else {
        &property.accepts
    };
    match (values.as_slice(), property.minimum, property.maximum) {
        ([], Some(minimum), Some(maximum)) if property.class != Class::NotYet => {
            format!("{minimum} to {maximum}")
        }
        (values, _, _) => {
            let quoted: Vec<String> = values.iter().map(|value| format!("`{value}`")).collect();
            quoted.join(", ")
        }
    }
}

fn note(property: &Property) -> String {
    let mut parts: Vec<String> = Vec::new();
    if property.create {
        parts.push("only at creation".to_owned());
    }
    parts.extend(property.since.map(|since| format!("since {since}")));
    parts.extend(property.last.map(|last| format!("until {last}")));
    parts.extend((!property.note.is_empty()).then(|| property.note.to_owned()));
    parts.join("; ")
}
