//! The token service's paths: discovery documents, keys, tokens, device codes, in AAD's shape and in AD FS's.

use std::{
    net::IpAddr,
    sync::{Arc, PoisonError, RwLock, atomic::AtomicU64},
    time::Duration,
};

use arm_wire::Principal;
use base_blocking::{HASHING, Pool};
use base_env::Env;
use bytes::Bytes;
use control_store::Store;
use http::{Method, Request, Response, StatusCode, header};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::{
    IdentityConfig, Issuers, SigningKeys, TokenError,
    assertion::Uses,
    browser::Forms,
    codes::Codes,
    device::Devices,
    form::Form,
    grants::Ask,
    known::Known,
    refresh,
    ring::{Listed, RingError, Rotated, Wish},
    shape::{ADFS, Place, Shape, Version, host},
    throttle::{Refusals, Throttle},
    tokens::{Tokens, Verified, admits, principal},
};

/// Interval of the check for due keys and ended sign-ins.
const LOOK: Duration = Duration::from_secs(600);

/// The source of a request.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The address at which the caller reached us, e.g. `https://127.0.0.1:8443`.
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
    /// Cache of recent callers.
    known: Known,
    pub(crate) devices: Devices,
    pub(crate) codes: Codes,
    pub(crate) forms: Forms,
    /// Signed tokens that applications have presented.
    pub(crate) uses: Uses,
    /// Sources of other issuers' keys; the first that has an issuer is used.
    issuers: RwLock<Vec<Arc<dyn Issuers>>>,
    pub(crate) throttle: Throttle,
    /// Hashing a secret takes a core for a while; logins must not take all cores.
    pub(crate) hashing: Pool,
    /// Secrets that were hashed.
    pub(crate) hashed: AtomicU64,
    pub(crate) refusals: Refusals,
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
    /// A token service on a store. `keys` sign tokens: keys of a store, or a single one that the caller
    /// provides.
    pub fn new(
        config: IdentityConfig,
        keys: impl Into<SigningKeys>,
        env: Env,
        store: Arc<dyn Store>,
    ) -> Self {
        Self {
            tokens: Tokens {
                keys: keys.into(),
                verified: Verified::default(),
                issuers: [Shape::Aad, Shape::AdFs].map(|shape| config.issuer(shape)),
                tenant_id: config.tenant_id.clone(),
            },
            config,
            env,
            store,
            known: Known::default(),
            devices: Devices::default(),
            codes: Codes::default(),
            forms: Forms::new(),
            uses: Uses::default(),
            issuers: RwLock::default(),
            throttle: Throttle::default(),
            hashing: Pool::new(HASHING),
            hashed: AtomicU64::new(0),
            refusals: Refusals::default(),
        }
    }

    /// Adds a source of keys of issuers, before all others.
    pub fn ask_first(&self, issuers: Arc<dyn Issuers>) {
        let mut all = self.issuers.write().unwrap_or_else(PoisonError::into_inner);
        all.insert(0, issuers);
    }

    /// The sources of other issuers' keys.
    pub(crate) fn issuers(&self) -> Vec<Arc<dyn Issuers>> {
        self.issuers
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The keys that its tokens are signed with, as a JSON Web Key Set.
    pub fn public_keys(&self) -> Value {
        self.tokens.keys.jwks(self.env.clock.now())
    }

    /// Its configuration.
    pub fn config(&self) -> &IdentityConfig {
        &self.config
    }

    /// Whether this path is one of the token service's rather than ARM's.
    pub fn serves(&self, path: &str) -> bool {
        let first = path
            .split('/')
            .find(|segment| !segment.is_empty())
            .unwrap_or_default();
        first.eq_ignore_ascii_case(ADFS) || self.config.is_tenant(first)
    }

    /// Whether this path is for programs: discovery, keys, tokens. Not the pages for people.
    pub fn serves_programs(&self, path: &str) -> bool {
        matches!(
            self.endpoint_at(path),
            Some(Endpoint::OpenId | Endpoint::Keys | Endpoint::Token | Endpoint::Instance)
        )
    }

    /// The principal of an `Authorization` header.
    ///
    /// # Errors
    /// When there is no bearer token, or it is not valid for ARM.
    pub async fn authenticate(&self, authorization: Option<&str>) -> Result<Principal, TokenError> {
        self.authenticate_for(authorization, &self.config.audiences).await
    }

    /// The same for another API, which has these audiences.
    ///
    /// # Errors
    /// When there is no bearer token, or it is not valid for that API.
    pub async fn authenticate_for(
        &self,
        authorization: Option<&str>,
        audiences: &[String],
    ) -> Result<Principal, TokenError> {
        let (scheme, token) = authorization
            .and_then(|value| value.split_once(' '))
            .ok_or(TokenError::Missing)?;
        if !scheme.eq_ignore_ascii_case("bearer") || token.trim().is_empty() {
            return Err(TokenError::Missing);
        }
        self.bearer(token.trim(), audiences).await
    }

    /// The principal of this token, if it is valid for one of `audiences`.
    ///
    /// # Errors
    /// When it is not valid.
    pub async fn bearer(&self, token: &str, audiences: &[String]) -> Result<Principal, TokenError> {
        let signed = self.tokens.check(token, audiences, self.env.clock.now())?;
        let claims = &signed.claims;
        self.principal_since(&claims.oid, claims.iat).await
    }

    /// Claims of another API of the stamp as a token, signed with the present key. Their audience has to be that API's own, and they may not
    /// be valid for longer than [`crate::TOKEN_LIFETIME`].
    pub fn sign_claims<T: Serialize>(&self, claims: &T) -> String {
        self.tokens.sign(claims, self.env.clock.now())
    }

    /// The claims of such a token, if one of our keys has signed it. Audience and times are the caller's to check.
    pub fn signed_claims<T: DeserializeOwned>(&self, token: &str) -> Option<T> {
        self.tokens.read(token, self.env.clock.now())
    }

    /// The principal with this object id, if tokens that were issued at this second are valid for it.
    ///
    /// # Errors
    /// When there is no such principal, or it is disabled, or tokens of that time were revoked.
    pub async fn principal_since(&self, object_id: &str, iat: i64) -> Result<Principal, TokenError> {
        let found = self.known.principal(&*self.store, object_id).await?;
        let found = found.ok_or(TokenError::Gone)?;
        admits(&found.value, iat)?;
        Ok(principal(&found.value, &self.config.tenant_id))
    }

    /// The `WWW-Authenticate` for a request with this `Authorization` that was refused.
    pub fn challenge(&self, problem: &TokenError, authorization: Option<&str>, caller: &Caller) -> String {
        let token = authorization.and_then(|value| value.split_once(' '));
        self.tokens.challenge(
            &self.config.authority(&caller.base_url),
            problem,
            token.map(|(_, token)| token.trim()),
            self.env.clock.now(),
        )
    }

    /// Changes the keys that sign tokens.
    ///
    /// # Errors
    /// When the store fails, or no key can be made.
    pub async fn rotate_keys(&self, wish: Wish) -> Result<Rotated, RingError> {
        self.tokens.keys.rotate(wish).await
    }

    /// The keys that sign tokens, oldest first.
    pub fn keys(&self) -> Vec<Listed> {
        self.tokens.keys.list(self.env.clock.now())
    }

    /// Whether its keys are stored, and rotated by time.
    pub fn is_kept(&self) -> bool {
        self.tokens.keys.is_kept()
    }

    /// Rotates keys that are due and removes ended sign-ins, for ever.
    pub async fn tend(&self) {
        loop {
            if let Err(error) = self.rotate_keys(Wish::Time).await {
                tracing::error!(%error, "the keys that sign tokens cannot be looked after; those that there are go on");
            }
            if let Err(error) = refresh::sweep(&*self.store, self.env.clock.now()).await {
                tracing::error!(%error, "sign-ins that are over cannot be forgotten");
            }
            self.env.clock.sleep(LOOK).await;
        }
    }

    /// Serves a request for one of its paths. The caller bounds the body.
    pub async fn answer(&self, request: Request<Bytes>, caller: &Caller) -> Response<Bytes> {
        let segments: Vec<String> = request
            .uri()
            .path()
            .split('/')
            .filter(|segment| !segment.is_empty())
            .map(|segment| arm_ids::decode(segment).unwrap_or_default())
            .collect();
        let Some((place, endpoint)) = self.endpoint(&segments, caller) else {
            return json_answer(
                StatusCode::NOT_FOUND,
                &json!({ "error": "not_found", "error_description": "nothing is served at this path" }),
            );
        };
        let get = matches!(*request.method(), Method::GET | Method::HEAD);
        let post = *request.method() == Method::POST;
        match endpoint {
            Endpoint::OpenId if get => json_answer(StatusCode::OK, &place.document(&self.config)),
            Endpoint::Keys if get => json_answer(StatusCode::OK, &self.public_keys()),
            Endpoint::UserRealm(user) if get => json_answer(
                StatusCode::OK,
                &json!({ "ver": "1.0", "account_type": "Managed", "domain_name": user.rsplit('@').next(),
                         "cloud_instance_name": host(&caller.base_url),
                         "cloud_audience_urn": self.config.issuer(place.shape) }),
            ),
            Endpoint::Instance if get => json_answer(StatusCode::OK, &place.instance(&self.config)),
            Endpoint::Authorize if get => self.authorize(&request).await,
            Endpoint::Authorize if post => self.authorized(&request, caller).await,
            Endpoint::DevicePage if get => Self::device_page(),
            Endpoint::DevicePage if post => self.device_answer(&request, caller).await,
            Endpoint::Token if post => match form(&request) {
                Ok(form) => {
                    let basic = request
                        .headers()
                        .get(header::AUTHORIZATION)
                        .and_then(|value| value.to_str().ok())
                        .and_then(crate::form::basic);
                    let ask = Ask {
                        form: &form,
                        basic,
                        place: &place,
                        caller,
                    };
                    self.token(&ask).await
                }
                Err(answer) => *answer,
            },
            Endpoint::DeviceCode if post => match form(&request) {
                Ok(form) => self.device_code(&form, &place, caller),
                Err(answer) => *answer,
            },
            Endpoint::Token | Endpoint::DeviceCode => method_not_allowed("POST"),
            Endpoint::DevicePage | Endpoint::Authorize => method_not_allowed("GET, POST"),
            _ => method_not_allowed("GET"),
        }
    }

    /// Whether a path is that of a token endpoint.
    pub(crate) fn is_token_path(&self, path: &str) -> bool {
        matches!(self.endpoint_at(path), Some(Endpoint::Token))
    }

    fn endpoint_at(&self, path: &str) -> Option<Endpoint> {
        let segments: Vec<String> = path
            .split('/')
            .filter(|segment| !segment.is_empty())
            .map(str::to_owned)
            .collect();
        let nobody = Caller {
            base_url: String::new(),
            address: None,
        };
        self.endpoint(&segments, &nobody).map(|(_, endpoint)| endpoint)
    }

    fn endpoint(&self, segments: &[String], caller: &Caller) -> Option<(Place, Endpoint)> {
        let lower: Vec<String> = segments
            .iter()
            .map(|segment| segment.to_ascii_lowercase())
            .collect();
        let (first, rest) = lower.split_first()?;
        let shape = if first == ADFS {
            Shape::AdFs
        } else if self.config.is_tenant(first) {
            Shape::Aad
        } else {
            return None;
        };
        let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
        let (version, endpoint) = match *rest.as_slice() {
            // Discovery of the tenant `adfs`: below the login endpoint of AD FS's shape, and below that of
            // AAD's.
            ["adfs", "v2.0", ".well-known", "openid-configuration"]
            | ["adfs", ".well-known", "openid-configuration"]
                if shape == Shape::AdFs =>
            {
                (Version::V2, Endpoint::OpenId)
            }
            ["v2.0", ".well-known", "openid-configuration"] => (Version::V2, Endpoint::OpenId),
            [".well-known", "openid-configuration"] => (Version::V1, Endpoint::OpenId),
            ["discovery", "keys"] => (Version::V1, Endpoint::Keys),
            ["discovery", "v2.0", "keys"] => (Version::V2, Endpoint::Keys),
            ["oauth2", name] => (Version::V1, oauth(name)?),
            ["oauth2", "v2.0", name] => (Version::V2, oauth(name)?),
            ["userrealm", _] if first == "common" => (Version::V1, Endpoint::UserRealm(segments[2].clone())),
            ["discovery", "instance"] if first == "common" => (Version::V1, Endpoint::Instance),
            _ => return None,
        };
        let place = Place {
            base_url: caller.base_url.clone(),
            shape,
            version: match shape {
                Shape::Aad => version,
                Shape::AdFs => Version::V2,
            },
            first: first.clone(),
        };
        Some((place, endpoint))
    }
}

/// An endpoint below `oauth2`.
fn oauth(name: &str) -> Option<Endpoint> {
    match name {
        "token" => Some(Endpoint::Token),
        "devicecode" => Some(Endpoint::DeviceCode),
        "deviceauth" => Some(Endpoint::DevicePage),
        "authorize" => Some(Endpoint::Authorize),
        _ => None,
    }
}

/// The body as a form, or the response that it is none.
pub(crate) fn form(request: &Request<Bytes>) -> Result<Form, Box<Response<Bytes>>> {
    std::str::from_utf8(request.body()).ok().and_then(Form::parse).ok_or_else(|| {
        Box::new(json_answer(
            StatusCode::BAD_REQUEST,
            &json!({ "error": "invalid_request",
                     "error_description": "AADSTS900144: the body is not application/x-www-form-urlencoded" }),
        ))
    })
}

/// A JSON response that must not be cached.
pub(crate) fn json_answer(status: StatusCode, body: &Value) -> Response<Bytes> {
    answer(
        status,
        "application/json; charset=utf-8",
        Bytes::from(body.to_string()),
    )
}

/// A page that must not be cached or framed, with its own `Content-Security-Policy`.
pub(crate) fn html(status: StatusCode, body: String, policy: &str) -> Response<Bytes> {
    let mut answer = answer(status, "text/html; charset=utf-8", Bytes::from(body));
    let policy =
        header::HeaderValue::from_str(policy).expect("a policy is of ours and of addresses in visible ASCII");
    answer
        .headers_mut()
        .insert(header::CONTENT_SECURITY_POLICY, policy);
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
