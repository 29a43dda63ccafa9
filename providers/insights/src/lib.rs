//! `Microsoft.Insights`: the activity log and the metrics of clusters, as `az monitor` and the SDKs read them.
//!
//! Always true: it only reads; the kernel and the edge write the log ([`control_records::activity`]),
//! clusters report their metrics ([`Readings`]). A caller sees the entries at scopes where it may read the
//! log.
//!
//! Called by: the edge; the assembly, which runs [`History::run`].

mod events;
mod metrics;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use arm_kernel::{Gate, Items, Namespace, Operation, ResourceType, Scope};
use base_env::Env;
use control_store::Store;

pub use metrics::{History, NodeReading, Reading, Readings};

/// The namespace.
pub const NAMESPACE: &str = "Microsoft.Insights";

/// The provider.
pub struct Insights {
    env: Env,
    store: Arc<dyn Store>,
    tenant: String,
    history: Arc<History>,
}

impl Insights {
    /// A provider over a store; `tenant` is the GUID of the stamp's tenant.
    pub fn new(env: Env, store: Arc<dyn Store>, tenant: impl Into<String>, history: Arc<History>) -> Self {
        Self {
            env,
            store,
            tenant: tenant.into(),
            history,
        }
    }
}

impl Namespace for Insights {
    const NAME: &'static str = NAMESPACE;
    const TYPES: &'static [&'static ResourceType<Self>] = &[
        &EVENTS,
        &metrics::METRICS,
        &metrics::DEFINITIONS,
        &metrics::NAMESPACES,
    ];
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
        // Entries outside subscriptions: the directory, roles at the stamp.
        Row::items("TenantActivityLogs_List", |provider, call| {
            Box::pin(async { Ok(Items::Keyed(provider.events(&call.request).await?)) })
        })
        .own_filter()
        .select()
        .at(Scope::Tenant),
    ],
};
