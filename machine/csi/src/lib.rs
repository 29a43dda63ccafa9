//! `landfall-agent csi-disk FILE`: the node's part of the drivers of disks and of shares, which the node's kubelet speaks to.
//!
//! ```text
//! kubelet ── plugin watcher ──► registration.rs: the driver's name and its socket
//!         ── CSI ─► grpc.rs ──► driver.rs: what is seen ─► node.rs (pure): steps ─► host.rs: filesystems and mounts
//! ```
//!
//! A volume is a file of the host's, and the host has given it to this machine when a loop device holds it: that is found by the name of the
//! file, as `/sys/block` tells it. Numbers of devices never go through the cluster, because they change. The machine has no node of the device
//! until the driver makes one.
//!
//! A share is a volume that all machines are to find. They are of one kernel, which has one filesystem for one device, wherever and however often
//! it is mounted: each machine mounts the device itself, and nothing is between a node and the share. It comes with its filesystem, since two
//! nodes may be the first at the same time.
//!
//! Always true:
//! - Each call may be repeated, and ends where it was to end. Nothing is remembered between calls: what there is to do follows from devices,
//!   mounts and what is on the device.
//! - A device that holds anything is never formatted. Only one whose formatting was begun here, and which nobody has mounted since, is.
//! - One call a volume at a time; another is told so (`ABORTED`).
//!
//! The only program of a machine with an async runtime, of one thread: HTTP/2 is not to be had without. Called by `machine/agent`; its file is
//! written by `cluster/bootstrap`.

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
