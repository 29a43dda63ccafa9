//! Machines in a world where what is planned happens at once: they boot, report, join and fall ill.

use cluster_spec::{ADDON_IMAGES, AddonImage};

use super::*;

impl Ideal {
    pub(super) fn examine(&mut self) {
        let machines = &mut self.seen.machines;
        for (id, machine) in machines.iter_mut() {
            machine.contact = Some(self.ill.get(id).map_or(Duration::ZERO, |(since, _)| {
                self.now.duration_since(*since).unsigned_abs()
            }));
            self.health.examine(
                machine,
                &self.seen.api,
                self.desired.spec().network.plugin,
                &self.policy.heal,
                self.now,
            );
        }
    }

    /// A step of a repair was done to a machine.
    pub(super) fn treat(&mut self, id: &str, step: RepairStep, at: Timestamp) {
        let record = &self.seen.machines[id].record;
        assert!(
            [record.repairing().map(|(_, at)| at), record.upgrading()].contains(&Some(at))
                || self.desired.spec().stopped && self.desired.modified_at == at,
            "written down before"
        );
        let report = self.seen.machines[id].report.as_ref();
        let ended_boot = report.map(|report| report.boot.clone());
        self.health.started_anew(id, at, ended_boot);
        match self.ill.get_mut(id) {
            Some((_, cure)) if *cure <= step => {
                self.ill.remove(id);
            }
            Some((since, _)) => *since = self.now,
            None => {}
        }
    }

    /// It starts with the image that its record names now.
    pub(super) fn boot(&mut self, id: &str) {
        let image = self.seen.machines[id].record.image.clone();
        let boots = self.boots.get(id).map_or(0, |(boots, _)| *boots);
        self.boots.insert(id.to_owned(), (boots + 1, image));
    }

    /// The image that a machine runs.
    pub(super) fn runs(&self, id: &str) -> &str {
        self.boots.get(id).map_or("", |(_, image)| image)
    }

    /// What machines do by themselves: report, serve the API, join.
    pub(super) fn world(&mut self) {
        let answers = self.api_answers();
        let ill: Vec<_> = self.ill.keys().cloned().collect();
        for id in &ill {
            let name = self.seen.machines.get(id).and_then(Machine::node_name);
            let nodes = &mut self.seen.api.nodes;
            for node in nodes.iter_mut().filter(|node| Some(node.name.as_str()) == name) {
                node.ready = false;
            }
        }
        self.membership();
        let voters = Vec::from_iter(self.voters.iter().cloned());
        for (id, machine) in &mut self.seen.machines {
            if ill.contains(id) {
                continue;
            }
            if machine.presence != Presence::Running {
                continue;
            }
            let ConfigSeen::Published { generation, .. } = machine.config else {
                continue;
            };
            let mut report = Report {
                generation,
                boot: self.boots.get(id).map_or(0, |(boots, _)| *boots).to_string(),
                ..Report::default()
            };
            match machine.node_name() {
                None => {
                    report
                        .processes
                        .insert("kube-apiserver".to_owned(), process(ProcessState::Ready));
                    let status = MembershipStatus {
                        voters: voters.clone(),
                        ..MembershipStatus::default()
                    };
                    let etcd = EtcdStatus {
                        phase: if self.emptied {
                            EtcdPhase::Waiting
                        } else {
                            EtcdPhase::Started
                        },
                        why: None,
                        restored: self.restored.clone(),
                        empty: self.emptied,
                    };
                    let etcd = ProcessSeen {
                        status: serde_json::to_value(&etcd).ok(),
                        ..process(ProcessState::Ready)
                    };
                    report.processes.insert("etcd".to_owned(), etcd);
                    let controller = ProcessSeen {
                        status: serde_json::to_value(&status).ok(),
                        ..process(ProcessState::Ready)
                    };
                    report.processes.insert("etcd-keeper".to_owned(), controller);
                    let backup = self.backup.as_ref().map(|status| ProcessSeen {
                        status: serde_json::to_value(status).ok(),
                        ..process(ProcessState::Ready)
                    });
                    report
                        .processes
                        .extend(backup.map(|backup| ("etcd-backup".to_owned(), backup)));
                }
                Some(name) if answers && !machine.record.deleting => {
                    let there = &self.seen.images;
                    let brought = ADDON_IMAGES.iter().filter(|image| there.contains(image.name));
                    report.tasks_done.extend(brought.map(AddonImage::task));
                    let node = self.seen.api.nodes.iter_mut().find(|node| node.name == name);
                    match node {
                        Some(node) => node.ready = true,
                        None => {
                            self.seen.api.change += 1;
                            self.seen.api.nodes.push(NodeSeen {
                                name: name.to_owned(),
                                ready: true,
                                ..NodeSeen::default()
                            });
                        }
                    }
                }
                Some(_) => {}
            }
            machine.report = Some(Arc::new(report));
        }
    }

    /// One member joins or leaves at a time, and whoever is to go goes first.
    pub(super) fn membership(&mut self) {
        let member = |machine: &Machine| machine.node_name().is_none();
        let machines = &self.seen.machines;
        let stays = |id: &String| machines.get(id).is_some_and(|machine| !machine.record.deleting);
        let gone = self.voters.iter().find(|id| !stays(id)).cloned();
        let joins = machines
            .iter()
            .find(|(id, machine)| {
                member(machine)
                    && stays(id)
                    && machine.presence == Presence::Running
                    && matches!(machine.config, ConfigSeen::Published { .. })
                    && !self.ill.contains_key(*id)
                    && !self.voters.contains(*id)
            })
            .map(|(id, _)| id.clone());
        if let Some(gone) = gone {
            self.voters.remove(&gone);
        } else {
            self.voters.extend(joins);
        }
    }
}
