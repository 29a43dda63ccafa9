//! What principals prove themselves with: the rules that hold for all of them. Pure.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use control_records::{Credential, Proof};

use crate::writer::DirectoryError;

/// Credentials of a principal or application.
pub const MOST_CREDENTIALS: usize = 50;
/// Federated ones among them.
const MOST_FEDERATED: usize = 20;
const MOST_AUDIENCES: usize = 5;
const MAX_TEXT: usize = 600;
const MAX_CERTIFICATE: usize = 16 * 1024;

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
/// When there are too many, two have the same id or stand for the same token, or one is not of its form.
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
