//! `userAssignedIdentities/federatedIdentityCredentials`: tokens of other issuers that an identity may log in with.

use arm_ids::ResourcePath;
use arm_kernel::{
    Context, Decision, Mutation, Operation, Presence, Purpose, RequestInfo, Resource, ResourceType, etag,
    quote, store_error,
};
use arm_wire::{ArmError, ErrorCode};
use async_trait::async_trait;
use control_records::{Credential, ManagedIdentityRecord, PrincipalRecord, Proof, key};
use control_store::{Stored, Txn, put_record};
use identity_directory::{self as directory, DirectoryError};
use serde_json::{Value, json};

use crate::{
    API_VERSIONS, ManagedIdentity, ManagedIdentityConfig, NAMESPACE, body,
    identities::{Place, id},
};

type Row = Operation<ManagedIdentity>;

pub(crate) const TYPE: ResourceType<ManagedIdentity> = ResourceType {
    path: "userAssignedIdentities/federatedIdentityCredentials",
    versions: API_VERSIONS,
    schema: None,
    // They are deleted with their identity.
    members: None,
    operations: &[
        Row::get::<Federated>("FederatedIdentityCredentials_Get"),
        Row::put::<Federated>("FederatedIdentityCredentials_CreateOrUpdate"),
        Row::delete::<Federated>("FederatedIdentityCredentials_Delete"),
        Row::list::<Federated>("FederatedIdentityCredentials_List"),
    ],
};

/// Federated credentials as the kernel sees them.
pub(crate) enum Federated {}

/// The identity's principal, which has the credential.
pub(crate) struct State {
    identity: ManagedIdentityRecord,
    principal: Stored<PrincipalRecord>,
}

/// The change to be written.
pub(crate) struct Change {
    principal: PrincipalRecord,
    /// The credential, after the change.
    shown: Option<Credential>,
}

/// There are no other actions.
pub(crate) enum Action {}

fn find<'a>(principal: &'a PrincipalRecord, wanted: &str) -> Option<&'a Credential> {
    principal
        .credentials
        .iter()
        .find(|one| matches!(&one.proof, Proof::Federated { name, .. } if name.eq_ignore_ascii_case(wanted)))
}

fn answer(identity: &ManagedIdentityRecord, one: &Credential) -> Value {
    let Proof::Federated {
        name,
        issuer,
        subject,
        audiences,
    } = &one.proof
    else {
        return Value::Null;
    };
    json!({
        "id": format!("{}/federatedIdentityCredentials/{name}", id(identity)),
        "name": name,
        "type": format!("{NAMESPACE}/userAssignedIdentities/federatedIdentityCredentials"),
        "properties": { "issuer": issuer, "subject": subject, "audiences": audiences },
    })
}

impl State {
    async fn read(provider: &ManagedIdentity, path: &ResourcePath) -> Result<Self, ArmError> {
        let place = Place::of(path)?;
        let store = &*provider.store;
        let identity = place.read(store).await?.ok_or_else(|| place.missing())?.value;
        let principal = directory::principal(store, &identity.principal_id)
            .await
            .map_err(store_error)?
            .ok_or_else(|| place.missing())?;
        Ok(Self { identity, principal })
    }
}

#[async_trait]
impl Resource for Federated {
    type Provider = ManagedIdentity;
    type State = State;
    type Change = Change;
    type Action = Action;

    async fn read(provider: &ManagedIdentity, path: &ResourcePath, _: Purpose) -> Result<State, ArmError> {
        State::read(provider, path).await
    }

    fn presence(state: &State, path: &ResourcePath) -> Presence {
        match find(&state.principal.value, path.name(1).unwrap_or_default()) {
            Some(one) => {
                let revision = state.principal.revision.0;
                Presence::Present(etag(&one.id, "", revision, one.created_at))
            }
            None => Presence::Absent,
        }
    }

    fn missing(_: &State, path: &ResourcePath) -> ArmError {
        let message = format!(
            "The federated identity credential {} was not found.",
            quote(path.name(1).unwrap_or_default())
        );
        ArmError::new(ErrorCode::RESOURCE_NOT_FOUND, message)
    }

    async fn list(provider: &ManagedIdentity, path: &ResourcePath, _: &str) -> Result<Vec<Value>, ArmError> {
        let state = State::read(provider, path).await?;
        let all = state.principal.value.credentials.iter();
        let federated = all.filter(|one| matches!(one.proof, Proof::Federated { .. }));
        Ok(federated.map(|one| answer(&state.identity, one)).collect())
    }

    fn decide(
        context: &Context<'_, ManagedIdentityConfig>,
        state: &State,
        mutation: Mutation<'_, Action>,
    ) -> Result<Decision<Change>, ArmError> {
        let asked = context.info.path.name(1).unwrap_or_default();
        let mut principal = state.principal.value.clone();
        let present = find(&state.principal.value, asked).cloned();
        let body = match mutation {
            Mutation::Put(body) => body,
            Mutation::Delete => {
                let Some(present) = present else {
                    return Ok(Decision::Unchanged);
                };
                principal.credentials.retain(|one| one.id != present.id);
                return Ok(Decision::Write(Change {
                    principal,
                    shown: None,
                }));
            }
            Mutation::Act(action) => match *action {},
        };
        body::name(asked, SHORTEST_NAME)?;
        let wish = body::federated(body)?;
        let made = Credential {
            id: present
                .as_ref()
                .map_or_else(|| context.ids.uuid().to_string(), |present| present.id.clone()),
            display_name: String::new(),
            created_at: present.as_ref().map_or(context.now, |present| present.created_at),
            expires_at: None,
            proof: Proof::Federated {
                name: asked.to_owned(),
                issuer: wish.issuer,
                subject: wish.subject,
                audiences: wish.audiences,
            },
        };
        if present.as_ref() == Some(&made) {
            return Ok(Decision::Unchanged);
        }
        principal.credentials.retain(|one| one.id != made.id);
        principal.credentials.push(made.clone());
        directory::check_credentials(&principal.credentials).map_err(refused)?;
        Ok(Decision::Write(Change {
            principal,
            shown: Some(made),
        }))
    }

    async fn transaction(
        _: &ManagedIdentity,
        _: &RequestInfo<'_>,
        state: &State,
        change: &Change,
    ) -> Result<Txn, ArmError> {
        let own = key::principal(&change.principal.object_id);
        Ok(Txn::default()
            .at(&own, state.principal.revision)
            .with(put_record(own, &change.principal)))
    }

    fn render(state: &State, change: Option<&Change>, path: &ResourcePath, _: &str) -> Value {
        let present = find(&state.principal.value, path.name(1).unwrap_or_default());
        let shown = change.and_then(|change| change.shown.as_ref()).or(present);
        shown.map_or(Value::Null, |one| answer(&state.identity, one))
    }

    fn operation(_: &Change) -> Option<&str> {
        None
    }
}

/// The shortest name.
const SHORTEST_NAME: usize = 3;

/// The error for a credential that an identity cannot have.
fn refused(error: DirectoryError) -> ArmError {
    let message = format!("{error}.");
    match error {
        DirectoryError::Taken { .. } => ArmError::new(ErrorCode::CONFLICT, message).target("properties"),
        DirectoryError::Full { .. } => ArmError::new(ErrorCode::QUOTA_EXCEEDED, message),
        DirectoryError::Invalid { field, .. } => {
            ArmError::new(ErrorCode::INVALID_PARAMETER, message).target(format!("properties.{field}"))
        }
        other => ArmError::internal(other),
    }
}
