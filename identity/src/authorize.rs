//! Sign-in in a browser: the authorization code, with PKCE.
//!
//! ```text
//!  client ── opens ──► GET authorize ──► page ── name, password ──► POST authorize ── code ──► the client's address
//!  client ── code and the secret behind its challenge ──► token
//! ```
//!
//! Always true: a browser is redirected only to its own host, or to an address that the application has
//! registered; until the address is known to be valid, errors are shown as a page; `S256` is the only
//! challenge method.

use arm_wire::PrincipalKind;
use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header, uri::Uri};
use serde::{Deserialize, Serialize};

use crate::{
    Caller, TokenService,
    browser::{Purpose, Visitor},
    codes::{Granted, is_challenge},
    form::Form,
    page,
    principals::find_principal,
    refusal::Refusal,
    secret::random,
    service::{form, html},
};

/// The longest `state`, `nonce`, scope and address, in bytes; all of them fit into a form.
const MAX_BYTES: usize = 2048;

/// How the response gets to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Mode {
    Query,
    Fragment,
    FormPost,
}

/// A client's request, sealed in the page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Wanted {
    client: String,
    redirect_uri: String,
    mode: Mode,
    state: Option<String>,
    challenge: String,
    scope: Option<String>,
    resource: Option<String>,
    nonce: Option<String>,
}

/// The destination of a response.
struct Target {
    redirect_uri: String,
    mode: Mode,
    state: Option<String>,
}

/// An error for the client: its name, and a description for people.
struct Wrong(&'static str, String);

impl Target {
    /// `scheme://host:port` of the address, for the page's policy; of a program's own scheme, which has no hosts, the scheme alone.
    fn origin(&self) -> String {
        let (scheme, rest) = self.redirect_uri.split_once("://").unwrap_or_default();
        if !matches!(scheme, "http" | "https") {
            return format!("{scheme}:");
        }
        format!("{scheme}://{}", rest.split(['/', '?']).next().unwrap_or_default())
    }

    fn send(&self, mut fields: Vec<(&'static str, String)>) -> Response<Bytes> {
        if let Some(state) = &self.state {
            fields.push(("state", state.clone()));
        }
        if self.mode == Mode::FormPost {
            let nonce = hex::encode(random::<16>());
            return html(
                StatusCode::OK,
                page::forward(&self.redirect_uri, &fields, &nonce),
                &page::policy(&[&self.origin()], Some(&nonce)),
            );
        }
        let pairs: Vec<String> = fields
            .iter()
            .map(|(name, value)| format!("{name}={}", arm_ids::encode(value)))
            .collect();
        let separator = match self.mode {
            Mode::Fragment => '#',
            _ if self.redirect_uri.contains('?') => '&',
            _ => '?',
        };
        let location = format!("{}{separator}{}", self.redirect_uri, pairs.join("&"));
        let mut answer = html(StatusCode::SEE_OTHER, page::moved(), &page::policy(&[], None));
        match HeaderValue::from_str(&location) {
            Ok(location) => {
                answer.headers_mut().insert(header::LOCATION, location);
                answer
            }
            // The address was checked to be visible ASCII, and the rest is encoded.
            Err(_) => stop("The application's address cannot be used."),
        }
    }

    fn fail(&self, Wrong(error, text): Wrong) -> Response<Bytes> {
        self.send(vec![("error", error.to_owned()), ("error_description", text)])
    }
}

/// An error page.
fn stop(text: &str) -> Response<Bytes> {
    html(
        StatusCode::BAD_REQUEST,
        page::stop(text),
        &page::policy(&[], None),
    )
}

/// Whether an address is of the browser's own host: a program that listens there at any port (RFC 8252).
pub(crate) fn is_loopback(address: &str) -> bool {
    let Ok(uri) = address.parse::<Uri>() else {
        return false;
    };
    uri.scheme_str() == Some("http")
        && uri
            .host()
            .is_some_and(|host| matches!(host, "localhost" | "127.0.0.1" | "[::1]"))
}

/// Whether a text is a valid address for a redirect.
fn is_plain(address: &str) -> bool {
    !address.is_empty()
        && address.len() <= MAX_BYTES
        && address
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !b"#\"<>\\^`{|}@".contains(&byte))
}

fn bounded(form: &Form, name: &'static str) -> Result<Option<String>, Wrong> {
    match form.get(name) {
        Some(text) if text.len() > MAX_BYTES || text.chars().any(char::is_control) => Err(Wrong(
            "invalid_request",
            format!("'{name}' is too long or has control characters"),
        )),
        text => Ok(text.map(str::to_owned)),
    }
}

impl TokenService {
    /// Whether a browser may be redirected there with a code of this client.
    async fn may_be_sent(&self, client: &str, address: &str) -> Result<bool, control_store::StoreError> {
        if !is_plain(address) {
            return Ok(false);
        }
        if is_loopback(address) {
            return Ok(true);
        }
        let application = find_principal(&*self.store, client).await?;
        Ok(application.is_some_and(|application| {
            !application.disabled && application.redirect_uris.iter().any(|own| own == address)
        }))
    }

    /// A client's request; or the error that is shown, or sent to the client.
    async fn wanted(&self, query: &Form) -> Result<Wanted, Response<Bytes>> {
        let client = self
            .public_client(query)
            .map_err(|_| stop("The application that asks you to sign in does not say which one it is."))?;
        let redirect_uri = query.get("redirect_uri").unwrap_or_default();
        match self.may_be_sent(&client, redirect_uri).await {
            Ok(true) => {}
            Ok(false) => {
                return Err(stop(
                    "The application that asks you to sign in wants the answer at an address that is not its own. \
                     Close this page.",
                ));
            }
            Err(error) => {
                tracing::error!(%error, "cannot look up an application");
                return Err(stop("Signing in is not possible right now."));
            }
        }
        let (mode, known) = match query.get("response_mode") {
            None | Some("query") => (Mode::Query, true),
            Some("fragment") => (Mode::Fragment, true),
            Some("form_post") => (Mode::FormPost, true),
            Some(_) => (Mode::Query, false),
        };
        let mut target = Target {
            redirect_uri: redirect_uri.to_owned(),
            mode,
            state: None,
        };
        let wanted = bounded(query, "state").and_then(|state| {
            target.state.clone_from(&state);
            let wrong = |text: &str| Wrong("invalid_request", text.to_owned());
            if !known {
                return Err(wrong("'response_mode' has to be query, fragment or form_post"));
            }
            if query.get("response_type") != Some("code") {
                return Err(Wrong(
                    "unsupported_response_type",
                    "AADSTS700054: 'response_type' has to be code".to_owned(),
                ));
            }
            if query.get("code_challenge_method") != Some("S256") {
                return Err(wrong("'code_challenge_method' has to be S256"));
            }
            let challenge = query.get("code_challenge").unwrap_or_default();
            if !is_challenge(challenge) {
                return Err(wrong(
                    "'code_challenge' has to be the SHA-256 of the verifier, in base64url",
                ));
            }
            let (scope, resource) = (bounded(query, "scope")?, bounded(query, "resource")?);
            self.audience(scope.as_deref(), resource.as_deref())
                .map_err(|refusal| Wrong("invalid_resource", refusal.text))?;
            // There are no browser sessions, so no sign-in is possible without a page.
            if query.get("prompt") == Some("none") {
                return Err(Wrong(
                    "login_required",
                    "AADSTS50058: a person has to sign in, and 'prompt' is none".to_owned(),
                ));
            }
            Ok(Wanted {
                client,
                redirect_uri: redirect_uri.to_owned(),
                mode,
                state,
                challenge: challenge.to_owned(),
                scope,
                resource,
                nonce: bounded(query, "nonce")?,
            })
        });
        wanted.map_err(|wrong| target.fail(wrong))
    }

    /// GET: the page.
    pub(crate) async fn authorize(&self, request: &Request<Bytes>) -> Response<Bytes> {
        let Some(query) = Form::parse(request.uri().query().unwrap_or_default()) else {
            return stop("The application that asks you to sign in sent something that cannot be read.");
        };
        let wanted = match self.wanted(&query).await {
            Ok(wanted) => wanted,
            Err(answer) => return answer,
        };
        let visitor = Visitor::of(request.headers());
        let name = query.get("login_hint").unwrap_or_default();
        self.sign_in(StatusCode::OK, &wanted, &visitor, name, None).await
    }

    async fn sign_in(
        &self,
        status: StatusCode,
        wanted: &Wanted,
        visitor: &Visitor,
        name: &str,
        note: Option<&str>,
    ) -> Response<Bytes> {
        let about = serde_json::to_string(wanted).expect("what is wanted is plain data");
        let sealed = self
            .forms
            .seal(Purpose::Authorize, &about, visitor, self.env.clock.now());
        let target = Target {
            redirect_uri: wanted.redirect_uri.clone(),
            mode: wanted.mode,
            state: None,
        };
        let origin = target.origin();
        let client = self.client_name(&wanted.client).await;
        let mut answer = html(
            status,
            page::sign_in(&client, &origin, &sealed, name, note),
            &page::policy(&[&origin], None),
        );
        visitor.remember(answer.headers_mut());
        answer
    }

    /// POST: the submitted page.
    pub(crate) async fn authorized(&self, request: &Request<Bytes>, caller: &Caller) -> Response<Bytes> {
        let typed = match form(request) {
            Ok(typed) => typed,
            Err(answer) => return *answer,
        };
        let (visitor, now) = (Visitor::of(request.headers()), self.env.clock.now());
        let wanted: Option<Wanted> = typed
            .get("request")
            .and_then(|sealed| self.forms.open(Purpose::Authorize, sealed, &visitor, now))
            .and_then(|about| serde_json::from_str(&about).ok());
        let Some(wanted) = wanted else {
            return stop("This page is too old, or was opened elsewhere. Start again from the application.");
        };
        let target = Target {
            redirect_uri: wanted.redirect_uri.clone(),
            mode: wanted.mode,
            state: wanted.state.clone(),
        };
        if typed.get("cancel").is_some() {
            return target.fail(Wrong(
                "access_denied",
                "AADSTS65004: the user declined to sign in".to_owned(),
            ));
        }
        let [name, password] = ["username", "password"].map(|field| typed.get(field).unwrap_or_default());
        let person = match self.login(name, password, PrincipalKind::User, caller).await {
            Ok(person) => person,
            Err(problem) => {
                let (status, note) = problem.in_words();
                self.note(&problem.refusal(PrincipalKind::User), caller);
                return self.sign_in(status, &wanted, &visitor, name, Some(&note)).await;
            }
        };
        let code = self.codes.issue(
            Granted {
                object_id: person.object_id.clone(),
                client: wanted.client,
                redirect_uri: wanted.redirect_uri,
                challenge: wanted.challenge,
                scope: wanted.scope,
                resource: wanted.resource,
                nonce: wanted.nonce,
            },
            self.env.clock.monotonic(),
        );
        match code {
            Some(code) => {
                tracing::info!(principal = %person.object_id, "signed in in a browser");
                target.send(vec![("code", code)])
            }
            None => target.fail(Wrong(
                "temporarily_unavailable",
                "too many sign-ins are under way; repeat".to_owned(),
            )),
        }
    }

    /// The display name of a client.
    pub(crate) async fn client_name(&self, client: &str) -> String {
        // The clients of Azure that people sign in with; their ids are public.
        let known = match client {
            "04b07795-8ddb-461a-bbee-02f9e1bf7b46" => Some("Azure CLI"),
            "1950a258-227b-4e31-a9cf-717495945fc2" => Some("Azure PowerShell"),
            "80faf920-1908-4b52-b5ef-a8e7bedfc67a" => Some("kubelogin, for kubectl"),
            _ => None,
        };
        if let Some(known) = known {
            return known.to_owned();
        }
        match find_principal(&*self.store, client).await {
            Ok(Some(application)) if !application.display_name.is_empty() => application.display_name,
            Ok(_) => format!("an application that this stamp does not know ({client})"),
            Err(error) => {
                tracing::error!(%error, "cannot look up an application");
                format!("the application {client}")
            }
        }
    }

    /// The refusal of a code that was used before or does not match the request.
    pub(crate) fn bad_code() -> Refusal {
        Refusal::new(
            "invalid_grant",
            70_008,
            "the authorization code is unknown, used, too old, or of another client, address or verifier; sign in again",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_own_host_is_the_own_host() {
        for own in [
            "http://localhost",
            "http://localhost:8400",
            "http://127.0.0.1:1/a?b=c",
            "http://[::1]:2/",
        ] {
            assert!(is_plain(own) && is_loopback(own), "{own}");
        }
        for other in [
            "https://localhost",
            "http://localhost.example.com",
            "http://localhost@example.com",
            "http://example.com/localhost",
            "http://127.0.0.1.example.com",
            "javascript:alert(1)",
            "//localhost",
            "http://localhost\\@example.com",
            "",
        ] {
            assert!(!(is_plain(other) && is_loopback(other)), "{other}");
        }
        assert!(!is_plain("http://localhost/#x") && !is_plain("http://localhost/\r\na: b"));
    }

    #[test]
    fn an_answer_reaches_the_address_as_it_was_asked_for() {
        let target = |redirect_uri: &str, mode| Target {
            redirect_uri: redirect_uri.to_owned(),
            mode,
            state: Some("a b&c".to_owned()),
        };
        let sent = |target: &Target| target.send(vec![("code", "x".to_owned())]);
        for (address, mode, location) in [
            (
                "http://localhost:1/r",
                Mode::Query,
                "http://localhost:1/r?code=x&state=a%20b%26c",
            ),
            (
                "http://localhost:1/r?q=1",
                Mode::Query,
                "http://localhost:1/r?q=1&code=x&state=a%20b%26c",
            ),
            (
                "http://localhost:1",
                Mode::Fragment,
                "http://localhost:1#code=x&state=a%20b%26c",
            ),
        ] {
            let answer = sent(&target(address, mode));
            assert_eq!(answer.status(), StatusCode::SEE_OTHER);
            assert_eq!(answer.headers()[header::LOCATION], location);
        }
        assert_eq!(
            target("com.example.app://back", Mode::Query).origin(),
            "com.example.app:"
        );
        let posted = sent(&target("http://localhost:1/r", Mode::FormPost));
        assert_eq!(posted.status(), StatusCode::OK);
        let policy = posted.headers()[header::CONTENT_SECURITY_POLICY]
            .to_str()
            .unwrap();
        assert!(
            policy.contains("form-action 'self' http://localhost:1;"),
            "{policy}"
        );
        let page = String::from_utf8(posted.body().to_vec()).unwrap();
        assert!(page.contains("action=\"http://localhost:1/r\"") && page.contains("value=\"a b&amp;c\""));
    }
}
