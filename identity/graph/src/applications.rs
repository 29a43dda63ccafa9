//! Applications.

use arm_wire::Response;
use control_records::{ApplicationRecord, Credential, Proof};
use http::{Method, StatusCode};
use identity_directory::{self as directory, NewApplication};

use crate::{
    Graph, GraphError, Request,
    body::Body,
    credentials::{nothing, remove_secret, show_certificate},
    query,
    route::{At, Name},
    show,
};

struct Wish {
    display_name: Option<String>,
    identifier_uris: Option<Vec<String>>,
    web_redirect_uris: Option<Vec<String>>,
    public_redirect_uris: Option<Vec<String>>,
    certificates: Option<Vec<Credential>>,
}

impl Graph {
    fn application_wish(
        &self,
        request: &Request,
        present: Option<&ApplicationRecord>,
    ) -> Result<Wish, GraphError> {
        let mut body = Body::of(&request.body)?;
        let display_name = match present {
            None => Some(body.required("displayName")),
            Some(_) => body.text("displayName"),
        };
        let display_name = display_name.map(str::to_owned);
        let identifier_uris = body.texts("identifierUris");
        if body
            .text("signInAudience")
            .is_some_and(|asked| asked != "AzureADMyOrg")
        {
            body.problem("signInAudience", "Only 'AzureADMyOrg' is there yet in Landfall.");
        }
        body.only("isFallbackPublicClient", false);
        let mut redirect_uris = |name| {
            let uris = body.object(name, |inner| inner.texts("redirectUris"));
            uris.flatten()
        };
        let (web_redirect_uris, public_redirect_uris) = (redirect_uris("web"), redirect_uris("publicClient"));
        let own = present.map_or(&[][..], |present| &present.credentials);
        let certificates = self.certificates(&mut body, own);
        body.end()?;
        Ok(Wish {
            display_name,
            identifier_uris,
            web_redirect_uris,
            public_redirect_uris,
            certificates,
        })
    }

    pub(crate) async fn applications(&self, at: &At, request: &Request) -> Result<Response, GraphError> {
        match (at, &request.method) {
            (At::All, &Method::GET) => {
                let all = directory::applications(self.store()).await?;
                query::list(
                    request,
                    "applications",
                    all.iter().map(show::application).collect(),
                )
            }
            (At::All, &Method::POST) => {
                let wish = self.application_wish(request, None)?;
                let new = NewApplication {
                    display_name: wish.display_name.unwrap_or_default(),
                    identifier_uris: wish.identifier_uris.unwrap_or_default(),
                    web_redirect_uris: wish.web_redirect_uris.unwrap_or_default(),
                    public_redirect_uris: wish.public_redirect_uris.unwrap_or_default(),
                    credentials: wish.certificates.unwrap_or_default(),
                };
                let made = directory::create_application(&self.writer(request), new).await?;
                let mut answer = query::one(request, "applications", show::application(&made))?;
                answer.status = StatusCode::CREATED;
                Ok(answer)
            }
            (At::One(name), &Method::GET) => {
                let found = self.application(name).await?;
                query::one(request, "applications", show::application(&found))
            }
            (At::One(name), &Method::PATCH) => {
                let present = self.application(name).await?;
                let wish = self.application_wish(request, Some(&present))?;
                let change = |record: &mut ApplicationRecord| {
                    if let Some(name) = &wish.display_name {
                        record.display_name.clone_from(name);
                    }
                    for (own, asked) in [
                        (&mut record.identifier_uris, &wish.identifier_uris),
                        (&mut record.web_redirect_uris, &wish.web_redirect_uris),
                        (&mut record.public_redirect_uris, &wish.public_redirect_uris),
                    ] {
                        if let Some(asked) = asked {
                            own.clone_from(asked);
                        }
                    }
                    if let Some(certificates) = &wish.certificates {
                        record.credentials.retain(|one| !show_certificate(one));
                        record.credentials.extend(certificates.iter().cloned());
                    }
                };
                self.change_application(&present.object_id, request, change)
                    .await?;
                Ok(nothing())
            }
            (At::One(name), &Method::DELETE) => {
                let present = self.application(name).await?;
                directory::delete_application(&self.writer(request), &present.object_id).await?;
                Ok(nothing())
            }
            (At::Of(name, what, rest), method) => {
                let present = self.application(name).await?;
                let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
                match (what.to_ascii_lowercase().as_str(), rest.as_slice(), method) {
                    ("addpassword", [], &Method::POST) => {
                        let secret = self.new_secret(request)?;
                        let add = |record: &mut ApplicationRecord| {
                            record.credentials.push(secret.credential.clone());
                        };
                        self.change_application(&present.object_id, request, add).await?;
                        Ok(secret.answer(request))
                    }
                    ("removepassword", [], &Method::POST) => {
                        let id = Self::removed_key(request)?;
                        remove_secret(&mut present.credentials.clone(), &id)?;
                        let remove = |record: &mut ApplicationRecord| {
                            record.credentials.retain(|one| !one.id.eq_ignore_ascii_case(&id));
                        };
                        self.change_application(&present.object_id, request, remove)
                            .await?;
                        Ok(nothing())
                    }
                    ("federatedidentitycredentials", rest, _) => {
                        self.federated_credentials(&present, rest, request).await
                    }
                    ("owners", [], &Method::GET) => query::list(request, "directoryObjects", Vec::new()),
                    ("owners", ..) => Err(GraphError::not_yet("owners")),
                    _ => Err(GraphError::nowhere(what)),
                }
            }
            _ => Err(GraphError::method()),
        }
    }

    async fn application(&self, name: &Name) -> Result<ApplicationRecord, GraphError> {
        let (id, found) = match name {
            Name::Id(id) => (id.as_str(), directory::application(self.store(), id).await?),
            Name::AppId(id) => (id.as_str(), directory::application_of(self.store(), id).await?),
            Name::Me => ("", None),
        };
        found
            .map(|found| found.value)
            .ok_or_else(|| GraphError::missing(id))
    }

    async fn change_application(
        &self,
        id: &str,
        request: &Request,
        change: impl Fn(&mut ApplicationRecord) + Send + Sync,
    ) -> Result<ApplicationRecord, GraphError> {
        let writer = self.writer(request);
        let changed = directory::update_application(&writer, id, |record| {
            change(record);
            Ok(())
        });
        let changed = changed.await?;
        Ok(changed)
    }

    async fn federated_credentials(
        &self,
        application: &ApplicationRecord,
        rest: &[&str],
        request: &Request,
    ) -> Result<Response, GraphError> {
        const KIND: &str = "federatedIdentityCredentials";
        let id = &application.object_id;
        let named = |asked: &str| {
            let found = application.credentials.iter().find(|one| match &one.proof {
                Proof::Federated { name, .. } => {
                    name.eq_ignore_ascii_case(asked) || one.id.eq_ignore_ascii_case(asked)
                }
                Proof::Secret { .. } | Proof::Certificate { .. } => false,
            });
            found.ok_or_else(|| GraphError::missing(asked))
        };
        let shown = |one: &Credential| show::federated(one).unwrap_or_default();
        match (rest, &request.method) {
            ([], &Method::GET) => {
                let all = application.credentials.iter().filter_map(show::federated);
                query::list(request, KIND, all.collect())
            }
            ([], &Method::POST) => {
                let made = self.federated(request, None)?;
                let add = |record: &mut ApplicationRecord| record.credentials.push(made.clone());
                self.change_application(id, request, add).await?;
                let mut answer = query::one(request, KIND, shown(&made))?;
                answer.status = StatusCode::CREATED;
                Ok(answer)
            }
            ([name], &Method::GET) => query::one(request, KIND, shown(named(name)?)),
            ([name], &Method::PATCH) => {
                let changed = self.federated(request, Some(named(name)?))?;
                let put = |record: &mut ApplicationRecord| {
                    for one in record.credentials.iter_mut().filter(|one| one.id == changed.id) {
                        one.clone_from(&changed);
                    }
                };
                self.change_application(id, request, put).await?;
                Ok(nothing())
            }
            ([name], &Method::DELETE) => {
                let gone = named(name)?.id.clone();
                let remove = |record: &mut ApplicationRecord| record.credentials.retain(|one| one.id != gone);
                self.change_application(id, request, remove).await?;
                Ok(nothing())
            }
            ([] | [_], _) => Err(GraphError::method()),
            _ => Err(GraphError::nowhere(KIND)),
        }
    }
}
