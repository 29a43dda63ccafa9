//! The service that the kubelet's plugin watcher calls at the registration socket: the driver's name and its
//! endpoint.

use agent_protocol::programs::CsiDriver;

use crate::{
    grpc::{Code, Service, Status, answered},
    wire::{Empty, Registered, RegistrationStatus},
};

/// The kubelet's plugin type for CSI drivers.
const KIND: &str = "CSIPlugin";
/// The CSI version.
const VERSION: &str = "1.0.0";

/// Registers the driver.
pub(crate) struct Registration {
    pub(crate) config: CsiDriver,
    pub(crate) log: fn(&str),
}

impl Service for Registration {
    fn call(&self, method: &str, message: &[u8]) -> Result<Vec<u8>, Status> {
        match method {
            "/pluginregistration.Registration/GetInfo" => answered(message, |_: Empty| Ok(self.info())),
            "/pluginregistration.Registration/NotifyRegistrationStatus" => answered(message, |status| {
                self.hear(&status);
                Ok(Empty {})
            }),
            _ => Err(Status::new(
                Code::Unimplemented,
                format!("there is no method {method}"),
            )),
        }
    }
}

impl Registration {
    fn info(&self) -> Registered {
        Registered {
            kind: KIND.to_owned(),
            name: self.config.driver.clone(),
            endpoint: self.config.socket.clone(),
            supported_versions: vec![VERSION.to_owned()],
        }
    }

    /// A kubelet that fails to register the driver tries again by itself.
    fn hear(&self, status: &RegistrationStatus) {
        let line = if status.plugin_registered {
            format!("{} is registered", self.config.driver)
        } else {
            format!(
                "the kubelet did not register {}: {}",
                self.config.driver, status.error
            )
        };
        (self.log)(&line);
    }
}
