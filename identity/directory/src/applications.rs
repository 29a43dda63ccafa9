//! Applications: creation, changes, and deletion together with their service principals.

use control_records::{ApplicationRecord, Credential, key};
use control_store::{Txn, put_record};

use crate::{
    MOST_APPLICATIONS, Without, admin_left,
    admins::is_usable,
    credentials::check_credentials,
    find::{application, applications, find_login},
    principals::delete_principal,
    writer::{Decided, DirectoryError, Writer, changed, check_name, needed},
};

/// The most further names of an application.
const MOST_URIS: usize = 20;
const MAX_URI_CHARS: usize = 255;

/// An application to be made.
pub struct NewApplication {
    /// For people.
    pub display_name: String,
    /// Alternative names of the application.
    pub identifier_uris: Vec<String>,
    /// Redirect addresses of sign-ins for a program on a server.
    pub web_redirect_uris: Vec<String>,
    /// The same for programs on a user's own machine.
    pub public_redirect_uris: Vec<String>,
    /// Its credentials.
    pub credentials: Vec<Credential>,
}

fn check(record: &ApplicationRecord) -> Result<(), DirectoryError> {
    check_name("displayName", &record.display_name)?;
    if record.identifier_uris.len() > MOST_URIS {
        let must = format!("has to have at most {MOST_URIS} values");
        return Err(DirectoryError::invalid("identifierUris", must));
    }
    for uri in &record.identifier_uris {
        let scheme = uri.split_once("://").is_some_and(|(scheme, rest)| {
            !scheme.is_empty() && scheme.chars().all(|char| char.is_ascii_alphanumeric()) && !rest.is_empty()
        });
        if !scheme || uri.chars().count() > MAX_URI_CHARS || uri.chars().any(|c| c.is_control() || c == ' ') {
            let must = format!("has to have URIs of at most {MAX_URI_CHARS} characters, e.g. 'api://shop'");
            return Err(DirectoryError::invalid("identifierUris", must));
        }
    }
    for (field, all) in [
        ("web.redirectUris", &record.web_redirect_uris),
        ("publicClient.redirectUris", &record.public_redirect_uris),
    ] {
        if all.len() > MOST_URIS || !all.iter().all(|uri| is_redirect_uri(uri)) {
            let must = format!(
                "has to have at most {MOST_URIS} URIs of at most {MAX_URI_CHARS} characters, without '#', of https, of a scheme of the \
                 program's own, or of http at this machine, e.g. 'http://localhost:8400'"
            );
            return Err(DirectoryError::invalid(field, must));
        }
    }
    check_credentials(&record.credentials)
}

/// Whether a sign-in may be redirected there: not where others could read the response on its way.
fn is_redirect_uri(uri: &str) -> bool {
    let plain = uri
        .chars()
        .all(|char| char.is_ascii_graphic() && !matches!(char, '#' | '"' | '<' | '>' | '\\' | '*'));
    let Some((scheme, rest)) = uri.split_once("://") else {
        return false;
    };
    let host = rest.split(['/', ':', '?']).next().unwrap_or_default();
    let own = |char: char| char.is_ascii_alphanumeric() || matches!(char, '.' | '-' | '+');
    let allowed = match scheme.to_ascii_lowercase().as_str() {
        "https" => !host.is_empty(),
        "http" => matches!(host, "localhost" | "127.0.0.1" | "[::1]") || rest.starts_with("[::1]"),
        "javascript" | "data" | "file" | "vbscript" | "blob" | "about" | "" => false,
        other => other.chars().all(own) && other.starts_with(|char: char| char.is_ascii_alphabetic()),
    };
    plain && allowed && !rest.contains('@') && uri.len() <= MAX_URI_CHARS
}

/// No other application may have the same identifiers.
async fn are_free(writer: &Writer<'_>, record: &ApplicationRecord) -> Result<usize, DirectoryError> {
    let all = applications(writer.store).await?;
    for other in all.iter().filter(|other| other.object_id != record.object_id) {
        let taken = record.identifier_uris.iter().find(|uri| {
            other
                .identifier_uris
                .iter()
                .any(|own| own.eq_ignore_ascii_case(uri))
        });
        if let Some(uri) = taken {
            return Err(DirectoryError::Taken {
                what: "application",
                field: "identifierUris",
                value: uri.clone(),
            });
        }
    }
    Ok(all.len())
}

/// Makes an application. It cannot log in until it has a service principal.
///
/// # Errors
/// When a field is invalid, or there are too many applications.
pub async fn create_application(
    writer: &Writer<'_>,
    new: NewApplication,
) -> Result<ApplicationRecord, DirectoryError> {
    let record = ApplicationRecord {
        v: 1,
        object_id: writer.id(),
        app_id: writer.id(),
        display_name: new.display_name,
        identifier_uris: new.identifier_uris,
        web_redirect_uris: new.web_redirect_uris,
        public_redirect_uris: new.public_redirect_uris,
        credentials: new.credentials,
        created_at: writer.env.clock.now(),
    };
    check(&record)?;
    let made = writer.decide(record, |writer, record| {
        Box::pin(async move {
            if are_free(writer, record).await? >= MOST_APPLICATIONS {
                return Err(DirectoryError::Full {
                    what: "applications",
                    most: MOST_APPLICATIONS,
                });
            }
            let own = key::application(&record.object_id);
            let txn = Txn::default().absent(&own).with(put_record(own, record));
            Ok(Decided::Write(txn, record.clone()))
        })
    });
    made.await
}

/// Changes an application, and the credentials and name of its service principal. `change` may be called
/// again where the record changed meanwhile; the ids stay.
///
/// # Errors
/// When it does not exist, a field is invalid, or no administrator would be left.
pub async fn update_application(
    writer: &Writer<'_>,
    id: &str,
    change: impl FnMut(&mut ApplicationRecord) -> Result<(), DirectoryError> + Send,
) -> Result<ApplicationRecord, DirectoryError> {
    let changed = writer.decide((id, change), |writer, (id, change)| {
        Box::pin(async move {
            let found = needed(application(writer.store, id).await?, "application", id)?;
            let before = found.value;
            let Some(record) = changed(&before, change)? else {
                return Ok(Decided::Unchanged(before));
            };
            check(&record)?;
            are_free(writer, &record).await?;
            let own = key::application(&before.object_id);
            let mut txn = Txn::default();
            if let Some(below) = find_login(writer.store, &before.app_id).await? {
                let mut principal = below.value.clone();
                let of_application = |id: &str| before.credentials.iter().any(|one| one.id == id);
                principal.credentials.retain(|one| !of_application(&one.id));
                principal.credentials.extend(record.credentials.iter().cloned());
                principal.display_name.clone_from(&record.display_name);
                principal.redirect_uris = record.redirect_uris();
                if is_usable(&below.value) && !is_usable(&principal) {
                    let left = admin_left(writer.store, Without::Principal(&principal.object_id)).await?;
                    txn = left.ok_or(DirectoryError::LastAdmin)?;
                }
                let key = key::principal(&principal.object_id);
                txn = txn.at(&key, below.revision).with(put_record(key, &principal));
            }
            let txn = txn.at(&own, found.revision).with(put_record(own, &record));
            Ok(Decided::Write(txn, record))
        })
    });
    changed.await
}

/// Removes an application, its service principal first.
///
/// # Errors
/// When it does not exist, or no administrator would be left.
pub async fn delete_application(writer: &Writer<'_>, id: &str) -> Result<(), DirectoryError> {
    let removed = writer.decide(id, |writer, id| {
        Box::pin(async move {
            let found = needed(application(writer.store, id).await?, "application", id)?;
            if let Some(below) = find_login(writer.store, &found.value.app_id).await? {
                delete_principal(writer, &below.value.object_id).await?;
            }
            // A service principal that is made meanwhile changes the record, and this starts again.
            let own = key::application(&found.value.object_id);
            let txn = Txn::default().at(&own, found.revision).delete(own);
            Ok(Decided::Write(txn, ()))
        })
    });
    removed.await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sign_in_ends_where_nobody_else_reads_it() {
        for right in [
            "https://shop.example/back",
            "http://localhost:8400",
            "http://[::1]:1/x",
            "com.example.app://back",
        ] {
            assert!(is_redirect_uri(right), "{right}");
        }
        for wrong in [
            "",
            "https://",
            "http://shop.example",
            "javascript://x",
            "https://a#b",
            "https://a@b",
            "x",
            "https://a b",
            "https://*.example",
            "http://localhost.evil.example",
        ] {
            assert!(!is_redirect_uri(wrong), "{wrong}");
        }
    }
}
