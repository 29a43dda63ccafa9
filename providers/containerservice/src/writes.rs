//! Writing: let the core decide about what is read, and write desired, operation and node resource group in one
//! transaction; again from the start where somebody else was faster.

use std::collections::BTreeMap;

use arm_wire::{ArmError, ErrorCode, Request, Response};
use control_records::{ClusterRecord, GroupRecord, OperationRecord, OperationStatus, key};
use control_store::{Compare, Revision, StoreError, Txn, list_records, put_record};
use http::StatusCode;
use serde_json::Value;

use crate::{
    NAMESPACE,
    change::{self, Change, Context},
    cluster,
    handler::{ContainerService, secret_name},
    preconditions::{check_change, check_put},
    problems::quote,
    records::{At, Found, cluster_etag, fault, pool_etag},
    render::Seen,
};

/// How often a decision is made again because the records changed meanwhile. A few writers at most compete for a cluster.
const ATTEMPTS: usize = 16;

impl ContainerService {
    /// Seals what the core found secret and writes desired and operation together.
    async fn commit(
        &self,
        key: &str,
        before: Option<Revision>,
        change: &mut Change,
        mut txn: Txn,
    ) -> Result<(), StoreError> {
        txn.compare.push(match before {
            Some(revision) => Compare::At(key.to_owned(), revision),
            None => Compare::Absent(key.to_owned()),
        });
        txn.ops.push(put_record(key, &change.record));
        txn.ops.push(put_record(
            key::operation(&change.operation.id),
            &change.operation,
        ));
        self.store.txn(txn).await.map(|_| ())
    }

    fn seal(&self, change: &mut Change) -> Result<(), ArmError> {
        let client = change
            .record
            .body
            .pointer("/properties/servicePrincipalProfile/clientId");
        let managed = client.and_then(Value::as_str) == Some("msi");
        for (path, secret) in change.secrets.drain(..) {
            if managed {
                continue;
            }
            let name = secret_name(&change.record.uid, &path);
            let sealed = self
                .sealer
                .seal(&name, secret.as_bytes())
                .map_err(ArmError::internal)?;
            change.record.sealed.insert(path, sealed);
        }
        Ok(())
    }

    fn accepted(
        &self,
        response: Response,
        request: &Request,
        at: At<'_>,
        operation: &str,
        location: bool,
    ) -> Response {
        response.operation(
            request,
            NAMESPACE,
            at.subscription,
            &self.config.location,
            operation,
            location,
        )
    }

    pub(crate) async fn put_cluster(&self, request: &Request) -> Result<Response, ArmError> {
        let at = At::of(request)?;
        let key = at.key();
        for attempt in 1.. {
            let group = self.group(at).await?;
            if group.value.deleting {
                let message = format!("The resource group {} is being deleted.", quote(at.group));
                return Err(ArmError::new(ErrorCode::RESOURCE_GROUP_BEING_DELETED, message));
            }
            let found = self.find(at).await?;
            let present = found.as_ref().map(|found| &found.record.value);
            check_put(request, present.map(cluster_etag).as_deref())?;
            let mut change = cluster::put(&self.context(request), &at.name(), present, &request.body)?;
            self.seal(&mut change)?;
            let mut txn = Txn {
                // The group must not begin to go between this reading and the writing.
                compare: vec![Compare::At(key::group(at.subscription, at.group), group.revision)],
                ops: Vec::new(),
            };
            self.own_node_group(at, &change.record, &mut txn).await?;
            let before = found.as_ref().map(|found| found.record.revision);
            match self.commit(&key, before, &mut change, txn).await {
                Ok(()) => {
                    let seen = Seen {
                        record: &change.record,
                        observed: found.as_ref().and_then(|found| found.observed.as_ref()),
                        operation: Some(&change.operation),
                    };
                    let status = if before.is_some() {
                        StatusCode::OK
                    } else {
                        StatusCode::CREATED
                    };
                    let response = Response::with(status, seen.cluster(&request.api_version));
                    return Ok(self.accepted(response, request, at, &change.operation.id, false));
                }
                Err(StoreError::Conflict { .. }) if attempt < ATTEMPTS => {}
                Err(error) => return Err(fault(error)),
            }
        }
        unreachable!("the loop ends by returning")
    }

    /// Makes the group of the cluster's nodes, or refuses one that is somebody else's.
    async fn own_node_group(
        &self,
        at: At<'_>,
        record: &ClusterRecord,
        txn: &mut Txn,
    ) -> Result<(), ArmError> {
        let name = &record.spec.node_resource_group;
        let group_key = key::group(at.subscription, name);
        let owner = at.name().id();
        let found = self.read::<GroupRecord>(&group_key).await?;
        let compare = match &found {
            None => Compare::Absent(group_key.clone()),
            Some(found) => {
                let ours = found
                    .value
                    .managed_by
                    .as_ref()
                    .is_some_and(|id| id.eq_ignore_ascii_case(&owner));
                if !ours {
                    let message = format!(
                        "The node resource group {} exists already and does not belong to this cluster; choose another name.",
                        quote(name)
                    );
                    return Err(
                        ArmError::new(ErrorCode::CONFLICT, message).target("properties.nodeResourceGroup")
                    );
                }
                if !found.value.deleting {
                    return Ok(());
                }
                Compare::At(group_key.clone(), found.revision)
            }
        };
        let group = GroupRecord {
            v: 1,
            subscription: at.subscription.to_owned(),
            name: name.clone(),
            location: self.config.location.clone(),
            tags: BTreeMap::new(),
            managed_by: Some(owner),
            deleting: false,
            created_at: self.env.clock.now(),
        };
        txn.compare.push(compare);
        txn.ops.push(put_record(group_key, &group));
        Ok(())
    }

    /// Decides about a cluster that is there and writes; again where it changed meanwhile. Nothing where there is no
    /// cluster, or nothing to change about it.
    async fn change(
        &self,
        at: At<'_>,
        decide: impl Fn(&Found) -> Result<Option<Change>, ArmError> + Send + Sync,
    ) -> Result<Option<(Found, Change)>, ArmError> {
        let key = at.key();
        for attempt in 1.. {
            let Some(found) = self.find(at).await? else {
                return Ok(None);
            };
            let Some(mut change) = decide(&found)? else {
                return Ok(None);
            };
            let before = Some(found.record.revision);
            match self.commit(&key, before, &mut change, Txn::default()).await {
                Ok(()) => return Ok(Some((found, change))),
                Err(StoreError::Conflict { .. }) if attempt < ATTEMPTS => {}
                Err(error) => return Err(fault(error)),
            }
        }
        unreachable!("the loop ends by returning")
    }

    pub(crate) async fn patch_cluster(&self, request: &Request) -> Result<Response, ArmError> {
        let at = At::of(request)?;
        let done = self
            .change(at, |found| {
                let present = &found.record.value;
                check_change(request, &cluster_etag(present))?;
                change::patch_tags(&self.context(request), &at.name(), present, &request.body).map(Some)
            })
            .await?;
        let Some((found, change)) = done else {
            self.group(at).await?;
            return Err(at.not_found());
        };
        let seen = Seen {
            operation: Some(&change.operation),
            ..found.seen_as(&change.record)
        };
        let response = Response::ok(seen.cluster(&request.api_version));
        Ok(self.accepted(response, request, at, &change.operation.id, false))
    }

    pub(crate) async fn delete_cluster(&self, request: &Request) -> Result<Response, ArmError> {
        let at = At::of(request)?;
        let context = self.context(request);
        let check = |present: &ClusterRecord| check_change(request, &cluster_etag(present));
        match self.mark_deleting(at, &context, check).await? {
            Some(operation) => Ok(self.accepted(
                Response::empty(StatusCode::ACCEPTED),
                request,
                at,
                &operation,
                true,
            )),
            None => Ok(Response::empty(StatusCode::NO_CONTENT)),
        }
    }

    /// Marks a cluster for deletion and cancels what ran before. Returns the deletion's operation, or nothing where there
    /// is no cluster.
    pub(crate) async fn mark_deleting(
        &self,
        at: At<'_>,
        context: &Context<'_>,
        check: impl Fn(&ClusterRecord) -> Result<(), ArmError> + Send + Sync,
    ) -> Result<Option<String>, ArmError> {
        let key = at.key();
        for attempt in 1.. {
            let Some(found) = self.find(at).await? else {
                return Ok(None);
            };
            let present = &found.record.value;
            check(present)?;
            let running = found
                .operation
                .as_ref()
                .is_some_and(|operation| operation.status == OperationStatus::InProgress);
            if present.deleting && running {
                return Ok(Some(present.operation.clone()));
            }
            let mut change = change::delete(context, &at.name(), present);
            let mut txn = Txn::default();
            let (operations, _) = list_records::<OperationRecord>(&*self.store, &key::operation(""))
                .await
                .map_err(fault)?;
            for (key, stored) in operations {
                let operation = &stored.value;
                if operation.cluster == present.uid && operation.status == OperationStatus::InProgress {
                    txn.ops
                        .push(put_record(&*key, &change::preempt(operation, &change.operation)));
                    txn.compare.push(Compare::At(key, stored.revision));
                }
            }
            match self
                .commit(&key, Some(found.record.revision), &mut change, txn)
                .await
            {
                Ok(()) => return Ok(Some(change.operation.id)),
                Err(StoreError::Conflict { .. }) if attempt < ATTEMPTS => {}
                Err(error) => return Err(fault(error)),
            }
        }
        unreachable!("the loop ends by returning")
    }

    pub(crate) async fn put_pool(&self, request: &Request) -> Result<Response, ArmError> {
        let at = At::of(request)?;
        let done = self
            .change(at, |found| {
                let present = &found.record.value;
                check_put(request, pool_etag(present, at.child).as_deref())?;
                change::put_pool(
                    &self.context(request),
                    &at.name(),
                    at.child,
                    present,
                    &request.body,
                )
                .map(Some)
            })
            .await?;
        let Some((found, change)) = done else {
            self.group(at).await?;
            let message = format!(
                "The parent resource '{NAMESPACE}/managedClusters/{}' under resource group {} was not found.",
                at.cluster,
                quote(at.group)
            );
            return Err(ArmError::new(ErrorCode::PARENT_RESOURCE_NOT_FOUND, message));
        };
        let existed = pool_etag(&found.record.value, at.child).is_some();
        let status = if existed {
            StatusCode::OK
        } else {
            StatusCode::CREATED
        };
        let seen = Seen {
            operation: Some(&change.operation),
            ..found.seen_as(&change.record)
        };
        let response = Response::with(status, seen.pool(at.child, &request.api_version));
        Ok(self.accepted(response, request, at, &change.operation.id, false))
    }

    pub(crate) async fn delete_pool(&self, request: &Request) -> Result<Response, ArmError> {
        let at = At::of(request)?;
        let gone = || Ok(Response::empty(StatusCode::NO_CONTENT));
        let Some(found) = self.find(at).await? else {
            return gone();
        };
        let pools = &found.record.value.spec.pools;
        let Some(pool) = pools.iter().find(|pool| pool.name.eq_ignore_ascii_case(at.child)) else {
            return gone();
        };
        let pool = pool.name.clone();
        let done = self
            .change(at, |found| {
                let present = &found.record.value;
                // Somebody else deleted it meanwhile: then there is nothing to change.
                let Some(tag) = pool_etag(present, &pool) else {
                    return Ok(None);
                };
                check_change(request, &tag)?;
                change::delete_pool(&self.context(request), &at.name(), &pool, present).map(Some)
            })
            .await?;
        match done {
            Some((_, change)) => {
                let response = Response::empty(StatusCode::ACCEPTED);
                Ok(self.accepted(response, request, at, &change.operation.id, true))
            }
            None => gone(),
        }
    }
}
