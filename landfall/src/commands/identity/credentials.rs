//! Credentials of applications and service principals.

use std::path::Path;

use anyhow::{Context as _, Result};
use jiff::SignedDuration;
use serde_json::{Value, json};

use super::{Kind, Session, path, text};
use crate::{args, arm::SECRET, problem::Problem, stamp};

/// Kinds with secrets and certificates; an application's are also its service principal's.
const HOLDERS: &[Kind] = &[Kind::Application, Kind::Program];
/// The default validity of a secret, and that of this stamp's own application, in days.
const DAYS: u32 = 365;
const OWN_DAYS: u32 = 3650;

fn credentials<'a>(object: &'a Value, member: &str) -> &'a [Value] {
    object[member].as_array().map_or(&[], Vec::as_slice)
}

impl Session<'_> {
    pub(super) async fn application(&self, command: &args::Application) -> Result<()> {
        match command {
            args::Application::List => {
                let all = self.graph.list("/applications", None).await?;
                let columns = [
                    ("ID", "id"),
                    ("CLIENT ID", "appId"),
                    ("NAME", "displayName"),
                    ("URIS", "identifierUris"),
                ];
                self.listed("applications", &all, &columns);
                Ok(())
            }
            args::Application::Show { app } => {
                let found = self.find(Kind::Application, app).await?;
                let federated = format!("{}/federatedIdentityCredentials", path(Kind::Application, &found));
                let federated = self.graph.list(&federated, None).await?;
                let count = |member: &str| credentials(&found, member).len().to_string();
                let lines = [
                    ("id", text(&found, "id").to_owned()),
                    ("client id", text(&found, "appId").to_owned()),
                    ("name", text(&found, "displayName").to_owned()),
                    ("made", text(&found, "createdDateTime").to_owned()),
                    ("secrets", count("passwordCredentials")),
                    ("certificates", count("keyCredentials")),
                    ("federated", federated.len().to_string()),
                ];
                self.shown("application", &found, &lines);
                Ok(())
            }
            args::Application::Create {
                display_name,
                identifier_uris,
            } => {
                let body = json!({ "displayName": display_name, "identifierUris": identifier_uris });
                let made = self
                    .graph
                    .post("/applications", &body, "create the application")
                    .await?;
                let app_id = text(&made, "appId").to_owned();
                let principal = self.make_principal(&app_id).await?;
                let id = text(&principal, "id").to_owned();
                self.done(
                    &json!({ "application": made, "servicePrincipal": principal }),
                    format!(
                        "{display_name} has the client id {app_id} and is known as {id}. It may do nothing until a role is given, and \
                         logs in with: landfall identity secret add {app_id}{}\n",
                        self.context.name_flag()
                    ),
                );
                Ok(())
            }
            args::Application::Delete { app, yes } => {
                self.remove(Kind::Application, app, *yes, " with its service principal")
                    .await
            }
        }
    }

    async fn make_principal(&self, app_id: &str) -> Result<Value> {
        let body = json!({ "appId": app_id, "accountEnabled": true });
        self.graph
            .post("/servicePrincipals", &body, "create the service principal")
            .await
    }

    pub(super) async fn service_principal(&self, command: &args::ServicePrincipal) -> Result<()> {
        const KIND: Kind = Kind::ServicePrincipal;
        match command {
            args::ServicePrincipal::List => {
                let all = self.graph.list("/servicePrincipals", None).await?;
                let columns = [
                    ("ID", "id"),
                    ("CLIENT ID", "appId"),
                    ("NAME", "displayName"),
                    ("TYPE", "servicePrincipalType"),
                    ("ENABLED", "accountEnabled"),
                ];
                self.listed("servicePrincipals", &all, &columns);
                Ok(())
            }
            args::ServicePrincipal::Show { sp } => {
                let found = self.find(KIND, sp).await?;
                let count = |member: &str| credentials(&found, member).len().to_string();
                let lines = [
                    ("id", text(&found, "id").to_owned()),
                    ("client id", text(&found, "appId").to_owned()),
                    ("name", text(&found, "displayName").to_owned()),
                    ("type", text(&found, "servicePrincipalType").to_owned()),
                    ("enabled", found["accountEnabled"].to_string()),
                    ("made", text(&found, "createdDateTime").to_owned()),
                    ("own secrets", count("passwordCredentials")),
                    ("own certificates", count("keyCredentials")),
                    ("groups", self.groups_of(KIND, &found).await?),
                ];
                self.shown("servicePrincipal", &found, &lines);
                Ok(())
            }
            args::ServicePrincipal::Create { app } => {
                let found = self.find(Kind::Application, app).await?;
                let made = self.make_principal(text(&found, "appId")).await?;
                let (name, id) = (
                    text(&made, "displayName").to_owned(),
                    text(&made, "id").to_owned(),
                );
                self.done(
                    &json!({ "servicePrincipal": made }),
                    format!("{name} is known as {id}.\n"),
                );
                Ok(())
            }
            args::ServicePrincipal::Delete { sp, yes } => {
                self.remove(KIND, sp, *yes, "; its application stays").await
            }
            args::ServicePrincipal::Enable { sp } => self.enable(KIND, sp, true).await,
            args::ServicePrincipal::Disable { sp } => self.enable(KIND, sp, false).await,
            args::ServicePrincipal::Revoke { sp } => self.revoke(KIND, sp).await,
        }
    }

    pub(super) async fn secret(&self, command: &args::Secret) -> Result<()> {
        match command {
            args::Secret::List { of } => {
                let (_, found) = self.any(HOLDERS, of).await?;
                let columns = [
                    ("KEY", "keyId"),
                    ("BEGINS WITH", "hint"),
                    ("NAME", "displayName"),
                    ("GOOD UNTIL", "endDateTime"),
                ];
                self.listed("secrets", credentials(&found, "passwordCredentials"), &columns);
                Ok(())
            }
            args::Secret::Add {
                of,
                days,
                display_name,
            } => {
                let (kind, found) = self.any(HOLDERS, of).await?;
                let made = self.add_secret(kind, &found, *days, display_name).await?;
                self.tell_secret(&found, &made, "");
                Ok(())
            }
            args::Secret::Remove { of, key } => {
                let (kind, found) = self.any(HOLDERS, of).await?;
                self.remove_secret(kind, &found, key).await?;
                self.done(
                    &json!({ "removed": key }),
                    format!("{key} is good for nothing any more.\n"),
                );
                Ok(())
            }
            args::Secret::Reset { of, days, yes } => self.reset_secret(of, *days, *yes).await,
        }
    }

    async fn add_secret(&self, kind: Kind, of: &Value, days: u32, display_name: &str) -> Result<Value> {
        let end = self.context.env.clock.now() + SignedDuration::from_hours(i64::from(days) * 24);
        let body =
            json!({ "passwordCredential": { "displayName": display_name, "endDateTime": end.to_string() } });
        let act = format!("{}/addPassword", path(kind, of));
        self.graph.post(&act, &body, "make a secret").await
    }

    async fn remove_secret(&self, kind: Kind, of: &Value, key: &str) -> Result<()> {
        let act = format!("{}/removePassword", path(kind, of));
        let body = json!({ "keyId": key });
        self.graph.post(&act, &body, "remove the secret").await.map(drop)
    }

    fn tell_secret(&self, of: &Value, made: &Value, more: &str) {
        let (client, secret) = (text(of, "appId"), text(made, "secretText"));
        let value = json!({
            "clientId": client, "keyId": made["keyId"], "secret": secret, "endDateTime": made["endDateTime"],
        });
        self.done(
            &value,
            format!("client id  {client}\nsecret     {secret}\n\nThe secret is not shown again.{more}\n"),
        );
    }

    async fn reset_secret(&self, of: &str, days: Option<u32>, yes: bool) -> Result<()> {
        let (kind, found) = self.any(HOLDERS, of).await?;
        let name = text(&found, "displayName").to_owned();
        let what = format!("This removes all secrets of {name} that there are.");
        self.confirmed(yes, &what).await?;
        let own = text(&found, "appId").eq_ignore_ascii_case(&self.settings.client);
        let days = days.unwrap_or(if own { OWN_DAYS } else { DAYS });
        let made = self.add_secret(kind, &found, days, "landfall").await?;
        let mut more = String::new();
        if own {
            // Before the others are removed: after an interruption here one valid secret is left.
            let file = self.context.places.secrets().join(SECRET);
            stamp::write_whole(&file, text(&made, "secretText").as_bytes(), 0o600)?;
            more = format!(
                " It is in {}; repeat 'landfall az{}' where az is logged in with the old one.",
                file.display(),
                self.context.name_flag()
            );
        }
        for old in credentials(&found, "passwordCredentials") {
            self.remove_secret(kind, &found, text(old, "keyId")).await?;
        }
        self.tell_secret(&found, &made, &more);
        Ok(())
    }

    pub(super) async fn certificate(&self, command: &args::Certificate) -> Result<()> {
        match command {
            args::Certificate::List { of } => {
                let (_, found) = self.any(HOLDERS, of).await?;
                let columns = [
                    ("KEY", "keyId"),
                    ("SHA-256", "customKeyIdentifier"),
                    ("NAME", "displayName"),
                    ("GOOD UNTIL", "endDateTime"),
                ];
                self.listed("certificates", credentials(&found, "keyCredentials"), &columns);
                Ok(())
            }
            args::Certificate::Add {
                of,
                file,
                display_name,
            } => {
                let (kind, found) = self.any(HOLDERS, of).await?;
                let id = self.context.env.ids.uuid().to_string();
                let mut all = credentials(&found, "keyCredentials").to_vec();
                all.push(json!({
                    "keyId": id, "displayName": display_name, "key": certificate(file)?,
                    "type": "AsymmetricX509Cert", "usage": "Verify",
                }));
                let body = json!({ "keyCredentials": all });
                self.graph
                    .patch(&path(kind, &found), &body, "add the certificate")
                    .await?;
                let name = text(&found, "displayName");
                self.done(
                    &json!({ "keyId": id }),
                    format!("{name} can log in with the private key of {}.\n", file.display()),
                );
                Ok(())
            }
            args::Certificate::Remove { of, key } => {
                let (kind, found) = self.any(HOLDERS, of).await?;
                let mut all = credentials(&found, "keyCredentials").to_vec();
                let before = all.len();
                all.retain(|one| !text(one, "keyId").eq_ignore_ascii_case(key));
                if all.len() == before {
                    let what = format!(
                        "{} has no certificate with the key id {key}",
                        text(&found, "displayName")
                    );
                    let list = format!(
                        "landfall identity certificate list {of}{}",
                        self.context.name_flag()
                    );
                    return Err(Problem::new(what, format!("see: {list}")).into());
                }
                let body = json!({ "keyCredentials": all });
                self.graph
                    .patch(&path(kind, &found), &body, "remove the certificate")
                    .await?;
                self.done(
                    &json!({ "removed": key }),
                    format!("{key} is good for nothing any more.\n"),
                );
                Ok(())
            }
        }
    }

    pub(super) async fn federated(&self, command: &args::Federated) -> Result<()> {
        let app = match command {
            args::Federated::List { app }
            | args::Federated::Add { app, .. }
            | args::Federated::Remove { app, .. } => app,
        };
        let found = self.find(Kind::Application, app).await?;
        let all = format!("{}/federatedIdentityCredentials", path(Kind::Application, &found));
        match command {
            args::Federated::List { .. } => {
                let columns = [
                    ("ID", "id"),
                    ("NAME", "name"),
                    ("ISSUER", "issuer"),
                    ("SUBJECT", "subject"),
                    ("AUDIENCES", "audiences"),
                ];
                self.listed("federated", &self.graph.list(&all, None).await?, &columns);
            }
            args::Federated::Add {
                credential,
                issuer,
                subject,
                audience,
                ..
            } => {
                let body = json!({ "name": credential, "issuer": issuer, "subject": subject, "audiences": [audience] });
                let made = self.graph.post(&all, &body, "add the credential").await?;
                let name = text(&found, "displayName");
                self.done(
                    &json!({ "federated": made }),
                    format!("{name} can log in with a token of {issuer} for {subject}.\n"),
                );
            }
            args::Federated::Remove { credential, .. } => {
                self.graph
                    .delete(
                        &format!("{all}/{}", crate::arm::encode(credential)),
                        "remove the credential",
                    )
                    .await?;
                self.done(
                    &json!({ "removed": credential }),
                    format!("{credential} is good for nothing any more.\n"),
                );
            }
        }
        Ok(())
    }
}

/// The first certificate of a PEM file, as its base64.
fn certificate(file: &Path) -> Result<String> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let inner = text
        .split_once("-----BEGIN CERTIFICATE-----")
        .and_then(|(_, rest)| rest.split_once("-----END CERTIFICATE-----"));
    let Some((inner, _)) = inner else {
        let what = format!("{} has no certificate in PEM", file.display());
        let next = "make one: openssl req -x509 -newkey rsa:3072 -nodes -days 365 -subj /CN=ci -keyout key.pem -out cert.pem";
        return Err(Problem::new(what, next).into());
    };
    Ok(inner.split_whitespace().collect())
}
