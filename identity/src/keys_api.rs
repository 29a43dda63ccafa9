//! `Landfall.Identity`: the keys that sign tokens and those that seal secrets, for administrators of the
//! stamp. The latter are in [`crate::sealing_api`].
//!
//! | | |
//! |---|---|
//! | GET `/providers/Landfall.Identity/signingKeys` | the previous, current and next keys |
//! | POST `…/signingKeys/default/rotate` | the next key signs as soon as all clients can have fetched it |
//! | POST `…/signingKeys/default/revoke` | for a stolen key: all keys end now, and with them every token; clients log in again |

use std::sync::Arc;

use arm_kernel::{Call, Items, Namespace, Operation, ResourceType, Scope, Verb};
use arm_wire::{ArmError, ErrorCode, Response};
use control_sealing::Sealing;
use serde_json::{Value, json};

use crate::{Listed, Rotated, TokenService, Wish, sealing_api::SEALING_KEYS};

/// The namespace.
pub const IDENTITY_NAMESPACE: &str = "Landfall.Identity";
/// Its api-versions.
pub const IDENTITY_API_VERSIONS: &[&str] = &["2026-11-01"];

/// The provider.
pub struct IdentityApi {
    tokens: Arc<TokenService>,
    pub(crate) sealing: Arc<Sealing>,
}

impl IdentityApi {
    /// A provider over the token service and the keys that seal.
    pub fn new(tokens: Arc<TokenService>, sealing: Arc<Sealing>) -> Self {
        Self { tokens, sealing }
    }

    async fn change(&self, call: &Call, wish: Wish, is_preview: bool) -> Result<Response, ArmError> {
        // There is only one set of keys.
        let name = call.request.path.name(0).unwrap_or_default();
        if !name.eq_ignore_ascii_case("default") {
            return Err(ArmError::new(
                ErrorCode::RESOURCE_NOT_FOUND,
                "The keys that sign tokens are called 'default'.",
            ));
        }
        if is_preview {
            return Ok(Response::ok(json!({})));
        }
        let rotated = self.tokens.rotate_keys(wish).await.map_err(ArmError::internal)?;
        Ok(Response::ok(answer(&rotated)))
    }
}

fn answer(rotated: &Rotated) -> Value {
    let next = rotated.next.as_ref();
    json!({
        "signs": rotated.signs,
        "next": next.map(|(id, _)| id),
        "nextSignsFrom": next.and_then(|(_, from)| from.map(|from| from.to_string())),
    })
}

fn item(key: &Listed) -> Value {
    json!({
        "id": format!("/providers/{IDENTITY_NAMESPACE}/signingKeys/{}", key.id),
        "name": key.id,
        "type": format!("{IDENTITY_NAMESPACE}/signingKeys"),
        "properties": {
            "state": key.state,
            "publishedAt": key.published_at.map(|at| at.to_string()),
            "signsFrom": key.signs_from.map(|at| at.to_string()),
            "endsAt": key.ends_at.map(|at| at.to_string()),
        },
    })
}

type Row = Operation<IdentityApi>;

const KEYS: ResourceType<IdentityApi> = ResourceType {
    path: "signingKeys",
    versions: IDENTITY_API_VERSIONS,
    schema: None,
    members: None,
    operations: &[
        Row::items("SigningKeys_List", |api, _| {
            Box::pin(async {
                let keys = api.tokens.keys().iter().map(item).collect();
                Ok(Items::ById(keys))
            })
        })
        .at(Scope::Tenant),
        Row::write(
            Verb::Action("rotate"),
            "SigningKeys_Rotate",
            |api, call| Box::pin(api.change(call, Wish::Rotate, false)),
            |api, call| Box::pin(api.change(call, Wish::Rotate, true)),
        )
        .at(Scope::Tenant),
        Row::write(
            Verb::Action("revoke"),
            "SigningKeys_Revoke",
            |api, call| Box::pin(api.change(call, Wish::Revoke, false)),
            |api, call| Box::pin(api.change(call, Wish::Revoke, true)),
        )
        .at(Scope::Tenant),
    ],
};

impl Namespace for IdentityApi {
    const NAME: &'static str = IDENTITY_NAMESPACE;
    const TYPES: &'static [&'static ResourceType<Self>] = &[&KEYS, &SEALING_KEYS];
}
