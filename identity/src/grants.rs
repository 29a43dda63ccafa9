//! The grants: client credentials, password, authorization code, device code, refresh token.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use control_records::PrincipalRecord;
use http::{Response, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use arm_wire::PrincipalKind;

use crate::{
    Caller, TOKEN_LIFETIME, TokenService, assertion,
    codes::{Brought, Redeemed},
    device::Poll,
    federated::IssuerError,
    form::Form,
    groups_of,
    principals::{find_principal, principal_by_id},
    refresh::{self, RefreshError},
    refusal::{PENDING, Refusal},
    service::json_answer,
    shape::{Place, Version, host},
    throttle::Origin,
    tokens::{CAPABLE, Subject, kind, same_path, same_resource},
};

/// The longest `claims`.
const MAX_CLAIMS_BYTES: usize = 4096;
/// The supported grants, for the message about an unsupported one.
const GRANTS: &str = "client_credentials, password, authorization_code, refresh_token or device_code";

/// A request for a token.
pub(crate) struct Ask<'a> {
    pub(crate) form: &'a Form,
    /// Client and secret of the header.
    pub(crate) basic: Option<(String, String)>,
    pub(crate) place: &'a Place,
    pub(crate) caller: &'a Caller,
}

/// The `claims` parameter of a request.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct WantedClaims {
    access_token: Option<WantedOfAccess>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct WantedOfAccess {
    xms_cc: Option<Values>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Values {
    values: Vec<String>,
}

impl Ask<'_> {
    fn need(&self, field: &str) -> Result<&str, Refusal> {
        self.form.get(field).ok_or_else(|| Refusal::missing(field))
    }

    /// Whether the client supports a `claims` challenge. Other claims that it may request hold anyway: a
    /// token is always new.
    fn is_capable(&self) -> Result<bool, Refusal> {
        let Some(text) = self.form.get("claims") else {
            return Ok(false);
        };
        // A list would be deserialized as the fields in their order.
        let wanted = (text.len() <= MAX_CLAIMS_BYTES && text.trim_start().starts_with('{'))
            .then(|| serde_json::from_str::<WantedClaims>(text).ok())
            .flatten()
            .ok_or_else(|| {
                Refusal::new(
                    "invalid_request",
                    9_002_339,
                    "the parameter 'claims' is not a JSON object of claims",
                )
            })?;
        let cc = wanted
            .access_token
            .and_then(|wanted| wanted.xms_cc)
            .unwrap_or_default();
        Ok(cc.values.iter().any(|can| can.eq_ignore_ascii_case(CAPABLE)))
    }
}

/// Whether host and port are of the client's own machine.
fn is_this_host(host_and_port: &str) -> bool {
    let host = match host_and_port.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => host_and_port,
    };
    matches!(host, "localhost" | "127.0.0.1" | "[::1]")
}

/// The person that tokens are for.
struct Person<'a> {
    record: &'a PrincipalRecord,
    client: &'a str,
    scope: Option<&'a str>,
    resource: Option<&'a str>,
    nonce: Option<&'a str>,
}

impl TokenService {
    /// POST to the token endpoint.
    pub(crate) async fn token(&self, ask: &Ask<'_>) -> Response<Bytes> {
        let granted = match ask.form.get("grant_type") {
            Some("client_credentials") => self.client_credentials(ask).await,
            Some("password") => self.password(ask).await,
            Some("authorization_code") => self.code(ask).await,
            Some("refresh_token") => self.refresh_token(ask).await,
            Some("device_code" | "urn:ietf:params:oauth:grant-type:device_code") => {
                self.device_token(ask).await
            }
            Some(_) => Err(Refusal::new(
                "unsupported_grant_type",
                70_003,
                format!("this grant type is not supported; use {GRANTS}"),
            )),
            None => Err(Refusal::missing("grant_type")),
        };
        match granted {
            Ok(body) => json_answer(StatusCode::OK, &body),
            Err(refusal) => self.refuse(&refusal, ask.caller),
        }
    }

    async fn client_credentials(&self, ask: &Ask<'_>) -> Result<Value, Refusal> {
        let audience = self.audience(ask.form.get("scope"), ask.form.get("resource"))?;
        let is_capable = ask.is_capable()?;
        let record = self.application(ask).await?;
        let groups = self.groups(&record).await?;
        let subject = Subject {
            to: &record,
            shape: ask.place.shape,
            client: &record.login,
            capable: is_capable,
            groups: &groups,
        };
        Ok(self.answer_with(ask.place, subject, &audience))
    }

    /// The application of a request, authenticated by a secret or by a signed token.
    async fn application(&self, ask: &Ask<'_>) -> Result<PrincipalRecord, Refusal> {
        if let Some(text) = ask.form.get("client_assertion") {
            return self.by_assertion(ask, text).await;
        }
        let (client, secret) = match &ask.basic {
            Some((client, secret)) => (client.as_str(), secret.as_str()),
            None => (ask.need("client_id")?, ask.need("client_secret")?),
        };
        self.login(client, secret, PrincipalKind::Application, ask.caller)
            .await
            .map_err(|problem| problem.refusal(PrincipalKind::Application))
    }

    async fn by_assertion(&self, ask: &Ask<'_>, text: &str) -> Result<PrincipalRecord, Refusal> {
        if ask.need("client_assertion_type")? != assertion::KIND {
            return Err(Refusal::new(
                "invalid_request",
                50_027,
                format!("'client_assertion_type' has to be {}", assertion::KIND),
            ));
        }
        let shown = assertion::read(text)?;
        let client = ask.form.get("client_id").unwrap_or(&shown.claims.sub);
        let unknown = || {
            Refusal::new(
                "unauthorized_client",
                700_016,
                "there is no such application in this tenant",
            )
        };
        let record = find_principal(&*self.store, client)
            .await
            .map_err(|error| Refusal::store(&error))?
            .filter(|record| kind(record) != PrincipalKind::User)
            .ok_or_else(unknown)?;
        let now = self.env.clock.now();
        if shown.is_own(client) {
            shown.check_certificate(&record, |audience| self.is_token_endpoint(audience, ask), now)?;
        } else {
            if !(shown.is_by_binding(&record) && self.binds(&shown, &record).await?) {
                shown.federated(&record, now)?;
            }
            let keys = self.keys_of(&shown).await?;
            shown.check_federated(&keys, now)?;
        }
        self.uses.count(&shown, Origin::of(ask.caller.address))?;
        if record.disabled {
            return Err(Refusal::new(
                "unauthorized_client",
                7_000_112,
                "the application is disabled",
            ));
        }
        Ok(record)
    }

    /// Whether a signed token is meant for us: for a token endpoint of ours, under a configured name or a
    /// local address of this host, or for an issuer of ours. The request's `Host` is not trusted: a token for
    /// another server could be presented to us under its name.
    fn is_token_endpoint(&self, audience: &str, ask: &Ask<'_>) -> bool {
        let own = self.config.base_url.trim_end_matches('/');
        let here = Some(ask.place.base_url.as_str()).filter(|base| is_this_host(host(base)));
        [Some(own), here].into_iter().flatten().any(|base| {
            audience
                .strip_prefix(base)
                .is_some_and(|path| path.starts_with('/') && self.is_token_path(path))
        }) || self.tokens.issuers.iter().any(|own| own == audience)
    }

    /// Whether the issuer of a token is a cluster that is bound to this identity.
    async fn binds(&self, shown: &assertion::Shown<'_>, identity: &PrincipalRecord) -> Result<bool, Refusal> {
        for place in self.issuers() {
            let bound = place.binds(&shown.claims.iss, &identity.object_id).await;
            let bound = bound.map_err(|why| {
                Refusal::unavailable(&format!(
                    "the identity bindings of a cluster cannot be read: {why}"
                ))
            })?;
            if bound {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The keys of a token's issuer: our own, or those of another source.
    async fn keys_of(&self, shown: &assertion::Shown<'_>) -> Result<Value, Refusal> {
        let issuer = &shown.claims.iss;
        if self.tokens.issuers.contains(issuer) {
            return Ok(self.public_keys());
        }
        for place in self.issuers() {
            match place.keys(issuer, &|keys| shown.is_in(keys)).await {
                Ok(Some(keys)) => return Ok(keys),
                Ok(None) => {}
                Err(IssuerError::Refused(why)) => {
                    return Err(Refusal::new(
                        "invalid_client",
                        700_211,
                        format!("the keys of the issuer of the client assertion are not read: {why}"),
                    ));
                }
                Err(IssuerError::Unreachable(why)) => {
                    return Err(Refusal::unavailable(&format!(
                        "the keys of the issuer of the client assertion cannot be read: {why}"
                    )));
                }
            }
        }
        Err(Refusal::new(
            "invalid_client",
            700_211,
            "the issuer of the client assertion is not of this stamp, and others are not asked here",
        ))
    }

    async fn password(&self, ask: &Ask<'_>) -> Result<Value, Refusal> {
        let client = self.public_client(ask.form)?;
        let (user, password) = (ask.need("username")?, ask.need("password")?);
        let (scope, resource) = (ask.form.get("scope"), ask.form.get("resource"));
        self.audience(scope, resource)?;
        ask.is_capable()?;
        let record = self
            .login(user, password, PrincipalKind::User, ask.caller)
            .await
            .map_err(|problem| problem.refusal(PrincipalKind::User))?;
        let person = Person {
            record: &record,
            client: &client,
            scope,
            resource,
            nonce: None,
        };
        Ok(self.begin(ask, &person).await?.0)
    }

    async fn code(&self, ask: &Ask<'_>) -> Result<Value, Refusal> {
        let client = self.public_client(ask.form)?;
        let (code, redirect_uri) = (ask.need("code")?, ask.need("redirect_uri")?);
        let verifier = ask.need("code_verifier")?;
        ask.is_capable()?;
        self.check_confidential(ask, &client, redirect_uri).await?;
        let brought = Brought {
            client: &client,
            redirect_uri,
            verifier,
        };
        let granted = match self.codes.redeem(code, brought, self.env.clock.monotonic()) {
            Redeemed::Good(granted) => granted,
            Redeemed::Bad => return Err(Self::bad_code()),
            Redeemed::Spent { object_id, family } => {
                tracing::warn!(
                    principal = object_id,
                    client,
                    "an authorization code was used twice: it may be stolen; its sign-in is ended"
                );
                refresh::end(&*self.store, &object_id, &family)
                    .await
                    .map_err(|error| Refusal::store(&error))?;
                return Err(Self::bad_code());
            }
        };
        let record = self.person(&granted.object_id).await?;
        let person = Person {
            record: &record,
            client: &client,
            scope: granted.scope.as_deref(),
            resource: granted.resource.as_deref(),
            nonce: granted.nonce.as_deref(),
        };
        let (body, family) = self.begin(ask, &person).await?;
        if let Some(family) = family {
            self.codes.became(code, &record.object_id, &family);
        }
        Ok(body)
    }

    /// An application that has secrets must authenticate, unless it runs on the user's own machine, where it
    /// can keep none.
    async fn check_confidential(
        &self,
        ask: &Ask<'_>,
        client: &str,
        redirect_uri: &str,
    ) -> Result<(), Refusal> {
        let shows = ask.basic.is_some()
            || ask.form.get("client_secret").is_some()
            || ask.form.get("client_assertion").is_some();
        if !shows {
            let registered = find_principal(&*self.store, client)
                .await
                .map_err(|error| Refusal::store(&error))?;
            let has_secrets = registered
                .is_some_and(|record| !record.secret_hash.is_empty() || !record.credentials.is_empty());
            if has_secrets && !crate::authorize::is_loopback(redirect_uri) {
                return Err(Refusal::new(
                    "invalid_client",
                    7_000_218,
                    "the request body needs 'client_assertion' or 'client_secret'",
                ));
            }
            return Ok(());
        }
        let proven = self.application(ask).await?;
        if proven.login.eq_ignore_ascii_case(client) {
            Ok(())
        } else {
            Err(Refusal::new(
                "invalid_client",
                700_021,
                "the secret or assertion is of another application than 'client_id'",
            ))
        }
    }

    async fn refresh_token(&self, ask: &Ask<'_>) -> Result<Value, Refusal> {
        let client = self.public_client(ask.form)?;
        let token = ask.need("refresh_token")?;
        let (scope, resource) = (ask.form.get("scope"), ask.form.get("resource"));
        // Checked before the token is used up.
        self.audience(scope, resource)?;
        ask.is_capable()?;
        let (record, next) = refresh::renew(&*self.store, &self.env, token, &client)
            .await
            .map_err(|problem| match problem {
                RefreshError::Stale => {
                    Refusal::stale("the refresh token does not hold (any more); log in again")
                }
                RefreshError::Spent => {
                    Refusal::stale("the refresh token was used before, so its sign-in is ended; log in again")
                }
                RefreshError::Store(error) => Refusal::store(&error),
            })?;
        let person = Person {
            record: &record,
            client: &client,
            scope,
            resource,
            nonce: None,
        };
        self.tokens_of(ask, &person, Some(next)).await
    }

    async fn device_token(&self, ask: &Ask<'_>) -> Result<Value, Refusal> {
        let client = self.public_client(ask.form)?;
        let code = ask
            .form
            .get("device_code")
            .or(ask.form.get("code"))
            .ok_or_else(|| Refusal::missing("device_code"))?;
        ask.is_capable()?;
        let asked = ask.form.get("scope");
        self.audience(asked, None)?;
        match self.devices.poll(code, &client, self.env.clock.monotonic()) {
            Poll::Pending => Err(Refusal::new(
                "authorization_pending",
                PENDING,
                "the code has not been entered yet",
            )),
            Poll::Refused => Err(Refusal::new(
                "authorization_declined",
                70_018,
                "the sign-in was denied",
            )),
            Poll::Expired => Err(Refusal::new(
                "expired_token",
                70_020,
                "the device code is unknown or too old; ask for a new one",
            )),
            Poll::Approved { object_id, scope } => {
                let record = self.person(&object_id).await?;
                let person = Person {
                    record: &record,
                    client: &client,
                    scope: asked.or(Some(scope.as_str()).filter(|scope| !scope.is_empty())),
                    resource: ask.form.get("resource"),
                    nonce: None,
                };
                Ok(self.begin(ask, &person).await?.0)
            }
        }
    }

    /// The person who has just signed in.
    async fn person(&self, object_id: &str) -> Result<PrincipalRecord, Refusal> {
        let record = principal_by_id(&*self.store, object_id)
            .await
            .map_err(|error| Refusal::store(&error))?;
        record
            .filter(|record| !record.disabled)
            .ok_or_else(|| Refusal::new("invalid_grant", 50_057, "the user account is disabled, or gone"))
    }

    /// The first tokens of a sign-in, and its family if it has one.
    async fn begin(&self, ask: &Ask<'_>, person: &Person<'_>) -> Result<(Value, Option<String>), Refusal> {
        // A request without scopes uses an older protocol, which always issues a refresh token.
        let goes_on = person
            .scope
            .is_none_or(|scope| scope.split_whitespace().any(|one| one == "offline_access"));
        let (family, token) = if goes_on {
            refresh::begin(&*self.store, &self.env, person.record, person.client)
                .await
                .map(|(family, token)| (Some(family), Some(token)))
                .map_err(|error| Refusal::store(&error))?
        } else {
            (None, None)
        };
        Ok((self.tokens_of(ask, person, token).await?, family))
    }

    /// Tokens for a person.
    async fn tokens_of(
        &self,
        ask: &Ask<'_>,
        person: &Person<'_>,
        refresh: Option<String>,
    ) -> Result<Value, Refusal> {
        let groups = self.groups(person.record).await?;
        let audience = self.audience(person.scope, person.resource)?;
        let subject = Subject {
            to: person.record,
            shape: ask.place.shape,
            client: person.client,
            capable: ask.is_capable()?,
            groups: &groups,
        };
        let mut body = self.answer_with(ask.place, subject, &audience);
        body["scope"] = json!(person.scope.unwrap_or_default());
        body["id_token"] = json!(self.tokens.id(subject, person.nonce, self.env.clock.now()));
        if let Some(refresh) = refresh {
            body["refresh_token"] = json!(refresh);
        }
        if ask.form.get("client_info") == Some("1") {
            let info = json!({ "uid": person.record.object_id, "utid": self.config.tenant_id });
            body["client_info"] = json!(URL_SAFE_NO_PAD.encode(info.to_string()));
        }
        Ok(body)
    }

    /// The groups of a principal.
    async fn groups(&self, record: &PrincipalRecord) -> Result<Vec<String>, Refusal> {
        groups_of(&*self.store, &record.object_id)
            .await
            .map_err(|error| Refusal::store(&error))
    }

    /// A response with an access token.
    fn answer_with(&self, place: &Place, subject: Subject<'_>, audience: &str) -> Value {
        let (now, lifetime) = (self.env.clock.now(), TOKEN_LIFETIME.as_secs());
        let token = self.tokens.access(subject, audience, now);
        match place.version {
            Version::V2 => json!({
                "token_type": "Bearer",
                "expires_in": lifetime,
                "ext_expires_in": lifetime,
                "resource": audience,
                "access_token": token,
            }),
            Version::V1 => json!({
                "token_type": "Bearer",
                "expires_in": lifetime.to_string(),
                "ext_expires_in": lifetime.to_string(),
                "expires_on": now.as_second().saturating_add_unsigned(lifetime).to_string(),
                "not_before": now.as_second().to_string(),
                "resource": audience,
                "access_token": token,
            }),
        }
    }

    /// The client of a person's sign-in: any, whether or not it is registered, but never one that could be
    /// mistaken for an audience, because it becomes the `aud` of id tokens.
    pub(crate) fn public_client(&self, form: &Form) -> Result<String, Refusal> {
        let client = form
            .get("client_id")
            .ok_or_else(|| Refusal::missing("client_id"))?;
        let plain = client.len() <= 128
            && client
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
        if plain && !self.known_resources().any(|own| same_resource(own, client)) {
            Ok(client.to_owned())
        } else {
            Err(Refusal::new(
                "invalid_request",
                700_016,
                "'client_id' is not one of an application",
            ))
        }
    }

    fn known_resources(&self) -> impl Iterator<Item = &String> {
        self.config.audiences.iter().chain(&self.config.resources)
    }

    /// The audience that `scope` (`{resource}/.default …`) or `resource` requests; ARM where neither is
    /// given.
    pub(crate) fn audience(&self, scope: Option<&str>, resource: Option<&str>) -> Result<String, Refusal> {
        let from_scope = scope.unwrap_or_default().split_whitespace().find_map(|scope| {
            let plain = matches!(scope, "openid" | "profile" | "email" | "offline_access");
            (!plain).then(|| {
                scope
                    .strip_suffix(".default")
                    .or(scope.strip_suffix("user_impersonation"))
                    .unwrap_or(scope)
            })
        });
        let Some(wanted) = resource.or(from_scope) else {
            return Ok(self.config.audiences.first().cloned().unwrap_or_default());
        };
        if self.known_resources().any(|own| same_resource(own, wanted)) {
            // As requested, without the slash of `/.default`.
            Ok(wanted.trim_end_matches('/').to_owned())
        } else if let Some(own) = self.config.resources.iter().find(|own| same_path(own, wanted)) {
            // An API of the stamp, which clients request by any of the stamp's addresses: all of them are one
            // audience.
            Ok(own.trim_end_matches('/').to_owned())
        } else {
            Err(Refusal::new(
                "invalid_resource",
                500_011,
                format!(
                    "there is no such resource in this tenant; ask for '{}/.default'",
                    self.config
                        .audiences
                        .first()
                        .map_or("", |first| first.trim_end_matches('/'))
                ),
            ))
        }
    }
}
