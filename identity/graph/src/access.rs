//! Permissions of Graph: one decision, before any lookup.
//!
//! | caller | may |
//! |---|---|
//! | can assign roles at the whole stamp | everything |
//! | may read everything at the whole stamp (`Reader` at `/`) | read everything |
//! | any | read itself and its groups, change its own password, end its own sessions |
//!
//! A caller that changes the directory can gain the rights of any principal, by resetting a password or
//! joining a group. So only callers that could assign themselves these rights anyway may change it.

use arm_ids::ResourcePath;
use arm_wire::PrincipalKind;
use http::Method;
use identity_directory::GIVES_RIGHTS;

use crate::{
    Graph, GraphError, Request,
    route::{At, Name, READ, Route, is_question},
};

impl Graph {
    /// Whether the caller may read all objects.
    pub(crate) async fn reads_all(&self, request: &Request) -> Result<bool, GraphError> {
        let root = ResourcePath::default();
        let may = async |action| self.authorizer.may(&request.principal, action, &root).await;
        Ok(may(READ).await? || may(GIVES_RIGHTS).await?)
    }

    async fn writes(&self, request: &Request) -> Result<bool, GraphError> {
        let root = ResourcePath::default();
        Ok(self
            .authorizer
            .may(&request.principal, GIVES_RIGHTS, &root)
            .await?)
    }

    /// Lets the caller through, or refuses it with the same error whether or not the object exists.
    pub(crate) async fn admit(&self, route: &Route, request: &Request) -> Result<(), GraphError> {
        let allowed = match need(route, request) {
            Need::Nothing => true,
            Need::Read => self.reads_all(request).await?,
            Need::Write => self.writes(request).await?,
        };
        if allowed {
            Ok(())
        } else {
            Err(GraphError::denied())
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    Nothing,
    Read,
    Write,
}

/// Whether a name stands for the caller.
fn is_self(name: &Name, kind: Option<PrincipalKind>, request: &Request) -> bool {
    let own = &request.principal;
    match name {
        Name::Me => true,
        Name::Id(id) => {
            id.eq_ignore_ascii_case(&own.object_id)
                || own.kind == PrincipalKind::User
                    && id.eq_ignore_ascii_case(&own.name)
                    && kind != Some(PrincipalKind::Application)
        }
        Name::AppId(id) => {
            kind == Some(PrincipalKind::Application)
                && own.kind == PrincipalKind::Application
                && id.eq_ignore_ascii_case(&own.name)
        }
    }
}

fn need(route: &Route, request: &Request) -> Need {
    let (at, kind) = match route {
        Route::Users(at) => (at, Some(PrincipalKind::User)),
        Route::ServicePrincipals(at) => (at, Some(PrincipalKind::Application)),
        Route::Objects(at) => (at, None),
        Route::Groups(at) | Route::Applications(at) => {
            let asks = request.method == Method::GET || matches!(at, At::Of(_, what, _) if is_question(what));
            return if asks { Need::Read } else { Need::Write };
        }
        Route::NotYet(_) => return Need::Nothing,
    };
    let get = request.method == Method::GET;
    match at {
        At::All if get => Need::Read,
        At::All => Need::Write,
        // The response is limited to objects that the caller may see.
        At::One(Name::Id(id)) if kind.is_none() && is_question(id) => Need::Nothing,
        At::One(name) if get && is_self(name, kind, request) => Need::Nothing,
        At::One(_) if get => Need::Read,
        At::One(_) => Need::Write,
        At::Of(name, what, _) => {
            let own = is_self(name, kind, request);
            let asks = get || is_question(what);
            let of_itself = what.eq_ignore_ascii_case("changePassword")
                || what.eq_ignore_ascii_case("revokeSignInSessions");
            match (own, asks) {
                (true, true) => Need::Nothing,
                (true, false) if of_itself => Need::Nothing,
                (false, true) => Need::Read,
                (_, false) => Need::Write,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use arm_wire::{Principal, Trace};
    use serde_json::Value;

    use super::*;

    #[test]
    fn everybody_reads_itself_and_nobody_else() {
        let ask = |kind, method: &str, path: &str| {
            let segments: Vec<String> = path.split('/').map(str::to_owned).collect();
            let request = Request {
                method: method.parse().unwrap(),
                query: Vec::new(),
                body: Value::Null,
                principal: Principal {
                    object_id: "own".to_owned(),
                    name: "ada@x".to_owned(),
                    tenant_id: String::new(),
                    kind,
                },
                base_url: String::new(),
                trace: Trace::default(),
                segments,
            };
            need(&Route::of(&request.segments).unwrap(), &request)
        };
        let user = |method, path| ask(PrincipalKind::User, method, path);
        for (method, path) in [
            ("GET", "me"),
            ("GET", "users/OWN"),
            ("GET", "users/Ada@x"),
            ("GET", "me/memberOf"),
            ("POST", "users/own/getMemberGroups"),
            ("POST", "directoryObjects/own/checkMemberGroups"),
            ("POST", "directoryObjects/getByIds"),
            ("POST", "me/changePassword"),
            ("POST", "me/revokeSignInSessions"),
        ] {
            assert_eq!(user(method, path), Need::Nothing, "{path}");
        }
        for (method, path, needed) in [
            ("GET", "users", Need::Read),
            ("GET", "users/bob", Need::Read),
            ("GET", "groups/own", Need::Read),
            ("GET", "applications/own", Need::Read),
            ("GET", "servicePrincipals/ada@x", Need::Read),
            ("POST", "users/bob/getMemberGroups", Need::Read),
            ("POST", "groups/g/getMemberGroups", Need::Read),
            ("PATCH", "me", Need::Write),
            ("DELETE", "users/own", Need::Write),
            ("POST", "users/bob/changePassword", Need::Write),
            ("POST", "me/anything", Need::Write),
            ("POST", "groups/g/members/$ref", Need::Write),
            ("POST", "servicePrincipals/own/addPassword", Need::Write),
            ("POST", "applications/own/addPassword", Need::Write),
        ] {
            assert_eq!(user(method, path), needed, "{path}");
        }
        let application = |method, path| ask(PrincipalKind::Application, method, path);
        assert_eq!(
            application("GET", "servicePrincipals(appId='ada@x')"),
            Need::Nothing
        );
        assert_eq!(application("GET", "users(appId='ada@x')"), Need::Read);
        assert_eq!(application("GET", "servicePrincipals/own"), Need::Nothing);
    }
}
