//! The grants: client credentials, password, refresh token, device code; and the approval of device codes.

use std::{sync::atomic::Ordering, time::Duration};

use arm_wire::PrincipalKind;
use bytes::Bytes;
use control_records::PrincipalRecord;
use http::{HeaderValue, Response, StatusCode, header};
use serde_json::{Value, json};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::{
    Caller, TOKEN_LIFETIME, TokenService,
    device::{LIFETIME, Poll},
    form::Form,
    page,
    principals::{MAX_LOGIN_CHARS, find_principal, principal_by_id},
    secret::{DUMMY_HASH, is_costly, verify_secret},
    service::{html, json_answer},
    shape::Place,
    throttle::Origin,
    tokens::{fingerprint, kind, same_resource},
};

/// Clients poll for a device code this often, in seconds.
const INTERVAL: u64 = 2;
/// Whoever comes while too many secrets wait to be compared is asked to wait so long.
const BUSY: Duration = Duration::from_secs(1);
/// Nobody has approved the device code yet.
const PENDING: u32 = 70_016;

/// A refusal as OAuth and the AADSTS codes know it.
struct Refusal {
    status: StatusCode,
    error: &'static str,
    /// Number behind `AADSTS`.
    code: u32,
    text: String,
    retry_after: Option<Duration>,
}

impl Refusal {
    fn new(error: &'static str, code: u32, text: impl Into<String>) -> Self {
        let status = if error == "invalid_client" {
            StatusCode::UNAUTHORIZED
        } else {
            StatusCode::BAD_REQUEST
        };
        Self {
            status,
            error,
            code,
            text: text.into(),
            retry_after: None,
        }
    }

    fn missing(field: &str) -> Self {
        Self::new(
            "invalid_request",
            900_144,
            format!("the request body needs the parameter '{field}'"),
        )
    }

    fn busy(wait: Duration) -> Self {
        let mut refusal = Self::new(
            "temporarily_unavailable",
            90_055,
            "too many sign-ins are under way from there; repeat later",
        );
        refusal.status = StatusCode::TOO_MANY_REQUESTS;
        refusal.retry_after = Some(wait);
        refusal
    }

    fn unavailable() -> Self {
        let mut refusal = Self::new(
            "temporarily_unavailable",
            90_033,
            "the token service cannot reach its store; repeat",
        );
        refusal.status = StatusCode::SERVICE_UNAVAILABLE;
        refusal
    }
}

impl TokenService {
    /// POST to the token endpoint.
    pub(crate) async fn token(
        &self,
        form: &Form,
        basic: Option<(String, String)>,
        place: &Place,
        caller: &Caller,
    ) -> Response<Bytes> {
        let granted = match form.get("grant_type") {
            Some("client_credentials") => self.client_credentials(form, basic, place, caller).await,
            Some("password") => self.password(form, place, caller).await,
            Some("refresh_token") => self.refresh_token(form, place).await,
            Some("device_code" | "urn:ietf:params:oauth:grant-type:device_code") => {
                self.device_token(form, place).await
            }
            Some(_) => Err(Refusal::new(
                "unsupported_grant_type",
                70_003,
                "this grant type is not supported; use client_credentials, password, refresh_token or device_code",
            )),
            None => Err(Refusal::missing("grant_type")),
        };
        match granted {
            Ok(body) => json_answer(StatusCode::OK, &body),
            Err(refusal) => self.refuse(&refusal, caller),
        }
    }

    fn refuse(&self, refusal: &Refusal, caller: &Caller) -> Response<Bytes> {
        // A client that waits for a person asks every few seconds; the others are counted, so that nobody fills the log.
        if refusal.code != PENDING
            && let Some(count) = self.refusals.note(self.env.clock.monotonic())
        {
            let address = caller.address;
            tracing::info!(
                ?address,
                code = refusal.code,
                error = refusal.error,
                count,
                "refused tokens; this is the latest"
            );
        }
        let trace = self.env.ids.uuid();
        let mut answer = json_answer(
            refusal.status,
            &json!({
                "error": refusal.error,
                "error_description": format!("AADSTS{}: {}. Trace ID: {trace}", refusal.code, refusal.text),
                "error_codes": [refusal.code],
                "timestamp": self.env.clock.now().to_string(),
                "trace_id": trace,
            }),
        );
        if let Some(wait) = refusal.retry_after {
            answer
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs() + 1));
        }
        answer
    }

    async fn client_credentials(
        &self,
        form: &Form,
        basic: Option<(String, String)>,
        place: &Place,
        caller: &Caller,
    ) -> Result<Value, Refusal> {
        if form.get("client_assertion").is_some() {
            return Err(Refusal::new(
                "invalid_client",
                700_027,
                "service principals with certificates or federated tokens are not there yet; use a secret",
            ));
        }
        let (client, secret) = match basic {
            Some(pair) => pair,
            None => (
                form.get("client_id")
                    .ok_or_else(|| Refusal::missing("client_id"))?
                    .to_owned(),
                form.get("client_secret")
                    .ok_or_else(|| Refusal::missing("client_secret"))?
                    .to_owned(),
            ),
        };
        let audience = self.audience(form.get("scope"), form.get("resource"))?;
        let record = self
            .login(&client, &secret, PrincipalKind::Application, caller)
            .await
            .map_err(|problem| match problem {
                Problem::Wrong => Refusal::new(
                    "invalid_client",
                    7_000_215,
                    "invalid client secret provided, or there is no such application",
                ),
                other => other.refusal(),
            })?;
        Ok(json!({
            "token_type": "Bearer",
            "expires_in": TOKEN_LIFETIME.as_secs(),
            "ext_expires_in": TOKEN_LIFETIME.as_secs(),
            "resource": audience,
            "access_token": self.tokens.access(&record, place.shape, &record.login, &audience, self.env.clock.now()),
        }))
    }

    async fn password(&self, form: &Form, place: &Place, caller: &Caller) -> Result<Value, Refusal> {
        let client = self.public_client(form)?;
        let user = form.get("username").ok_or_else(|| Refusal::missing("username"))?;
        let password = form.get("password").ok_or_else(|| Refusal::missing("password"))?;
        let scope = form.get("scope");
        self.audience(scope, form.get("resource"))?;
        let record = self
            .login(user, password, PrincipalKind::User, caller)
            .await
            .map_err(Problem::refusal)?;
        self.user_tokens(&record, &client, scope, form, place)
    }

    async fn refresh_token(&self, form: &Form, place: &Place) -> Result<Value, Refusal> {
        let client = self.public_client(form)?;
        let token = form
            .get("refresh_token")
            .ok_or_else(|| Refusal::missing("refresh_token"))?;
        let stale = || {
            Refusal::new(
                "invalid_grant",
                700_082,
                "the refresh token does not hold (any more); log in again",
            )
        };
        let claims = self
            .tokens
            .check_refresh(token, &client, self.env.clock.now())
            .map_err(|_| stale())?;
        let record = principal_by_id(&*self.store, &claims.oid)
            .await
            .map_err(|error| {
                tracing::error!(%error, "cannot read a principal");
                Refusal::unavailable()
            })?;
        let record = record
            .filter(|record| fingerprint(record) == claims.fingerprint)
            .ok_or_else(stale)?;
        self.user_tokens(&record, &client, form.get("scope"), form, place)
    }

    async fn device_token(&self, form: &Form, place: &Place) -> Result<Value, Refusal> {
        let client = self.public_client(form)?;
        let code = form
            .get("device_code")
            .or(form.get("code"))
            .ok_or_else(|| Refusal::missing("device_code"))?;
        let expired = || {
            Refusal::new(
                "expired_token",
                70_020,
                "the device code is unknown or too old; ask for a new one",
            )
        };
        match self.devices.poll(code, &client, self.env.clock.monotonic()) {
            Poll::Pending => Err(Refusal::new(
                "authorization_pending",
                PENDING,
                "nobody has entered the code yet",
            )),
            Poll::Expired => Err(expired()),
            Poll::Approved { object_id, scope } => {
                let record = principal_by_id(&*self.store, &object_id).await.map_err(|error| {
                    tracing::error!(%error, "cannot read a principal");
                    Refusal::unavailable()
                })?;
                let scope = form.get("scope").or(Some(scope.as_str()));
                self.user_tokens(&record.ok_or_else(expired)?, &client, scope, form, place)
            }
        }
    }

    /// POST to the device code endpoint.
    pub(crate) fn device_code(&self, form: &Form, place: &Place, caller: &Caller) -> Response<Bytes> {
        let scope = form.get("scope").unwrap_or_default();
        let started = self.public_client(form).and_then(|client| {
            self.audience(form.get("scope"), form.get("resource"))?;
            // A resource without scopes (AD FS 3) is kept as a scope, so that there is one thing to remember.
            let scope = match form.get("resource") {
                Some(resource) if scope.is_empty() => format!("{resource}/.default"),
                _ => scope.to_owned(),
            };
            self.devices
                .start(
                    &client,
                    &scope,
                    Origin::of(caller.address),
                    self.env.clock.monotonic(),
                )
                .ok_or_else(|| Refusal::busy(Duration::from_secs(30)))
        });
        let (device_code, user_code) = match started {
            Ok(codes) => codes,
            Err(refusal) => return self.refuse(&refusal, caller),
        };
        let page = place.endpoint("deviceauth");
        json_answer(
            StatusCode::OK,
            &json!({
                "device_code": device_code,
                "user_code": user_code,
                "verification_uri": page,
                "verification_url": page,
                "expires_in": LIFETIME.as_secs(),
                "interval": INTERVAL,
                "message": format!("To sign in, open {page} in a browser and enter the code {user_code}"),
            }),
        )
    }

    /// POST of the approval page.
    pub(crate) async fn approve(&self, form: &Form, caller: &Caller) -> Response<Bytes> {
        let [code, user, password] =
            ["user_code", "username", "password"].map(|field| form.get(field).unwrap_or_default());
        let again = |status, note: &str| html(status, page::form(code, user, Some(note)));
        if !self.devices.waits(code, self.env.clock.monotonic()) {
            return again(
                StatusCode::BAD_REQUEST,
                "This code is unknown or too old. Ask the other device for a new one.",
            );
        }
        match self.login(user, password, PrincipalKind::User, caller).await {
            Ok(record) => {
                if self
                    .devices
                    .approve(code, &record.object_id, self.env.clock.monotonic())
                {
                    tracing::info!(principal = %record.object_id, "approved a device code");
                    html(StatusCode::OK, page::done())
                } else {
                    again(
                        StatusCode::BAD_REQUEST,
                        "This code was used meanwhile. Ask the other device for a new one.",
                    )
                }
            }
            Err(Problem::Wrong) => again(StatusCode::UNAUTHORIZED, "User name or password is wrong."),
            Err(Problem::Wait(wait)) => again(
                StatusCode::TOO_MANY_REQUESTS,
                &format!(
                    "Too many wrong passwords. Try again in {} seconds.",
                    wait.as_secs() + 1
                ),
            ),
            Err(Problem::Busy(wait)) => again(
                StatusCode::TOO_MANY_REQUESTS,
                &format!(
                    "Too many sign-ins are under way. Try again in {} seconds.",
                    wait.as_secs()
                ),
            ),
            Err(Problem::Store) => again(
                StatusCode::SERVICE_UNAVAILABLE,
                "Signing in is not possible right now.",
            ),
        }
    }

    /// Tokens for a person.
    fn user_tokens(
        &self,
        record: &PrincipalRecord,
        client: &str,
        scope: Option<&str>,
        form: &Form,
        place: &Place,
    ) -> Result<Value, Refusal> {
        let audience = self.audience(scope, form.get("resource"))?;
        let now = self.env.clock.now();
        let mut body = json!({
            "token_type": "Bearer",
            "scope": scope.unwrap_or_default(),
            "resource": audience,
            "expires_in": TOKEN_LIFETIME.as_secs(),
            "ext_expires_in": TOKEN_LIFETIME.as_secs(),
            "access_token": self.tokens.access(record, place.shape, client, &audience, now),
            "refresh_token": self.tokens.refresh(record, client, now),
            "id_token": self.tokens.id(record, place.shape, client, now),
        });
        if form.get("client_info") == Some("1") {
            let info = json!({ "uid": record.object_id, "utid": self.config.tenant_id });
            body["client_info"] = json!(URL_SAFE_NO_PAD.encode(info.to_string()));
        }
        Ok(body)
    }

    /// The client of a person's sign-in: any, as there is no registry of them, but never something that could be
    /// mistaken for an audience, because it becomes the `aud` of id tokens.
    fn public_client(&self, form: &Form) -> Result<String, Refusal> {
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

    /// The audience that `scope` (`{resource}/.default …`) or `resource` asks for; ARM where neither does.
    fn audience(&self, scope: Option<&str>, resource: Option<&str>) -> Result<String, Refusal> {
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
            // As asked for, without the slash that belongs to `/.default`.
            Ok(wanted.trim_end_matches('/').to_owned())
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

    /// The principal with this login and secret.
    async fn login(
        &self,
        login: &str,
        secret: &str,
        wanted: PrincipalKind,
        caller: &Caller,
    ) -> Result<PrincipalRecord, Problem> {
        if login.chars().count() > MAX_LOGIN_CHARS {
            return Err(Problem::Wrong);
        }
        // By address as well, so that nobody can lock somebody else out from afar.
        let (origin, now) = (Origin::of(caller.address), self.env.clock.monotonic());
        let found = find_principal(&*self.store, login)
            .await
            .map_err(|error| {
                tracing::error!(%error, "cannot look up a login");
                Problem::Store
            })?
            .filter(|record| kind(record) == wanted);
        let stored = found
            .as_ref()
            .map_or(DUMMY_HASH, |record| record.secret_hash.as_str());
        if !is_costly(stored) && verify_secret(stored, secret) {
            // 256 random bits: no number of strangers at the same address keeps their owner out.
            self.throttle.succeeded(origin, login);
            return found.ok_or(Problem::Wrong);
        }
        self.throttle.attempt(origin, login, now).map_err(Problem::Wait)?;
        if !is_costly(stored) {
            return Err(Problem::Wrong);
        }
        let attempt = self.throttle.permit(origin, now).map_err(|wait| {
            // Nothing was compared, so nothing was wrong.
            self.throttle.retract(origin, login);
            Problem::Busy(wait)
        })?;
        self.hashed.fetch_add(1, Ordering::Relaxed);
        let (stored, secret) = (stored.to_owned(), secret.to_owned());
        let right = match self.hashing.run(move || verify_secret(&stored, &secret)).await {
            Ok(right) => right,
            Err(error) => {
                tracing::error!(%error, "a secret was not compared");
                self.throttle.retract(origin, login);
                return Err(Problem::Busy(BUSY));
            }
        };
        match found {
            Some(record) if right => {
                attempt.succeeded();
                self.throttle.succeeded(origin, login);
                Ok(record)
            }
            _ => Err(Problem::Wrong),
        }
    }
}

/// Why nobody logged in.
enum Problem {
    Wrong,
    /// Too many wrong secrets for this login.
    Wait(Duration),
    /// Too many attempts from that address, or in all.
    Busy(Duration),
    Store,
}

impl Problem {
    fn refusal(self) -> Refusal {
        match self {
            Self::Wrong => Refusal::new("invalid_grant", 50_126, "user name or password is wrong"),
            Self::Wait(wait) => {
                let mut refusal = Refusal::new(
                    "invalid_grant",
                    50_053,
                    format!("too many wrong secrets; try again in {} s", wait.as_secs() + 1),
                );
                refusal.status = StatusCode::TOO_MANY_REQUESTS;
                refusal.retry_after = Some(wait);
                refusal
            }
            Self::Busy(wait) => Refusal::busy(wait),
            Self::Store => Refusal::unavailable(),
        }
    }
}
