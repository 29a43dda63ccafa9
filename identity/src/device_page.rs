//! Device codes over HTTP: the request for a code, and the page where a person approves or denies it.
//!
//! Always true: before a password is entered, the page shows which application requests the sign-in, from
//! which address, and since when; guessing codes is slowed down like guessing passwords.

use std::time::Duration;

use arm_wire::PrincipalKind;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use serde_json::json;

use crate::{
    Caller, TokenService,
    browser::{Purpose, Visitor},
    device::{LIFETIME, Waiting},
    form::Form,
    page::{self, DeviceRequest},
    refusal::Refusal,
    service::{form, html, json_answer},
    shape::Place,
    throttle::Origin,
};

/// Clients poll for a device code this often, in seconds.
const INTERVAL: u64 = 2;
/// The throttle's login for guesses of codes: no real login has control characters.
const LOOKING: &str = "\u{1}device code";

fn answer(status: StatusCode, page: String) -> Response<Bytes> {
    html(status, page, &page::policy(&[], None))
}

/// The age of a request, for people.
fn age(age: Duration) -> String {
    match age.as_secs() {
        0..60 => "less than a minute ago".to_owned(),
        60..120 => "a minute ago".to_owned(),
        seconds => format!("{} minutes ago", seconds / 60),
    }
}

impl TokenService {
    /// POST to the device code endpoint.
    pub(crate) fn device_code(&self, form: &Form, place: &Place, caller: &Caller) -> Response<Bytes> {
        let scope = form.get("scope").unwrap_or_default();
        let started = self.public_client(form).and_then(|client| {
            self.audience(form.get("scope"), form.get("resource"))?;
            // A resource without scopes (AD FS 3, AAD's first version) is stored as a scope, so that only one
            // has to be stored.
            let scope = match form.get("resource") {
                Some(resource) if scope.is_empty() => format!("{resource}/.default offline_access"),
                _ => scope.to_owned(),
            };
            self.devices
                .start(&client, &scope, caller.address, self.env.clock.monotonic())
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

    /// GET of the page.
    pub(crate) fn device_page() -> Response<Bytes> {
        answer(StatusCode::OK, page::device_code(None))
    }

    /// POST of the page: a code, or the decision about one.
    pub(crate) async fn device_answer(&self, request: &Request<Bytes>, caller: &Caller) -> Response<Bytes> {
        let typed = match form(request) {
            Ok(typed) => typed,
            Err(answer) => return *answer,
        };
        let visitor = Visitor::of(request.headers());
        match typed.get("request") {
            None => self.device_found(&typed, &visitor, caller).await,
            Some(sealed) => self.device_said(sealed, &typed, &visitor, caller).await,
        }
    }

    fn no_code(text: &str) -> Response<Bytes> {
        answer(StatusCode::BAD_REQUEST, page::device_code(Some(text)))
    }

    /// A code was typed: shows its sign-in.
    async fn device_found(&self, typed: &Form, visitor: &Visitor, caller: &Caller) -> Response<Bytes> {
        let code = typed.get("user_code").unwrap_or_default();
        let (origin, now) = (Origin::of(caller.address), self.env.clock.monotonic());
        if let Err(wait) = self.throttle.attempt(origin, LOOKING, now) {
            let text = format!(
                "Too many wrong codes. Try again in {} seconds.",
                wait.as_secs() + 1
            );
            return answer(StatusCode::TOO_MANY_REQUESTS, page::device_code(Some(&text)));
        }
        let Some(waiting) = self.devices.waiting(code, now) else {
            return Self::no_code("This code is unknown or too old. Ask the other device for a new one.");
        };
        // Only this attempt: the owner of a valid code must not get free guesses by it.
        self.throttle.retract(origin, LOOKING);
        self.device_asks(StatusCode::OK, code, &waiting, visitor, "", None)
            .await
    }

    /// Shows the requesting application.
    async fn device_asks(
        &self,
        status: StatusCode,
        code: &str,
        waiting: &Waiting,
        visitor: &Visitor,
        name: &str,
        note: Option<&str>,
    ) -> Response<Bytes> {
        let sealed = self
            .forms
            .seal(Purpose::Device, code, visitor, self.env.clock.now());
        let address = waiting.address.map_or_else(
            || "unknown".to_owned(),
            |address| address.to_canonical().to_string(),
        );
        let request = DeviceRequest {
            client: &self.client_name(&waiting.client).await,
            address: &address,
            age: &age(waiting.age),
            sealed: &sealed,
        };
        let mut answer = answer(status, page::device(&request, name, note));
        visitor.remember(answer.headers_mut());
        answer
    }

    /// The decision of a person: approval with a password, or denial.
    async fn device_said(
        &self,
        sealed: &str,
        typed: &Form,
        visitor: &Visitor,
        caller: &Caller,
    ) -> Response<Bytes> {
        let now = self.env.clock.monotonic();
        let opened = self
            .forms
            .open(Purpose::Device, sealed, visitor, self.env.clock.now());
        let Some(code) = opened else {
            return Self::no_code("This page is too old, or was opened elsewhere. Enter the code again.");
        };
        let Some(waiting) = self.devices.waiting(&code, now) else {
            return Self::no_code(
                "This code is too old, or was used meanwhile. Ask the other device for a new one.",
            );
        };
        if typed.get("cancel").is_some() {
            self.devices.refuse(&code, now);
            tracing::info!(client = waiting.client, "a device code was refused by a person");
            return answer(StatusCode::OK, page::device_done(false));
        }
        let [name, password] = ["username", "password"].map(|field| typed.get(field).unwrap_or_default());
        let person = match self.login(name, password, PrincipalKind::User, caller).await {
            Ok(person) => person,
            Err(problem) => {
                let (status, note) = problem.in_words();
                self.note(&problem.refusal(PrincipalKind::User), caller);
                return self
                    .device_asks(status, &code, &waiting, visitor, name, Some(&note))
                    .await;
            }
        };
        if !self.devices.approve(&code, &person.object_id, now) {
            return Self::no_code("This code was used meanwhile. Ask the other device for a new one.");
        }
        tracing::info!(principal = %person.object_id, client = waiting.client, "approved a device code");
        answer(StatusCode::OK, page::device_done(true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_told_in_minutes() {
        for (seconds, told) in [
            (0, "less than a minute ago"),
            (119, "a minute ago"),
            (120, "2 minutes ago"),
            (899, "14 minutes ago"),
        ] {
            assert_eq!(age(Duration::from_secs(seconds)), told);
        }
    }
}
