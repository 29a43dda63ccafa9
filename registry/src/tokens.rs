//! The registries' own tokens, and who is let through.
//!
//! ```text
//! token of the directory ── /oauth2/exchange ──► refresh token ── /oauth2/token ──► access token: some rights, for minutes
//! client id and secret ─────────────────────────────────────────┘
//! ```
//!
//! Always true: an access token has no right that its principal does not have, and a right that was taken away
//! since counts no more; a refresh token opens no image.

use axum::body::Body;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header, request::Parts};
use jiff::SignedDuration;
use serde_json::json;

use crate::{
    Access, Claims, Entrance, KnownRegistry, Outcome, Registries, Right,
    answer::{Failure, ok},
    scope::{MOST_SCOPES, Scope, Wanted, login_of},
};

/// The user name of clients that have a refresh token as password.
const NOBODY: &str = "00000000-0000-0000-0000-000000000000";
/// Forms are small.
const FORM_LIMIT: usize = 64 * 1024;
const MOST_FIELDS: usize = 64;
/// No token of the stamp is valid for longer.
const REFRESH_LIFETIME: SignedDuration = SignedDuration::from_hours(1);
const ACCESS_LIFETIME: SignedDuration = SignedDuration::from_mins(15);

type Fields = Vec<(String, String)>;

fn field<'a>(fields: &'a [(String, String)], name: &str) -> Option<&'a str> {
    fields
        .iter()
        .find(|(key, value)| key == name && !value.is_empty())
        .map(|(_, value)| value.as_str())
}

fn form(bytes: &Bytes) -> Result<Fields, Failure> {
    std::str::from_utf8(bytes)
        .ok()
        .and_then(|text| arm_ids::parse_query(text, MOST_FIELDS))
        .ok_or_else(|| bad("the form cannot be understood"))
}

fn bad(message: &str) -> Failure {
    Failure::new(StatusCode::BAD_REQUEST, "UNSUPPORTED", message)
}

fn wrong_credentials() -> Failure {
    Failure::new(
        StatusCode::UNAUTHORIZED,
        "UNAUTHORIZED",
        "the credentials are not valid; get others: az acr login --expose-token",
    )
}

/// User and password of an `Authorization: Basic` header.
fn basic(parts: &Parts) -> Option<(String, String)> {
    let text = parts.headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = text.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

fn bearer(parts: &Parts) -> Option<&str> {
    let text = parts.headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = text.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// What a client is told that has no valid token: where it gets one, and for what.
fn challenge(entrance: &Entrance, login: Option<&str>, scope: Option<&str>, problem: Option<&str>) -> String {
    let host = entrance.host();
    let mut text = format!(
        "Bearer realm=\"{}/oauth2/token\"",
        entrance.base_url.trim_end_matches('/')
    );
    match login {
        Some(name) => text.push_str(&format!(",service=\"{host}/{name}\"")),
        None => text.push_str(&format!(",service=\"{host}\"")),
    }
    for (name, value) in [("scope", scope), ("error", problem)] {
        if let Some(value) = value {
            text.push_str(&format!(",{name}=\"{value}\""));
        }
    }
    text
}

impl Registries {
    fn claims(&self, object_id: &str, kind: &str, lifetime: SignedDuration, access: Vec<Access>) -> Claims {
        let now = self.inner.env.clock.now().as_second();
        Claims {
            aud: Claims::AUDIENCE.to_owned(),
            nbf: now,
            iat: now,
            exp: now.saturating_add(lifetime.as_secs()),
            sub: object_id.to_owned(),
            grant_type: kind.to_owned(),
            access,
        }
    }

    fn refresh_token(&self, object_id: &str) -> String {
        let claims = self.claims(object_id, Claims::REFRESH, REFRESH_LIFETIME, Vec::new());
        self.inner.gate.sign(&claims)
    }

    /// The principal of a refresh token.
    async fn refreshed(&self, token: &str) -> Result<Option<String>, Failure> {
        let claims = self.inner.gate.read(token).await?;
        Ok(claims
            .filter(|claims| claims.grant_type == Claims::REFRESH)
            .map(|claims| claims.sub))
    }

    /// The principal of a user name and password.
    async fn logged_in(
        &self,
        user: &str,
        password: &str,
        entrance: &Entrance,
    ) -> Result<Option<String>, Failure> {
        if user == NOBODY {
            return self.refreshed(password).await;
        }
        Ok(self.inner.gate.password(user, password, entrance.address).await?)
    }

    /// POST `/oauth2/exchange`: a token of the directory for a refresh token.
    pub(crate) async fn exchange(&self, parts: &Parts, body: Body, who: &mut Option<String>) -> Outcome {
        if parts.method != Method::POST {
            return Err(Failure::unsupported("use POST"));
        }
        let fields = form(&self.small(body, FORM_LIMIT).await?)?;
        if field(&fields, "grant_type") != Some("access_token") {
            return Err(bad("'grant_type' has to be access_token"));
        }
        let token = field(&fields, "access_token").ok_or_else(|| bad("'access_token' is missing"))?;
        let principal = self.inner.gate.bearer(token).await?;
        let principal = principal.ok_or_else(wrong_credentials)?;
        let mut answer = ok(&json!({ "refresh_token": self.refresh_token(&principal) }));
        no_store(&mut answer);
        *who = Some(principal);
        Ok(answer)
    }

    /// GET and POST `/oauth2/token`: an access token with those of the requested rights that the caller has.
    pub(crate) async fn token(
        &self,
        parts: &Parts,
        query: &[(String, String)],
        body: Body,
        entrance: &Entrance,
    ) -> Outcome {
        let posted: Fields;
        let (fields, principal) = if parts.method == Method::POST {
            posted = form(&self.small(body, FORM_LIMIT).await?)?;
            let need = |name: &str| {
                field(&posted, name).ok_or_else(|| bad("a form with grant_type and credentials is needed"))
            };
            let principal = match field(&posted, "grant_type") {
                Some("refresh_token") => self.refreshed(need("refresh_token")?).await?,
                Some("password") => {
                    self.logged_in(need("username")?, need("password")?, entrance)
                        .await?
                }
                _ => return Err(bad("'grant_type' has to be refresh_token or password")),
            };
            (posted.as_slice(), principal)
        } else if matches!(parts.method, Method::GET | Method::HEAD) {
            let principal = match basic(parts) {
                Some((user, password)) => self.logged_in(&user, &password, entrance).await?,
                None => None,
            };
            (query, principal)
        } else {
            return Err(Failure::unsupported("use GET or POST"));
        };
        let principal = principal.ok_or_else(wrong_credentials)?;
        let login = field(fields, "service").and_then(login_of);
        let scopes: Vec<Scope> = fields
            .iter()
            .filter(|(name, _)| name == "scope")
            .flat_map(|(_, value)| value.split(' '))
            .filter_map(|scope| Scope::parse(scope, login.as_deref()))
            .take(MOST_SCOPES)
            .collect();
        let mut access = Vec::new();
        for scope in &scopes {
            let granted = self.granted(&principal, scope).await?;
            if !granted.is_empty() {
                access.push(scope.granting(granted));
            }
        }
        let token = self.claims(&principal, Claims::ACCESS, ACCESS_LIFETIME, access);
        let token = self.inner.gate.sign(&token);
        let mut body = json!({
            "access_token": token,
            "token": token,
            "expires_in": ACCESS_LIFETIME.as_secs(),
            "issued_at": self.inner.env.clock.now().to_string(),
        });
        let stays =
            field(fields, "offline_token") == Some("true") || field(fields, "access_type") == Some("offline");
        if stays {
            body["refresh_token"] = json!(self.refresh_token(&principal));
        }
        let mut answer = ok(&body);
        no_store(&mut answer);
        Ok(answer)
    }

    /// The actions of a scope that a principal may do.
    async fn granted(&self, principal: &str, scope: &Scope) -> Result<Vec<String>, Failure> {
        let gate = &self.inner.gate;
        let Some(registry) = gate.registry(&scope.registry).await? else {
            return Ok(Vec::new());
        };
        let mut granted = Vec::new();
        let mut known: Vec<(Right, bool)> = Vec::new();
        for action in scope.expanded() {
            let Some(right) = scope.right(action) else {
                continue;
            };
            let found = known.iter().find(|(own, _)| *own == right).map(|(_, may)| *may);
            let may = match found {
                Some(may) => may,
                None => {
                    let may = gate.may(principal, right, &registry).await?;
                    known.push((right, may));
                    may
                }
            };
            if may {
                granted.push(action.to_owned());
            }
        }
        Ok(granted)
    }

    /// Whether a caller is known at all: what clients ask before anything else.
    pub(crate) async fn base(
        &self,
        parts: &Parts,
        entrance: &Entrance,
        login: Option<&str>,
        who: &mut Option<String>,
    ) -> Result<(), Failure> {
        if !matches!(parts.method, Method::GET | Method::HEAD) {
            return Err(Failure::unsupported("use GET"));
        }
        let gate = &self.inner.gate;
        if let Some(machine) = &entrance.machine
            && gate.kubelet(machine).await?.is_some()
        {
            return Ok(());
        }
        if let Some(token) = bearer(parts)
            && let Some(claims) = gate.read(token).await?
        {
            *who = Some(claims.sub);
            return Ok(());
        }
        Err(Failure::unauthorized(challenge(entrance, login, None, None)))
    }

    /// Lets a caller through for what it wants, or fails with a challenge that does not tell whether there is such a registry.
    pub(crate) async fn admit(
        &self,
        parts: &Parts,
        entrance: &Entrance,
        wanted: &Wanted,
        from_login_server: bool,
        who: &mut Option<String>,
    ) -> Result<KnownRegistry, Failure> {
        let gate = &self.inner.gate;
        let registry = gate.registry(&wanted.registry).await?;
        if wanted.right == Right::Pull
            && let (Some(machine), Some(registry)) = (&entrance.machine, &registry)
            && let Some(kubelet) = gate.kubelet(machine).await?
            && gate.may(&kubelet, Right::Pull, registry).await?
        {
            return Ok(registry.clone());
        }
        let refused = |problem: Option<&str>| {
            let login = from_login_server.then_some(wanted.registry.as_str());
            let scope = wanted.scope(from_login_server);
            Failure::unauthorized(challenge(entrance, login, scope.as_deref(), problem))
        };
        let Some(token) = bearer(parts) else {
            return Err(refused(None));
        };
        let claims = gate.read(token).await?;
        let claims = claims.filter(|claims| claims.grant_type == Claims::ACCESS);
        let claims = claims.ok_or_else(|| refused(Some("invalid_token")))?;
        *who = Some(claims.sub.clone());
        if let Some(registry) = registry
            && wanted.is_in(&claims.access)
            && gate.may(&claims.sub, wanted.right, &registry).await?
        {
            return Ok(registry);
        }
        Err(refused(Some("insufficient_scope")))
    }
}

/// Tokens are in no cache.
fn no_store(answer: &mut http::Response<Body>) {
    answer
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
}
