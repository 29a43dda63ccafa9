//! A simulated machine.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};

use super::stand::{GIB, ID, NUMBER};
use crate::{
    content::Content,
    device::{Device, Number},
    host::{Host, Room, Usage},
    mount::{self, Mount},
    node::Step,
};

/// A machine whose state is simulated.
#[derive(Default)]
pub(crate) struct Fake {
    pub(crate) state: Mutex<State>,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) devices: BTreeMap<String, Device>,
    pub(crate) nodes: BTreeMap<PathBuf, Number>,
    pub(crate) contents: BTreeMap<Number, Content>,
    pub(crate) mounts: Vec<Mount>,
    pub(crate) paths: BTreeSet<PathBuf>,
    pub(crate) loop_nodes: bool,
    /// Whether filesystems grow only while they are not mounted.
    pub(crate) offline: bool,
    /// The steps that were performed, one word each.
    pub(crate) done: Vec<&'static str>,
    /// The step that fails.
    pub(crate) fails: Option<&'static str>,
}

impl Fake {
    pub(crate) fn with_volume() -> Self {
        let fake = Self::default();
        fake.state().devices.insert(
            ID.to_owned(),
            Device {
                number: NUMBER,
                bytes: GIB,
            },
        );
        fake.state().contents.insert(NUMBER, Content::Empty);
        fake
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

fn word(step: &Step) -> &'static str {
    match step {
        Step::Format(_) => "format",
        Step::Mount { .. } => "mount",
        Step::Check(_) => "check",
        Step::Grow(_) => "grow",
        Step::GrowAlone(_) => "grow-alone",
        Step::Directory(_) => "directory",
        Step::File(_) => "file",
        Step::Bind { .. } => "bind",
        Step::ReadOnly(_) => "read-only",
        Step::Unmount(_) => "unmount",
        Step::Remove(_) => "remove",
    }
}

impl Host for Arc<Fake> {
    fn devices(&self, id: &str) -> Result<Vec<Device>, String> {
        Ok(self.state().devices.get(id).copied().into_iter().collect())
    }

    fn bytes(&self, number: Number) -> Result<u64, String> {
        let state = self.state();
        let found = state.devices.values().find(|device| device.number == number);
        found
            .map(|device| device.bytes)
            .ok_or_else(|| "no device".to_owned())
    }

    fn device_at(&self, path: &Path) -> Result<Option<Number>, String> {
        Ok(self.state().nodes.get(path).copied())
    }

    fn make_node(&self, node: &Path, number: Number) -> Result<(), String> {
        self.state().nodes.insert(node.to_owned(), number);
        Ok(())
    }

    fn make_loop_nodes(&self) -> Result<(), String> {
        self.state().loop_nodes = true;
        Ok(())
    }

    fn grows_mounted(&self) -> Result<bool, String> {
        Ok(!self.state().offline)
    }

    fn content(&self, node: &Path, _bytes: u64) -> Result<Content, String> {
        let state = self.state();
        Ok(state.contents[&state.nodes[node]])
    }

    fn mounts(&self) -> Result<Vec<Mount>, String> {
        Ok(self.state().mounts.clone())
    }

    fn usage(&self, path: &Path) -> Result<Option<Usage>, String> {
        let room = Room {
            total: 100,
            used: 40,
            available: 60,
        };
        let found = mount::top(&self.state().mounts, path).is_some();
        Ok(found.then_some(Usage::Filesystem {
            bytes: room,
            files: room,
        }))
    }

    fn perform(&self, step: &Step) -> Result<(), String> {
        let mut state = self.state();
        if state.fails == Some(word(step)) {
            return Err(format!("{} ended with exit status: 1", word(step)));
        }
        state.done.push(word(step));
        let mounted = |device: Number, at: &Path| Mount {
            device,
            at: at.to_owned(),
            options: vec!["rw".to_owned()],
        };
        match step {
            Step::Format(node) | Step::Grow(node) | Step::GrowAlone(node) => {
                let number = state.nodes[node];
                let device = state.devices.values().find(|device| device.number == number);
                let bytes = device.unwrap().bytes;
                state.contents.insert(number, Content::Filesystem { bytes });
            }
            Step::Check(_) => {}
            Step::Mount { node, to, .. } => {
                let device = state.nodes[node];
                state.mounts.push(mounted(device, to));
            }
            Step::Directory(path) | Step::File(path) => {
                state.paths.insert(path.clone());
            }
            Step::Bind { from, to } => {
                if let Some(number) = state.nodes.get(from).copied() {
                    state.nodes.insert(to.clone(), number);
                    state.mounts.push(mounted(Number { major: 0, minor: 5 }, to));
                } else {
                    let device = mount::top(&state.mounts, from).unwrap().device;
                    state.mounts.push(mounted(device, to));
                }
            }
            Step::ReadOnly(path) => {
                let mount = state.mounts.iter_mut().rev().find(|mount| mount.at == *path);
                mount.unwrap().options = vec!["ro".to_owned()];
            }
            Step::Unmount(path) => {
                let last = state.mounts.iter().rposition(|mount| mount.at == *path);
                state.mounts.remove(last.unwrap());
                state.nodes.remove(path);
            }
            Step::Remove(path) => {
                state.nodes.remove(path);
                state.paths.remove(path);
            }
        }
        Ok(())
    }
}
