//! Applications, service principals, and their credentials.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::stamp::{ARM, Answer, Stamp};

/// An application and its service principal, as `az ad sp create-for-rbac` makes them.
async fn make(stamp: &Stamp) -> (Answer, Answer) {
    let app = stamp
        .post(
            "/applications",
            json!({ "displayName": "ci", "keyCredentials": [] }),
        )
        .await;
    assert_eq!(app.status, 201, "{app:?}");
    assert_eq!(app.body["passwordCredentials"], json!([]));
    let body = json!({ "appId": app.text("appId"), "accountEnabled": true });
    let principal = stamp.post("/servicePrincipals", body).await;
    assert_eq!(principal.status, 201, "{principal:?}");
    (app, principal)
}

async fn add(stamp: &Stamp, path: &str) -> Answer {
    let body =
        json!({ "passwordCredential": { "displayName": "rbac", "endDateTime": "2100-01-01T00:00:00Z" } });
    let made = stamp.post(&format!("{path}/addPassword"), body).await;
    assert_eq!(made.status, 200, "{made:?}");
    made
}

#[tokio::test(start_paused = true)]
async fn a_secret_is_told_once_and_holds_until_it_is_removed() {
    let stamp = Stamp::new().await;
    let (app, principal) = make(&stamp).await;
    let path = format!("/applications/{}", app.text("id"));
    let made = add(&stamp, &path).await;
    let secret = made.text("secretText");
    assert!(secret.len() >= 40 && secret.starts_with(&made.text("hint")));
    for path in [
        path.clone(),
        format!("/servicePrincipals/{}", principal.text("id")),
    ] {
        let shown = stamp.get(&path).await;
        assert!(
            !shown.body.to_string().contains(&secret) && !shown.body.to_string().contains("sha256"),
            "{shown:?}"
        );
    }
    let shown = stamp.get(&path).await;
    assert_eq!(shown.body["passwordCredentials"][0]["keyId"], made.body["keyId"]);
    // The token service reads the service principal's record.
    let record = identity_directory::principal(&*stamp.store, &principal.text("id"))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(record.value.credentials.len(), 1);
    let remove = json!({ "keyId": made.text("keyId") });
    let gone = stamp
        .post(&format!("{path}/removePassword"), remove.clone())
        .await;
    assert_eq!(gone.status, 204, "{gone:?}");
    assert_eq!(
        stamp.post(&format!("{path}/removePassword"), remove).await.status,
        400
    );
    let record = identity_directory::principal(&*stamp.store, &principal.text("id"))
        .await
        .unwrap()
        .unwrap();
    assert!(record.value.credentials.is_empty());
    assert_eq!(stamp.delete(&path).await.status, 204);
    let by_app = format!("/servicePrincipals(appId='{}')", app.text("appId"));
    assert_eq!(
        stamp.get(&by_app).await.status,
        404,
        "its service principal has gone with it"
    );
}

#[tokio::test(start_paused = true)]
async fn where_sign_ins_may_end_is_the_service_principals_as_well() {
    let stamp = Stamp::new().await;
    let (app, principal) = make(&stamp).await;
    let path = format!("/applications/{}", app.text("id"));
    let uris = |web: &str| json!({ "web": { "redirectUris": [web] }, "publicClient": { "redirectUris": ["http://localhost"] } });
    assert_eq!(
        stamp.patch(&path, uris("https://shop.example/back")).await.status,
        204
    );
    let shown = stamp.get(&path).await;
    assert_eq!(
        shown.body["web"]["redirectUris"],
        json!(["https://shop.example/back"])
    );
    let record = identity_directory::principal(&*stamp.store, &principal.text("id"))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        record.value.redirect_uris,
        ["https://shop.example/back", "http://localhost"]
    );
    let wrong = stamp.patch(&path, uris("http://shop.example")).await;
    assert_eq!(
        wrong.body["error"]["details"][0]["target"], "web.redirectUris",
        "{wrong:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_the_service_principals_own_is_kept_apart() {
    let stamp = Stamp::new().await;
    let (app, principal) = make(&stamp).await;
    let (of_app, own) = (
        format!("/applications/{}", app.text("id")),
        format!("/servicePrincipals/{}", principal.text("id")),
    );
    let (of_app_key, own_key) = (
        add(&stamp, &of_app).await.text("keyId"),
        add(&stamp, &own).await.text("keyId"),
    );
    let keys = |answer: &Answer| -> Vec<String> {
        let all = answer.body["passwordCredentials"].as_array().unwrap();
        all.iter()
            .map(|one| one["keyId"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(keys(&stamp.get(&of_app).await), vec![of_app_key.clone()]);
    assert_eq!(keys(&stamp.get(&own).await), [own_key]);
    let elses = stamp
        .post(&format!("{own}/removePassword"), json!({ "keyId": of_app_key }))
        .await;
    assert_eq!(elses.status, 400, "{elses:?}");
    assert_eq!(stamp.delete(&own).await.status, 204);
    assert_eq!(stamp.get(&of_app).await.status, 200, "the application stays");
    let unknown = json!({ "appId": "0a0a0a0a-0000-4000-8000-000000000000" });
    let unknown = stamp.post("/servicePrincipals", unknown).await;
    assert!(
        unknown.status == 400 && unknown.message().contains(" does not reference "),
        "{unknown:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn the_first_secret_can_be_removed_once_there_is_another() {
    let stamp = Stamp::new().await;
    let own = format!("/servicePrincipals/{}", stamp.owner.id);
    let shown = stamp.get(&own).await;
    assert_eq!(
        shown.body["passwordCredentials"][0]["keyId"],
        json!(stamp.owner.id)
    );
    add(&stamp, &own).await;
    let gone = stamp
        .post(
            &format!("{own}/removePassword"),
            json!({ "keyId": stamp.owner.id }),
        )
        .await;
    assert_eq!(gone.status, 204, "{gone:?}");
    assert!(
        stamp
            .client_token("owner", "an application's secret", ARM)
            .await
            .is_none()
    );
}

#[tokio::test(start_paused = true)]
async fn certificates_are_added_kept_and_removed_as_a_whole() {
    let stamp = Stamp::new().await;
    let (app, principal) = make(&stamp).await;
    let path = format!("/applications/{}", app.text("id"));
    let certificate = || {
        let made = rcgen::generate_simple_self_signed(vec!["ci".to_owned()]).unwrap();
        STANDARD.encode(made.cert.der())
    };
    let new = |key: &str| json!({ "key": key, "type": "AsymmetricX509Cert", "usage": "Verify", "displayName": "ci" });
    let set = |all: Vec<Value>| json!({ "keyCredentials": all });
    assert_eq!(
        stamp.patch(&path, set(vec![new(&certificate())])).await.status,
        204
    );
    let shown = stamp.get(&path).await.body["keyCredentials"].clone();
    assert_eq!(
        (shown[0]["key"].clone(), shown.as_array().unwrap().len()),
        (Value::Null, 1)
    );
    // The certificates that were read and a new one, as `az ad app credential reset --append` sends them; a
    // PEM's lines may be broken.
    let broken = certificate()
        .as_bytes()
        .chunks(64)
        .map(|line| String::from_utf8_lossy(line).into_owned() + "\n")
        .collect::<String>();
    assert_eq!(
        stamp
            .patch(&path, set(vec![shown[0].clone(), new(&broken)]))
            .await
            .status,
        204
    );
    let both = stamp.get(&path).await.body["keyCredentials"].clone();
    assert_eq!((both.as_array().unwrap().len(), &both[0]), (2, &shown[0]));
    let record = identity_directory::principal(&*stamp.store, &principal.text("id"))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(record.value.credentials.len(), 2);
    let wrong = stamp
        .patch(
            &path,
            set(vec![new("AAAA"), json!({ "keyId": "x", "key": certificate() })]),
        )
        .await;
    let targets: Vec<&str> = wrong.body["error"]["details"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["target"].as_str().unwrap())
        .collect();
    assert_eq!(targets, ["keyCredentials[0].key", "keyCredentials[1].keyId"]);
    assert_eq!(stamp.patch(&path, set(vec![both[1].clone()])).await.status, 204);
    assert_eq!(stamp.get(&path).await.body["keyCredentials"], json!([both[1]]));
}

#[tokio::test(start_paused = true)]
async fn federated_credentials_have_names_of_their_own() {
    let stamp = Stamp::new().await;
    let (app, _) = make(&stamp).await;
    let all = format!("/applications/{}/federatedIdentityCredentials", app.text("id"));
    let body = |name: &str, subject: &str| {
        json!({ "name": name, "issuer": "https://i.example", "subject": subject,
                "audiences": ["api://AzureADTokenExchange"], "description": "builds" })
    };
    let made = stamp.post(&all, body("ci", "main")).await;
    assert_eq!(
        (made.status, made.text("description").as_str()),
        (201, "builds"),
        "{made:?}"
    );
    for (name, subject) in [("CI", "other"), ("other", "main")] {
        assert_eq!(stamp.post(&all, body(name, subject)).await.status, 400, "{name}");
    }
    let missing = stamp.post(&all, json!({})).await;
    assert_eq!(
        missing.body["error"]["details"].as_array().unwrap().len(),
        4,
        "{missing:?}"
    );
    let one = format!("{all}/ci");
    assert_eq!(
        stamp.patch(&one, json!({ "subject": "release" })).await.status,
        204
    );
    let shown = stamp.get(&one).await;
    assert_eq!(
        (shown.text("subject").as_str(), shown.text("issuer").as_str()),
        ("release", "https://i.example")
    );
    assert_eq!(stamp.patch(&one, json!({ "name": "x" })).await.status, 400);
    let plain =
        json!({ "name": "plain", "issuer": "http://i.example", "subject": "plain", "audiences": ["a"] });
    for refused in [
        stamp.post(&all, plain).await,
        stamp.patch(&one, json!({ "issuer": "http://i.example" })).await,
    ] {
        let details = &refused.body["error"]["details"];
        assert_eq!(
            (refused.status, details[0]["target"].as_str()),
            (400, Some("issuer")),
            "{refused:?}"
        );
    }
    assert_eq!(stamp.get(&all).await.all("name"), ["ci"]);
    assert_eq!(
        stamp.delete(&format!("{all}/{}", made.text("id"))).await.status,
        204
    );
    assert_eq!(stamp.get(&one).await.status, 404);
}
