//! `Microsoft.Compute`: scale sets, their instances, disks and snapshots of disks, of clusters and of tenants; sizes and usages.

mod actions;
pub(crate) mod own;
mod sizes;
mod view;

use std::sync::Arc;

use arm_kernel::{
    Filter, Gate, Items, Mode, Namespace, Operation, ResourceType, Scope,
    Verb::{Action, Delete, Get, List, Patch, Put},
    expands,
};
use arm_wire::{ArmError, Request, Response};
use base_env::Env;
use control_records::{NodeOrder, RepairStep};
use serde_json::{Value, json};

use crate::{
    Stamp, missing,
    place::{Instance, Place, Set, places},
    usages, with_cluster,
};

pub use actions::{Machines, Wish};
pub(crate) use view::summary;

/// The namespace.
pub(crate) const NAMESPACE: &str = "Microsoft.Compute";
/// Where scale sets are.
pub(crate) const SETS: &str = "virtualMachineScaleSets";
/// The path of instances, below their set.
pub(crate) const INSTANCES: &str = "virtualMachines";
/// Where disks are.
pub(crate) const DISKS: &str = "disks";
/// Resource type of snapshots of disks.
pub(crate) const SNAPSHOTS: &str = "snapshots";

/// The accepted api-versions, newest first. Azure has a list for each type; the supported part has the same
/// shape in all.
const VERSIONS: &[&str] = &[
    "2026-04-01",
    "2025-11-01",
    "2025-04-01",
    "2025-01-02",
    "2024-11-01",
    "2024-07-01",
    "2024-03-02",
    "2024-03-01",
    "2023-09-01",
    "2023-07-01",
    "2023-04-02",
    "2023-03-01",
    "2022-11-01",
    "2022-08-01",
    "2022-03-01",
    "2021-11-01",
    "2021-07-01",
    "2021-04-01",
    "2020-12-01",
    "2020-06-01",
    "2019-12-01",
    "2019-07-01",
    "2019-04-01",
    "2019-03-01",
    "2018-10-01",
];

/// The provider.
pub struct Compute {
    /// The source of its data.
    pub stamp: Stamp,
    /// The implementation of requests for machines.
    pub machines: Arc<dyn Machines>,
    /// Clock and identities.
    pub env: Env,
}

impl Namespace for Compute {
    const NAME: &'static str = NAMESPACE;
    const TYPES: &'static [&'static ResourceType<Self>] = &[
        &SCALE_SETS,
        &SET_VIEW,
        &SET_INSTANCES,
        &INSTANCE_VIEW,
        &MACHINES,
        &own::OF_DISKS,
        &own::OF_SNAPSHOTS,
        &SIZES,
        &SKUS,
        &USAGES,
    ];
}

type Row = Operation<Compute>;
type Type = ResourceType<Compute>;

const fn kind(path: &'static str, operations: &'static [Row]) -> Type {
    ResourceType {
        path,
        versions: VERSIONS,
        schema: None,
        members: None,
        operations,
    }
}

const SCALE_SETS: Type = ResourceType {
    members: Some(with_cluster(|provider, subscription, group| {
        Box::pin(provider.summaries(subscription, group, |place| {
            place.sets().iter().map(view::set).collect()
        }))
    })),
    ..kind(
        SETS,
        &[
            Row::read(Get, "VirtualMachineScaleSets_Get", |provider, call| {
                Box::pin(provider.set(&call.request, view::set))
            })
            .expand(&["userData"]),
            Row::items("VirtualMachineScaleSets_List", |provider, call| {
                Box::pin(provider.all(&call.request, sets))
            })
            .gate(Gate::Items),
            Row::items("VirtualMachineScaleSets_ListAll", |provider, call| {
                Box::pin(provider.all(&call.request, sets))
            })
            .gate(Gate::Items)
            .at(Scope::Subscription),
            Row::not_yet(Put, "VirtualMachineScaleSets_CreateOrUpdate"),
            Row::not_yet(Patch, "VirtualMachineScaleSets_Update"),
            Row::not_yet(Delete, "VirtualMachineScaleSets_Delete"),
            RESTART,
            REIMAGE,
            REIMAGE_ALL,
            DELETE,
            DEALLOCATE,
            START,
            Row::not_yet(Action("poweroff"), "VirtualMachineScaleSets_PowerOff"),
            Row::not_yet(Action("redeploy"), "VirtualMachineScaleSets_Redeploy"),
            Row::not_yet(Action("manualupgrade"), "VirtualMachineScaleSets_UpdateInstances"),
        ],
    )
};

/// A row of a request for machines.
macro_rules! repair {
    ($verb:expr, $name:literal, $order:expr) => {
        Row::write(
            $verb,
            $name,
            |provider, call| Box::pin(provider.repair(call, $order, $name, Mode::Commit)),
            |provider, call| Box::pin(provider.repair(call, $order, $name, Mode::Preview)),
        )
    };
}

const RESTART: Row = repair!(
    Action("restart"),
    "VirtualMachineScaleSets_Restart",
    NodeOrder::Repair(RepairStep::Reboot)
);
const REIMAGE: Row = repair!(
    Action("reimage"),
    "VirtualMachineScaleSets_Reimage",
    NodeOrder::Repair(RepairStep::Reimage)
);
// Including the data disks, of which there are none.
const REIMAGE_ALL: Row = repair!(
    Action("reimageall"),
    "VirtualMachineScaleSets_ReimageAll",
    NodeOrder::Repair(RepairStep::Reimage)
);
const REIMAGE_ALL_OF_ONE: Row = repair!(
    Action("reimageall"),
    "VirtualMachineScaleSetVMs_ReimageAll",
    NodeOrder::Repair(RepairStep::Reimage)
);
const DELETE: Row = repair!(
    Action("delete"),
    "VirtualMachineScaleSets_DeleteInstances",
    NodeOrder::Repair(RepairStep::Replace)
);
const RESTART_ONE: Row = repair!(
    Action("restart"),
    "VirtualMachineScaleSetVMs_Restart",
    NodeOrder::Repair(RepairStep::Reboot)
);
const REIMAGE_ONE: Row = repair!(
    Action("reimage"),
    "VirtualMachineScaleSetVMs_Reimage",
    NodeOrder::Repair(RepairStep::Reimage)
);
const DELETE_ONE: Row = repair!(
    Delete,
    "VirtualMachineScaleSetVMs_Delete",
    NodeOrder::Repair(RepairStep::Replace)
);

const DEALLOCATE: Row = repair!(
    Action("deallocate"),
    "VirtualMachineScaleSets_Deallocate",
    NodeOrder::Off
);
const START: Row = repair!(Action("start"), "VirtualMachineScaleSets_Start", NodeOrder::On);
const DEALLOCATE_ONE: Row = repair!(
    Action("deallocate"),
    "VirtualMachineScaleSetVMs_Deallocate",
    NodeOrder::Off
);
const START_ONE: Row = repair!(Action("start"), "VirtualMachineScaleSetVMs_Start", NodeOrder::On);

const SET_VIEW: Type = kind(
    "virtualMachineScaleSets/instanceView",
    &[Row::read(
        List,
        "VirtualMachineScaleSets_GetInstanceView",
        |provider, call| Box::pin(provider.set(&call.request, view::set_status)),
    )],
);

const SET_INSTANCES: Type = kind(
    "virtualMachineScaleSets/virtualMachines",
    &[
        Row::read(Get, "VirtualMachineScaleSetVMs_Get", |provider, call| {
            Box::pin(provider.instance(&call.request, |set, instance| {
                view::instance(set, instance, expands(&call.request, "instanceView"))
            }))
        })
        .expand(&["userData", "instanceView"]),
        Row::items("VirtualMachineScaleSetVMs_List", |provider, call| {
            Box::pin(provider.instances(&call.request))
        })
        .expand(&["instanceView"])
        .select(),
        Row::not_yet(Put, "VirtualMachineScaleSetVMs_Update"),
        DELETE_ONE,
        RESTART_ONE,
        REIMAGE_ONE,
        REIMAGE_ALL_OF_ONE,
        DEALLOCATE_ONE,
        START_ONE,
        Row::not_yet(Action("poweroff"), "VirtualMachineScaleSetVMs_PowerOff"),
        Row::not_yet(Action("redeploy"), "VirtualMachineScaleSetVMs_Redeploy"),
        Row::not_yet(Action("runCommand"), "VirtualMachineScaleSetVMs_RunCommand"),
    ],
);

const INSTANCE_VIEW: Type = kind(
    "virtualMachineScaleSets/virtualMachines/instanceView",
    &[Row::read(
        List,
        "VirtualMachineScaleSetVMs_GetInstanceView",
        |provider, call| {
            Box::pin(provider.instance(&call.request, |set, instance| {
                view::instance_status(set, instance)
            }))
        },
    )],
);

/// Machines outside scale sets: there are none.
const MACHINES: Type = kind(
    "virtualMachines",
    &[
        Row::items("VirtualMachines_List", |_, _| {
            Box::pin(async { Ok(Items::ById(Vec::new())) })
        })
        .own_filter()
        .expand(&["instanceView"]),
        Row::items("VirtualMachines_ListAll", |_, _| {
            Box::pin(async { Ok(Items::ById(Vec::new())) })
        })
        .own_filter()
        .expand(&["instanceView"])
        .at(Scope::Subscription),
        Row::not_yet(Get, "VirtualMachines_Get"),
        Row::not_yet(Put, "VirtualMachines_CreateOrUpdate"),
        Row::not_yet(Patch, "VirtualMachines_Update"),
        Row::not_yet(Delete, "VirtualMachines_Delete"),
    ],
);

const SIZES: Type = kind(
    "locations/vmSizes",
    &[Row::read(List, "VirtualMachineSizes_List", |provider, call| {
        Box::pin(async {
            let asked = call.request.path.name(0).unwrap_or_default();
            provider.stamp.check_location(asked)?;
            Ok(Response::ok(sizes::sizes()))
        })
    })
    .at(Scope::Subscription)],
);

const SKUS: Type = kind(
    "skus",
    &[Row::items("ResourceSkus_List", |provider, call| {
        Box::pin(async {
            let filter = Filter::of(&call.request, &["location"])?;
            let here = filter
                .value("location")
                .is_none_or(|asked| arm_ids::same_location(asked, &provider.stamp.location));
            let all = sizes::skus(&provider.stamp.location);
            // A sku has no id: its name is its key.
            let keyed = all.into_iter().filter(|_| here).map(|sku| {
                let name = sku["name"].as_str().unwrap_or_default().to_owned();
                (name, sku)
            });
            Ok(Items::Keyed(keyed.collect()))
        })
    })
    .own_filter()
    .at(Scope::Subscription)],
);

const USAGES: Type = kind(
    "locations/usages",
    &[Row::read(List, "Usage_List", |provider, call| {
        Box::pin(provider.usages(&call.request))
    })
    .at(Scope::Subscription)],
);

fn sets(place: &Place) -> Vec<Value> {
    place.sets().iter().map(view::set).collect()
}

fn disks(place: &Place) -> Vec<Value> {
    let sets = place.sets();
    let instances = sets.iter().flat_map(|set| {
        let instances = set.instances().into_iter();
        instances.map(move |instance| (set, instance))
    });
    let of_instances = instances.map(|(set, instance)| view::disk(set, &instance));
    // Neither shares nor snapshots are disks; a tenant's own is shown where it was made.
    let of_claims = place
        .volumes
        .iter()
        .filter(|volume| !volume.shared && !volume.snapshot && volume.disk.is_none());
    let of_claims = of_claims.map(|volume| view::volume(place, volume));
    of_instances.chain(of_claims).collect()
}

fn snapshots(place: &Place) -> Vec<Value> {
    // Those of shares are none of Azure's disks.
    let taken = place
        .volumes
        .iter()
        .filter(|volume| volume.snapshot && !volume.shared);
    taken.map(|snapshot| view::snapshot(place, snapshot)).collect()
}

impl Compute {
    /// All resources of a group, or of a subscription.
    async fn all(&self, request: &Request, of: fn(&Place) -> Vec<Value>) -> Result<Items, ArmError> {
        let subscription = request.path.subscription.as_deref().unwrap_or_default();
        let group = request.path.resource_group.as_deref();
        let places = places(&*self.stamp.store, subscription, group).await?;
        Ok(Items::ById(places.iter().flat_map(of).collect()))
    }

    /// The items of lists of resources.
    async fn summaries(
        &self,
        subscription: &str,
        group: Option<&str>,
        of: fn(&Place) -> Vec<Value>,
    ) -> Result<Vec<Value>, ArmError> {
        let places = places(&*self.stamp.store, subscription, group).await?;
        Ok(places.iter().flat_map(of).map(view::summary).collect())
    }

    /// Serves a request for the set of a path.
    async fn set(
        &self,
        request: &Request,
        answer: impl Fn(&Set<'_>) -> Value + Send,
    ) -> Result<Response, ArmError> {
        self.of_set(request, move |set| Ok(Response::ok(answer(set))))
            .await
    }

    /// The set of a path, with its cluster.
    pub(super) async fn of_set<T>(
        &self,
        request: &Request,
        answer: impl Fn(&Set<'_>) -> Result<T, ArmError> + Send,
    ) -> Result<T, ArmError> {
        let path = &request.path;
        let subscription = path.subscription.as_deref().unwrap_or_default();
        let (group, name) = (
            path.resource_group.as_deref().unwrap_or_default(),
            path.name(0).unwrap_or_default(),
        );
        let places = places(&*self.stamp.store, subscription, Some(group)).await?;
        let sets: Vec<Set<'_>> = places.iter().flat_map(Place::sets).collect();
        let found = sets.iter().find(|set| set.name.eq_ignore_ascii_case(name));
        let set = found.ok_or_else(|| missing(&format!("{NAMESPACE}/{SETS}"), name, group))?;
        answer(set)
    }

    /// Serves a request for the instance of a path.
    async fn instance(
        &self,
        request: &Request,
        answer: impl Fn(&Set<'_>, &Instance<'_>) -> Value + Send,
    ) -> Result<Response, ArmError> {
        let asked = request.path.name(1).unwrap_or_default().to_owned();
        let group = request.path.resource_group.clone().unwrap_or_default();
        self.of_set(request, move |set| {
            let instances = set.instances();
            let found = instances
                .iter()
                .find(|instance| instance.index.to_string() == asked);
            let instance = found.ok_or_else(|| {
                let name = format!("{}/{INSTANCES}/{asked}", set.name);
                missing(&format!("{NAMESPACE}/{SETS}"), &name, &group)
            })?;
            Ok(Response::ok(answer(set, instance)))
        })
        .await
    }

    async fn instances(&self, request: &Request) -> Result<Items, ArmError> {
        let with_view = expands(request, "instanceView");
        let answer = self
            .set(request, |set| {
                let instances = set.instances();
                let shown = instances
                    .iter()
                    .map(|instance| view::instance(set, instance, with_view));
                json!(shown.collect::<Vec<_>>())
            })
            .await?;
        Ok(match answer.body {
            Some(Value::Array(items)) => Items::ById(items),
            _ => Items::ById(Vec::new()),
        })
    }

    async fn usages(&self, request: &Request) -> Result<Response, ArmError> {
        self.stamp
            .check_location(request.path.name(0).unwrap_or_default())?;
        let subscription = request.path.subscription.as_deref().unwrap_or_default();
        let used = usages::of(&self.stamp, subscription).await?;
        let store = &*self.stamp.store;
        let disks = own::count(store, false, subscription).await?;
        let snapshots = own::count(store, true, subscription).await?;
        let made = [disks, snapshots].map(|count| u64::try_from(count).unwrap_or(u64::MAX));
        Ok(Response::ok(usages::compute(&used, made, &self.stamp.limits)))
    }
}
