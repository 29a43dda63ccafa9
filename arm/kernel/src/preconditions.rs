//! eTags, and the `If-Match` and `If-None-Match` rules. Pure.

use arm_wire::{ArmError, ErrorCode};
use base_env::Seed;
use jiff::Timestamp;

use crate::request::RequestInfo;

/// The eTag of a resource, or of a part of one, whose last change was `generation`, at this time; it has the
/// form of a GUID, as clients expect. After a restore of the store from a copy, generations are used a second
/// time; the time keeps the eTags of the two changes apart, so that a client with the eTag of a lost change
/// is refused.
pub fn etag(uid: &str, part: &str, generation: u64, at: Timestamp) -> String {
    let at = u64::from_ne_bytes(at.as_millisecond().to_ne_bytes());
    let seed = Seed::new(generation ^ at.rotate_left(32)).child(uid).child(part);
    let bits = (u128::from(seed.draw(0)) << 64) | u128::from(seed.draw(1));
    let hex = format!("{bits:032x}");
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}

/// Checks a PUT against the present resource.
pub(crate) fn check_put(info: &RequestInfo<'_>, present: Option<&str>) -> Result<(), ArmError> {
    let wanted = info.if_match.filter(|tag| !tag.is_empty());
    let unwanted = info.if_none_match.filter(|tag| !tag.is_empty());
    match (wanted, unwanted, present) {
        (Some(_), Some(_), _) => Err(ArmError::new(
            ErrorCode::BAD_REQUEST,
            "If-Match and If-None-Match cannot both be given.",
        )),
        (None, Some(tag), _) if tag != "*" => Err(ArmError::new(
            ErrorCode::BAD_REQUEST,
            "If-None-Match can only be '*' or empty.",
        )),
        (None, Some(_), Some(_)) => Err(failed("the resource exists, and If-None-Match is '*'")),
        (Some(_), None, None) => Err(failed("the resource does not exist, and If-Match is given")),
        (Some(tag), None, Some(present)) => check_match(tag, present),
        _ => Ok(()),
    }
}

/// Checks a PATCH or DELETE of an existing resource.
pub(crate) fn check_change(info: &RequestInfo<'_>, present: &str) -> Result<(), ArmError> {
    match info.if_match.filter(|tag| !tag.is_empty()) {
        Some(tag) => check_match(tag, present),
        None => Ok(()),
    }
}

fn check_match(tag: &str, present: &str) -> Result<(), ArmError> {
    if tag == "*" || tag == present {
        Ok(())
    } else {
        Err(failed("the resource has changed since the eTag of If-Match"))
    }
}

fn failed(why: &str) -> ArmError {
    ArmError::new(
        ErrorCode::PRECONDITION_FAILED,
        format!("The precondition does not hold: {why}. Read the resource again and repeat."),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_etag_changes_with_each_of_its_parts() {
        let at = |millis| Timestamp::from_millisecond(millis).expect("a time");
        let tags = [
            etag("a", "", 1, at(1_795_917_000_000)),
            etag("a", "", 2, at(1_795_917_000_000)),
            etag("b", "", 1, at(1_795_917_000_000)),
            etag("a", "p", 1, at(1_795_917_000_000)),
            etag("a", "", 1, at(1_795_917_000_001)),
        ];
        for (index, tag) in tags.iter().enumerate() {
            assert_eq!(tag.len(), 36);
            assert!(!tags[..index].contains(tag));
        }
        assert_eq!(etag("a", "", 1, at(1_795_917_000_000)), tags[0]);
    }
}
