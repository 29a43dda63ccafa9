//! `Landfall.ContainerService/managedClusters/upgrades`: upgrades of a control plane with a way back.
//!
//! | | |
//! |---|---|
//! | GET `{RG}/providers/Landfall.ContainerService/managedClusters/{name}/upgrades/default` | whether there is a way back, and until when |
//! | POST `…/upgrades/default/soak` `{"kubernetesVersion": "1.37", "hours": 168}` | to the next minor release; its programs emulate the present one |
//! | POST `…/upgrades/default/finalize` | they emulate it no more, and nobody goes back |
//! | POST `…/upgrades/default/rollback` | the programs of before run again |
//!
//! The three are changes of the cluster's desired state like any other, with an operation that is polled at AKS' namespace: what they mean is
//! decided by [`crate::clusters::soak`].

use arm_kernel::{Call, Mode, Mutation, Operation, RequestInfo, ResourceType, Verb, quote, write};
use arm_wire::{ArmError, ErrorCode, Request, Response};
use http::StatusCode;
use serde_json::json;

use super::{
    api::{HISTORY_API_VERSIONS, HISTORY_NAMESPACE, HistoryApi},
    backups::polled,
};
use crate::{
    NAMESPACE,
    clusters::{Action, Clusters, soak},
    records::ClusterPath,
};

type Row = Operation<HistoryApi>;

/// The permission that each of them needs for the cluster, beside its own.
const WRITE: &str = "Microsoft.ContainerService/managedClusters/write";
/// The only one that there is of a cluster.
const NAME: &str = "default";

/// The type.
pub(super) const UPGRADES: ResourceType<HistoryApi> = ResourceType {
    path: "managedClusters/upgrades",
    versions: HISTORY_API_VERSIONS,
    schema: None,
    members: None,
    operations: &[
        Row::read(Verb::Get, "Upgrades_Get", |api, call| {
            Box::pin(api.upgrade_state(&call.request))
        }),
        Row::write(
            Verb::Action("soak"),
            soak::BEGIN,
            |api, call| Box::pin(api.soak(call, Mode::Commit)),
            |api, call| Box::pin(api.soak(call, Mode::Preview)),
        ),
        Row::write(
            Verb::Action("finalize"),
            soak::FINALIZE,
            |api, call| Box::pin(api.finalize(call, Mode::Commit)),
            |api, call| Box::pin(api.finalize(call, Mode::Preview)),
        ),
        Row::write(
            Verb::Action("rollback"),
            soak::ROLL_BACK,
            |api, call| Box::pin(api.roll_back(call, Mode::Commit)),
            |api, call| Box::pin(api.roll_back(call, Mode::Preview)),
        ),
    ],
};

fn check_name(request: &Request) -> Result<(), ArmError> {
    let name = request.path.name(1).unwrap_or_default();
    if name.eq_ignore_ascii_case(NAME) {
        return Ok(());
    }
    let message = format!("There is no upgrade {}; the only one is '{NAME}'.", quote(name));
    Err(ArmError::new(ErrorCode::RESOURCE_NOT_FOUND, message))
}

impl HistoryApi {
    async fn upgrade_state(&self, request: &Request) -> Result<Response, ArmError> {
        check_name(request)?;
        let of = self.cluster(ClusterPath::of(&request.path)?).await?;
        let record = &of.record;
        let id = arm_ids::resource_id(
            &record.subscription,
            &record.resource_group,
            HISTORY_NAMESPACE,
            &[("managedClusters", record.name.as_str()), ("upgrades", NAME)],
        );
        let mut answer = soak::shown(record);
        answer["id"] = json!(id);
        answer["name"] = json!(NAME);
        answer["type"] = json!(format!("{HISTORY_NAMESPACE}/managedClusters/upgrades"));
        answer["cluster"] = json!(record.name);
        answer["resourceGroup"] = json!(record.resource_group);
        answer["kubernetesVersion"] = json!(record.spec().kubernetes_version);
        answer["currentKubernetesVersion"] = json!(of.observed.kubernetes_version);
        Ok(Response::ok(answer))
    }

    async fn soak(&self, call: &Call, mode: Mode) -> Result<Response, ArmError> {
        let body = call.request.body.clone();
        self.change(call, &Action::Reset(soak::begin, body), mode).await
    }

    async fn finalize(&self, call: &Call, mode: Mode) -> Result<Response, ArmError> {
        self.change(call, &Action::Finalize, mode).await
    }

    async fn roll_back(&self, call: &Call, mode: Mode) -> Result<Response, ArmError> {
        self.change(call, &Action::Command(soak::roll_back), mode).await
    }

    async fn change(&self, call: &Call, action: &Action, mode: Mode) -> Result<Response, ArmError> {
        check_name(&call.request)?;
        self.change_cluster(call, action, mode).await
    }

    /// Has a cluster changed in the name of the caller, who needs to be allowed to.
    pub(super) async fn change_cluster(
        &self,
        call: &Call,
        action: &Action,
        mode: Mode,
    ) -> Result<Response, ArmError> {
        let request = &call.request;
        let Some(rehearsals) = &self.rehearsals else {
            return Err(ArmError::new(
                ErrorCode::SERVICE_UNAVAILABLE,
                "This service changes no clusters.",
            ));
        };
        let clusters = &rehearsals.clusters;
        let own = ClusterPath::of(&request.path)?;
        let at = ClusterPath { child: "", ..own };
        let path = at.path();
        call.check(WRITE, &path).await?;
        let polled = polled(request);
        let info = RequestInfo {
            path: &path,
            ..RequestInfo::of(&polled)
        };
        let written = write::<Clusters>(&**clusters, &info, Mutation::Act(action), mode).await?;
        let body = json!({ "cluster": at.name().id() });
        let Some(operation) = written.operation() else {
            // It is so already.
            return Ok(Response::ok(body));
        };
        let location = &clusters.config.location;
        let response = Response::with(StatusCode::ACCEPTED, body);
        Ok(response.operation(&polled, NAMESPACE, at.subscription, location, operation, true))
    }
}
