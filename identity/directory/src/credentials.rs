//! Credentials of principals: the rules that hold for all kinds. Pure.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use control_records::{Credential, Proof};

use crate::writer::DirectoryError;

/// Credentials of a principal or application.
pub const MOST_CREDENTIALS: usize = 50;
/// The most federated credentials.
const MOST_FEDERATED: usize = 20;
const MOST_AUDIENCES: usize = 5;
const MAX_TEXT: usize = 600;
const MAX_CERTIFICATE: usize = 16 * 1024;

/// The form of an issuer, for messages.
pub const ISSUER_IS: &str = "an https address of at most 600 bytes, without query, fragment and user, e.g. 'https://token.example.org'";

/// Whether the keys of an issuer can be fetched from its address. Required of a new credential; an older one
/// that does not fulfil it is kept, but never accepted.
pub fn is_issuer(issuer: &str) -> bool {
    let Some(rest) = issuer.strip_prefix("https://") else {
        return false;
    };
    let plain =
        |char: char| !char.is_control() && !char.is_whitespace() && !matches!(char, '?' | '#' | '@' | '\\');
    let host = rest.split(['/', ':']).next().unwrap_or_default();
    let has_host = !host.is_empty();
    has_host && issuer.len() <= MAX_TEXT && rest.chars().all(plain)
}

fn text(field: &'static str, text: &str) -> Result<(), DirectoryError> {
    if (1..=MAX_TEXT).contains(&text.len()) && !text.chars().any(char::is_control) {
        return Ok(());
    }
    let must = format!("has to have 1 to {MAX_TEXT} bytes, without control characters");
    Err(DirectoryError::invalid(field, must))
}

/// Checks all credentials of a principal or an application.
///
/// # Errors
/// When there are too many, two have the same id or match the same token, or one is invalid.
pub fn check_credentials(all: &[Credential]) -> Result<(), DirectoryError> {
    if all.len() > MOST_CREDENTIALS {
        return Err(DirectoryError::Full {
            what: "credentials",
            most: MOST_CREDENTIALS,
        });
    }
    let mut federated: Vec<(&str, &str, &str)> = Vec::new();
    for (at, one) in all.iter().enumerate() {
        if all[..at]
            .iter()
            .any(|other| other.id.eq_ignore_ascii_case(&one.id))
        {
            return Err(DirectoryError::Taken {
                what: "credential",
                field: "keyId",
                value: one.id.clone(),
            });
        }
        if one.display_name.chars().count() > crate::MAX_NAME_CHARS {
            let must = format!("has to have at most {} characters", crate::MAX_NAME_CHARS);
            return Err(DirectoryError::invalid("displayName", must));
        }
        match &one.proof {
            Proof::Secret { .. } => {}
            Proof::Certificate { der } => {
                if der.len() > MAX_CERTIFICATE || STANDARD.decode(der).is_err() {
                    let must = "has to be a certificate, DER in base64";
                    return Err(DirectoryError::invalid("key", must));
                }
            }
            Proof::Federated {
                name,
                issuer,
                subject,
                audiences,
            } => {
                text("issuer", issuer)?;
                text("subject", subject)?;
                let plain = name
                    .chars()
                    .all(|char| char.is_ascii_alphanumeric() || matches!(char, '-' | '_'));
                if !(1..=120).contains(&name.len()) || !plain {
                    let must = "has to have 1 to 120 letters, digits, '-' and '_'";
                    return Err(DirectoryError::invalid("name", must));
                }
                if audiences.is_empty() || audiences.len() > MOST_AUDIENCES {
                    let must = format!("has to have 1 to {MOST_AUDIENCES} values");
                    return Err(DirectoryError::invalid("audiences", must));
                }
                audiences.iter().try_for_each(|one| text("audiences", one))?;
                if federated
                    .iter()
                    .any(|(other, ..)| other.eq_ignore_ascii_case(name))
                {
                    return Err(DirectoryError::Taken {
                        what: "federated credential",
                        field: "name",
                        value: name.clone(),
                    });
                }
                if federated
                    .iter()
                    .any(|(_, iss, sub)| iss == issuer && sub == subject)
                {
                    return Err(DirectoryError::Taken {
                        what: "federated credential",
                        field: "issuer and subject",
                        value: format!("{issuer}, {subject}"),
                    });
                }
                federated.push((name, issuer, subject));
            }
        }
    }
    if federated.len() > MOST_FEDERATED {
        return Err(DirectoryError::Full {
            what: "federated credentials",
            most: MOST_FEDERATED,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issuer_is_what_can_be_asked_over_https() {
        for right in [
            "https://token.example.org",
            "https://token.example.org:8443/oidc/abc/",
            "https://[2001:db8::1]/x",
        ] {
            assert!(is_issuer(right), "{right}");
        }
        for wrong in [
            "",
            "token.example.org",
            "http://token.example.org",
            "http://localhost:8080",
            "HTTPS://token.example.org",
            "https://",
            "https:///x",
            "https://:8443",
            "https://user@token.example.org",
            "https://token.example.org?x=1",
            "https://token.example.org#x",
            "https://token.example.org\\x",
            "https://token.example.org /x",
            &format!("https://{}", "x".repeat(600)),
        ] {
            assert!(!is_issuer(wrong), "{wrong}");
        }
    }

    #[test]
    fn a_credential_of_before_stays_beside_new_ones() {
        let old = Credential {
            id: "1".to_owned(),
            display_name: String::new(),
            created_at: jiff::Timestamp::UNIX_EPOCH,
            expires_at: None,
            proof: Proof::Federated {
                name: "ci".to_owned(),
                issuer: "http://token.example.org".to_owned(),
                subject: "s".to_owned(),
                audiences: vec!["a".to_owned()],
            },
        };
        assert!(check_credentials(&[old]).is_ok());
    }
}
