//! `Landfall.Identity/sealingKeys`: the keys that seal the stamp's secrets. No secret is in any answer.
//!
//! | | |
//! |---|---|
//! | GET `/providers/Landfall.Identity/sealingKeys` | those that there are, oldest first, with what is sealed with each |
//! | POST `…/sealingKeys/default/rotate` | another one seals; what was sealed before is sealed anew, which the list tells of. Asked for meanwhile, it goes on |
//! | POST `…/sealingKeys/{id}/drop` | one that copies of the store may need goes before its time |

use arm_kernel::{Call, Items, Operation, ResourceType, Scope, Verb};
use arm_wire::{ArmError, ErrorCode, Response};
use control_sealing::{KeyStatus, Look, SealingError};
use serde_json::{Value, json};

use crate::{IDENTITY_API_VERSIONS, IDENTITY_NAMESPACE, IdentityApi};

impl IdentityApi {
    fn sealing_keys(&self) -> Vec<Value> {
        let last = self.sealing.last();
        let keys = self.sealing.list();
        keys.iter().map(|key| item(key, last.as_ref())).collect()
    }

    async fn rotate_sealing(&self, call: &Call, is_preview: bool) -> Result<Response, ArmError> {
        // There is one set of keys.
        let name = call.request.path.name(0).unwrap_or_default();
        if !name.eq_ignore_ascii_case("default") {
            return Err(ArmError::new(
                ErrorCode::RESOURCE_NOT_FOUND,
                "The keys that seal secrets are called 'default'.",
            ));
        }
        if is_preview {
            return Ok(Response::ok(json!({})));
        }
        self.sealing.rotate().await.map_err(refused)?;
        Ok(Response::ok(json!({ "value": self.sealing_keys() })))
    }

    async fn drop_sealing(&self, call: &Call, is_preview: bool) -> Result<Response, ArmError> {
        let id = call.request.path.name(0).unwrap_or_default().to_ascii_lowercase();
        if is_preview {
            return Ok(Response::ok(json!({})));
        }
        self.sealing.drop_key(&id).await.map_err(refused)?;
        Ok(Response::ok(json!({ "value": self.sealing_keys() })))
    }
}

fn refused(error: SealingError) -> ArmError {
    match error {
        SealingError::NoSuchKey(_) => ArmError::new(ErrorCode::RESOURCE_NOT_FOUND, error.to_string()),
        SealingError::Refused(_) => ArmError::new(ErrorCode::CONFLICT, error.to_string()),
        SealingError::Store(_) | SealingError::Seal(_) | SealingError::Busy(_) => ArmError::internal(error),
    }
}

fn item(status: &KeyStatus, last: Option<&Look>) -> Value {
    let key = &status.key;
    let state = match key.unused_since {
        _ if key.seals => "seals",
        None => "retiring",
        Some(_) => "kept",
    };
    json!({
        "id": format!("/providers/{IDENTITY_NAMESPACE}/sealingKeys/{}", key.id),
        "name": key.id,
        "type": format!("{IDENTITY_NAMESPACE}/sealingKeys"),
        "properties": {
            "state": state,
            "madeAt": key.made_at.map(|at| at.to_string()),
            "unusedSince": key.unused_since.map(|at| at.to_string()),
            "sealed": status.sealed,
            "lookedAt": last.map(|look| look.at.to_string()),
            "oldestCopy": last.and_then(|look| look.oldest_copy.map(|at| at.to_string())),
            "problem": last.and_then(|look| look.problem.clone()),
        },
    })
}

type Row = Operation<IdentityApi>;

pub(crate) const SEALING_KEYS: ResourceType<IdentityApi> = ResourceType {
    path: "sealingKeys",
    versions: IDENTITY_API_VERSIONS,
    schema: None,
    members: None,
    operations: &[
        Row::items("SealingKeys_List", |api, _| {
            Box::pin(async { Ok(Items::ById(api.sealing_keys())) })
        })
        .at(Scope::Tenant),
        Row::write(
            Verb::Action("rotate"),
            "SealingKeys_Rotate",
            |api, call| Box::pin(api.rotate_sealing(call, false)),
            |api, call| Box::pin(api.rotate_sealing(call, true)),
        )
        .at(Scope::Tenant),
        Row::write(
            Verb::Action("drop"),
            "SealingKeys_Drop",
            |api, call| Box::pin(api.drop_sealing(call, false)),
            |api, call| Box::pin(api.drop_sealing(call, true)),
        )
        .at(Scope::Tenant),
    ],
};
