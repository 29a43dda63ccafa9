//! Guessing against the service in this process. Work is counted, in virtual time.

use arm_wire::PrincipalKind;
use storage_redb::MemoryStore;

use super::*;
use crate::{NewPrincipal, Secret, SigningKey, create_principal, generate_secret};

const APPLICATION: &str = "3f2504e0-4f89-41d3-9a0c-0305e82c3301";
const PASSWORD: &str = "correct horse battery staple";

struct Fixture {
    service: Arc<TokenService>,
    secret: String,
}

impl Fixture {
    async fn new() -> Self {
        let (env, store) = (Env::simulated(1), Arc::new(MemoryStore::new()));
        let secret = generate_secret();
        for (kind, login, secret) in [
            (
                PrincipalKind::Application,
                APPLICATION,
                Secret::Generated(&secret),
            ),
            (PrincipalKind::User, "ada@example.test", Secret::Chosen(PASSWORD)),
        ] {
            let new = NewPrincipal {
                kind,
                login,
                display_name: login,
                secret,
            };
            create_principal(&*store, &env, new).await.unwrap();
        }
        let config = IdentityConfig {
            base_url: "https://h".to_owned(),
            shape: Shape::Aad,
            tenant_id: "t".to_owned(),
            audiences: vec!["https://arm".to_owned()],
            resources: Vec::new(),
        };
        let service = TokenService::new(config, SigningKey::generate().unwrap(), env, store);
        Self {
            service: Arc::new(service),
            secret,
        }
    }

    fn hashed(&self) -> u64 {
        self.service.hashed.load(std::sync::atomic::Ordering::Relaxed)
    }

    async fn application(&self, secret: &str, from: u8) -> Response<Bytes> {
        let form = format!("grant_type=client_credentials&client_id={APPLICATION}&client_secret={secret}");
        ask(&self.service, &form, from).await
    }

    async fn user(&self, name: &str, password: &str, from: u8) -> Response<Bytes> {
        let form = format!("grant_type=password&client_id=cli&username={name}&password={password}");
        ask(&self.service, &form, from).await
    }
}

async fn ask(service: &TokenService, form: &str, from: u8) -> Response<Bytes> {
    let request = Request::post("/adfs/oauth2/token")
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(Bytes::from(form.to_owned()))
        .unwrap();
    let caller = Caller {
        base_url: "https://h".to_owned(),
        address: Some([10, 0, 0, from].into()),
    };
    service.answer(request, &caller).await
}

#[tokio::test(start_paused = true)]
async fn a_hundred_thousand_guesses_cost_little_and_keep_nobody_out() {
    let fixture = Fixture::new().await;
    let mut guesses = tokio::task::JoinSet::new();
    for part in 0..100 {
        let service = Arc::clone(&fixture.service);
        guesses.spawn(async move {
            let mut refused = 0;
            for guess in 0..1000 {
                let form = format!(
                    "grant_type=password&client_id=cli&username=u{part}x{guess}&password=password{guess}"
                );
                let answer = ask(&service, &form, 1).await;
                assert_ne!(answer.status(), StatusCode::OK);
                if answer.status() == StatusCode::TOO_MANY_REQUESTS {
                    assert!(answer.headers().contains_key(header::RETRY_AFTER));
                    refused += 1;
                }
            }
            refused
        });
    }
    let mut refused = 0;
    while let Some(part) = guesses.join_next().await {
        refused += part.unwrap();
    }
    let hashed = fixture.hashed();
    assert!(hashed <= 30, "{hashed} of 100000 guesses were hashed");
    assert_eq!(refused + hashed, 100_000);

    // The secret of 256 random bits is accepted from the attacker's address, at once and without a slow hash.
    let honest = fixture.application(&fixture.secret, 1).await;
    assert_eq!(honest.status(), StatusCode::OK);
    assert_eq!(fixture.hashed(), hashed);
    // A user at another address is not affected; one at the attacker's gets a time to wait.
    let person = fixture.user("ada@example.test", PASSWORD, 2).await;
    assert_eq!(person.status(), StatusCode::OK);
    let beside = fixture.user("ada@example.test", PASSWORD, 1).await;
    assert_eq!(beside.status(), StatusCode::TOO_MANY_REQUESTS);
    fixture
        .service
        .env
        .clock
        .sleep(std::time::Duration::from_secs(3))
        .await;
    let later = fixture.user("ada@example.test", PASSWORD, 1).await;
    assert_eq!(later.status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn guesses_at_one_login_are_counted_before_they_are_hashed() {
    let fixture = Fixture::new().await;
    let mut guesses = tokio::task::JoinSet::new();
    for guess in 0..1000 {
        let service = Arc::clone(&fixture.service);
        guesses.spawn(async move {
            let form =
                format!("grant_type=password&client_id=cli&username=ada@example.test&password=guess{guess}");
            ask(&service, &form, 1).await.status()
        });
    }
    while let Some(status) = guesses.join_next().await {
        assert_ne!(status.unwrap(), StatusCode::OK);
    }
    assert!(
        fixture.hashed() <= 5,
        "{} guesses at one login were hashed",
        fixture.hashed()
    );
}

#[tokio::test(start_paused = true)]
async fn guesses_at_a_generated_secret_cost_no_hash_and_wait() {
    let fixture = Fixture::new().await;
    let mut waiting = 0;
    for guess in 0..1000 {
        let status = fixture.application(&format!("guess{guess}"), 1).await.status();
        waiting += u32::from(status == StatusCode::TOO_MANY_REQUESTS);
    }
    assert_eq!((fixture.hashed(), waiting), (0, 995));
    assert_eq!(
        fixture.application(&fixture.secret, 1).await.status(),
        StatusCode::OK
    );
}
