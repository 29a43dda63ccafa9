//! Records as Graph shows them. Pure.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use control_records::{ApplicationRecord, Credential, PrincipalGroupRecord, PrincipalRecord, Proof};
use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// Whether it is a person.
pub(crate) fn is_user(record: &PrincipalRecord) -> bool {
    record.kind == "User"
}

/// The secret that was made together with the principal, as a credential: its key is the principal's id.
fn first_secret(record: &PrincipalRecord) -> Option<Value> {
    (!record.secret_hash.is_empty()).then(|| {
        json!({
            "customKeyIdentifier": null, "displayName": "first secret", "endDateTime": null, "hint": null,
            "keyId": record.object_id, "secretText": null, "startDateTime": record.created_at.to_string(),
        })
    })
}

fn time(at: Option<Timestamp>) -> Value {
    at.map_or(Value::Null, |at| json!(at.to_string()))
}

/// A secret's description, without the secret.
pub(crate) fn password(one: &Credential) -> Option<Value> {
    let Proof::Secret { hint, .. } = &one.proof else {
        return None;
    };
    Some(json!({
        "customKeyIdentifier": null, "displayName": text(&one.display_name), "endDateTime": time(one.expires_at),
        "hint": hint, "keyId": one.id, "secretText": null, "startDateTime": one.created_at.to_string(),
    }))
}

fn certificate(one: &Credential) -> Option<Value> {
    let Proof::Certificate { der } = &one.proof else {
        return None;
    };
    let der = STANDARD.decode(der).unwrap_or_default();
    Some(json!({
        "customKeyIdentifier": hex::encode_upper(Sha256::digest(der)), "displayName": text(&one.display_name),
        "endDateTime": time(one.expires_at), "key": null, "keyId": one.id,
        "startDateTime": one.created_at.to_string(), "type": "AsymmetricX509Cert", "usage": "Verify",
    }))
}

/// A federated credential.
pub(crate) fn federated(one: &Credential) -> Option<Value> {
    let Proof::Federated {
        name,
        issuer,
        subject,
        audiences,
    } = &one.proof
    else {
        return None;
    };
    Some(json!({
        "id": one.id, "name": name, "issuer": issuer, "subject": subject, "audiences": audiences,
        "description": text(&one.display_name),
    }))
}

/// Graph shows an empty text as null.
fn text(text: &str) -> Value {
    if text.is_empty() { Value::Null } else { json!(text) }
}

fn all(credentials: &[Credential], show: impl Fn(&Credential) -> Option<Value>) -> Vec<Value> {
    credentials.iter().filter_map(show).collect()
}

/// A person.
pub(crate) fn user(record: &PrincipalRecord) -> Value {
    json!({
        "id": record.object_id,
        "accountEnabled": !record.disabled,
        "businessPhones": [],
        "createdDateTime": record.created_at.to_string(),
        "displayName": record.display_name,
        "givenName": null,
        "jobTitle": null,
        "mail": null,
        "mailNickname": record.nickname.clone().unwrap_or_else(|| alias(&record.login)),
        "mobilePhone": null,
        "officeLocation": null,
        "preferredLanguage": null,
        "signInSessionsValidFromDateTime": record.valid_from.unwrap_or(record.created_at).to_string(),
        "surname": null,
        "userPrincipalName": record.login,
        "userType": "Member",
    })
}

fn alias(login: &str) -> String {
    login.split('@').next().unwrap_or_default().to_owned()
}

/// A service principal or a managed identity, with its application where it has one. Credentials of the
/// application are shown there only.
pub(crate) fn service_principal(
    record: &PrincipalRecord,
    application: Option<&ApplicationRecord>,
    tenant: &str,
) -> Value {
    let own: Vec<Credential> = record
        .credentials
        .iter()
        .filter(|one| !is_applications(application, &one.id))
        .cloned()
        .collect();
    let mut names = vec![record.login.clone()];
    names.extend(
        application
            .map(|app| app.identifier_uris.clone())
            .unwrap_or_default(),
    );
    let managed = record.kind == "ManagedIdentity";
    let alternative: Vec<String> = match &record.resource {
        Some(resource) => {
            let is_explicit = resource.to_ascii_lowercase().contains("/userassignedidentities/");
            let explicit = if is_explicit { "True" } else { "False" };
            vec![format!("isExplicit={explicit}"), resource.clone()]
        }
        None => Vec::new(),
    };
    json!({
        "id": record.object_id,
        "accountEnabled": !record.disabled,
        "alternativeNames": alternative,
        "appDescription": null,
        "appDisplayName": if managed { Value::Null } else { json!(record.display_name) },
        "appId": record.login,
        "appOwnerOrganizationId": if managed { Value::Null } else { json!(tenant) },
        "appRoleAssignmentRequired": false,
        "appRoles": [],
        "createdDateTime": record.created_at.to_string(),
        "description": null,
        "disabledByMicrosoftStatus": null,
        "displayName": record.display_name,
        "homepage": null,
        "keyCredentials": all(&own, certificate),
        "loginUrl": null,
        "logoutUrl": null,
        "notificationEmailAddresses": [],
        "oauth2PermissionScopes": [],
        "passwordCredentials": first_secret(record).into_iter().chain(all(&own, password)).collect::<Vec<_>>(),
        "replyUrls": [],
        "servicePrincipalNames": names,
        "servicePrincipalType": if managed { "ManagedIdentity" } else { "Application" },
        "signInAudience": if managed { Value::Null } else { json!("AzureADMyOrg") },
        "tags": [],
    })
}

/// Whether a credential is an application's.
pub(crate) fn is_applications(application: Option<&ApplicationRecord>, id: &str) -> bool {
    application.is_some_and(|app| app.credentials.iter().any(|one| one.id == id))
}

/// An application.
pub(crate) fn application(record: &ApplicationRecord) -> Value {
    json!({
        "id": record.object_id,
        "addIns": [],
        "api": { "acceptMappedClaims": null, "knownClientApplications": [], "oauth2PermissionScopes": [],
                 "preAuthorizedApplications": [], "requestedAccessTokenVersion": null },
        "appId": record.app_id,
        "appRoles": [],
        "createdDateTime": record.created_at.to_string(),
        "description": null,
        "displayName": record.display_name,
        "identifierUris": record.identifier_uris,
        "info": {},
        "isFallbackPublicClient": null,
        "keyCredentials": all(&record.credentials, certificate),
        "optionalClaims": null,
        "passwordCredentials": all(&record.credentials, password),
        "publicClient": { "redirectUris": record.public_redirect_uris },
        "publisherDomain": null,
        "requiredResourceAccess": [],
        "signInAudience": "AzureADMyOrg",
        "spa": { "redirectUris": [] },
        "tags": [],
        "web": { "homePageUrl": null, "logoutUrl": null, "redirectUris": record.web_redirect_uris },
    })
}

/// A group.
pub(crate) fn group(record: &PrincipalGroupRecord) -> Value {
    json!({
        "id": record.object_id,
        "createdDateTime": record.created_at.to_string(),
        "description": text(&record.description),
        "displayName": record.display_name,
        "groupTypes": [],
        "mail": null,
        "mailEnabled": false,
        "mailNickname": record.nickname,
        "securityEnabled": true,
        "visibility": null,
    })
}

/// With its type, for lists of many types.
pub(crate) fn typed(kind: &str, mut object: Value) -> Value {
    object["@odata.type"] = json!(format!("#microsoft.graph.{kind}"));
    object
}
