//! `Microsoft.Insights`: the activity log, as `az monitor activity-log list` and the SDKs read it.
//!
//! Always true: it only reads; the kernel and the edge write the log ([`control_records::activity`]). Somebody sees of it what happened at
//! scopes that he may read it at.
//!
//! Called by: the edge.

mod events;

use std::sync::Arc;

use arm_kernel::{Gate, Items, Namespace, Operation, ResourceType, Scope};
use control_store::Store;

/// The namespace.
pub const NAMESPACE: &str = "Microsoft.Insights";

/// The provider.
pub struct Insights {
    store: Arc<dyn Store>,
    tenant: String,
}

impl Insights {
    /// A provider over a store; `tenant` is the GUID of the stamp's tenant.
    pub fn new(store: Arc<dyn Store>, tenant: impl Into<String>) -> Self {
        Self {
            store,
            tenant: tenant.into(),
        }
    }
}

impl Namespace for Insights {
    const NAME: &'static str = NAMESPACE;
    const TYPES: &'static [&'static ResourceType<Self>] = &[&EVENTS];
}

type Row = Operation<Insights>;

/// `…/eventtypes/management/values`: there is no other type of events.
const EVENTS: ResourceType<Insights> = ResourceType {
    path: "eventtypes/values",
    versions: &["2017-03-01-preview", "2015-04-01", "2014-04-01"],
    schema: None,
    members: None,
    operations: &[
        Row::items("ActivityLogs_List", |provider, call| {
            Box::pin(async { Ok(Items::Keyed(provider.events(&call.request).await?)) })
        })
        .own_filter()
        .select()
        .gate(Gate::Items)
        .at(Scope::Subscription),
        // What is in no subscription: the directory, roles at the stamp.
        Row::items("TenantActivityLogs_List", |provider, call| {
            Box::pin(async { Ok(Items::Keyed(provider.events(&call.request).await?)) })
        })
        .own_filter()
        .select()
        .at(Scope::Tenant),
    ],
};
