//! The world as a fabric.

use std::{collections::BTreeSet, net::Ipv4Addr, sync::Arc};

use async_trait::async_trait;
use fabric_api::{
    Attach, Fabric, FabricError, Inventory, KeptDisk, MachineId, MachineSeen, MachineSpec, NetworkId,
    NetworkSpec, Power, Protocol, StampNetwork, VolumeId, VolumeSpec,
};

use crate::{
    Inner, SimWorld,
    ailments::Cure,
    disks, enrolment,
    etcd::Etcd,
    faults::{Call, Verdict},
    options::draw,
    state::Machine,
    violations,
};

/// The message of injected failures.
pub(crate) const INJECTED: &str = "injected fault";

impl Inner {
    /// Counts a call and asks the interceptor; `Ok(true)` when its answer must be lost.
    async fn begin(&self, call: Call, what: &str) -> Result<bool, FabricError> {
        match self.judge(call, what).await {
            Verdict::Works => Ok(false),
            Verdict::LosesAnswer => Ok(true),
            Verdict::Fails => Err(FabricError::failed(call.name(), INJECTED)),
        }
    }

    /// The verdict on a call: a fault requested by the test, else the interceptor's.
    pub(crate) async fn judge(&self, call: Call, what: &str) -> Verdict {
        let verdict = self
            .state()
            .faults
            .judge(call, self.env.seed, self.options.failure_rate);
        let interceptor = self.interceptor();
        match (verdict, interceptor) {
            (Verdict::Works, Some(interceptor)) => interceptor.before(call, what).await,
            (verdict, Some(interceptor)) => {
                interceptor.after(call, what, Some(INJECTED)).await;
                verdict
            }
            (verdict, None) => verdict,
        }
    }

    /// Reports the end of a call to the interceptor.
    pub(crate) async fn done(&self, call: Call, what: &str, failure: Option<&str>) {
        if let Some(interceptor) = self.interceptor() {
            interceptor.after(call, what, failure).await;
        }
    }

    async fn end(&self, answer_lost: bool, call: Call, what: &str) -> Result<(), FabricError> {
        self.done(call, what, None).await;
        if answer_lost {
            Err(FabricError::failed(call.name(), INJECTED))
        } else {
            Ok(())
        }
    }

    /// [`Self::end`] of a call that the fabric may have refused.
    async fn conclude(
        &self,
        answer_lost: bool,
        call: Call,
        what: &str,
        outcome: Result<(), FabricError>,
    ) -> Result<(), FabricError> {
        match outcome {
            Ok(()) => self.end(answer_lost, call, what).await,
            Err(error) => {
                self.done(call, what, Some(&error.to_string())).await;
                Err(error)
            }
        }
    }

    /// The time of one step in the life of a machine, network or volume.
    async fn work(&self, what: &str) {
        let index = self
            .state()
            .faults
            .tallies()
            .iter()
            .map(|(_, tally)| tally.calls)
            .sum();
        let seed = self.env.seed.child("fabric").child(what);
        self.env
            .clock
            .sleep(draw(&self.options.fabric, seed, index))
            .await;
    }

    /// Ends a machine's first process.
    pub(crate) fn power_off(self: &Arc<Self>, id: &MachineId) -> bool {
        let mut state = self.state();
        let Some(machine) = state.machines.get_mut(id.as_str()) else {
            return false;
        };
        if machine.power != Power::Running {
            return false;
        }
        machine.power = Power::Stopped;
        machine.up = false;
        machine.ready = false;
        machine.etcd_runs = false;
        machine.registered = false;
        machine.line = None;
        machine.vip = None;
        let cluster = machine.cluster().map(str::to_owned);
        if let Some(cluster) = cluster {
            self.after_loss(&mut state, &cluster, id.as_str());
        }
        true
    }

    /// Deletes a machine.
    pub(crate) fn remove_machine(self: &Arc<Self>, id: &MachineId) -> bool {
        let mut state = self.state();
        let Some(machine) = state.machines.remove(id.as_str()) else {
            return false;
        };
        violations::machine_gone(&mut state, &machine.spec);
        state.enlist(id.as_str(), machine.cluster(), None);
        self.cure(&mut state, id.as_str(), Cure::Reimage);
        if let Some(cluster) = machine.cluster() {
            self.after_loss(&mut state, cluster, id.as_str());
            self.bury(&mut state, cluster);
        }
        true
    }
}

/// Whether a task of an agent brings the image of this add-on.
pub(crate) fn is_image(task: &str, name: &str) -> bool {
    let image = task
        .strip_prefix("image-")
        .and_then(|rest| rest.strip_prefix(name));
    image.is_some_and(|version| version.starts_with('-'))
}

impl SimWorld {
    /// Images of add-ons that were asked for, by name.
    pub fn addon_images(&self) -> Vec<String> {
        self.inner.state().addon_images.keys().cloned().collect()
    }

    /// The running machines that a connection to a balancer's address may reach; `None` if there is no such
    /// port.
    pub fn reached(&self, address: Ipv4Addr, protocol: Protocol, port: u16) -> Option<BTreeSet<MachineId>> {
        let state = self.inner.state();
        let networks = state.networks.values();
        let mut balanced = networks.flat_map(move |network| {
            let balancers = network.balancers.iter();
            let here = balancers.filter(move |balancer| balancer.address == address);
            let ports = here.flat_map(|balancer| &balancer.ports);
            ports
                .filter(move |found| found.protocol == protocol && found.port == port)
                .map(move |found| (&network.id, found))
        });
        let (network, found) = balanced.next()?;
        let machines = state.machines.values().filter(|machine| {
            let mut cards = machine.spec.nics.iter();
            machine.power == Power::Running
                && cards.any(|card| {
                    matches!(&card.attach, Attach::Subnet { network: of, .. } if of == network)
                        && found.machines.contains(&card.address.addr())
                })
        });
        Some(machines.map(|machine| machine.spec.id.clone()).collect())
    }
}

#[async_trait]
impl Fabric for SimWorld {
    fn stamp_network(&self) -> &StampNetwork {
        &self.inner.options.network
    }

    async fn ensure_stamp(&self) -> Result<(), FabricError> {
        let answer_lost = self.inner.begin(Call::EnsureStamp, "").await?;
        self.inner.state().stamp = true;
        self.inner.end(answer_lost, Call::EnsureStamp, "").await
    }

    async fn stop_stamp(&self) -> Result<(), FabricError> {
        let answer_lost = self.inner.begin(Call::StopStamp, "").await?;
        let ids: Vec<String> = self.inner.state().machines.keys().cloned().collect();
        for id in ids {
            self.inner.power_off(&MachineId(id));
        }
        {
            let mut state = self.inner.state();
            disks::let_go(&mut state);
            state.stamp = false;
        }
        self.inner.end(answer_lost, Call::StopStamp, "").await
    }

    async fn delete_stamp(&self) -> Result<(), FabricError> {
        let answer_lost = self.inner.begin(Call::DeleteStamp, "").await?;
        let ids: Vec<String> = self.inner.state().machines.keys().cloned().collect();
        for id in ids {
            self.inner.remove_machine(&MachineId(id));
        }
        {
            let mut state = self.inner.state();
            state.networks.clear();
            state.kept_disks.clear();
            state.disks.clear();
            state.deleted_disks.clear();
            state.clusters.clear();
            state.stamp = false;
        }
        self.inner.end(answer_lost, Call::DeleteStamp, "").await
    }

    async fn ensure_network(&self, spec: &NetworkSpec) -> Result<(), FabricError> {
        let answer_lost = self.inner.begin(Call::EnsureNetwork, spec.id.as_str()).await?;
        self.inner.work(spec.id.as_str()).await;
        {
            let mut state = self.inner.state();
            state.stamp = true;
            violations::network(&mut state, spec);
            state.networks.insert(spec.id.clone(), spec.clone());
        }
        self.inner
            .end(answer_lost, Call::EnsureNetwork, spec.id.as_str())
            .await
    }

    async fn delete_network(&self, id: &NetworkId) -> Result<(), FabricError> {
        let answer_lost = self.inner.begin(Call::DeleteNetwork, id.as_str()).await?;
        self.inner.work(id.as_str()).await;
        self.inner.remove_network(id);
        self.inner
            .end(answer_lost, Call::DeleteNetwork, id.as_str())
            .await
    }

    async fn ensure_image(&self, version: &str) -> Result<(), FabricError> {
        let answer_lost = self.inner.begin(Call::EnsureImage, version).await?;
        self.inner.end(answer_lost, Call::EnsureImage, version).await
    }

    async fn ensure_addon_image(&self, name: &str) -> Result<(), FabricError> {
        let call = Call::EnsureAddonImage;
        let answer_lost = self.inner.begin(call, name).await?;
        let outcome = self.inner.addon_image(name);
        self.inner.conclude(answer_lost, call, name, outcome).await
    }

    async fn ensure_machine(&self, spec: &MachineSpec) -> Result<(), FabricError> {
        let answer_lost = self.inner.begin(Call::EnsureMachine, spec.id.as_str()).await?;
        self.inner.write_down(spec)?;
        // A caller that goes away here leaves a partial machine, as a crash of the service does.
        self.inner.work(spec.id.as_str()).await;
        self.inner.power_on(&spec.id);
        self.inner
            .end(answer_lost, Call::EnsureMachine, spec.id.as_str())
            .await
    }

    async fn start_machine(&self, spec: &MachineSpec) -> Result<(), FabricError> {
        let found = self
            .inner
            .state()
            .machines
            .get(spec.id.as_str())
            .map(|machine| machine.power);
        if found.is_none_or(|power| power == Power::Partial) {
            return Err(FabricError::NoDisk(spec.id.clone()));
        }
        self.ensure_machine(spec).await
    }

    async fn stop_machine(&self, id: &MachineId) -> Result<(), FabricError> {
        let answer_lost = self.inner.begin(Call::StopMachine, id.as_str()).await?;
        if !self.inner.state().machines.contains_key(id.as_str()) {
            return Err(FabricError::NotFound(format!("machine {id}")));
        }
        self.inner.work(id.as_str()).await;
        self.inner.power_off(id);
        self.inner.end(answer_lost, Call::StopMachine, id.as_str()).await
    }

    async fn delete_machine(&self, id: &MachineId) -> Result<(), FabricError> {
        let answer_lost = self.inner.begin(Call::DeleteMachine, id.as_str()).await?;
        self.inner.state().kept_disks.retain(|disk| disk.machine != *id);
        self.inner.take_away(id).await;
        self.inner
            .end(answer_lost, Call::DeleteMachine, id.as_str())
            .await
    }

    async fn reset_machine(&self, id: &MachineId) -> Result<(), FabricError> {
        let answer_lost = self.inner.begin(Call::ResetMachine, id.as_str()).await?;
        {
            let mut state = self.inner.state();
            let found = state.machines.get(id.as_str());
            // What is there in part is what an earlier call has begun to take away, and has set aside.
            if found.is_some_and(|machine| machine.data.is_some() && machine.power != Power::Partial) {
                let disk = KeptDisk::next(id, &state.kept_disks)?;
                state.kept_disks.insert(disk);
            }
        }
        self.inner.take_away(id).await;
        self.inner.end(answer_lost, Call::ResetMachine, id.as_str()).await
    }

    async fn delete_kept_disk(&self, disk: &KeptDisk) -> Result<(), FabricError> {
        let (call, name) = (Call::DeleteKeptDisk, disk.to_string());
        let answer_lost = self.inner.begin(call, &name).await?;
        self.inner.state().kept_disks.remove(disk);
        self.inner.end(answer_lost, call, &name).await
    }

    async fn ensure_volume(&self, spec: &VolumeSpec) -> Result<(), FabricError> {
        let (call, what) = (Call::EnsureVolume, spec.id.as_str());
        let answer_lost = self.inner.begin(call, what).await?;
        let mut outcome = self.inner.write_down_disk(spec);
        if outcome.is_ok() {
            // A caller that goes away here leaves a partial volume, as a crash of the service does.
            self.inner.work(what).await;
            outcome = self.inner.complete_disk(spec);
        }
        self.inner.conclude(answer_lost, call, what, outcome).await
    }

    async fn delete_volume(&self, id: &VolumeId) -> Result<(), FabricError> {
        let (call, what) = (Call::DeleteVolume, id.as_str());
        let answer_lost = self.inner.begin(call, what).await?;
        self.inner.work(what).await;
        let outcome = self.inner.delete_disk(id);
        self.inner.conclude(answer_lost, call, what, outcome).await
    }

    async fn attach_volume(&self, id: &VolumeId, machine: &MachineId) -> Result<(), FabricError> {
        let (call, what) = (Call::AttachVolume, id.as_str());
        let answer_lost = self.inner.begin(call, what).await?;
        self.inner.work(what).await;
        let outcome = self.inner.attach_disk(id, machine);
        self.inner.conclude(answer_lost, call, what, outcome).await
    }

    async fn detach_volume(&self, id: &VolumeId) -> Result<(), FabricError> {
        let (call, what) = (Call::DetachVolume, id.as_str());
        let answer_lost = self.inner.begin(call, what).await?;
        self.inner.work(what).await;
        let outcome = self.inner.detach_disk(id);
        self.inner.conclude(answer_lost, call, what, outcome).await
    }

    async fn machine(&self, id: &MachineId) -> Result<Option<MachineSpec>, FabricError> {
        let state = self.inner.state();
        let found = state.machines.get(id.as_str());
        Ok(found.map(|machine| MachineSpec {
            seed_files: Default::default(),
            ..machine.spec.clone()
        }))
    }

    async fn network(&self, id: &NetworkId) -> Result<Option<NetworkSpec>, FabricError> {
        Ok(self.inner.state().networks.get(id).cloned())
    }

    async fn list(&self) -> Result<Inventory, FabricError> {
        let answer_lost = self.inner.begin(Call::List, "").await?;
        self.inner.end(answer_lost, Call::List, "").await?;
        let state = self.inner.state();
        Ok(Inventory {
            machines: state.machines.values().map(seen).collect(),
            networks: state.networks.keys().cloned().collect(),
            kept_disks: state.kept_disks.iter().cloned().collect(),
            volumes: state.disks.values().map(disks::seen).collect(),
        })
    }
}

impl Inner {
    /// The image of an add-on, which is built since it was first asked for. Agents that wait for it have it then.
    fn addon_image(&self, name: &str) -> Result<(), FabricError> {
        let mut state = self.state();
        let now = self.env.clock.monotonic();
        let built = now + self.options.image_build;
        let at = *state.addon_images.entry(name.to_owned()).or_insert(built);
        if now < at {
            return Err(FabricError::NoAddonImage {
                name: name.to_owned(),
                state: Some("being built".to_owned()),
            });
        }
        let waiting = state.machines.iter().filter(|(_, machine)| {
            let tasks = machine.in_force.iter().flat_map(|config| &config.tasks);
            tasks.into_iter().any(|task| is_image(&task.name, name))
        });
        for id in waiting.map(|(id, _)| id.clone()).collect::<Vec<_>>() {
            self.report(&state, &id);
        }
        Ok(())
    }

    /// Stops a machine and deletes its disk.
    async fn take_away(self: &Arc<Self>, id: &MachineId) {
        if !self.state().machines.contains_key(id.as_str()) {
            return;
        }
        self.power_off(id);
        if let Some(machine) = self.state().machines.get_mut(id.as_str()) {
            machine.power = Power::Partial;
            machine.in_force = None;
            machine.identity = None;
        }
        self.work(id.as_str()).await;
        self.remove_machine(id);
    }

    fn remove_network(&self, id: &NetworkId) {
        let mut state = self.state();
        let users: Vec<String> = state
            .machines
            .iter()
            .filter(|(_, machine)| plugged_into(&machine.spec, id))
            .map(|(machine, _)| machine.clone())
            .collect();
        if !users.is_empty() {
            let message = format!("network {id} was removed under {}", users.join(", "));
            state.violations.push(message);
        }
        state.networks.remove(id);
        // With its VNET, a cluster is deleted for good.
        if let Some(cluster) = state.clusters.get_mut(id.as_str()) {
            cluster.nodes.clear();
            cluster.objects.clear();
            cluster.etcd = Etcd::default();
        }
    }

    /// The first step of a machine's creation: it exists partially.
    fn write_down(self: &Arc<Self>, spec: &MachineSpec) -> Result<(), FabricError> {
        let mut state = self.state();
        for card in &spec.nics {
            if let Attach::Subnet { network, subnet } = &card.attach {
                let there = state
                    .networks
                    .get(network)
                    .is_some_and(|found| found.subnets.iter().any(|found| found.name == *subnet));
                if !there {
                    return Err(FabricError::NotFound(format!(
                        "subnet {subnet} of network {network}"
                    )));
                }
            }
        }
        let known = MachineSpec {
            seed_files: Default::default(),
            ..spec.clone()
        };
        let id = spec.id.as_str();
        let now = spec.labels.get("cluster").map(String::as_str);
        let before = state
            .machines
            .get(id)
            .and_then(Machine::cluster)
            .map(str::to_owned);
        match state.machines.get_mut(id) {
            Some(machine) if machine.power == Power::Running => {
                machine.spec.labels.clone_from(&spec.labels);
                machine.hash.get_or_insert_with(|| fabric_net::spec_hash(spec));
            }
            Some(machine) => {
                machine.hash = Some(fabric_net::spec_hash(spec));
                if let Some(token) = enrolment::token(&spec.seed_files) {
                    machine.token = token;
                }
                let old = std::mem::replace(&mut machine.spec, known);
                violations::image(&mut state, &old, spec);
                violations::machine_gone(&mut state, &old);
                violations::machine(&mut state, spec);
            }
            None => {
                violations::machine(&mut state, spec);
                let made = Machine::new(spec.clone(), fabric_net::spec_hash(spec));
                state.machines.insert(id.to_owned(), made);
            }
        }
        state.enlist(id, before.as_deref(), now);
        if let Some(cluster) = spec.labels.get("cluster") {
            self.join_nodes(&mut state, cluster);
        }
        Ok(())
    }

    /// The last step: its first process runs.
    fn power_on(self: &Arc<Self>, id: &MachineId) {
        let mut guard = self.state();
        let state = &mut *guard;
        let broken = state.faults.boots > 0;
        let Some(machine) = state.machines.get_mut(id.as_str()) else {
            // Deleted during its creation.
            return;
        };
        if machine.power == Power::Running {
            return;
        }
        machine.power = Power::Running;
        let boots = state.boots.entry(id.to_string()).or_default();
        *boots += 1;
        machine.boot = *boots;
        machine.sequence = 0;
        let (boot, cluster) = (machine.boot, machine.cluster().map(str::to_owned));
        if let Some(cluster) = cluster {
            violations::skew(state, &cluster);
        }
        self.cure(state, id.as_str(), Cure::Reboot);
        if broken {
            state.faults.boots -= 1;
        } else {
            self.boot(id.as_str(), boot);
        }
    }
}

/// A machine as in a listing.
pub(crate) fn seen(machine: &Machine) -> MachineSeen {
    MachineSeen {
        id: machine.spec.id.clone(),
        power: machine.power,
        // Damaged metadata has no labels.
        labels: machine
            .hash
            .as_ref()
            .map(|_| machine.spec.labels.clone())
            .unwrap_or_default(),
        spec_hash: machine.hash.clone(),
    }
}

fn plugged_into(spec: &MachineSpec, id: &NetworkId) -> bool {
    spec.nics
        .iter()
        .any(|card| matches!(&card.attach, Attach::Subnet { network, .. } if network == id))
}
