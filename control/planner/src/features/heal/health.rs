//! Since when machines are well or not: what healing has to remember between two looks. Lost with the process; then
//! patience begins anew.

use std::collections::BTreeMap;

use cluster_spec::PodNetworking;
use jiff::Timestamp;

use crate::{Ailment, ApiSeen, HealPolicy, Machine, Presence, Symptom, heal::ailment::diagnose};

/// See the module.
#[derive(Debug, Default)]
pub struct Health {
    running_since: BTreeMap<String, Timestamp>,
    symptoms: BTreeMap<String, (Ailment, Timestamp)>,
    well_since: BTreeMap<String, Timestamp>,
    /// Which repair or upgrade this process has carried out last, and the boot that it ended.
    repaired: BTreeMap<String, (Timestamp, Option<String>)>,
}

impl Health {
    /// Fills in what is wrong with a machine, and since when. Returns whether it has fallen silent since the last time: then
    /// it may be gone.
    pub fn examine(
        &mut self,
        machine: &mut Machine,
        api: &ApiSeen,
        plugin: PodNetworking,
        policy: &HealPolicy,
        now: Timestamp,
    ) -> bool {
        let id = machine.record.id.as_str();
        if machine.presence == Presence::Running {
            self.running_since.entry(id.to_owned()).or_insert(now);
        } else if machine.presence != Presence::Unknown {
            self.running_since.remove(id);
        }
        machine.running_since = self.running_since.get(id).copied();
        let repaired = self.repaired.get(id);
        machine.repaired = repaired.map(|(at, _)| *at);
        machine.ended_boot = repaired.and_then(|(_, boot)| boot.clone());
        machine.symptom = diagnose(machine, api, plugin, policy, now).map(|(ailment, why)| {
            let (_, since) = self
                .symptoms
                .get(id)
                .filter(|(known, _)| *known == ailment)
                .cloned()
                .unwrap_or((ailment.clone(), now));
            Symptom { ailment, since, why }
        });
        let before = match &machine.symptom {
            Some(symptom) => {
                self.well_since.remove(id);
                self.symptoms
                    .insert(id.to_owned(), (symptom.ailment.clone(), symptom.since))
            }
            None => {
                self.well_since.entry(id.to_owned()).or_insert(now);
                self.symptoms.remove(id)
            }
        };
        machine.well_since = self.well_since.get(id).copied();
        let silent = |ailment: Option<&Ailment>| ailment == Some(&Ailment::Silent);
        silent(machine.symptom.as_ref().map(|symptom| &symptom.ailment))
            && !silent(before.as_ref().map(|(ailment, _)| ailment))
    }

    /// It begins a new life; what was wrong before says nothing about it.
    pub fn started_anew(&mut self, machine: &str, repair: Timestamp, ended_boot: Option<String>) {
        self.forget(machine);
        self.repaired.insert(machine.to_owned(), (repair, ended_boot));
    }

    /// Its record is gone.
    pub fn forget(&mut self, machine: &str) {
        self.running_since.remove(machine);
        self.symptoms.remove(machine);
        self.well_since.remove(machine);
        self.repaired.remove(machine);
    }
}
