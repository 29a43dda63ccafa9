//! Every flow of the token service from its HTTP paths on, with the possible errors of each.

mod assertions;
mod browser;
mod secrets;

use std::sync::Arc;

use base_env::Env;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use control_records::{PrincipalRecord, key};
use control_store::{Store, Txn, put_record};
use http::{HeaderMap, Method, Request, header};
use serde_json::Value;
use storage_redb::MemoryStore;

use crate::{
    Caller, IdentityConfig, NewPrincipal, Secret, Shape, SigningKey, TokenError, TokenService,
    create_principal, find_principal, generate_secret,
};

pub(super) const APPLICATION: &str = "3f2504e0-4f89-41d3-9a0c-0305e82c3301";
pub(super) const OTHER: &str = "3f2504e0-4f89-41d3-9a0c-0305e82c3302";
pub(super) const TENANT: &str = "7b9c1c7e-0f5a-4f7a-9c39-6a1f0c5d2e01";
pub(super) const ADA: &str = "ada@example.test";
pub(super) const PASSWORD: &str = "correct horse battery staple";
pub(super) const ARM: &str = "https://arm.example.test";

pub(super) struct Told {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) text: String,
}

impl Told {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("{}", self.text))
    }

    pub(super) fn field(&self, name: &str) -> String {
        let body = self.json();
        body[name]
            .as_str()
            .unwrap_or_else(|| panic!("{name}: {body}"))
            .to_owned()
    }

    /// Status and AADSTS code.
    pub(super) fn refusal(&self) -> (u16, u64) {
        (
            self.status,
            self.json()["error_codes"][0].as_u64().unwrap_or_default(),
        )
    }

    /// The sealed data of a page.
    pub(super) fn sealed(&self) -> String {
        let rest = self.text.split("name=\"request\" value=\"").nth(1);
        let rest = rest.unwrap_or_else(|| panic!("{}", self.text));
        rest.split('"').next().unwrap().to_owned()
    }

    /// The cookie that it sets.
    pub(super) fn cookie(&self) -> String {
        let set = self.headers[header::SET_COOKIE].to_str().unwrap();
        set.split(';').next().unwrap().to_owned()
    }
}

pub(super) struct Stand {
    pub(super) service: TokenService,
    pub(super) store: Arc<MemoryStore>,
    pub(super) env: Env,
    pub(super) secret: String,
}

pub(super) fn claims(token: &str) -> Value {
    let middle = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(middle).unwrap()).unwrap()
}

pub(super) fn config() -> IdentityConfig {
    IdentityConfig {
        base_url: "https://h".to_owned(),
        shape: Shape::Aad,
        tenant_id: TENANT.to_owned(),
        audiences: vec![ARM.to_owned()],
        resources: vec!["https://graph.example.test".to_owned()],
    }
}

impl Stand {
    pub(super) async fn new() -> Self {
        let (env, store) = (Env::simulated(1), Arc::new(MemoryStore::new()));
        let secret = generate_secret();
        for (kind, login, secret) in [
            (
                arm_wire::PrincipalKind::Application,
                APPLICATION,
                Secret::Generated(&secret),
            ),
            (
                arm_wire::PrincipalKind::Application,
                OTHER,
                Secret::Generated("another"),
            ),
            (arm_wire::PrincipalKind::User, ADA, Secret::Chosen(PASSWORD)),
        ] {
            let new = NewPrincipal {
                kind,
                login,
                display_name: login,
                secret,
            };
            create_principal(&*store, &env, new).await.unwrap();
        }
        let key = SigningKey::from_pem(&KEY).unwrap();
        let as_store: Arc<dyn Store> = Arc::<MemoryStore>::clone(&store);
        Self {
            service: TokenService::new(config(), key, env.clone(), as_store),
            store,
            env,
            secret,
        }
    }

    pub(super) async fn change(&self, login: &str, change: impl FnOnce(&mut PrincipalRecord)) {
        let mut record = find_principal(&*self.store, login).await.unwrap().unwrap();
        change(&mut record);
        let own = key::principal(&record.object_id);
        self.store
            .txn(Txn::default().with(put_record(own, &record)))
            .await
            .unwrap();
    }

    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        body: &str,
        cookie: Option<&str>,
        from: u8,
    ) -> Told {
        self.send_to("https://h", method, path, body, cookie, from).await
    }

    /// Sends to the service under a name.
    pub(super) async fn send_to(
        &self,
        base_url: &str,
        method: Method,
        path: &str,
        body: &str,
        cookie: Option<&str>,
        from: u8,
    ) -> Told {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(cookie) = cookie {
            request = request.header(header::COOKIE, cookie);
        }
        let request = request.body(Bytes::from(body.to_owned())).unwrap();
        let caller = Caller {
            base_url: base_url.to_owned(),
            address: Some([10, 0, 0, from].into()),
        };
        let answer = self.service.answer(request, &caller).await;
        Told {
            status: answer.status().as_u16(),
            headers: answer.headers().clone(),
            text: String::from_utf8(answer.body().to_vec()).unwrap(),
        }
    }

    pub(super) async fn token(&self, form: &str) -> Told {
        let path = format!("/{TENANT}/oauth2/v2.0/token");
        self.send(Method::POST, &path, form, None, 1).await
    }

    /// Whether an access token holds.
    pub(super) async fn holds(&self, token: &str) -> Result<(), TokenError> {
        self.service.bearer(token, &[ARM.to_owned()]).await.map(drop)
    }

    pub(super) async fn password(&self) -> Told {
        self.token(&format!(
            "grant_type=password&client_id=cli&username={ADA}&password={PASSWORD}&scope={ARM}/.default+offline_access"
        ))
        .await
    }

    pub(super) fn now(&self) -> i64 {
        self.env.clock.now().as_second()
    }
}

static KEY: std::sync::LazyLock<String> =
    std::sync::LazyLock::new(|| SigningKey::generate().unwrap().to_pem().to_owned());
