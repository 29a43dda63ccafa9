//! `systemData`: the principals and times of a resource's creation and last change.

use arm_wire::Principal;
use control_records::SystemData;
use jiff::Timestamp;
use serde_json::{Value, json};

/// After a change of `present`, or after the making of a resource.
pub fn touched(present: Option<&SystemData>, principal: &Principal, now: Timestamp) -> SystemData {
    let (who, kind) = (principal.name.clone(), principal.kind.as_str().to_owned());
    SystemData {
        created_at: present.map_or(now, |present| present.created_at),
        created_by: present.map_or_else(|| who.clone(), |present| present.created_by.clone()),
        created_by_type: present.map_or_else(|| kind.clone(), |present| present.created_by_type.clone()),
        modified_at: now,
        modified_by: who,
        modified_by_type: kind,
    }
}

/// The form in responses.
pub fn document(data: &SystemData) -> Value {
    json!({
        "createdAt": data.created_at.to_string(),
        "createdBy": data.created_by,
        "createdByType": data.created_by_type,
        "lastModifiedAt": data.modified_at.to_string(),
        "lastModifiedBy": data.modified_by,
        "lastModifiedByType": data.modified_by_type,
    })
}
