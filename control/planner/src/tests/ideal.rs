//! A world where what is planned happens at once.

use cluster_api::Ingress;
use cluster_spec::AddonImage;
use control_records::balancer::BalancerRecord;

use super::*;

/// See the module.
pub(super) struct Ideal {
    pub(super) desired: ClusterRecord,
    pub(super) seen: Observation,
    pub(super) policy: Policy,
    pub(super) now: Timestamp,
    pub(super) forgotten: bool,
    pub(super) next_id: u32,
    pub(super) ended: Vec<(String, OperationStatus)>,
    pub(super) health: Health,
    /// Machines that say nothing, since when, and the step that brings them back.
    pub(super) ill: BTreeMap<String, (Timestamp, RepairStep)>,
    /// etcd's voting members, where there is a membership controller to tell.
    pub(super) voters: BTreeSet<String>,
    /// The restore that members' etcd says its data comes from.
    pub(super) restored: Option<String>,
    /// Whether all members' etcd say that they have lost what they had.
    pub(super) emptied: bool,
    /// What the control plane's backup program says.
    pub(super) backup: Option<BackupStatus>,
    pub(super) told: Vec<(Timestamp, Event)>,
    /// By machine: how often it was started, and the image it runs since.
    pub(super) boots: BTreeMap<String, (u32, String)>,
    /// Configurations in the store, of machines that were stopped.
    pub(super) stored: BTreeMap<String, ConfigSeen>,
    /// Volumes in the fabric.
    pub(super) disks: BTreeMap<String, VolumeThere>,
    /// Machines of nodes with pods that cannot be evicted.
    pub(super) stubborn: BTreeSet<String>,
    /// Pods in the cluster, as read for the autoscaler.
    pub(super) pods: Vec<cluster_autoscaler::Pod>,
    /// Names of Namespaces that nobody manages.
    pub(super) strangers: BTreeSet<String>,
}

impl Ideal {
    pub(super) fn new(desired: ClusterRecord, seen: Observation) -> Self {
        Self {
            desired,
            seen,
            policy: Policy::default(),
            now: at(1),
            forgotten: false,
            next_id: 0,
            ended: Vec::new(),
            health: Default::default(),
            ill: BTreeMap::new(),
            voters: BTreeSet::new(),
            restored: None,
            emptied: false,
            backup: None,
            told: Vec::new(),
            boots: BTreeMap::new(),
            stored: BTreeMap::new(),
            disks: BTreeMap::new(),
            stubborn: BTreeSet::new(),
            pods: Vec::new(),
            strangers: BTreeSet::new(),
        }
    }

    pub(super) fn plan(&self) -> Plan {
        let first = plan(&self.desired, &self.seen, &self.policy, self.now);
        assert_eq!(first, plan(&self.desired, &self.seen, &self.policy, self.now));
        first
    }

    /// One pass. Returns whether anything is left.
    pub(super) fn pass(&mut self) -> bool {
        if !is_served(&self.desired) {
            self.seen.api = ApiSeen {
                change: self.seen.api.change,
                nodes: std::mem::take(&mut self.seen.api.nodes),
                ..ApiSeen::default()
            };
        }
        self.examine();
        let plan = self.plan();
        self.told
            .extend(plan.events.iter().map(|event| (self.now, event.clone())));
        let mut subjects = BTreeSet::new();
        for effect in &plan.effects {
            assert!(
                subjects.insert(effect.subject()),
                "two effects on one subject: {:?}",
                plan.effects
            );
            assert!(!self.seen.busy.contains(&effect.subject()));
        }
        for effect in &plan.effects {
            self.carry_out(effect);
        }
        self.seen.observed = plan.observed.clone();
        for write in &plan.writes {
            self.write(write);
        }
        self.world();
        self.now = match plan.look_again {
            Some(at) if plan.effects.is_empty() && plan.writes.is_empty() => at.max(self.now),
            _ => after(self.now, Duration::from_millis(100)),
        };
        !plan.settled() && !self.forgotten
    }

    pub(super) fn write(&mut self, write: &Write) {
        match write {
            Write::Lease(addresses) => {
                for address in [addresses.vip, addresses.uplink] {
                    assert!(
                        self.seen.taken.insert(address) || Addresses::of(&self.seen.observed).is_some(),
                        "{address} was taken"
                    );
                }
            }
            Write::CreatePki => {
                assert_eq!(self.seen.pki, None);
                self.seen.pki = Some(1);
            }
            Write::StepKeys { generation, step } => {
                assert_eq!(self.seen.pki, Some(*generation));
                self.seen.pki = Some(generation + 1);
                self.seen.rotation = self.seen.rotation.after(step);
            }
            Write::Repair {
                machine,
                work,
                healing,
                new_token,
                remove,
            } => {
                let machine = self.seen.machines.get_mut(machine).unwrap();
                assert!(!remove || healing.given_up());
                machine.record.work.clone_from(work);
                machine.record.healing.clone_from(healing);
                machine.record.deleting |= remove;
                if *new_token {
                    machine.record.enrolled_key = None;
                }
            }
            Write::RenewToken(id) => {
                let machine = self.seen.machines.get_mut(id).unwrap();
                assert!(
                    matches!(machine.presence, Presence::Absent | Presence::Gone),
                    "only what is gone is made anew"
                );
                machine.record.enrolled_key = None;
            }
            Write::RecordMachine { role, image, build } => {
                if let Role::ControlPlane { address, .. } = role {
                    assert!(self.seen.taken.insert(*address), "{address} was taken");
                }
                let id = format!("new{}", self.next_id);
                self.next_id += 1;
                let mut machine = machine(&id, role.clone());
                machine.record.image.clone_from(image);
                machine.record.build.clone_from(build);
                machine.record.created_at = self.now;
                self.seen.machines.insert(
                    id,
                    Machine {
                        presence: Presence::Absent,
                        config: ConfigSeen::Absent,
                        ..machine
                    },
                );
            }
            Write::Upgrade { machine, image, work } => {
                let machine = self.seen.machines.get_mut(machine).unwrap();
                assert!(machine.node_name().is_none(), "a node's image is for ever");
                machine.record.image.clone_from(image);
                machine.record.work.clone_from(work);
            }
            Write::Inherit { machine, inherited } => {
                let machine = self.seen.machines.get_mut(machine).unwrap();
                machine.record.inherited = Some(inherited.clone());
            }
            Write::Empty { machine, emptying } => {
                let machine = self.seen.machines.get_mut(machine.machine()).unwrap();
                assert!(machine.node_name().is_some() && !machine.record.deleting);
                machine.drain = emptying.as_ref().map(|_| Drain {
                    since: self.now,
                    asked: None,
                    left: None,
                    held: None,
                });
                machine.record.emptying.clone_from(emptying);
            }
            Write::MarkMachine(permit) => {
                let machine = self.seen.machines.get_mut(permit.machine()).unwrap();
                machine.record.deleting = true;
                machine.drain = Some(Drain {
                    since: self.now,
                    asked: None,
                    left: None,
                    held: None,
                });
            }
            Write::RemoveMachine(id) => {
                let machine = self.seen.machines.remove(id).unwrap();
                assert_eq!(machine.presence, Presence::Gone, "a record goes last");
            }
            Write::RevokeCredential(id) => {
                let mut records = self.seen.credentials.iter_mut();
                let record = records.find(|record| record.id == *id).unwrap();
                assert!(record.revoked.is_none());
                Arc::make_mut(record).revoked = Some(control_records::credential::Revoked {
                    at: self.now,
                    by: None,
                });
            }
            Write::ForgetCredential(id) => self.seen.credentials.retain(|record| record.id != *id),
            Write::RecordBalancer {
                uid,
                namespace,
                name,
                address,
                internal,
                public,
                asked,
            } => {
                let mut others = self.seen.balancers.iter();
                let shares = |other: &BalancerRecord| public.is_some() && other.public == *public;
                assert!(
                    others.all(|other| (other.address != *address || shares(other)) && other.uid != *uid),
                    "{address} was taken"
                );
                let new = *internal || self.seen.taken.insert(*address);
                assert!(new || public.is_some(), "{address} was taken");
                let record = BalancerRecord {
                    v: 1,
                    uid: uid.clone(),
                    namespace: namespace.clone(),
                    name: name.clone(),
                    address: *address,
                    internal: *internal,
                    public: public.clone(),
                    asked: asked.clone(),
                    created_at: self.now,
                };
                self.seen.balancers.push(Arc::new(record));
                self.seen.balancers.sort_by(|one, other| one.uid.cmp(&other.uid));
            }
            Write::ForgetBalancer(uid) => {
                let record = self
                    .seen
                    .balancers
                    .iter()
                    .find(|record| record.uid == *uid)
                    .unwrap();
                let address = record.address;
                let mut others = self.seen.balancers.iter();
                let shared = others.any(|other| other.uid != *uid && other.address == address);
                if let NetworkSeen::Made(layout) = &self.seen.network {
                    assert!(shared || !layout.balances(address), "a record goes last");
                }
                if record.public.is_none() {
                    self.seen.taken.remove(&address);
                }
                self.seen.balancers.retain(|record| record.uid != *uid);
            }
            Write::RecordVolume(_)
            | Write::GrowVolume { .. }
            | Write::VolumePublished(_)
            | Write::MarkVolume(_)
            | Write::ForgetVolume(_) => self.write_volume(write),
            Write::Scale(sizes) => self.scale(sizes),
            Write::ForgetNamespace(name) => self.forget_namespace(name),
            Write::Progress { id, progress } => {
                let operations = self.seen.operations.iter_mut();
                let mut operations = operations.chain(&mut self.seen.namespace_operations);
                let operation = operations.find(|operation| operation.id == *id).unwrap();
                assert!(operation.progress.percent <= progress.percent && progress.percent < 100);
                operation.progress = progress.clone();
            }
            Write::EndOperation { id, status, .. } => {
                self.seen.operations.retain(|operation| operation.id != *id);
                self.seen
                    .namespace_operations
                    .retain(|operation| operation.id != *id);
                self.ended.push((id.clone(), *status));
            }
            Write::Forget => {
                assert!(self.seen.machines.is_empty() && self.seen.network == NetworkSeen::Gone);
                assert!(self.seen.volumes.is_empty(), "a record goes last");
                self.forgotten = true;
            }
        }
    }

    pub(super) fn carry_out(&mut self, effect: &Effect) {
        let answers = self.api_answers();
        let api = &mut self.seen.api;
        match effect {
            Effect::Fabric(FabricEffect::Look) => {
                self.seen.inventory_stale = false;
                self.seen.volumes_there = Some(self.disks.clone());
                for machine in self.seen.machines.values_mut() {
                    if machine.presence == Presence::Unknown {
                        // The fabric has what its configuration tells of.
                        machine.presence = match machine.config {
                            ConfigSeen::Published { .. } => Presence::Running,
                            _ => Presence::Absent,
                        };
                    }
                }
            }
            Effect::Config(ConfigEffect::Load(id)) => {
                let stored = self.stored.get(id).cloned();
                self.seen.machines.get_mut(id).unwrap().config = stored.unwrap_or(ConfigSeen::Absent);
            }
            Effect::Config(ConfigEffect::Render {
                machine,
                generation,
                inputs,
            }) => {
                assert!(self.seen.pki.is_some() && Addresses::of(&self.seen.observed).is_some());
                let config = &mut self.seen.machines.get_mut(machine.machine()).unwrap().config;
                // Certificates that still hold are kept.
                let kept = match config {
                    ConfigSeen::Published { issued_at, .. } => Some(*issued_at),
                    ConfigSeen::Unknown | ConfigSeen::Absent => None,
                }
                .filter(|issued_at| after(*issued_at, self.policy.renew_after) > self.now);
                *config = ConfigSeen::Published {
                    generation: *generation,
                    inputs: inputs.clone(),
                    made_at: self.now,
                    issued_at: kept.unwrap_or(self.now),
                };
            }
            Effect::Fabric(FabricEffect::EnsureNetwork(layout)) => {
                self.seen.network = NetworkSeen::Made(layout.clone())
            }
            Effect::Fabric(FabricEffect::EnsureMachine(id)) => {
                assert!(
                    matches!(self.seen.network, NetworkSeen::Made(_)),
                    "a machine needs its network"
                );
                self.seen.machines.get_mut(id).unwrap().presence = Presence::Running;
                self.boot(id);
            }
            Effect::Fabric(FabricEffect::StopMachine(permit)) => {
                let id = permit.machine();
                let machine = self.seen.machines.get_mut(id).unwrap();
                machine.presence = Presence::Stopped;
                machine.report = None;
                if let ConfigSeen::Published { .. } = machine.config {
                    self.stored.insert(id.to_owned(), machine.config.clone());
                    machine.config = ConfigSeen::Unknown;
                }
            }
            Effect::Fabric(FabricEffect::RestartMachine { machine, at }) => {
                let machine = machine.machine();
                self.treat(machine, RepairStep::Reboot, *at);
                self.seen.machines.get_mut(machine).unwrap().presence = Presence::Running;
                self.boot(machine);
            }
            Effect::Fabric(FabricEffect::WipeMachine { machine, at }) => {
                let machine = machine.machine();
                self.treat(machine, RepairStep::Reimage, *at);
                let machine = self.seen.machines.get_mut(machine).unwrap();
                assert!(
                    machine.record.enrolled_key.is_none() || self.desired.spec().stopped,
                    "a new token"
                );
                machine.presence = Presence::Absent;
                machine.report = None;
            }
            Effect::Api(ApiEffect::Look) => {
                api.looked = api.change;
                api.looked_at = Some(self.now);
                api.reach = if answers { Reach::Ready } else { Reach::Away };
            }
            Effect::Fabric(FabricEffect::EnsureAddonImage(name)) => {
                assert!(self.seen.images.insert(name.clone()), "once");
            }
            Effect::Api(ApiEffect::SetNode {
                machine,
                node,
                images,
                inputs,
            }) => {
                api.set.insert(machine.clone(), inputs.clone());
                let images = images.iter().filter_map(|name| AddonImage::named(name));
                let labels = images.map(|image| (image.label(), image.tag().to_owned()));
                if let Some(node) = api.nodes.iter_mut().find(|seen| seen.name == *node) {
                    node.labels.extend(labels);
                }
            }
            Effect::Api(ApiEffect::ApproveServing) => api.approved = Some(api.change),
            Effect::Api(ApiEffect::ApplyAddons { inputs, .. }) => {
                api.addons = Some(AddonsSeen {
                    inputs: inputs.clone(),
                    at: self.now,
                    change: api.change,
                    ailments: Vec::new(),
                });
            }
            Effect::Api(ApiEffect::SetCredentials(wish)) => {
                // As with objects of add-ons: what was seen last may say that the API is there when it is no more.
                api.credentials = Some(CredentialsSeen {
                    wish: wish.clone(),
                    at: self.now,
                    change: api.change,
                });
            }
            Effect::Api(ApiEffect::Drain { machine, node }) => {
                assert!(api.node(node).is_some());
                let stays = self.stubborn.contains(machine.machine());
                let drain = &mut self.seen.machines.get_mut(machine.machine()).unwrap().drain;
                let asked = drain.as_ref().and_then(|drain| drain.asked);
                *drain = Some(Drain {
                    since: self.now,
                    asked: asked.or(Some(self.now)),
                    left: Some((if stays { 3 } else { 0 }, self.now)),
                    held: stays.then(|| "pod d/aa: two disruption budgets".to_owned()),
                });
            }
            Effect::Api(ApiEffect::Command(id)) => {
                // The first look finds it running, the second one over.
                let again = after(self.now, Duration::from_secs(1));
                if self
                    .seen
                    .commands
                    .insert(id.clone(), Some(again))
                    .flatten()
                    .is_some()
                {
                    self.seen.commands.remove(id);
                }
            }
            Effect::Api(ApiEffect::SetService(wish)) => {
                api.told.extend(
                    wish.note
                        .as_ref()
                        .map(|note| (wish.uid.clone(), note.message.clone())),
                );
                let services = api.services.get_or_insert_default();
                match services.iter_mut().find(|service| service.uid == wish.uid) {
                    None => drop(api.released.insert(wish.uid.clone())),
                    Some(service) => {
                        service.finalizer = wish.finalizer.unwrap_or(service.finalizer);
                        service.shown = match wish.ingress {
                            Ingress::AsItIs => service.shown,
                            Ingress::Nothing => None,
                            Ingress::At(address) => Some(address),
                        };
                    }
                }
                // What nobody keeps any more is gone.
                services.retain(|service| !service.deleting || service.finalizer);
            }
            Effect::Api(ApiEffect::SetVolume(wish)) => self.set_volume(wish),
            Effect::Api(ApiEffect::LookAtWork) => self.look_at_work(),
            Effect::Api(ApiEffect::TellWork(notes)) => {
                for event in &notes.events {
                    let message = event.note.message.clone();
                    api.work_told.insert(event.uid.clone(), message);
                }
                if notes.status.is_some() {
                    api.work_status.clone_from(&notes.status);
                }
            }
            Effect::Api(ApiEffect::SetNamespace(wish)) => self.set_namespace(wish),
            Effect::Fabric(
                effect @ (FabricEffect::EnsureVolume { .. }
                | FabricEffect::AttachVolume { .. }
                | FabricEffect::DetachVolume(_)
                | FabricEffect::DeleteVolume(_)),
            ) => self.do_to_volume(effect),
            Effect::Api(ApiEffect::DeleteNode(node)) => api.nodes.retain(|seen| seen.name != *node),
            Effect::Fabric(FabricEffect::DeleteMachine(permit))
                if self.voters.contains(permit.machine()) && !self.desired.deleting =>
            {
                let id = permit.machine();
                let left = |voter: &&String| *voter != id && !self.ill.contains_key(*voter);
                assert!(
                    self.voters.iter().filter(left).count() > self.voters.len() / 2,
                    "etcd has lost its majority"
                );
                self.seen.machines.get_mut(id).unwrap().presence = Presence::Gone;
            }
            Effect::Fabric(FabricEffect::DeleteMachine(permit)) => {
                self.seen.machines.get_mut(permit.machine()).unwrap().presence = Presence::Gone
            }
            Effect::Fabric(FabricEffect::DeleteNetwork) => {
                assert!(
                    self.seen.machines.is_empty(),
                    "the network goes after its machines"
                );
                self.seen.network = NetworkSeen::Gone;
            }
        }
    }

    pub(super) fn api_answers(&self) -> bool {
        self.seen.machines.values().any(|machine| {
            machine.node_name().is_none()
                && machine.presence == Presence::Running
                && matches!(machine.config, ConfigSeen::Published { .. })
        })
    }

    /// The messages of repairs told so far.
    pub(super) fn repairs(&self) -> Vec<&str> {
        self.told
            .iter()
            .filter(|(_, event)| event.kind == EventKind::Repair)
            .map(|(_, event)| event.message.as_str())
            .collect()
    }

    pub(super) fn run(&mut self) -> usize {
        for pass in 1..200 {
            if !self.pass() {
                return pass;
            }
        }
        panic!("it does not converge: {:#?}", self.plan());
    }
}
