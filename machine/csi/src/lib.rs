//! `landfall-agent csi-disk FILE`: the node's part of the drivers of disks and shares, which the node's kubelet
//! calls.
//!
//! ```text
//! kubelet ── plugin watcher ──► registration.rs: the driver's name and its socket
//!         ── CSI ─► grpc.rs ──► driver.rs: state ─► node.rs (pure): steps ─► host.rs: filesystems and mounts
//! ```
//!
//! A volume is a file of the host, which attached it to this machine with a loop device: the device is found
//! by the name of its backing file in `/sys/block`. Device numbers never go through the cluster, because they
//! change. The machine has no node of the device until the driver creates one.
//!
//! A share is a volume for all machines. They share the host's kernel, which has one filesystem for a device, wherever and
//! however often it is mounted: each machine mounts the device itself, without a protocol or a server. A share is created
//! with its filesystem, because several nodes may mount it first at the same time.
//!
//! Always true:
//! - Each call may be repeated and reaches the same end. No state is kept between calls: the next steps
//!   follow from devices, mounts and the content of the device.
//! - A device that holds data is never formatted. A device whose formatting was started here and which has
//!   not been mounted since is.
//! - One call for a volume at a time; a second one fails with `ABORTED`.
//!
//! The only program of a machine with an async runtime (one thread), for HTTP/2. Called by `machine/agent`;
//! its file is written by `cluster/bootstrap`.

mod content;
mod device;
mod driver;
mod grpc;
mod host;
mod mount;
mod node;
pub mod program;
mod registration;
#[cfg(test)]
mod tests;
mod wire;
