//! Objects of any kind by their ids, and which groups they are in.

use arm_wire::Response;
use http::Method;
use identity_directory as directory;
use serde_json::{Value, json};

use crate::{
    Graph, GraphError, Request,
    body::Body,
    query,
    route::{At, Name},
    show,
};

/// The most ids of a question.
const MOST_IDS: usize = 1000;
/// The most groups of a check.
const MOST_CHECKED: usize = 20;

impl Graph {
    pub(crate) async fn objects(&self, at: &At, request: &Request) -> Result<Response, GraphError> {
        match (at, &request.method) {
            (At::One(Name::Id(id)), &Method::POST) if id.eq_ignore_ascii_case("getByIds") => {
                self.by_ids(request).await
            }
            (At::One(Name::Id(id)), &Method::GET) => {
                let (kind, object) = self.object(id).await?.ok_or_else(|| GraphError::missing(id))?;
                query::one(request, "directoryObjects", show::typed(kind, object))
            }
            (At::Of(Name::Id(id), what, rest), _) if rest.is_empty() => {
                if self.object(id).await?.is_none() {
                    return Err(GraphError::missing(id));
                }
                self.of_member(id, what, request).await
            }
            _ => Err(GraphError::method()),
        }
    }

    /// An object and its type.
    async fn object(&self, id: &str) -> Result<Option<(&'static str, Value)>, GraphError> {
        let store = self.store();
        if let Some(found) = directory::principal(store, id).await? {
            return Ok(Some(if show::is_user(&found.value) {
                ("user", show::user(&found.value))
            } else {
                ("servicePrincipal", self.shown(&found.value).await?)
            }));
        }
        if let Some(found) = directory::group(store, id).await? {
            return Ok(Some(("group", show::group(&found.value))));
        }
        let found = directory::application(store, id).await?;
        Ok(found.map(|found| ("application", show::application(&found.value))))
    }

    /// The existing objects of these ids, each with its type.
    pub(crate) async fn listed(&self, ids: Vec<String>, request: &Request) -> Result<Response, GraphError> {
        let mut objects = Vec::with_capacity(ids.len());
        for id in ids {
            if let Some((kind, object)) = self.object(&id).await? {
                objects.push(show::typed(kind, object));
            }
        }
        query::list(request, "directoryObjects", objects)
    }

    async fn by_ids(&self, request: &Request) -> Result<Response, GraphError> {
        let mut body = Body::of(&request.body)?;
        let ids = body.texts("ids");
        if ids.as_ref().is_none_or(|ids| ids.len() > MOST_IDS) {
            body.problem("ids", format!("It has to be a list of at most {MOST_IDS} ids."));
        }
        let types = body.texts("types");
        body.end()?;
        let all = self.reads_all(request).await?;
        let mut objects = Vec::new();
        for id in ids.unwrap_or_default() {
            // A caller without permission to read the directory sees only itself.
            if !all && !id.eq_ignore_ascii_case(&request.principal.object_id) {
                continue;
            }
            let Some((kind, object)) = self.object(&id).await? else {
                continue;
            };
            let wanted = types.as_ref().is_none_or(|types| {
                let any = |name: &str| types.iter().any(|own| own.eq_ignore_ascii_case(name));
                types.is_empty() || any(kind) || any("directoryObject")
            });
            if wanted {
                objects.push(show::typed(kind, object));
            }
        }
        let context = format!("{}/$metadata#directoryObjects", request.base_url);
        Ok(Response::ok(
            json!({ "@odata.context": context, "value": objects }),
        ))
    }

    /// Requests about an object that can be a member.
    pub(crate) async fn of_member(
        &self,
        id: &str,
        what: &str,
        request: &Request,
    ) -> Result<Response, GraphError> {
        let store = self.store();
        match (what.to_ascii_lowercase().as_str(), &request.method) {
            ("memberof", &Method::GET) => {
                let ids = directory::memberships(store, id).await?;
                self.listed(ids, request).await
            }
            ("transitivememberof", &Method::GET) => {
                let ids = directory::groups_of(store, id).await?;
                self.listed(ids, request).await
            }
            ("getmembergroups" | "getmemberobjects", &Method::POST) => {
                let mut body = Body::of(&request.body)?;
                body.boolean("securityEnabledOnly");
                body.end()?;
                Ok(ids(request, directory::groups_of(store, id).await?))
            }
            ("checkmembergroups" | "checkmemberobjects", &Method::POST) => {
                let member = if what.eq_ignore_ascii_case("checkMemberGroups") {
                    "groupIds"
                } else {
                    "ids"
                };
                let mut body = Body::of(&request.body)?;
                let asked = body.texts(member);
                if asked.as_ref().is_none_or(|asked| asked.len() > MOST_CHECKED) {
                    body.problem(
                        member,
                        format!("It has to be a list of at most {MOST_CHECKED} ids."),
                    );
                }
                body.end()?;
                let own = directory::groups_of(store, id).await?;
                let mut found = asked.unwrap_or_default();
                found.retain(|one| own.iter().any(|own| own.eq_ignore_ascii_case(one)));
                Ok(ids(request, found))
            }
            ("memberof" | "transitivememberof" | "getmembergroups" | "checkmembergroups", _) => {
                Err(GraphError::method())
            }
            _ => Err(GraphError::nowhere(what)),
        }
    }
}

fn ids(request: &Request, ids: Vec<String>) -> Response {
    let context = format!("{}/$metadata#Collection(Edm.String)", request.base_url);
    Response::ok(json!({ "@odata.context": context, "value": ids }))
}
