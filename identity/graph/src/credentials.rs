//! Secrets, certificates and federated credentials in bodies.

use arm_wire::Response;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use control_records::{Credential, Proof};
use http::StatusCode;
use identity_directory::{
    ISSUER_IS, is_issuer,
    secret::{Secret, generate_secret, hash_secret},
};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::{Graph, GraphError, Request, body::Body, show};

/// Validity of a secret whose end is not given.
const LIFETIME: SignedDuration = SignedDuration::from_hours(2 * 365 * 24);
/// The largest difference of clients' clocks.
const SKEW: SignedDuration = SignedDuration::from_mins(10);

/// A new secret: the credential to be stored, and the secret itself, shown once.
pub(crate) struct NewSecret {
    pub(crate) credential: Credential,
    text: String,
}

impl NewSecret {
    /// The response to its creation.
    pub(crate) fn answer(&self, request: &Request) -> Response {
        let mut body = show::password(&self.credential).unwrap_or(Value::Null);
        body["secretText"] = json!(self.text);
        body["@odata.context"] = json!(format!(
            "{}/$metadata#microsoft.graph.passwordCredential",
            request.base_url
        ));
        Response::ok(body)
    }
}

fn time(body: &mut Body<'_>, name: &'static str) -> Option<Timestamp> {
    let text = body.text(name)?;
    let parsed = text.parse().ok();
    if parsed.is_none() {
        body.problem(name, "It has to be a time, e.g. '2026-11-29T00:00:00Z'.");
    }
    parsed
}

/// The validity; a start in the future is not supported.
fn span(body: &mut Body<'_>, now: Timestamp, lifetime: SignedDuration) -> Timestamp {
    if time(body, "startDateTime").is_some_and(|start| start > now + SKEW) {
        body.problem(
            "startDateTime",
            "Landfall does not support credentials that begin later yet.",
        );
    }
    let end = time(body, "endDateTime").unwrap_or(now + lifetime);
    if end <= now {
        body.problem("endDateTime", "It is in the past.");
    }
    end
}

impl Graph {
    /// The new secret of an `addPassword` request.
    pub(crate) fn new_secret(&self, request: &Request) -> Result<NewSecret, GraphError> {
        let now = self.env.clock.now();
        let mut body = Body::of(&request.body)?;
        let asked = body.object("passwordCredential", |inner| {
            let name = inner.text("displayName").unwrap_or_default().to_owned();
            let end = span(inner, now, LIFETIME);
            inner.ignored(&["keyId", "hint", "customKeyIdentifier"]);
            (name, end)
        });
        body.end()?;
        let (display_name, end) = asked.unwrap_or((String::new(), now + LIFETIME));
        let text = generate_secret();
        Ok(NewSecret {
            credential: Credential {
                id: self.env.ids.uuid().to_string(),
                display_name,
                created_at: now,
                expires_at: Some(end),
                proof: Proof::Secret {
                    hash: hash_secret(Secret::Generated(&text)),
                    hint: text.chars().take(3).collect(),
                },
            },
            text,
        })
    }

    /// The key that `removePassword` names.
    pub(crate) fn removed_key(request: &Request) -> Result<String, GraphError> {
        let mut body = Body::of(&request.body)?;
        let id = body.required("keyId").to_owned();
        body.end()?;
        Ok(id)
    }

    /// The certificates after a change of `keyCredentials`: present ones, named by their keys, and new ones.
    pub(crate) fn certificates(
        &self,
        body: &mut Body<'_>,
        present: &[Credential],
    ) -> Option<Vec<Credential>> {
        let now = self.env.clock.now();
        let list = body.list("keyCredentials")?;
        let mut all = Vec::new();
        for (at, one) in list.iter().enumerate() {
            let name = format!("keyCredentials[{at}]");
            let Some(members) = one.as_object() else {
                body.problem(&name, "It has to be an object.");
                continue;
            };
            let credential = body.inner(members, &name, |inner| {
                inner.ignored(&["customKeyIdentifier"]);
                let id = inner.text("keyId").unwrap_or_default();
                let kept = present
                    .iter()
                    .find(|own| own.id.eq_ignore_ascii_case(id) && show_certificate(own));
                let key = inner.text("key");
                if let (Some(kept), None) = (kept, key) {
                    inner.ignored(&["displayName", "startDateTime", "endDateTime", "type", "usage"]);
                    return Some(kept.clone());
                }
                for (member, only) in [("type", "AsymmetricX509Cert"), ("usage", "Verify")] {
                    if inner.text(member).is_some_and(|asked| asked != only) {
                        inner.problem(member, format!("Only '{only}' is there yet in Landfall."));
                    }
                }
                let display_name = inner.text("displayName").unwrap_or_default().to_owned();
                let id = match id.parse::<uuid::Uuid>() {
                    Ok(id) => id.to_string(),
                    Err(_) if id.is_empty() => self.env.ids.uuid().to_string(),
                    Err(_) => {
                        inner.problem("keyId", "It has to be a GUID.");
                        return None;
                    }
                };
                let Some((der, ends)) = key.and_then(certificate) else {
                    inner.problem("key", "It has to be an X.509 certificate, DER in base64.");
                    return None;
                };
                // The certificate's own end is the latest possible one.
                let end = span(inner, now, ends.duration_since(now)).min(ends);
                if ends <= now {
                    inner.problem("key", "The certificate has expired.");
                }
                Some(Credential {
                    id,
                    display_name,
                    created_at: now,
                    expires_at: Some(end),
                    proof: Proof::Certificate { der },
                })
            });
            all.extend(credential);
        }
        Some(all)
    }

    /// The federated credential of a body. Members absent from the body keep their present values.
    pub(crate) fn federated(
        &self,
        request: &Request,
        present: Option<&Credential>,
    ) -> Result<Credential, GraphError> {
        let before = present.map(|one| (one, &one.proof));
        let (mut name, mut issuer, mut subject, mut audiences, mut about) = match before {
            Some((
                one,
                Proof::Federated {
                    name,
                    issuer,
                    subject,
                    audiences,
                },
            )) => (
                name.clone(),
                issuer.clone(),
                subject.clone(),
                audiences.clone(),
                one.display_name.clone(),
            ),
            _ => Default::default(),
        };
        let is_new = present.is_none();
        let mut body = Body::of(&request.body)?;
        body.ignored(&["id"]);
        for (member, own) in [
            ("name", &mut name),
            ("issuer", &mut issuer),
            ("subject", &mut subject),
        ] {
            let asked = if is_new {
                Some(body.required(member))
            } else {
                body.text(member)
            };
            if let Some(asked) = asked {
                if member == "name" && !is_new && asked != own {
                    body.problem("name", "It cannot be changed.");
                }
                if member == "issuer" && !asked.is_empty() && !is_issuer(asked) {
                    body.problem(
                        "issuer",
                        format!("It has to be {ISSUER_IS}; keys are asked for over https only."),
                    );
                }
                asked.clone_into(own);
            }
        }
        match body.texts("audiences") {
            Some(asked) => audiences = asked,
            None if is_new => body.problem("audiences", "It is missing."),
            None => {}
        }
        if let Some(asked) = body.text("description") {
            asked.clone_into(&mut about);
        }
        body.end()?;
        Ok(Credential {
            id: present.map_or_else(|| self.env.ids.uuid().to_string(), |one| one.id.clone()),
            display_name: about,
            created_at: present.map_or_else(|| self.env.clock.now(), |one| one.created_at),
            expires_at: None,
            proof: Proof::Federated {
                name,
                issuer,
                subject,
                audiences,
            },
        })
    }
}

/// Removes a secret by its key.
pub(crate) fn remove_secret(all: &mut Vec<Credential>, id: &str) -> Result<(), GraphError> {
    let is_it =
        |one: &Credential| one.id.eq_ignore_ascii_case(id) && matches!(one.proof, Proof::Secret { .. });
    if !all.iter().any(is_it) {
        let id: String = id.chars().take(64).collect();
        return Err(GraphError::bad(format!(
            "No password credential found with keyId '{id}'."
        )));
    }
    all.retain(|one| !is_it(one));
    Ok(())
}

/// Whether a credential is a certificate.
pub(crate) fn show_certificate(one: &Credential) -> bool {
    matches!(one.proof, Proof::Certificate { .. })
}

/// A certificate in base64, with or without line breaks: its DER in base64, and when it ends.
fn certificate(text: &str) -> Option<(String, Timestamp)> {
    let text: String = text.split_whitespace().collect();
    let der = STANDARD.decode(text).ok()?;
    let (rest, parsed) = x509_parser::parse_x509_certificate(&der).ok()?;
    let ends = Timestamp::from_second(parsed.validity().not_after.timestamp()).ok()?;
    rest.is_empty().then(|| (STANDARD.encode(&der), ends))
}

/// 204.
pub(crate) fn nothing() -> Response {
    Response::empty(StatusCode::NO_CONTENT)
}
