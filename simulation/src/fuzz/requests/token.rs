//! Requests without a token: of the token service, or of other public paths.

use super::{Sent, Shaker};
use crate::config::TENANT;

impl Shaker {
    /// A request of the token service, or of another public path.
    pub(super) fn token(&mut self) -> Sent {
        const PATHS: &[&str] = &[
            "/adfs/oauth2/token",
            "/adfs/oauth2/devicecode",
            "/adfs/oauth2/deviceauth",
            "/adfs/oauth2/authorize",
            "/adfs/discovery/keys",
            "/adfs/.well-known/openid-configuration",
            "/adfs/adfs/v2.0/.well-known/openid-configuration",
            "/{t}/oauth2/v2.0/token",
            "/{t}/oauth2/v2.0/devicecode",
            "/{t}/v2.0/.well-known/openid-configuration",
            "/{t}/discovery/v2.0/keys",
            "/common/userrealm/a",
            "/common/discovery/instance",
            "/organizations/oauth2/v2.0/token",
            "/metadata/endpoints",
            "/healthz",
            "/readyz",
            "/",
            "/adfs",
            "/{t}/oauth2/v2.0/authorize",
            "/{t}/oauth2/v2.0/logout",
            "/graph/v1.0/servicePrincipals",
            "/graph/v1.0/users",
            "/graph/v1.0/me",
            // An unknown version, and the root.
            "/graph/beta/users",
            "/v1.0/users",
        ];
        const FIELDS: &[&str] = &[
            "grant_type",
            "client_id",
            "client_secret",
            "scope",
            "resource",
            "username",
            "password",
            "refresh_token",
            "device_code",
            "code",
            "client_assertion",
            "client_assertion_type",
            "claims",
            "client_info",
            "redirect_uri",
            "code_verifier",
            "user_code",
            "state",
            "decision",
            "response_type",
            "code_challenge",
            "code_challenge_method",
            "nonce",
            "response_mode",
            "assertion",
            "requested_token_use",
        ];
        const VALUES: &[&str] = &[
            "client_credentials",
            "password",
            "refresh_token",
            "urn:ietf:params:oauth:grant-type:device_code",
            "authorization_code",
            "urn:ietf:params:oauth:grant-type:jwt-bearer",
            "c0ffee00-1111-4222-8333-444455556666",
            "simulated",
            "https://management.sim.test/x/.default",
            "openid profile offline_access",
            "a@b",
            "x.y.z",
            "eyJhbGciOiJub25lIn0.e30.",
            "eyJhbGciOiJSUzI1NiJ9.eyJleHAiOjEuNX0.AAAA",
            "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            "{\"access_token\":{\"xms_cc\":{\"values\":[\"CP1\"]}}}",
            "1",
            "code",
            "S256",
            "http://localhost:8400",
            "https://evil.example",
            "04b07795-8ddb-461a-bbee-02f9e1bf7b46",
        ];
        let dice = &mut self.dice;
        let path = dice.pick(PATHS).replace("{t}", TENANT);
        let mut form = Vec::new();
        for _ in 0..dice.roll(8) {
            let value = if dice.once_in(4) {
                dice.text()
            } else {
                dice.pick(VALUES).to_owned()
            };
            form.push(format!("{}={}", dice.pick(FIELDS), arm_ids::encode(&value)));
        }
        let form = form.join("&");
        let get = dice.once_in(2);
        let mut body = if get {
            Vec::new()
        } else {
            form.clone().into_bytes()
        };
        if dice.once_in(10) {
            body.push(0xff);
        }
        let mut sent = Sent {
            method: if get { "GET" } else { "POST" }.to_owned(),
            target: if get { format!("{path}?{form}") } else { path },
            headers: vec![
                ("host".to_owned(), b"arm.sim.test".to_vec()),
                (
                    "content-type".to_owned(),
                    b"application/x-www-form-urlencoded".to_vec(),
                ),
            ],
            body,
            operation: None,
            kind: String::new(),
        };
        if dice.once_in(4) {
            self.shake(&mut sent);
        }
        sent
    }
}
