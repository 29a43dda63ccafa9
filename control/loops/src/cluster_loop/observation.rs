//! The observation that a pass plans from: the loop's state, the records, and what the agents report.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use control_planner::{
    Addresses, ConfigSeen, Drain, Effect, Machine, Maintenance, Neighbours, NetworkSeen, Observation,
    Presence, SilentMachines, StampRanges,
};
use control_records::{
    MachineRecord, ObservedRecord, OperationRecord, RepairStep, Role, command::CommandRecord, key,
};
use control_store::Stored;
use jiff::Timestamp;

use super::ClusterLoop;
use crate::{
    commit::{Basis, CommitError},
    disks, publics, silent_machines,
};

impl ClusterLoop {
    /// The observation that the plan is made from. Large parts of the state are moved into it and not copied:
    /// see [`Self::take_back`].
    pub(super) async fn seen(
        &mut self,
        basis: &Basis,
        observed: ObservedRecord,
        now: Timestamp,
    ) -> Result<Observation, CommitError> {
        let deps = &self.shared.deps;
        let stamp = deps.fabric.stamp_network();
        // The last await that can fail: after it the observation takes data out of the state, which must not
        // be lost.
        let renderers = deps.recipes.renderers(&basis.cluster.value)?;
        // Only a newer release than the one that configured the machines is planned work.
        let known = observed.renderers.as_ref();
        let maintenance = if known.is_some_and(|known| *known != renderers) {
            self.records.maintenance(&*deps.store, &self.uid).await?
        } else {
            Maintenance::default()
        };
        let pki = self.records.pki.read(&*deps.store, &key::pki(&self.uid)).await?;
        let rotation = pki.as_ref().map(|pki| pki.value.rotation.clone());
        let pki = pki.map(|pki| pki.value.generation);
        self.state.keys_are(pki);
        let commands = self
            .records
            .commands
            .list(&*deps.store, &CommandRecord::all(&self.uid))
            .await?;
        let commands = commands.into_iter().filter(|command| command.value.is_open());
        let commands: BTreeMap<_, _> = commands
            .map(|command| {
                let id = command.value.id.clone();
                let again = self.state.commands.get(&id).copied();
                (id, again)
            })
            .collect();
        let storage = self.state.api.storage.as_ref();
        let disks = disks::named(&*deps.store, &basis.cluster.value, &basis.volumes, storage).await?;
        let wishes = self.state.api.services.as_deref();
        let publics = publics::named(&*deps.store, &basis.cluster.value, &basis.balancers, wishes).await?;
        let known = |name: &String| basis.namespaces.iter().any(|one| one.value.name == *name);
        self.state.api.namespaces.retain(|name, _| known(name));
        let mut machines = BTreeMap::new();
        for Stored { value: record, .. } in &basis.machines {
            let id = record.id.clone();
            let wiped = record
                .repairing()
                .is_some_and(|(step, _)| step == RepairStep::Reimage);
            let emptied = record.emptying.as_ref();
            let emptied = emptied.is_some_and(|emptying| emptying.given_up.is_none());
            if record.deleting || wiped || emptied {
                self.state.drains.entry(id.clone()).or_insert(Drain {
                    since: now,
                    asked: None,
                    left: None,
                    held: None,
                });
            }
            // A machine that has lost its key cannot identify itself, so it counts as absent.
            let presence = match self.state.presence.get(&id).copied() {
                Some(Presence::Running) if !record.deleting && deps.agents.has_lost_key(&id) => {
                    Presence::Absent
                }
                known => known.unwrap_or(Presence::Unknown),
            };
            let mut machine = Machine {
                presence,
                config: self
                    .state
                    .configs
                    .get(&id)
                    .cloned()
                    .unwrap_or(ConfigSeen::Unknown),
                report: deps.agents.report(&id),
                drain: self.state.drains.get(&id).cloned(),
                contact: deps.agents.contact(&id),
                hung_up: (!basis.balancers.is_empty())
                    .then(|| deps.agents.hung_up(&id))
                    .flatten(),
                running_since: None,
                symptom: None,
                well_since: None,
                repaired: None,
                ended_boot: None,
                record: MachineRecord::clone(record),
            };
            let fell_silent = self.state.health.examine(
                &mut machine,
                &self.state.api,
                basis.cluster.value.spec().network.plugin,
                &deps.settings.policy.heal,
                now,
            );
            if fell_silent {
                self.state.doubt_machines();
            }
            machines.insert(id, machine);
        }
        // Any of them is sufficient.
        let api_server_ready = machines
            .values()
            .filter(|machine| matches!(machine.role(), Some(Role::ControlPlane { .. })))
            .filter_map(Machine::api_server_ready)
            .reduce(|one, other| one || other);
        self.state.listen(api_server_ready);
        let wanted = usize::try_from(basis.cluster.value.spec().tier.members()).unwrap_or(usize::MAX);
        let members = machines
            .values()
            .filter(|machine| !machine.record.deleting && machine.node_name().is_none())
            .count();
        let symptoms = machines.values().filter_map(|machine| machine.symptom.as_ref());
        let matters = silent_machines::matters(symptoms, &deps.settings.policy.heal, now);
        Ok(Observation {
            renderers,
            maintenance,
            pki,
            rotation: rotation.unwrap_or_default(),
            stamp: StampRanges {
                machines: stamp.machines(),
                vips: stamp.vips(),
            },
            unknown_machines: self.shared.index.unknown_machines(&self.uid),
            kept: self.shared.index.kept_places(&self.uid),
            neighbours: match &basis.cluster.value.spec().network.vnet {
                Some(vnet) => self.shared.index.neighbours(&vnet.uid, &self.uid),
                None => Neighbours::default(),
            },
            guards: match &basis.cluster.value.spec().network.vnet {
                Some(vnet) => self.shared.index.guards(&vnet.uid),
                None => BTreeMap::new(),
            },
            silent_machines: if matters {
                let now = deps.env.clock.monotonic();
                self.shared
                    .silent_machines
                    .count(&self.shared.index, &*deps.agents, now)
            } else {
                SilentMachines::default()
            },
            taken: if Addresses::of(&observed).is_none()
                || members < wanted
                || self.state.lacks_one(&basis.balancers)
            {
                self.shared.index.taken()
            } else {
                BTreeSet::new()
            },
            gaps: self.shared.gap_detector.gaps(&*deps.env.clock),
            observed,
            machines,
            inventory_stale: self.state.inventory_stale,
            network: std::mem::replace(&mut self.state.network, NetworkSeen::Unknown),
            api: std::mem::take(&mut self.state.api),
            credentials: basis
                .credentials
                .iter()
                .map(|credential| Arc::clone(&credential.value))
                .collect(),
            trusted: basis
                .trusted
                .iter()
                .map(|binding| Arc::clone(&binding.value))
                .collect(),
            namespaces: basis
                .namespaces
                .iter()
                .map(|namespace| Arc::clone(&namespace.value))
                .collect(),
            balancers: basis
                .balancers
                .iter()
                .map(|balancer| Arc::clone(&balancer.value))
                .collect(),
            volumes: basis
                .volumes
                .iter()
                .map(|volume| Arc::clone(&volume.value))
                .collect(),
            volumes_there: self.state.lend_volumes(),
            disks,
            publics,
            commands,
            images: self.state.images.clone(),
            operations: basis
                .operations
                .iter()
                .map(|operation| OperationRecord::clone(&operation.value))
                .collect(),
            namespace_operations: basis
                .namespace_operations
                .iter()
                .map(|operation| OperationRecord::clone(&operation.value))
                .collect(),
            busy: self.running_effects.values().map(Effect::subject).collect(),
            held: std::mem::take(&mut self.state.held),
        })
    }

    /// Returns the data of the observation to the state, before any other step.
    pub(super) fn take_back(&mut self, seen: Observation) -> ObservedRecord {
        self.state.network = seen.network;
        self.state.api = seen.api;
        self.state.held = seen.held;
        self.state.take_volumes_back(seen.volumes_there);
        seen.observed
    }
}
