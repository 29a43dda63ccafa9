//! `Landfall.ContainerService/maintenance`: whether planned work is held up in the whole stamp.
//!
//! | | |
//! |---|---|
//! | GET `/providers/Landfall.ContainerService/maintenance/stamp` | since when and why it is, if it is |
//! | POST `…/maintenance/stamp/pause` | it is held up from now on; `reason` in the body, for people |
//! | POST `…/maintenance/stamp/resume` | it goes on |
//!
//! What an operator has said is no tenant's to take back, so this hangs on the stamp: a role at `/` is needed.

use arm_kernel::{Call, Mode, Operation, ResourceType, Scope, Verb, quote, store_error};
use arm_wire::{ArmError, ErrorCode, Response};
use control_records::planned::{HOLD, HoldRecord, Paused};
use control_store::{StoreError, Txn, get_record, put_record};
use serde_json::{Value, json};

use super::api::{HISTORY_API_VERSIONS, HistoryApi};

type Row = Operation<HistoryApi>;

/// The only one that there is.
const NAME: &str = "stamp";
/// Longer reasons are refused: a record is no log.
const MOST_CHARS: usize = 200;

/// The type.
pub(super) const MAINTENANCE: ResourceType<HistoryApi> = ResourceType {
    path: "maintenance",
    versions: HISTORY_API_VERSIONS,
    schema: None,
    members: None,
    operations: &[
        Row::read(Verb::Get, "Maintenance_Get", |api, call| {
            Box::pin(api.maintenance(call))
        })
        .at(Scope::Tenant),
        Row::write(
            Verb::Action("pause"),
            "Maintenance_Pause",
            |api, call| Box::pin(api.hold(call, true, Mode::Commit)),
            |api, call| Box::pin(api.hold(call, true, Mode::Preview)),
        )
        .at(Scope::Tenant),
        Row::write(
            Verb::Action("resume"),
            "Maintenance_Resume",
            |api, call| Box::pin(api.hold(call, false, Mode::Commit)),
            |api, call| Box::pin(api.hold(call, false, Mode::Preview)),
        )
        .at(Scope::Tenant),
    ],
};

fn answer(record: &HoldRecord) -> Value {
    let mut told = json!({ "name": NAME, "paused": record.paused.is_some() });
    if let Some(paused) = &record.paused {
        told["since"] = json!(paused.at.to_string());
        told["by"] = json!(paused.by);
        told["reason"] = json!(paused.reason);
    }
    told
}

fn check_name(call: &Call) -> Result<(), ArmError> {
    let name = call.request.path.name(0).unwrap_or_default();
    if name.eq_ignore_ascii_case(NAME) {
        return Ok(());
    }
    let message = format!("There is no maintenance {}; use '{NAME}'.", quote(name));
    Err(ArmError::new(ErrorCode::RESOURCE_NOT_FOUND, message))
}

/// The reason that a body gives; empty without one.
fn reason(body: &Value) -> Result<String, ArmError> {
    let reason: &str = match body.get("reason") {
        None | Some(Value::Null) => "",
        Some(Value::String(reason)) if reason.chars().count() <= MOST_CHARS => reason,
        Some(_) => {
            let message = format!("'reason' must be a text of at most {MOST_CHARS} characters.");
            return Err(ArmError::new(ErrorCode::INVALID_PARAMETER, message).target("reason"));
        }
    };
    Ok(reason.to_owned())
}

impl HistoryApi {
    async fn maintenance(&self, call: &Call) -> Result<Response, ArmError> {
        check_name(call)?;
        let found = get_record::<HoldRecord>(&*self.store, HOLD).await;
        let found = found.map_err(store_error)?;
        let record = found.map(|found| found.value).unwrap_or_default();
        Ok(Response::ok(answer(&record)))
    }

    /// Writes down whether planned work is held up. What is said twice is said once: nothing is written then.
    async fn hold(&self, call: &Call, pause: bool, mode: Mode) -> Result<Response, ArmError> {
        check_name(call)?;
        let reason = reason(&call.request.body)?;
        loop {
            let found = get_record::<HoldRecord>(&*self.store, HOLD).await;
            let found = found.map_err(store_error)?;
            let before = found
                .as_ref()
                .map(|found| found.value.clone())
                .unwrap_or_default();
            let record = HoldRecord {
                v: 1,
                paused: match before.paused.clone().filter(|_| pause) {
                    Some(paused) if paused.reason == reason => Some(paused),
                    _ => pause.then(|| Paused {
                        at: self.env.clock.now(),
                        by: call.request.principal.name.clone(),
                        reason: reason.clone(),
                    }),
                },
            };
            let told = answer(&record);
            if record.paused == before.paused || mode == Mode::Preview {
                return Ok(Response::ok(told));
            }
            let txn = match &found {
                Some(found) => Txn::default().at(HOLD, found.revision),
                None => Txn::default().absent(HOLD),
            };
            match self.store.txn(txn.with(put_record(HOLD, &record))).await {
                Ok(_) => return Ok(Response::ok(told)),
                Err(StoreError::Conflict { .. }) => {}
                Err(error) => return Err(store_error(error)),
            }
        }
    }
}
