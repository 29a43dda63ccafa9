//! Groups and their members.

use arm_wire::Response;
use control_records::PrincipalGroupRecord;
use http::{Method, StatusCode};
use identity_directory::{self as directory, NewGroup};

use crate::{
    Graph, GraphError, Request,
    body::Body,
    credentials::nothing,
    query,
    route::{At, Name},
    show,
};

struct Wish {
    display_name: Option<String>,
    nickname: Option<String>,
    description: Option<String>,
}

fn wish(request: &Request, is_new: bool) -> Result<Wish, GraphError> {
    let mut body = Body::of(&request.body)?;
    let mut text = |name| {
        let asked = if is_new {
            Some(body.required(name))
        } else {
            body.text(name)
        };
        asked.map(str::to_owned)
    };
    let (display_name, nickname) = (text("displayName"), text("mailNickname"));
    let description = body.text("description").map(str::to_owned);
    body.only("mailEnabled", false);
    body.only("securityEnabled", true);
    body.ignored(&["groupTypes"]);
    if body.list("groupTypes").is_some_and(|types| !types.is_empty()) {
        body.problem("groupTypes", "Only security groups are there yet in Landfall.");
    }
    body.end()?;
    Ok(Wish {
        display_name,
        nickname,
        description,
    })
}

impl Graph {
    pub(crate) async fn groups(&self, at: &At, request: &Request) -> Result<Response, GraphError> {
        match (at, &request.method) {
            (At::All, &Method::GET) => {
                let all = directory::groups(self.store()).await?;
                query::list(request, "groups", all.iter().map(show::group).collect())
            }
            (At::All, &Method::POST) => {
                let wish = wish(request, true)?;
                let new = NewGroup {
                    display_name: wish.display_name.unwrap_or_default(),
                    description: wish.description.unwrap_or_default(),
                    nickname: wish.nickname.unwrap_or_default(),
                };
                let made = directory::create_group(&self.writer(request), new).await?;
                let mut answer = query::one(request, "groups", show::group(&made))?;
                answer.status = StatusCode::CREATED;
                Ok(answer)
            }
            (At::One(name), &Method::GET) => {
                let found = self.group(name).await?;
                query::one(request, "groups", show::group(&found))
            }
            (At::One(name), &Method::PATCH) => {
                let id = self.group(name).await?.object_id;
                let wish = wish(request, false)?;
                let writer = self.writer(request);
                let change = directory::update_group(&writer, &id, |record| {
                    for (own, asked) in [
                        (&mut record.display_name, &wish.display_name),
                        (&mut record.nickname, &wish.nickname),
                        (&mut record.description, &wish.description),
                    ] {
                        if let Some(asked) = asked {
                            own.clone_from(asked);
                        }
                    }
                    Ok(())
                });
                change.await?;
                Ok(nothing())
            }
            (At::One(name), &Method::DELETE) => {
                let id = self.group(name).await?.object_id;
                directory::delete_group(&self.writer(request), &id).await?;
                Ok(nothing())
            }
            (At::Of(name, what, rest), method) => {
                let id = self.group(name).await?.object_id;
                let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
                match (what.to_ascii_lowercase().as_str(), rest.as_slice(), method) {
                    ("members", [], &Method::GET) => {
                        let ids = directory::members(self.store(), &id).await?;
                        self.listed(ids, request).await
                    }
                    ("transitivemembers", [], &Method::GET) => {
                        let ids = directory::all_members(self.store(), &id).await?;
                        self.listed(ids, request).await
                    }
                    ("members", ["$ref"], &Method::POST) => {
                        let member = reference(request)?;
                        directory::add_member(&self.writer(request), &id, &member).await?;
                        Ok(nothing())
                    }
                    ("members", [member, "$ref"], &Method::DELETE) => {
                        directory::remove_member(&self.writer(request), &id, member).await?;
                        Ok(nothing())
                    }
                    ("owners", [], &Method::GET) => query::list(request, "directoryObjects", Vec::new()),
                    ("owners", ..) => Err(GraphError::not_yet("owners")),
                    (_, [], _) => self.of_member(&id, what, request).await,
                    _ => Err(GraphError::nowhere(what)),
                }
            }
            _ => Err(GraphError::method()),
        }
    }

    async fn group(&self, name: &Name) -> Result<PrincipalGroupRecord, GraphError> {
        let id = match name {
            Name::Id(id) => id.as_str(),
            Name::AppId(_) | Name::Me => "",
        };
        let found = directory::group(self.store(), id).await?;
        found
            .map(|found| found.value)
            .ok_or_else(|| GraphError::missing(id))
    }
}

/// The object that `@odata.id` of a body refers to: `{anything}/directoryObjects/{id}`.
fn reference(request: &Request) -> Result<String, GraphError> {
    let mut body = Body::of(&request.body)?;
    let link = body.required("@odata.id").trim_end_matches('/').to_owned();
    let id = link.rsplit('/').next().unwrap_or_default();
    let id = id
        .rsplit_once("('")
        .and_then(|(_, rest)| rest.strip_suffix("')"))
        .unwrap_or(id)
        .to_ascii_lowercase();
    if !link.is_empty() && id.parse::<uuid::Uuid>().is_err() {
        body.problem("@odata.id", "It has to end in the id of an object, a GUID.");
    }
    body.end()?;
    Ok(id)
}
