//! Volumes of the fabric: attachments and refusals. The same as in `fabric/container`, which is simulated
//! here.

use fabric_api::{FabricError, MachineId, Power, VolumeId, VolumeSeen, VolumeSpec};

use crate::{
    Inner, SimWorld,
    state::{Disk, State},
    violations,
};

/// Step of volume sizes in bytes, and the largest size.
const STEP: u64 = 1 << 20;
const MOST: u64 = 32 << 40;

impl SimWorld {
    /// The volumes of the fabric, in order of their ids.
    pub fn volumes(&self) -> Vec<VolumeSeen> {
        self.inner.state().disks.values().map(seen).collect()
    }

    /// Starts or ends the use of a volume in its machine: while it is in use and the machine runs, it cannot
    /// be detached. `false` when the volume does not exist or is not attached.
    pub fn use_volume(&self, id: &VolumeId, used: bool) -> bool {
        let mut state = self.inner.state();
        let found = state.disks.get_mut(id);
        let Some(disk) = found.filter(|disk| disk.attached.is_some()) else {
            return false;
        };
        disk.used = used;
        true
    }

    /// Adds a volume that has no record.
    pub fn plant_volume(&self, spec: VolumeSpec) {
        let disk = Disk {
            attached: None,
            open: false,
            used: false,
            written: false,
            spec,
        };
        self.inner.state().disks.insert(disk.spec.id.clone(), disk);
    }
}

impl Inner {
    /// The first step of a volume's creation: it exists partially. An existing one is left alone.
    pub(crate) fn write_down_disk(&self, spec: &VolumeSpec) -> Result<(), FabricError> {
        if spec.bytes == 0 || !spec.bytes.is_multiple_of(STEP) || spec.bytes > MOST {
            return Err(FabricError::Invalid {
                what: format!("size of volume {}", spec.id),
                why: "use a multiple of 1 MiB that is more than none and at most 32 TiB".into(),
            });
        }
        let mut state = self.state();
        if is_complete(&state, &spec.id) {
            return Ok(());
        }
        if let Some(source) = spec.source.as_ref().filter(|source| !is_complete(&state, source)) {
            return Err(FabricError::NotFound(format!("volume {source}")));
        }
        violations::volume(&mut state, spec);
        let disk = Disk {
            spec: VolumeSpec {
                bytes: 0,
                ..spec.clone()
            },
            attached: None,
            open: false,
            used: false,
            written: false,
        };
        state.disks.insert(spec.id.clone(), disk);
        Ok(())
    }

    /// The last step: it is complete, and at least as large as specified.
    pub(crate) fn complete_disk(&self, spec: &VolumeSpec) -> Result<(), FabricError> {
        let mut state = self.state();
        let mut least = spec.bytes;
        let mut written = false;
        if let Some(source) = &spec.source
            && !is_complete(&state, &spec.id)
        {
            // It may have been deleted during the copy: the data that was read is complete all the same.
            let source = state.disks.get(source);
            least = source.map_or(least, |source| least.max(source.spec.bytes));
            written = source.is_none_or(|source| source.written);
        }
        let Some(disk) = state.disks.get_mut(&spec.id) else {
            return Err(FabricError::failed(
                format!("make volume {}", spec.id),
                "it was deleted while it was made",
            ));
        };
        disk.spec = VolumeSpec {
            bytes: least.max(disk.spec.bytes),
            ..spec.clone()
        };
        // Any machine may have written to a share.
        disk.written |= written || spec.shared;
        disk.open = spec.shared;
        Ok(())
    }

    pub(crate) fn delete_disk(&self, id: &VolumeId) -> Result<(), FabricError> {
        let mut state = self.state();
        violations::volume_gone(&mut state, id);
        let Some(disk) = state.disks.get(id) else {
            return Ok(());
        };
        if let Some(machine) = &disk.attached {
            let why = format!("machine {machine} has it");
            return Err(FabricError::failed(format!("delete volume {id}"), why));
        }
        if disk.written {
            state.deleted_disks.insert(id.clone());
        }
        state.disks.remove(id);
        Ok(())
    }

    pub(crate) fn attach_disk(&self, id: &VolumeId, machine: &MachineId) -> Result<(), FabricError> {
        let mut state = self.state();
        if !is_complete(&state, id) {
            return Err(FabricError::NotFound(format!("volume {id}")));
        }
        if !runs(&state, machine) {
            return Err(FabricError::NotFound(format!("running machine {machine}")));
        }
        let Some(disk) = state.disks.get_mut(id) else {
            return Err(FabricError::NotFound(format!("volume {id}")));
        };
        match &disk.attached {
            _ if disk.spec.shared => Err(FabricError::failed(
                format!("give volume {id} to machine {machine}"),
                "it is a share: all machines have it",
            )),
            // Whether the machine runs, is stopped or is deleted: the volume stays attached until it is
            // detached.
            Some(other) if other != machine => Err(FabricError::failed(
                format!("give volume {id} to machine {machine}"),
                format!("machine {other} has it"),
            )),
            _ => {
                disk.attached = Some(machine.clone());
                disk.written = true;
                Ok(())
            }
        }
    }

    pub(crate) fn detach_disk(&self, id: &VolumeId) -> Result<(), FabricError> {
        let mut state = self.state();
        let Some(disk) = state.disks.get(id) else {
            return Ok(());
        };
        if let Some(machine) = disk.attached.as_ref().filter(|_| disk.used)
            && runs(&state, machine)
        {
            return Err(FabricError::failed(
                format!("take volume {id} from its machine"),
                format!("something in machine {machine} still uses it"),
            ));
        }
        if let Some(disk) = state.disks.get_mut(id) {
            disk.attached = None;
            disk.used = false;
        }
        Ok(())
    }
}

/// All machines are stopped: no volume is attached any more.
pub(crate) fn let_go(state: &mut State) {
    for disk in state.disks.values_mut() {
        disk.attached = None;
        disk.open = false;
        disk.used = false;
    }
}

/// A volume as in a listing.
pub(crate) fn seen(disk: &Disk) -> VolumeSeen {
    VolumeSeen {
        id: disk.spec.id.clone(),
        bytes: disk.spec.bytes,
        labels: disk.spec.labels.clone(),
        attached: disk.attached.clone(),
        open: disk.open,
    }
}

/// Whether a volume exists completely.
fn is_complete(state: &State, id: &VolumeId) -> bool {
    state.disks.get(id).is_some_and(|disk| disk.spec.bytes > 0)
}

fn runs(state: &State, machine: &MachineId) -> bool {
    let found = state.machines.get(machine.as_str());
    found.is_some_and(|machine| machine.power == Power::Running)
}
