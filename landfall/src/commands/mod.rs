//! The commands: one file each. They decide the output and its order; the work is done by lower crates.

pub(crate) mod access;
pub(crate) mod az;
pub(crate) mod backup;
pub(crate) mod catalogue;
pub(crate) mod credentials;
pub(crate) mod doctor;
pub(crate) mod down;
pub(crate) mod events;
pub(crate) mod identity;
pub(crate) mod image;
pub(crate) mod kubeconfig;
pub(crate) mod kubectl;
pub(crate) mod kubelogin;
pub(crate) mod logs;
pub(crate) mod maintenance;
pub(crate) mod operation;
pub(crate) mod secrets;
pub(crate) mod service;
pub(crate) mod status;
pub(crate) mod store;
pub(crate) mod subscription;
pub(crate) mod support;
pub(crate) mod unknown;
pub(crate) mod up;
pub(crate) mod upgrade;

use base_env::Env;

use crate::{printer::Printer, stamp::Places};

/// The inputs common to all commands.
pub(crate) struct Context {
    pub(crate) printer: Printer,
    pub(crate) env: Env,
    pub(crate) places: Places,
}

impl Context {
    /// ` --name STAMP` where the stamp is not the default one, for commands in hints.
    pub(crate) fn name_flag(&self) -> String {
        if self.places.name == "landfall" {
            String::new()
        } else {
            format!(" --name {}", self.places.name)
        }
    }

    /// Fails unless this process is root's.
    pub(crate) fn require_root(&self, act: &str) -> anyhow::Result<()> {
        if nix::unistd::geteuid().is_root() {
            Ok(())
        } else {
            Err(crate::stamp::not_root(act))
        }
    }
}
