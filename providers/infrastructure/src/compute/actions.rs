//! Requests to restart, reimage, replace, stop or start instances. The planner carries them out, as a change
//! of the pool.

use arm_ids::ResourcePath;
use arm_kernel::{Call, Mode, quote};
use arm_wire::{ArmError, ErrorCode, Response};
use async_trait::async_trait;
use control_records::{NodeOrder, RepairStep};
use serde_json::Value;

use super::Compute;

/// A request for machines of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// The pool's ARM path.
    pub pool: ResourcePath,
    /// The numbers of its nodes; `None`: all.
    pub nodes: Option<Vec<u32>>,
    /// The order.
    pub order: NodeOrder,
    /// Its operation name.
    pub name: &'static str,
}

/// The implementation of requests for machines.
#[async_trait]
pub trait Machines: Send + Sync + 'static {
    /// Writes the request, for a caller with permission.
    ///
    /// # Errors
    /// When a node does not exist, or the cluster may not be changed now.
    async fn ask(&self, call: &Call, wish: &Wish, mode: Mode) -> Result<Response, ArmError>;
}

impl Compute {
    pub(super) async fn repair(
        &self,
        call: &Call,
        order: NodeOrder,
        name: &'static str,
        mode: Mode,
    ) -> Result<Response, ArmError> {
        let request = &call.request;
        let nodes = match request.path.name(1) {
            Some(one) => Some(vec![number(one).ok_or_else(|| no_number(one))?]),
            None => named(&request.body)?,
        };
        if nodes.is_none() && order == NodeOrder::Repair(RepairStep::Replace) {
            let message = "The request needs a body with 'instanceIds', a list of at least one.";
            return Err(ArmError::new(ErrorCode::INVALID_PARAMETER, message).target("instanceIds"));
        }
        let pool = self
            .of_set(request, |set| {
                let cluster = &set.place.cluster;
                let kinds = ["managedClusters", "agentPools"];
                Ok(ResourcePath {
                    subscription: Some(cluster.subscription.clone()),
                    resource_group: Some(cluster.resource_group.clone()),
                    namespace: Some("Microsoft.ContainerService".to_owned()),
                    types: kinds.map(str::to_owned).to_vec(),
                    names: vec![cluster.name.clone(), set.pool.name.clone()],
                    parent: None,
                })
            })
            .await?;
        let wish = Wish {
            pool,
            nodes,
            order,
            name,
        };
        self.machines.ask(call, &wish, mode).await
    }
}

/// The instances in a body; `None` for all.
fn named(body: &Value) -> Result<Option<Vec<u32>>, ArmError> {
    let ids = match body.get("instanceIds") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Array(ids)) => ids,
        Some(_) => {
            let message = "'instanceIds' has to be a list of texts.";
            return Err(ArmError::new(ErrorCode::INVALID_PARAMETER, message).target("instanceIds"));
        }
    };
    let texts: Vec<&str> = ids.iter().map(|id| id.as_str().unwrap_or_default()).collect();
    if texts == ["*"] {
        return Ok(None);
    }
    if texts.is_empty() {
        let message = "'instanceIds' has to be a list of at least one.";
        return Err(ArmError::new(ErrorCode::INVALID_PARAMETER, message).target("instanceIds"));
    }
    let numbers = texts
        .iter()
        .map(|text| number(text).ok_or_else(|| no_number(text)));
    numbers.collect::<Result<_, _>>().map(Some)
}

/// As in responses: without a sign, and without leading zeros.
fn number(text: &str) -> Option<u32> {
    let number: u32 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

fn no_number(text: &str) -> ArmError {
    let message = format!(
        "The provided instanceId {} is not an active Virtual Machine Scale Set VM instanceId.",
        quote(text)
    );
    ArmError::new(ErrorCode::INVALID_PARAMETER, message).target("instanceIds")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn instances_are_named_by_their_numbers() {
        for (body, expected) in [
            (json!(null), Ok(None)),
            (json!({}), Ok(None)),
            (json!({ "instanceIds": ["*"] }), Ok(None)),
            (json!({ "instanceIds": ["0", "12"] }), Ok(Some(vec![0, 12]))),
            (json!({ "instanceIds": [] }), Err(())),
            (json!({ "instanceIds": "0" }), Err(())),
            (json!({ "instanceIds": [0] }), Err(())),
            (json!({ "instanceIds": ["+1"] }), Err(())),
            (json!({ "instanceIds": ["01"] }), Err(())),
            (json!({ "instanceIds": ["*", "1"] }), Err(())),
        ] {
            assert_eq!(named(&body).map_err(|_error| ()), expected, "{body}");
        }
    }
}
