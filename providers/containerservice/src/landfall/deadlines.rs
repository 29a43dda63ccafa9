//! `Landfall.ContainerService/supportPolicies` and `…/managedClusters/archives`: whether deadlines of the support policies act in the stamp, and an
//! archive that is asked for.
//!
//! | | |
//! |---|---|
//! | GET `/providers/Landfall.ContainerService/supportPolicies/stamp` | whether deadlines act or are only told, since when and by whom |
//! | POST `…/supportPolicies/stamp/act` | what a rule says is done at its deadline from now on, after all the time of new notices |
//! | POST `…/supportPolicies/stamp/tell` | deadlines are told, and nothing is done |
//! | GET `{RG}/providers/Landfall.ContainerService/managedClusters/{name}/archives/default` | whether its control plane is archived |
//! | POST `…/archives/default/take` | it is stopped, its backup is verified, and its machines and their disks go |
//!
//! What an operator has said of the stamp is no tenant's to take back: the policy needs a role at `/`. An archive is a change of the cluster's
//! desired state ([`crate::clusters::archive`]); a start or a PUT of the cluster brings it back.

use arm_kernel::{Call, Mode, Operation, ResourceType, Scope, Verb, quote, store_error};
use arm_wire::{ArmError, ErrorCode, Request, Response};
use control_records::deadlines::{AtDeadline, POLICY, PolicyRecord};
use control_store::{StoreError, Txn, get_record, put_record};
use serde_json::{Value, json};

use super::api::{HISTORY_API_VERSIONS, HISTORY_NAMESPACE, HistoryApi};
use crate::{
    clusters::{Action, archive},
    records::ClusterPath,
};

type Row = Operation<HistoryApi>;

/// The only policy that there is.
const STAMP: &str = "stamp";
/// The only archive of a cluster.
const DEFAULT: &str = "default";

/// The policy of the stamp.
pub(super) const SUPPORT_POLICIES: ResourceType<HistoryApi> = ResourceType {
    path: "supportPolicies",
    versions: HISTORY_API_VERSIONS,
    schema: None,
    members: None,
    operations: &[
        Row::read(Verb::Get, "SupportPolicies_Get", |api, call| {
            Box::pin(api.support_policy(call))
        })
        .at(Scope::Tenant),
        Row::write(
            Verb::Action("act"),
            "SupportPolicies_Act",
            |api, call| Box::pin(api.set_support_policy(call, AtDeadline::Act, Mode::Commit)),
            |api, call| Box::pin(api.set_support_policy(call, AtDeadline::Act, Mode::Preview)),
        )
        .at(Scope::Tenant),
        Row::write(
            Verb::Action("tell"),
            "SupportPolicies_Tell",
            |api, call| Box::pin(api.set_support_policy(call, AtDeadline::Tell, Mode::Commit)),
            |api, call| Box::pin(api.set_support_policy(call, AtDeadline::Tell, Mode::Preview)),
        )
        .at(Scope::Tenant),
    ],
};

/// The archive of a cluster.
pub(super) const ARCHIVES: ResourceType<HistoryApi> = ResourceType {
    path: "managedClusters/archives",
    versions: HISTORY_API_VERSIONS,
    schema: None,
    members: None,
    operations: &[
        Row::read(Verb::Get, "Archives_Get", |api, call| {
            Box::pin(api.archive_state(&call.request))
        }),
        Row::write(
            Verb::Action("take"),
            archive::ARCHIVE,
            |api, call| Box::pin(api.take_archive(call, Mode::Commit)),
            |api, call| Box::pin(api.take_archive(call, Mode::Preview)),
        ),
    ],
};

fn answer(api: &HistoryApi, record: Option<&PolicyRecord>) -> Value {
    let deadlines = record.map(|record| record.deadlines).unwrap_or_default();
    let mut told = json!({
        "name": STAMP,
        "profile": api.support.profile.as_str(),
        "deadlines": deadlines.as_str(),
    });
    if let Some(record) = record {
        told["since"] = json!(record.at.to_string());
        told["by"] = json!(record.by);
    }
    told
}

fn check_policy(call: &Call) -> Result<(), ArmError> {
    let name = call.request.path.name(0).unwrap_or_default();
    if name.eq_ignore_ascii_case(STAMP) {
        return Ok(());
    }
    let message = format!("There is no support policy {}; use '{STAMP}'.", quote(name));
    Err(ArmError::new(ErrorCode::RESOURCE_NOT_FOUND, message))
}

fn check_archive(request: &Request) -> Result<(), ArmError> {
    let name = request.path.name(1).unwrap_or_default();
    if name.eq_ignore_ascii_case(DEFAULT) {
        return Ok(());
    }
    let message = format!(
        "There is no archive {}; the only one is '{DEFAULT}'.",
        quote(name)
    );
    Err(ArmError::new(ErrorCode::RESOURCE_NOT_FOUND, message))
}

impl HistoryApi {
    async fn support_policy(&self, call: &Call) -> Result<Response, ArmError> {
        check_policy(call)?;
        let found = get_record::<PolicyRecord>(&*self.store, POLICY).await;
        let found = found.map_err(store_error)?.map(|found| found.value);
        Ok(Response::ok(answer(self, found.as_ref())))
    }

    /// Writes down what is done at deadlines. What is said twice is said once: nothing is written then.
    async fn set_support_policy(
        &self,
        call: &Call,
        deadlines: AtDeadline,
        mode: Mode,
    ) -> Result<Response, ArmError> {
        check_policy(call)?;
        loop {
            let found = get_record::<PolicyRecord>(&*self.store, POLICY).await;
            let found = found.map_err(store_error)?;
            let before = found.as_ref().map(|found| &found.value);
            let same = before.map(|before| before.deadlines) == Some(deadlines);
            if same {
                return Ok(Response::ok(answer(self, before)));
            }
            let record = PolicyRecord {
                v: 1,
                deadlines,
                at: self.env.clock.now(),
                by: call.request.principal.name.clone(),
            };
            let told = answer(self, Some(&record));
            if mode == Mode::Preview {
                return Ok(Response::ok(told));
            }
            let txn = match &found {
                Some(found) => Txn::default().at(POLICY, found.revision),
                None => Txn::default().absent(POLICY),
            };
            match self.store.txn(txn.with(put_record(POLICY, &record))).await {
                Ok(_) => return Ok(Response::ok(told)),
                Err(StoreError::Conflict { .. }) => {}
                Err(error) => return Err(store_error(error)),
            }
        }
    }

    async fn archive_state(&self, request: &Request) -> Result<Response, ArmError> {
        check_archive(request)?;
        let of = self.cluster(ClusterPath::of(&request.path)?).await?;
        let record = &of.record;
        let id = arm_ids::resource_id(
            &record.subscription,
            &record.resource_group,
            HISTORY_NAMESPACE,
            &[("managedClusters", record.name.as_str()), ("archives", DEFAULT)],
        );
        let archived = archive::archived(record);
        let state = match (archived, archive::pending(record)) {
            (Some(_), _) => "Archived",
            (None, Some(_)) => "Pending",
            (None, None) => "None",
        };
        let mut told = json!({
            "id": id,
            "name": DEFAULT,
            "type": format!("{HISTORY_NAMESPACE}/managedClusters/archives"),
            "cluster": record.name,
            "resourceGroup": record.resource_group,
            "state": state,
        });
        if let Some(since) = archived {
            told["since"] = json!(since.to_string());
            told["backup"] = json!(crate::deadlines::backup_of(record));
        }
        Ok(Response::ok(told))
    }

    async fn take_archive(&self, call: &Call, mode: Mode) -> Result<Response, ArmError> {
        check_archive(&call.request)?;
        self.change_cluster(call, &Action::Archive(String::new()), mode)
            .await
    }
}
