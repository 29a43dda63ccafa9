//! Service principals and managed identities.

use std::collections::BTreeMap;

use arm_wire::Response;
use control_records::{ApplicationRecord, PrincipalRecord};
use control_store::Stored;
use http::{Method, StatusCode};
use identity_directory::{self as directory, DirectoryError};

use crate::{
    Graph, GraphError, Request,
    body::Body,
    credentials::{nothing, remove_secret, show_certificate},
    query,
    route::{At, Name},
    show,
};

impl Graph {
    pub(crate) async fn service_principals(
        &self,
        at: &At,
        request: &Request,
    ) -> Result<Response, GraphError> {
        match (at, &request.method) {
            (At::All, &Method::GET) => {
                let applications = directory::applications(self.store()).await?;
                let by_id: BTreeMap<&str, &ApplicationRecord> = applications
                    .iter()
                    .map(|application| (application.object_id.as_str(), application))
                    .collect();
                let all = directory::principals(self.store()).await?;
                let shown = all.iter().filter(|record| !show::is_user(record)).map(|record| {
                    let application = record.application.as_deref().and_then(|id| by_id.get(id));
                    show::service_principal(record, application.copied(), &self.tenant)
                });
                query::list(request, "servicePrincipals", shown.collect())
            }
            (At::All, &Method::POST) => self.create_service_principal(request).await,
            (At::One(name), &Method::GET) => {
                let found = self.service_principal(name).await?;
                let shown = self.shown(&found.value).await?;
                query::one(request, "servicePrincipals", shown)
            }
            (At::One(name), &Method::PATCH) => {
                let found = self.service_principal(name).await?;
                self.change_service_principal(&found.value, request).await
            }
            (At::One(name), &Method::DELETE) => {
                let record = self.service_principal(name).await?.value;
                unmanaged(&record, "deleted")?;
                directory::delete_principal(&self.writer(request), &record.object_id).await?;
                Ok(nothing())
            }
            (At::Of(name, what, rest), method) if rest.is_empty() => {
                let record = self.service_principal(name).await?.value;
                match (what.to_ascii_lowercase().as_str(), method) {
                    ("addpassword", &Method::POST) => self.add_password(&record, request).await,
                    ("removepassword", &Method::POST) => self.remove_password(&record, request).await,
                    ("revokesigninsessions", &Method::POST) => self.revoke(&record, request).await,
                    ("owners" | "ownedobjects", &Method::GET) => {
                        query::list(request, "directoryObjects", Vec::new())
                    }
                    ("approleassignments" | "approleassignedto" | "oauth2permissiongrants", &Method::GET) => {
                        query::list(request, "appRoleAssignments", Vec::new())
                    }
                    _ => self.of_member(&record.object_id, what, request).await,
                }
            }
            _ => Err(GraphError::method()),
        }
    }

    /// As it is shown, with its application.
    pub(crate) async fn shown(&self, record: &PrincipalRecord) -> Result<serde_json::Value, GraphError> {
        let application = self.application_of(record).await?;
        Ok(show::service_principal(
            record,
            application.as_ref(),
            &self.tenant,
        ))
    }

    async fn application_of(
        &self,
        record: &PrincipalRecord,
    ) -> Result<Option<ApplicationRecord>, GraphError> {
        match &record.application {
            Some(id) => {
                let found = directory::application(self.store(), id).await?;
                Ok(found.map(|found| found.value))
            }
            None => Ok(None),
        }
    }

    async fn service_principal(&self, name: &Name) -> Result<Stored<PrincipalRecord>, GraphError> {
        let (id, found) = match name {
            Name::Id(id) => (id.as_str(), directory::principal(self.store(), id).await?),
            Name::AppId(id) => (id.as_str(), directory::find_login(self.store(), id).await?),
            Name::Me => ("", None),
        };
        found
            .filter(|found| !show::is_user(&found.value))
            .ok_or_else(|| GraphError::missing(id))
    }

    async fn create_service_principal(&self, request: &Request) -> Result<Response, GraphError> {
        let mut body = Body::of(&request.body)?;
        let app_id = body.required("appId").to_ascii_lowercase();
        let enabled = body.boolean("accountEnabled").unwrap_or(true);
        body.ignored(&["tags"]);
        body.end()?;
        let made = directory::create_service_principal(&self.writer(request), &app_id, enabled).await;
        let made = made.map_err(|error| match error {
            DirectoryError::Missing { id, .. } => GraphError::bad(format!(
                "The appId '{id}' of the service principal does not reference a valid application object."
            )),
            DirectoryError::Taken { value, .. } => {
                let mut error = GraphError::bad(format!(
                    "The service principal cannot be created, updated, or restored because the service principal name {value} is \
                     already in use."
                ));
                error.status = StatusCode::CONFLICT;
                error.code = "Request_MultipleObjectsWithSameKeyValue";
                error
            }
            other => other.into(),
        })?;
        let shown = self.shown(&made).await?;
        let mut answer = query::one(request, "servicePrincipals", shown)?;
        answer.status = StatusCode::CREATED;
        Ok(answer)
    }

    async fn change_service_principal(
        &self,
        present: &PrincipalRecord,
        request: &Request,
    ) -> Result<Response, GraphError> {
        let application = self.application_of(present).await?;
        let mut body = Body::of(&request.body)?;
        let enabled = body.boolean("accountEnabled");
        let display_name = body.text("displayName").map(str::to_owned);
        if application.is_some()
            && display_name
                .as_ref()
                .is_some_and(|asked| *asked != present.display_name)
        {
            body.problem("displayName", "It is the application's; change it there.");
        }
        let certificates = self.certificates(&mut body, &present.credentials);
        body.end()?;
        if certificates.as_ref().is_some_and(|all| !all.is_empty()) {
            unmanaged(present, "given credentials")?;
        }
        let writer = self.writer(request);
        let change = directory::update_principal(&writer, &present.object_id, |record| {
            if let Some(enabled) = enabled {
                record.disabled = !enabled;
            }
            if let Some(name) = &display_name {
                record.display_name.clone_from(name);
            }
            if let Some(certificates) = &certificates {
                // The application's credentials stay.
                record.credentials.retain(|one| {
                    !show_certificate(one) || show::is_applications(application.as_ref(), &one.id)
                });
                let own = certificates
                    .iter()
                    .filter(|one| !show::is_applications(application.as_ref(), &one.id));
                record.credentials.extend(own.cloned());
            }
            Ok(())
        });
        change.await?;
        Ok(nothing())
    }

    async fn add_password(
        &self,
        record: &PrincipalRecord,
        request: &Request,
    ) -> Result<Response, GraphError> {
        unmanaged(record, "given credentials")?;
        let secret = self.new_secret(request)?;
        let writer = self.writer(request);
        let change = directory::update_principal(&writer, &record.object_id, |record| {
            record.credentials.push(secret.credential.clone());
            Ok(())
        });
        change.await?;
        Ok(secret.answer(request))
    }

    async fn remove_password(
        &self,
        record: &PrincipalRecord,
        request: &Request,
    ) -> Result<Response, GraphError> {
        let id = Self::removed_key(request)?;
        let application = self.application_of(record).await?;
        // The first secret has the principal's id as its key.
        let is_first = id.eq_ignore_ascii_case(&record.object_id) && !record.secret_hash.is_empty();
        if show::is_applications(application.as_ref(), &id) {
            let message = format!("The password credential '{id}' is the application's; remove it there.");
            return Err(GraphError::bad(message));
        }
        if !is_first {
            remove_secret(&mut record.credentials.clone(), &id)?;
        }
        let writer = self.writer(request);
        let change = directory::update_principal(&writer, &record.object_id, |record| {
            if is_first {
                record.secret_hash.clear();
            } else {
                record.credentials.retain(|one| !one.id.eq_ignore_ascii_case(&id));
            }
            Ok(())
        });
        change.await?;
        Ok(nothing())
    }
}

/// A resource's identity is changed and removed only with the resource.
fn unmanaged(record: &PrincipalRecord, what: &str) -> Result<(), GraphError> {
    match &record.resource {
        None => Ok(()),
        Some(resource) => Err(GraphError::bad(format!(
            "A managed identity cannot be {what} here; it belongs to the resource '{resource}'."
        ))),
    }
}
