//! Commands that print: a cluster, what an agent reports, operations.

use anyhow::Result;
use control_records::{ObservedRecord, Role, key};
use fabric_api::MachineId;

use super::Player;

impl Player {
    pub(super) async fn show(&mut self, name: &str) -> Result<()> {
        let Some(cluster) = self.stamp.cluster(name).await? else {
            self.say(&format!("there is no cluster {name}"));
            return Ok(());
        };
        let observed: ObservedRecord = self
            .stamp
            .record(&key::observed(&cluster.uid))
            .await?
            .unwrap_or_default();
        let answer = self.stamp.show(name).await?;
        let state = answer.body["properties"]["provisioningState"].as_str();
        self.say(&format!(
            "{name}: {}, generation {} of {}, Kubernetes {}, ready nodes {:?}",
            state.unwrap_or("-"),
            observed.generation,
            cluster.generation,
            observed.kubernetes_version.as_deref().unwrap_or("-"),
            observed.ready_nodes
        ));
        if !observed.step.is_empty() {
            self.say(&format!("  step: {}", self.stamp.trace.told(&observed.step)));
        }
        if let Some(problem) = observed.problem {
            self.say(&format!("  problem: {}", self.stamp.trace.told(&problem)));
        }
        let machines = self.stamp.machines().await?;
        let mut lines: Vec<_> = machines
            .into_values()
            .filter_map(|machine| {
                let assignment = machine.assignment.filter(|given| given.cluster == cluster.uid)?;
                let going = if machine.deleting { ", to go" } else { "" };
                let image = if machine.image == cluster.spec().kubernetes_version {
                    String::new()
                } else {
                    format!(" of {}", machine.image)
                };
                Some(match assignment.role {
                    Role::ControlPlane { index, .. } => format!("  control plane {index}{image}{going}"),
                    Role::Node {
                        node_name,
                        address,
                        pod_range,
                        ..
                    } => {
                        let range = pod_range.map_or("-".to_owned(), |range| range.to_string());
                        format!("  {node_name}{image} {address} pods {range}{going}")
                    }
                })
            })
            .collect();
        lines.sort();
        for line in lines {
            self.say(&line);
        }
        Ok(())
    }

    /// The parts of an agent's report that are printed.
    pub(super) fn agent(&mut self, id: &MachineId) {
        let called = self.stamp.trace.told(id.as_str());
        let heard = self.stamp.agents().and_then(|agents| {
            let contact = agents.contact(id.as_str()).unwrap_or_default();
            Some((agents.report(id.as_str())?, contact))
        });
        let Some((report, contact)) = heard else {
            self.say(&format!("agent {called}: nothing was heard"));
            return;
        };
        let mut line = format!(
            "agent {called}: generation {}, heard {contact:?} ago",
            report.generation
        );
        for (name, process) in &report.processes {
            if process.state != agent_protocol::ProcessState::Ready {
                line.push_str(&format!(", {name} {:?}", process.state));
            }
            if let Some(status) = &process.status {
                line.push_str(&format!(
                    ", {name} says {}",
                    self.stamp.trace.told(&status.to_string())
                ));
            }
        }
        self.say(&line);
    }

    pub(super) async fn operations(&mut self) -> Result<()> {
        let operations = self.stamp.operations().await?;
        let mut operations: Vec<_> = operations.into_values().collect();
        operations.sort_by_key(|operation| (operation.started_at, operation.generation));
        for operation in operations {
            let took = operation.ended_at.map_or("-".to_owned(), |ended| {
                format!(
                    "{:.1} s",
                    ended.duration_since(operation.started_at).as_secs_f64()
                )
            });
            self.say(&format!("{} {:?} {took}", operation.name, operation.status));
            if let Some(error) = operation.error {
                let text = self.stamp.trace.told(&error.message);
                self.say(&format!("  {}: {text}", error.code));
            }
        }
        Ok(())
    }
}
