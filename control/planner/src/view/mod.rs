//! What is known of a cluster, as questions about an observation. Features ask these, and not each other; nothing here plans.

pub(crate) mod autoscaled;
pub(crate) mod complaints;
pub(crate) mod control_plane;
pub(crate) mod etcd;
pub(crate) mod machines;
pub(crate) mod majority;
pub(crate) mod recorded;
pub(crate) mod rotation;
pub(crate) mod volumes;
