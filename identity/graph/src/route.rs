//! Paths: the object of a request, and its action in the activity log. Pure.

use http::Method;

use crate::GraphError;

/// The action of reading the whole directory.
pub const READ: &str = "Landfall.Directory/objects/read";

/// The object of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// `/users`, `/me`.
    Users(At),
    /// `/groups`.
    Groups(At),
    /// `/servicePrincipals`.
    ServicePrincipals(At),
    /// `/applications`.
    Applications(At),
    /// `/directoryObjects`.
    Objects(At),
    /// A part of Graph that is not implemented.
    NotYet(&'static str),
}

/// Where in a collection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum At {
    /// The whole collection.
    All,
    /// One, by its id or another name.
    One(Name),
    /// A part of one, e.g. `members`, or an action on it.
    Of(Name, String, Vec<String>),
}

/// A name of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Name {
    /// By an id, or a user principal name.
    Id(String),
    /// By a client id.
    AppId(String),
    /// The caller.
    Me,
}

/// Collections of Graph that are not implemented.
const NOT_YET: &[&str] = &[
    "oauth2PermissionGrants",
    "organization",
    "domains",
    "directoryRoles",
    "devices",
    "invitations",
    "policies",
    "subscribedSkus",
    "administrativeUnits",
];

impl Route {
    /// The route of a path behind the version.
    ///
    /// # Errors
    /// When it leads nowhere.
    pub fn of(segments: &[String]) -> Result<Self, GraphError> {
        let Some((first, rest)) = segments.split_first() else {
            return Err(GraphError::nowhere(""));
        };
        let (collection, key) = key(first);
        if collection.eq_ignore_ascii_case("me") && key.is_none() {
            return Ok(Self::Users(at(Name::Me, rest)));
        }
        let (name, rest) = match (key, rest.split_first()) {
            (Some(name), _) => (Some(name), rest),
            (None, Some((id, rest))) => (Some(Name::Id(id.clone())), rest),
            (None, None) => (None, rest),
        };
        let place = match name {
            Some(name) => at(name, rest),
            None => At::All,
        };
        match collection.to_ascii_lowercase().as_str() {
            "users" => Ok(Self::Users(place)),
            "groups" => Ok(Self::Groups(place)),
            "serviceprincipals" => Ok(Self::ServicePrincipals(place)),
            "applications" => Ok(Self::Applications(place)),
            "directoryobjects" => Ok(Self::Objects(place)),
            other => match NOT_YET.iter().find(|known| known.eq_ignore_ascii_case(other)) {
                Some(known) => Ok(Self::NotYet(known)),
                None => Err(GraphError::nowhere(collection)),
            },
        }
    }

    /// The action and scope of a changing request in the activity log. `None` for requests that read.
    pub fn written(method: &Method, segments: &[String]) -> Option<(String, String)> {
        let route = Self::of(segments).ok()?;
        let (kind, at) = match &route {
            Self::Users(at) => ("users", at),
            Self::Groups(at) => ("groups", at),
            Self::ServicePrincipals(at) => ("servicePrincipals", at),
            Self::Applications(at) => ("applications", at),
            Self::Objects(_) | Self::NotYet(_) => return None,
        };
        let verb = match *method {
            Method::DELETE => "delete",
            Method::POST | Method::PATCH => "write",
            _ => return None,
        };
        let action = match at {
            At::All | At::One(_) => format!("Landfall.Directory/{kind}/{verb}"),
            At::Of(_, what, _) if is_question(what) => return None,
            At::Of(_, what, _) if is_action(what) => {
                format!("Landfall.Directory/{kind}/{what}/action")
            }
            At::Of(_, what, _) => format!("Landfall.Directory/{kind}/{what}/{verb}"),
        };
        let name = match at {
            At::All => String::new(),
            At::One(name) | At::Of(name, ..) => match name {
                Name::Id(id) | Name::AppId(id) => format!("/{id}"),
                Name::Me => "/me".to_owned(),
            },
        };
        // A path comes from the client, so its length is limited before it is stored.
        let scope: String = format!("/providers/Landfall.Directory/{kind}{name}")
            .chars()
            .filter(|char| !char.is_control())
            .take(200)
            .collect();
        Some((action, scope))
    }
}

/// POSTs without effect.
pub(crate) fn is_question(what: &str) -> bool {
    [
        "checkMemberGroups",
        "getMemberGroups",
        "getMemberObjects",
        "checkMemberObjects",
        "getByIds",
    ]
    .iter()
    .any(|known| known.eq_ignore_ascii_case(what))
}

/// POSTs with an effect other than making a part.
fn is_action(what: &str) -> bool {
    [
        "addPassword",
        "removePassword",
        "addKey",
        "removeKey",
        "changePassword",
        "revokeSignInSessions",
    ]
    .iter()
    .any(|known| known.eq_ignore_ascii_case(what))
}

fn at(name: Name, rest: &[String]) -> At {
    match rest.split_first() {
        None => At::One(name),
        Some((what, rest)) => At::Of(name, what.clone(), rest.to_vec()),
    }
}

/// `users('x')`, `servicePrincipals(appId='x')`.
fn key(segment: &str) -> (&str, Option<Name>) {
    let inner = segment
        .split_once('(')
        .and_then(|(name, rest)| Some((name, rest.strip_suffix(')')?)));
    let Some((collection, inner)) = inner else {
        return (segment, None);
    };
    let quoted = |text: &str| {
        let text = text.trim().strip_prefix('\'')?.strip_suffix('\'')?;
        Some(text.replace("''", "'"))
    };
    if let Some(id) = quoted(inner) {
        return (collection, Some(Name::Id(id)));
    }
    let by_app = inner
        .split_once('=')
        .filter(|(field, _)| field.trim().eq_ignore_ascii_case("appId"));
    match by_app.and_then(|(_, id)| quoted(id)) {
        Some(id) => (collection, Some(Name::AppId(id))),
        None => (segment, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(path: &str) -> Result<Route, GraphError> {
        let segments: Vec<String> = path.split('/').map(str::to_owned).collect();
        Route::of(&segments)
    }

    #[test]
    fn paths_lead_where_clients_mean() {
        let id = |id: &str| Name::Id(id.to_owned());
        for (path, expected) in [
            ("me", Route::Users(At::One(Name::Me))),
            ("Users", Route::Users(At::All)),
            ("users/a@b", Route::Users(At::One(id("a@b")))),
            ("users('$it''s')", Route::Users(At::One(id("$it's")))),
            (
                "servicePrincipals(appId='x')",
                Route::ServicePrincipals(At::One(Name::AppId("x".to_owned()))),
            ),
            (
                "groups/g/members/$ref",
                Route::Groups(At::Of(id("g"), "members".to_owned(), vec!["$ref".to_owned()])),
            ),
            (
                "directoryObjects/getByIds",
                Route::Objects(At::One(id("getByIds"))),
            ),
            ("oauth2permissiongrants", Route::NotYet("oauth2PermissionGrants")),
        ] {
            assert_eq!(of(path).unwrap(), expected, "{path}");
        }
        for wrong in ["", "nothing", "users(x)", "(", "me('x"] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_changes_something_has_a_name_in_the_log() {
        let written = |method: &Method, path: &str| {
            let segments: Vec<String> = path.split('/').map(str::to_owned).collect();
            Route::written(method, &segments)
        };
        for (method, path, action) in [
            (Method::POST, "users", "Landfall.Directory/users/write"),
            (
                Method::DELETE,
                "groups/g/members/m/$ref",
                "Landfall.Directory/groups/members/delete",
            ),
            (
                Method::POST,
                "applications/a/addPassword",
                "Landfall.Directory/applications/addPassword/action",
            ),
        ] {
            assert_eq!(written(&method, path).unwrap().0, action);
        }
        assert_eq!(written(&Method::GET, "users"), None);
        assert_eq!(written(&Method::POST, "users/x/getMemberGroups"), None);
        assert_eq!(written(&Method::POST, "directoryObjects/getByIds"), None);
    }
}
