//! People.

use arm_wire::{PrincipalKind, Response};
use control_records::PrincipalRecord;
use control_store::Stored;
use http::{Method, StatusCode};
use identity_directory as directory;
use serde_json::{Value, json};

use crate::{
    Graph, GraphError, Request,
    body::Body,
    credentials::nothing,
    passwords::refused,
    query,
    route::{At, Name},
    show,
};

/// The members of a user's body.
#[derive(Default)]
struct Wish {
    login: Option<String>,
    display_name: Option<String>,
    nickname: Option<String>,
    enabled: Option<bool>,
    password: Option<String>,
}

fn wish(request: &Request, is_new: bool, login: &str) -> Result<Wish, GraphError> {
    let mut body = Body::of(&request.body)?;
    let mut text = |name| {
        let asked = if is_new {
            Some(body.required(name))
        } else {
            body.text(name)
        };
        asked.map(str::to_owned)
    };
    let wish_login = text("userPrincipalName");
    let display_name = text("displayName");
    let nickname = text("mailNickname");
    if let Some(asked) = wish_login.as_deref().filter(|asked| !asked.is_empty()) {
        let halves = asked.split_once('@');
        let plain = asked
            .chars()
            .all(|char| !char.is_whitespace() && char != '/' && char != '\'');
        if !plain
            || halves
                .is_none_or(|(alias, domain)| alias.is_empty() || domain.is_empty() || domain.contains('@'))
        {
            body.problem("userPrincipalName", "It has to be of the form 'name@domain'.");
        }
    }
    let enabled = body.boolean("accountEnabled");
    if is_new && enabled.is_none() && body.value("accountEnabled").is_none() {
        body.problem("accountEnabled", "It is missing.");
    }
    let name = wish_login.as_deref().unwrap_or(login).to_owned();
    let password = body.object("passwordProfile", |inner| {
        inner.only("forceChangePasswordNextSignIn", false);
        inner.only("forceChangePasswordNextSignInWithMfa", false);
        let password = if is_new {
            Some(inner.required("password"))
        } else {
            inner.text("password")
        };
        if let Some(why) = password
            .filter(|text| !text.is_empty())
            .and_then(|text| refused(text, &name))
        {
            inner.problem(
                "password",
                format!("The password does not comply with the requirements. {why}"),
            );
        }
        password.map(str::to_owned)
    });
    if is_new && password.is_none() && body.value("passwordProfile").is_none() {
        body.problem("passwordProfile", "It is missing.");
    }
    body.end()?;
    Ok(Wish {
        login: wish_login,
        display_name,
        nickname,
        enabled,
        password: password.flatten(),
    })
}

impl Graph {
    pub(crate) async fn users(&self, at: &At, request: &Request) -> Result<Response, GraphError> {
        match (at, &request.method) {
            (At::All, &Method::GET) => {
                let all = directory::principals(self.store()).await?;
                let users = all.iter().filter(|record| show::is_user(record)).map(show::user);
                query::list(request, "users", users.collect())
            }
            (At::All, &Method::POST) => self.create_user(request).await,
            (At::One(name), &Method::GET) => {
                let found = self.user(name, request).await?;
                query::one(request, "users", show::user(&found.value))
            }
            (At::One(name), &Method::PATCH) => {
                let found = self.user(name, request).await?;
                self.change_user(&found.value, request).await
            }
            (At::One(name), &Method::DELETE) => {
                let found = self.user(name, request).await?;
                directory::delete_principal(&self.writer(request), &found.value.object_id).await?;
                Ok(nothing())
            }
            (At::Of(name, what, rest), method) if rest.is_empty() => {
                let record = self.user(name, request).await?.value;
                match (what.to_ascii_lowercase().as_str(), method) {
                    ("changepassword", &Method::POST) => self.change_password(&record, request).await,
                    ("revokesigninsessions", &Method::POST) => self.revoke(&record, request).await,
                    ("ownedobjects" | "manager" | "directreports", &Method::GET) => {
                        query::list(request, "directoryObjects", Vec::new())
                    }
                    _ => self.of_member(&record.object_id, what, request).await,
                }
            }
            _ => Err(GraphError::method()),
        }
    }

    /// The person of a name.
    async fn user(&self, name: &Name, request: &Request) -> Result<Stored<PrincipalRecord>, GraphError> {
        let store = self.store();
        let found = match name {
            Name::Me if request.principal.kind == PrincipalKind::User => {
                directory::principal(store, &request.principal.object_id).await?
            }
            Name::Me => {
                let message = "/me request is only valid with delegated authentication flow.";
                return Err(GraphError::bad(message));
            }
            Name::Id(id) if id.contains('@') => directory::find_login(store, id).await?,
            Name::Id(id) => directory::principal(store, id).await?,
            Name::AppId(_) => None,
        };
        let shown = match name {
            Name::Id(id) | Name::AppId(id) => id.as_str(),
            Name::Me => "me",
        };
        found
            .filter(|found| show::is_user(&found.value))
            .ok_or_else(|| GraphError::missing(shown))
    }

    async fn create_user(&self, request: &Request) -> Result<Response, GraphError> {
        let wish = wish(request, true, "")?;
        let now = self.env.clock.now();
        let record = PrincipalRecord {
            kind: PrincipalKind::User.as_str().to_owned(),
            login: wish.login.unwrap_or_default(),
            display_name: wish.display_name.unwrap_or_default(),
            nickname: wish.nickname,
            disabled: wish.enabled == Some(false),
            secret_hash: self.hash(&wish.password.unwrap_or_default()).await?,
            ..PrincipalRecord::new("", now)
        };
        let made = directory::create(&self.writer(request), record).await?;
        let mut answer = query::one(request, "users", show::user(&made))?;
        answer.status = StatusCode::CREATED;
        Ok(answer)
    }

    async fn change_user(
        &self,
        present: &PrincipalRecord,
        request: &Request,
    ) -> Result<Response, GraphError> {
        let wish = wish(request, false, &present.login)?;
        let now = self.env.clock.now();
        let hash = match &wish.password {
            Some(password) => Some(self.hash(password).await?),
            None => None,
        };
        let writer = self.writer(request);
        let change = directory::update_principal(&writer, &present.object_id, |record| {
            let set = |own: &mut String, asked: &Option<String>| {
                if let Some(asked) = asked {
                    own.clone_from(asked);
                }
            };
            set(&mut record.login, &wish.login);
            set(&mut record.display_name, &wish.display_name);
            if wish.nickname.is_some() {
                record.nickname.clone_from(&wish.nickname);
            }
            if let Some(enabled) = wish.enabled {
                record.disabled = !enabled;
            }
            if let Some(hash) = &hash {
                record.secret_hash.clone_from(hash);
                // Sessions that began with the old password end.
                record.valid_from = Some(now);
            }
            Ok(())
        });
        change.await?;
        Ok(nothing())
    }

    async fn change_password(
        &self,
        record: &PrincipalRecord,
        request: &Request,
    ) -> Result<Response, GraphError> {
        // Only for the caller's own account, even for administrators: the old password proves the identity.
        if !record
            .object_id
            .eq_ignore_ascii_case(&request.principal.object_id)
        {
            return Err(GraphError::denied());
        }
        let mut body = Body::of(&request.body)?;
        let current = body.required("currentPassword").to_owned();
        let new = body.required("newPassword").to_owned();
        if let Some(why) = refused(&new, &record.login).filter(|_| !new.is_empty()) {
            let message = format!("The password does not comply with the requirements. {why}");
            body.problem("newPassword", message);
        }
        body.end()?;
        let (who, stored) = (&record.object_id, &record.secret_hash);
        if !self.is_password(who, stored, &current).await? {
            let mut error = GraphError::bad("The specified current password is wrong.");
            error
                .details
                .push(("currentPassword".to_owned(), "It is wrong.".to_owned()));
            return Err(error);
        }
        let hash = self.hash(&new).await?;
        let now = self.env.clock.now();
        let writer = self.writer(request);
        let change = directory::update_principal(&writer, who, |record| {
            record.secret_hash.clone_from(&hash);
            record.valid_from = Some(now);
            Ok(())
        });
        change.await?;
        Ok(nothing())
    }

    /// Ends all sessions: tokens issued before become invalid.
    pub(crate) async fn revoke(
        &self,
        record: &PrincipalRecord,
        request: &Request,
    ) -> Result<Response, GraphError> {
        let now = self.env.clock.now();
        let writer = self.writer(request);
        let change = directory::update_principal(&writer, &record.object_id, |record| {
            record.valid_from = Some(now);
            Ok(())
        });
        change.await?;
        let context = format!("{}/$metadata#Edm.Boolean", request.base_url);
        let body: Value = json!({ "@odata.context": context, "value": true });
        Ok(Response::ok(body))
    }
}
