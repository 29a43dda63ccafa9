//! Rules of the bridge ports of machines: what they may send.
//!
//! Always true: the rules of a port are set before the port exists. Rules of machines that are gone stay until
//! the next ones are set, and apply to nothing.

use fabric_api::{FabricError, MachineSpec, NetworkSpec};
use fabric_net::{stamp_ports_ruleset, vnet_ports_ruleset};

use crate::{Inner, disk, exec, files};

impl Inner {
    /// The specifications of all machines. One whose specification is damaged has no rules until it is written
    /// again.
    fn specifications(&self, act: &str) -> Result<Vec<MachineSpec>, FabricError> {
        let names = files::names_in(&self.machines_dir()).map_err(|error| FabricError::failed(act, error))?;
        let mut specs = Vec::with_capacity(names.len());
        for name in names {
            specs.extend(disk::Saved::read(&self.machines_dir().join(name))?.map(|saved| saved.spec));
        }
        Ok(specs)
    }

    /// The rules for ports of the stamp's bridge.
    pub(crate) fn stamp_ports_rules(&self, act: &str) -> Result<String, FabricError> {
        let specs = self.specifications(act)?;
        Ok(stamp_ports_ruleset(&self.names, &self.config.network, &specs))
    }

    /// The rules for ports of a VNET's bridges.
    pub(crate) fn ports_rules(&self, act: &str, spec: &NetworkSpec) -> Result<String, FabricError> {
        Ok(vnet_ports_ruleset(&self.names, spec, &self.specifications(act)?))
    }

    /// Sets the rules of a new machine's ports on the stamp's bridge. Its specification is saved.
    pub(crate) async fn guard_stamp_ports(&self, act: &str) -> Result<(), FabricError> {
        // In the order in which they were made.
        let _lock = self.locks.hold("stamp").await;
        let rules = self.stamp_ports_rules(act)?;
        exec::run(&self.env, act, &["nft", "-f", "-"], Some(&rules))
            .await
            .map(drop)
    }

    /// The same for a VNET, whose lock is held.
    pub(crate) async fn guard_ports(&self, act: &str, spec: &NetworkSpec) -> Result<(), FabricError> {
        let rules = self.ports_rules(act, spec)?;
        let inside = self.names.network_namespace(&spec.id);
        let argv = ["ip", "netns", "exec", &inside, "nft", "-f", "-"];
        exec::run(&self.env, act, &argv, Some(&rules)).await.map(drop)
    }
}
