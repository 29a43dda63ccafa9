//! The token service's paths: discovery documents, keys, tokens, device codes; AD FS's shape first, AAD's beside it.

use std::{
    net::IpAddr,
    sync::{Arc, atomic::AtomicU64},
};

use arm_wire::Principal;
use base_blocking::{HASHING, Pool};
use base_env::Env;
use bytes::Bytes;
use control_store::Store;
use http::{Method, Request, Response, StatusCode, header};
use serde_json::{Value, json};

use crate::{
    SigningKey, TokenError,
    device::Devices,
    form::Form,
    page,
    principals::principal_by_id,
    throttle::{Refusals, Throttle},
    tokens::{Tokens, principal},
};

/// What the token service is told.
#[derive(Debug, Clone)]
pub struct IdentityConfig {
    /// The `iss` of all tokens, e.g. `https://adfs.local.landfall.test/adfs`. The first path segment has to be `adfs`:
    /// the Azure CLI takes the tenant from it.
    pub issuer: String,
    /// GUID of the tenant.
    pub tenant_id: String,
    /// The audiences that ARM accepts; the first is what `/metadata/endpoints` announces. Trailing slashes do not matter.
    pub audiences: Vec<String>,
    /// Further resources that tokens are issued for (Graph, the AKS server application), not good for ARM.
    pub resources: Vec<String>,
}

/// Where a request came from.
#[derive(Debug, Clone)]
pub struct Caller {
    /// How the caller reached us, e.g. `https://127.0.0.1:8443`.
    pub base_url: String,
    /// From which address.
    pub address: Option<IpAddr>,
}

/// The token service of a stamp.
pub struct TokenService {
    pub(crate) config: IdentityConfig,
    pub(crate) tokens: Tokens,
    pub(crate) env: Env,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) devices: Devices,
    pub(crate) throttle: Throttle,
    /// Hashing a secret takes a core for a while; logins may not take them all.
    pub(crate) hashing: Pool,
    /// Secrets that were hashed.
    pub(crate) hashed: AtomicU64,
    pub(crate) refusals: Refusals,
}

/// In whose shape the caller speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// `/adfs/…`
    AdFs,
    /// `/{tenant}/…`
    Aad,
}

enum Endpoint {
    OpenId,
    Keys,
    Token,
    DeviceCode,
    DevicePage,
    Authorize,
    UserRealm(String),
    Instance,
}

impl TokenService {
    /// A token service on a store. The key comes from the caller, who keeps it.
    pub fn new(config: IdentityConfig, key: SigningKey, env: Env, store: Arc<dyn Store>) -> Self {
        Self {
            tokens: Tokens {
                key,
                issuer: config.issuer.clone(),
                tenant_id: config.tenant_id.clone(),
            },
            config,
            env,
            store,
            devices: Devices::default(),
            throttle: Throttle::default(),
            hashing: Pool::new(HASHING),
            hashed: AtomicU64::new(0),
            refusals: Refusals::default(),
        }
    }

    /// What it was told.
    pub fn config(&self) -> &IdentityConfig {
        &self.config
    }

    /// Whether this path is one of the token service's rather than ARM's.
    pub fn serves(&self, path: &str) -> bool {
        let first = path
            .split('/')
            .find(|segment| !segment.is_empty())
            .unwrap_or_default();
        first.eq_ignore_ascii_case("adfs") || self.is_tenant(first)
    }

    /// Who the bearer of an `Authorization` header is.
    ///
    /// # Errors
    /// When there is no bearer token, or it does not hold for ARM.
    pub async fn authenticate(&self, authorization: Option<&str>) -> Result<Principal, TokenError> {
        let (scheme, token) = authorization
            .and_then(|value| value.split_once(' '))
            .ok_or(TokenError::Missing)?;
        if !scheme.eq_ignore_ascii_case("bearer") || token.trim().is_empty() {
            return Err(TokenError::Missing);
        }
        let claims = self
            .tokens
            .check(token.trim(), &self.config.audiences, self.env.clock.now())?;
        let record = principal_by_id(&*self.store, &claims.oid)
            .await?
            .ok_or(TokenError::Gone)?;
        Ok(principal(record, &self.config.tenant_id))
    }

    /// Answers a request for one of its paths. The caller bounds the body.
    pub async fn answer(&self, request: Request<Bytes>, caller: &Caller) -> Response<Bytes> {
        let segments: Vec<String> = request
            .uri()
            .path()
            .split('/')
            .filter(|segment| !segment.is_empty())
            .map(|segment| arm_ids::decode(segment).unwrap_or_default())
            .collect();
        let Some((shape, endpoint)) = self.endpoint(&segments) else {
            return json_answer(
                StatusCode::NOT_FOUND,
                &json!({ "error": "not_found", "error_description": "nothing is served at this path" }),
            );
        };
        let get = matches!(*request.method(), Method::GET | Method::HEAD);
        let post = *request.method() == Method::POST;
        match endpoint {
            Endpoint::OpenId if get => {
                json_answer(StatusCode::OK, &self.document(shape, &segments[0], caller))
            }
            Endpoint::Keys if get => json_answer(StatusCode::OK, &self.tokens.key.jwks()),
            Endpoint::UserRealm(user) if get => json_answer(
                StatusCode::OK,
                &json!({ "ver": "1.0", "account_type": "Managed", "domain_name": user.rsplit('@').next(),
                         "cloud_instance_name": host(&caller.base_url), "cloud_audience_urn": self.config.issuer }),
            ),
            Endpoint::Instance if get => json_answer(
                StatusCode::OK,
                &json!({ "tenant_discovery_endpoint":
                    format!("{}/{}/v2.0/.well-known/openid-configuration", caller.base_url, self.config.tenant_id) }),
            ),
            Endpoint::Authorize if get => html(
                StatusCode::NOT_IMPLEMENTED,
                "<!doctype html><title>Sign in</title><p>Sign-in in the browser is not there yet. \
                 Use <code>az login --use-device-code</code> or <code>az login --service-principal</code>."
                    .to_owned(),
            ),
            Endpoint::DevicePage if get => {
                let query = Form::parse(request.uri().query().unwrap_or_default()).unwrap_or_default();
                html(
                    StatusCode::OK,
                    page::form(query.get("user_code").unwrap_or_default(), "", None),
                )
            }
            Endpoint::DevicePage if post => match form(&request) {
                Ok(form) => self.approve(&form, caller).await,
                Err(answer) => *answer,
            },
            Endpoint::Token if post => match form(&request) {
                Ok(form) => {
                    let basic = request
                        .headers()
                        .get(header::AUTHORIZATION)
                        .and_then(|value| value.to_str().ok())
                        .and_then(crate::form::basic);
                    self.token(&form, basic, caller).await
                }
                Err(answer) => *answer,
            },
            Endpoint::DeviceCode if post => match form(&request) {
                Ok(form) => self.device_code(&form, shape, &segments[0], caller),
                Err(answer) => *answer,
            },
            Endpoint::Token | Endpoint::DeviceCode => method_not_allowed("POST"),
            Endpoint::DevicePage => method_not_allowed("GET, POST"),
            _ => method_not_allowed("GET"),
        }
    }

    fn is_tenant(&self, segment: &str) -> bool {
        segment.eq_ignore_ascii_case(&self.config.tenant_id)
            || segment.eq_ignore_ascii_case("common")
            || segment.eq_ignore_ascii_case("organizations")
    }

    fn endpoint(&self, segments: &[String]) -> Option<(Shape, Endpoint)> {
        let lower: Vec<String> = segments
            .iter()
            .map(|segment| segment.to_ascii_lowercase())
            .collect();
        let (first, rest) = lower.split_first()?;
        let shape = if first == "adfs" {
            Shape::AdFs
        } else if self.is_tenant(first) {
            Shape::Aad
        } else {
            return None;
        };
        let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
        let endpoint = match *rest.as_slice() {
            // The second one is what the Azure CLI asks to resolve the tenant `adfs`.
            [".well-known", "openid-configuration"]
            | ["adfs", "v2.0", ".well-known", "openid-configuration"]
            | ["adfs", ".well-known", "openid-configuration"]
                if shape == Shape::AdFs =>
            {
                Endpoint::OpenId
            }
            ["v2.0", ".well-known", "openid-configuration"] | [".well-known", "openid-configuration"] => {
                Endpoint::OpenId
            }
            ["discovery", "keys"] | ["discovery", "v2.0", "keys"] => Endpoint::Keys,
            ["oauth2", "token"] | ["oauth2", "v2.0", "token"] => Endpoint::Token,
            ["oauth2", "devicecode"] | ["oauth2", "v2.0", "devicecode"] => Endpoint::DeviceCode,
            ["oauth2", "deviceauth"] | ["oauth2", "v2.0", "deviceauth"] => Endpoint::DevicePage,
            ["oauth2", "authorize"] | ["oauth2", "v2.0", "authorize"] => Endpoint::Authorize,
            ["userrealm", _] if first == "common" => Endpoint::UserRealm(segments[2].clone()),
            ["discovery", "instance"] if first == "common" => Endpoint::Instance,
            _ => return None,
        };
        Some((shape, endpoint))
    }

    /// The base of the endpoints in the caller's shape.
    pub(crate) fn endpoints(&self, shape: Shape, first: &str, caller: &Caller) -> String {
        match shape {
            Shape::AdFs => format!("{}/adfs/oauth2", caller.base_url),
            Shape::Aad => format!("{}/{}/oauth2/v2.0", caller.base_url, first.to_ascii_lowercase()),
        }
    }

    fn document(&self, shape: Shape, first: &str, caller: &Caller) -> Value {
        let oauth = self.endpoints(shape, first, caller);
        let keys = match shape {
            Shape::AdFs => format!("{}/adfs/discovery/keys", caller.base_url),
            Shape::Aad => format!(
                "{}/{}/discovery/v2.0/keys",
                caller.base_url,
                first.to_ascii_lowercase()
            ),
        };
        json!({
            "issuer": self.config.issuer,
            "authorization_endpoint": format!("{oauth}/authorize"),
            "token_endpoint": format!("{oauth}/token"),
            "device_authorization_endpoint": format!("{oauth}/devicecode"),
            "jwks_uri": keys,
            "token_endpoint_auth_methods_supported": ["client_secret_post", "client_secret_basic"],
            "grant_types_supported": ["client_credentials", "password", "refresh_token",
                "urn:ietf:params:oauth:grant-type:device_code"],
            "response_types_supported": ["code"],
            "response_modes_supported": ["query"],
            "subject_types_supported": ["public"],
            "scopes_supported": ["openid", "profile", "email", "offline_access"],
            "claims_supported": ["aud", "iss", "iat", "nbf", "exp", "sub", "oid", "tid", "appid", "name", "upn",
                "unique_name", "preferred_username"],
            "id_token_signing_alg_values_supported": ["RS256"],
        })
    }
}

/// The body as a form, or the answer that says it is none.
fn form(request: &Request<Bytes>) -> Result<Form, Box<Response<Bytes>>> {
    std::str::from_utf8(request.body()).ok().and_then(Form::parse).ok_or_else(|| {
        Box::new(json_answer(
            StatusCode::BAD_REQUEST,
            &json!({ "error": "invalid_request",
                     "error_description": "AADSTS900144: the body is not application/x-www-form-urlencoded" }),
        ))
    })
}

fn host(base_url: &str) -> &str {
    base_url.split("://").nth(1).unwrap_or(base_url)
}

/// A JSON answer that nobody caches.
pub(crate) fn json_answer(status: StatusCode, body: &Value) -> Response<Bytes> {
    answer(
        status,
        "application/json; charset=utf-8",
        Bytes::from(body.to_string()),
    )
}

/// A page that nobody caches, frames or adds to.
pub(crate) fn html(status: StatusCode, body: String) -> Response<Bytes> {
    let mut answer = answer(status, "text/html; charset=utf-8", Bytes::from(body));
    answer.headers_mut().insert(
        header::CONTENT_SECURITY_POLICY,
        header::HeaderValue::from_static(page::POLICY),
    );
    answer.headers_mut().insert(
        header::REFERRER_POLICY,
        header::HeaderValue::from_static("no-referrer"),
    );
    answer
}

fn answer(status: StatusCode, kind: &'static str, body: Bytes) -> Response<Bytes> {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    headers.insert(
        header::CACHE_CONTROL,
        header::HeaderValue::from_static("no-store"),
    );
    headers.insert(header::PRAGMA, header::HeaderValue::from_static("no-cache"));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        header::HeaderValue::from_static("nosniff"),
    );
    answer
}

fn method_not_allowed(allow: &'static str) -> Response<Bytes> {
    let mut answer = json_answer(
        StatusCode::METHOD_NOT_ALLOWED,
        &json!({ "error": "invalid_request", "error_description": format!("use {allow}") }),
    );
    answer
        .headers_mut()
        .insert(header::ALLOW, header::HeaderValue::from_static(allow));
    answer
}

#[cfg(test)]
#[path = "attack_tests.rs"]
mod attack_tests;
