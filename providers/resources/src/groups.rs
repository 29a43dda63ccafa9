//! Resource groups and the lists of what is in them.

use arm_ids::{group_id, same_location};
use arm_kernel::{Filter, page, page_of};
use arm_wire::{ArmError, ErrorCode, Request, Response};
use control_records::{GroupRecord, OperationRecord, Owner, directory, key};
use control_store::{StoreError, Stored, Txn, get_record, list_records, put_record};
use http::StatusCode;
use serde_json::{Value, json};

use crate::{
    ResourcesProvider, accepted, group, store_error, subscription,
    validation::{GroupBody, group_body, group_name},
};

/// Operations of this name are ended by the reaper.
pub(crate) const DELETE: &str = "ResourceGroups_Delete";

impl ResourcesProvider {
    pub(crate) async fn list_groups(&self, request: &Request) -> Result<Response, ArmError> {
        let prefix = key::group(subscription(request)?, "");
        let (all, _) = list_records::<GroupRecord>(&*self.store, &prefix)
            .await
            .map_err(store_error)?;
        let bodies = all.into_iter().map(|(_, stored)| group_as_json(&stored.value));
        page_of(
            request,
            bodies.collect(),
            &["tagName", "tagValue", "name", "location"],
        )
    }

    pub(crate) async fn get_group(&self, request: &Request) -> Result<Response, ArmError> {
        Ok(Response::ok(group_as_json(&self.existing(request).await?.value)))
    }

    pub(crate) async fn group_exists(&self, request: &Request) -> Result<Response, ArmError> {
        self.existing(request).await?;
        Ok(Response::empty(StatusCode::NO_CONTENT))
    }

    pub(crate) async fn put_group(&self, request: &Request) -> Result<Response, ArmError> {
        let (subscription, name) = (subscription(request)?, group(request)?);
        group_name(name)?;
        let body = group_body(&request.body)?;
        let Some(location) = body.location.as_deref() else {
            return Err(
                ArmError::new(ErrorCode::MISSING_PARAMETER, "'location' is required.").target("location"),
            );
        };
        let key = key::group(subscription, name);
        loop {
            let present = get_record::<GroupRecord>(&*self.store, &key)
                .await
                .map_err(store_error)?;
            let location = self.location(location, present.as_ref())?;
            let (record, condition, status) = match present {
                None => {
                    let record = GroupRecord {
                        v: 1,
                        subscription: self.subscription(request).await?.value.id,
                        name: name.to_owned(),
                        location,
                        tags: body.tags.clone().unwrap_or_default(),
                        managed_by: body.managed_by.clone(),
                        deleting: false,
                        created_at: self.env.clock.now(),
                    };
                    (record, Txn::default().absent(&key), StatusCode::CREATED)
                }
                Some(Stored {
                    revision,
                    value: mut record,
                }) => {
                    stays(&record)?;
                    if body.managed_by.is_some() && body.managed_by != record.managed_by {
                        return Err(ArmError::new(
                            ErrorCode::PROPERTY_CHANGE_NOT_ALLOWED,
                            "'managedBy' cannot be changed.",
                        )
                        .target("managedBy"));
                    }
                    // A PUT replaces: no tags means none. The casing last given is what is answered from now on.
                    record.tags = body.tags.clone().unwrap_or_default();
                    name.clone_into(&mut record.name);
                    (record, Txn::default().at(&key, revision), StatusCode::OK)
                }
            };
            match self.store.txn(condition.with(put_record(&key, &record))).await {
                Ok(_) => return Ok(Response::with(status, group_as_json(&record))),
                Err(StoreError::Conflict { .. }) => {}
                Err(error) => return Err(store_error(error)),
            }
        }
    }

    pub(crate) async fn patch_group(&self, request: &Request) -> Result<Response, ArmError> {
        let GroupBody {
            location,
            tags,
            managed_by,
        } = group_body(&request.body)?;
        loop {
            let Stored {
                revision,
                value: mut record,
            } = self.existing(request).await?;
            stays(&record)?;
            if location
                .as_ref()
                .is_some_and(|location| !same_location(location, &record.location))
            {
                return Err(moved(&record));
            }
            if managed_by.is_some() && managed_by != record.managed_by {
                return Err(ArmError::new(
                    ErrorCode::PROPERTY_CHANGE_NOT_ALLOWED,
                    "'managedBy' cannot be changed.",
                )
                .target("managedBy"));
            }
            // ARM replaces tags as a whole, also in a PATCH.
            if let Some(tags) = &tags {
                record.tags.clone_from(tags);
            }
            let key = key::group(&record.subscription, &record.name);
            match self
                .store
                .txn(Txn::default().at(&key, revision).with(put_record(&key, &record)))
                .await
            {
                Ok(_) => return Ok(Response::ok(group_as_json(&record))),
                Err(StoreError::Conflict { .. }) => {}
                Err(error) => return Err(store_error(error)),
            }
        }
    }

    pub(crate) async fn delete_group(&self, request: &Request) -> Result<Response, ArmError> {
        loop {
            let Stored {
                revision,
                value: mut record,
            } = self.existing(request).await?;
            record.deleting = true;
            let operation = OperationRecord {
                deletes: true,
                ..OperationRecord::accepted(
                    self.env.ids.uuid(),
                    DELETE,
                    group_id(&record.subscription, &record.name),
                    Owner::group(&record.subscription, &record.name),
                    0,
                    self.env.clock.now(),
                )
            };
            let group = key::group(&record.subscription, &record.name);
            let txn = Txn::default()
                .at(&group, revision)
                .with(put_record(&group, &record));
            let txn = directory::new_operation(txn, &operation);
            match self.store.txn(txn).await {
                Ok(_) => {
                    return Ok(accepted(
                        request,
                        &record.subscription,
                        &self.config.location,
                        &operation.id,
                    ));
                }
                Err(StoreError::Conflict { .. }) => {}
                Err(error) => return Err(store_error(error)),
            }
        }
    }

    pub(crate) async fn list_resources(&self, request: &Request) -> Result<Response, ArmError> {
        let filter = Filter::of(request)?;
        let subscription = subscription(request)?;
        let group = request
            .path
            .resource_group
            .as_deref()
            .or(filter.value("resourceGroup"));
        let mut found = Vec::new();
        for provider in &self.others {
            found.extend(provider.resources(subscription, group).await?);
        }
        page(request, found)
    }

    async fn existing(&self, request: &Request) -> Result<Stored<GroupRecord>, ArmError> {
        let name = group(request)?;
        let found = get_record(&*self.store, &key::group(subscription(request)?, name)).await;
        found.map_err(store_error)?.ok_or_else(|| {
            ArmError::new(
                ErrorCode::RESOURCE_GROUP_NOT_FOUND,
                format!("Resource group '{name}' could not be found."),
            )
        })
    }

    /// The location in the stamp's own spelling.
    fn location(&self, asked: &str, present: Option<&Stored<GroupRecord>>) -> Result<String, ArmError> {
        let own = &self.config.location;
        match present {
            Some(present) if !same_location(asked, &present.value.location) => Err(moved(&present.value)),
            Some(present) => Ok(present.value.location.clone()),
            None if same_location(asked, own) || same_location(asked, &self.config.location_display) => Ok(own.clone()),
            None => Err(ArmError::new(
                ErrorCode::GROUP_LOCATION_NOT_AVAILABLE,
                format!(
                    "The provided location '{}' is not available for resource groups; the location here is '{own}'.",
                    asked.chars().take(90).collect::<String>()
                ),
            )
            .target("location")),
        }
    }
}

fn moved(record: &GroupRecord) -> ArmError {
    ArmError::new(
        ErrorCode::INVALID_GROUP_LOCATION,
        format!(
            "The resource group '{}' exists in the location '{}'; it cannot be moved.",
            record.name, record.location
        ),
    )
    .target("location")
}

fn stays(record: &GroupRecord) -> Result<(), ArmError> {
    if !record.deleting {
        return Ok(());
    }
    Err(ArmError::new(
        ErrorCode::RESOURCE_GROUP_BEING_DELETED,
        format!(
            "The resource group '{}' is being deleted; wait until it is gone.",
            record.name
        ),
    ))
}

fn group_as_json(record: &GroupRecord) -> Value {
    let mut body = json!({
        "id": group_id(&record.subscription, &record.name),
        "name": record.name,
        "type": "Microsoft.Resources/resourceGroups",
        "location": record.location,
        "tags": record.tags,
        "properties": { "provisioningState": if record.deleting { "Deleting" } else { "Succeeded" } },
    });
    if let Some(owner) = &record.managed_by {
        body["managedBy"] = json!(owner);
    }
    body
}
