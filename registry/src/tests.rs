use std::collections::BTreeSet;

use async_trait::async_trait;
use axum::body::to_bytes;
use http::StatusCode;
use serde_json::{Value, json};
use storage_images::Digest;

use super::*;

/// Tokens are their claims; `ada` may do all, `bob` may pull, machine `n1` is a node whose kubelet is `kubelet`.
struct Doors {
    revoked: std::sync::Mutex<BTreeSet<String>>,
}

#[async_trait]
impl Gate for Doors {
    async fn registry(&self, name: &str) -> Result<Option<KnownRegistry>, GateError> {
        Ok((name == "acme1").then(|| KnownRegistry {
            uid: "u1".to_owned(),
            name: name.to_owned(),
            id: "/subscriptions/s".to_owned(),
            login_server: format!("h:1/{name}"),
            limit: 1 << 20,
        }))
    }

    async fn may(&self, object_id: &str, right: Right, _: &KnownRegistry) -> Result<bool, GateError> {
        let revoked = self.revoked.lock().unwrap().contains(object_id);
        let may = match object_id {
            "ada" => true,
            "bob" | "kubelet" => right == Right::Pull,
            _ => false,
        };
        Ok(may && !revoked)
    }

    async fn kubelet(&self, machine: &str) -> Result<Option<String>, GateError> {
        Ok((machine == "n1").then(|| "kubelet".to_owned()))
    }

    async fn bearer(&self, token: &str) -> Result<Option<String>, GateError> {
        Ok(token.strip_prefix("aad-").map(str::to_owned))
    }

    async fn password(
        &self,
        client: &str,
        secret: &str,
        _: Option<std::net::IpAddr>,
    ) -> Result<Option<String>, GateError> {
        Ok((secret == "secret").then(|| client.to_owned()))
    }

    fn sign(&self, claims: &Claims) -> String {
        arm_ids::encode(&serde_json::to_string(claims).unwrap()).replace('%', ".")
    }

    async fn read(&self, token: &str) -> Result<Option<Claims>, GateError> {
        let text = arm_ids::decode(&token.replace('.', "%"));
        Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
    }
}

struct Stand {
    registries: Registries,
    doors: Arc<Doors>,
    machine: Option<String>,
    _directory: tempfile::TempDir,
}

struct Answer {
    status: StatusCode,
    headers: http::HeaderMap,
    content: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.content).unwrap_or_default()
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    fn code(&self) -> String {
        self.json()["errors"][0]["code"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }
}

impl Stand {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let doors = Arc::new(Doors {
            revoked: std::sync::Mutex::default(),
        });
        let images = Arc::new(Images::new(directory.path().to_owned()));
        let gate: Arc<dyn Gate> = Arc::<Doors>::clone(&doors);
        Self {
            registries: Registries::new(Env::system(), images, gate),
            doors,
            machine: None,
            _directory: directory,
        }
    }

    async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let entrance = Entrance {
            base_url: "https://h:1".to_owned(),
            address: None,
            machine: self.machine.clone(),
        };
        let request = request.body(body.into()).unwrap();
        let (answer, _) = self.registries.answer(request, &entrance).await;
        let (parts, body) = answer.into_parts();
        Answer {
            status: parts.status,
            headers: parts.headers,
            content: to_bytes(body, usize::MAX).await.unwrap().to_vec(),
        }
    }

    /// An access token, as `az` gets it.
    async fn token(&self, who: &str, scope: &str) -> String {
        let form = format!("grant_type=access_token&service=h:1/acme1&access_token=aad-{who}");
        let exchanged = self.ask("POST", "/oauth2/exchange", &[], form).await;
        let refresh = exchanged.json()["refresh_token"].as_str().unwrap().to_owned();
        let form = format!(
            "grant_type=refresh_token&service=h%3A1%2Facme1&scope={}&refresh_token={refresh}",
            arm_ids::encode(scope)
        );
        let answer = self.ask("POST", "/oauth2/token", &[], form).await;
        format!("Bearer {}", answer.json()["access_token"].as_str().unwrap())
    }

    /// Pushes an image with one layer; gives the digest of its manifest.
    async fn push(&self, token: &str, repository: &str, tag: &str) -> String {
        let token = ("authorization", token);
        let mut descriptors = Vec::new();
        for content in ["{}", "layer"] {
            let uploads = format!("/v2/acme1/{repository}/blobs/uploads/");
            let begun = self.ask("POST", &uploads, &[token], "").await;
            assert_eq!(begun.status, StatusCode::ACCEPTED, "{}", begun.json());
            let at = begun.header("location").to_owned();
            let sent = self.ask("PATCH", &at, &[token], content).await;
            assert_eq!(sent.status, StatusCode::ACCEPTED, "{}", sent.json());
            let digest = Digest::of(content.as_bytes()).to_string();
            let ended = self
                .ask("PUT", &format!("{at}?digest={digest}"), &[token], "")
                .await;
            assert_eq!(ended.status, StatusCode::CREATED, "{}", ended.json());
            assert_eq!(ended.header("docker-content-digest"), digest);
            descriptors.push(json!({ "mediaType": "x", "digest": digest, "size": content.len() }));
        }
        let manifest = json!({ "schemaVersion": 2, "config": descriptors[0], "layers": [descriptors[1]] });
        let kind = ("content-type", "application/vnd.oci.image.manifest.v1+json");
        let at = format!("/v2/acme1/{repository}/manifests/{tag}");
        let pushed = self.ask("PUT", &at, &[token, kind], manifest.to_string()).await;
        assert_eq!(pushed.status, StatusCode::CREATED, "{}", pushed.json());
        pushed.header("docker-content-digest").to_owned()
    }
}

#[tokio::test]
async fn an_image_is_pushed_listed_pulled_and_deleted() {
    let stand = Stand::new();
    let all = stand.token("ada", "repository:team/app:*").await;
    let digest = stand.push(&all, "team/app", "1.0").await;
    let read = stand.token("bob", "repository:team/app:metadata_read,pull").await;
    let read = ("authorization", read.as_str());
    let pulled = stand
        .ask("GET", "/v2/acme1/team/app/manifests/1.0", &[read], "")
        .await;
    assert_eq!(
        (pulled.status, pulled.header("docker-content-digest")),
        (StatusCode::OK, digest.as_str())
    );
    let layer = pulled.json()["layers"][0]["digest"].as_str().unwrap().to_owned();
    let path = format!("/v2/acme1/team/app/blobs/{layer}");
    let blob = stand.ask("GET", &path, &[read], "").await;
    assert_eq!(
        (blob.content.as_slice(), blob.header("content-length")),
        (&b"layer"[..], "5")
    );
    let part = stand.ask("GET", &path, &[read, ("range", "bytes=2-")], "").await;
    assert_eq!(
        (part.status, part.content.as_slice(), part.header("content-range")),
        (StatusCode::PARTIAL_CONTENT, &b"yer"[..], "bytes 2-4/5")
    );
    let head = stand.ask("HEAD", &path, &[read], "").await;
    assert_eq!((head.content.len(), head.header("content-length")), (0, "5"));
    // As az asks.
    let catalog = stand.token("bob", "registry:catalog:*").await;
    let listed = stand
        .ask(
            "GET",
            "/acme1/v2/_catalog?n=100",
            &[("authorization", &catalog)],
            "",
        )
        .await;
    assert_eq!(listed.json(), json!({ "repositories": ["team/app"] }));
    let tags = stand
        .ask(
            "GET",
            "/acme1/acr/v1/team/app/_tags?n=100&orderby=timedesc",
            &[read],
            "",
        )
        .await;
    assert_eq!(tags.json()["tags"][0]["name"], "1.0", "{}", tags.json());
    assert_eq!(tags.json()["tags"][0]["digest"], digest);
    let shown = stand.ask("GET", "/acme1/acr/v1/team/app", &[read], "").await;
    assert_eq!(shown.json()["manifestCount"], 1, "{}", shown.json());
    let path = format!("/acme1/v2/team/app/manifests/{digest}");
    let refused = stand.ask("DELETE", &path, &[read], "").await;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    assert!(refused.header("www-authenticate").contains("insufficient_scope"));
    let all = ("authorization", all.as_str());
    let deleted = stand.ask("DELETE", &path, &[all], "").await;
    assert_eq!(deleted.status, StatusCode::ACCEPTED, "{}", deleted.json());
    let gone = stand
        .ask("GET", "/v2/acme1/team/app/manifests/1.0", &[all], "")
        .await;
    assert_eq!(
        (gone.status, gone.code().as_str()),
        (StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN")
    );
}

#[tokio::test]
async fn without_a_right_nothing_is_told() {
    let stand = Stand::new();
    let base = stand.ask("GET", "/acme1/v2/", &[], "").await;
    assert_eq!(
        (base.status, base.header("www-authenticate")),
        (
            StatusCode::UNAUTHORIZED,
            "Bearer realm=\"https://h:1/oauth2/token\",service=\"h:1/acme1\""
        )
    );
    let known = stand.ask("GET", "/v2/acme1/app/tags/list", &[], "").await;
    let unknown = stand.ask("GET", "/v2/other1/app/tags/list", &[], "").await;
    assert_eq!(
        (known.status, unknown.status),
        (StatusCode::UNAUTHORIZED, StatusCode::UNAUTHORIZED)
    );
    assert_eq!(known.content, unknown.content);
    assert_eq!(
        known.header("www-authenticate").replace("acme1", "other1"),
        unknown.header("www-authenticate")
    );
    // Who has no right gets a token without it.
    let none = stand.token("eve", "repository:app:pull").await;
    let refused = stand
        .ask("GET", "/v2/acme1/app/tags/list", &[("authorization", &none)], "")
        .await;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    // A right that is taken away counts at once, whatever the token says.
    let all = stand.token("ada", "repository:app:*").await;
    stand.push(&all, "app", "1").await;
    stand.doors.revoked.lock().unwrap().insert("ada".to_owned());
    let late = stand
        .ask("GET", "/v2/acme1/app/tags/list", &[("authorization", &all)], "")
        .await;
    assert_eq!(late.status, StatusCode::UNAUTHORIZED);
    // A refresh token opens no image.
    let form = "grant_type=access_token&access_token=aad-bob";
    let exchanged = stand.ask("POST", "/oauth2/exchange", &[], form).await;
    let refresh = format!("Bearer {}", exchanged.json()["refresh_token"].as_str().unwrap());
    let refused = stand
        .ask(
            "GET",
            "/v2/acme1/app/tags/list",
            &[("authorization", &refresh)],
            "",
        )
        .await;
    assert!(refused.header("www-authenticate").contains("invalid_token"));
    for (form, status) in [
        ("grant_type=magic", StatusCode::BAD_REQUEST),
        (
            "grant_type=refresh_token&refresh_token=x",
            StatusCode::UNAUTHORIZED,
        ),
        (
            "grant_type=password&username=a&password=b",
            StatusCode::UNAUTHORIZED,
        ),
    ] {
        let answer = stand.ask("POST", "/oauth2/token", &[], form).await;
        assert_eq!(answer.status, status, "{form}");
    }
}

#[tokio::test]
async fn docker_logs_in_with_a_client_id_and_a_secret() {
    let stand = Stand::new();
    // `ada:secret`
    let basic = ("authorization", "Basic YWRhOnNlY3JldA==");
    let path = "/oauth2/token?service=h%3A1&scope=repository%3Aacme1%2Fapp%3Apull%2Cpush&offline_token=true";
    let answer = stand.ask("GET", path, &[basic], "").await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.json());
    assert!(answer.json()["refresh_token"].is_string());
    let token = format!("Bearer {}", answer.json()["token"].as_str().unwrap());
    stand.push(&token, "app", "1").await;
    let known = stand.ask("GET", "/v2/", &[("authorization", &token)], "").await;
    assert_eq!(known.status, StatusCode::OK);
}

#[tokio::test]
async fn a_node_pulls_with_its_certificate_and_does_not_push() {
    let mut stand = Stand::new();
    let all = stand.token("ada", "repository:app:*").await;
    stand.push(&all, "app", "1").await;
    stand.machine = Some("n1".to_owned());
    let path = "/v2/acme1/app/manifests/1?ns=h%3A1";
    assert_eq!(stand.ask("GET", path, &[], "").await.status, StatusCode::OK);
    let pushes = stand.ask("POST", "/v2/acme1/app/blobs/uploads/", &[], "").await;
    assert_eq!(pushes.status, StatusCode::UNAUTHORIZED);
    stand.doors.revoked.lock().unwrap().insert("kubelet".to_owned());
    // Then a secret of the pod's counts: its kubelet is told where it gets a token.
    let refused = stand.ask("GET", path, &[], "").await;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    assert!(
        refused
            .header("www-authenticate")
            .ends_with("service=\"h:1\",scope=\"repository:acme1/app:pull\"")
    );
    stand.machine = Some("m1".to_owned());
    assert_eq!(
        stand.ask("GET", "/v2/", &[], "").await.status,
        StatusCode::UNAUTHORIZED
    );
}

#[tokio::test]
async fn an_upload_is_asked_for_and_goes_on() {
    let stand = Stand::new();
    let all = stand.token("ada", "repository:app:*").await;
    let all = ("authorization", all.as_str());
    let begun = stand
        .ask("POST", "/v2/acme1/app/blobs/uploads/", &[all], "")
        .await;
    let at = begun.header("location").to_owned();
    stand.ask("PATCH", &at, &[all], "lay").await;
    let asked = stand.ask("GET", &at, &[all], "").await;
    assert_eq!(
        (asked.status, asked.header("range")),
        (StatusCode::NO_CONTENT, "0-2")
    );
    let wrong = stand
        .ask("PATCH", &at, &[all, ("content-range", "1-2")], "er")
        .await;
    assert_eq!(
        (wrong.status, wrong.header("range")),
        (StatusCode::RANGE_NOT_SATISFIABLE, "0-2")
    );
    let digest = Digest::of(b"layer");
    let path = format!("{at}?digest={digest}");
    let ended = stand
        .ask("PUT", &path, &[all, ("content-range", "3-4")], "er")
        .await;
    assert_eq!(ended.status, StatusCode::CREATED, "{}", ended.json());
    // The answer was lost.
    let again = stand.ask("PUT", &path, &[all], "").await;
    assert_eq!(again.status, StatusCode::CREATED, "{}", again.json());
    // A blob at once, and one of another repository.
    let path = format!("/v2/acme1/app/blobs/uploads/?digest={}", Digest::of(b"once"));
    assert_eq!(
        stand.ask("POST", &path, &[all], "once").await.status,
        StatusCode::CREATED
    );
    let other = stand.token("ada", "repository:other:*").await;
    let path = format!("/v2/acme1/other/blobs/uploads/?mount={digest}&from=acme1%2Fapp");
    let mounted = stand.ask("POST", &path, &[("authorization", &other)], "").await;
    assert_eq!(
        (mounted.status, mounted.header("location")),
        (
            StatusCode::CREATED,
            format!("/v2/acme1/other/blobs/{digest}").as_str()
        )
    );
    let changed = stand.ask("PATCH", "/acme1/acr/v1/app", &[all], "{}").await;
    assert_eq!(changed.status, StatusCode::METHOD_NOT_ALLOWED);
}
