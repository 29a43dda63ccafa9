//! What effects concern.

/// What an effect concerns. Two effects with the same subject never run at the same time; a failing one holds back its
/// subject only.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// The inventory.
    Fabric,
    /// The VNET.
    Network,
    /// A machine.
    Machine(String),
    /// A machine's configuration.
    Config(String),
    /// The API server as a whole.
    Api,
    /// A node object, by its name.
    Node(String),
    /// Serving certificates.
    Serving,
    /// Add-ons.
    Addons,
    /// Credentials.
    Credentials,
    /// A command, by its id.
    Command(String),
    /// A Service of type LoadBalancer, by its uid.
    Service(String),
    /// A volume in the fabric, by its id.
    Volume(String),
    /// The image of an add-on, by its name.
    Image(String),
    /// An object in the cluster that has to do with a volume: [`cluster_api::VolumeWish::object`].
    VolumeObject(String),
    /// The look at the cluster's pods and nodes for the autoscaler.
    Work,
    /// The autoscaler's status and events.
    WorkNotes,
    /// A managed namespace, by its name.
    Namespace(String),
}
