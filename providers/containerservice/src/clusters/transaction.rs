//! Writing: let the core decide about what is read, and write desired, operation and node resource group in one
//! transaction; again from the start where somebody else was faster.

use std::collections::BTreeMap;

use arm_wire::{ArmError, ErrorCode, Request, Response};
use control_records::{ClusterRecord, GroupRecord, OperationRecord, events, key};
use control_store::{Compare, StoreError, Stored, Txn, put_record};
use http::StatusCode;
use serde_json::Value;

use crate::{
    NAMESPACE,
    change::{self, Change, Context},
    cluster,
    course::{self, Before},
    handler::{ContainerService, secret_name},
    preconditions::{check_change, check_put},
    problems::quote,
    records::{At, Found, cluster_etag, fault, pool_etag},
    render::Seen,
};

/// How often a decision is made again because the records changed meanwhile. A few writers at most compete for a cluster.
const ATTEMPTS: usize = 16;

impl ContainerService {
    /// Writes desired, operation and events together, ends the operations whose place the new one takes.
    async fn commit(
        &self,
        key: &str,
        found: Option<&Found>,
        running: &[Stored<OperationRecord>],
        change: &mut Change,
        mut txn: Txn,
    ) -> Result<(), StoreError> {
        let records: Vec<OperationRecord> = running.iter().map(|stored| stored.value.clone()).collect();
        let before = found.map(|found| Before {
            record: &found.record.value,
            observed: found.observed.as_ref(),
            running: &records,
        });
        let (ended, events) = course::follow(change, before);
        for ended in ended {
            let key = key::operation(&ended.id);
            if let Some(stored) = running.iter().find(|stored| stored.value.id == ended.id) {
                txn.compare.push(Compare::At(key.clone(), stored.revision));
            }
            txn.ops.push(put_record(key, &ended));
        }
        txn.compare.push(match found {
            Some(found) => Compare::At(key.to_owned(), found.record.revision),
            None => Compare::Absent(key.to_owned()),
        });
        // What was reached last must not change between this reading and the writing: an abort returns to it.
        if let Some(found) = found {
            let key = key::observed(&found.record.value.uid);
            txn.compare.push(match found.observed_at {
                Some(revision) => Compare::At(key, revision),
                None => Compare::Absent(key),
            });
        }
        txn.ops.push(put_record(key, &change.record));
        txn.ops.push(put_record(
            key::operation(&change.operation.id),
            &change.operation,
        ));
        let now = self.env.clock.now();
        let txn = events::append(&*self.store, txn, &change.record.uid, &events, now).await?;
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
        let (found, change) = self
            .write_cluster(request, at, |context, present| {
                cluster::put(context, &at.name(), present, &request.body)
            })
            .await?;
        let seen = Seen {
            record: &change.record,
            observed: found.as_ref().and_then(|found| found.observed.as_ref()),
            operation: Some(&change.operation),
            pool_operations: found.as_ref().map(|found| &found.pool_operations),
        };
        let status = if found.is_some() {
            StatusCode::OK
        } else {
            StatusCode::CREATED
        };
        let response = Response::with(status, seen.cluster(&request.api_version));
        Ok(self.accepted(response, request, at, &change.operation.id, false))
    }

    /// Decides what a cluster is to be, whether it is there or not, and writes; again where it changed meanwhile. Gives what was
    /// there before.
    pub(crate) async fn write_cluster(
        &self,
        request: &Request,
        at: At<'_>,
        decide: impl Fn(&Context<'_>, Option<&ClusterRecord>) -> Result<Change, ArmError> + Send + Sync,
    ) -> Result<(Option<Found>, Change), ArmError> {
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
            let observed = found.as_ref().and_then(|found| found.observed.as_ref());
            let context = Context {
                running: observed.and_then(|observed| observed.kubernetes_version.as_ref()?.parse().ok()),
                ..self.context(request)
            };
            let mut change = decide(&context, present)?;
            self.seal(&mut change)?;
            let mut txn = Txn {
                // The group must not begin to go between this reading and the writing.
                compare: vec![Compare::At(key::group(at.subscription, at.group), group.revision)],
                ops: Vec::new(),
            };
            self.own_node_group(at, &change.record, &mut txn).await?;
            let running = match &found {
                Some(found) => self.running(&found.record.value).await?,
                None => Vec::new(),
            };
            match self
                .commit(&key, found.as_ref(), &running, &mut change, txn)
                .await
            {
                Ok(()) => return Ok((found, change)),
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
    pub(crate) async fn change(
        &self,
        at: At<'_>,
        decide: impl Fn(&Found, &[OperationRecord]) -> Result<Option<Change>, ArmError> + Send + Sync,
    ) -> Result<Option<(Found, Change)>, ArmError> {
        let key = at.key();
        for attempt in 1.. {
            let Some(found) = self.find(at).await? else {
                return Ok(None);
            };
            let running = self.running(&found.record.value).await?;
            let records: Vec<_> = running.iter().map(|stored| stored.value.clone()).collect();
            let Some(mut change) = decide(&found, &records)? else {
                return Ok(None);
            };
            let written = self
                .commit(&key, Some(&found), &running, &mut change, Txn::default())
                .await;
            match written {
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
            .change(at, |found, _| {
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
            let running = self.running(present).await?;
            let deletion = running.iter().find(|stored| stored.value.deletes);
            if let Some(deletion) = deletion.filter(|_| present.deleting) {
                return Ok(Some(deletion.value.id.clone()));
            }
            let mut change = change::delete(context, &at.name(), present);
            match self
                .commit(&key, Some(&found), &running, &mut change, Txn::default())
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
            .change(at, |found, _| {
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
            // On its way already: one deletion, however often asked for.
            return match found.seen().leaving(at.child) {
                Some(leaving) => {
                    let response = Response::empty(StatusCode::ACCEPTED);
                    Ok(self.accepted(response, request, at, &leaving.operation, true))
                }
                None => gone(),
            };
        };
        let pool = pool.name.clone();
        let done = self
            .change(at, |found, _| {
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

    /// Aborts what runs for the cluster, or for one of its pools.
    pub(crate) async fn abort(&self, request: &Request, of_pool: bool) -> Result<Response, ArmError> {
        let at = At::of(request)?;
        let pool = match of_pool {
            true => Some(self.need_pool(at).await?.1),
            false => None,
        };
        let done = self
            .change(at, |found, running| {
                let context = self.context(request);
                let before = Before {
                    record: &found.record.value,
                    observed: found.observed.as_ref(),
                    running,
                };
                match &pool {
                    Some(pool) => course::abort_pool(&context, &at.name(), pool, before),
                    None => course::abort(&context, &at.name(), before),
                }
                .map(Some)
            })
            .await?;
        let Some((_, change)) = done else {
            self.group(at).await?;
            return Err(at.not_found());
        };
        let response = Response::empty(StatusCode::ACCEPTED);
        Ok(self.accepted(response, request, at, &change.operation.id, true))
    }
}
