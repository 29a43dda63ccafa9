//! Every route of the registry for every kind of principal. The expected results follow from the documented
//! purpose of the roles, not from their patterns; the whole table is stored beside the test, to be reviewed.
//! A test of the simulation, which has all routes, checks that no operation is without a row.

use std::fmt::Write as _;

use arm_ids::ResourcePath;
use arm_kernel::{GENERIC, Gate, Route, Scope, Shape, Verb, scope_of};
use control_records::access::{AssignmentRecord, Stamped};
use control_store::Txn;
use serde_json::json;

use crate::stamp::{OTHER, SUBSCRIPTION, Stamp, Who, cluster_id, group_id, role_id, subscription_id};

/// A kind of principal: a letter for the table, a role, and its scope.
struct Kind {
    letter: char,
    role: Option<&'static str>,
    scopes: Vec<String>,
    becomes: Becomes,
}

/// A change of a principal that has its role.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Becomes {
    /// No change.
    Itself,
    /// A group has the role, and the principal is in a group of that group.
    Member,
    /// It is removed.
    Deleted,
    /// It is disabled.
    Disabled,
}

fn kinds() -> Vec<Kind> {
    let kind = |letter, role, scopes| Kind {
        letter,
        role,
        scopes,
        becomes: Becomes::Itself,
    };
    let other = vec![format!("/subscriptions/{OTHER}"), group_id("h")];
    vec![
        kind('O', Some("Owner"), vec!["/".to_owned()]),
        kind('C', Some("Contributor"), vec![subscription_id()]),
        kind('R', Some("Reader"), vec![subscription_id()]),
        kind(
            'A',
            Some("Azure Kubernetes Service Cluster Admin Role"),
            vec![cluster_id("g")],
        ),
        kind(
            'U',
            Some("Azure Kubernetes Service Cluster User Role"),
            vec![cluster_id("g")],
        ),
        kind('X', Some("Owner"), other),
        kind('N', None, Vec::new()),
        Kind {
            becomes: Becomes::Deleted,
            ..kind('D', Some("Owner"), vec!["/".to_owned()])
        },
        Kind {
            becomes: Becomes::Disabled,
            ..kind('I', Some("Owner"), vec!["/".to_owned()])
        },
        Kind {
            becomes: Becomes::Member,
            ..kind('G', Some("Contributor"), vec![subscription_id()])
        },
    ]
}

/// The documented purpose of each role.
fn known_for(role: &str, action: &str) -> bool {
    let action = action.to_ascii_lowercase();
    let cluster = "microsoft.containerservice/managedclusters";
    match role {
        "Owner" => true,
        "Contributor" => {
            let of_rights = action.starts_with("microsoft.authorization/");
            !(of_rights && (action.ends_with("/write") || action.ends_with("/delete")))
        }
        "Reader" => action.ends_with("/read"),
        "Azure Kubernetes Service Cluster Admin Role" => [
            format!("{cluster}/read"),
            format!("{cluster}/listclusteradmincredential/action"),
            format!("{cluster}/accessprofiles/listcredential/action"),
            format!("{cluster}/runcommand/action"),
        ]
        .contains(&action),
        "Azure Kubernetes Service Cluster User Role" => [
            format!("{cluster}/read"),
            format!("{cluster}/listclusterusercredential/action"),
        ]
        .contains(&action),
        _ => false,
    }
}

/// Whether one id is the other's beginning.
fn begins(above: &str, below: &str) -> bool {
    let slash = |text: &str| format!("{}/", text.to_lowercase().trim_end_matches('/'));
    slash(below).starts_with(&slash(above))
}

impl Kind {
    fn is_nobody(&self) -> bool {
        matches!(self.becomes, Becomes::Deleted | Becomes::Disabled)
    }

    fn expected(&self, route: &Route, action: &str, scope: &str) -> bool {
        if self.is_nobody() {
            return false;
        }
        let allowed = self.role.is_some_and(|role| known_for(role, action))
            && self.scopes.iter().any(|own| begins(own, scope));
        let related = self
            .scopes
            .iter()
            .any(|own| begins(own, scope) || begins(scope, own));
        match route.gate {
            Gate::Anybody | Gate::ItemsReached => true,
            Gate::Action => allowed,
            Gate::Reaches | Gate::Items | Gate::ItemsByType => allowed || related,
        }
    }
}

/// A name for a type, so that the requested resource exists as far as possible.
fn name(kind: &str) -> &'static str {
    match kind {
        "subscriptions" => SUBSCRIPTION,
        "resourceGroups" => "g",
        "providers" => "Microsoft.ContainerService",
        "managedClusters" => "c",
        "roleAssignments" | "roleDefinitions" => "0a0a0a0a-0000-4000-8000-000000000000",
        "locations" => "local",
        _ => "x",
    }
}

/// The paths of a route: one, or one for each kind of scope.
fn paths(namespace: &str, route: &Route) -> Vec<String> {
    let mut rest = String::new();
    let kinds: Vec<&str> = route.path.split('/').collect();
    for (at, kind) in kinds.iter().enumerate() {
        let last = at + 1 == kinds.len();
        let open = last && route.verb.shape() == Shape::Collection;
        let named = if open {
            format!("/{kind}")
        } else {
            format!("/{kind}/{}", name(kind))
        };
        rest.push_str(&named);
    }
    if let Verb::Action(action) = route.verb {
        rest.push_str(&format!("/{action}"));
    }
    let below = |scope: &str| format!("{}/providers/{namespace}{rest}", scope.trim_end_matches('/'));
    match route.scope {
        Scope::Tenant if namespace == GENERIC => vec![rest],
        Scope::Tenant => vec![below("/")],
        Scope::Subscription => vec![below(&subscription_id())],
        Scope::ResourceGroup => vec![below(&group_id("g"))],
        Scope::Resource => vec![below(&cluster_id("g"))],
        Scope::Any => vec![
            below("/"),
            below(&subscription_id()),
            below(&group_id("g")),
            below(&cluster_id("g")),
        ],
    }
}

/// Assigns a role without the API: a cluster has no record here.
async fn give(stamp: &Stamp, holder: &str, role: &str, scope: &str) {
    let now = stamp.env.clock.now();
    let record = AssignmentRecord {
        v: 1,
        name: stamp.env.ids.uuid().to_string(),
        principal: holder.to_owned(),
        principal_type: "ServicePrincipal".to_owned(),
        role: role_id(role).rsplit('/').next().unwrap().to_owned(),
        scope: scope.to_owned(),
        description: None,
        stamped: Stamped::now(None, "", now),
    };
    stamp.store.txn(record.make(Txn::default())).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn everybody_may_what_their_roles_are_known_for_and_nothing_else() {
    let stamp = Stamp::new().await;
    let kinds = kinds();
    let mut people = Vec::new();
    for kind in &kinds {
        let who = stamp.principal(&format!("matrix-{}", kind.letter)).await;
        let holder = match kind.becomes {
            Becomes::Member => stamp.group_around(&stamp.group_around(&who.id).await).await,
            _ => who.id.clone(),
        };
        for scope in &kind.scopes {
            give(&stamp, &holder, kind.role.unwrap(), scope).await;
        }
        match kind.becomes {
            Becomes::Deleted => stamp.forget(&who).await,
            Becomes::Disabled => stamp.disable(&who).await,
            Becomes::Itself | Becomes::Member => {}
        }
        people.push(who);
    }
    let mut table = String::new();
    let (mut asked, mut wrong) = (0, Vec::new());
    for provider in &stamp.providers {
        for route in provider.routes() {
            for path in paths(provider.namespace(), &route) {
                let parsed = ResourcePath::parse(&path).unwrap();
                let (action, scope) = (route.permission(&parsed), scope_of(&parsed).to_string());
                let uri = format!("{path}?api-version={}", route.versions[0]);
                let method = route.verb.method();
                let mut letters = String::new();
                for (kind, who) in kinds.iter().zip(&people) {
                    let body = matches!(method, "PUT" | "PATCH" | "POST").then(|| json!({}));
                    let answer = stamp.arm(who, method, &uri, body).await;
                    asked += 1;
                    let refused = answer.status == 401 || answer.code() == "AuthorizationFailed";
                    // HEAD has no body.
                    let refused = refused || method == "HEAD" && answer.status == 403;
                    letters.push(if refused { '-' } else { kind.letter });
                    let expected = kind.expected(&route, &action, &scope);
                    if expected == refused {
                        wrong.push(format!("{} {method} {path}: {answer:?}", kind.letter));
                    }
                    assert_eq!(answer.status == 401, kind.is_nobody(), "{answer:?}");
                    if answer.status == 403 && method == "GET" {
                        same_whatever_is_there(&stamp, who, &uri, answer.message()).await;
                    }
                }
                let shown = path
                    .replace(SUBSCRIPTION, "{s}")
                    .replace("0a0a0a0a-0000-4000-8000-000000000000", "{guid}");
                // Writing to a String does not fail.
                let _ = writeln!(table, "{letters} {method} {shown}  {action}  {}", route.name);
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(asked > 1000, "{asked}");
    insta::assert_snapshot!("everybody_may", table);
}

/// A refusal is the same for an existing group, a missing group and a missing subscription.
async fn same_whatever_is_there(stamp: &Stamp, who: &Who, uri: &str, message: &str) {
    let unknown = "0c0c0c0c-0000-4000-8000-000000000000";
    for other in [
        uri.replace("/resourceGroups/g", "/resourceGroups/none"),
        uri.replace(SUBSCRIPTION, unknown),
    ] {
        let answer = stamp.get(who, &other).await;
        let told = answer
            .message()
            .replace("/resourceGroups/none", "/resourceGroups/g")
            .replace(unknown, SUBSCRIPTION);
        assert_eq!((answer.status, told.as_str()), (403, message), "{other}");
    }
}
