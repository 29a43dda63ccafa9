//! Volumes: sparse files, each attached to one machine at a time as a loop device of the host; and shares,
//! whose loop device all machines use.
//!
//! | in the volume's directory | content |
//! |---|---|
//! | `spec.json` | [`Saved`], written first, removed last; damaged or lost, it is written again from the record |
//! | `volume.img` | the volume's data, as large as the volume; sparse |
//! | `volume.new` | the same during its creation: renamed when it is complete |
//! | `attached` | the volume's machine: written before the loop device exists, removed after it is gone |
//!
//! Always true:
//! * a volume is attached while a loop device is backed by its file and `attached` names the machine. A
//!   reboot removes all loop devices, so after it no volume is attached, whatever `attached` says;
//! * a share has a loop device from its creation until its deletion or a reboot of the host. All machines share
//!   the host's kernel, which has one filesystem for a device however often and wherever it is mounted: data
//!   written by one machine is read by the others. A share is never attached: it has no `attached`;
//! * at most one loop device is backed by a volume's file. The kernel does not release a device that is open
//!   or mounted anywhere, so a volume is no longer in use once it is detached;
//! * a file that was complete once is never created again: its loss is reported, and no machine gets an empty
//!   volume in its place;
//! * a copy has the state of its source at one moment: of a volume without a loop device, or of one whose
//!   filesystem is frozen meanwhile. An attached volume without a mounted filesystem is not copied;
//! * a volume never becomes smaller, and only [`Inner::delete_volume`] and [`Inner::delete_stamp`] remove its
//!   data.
//!
//! Machines see every loop device of the host, and its backing file, in their `/sys/block`. A machine finds a
//! volume this way: no device number is passed on, because numbers change.

use std::{
    fs::{self, OpenOptions},
    io::{self, ErrorKind},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use fabric_api::{FabricError, MachineId, VolumeId, VolumeSeen, VolumeSpec};
use serde::{Deserialize, Serialize};

use crate::{
    Inner, disk, disk_image,
    disk_pool::blocking,
    exec, files,
    loop_device::{self, LoopDevice},
    validate,
    volume_copy::{FROZEN, copy, thaw},
};

/// The volume's data.
const IMAGE: &str = "volume.img";
/// The same during its creation.
const NEW: &str = "volume.new";
/// The volume's machine.
const ATTACHED: &str = "attached";

/// Time limit for the kernel's release. Users that end with a machine release within a second.
const RELEASE: Duration = Duration::from_secs(10);

/// The metadata of a volume, written before anything of it exists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Saved {
    /// Version of the format.
    v: u32,
    /// Whether its file was complete once.
    made: bool,
    /// The specification.
    spec: VolumeSpec,
}

impl Saved {
    fn new(spec: &VolumeSpec, made: bool) -> Self {
        Self {
            v: 1,
            made,
            spec: spec.clone(),
        }
    }

    fn write(&self, dir: &Path) -> Result<(), FabricError> {
        let text = serde_json::to_vec_pretty(self)
            .map_err(|error| FabricError::failed("write a volume's specification", error))?;
        files::make_dir(dir)?;
        files::write(&dir.join("spec.json"), &text)
    }

    /// `None` when it is missing or damaged.
    fn read(dir: &Path) -> Result<Option<Self>, FabricError> {
        Ok(files::read(&dir.join("spec.json"))?.and_then(|text| serde_json::from_str(&text).ok()))
    }
}

impl Inner {
    fn volumes_dir(&self) -> PathBuf {
        self.config.state_dir.join("volumes")
    }

    fn volume_dir(&self, id: &VolumeId) -> PathBuf {
        self.volumes_dir().join(id.as_str())
    }

    pub(crate) async fn ensure_volume(&self, spec: &VolumeSpec) -> Result<(), FabricError> {
        validate::volume(spec)?;
        let act = format!("make volume {}", spec.id);
        disk_image::possible().map_err(|why| FabricError::failed(&act, why))?;
        let dir = self.volume_dir(&spec.id);
        let image = dir.join(IMAGE);
        let saved = Saved::read(&dir)?;
        let made = Saved::new(spec, true);
        if !is_there(&image)? {
            if saved.as_ref().is_some_and(|saved| saved.made) {
                let why = format!("what was on it is lost: {} is gone", image.display());
                return Err(FabricError::failed(act, why));
            }
            let source = spec.source.as_ref().map(|source| self.complete_volume(source));
            let source = source.transpose()?;
            Saved::new(spec, false).write(&dir)?;
            // Meanwhile the source is not attached, detached or frozen by another call.
            let _source = match &spec.source {
                Some(source) => Some(self.locks.hold(&format!("volume {source}")).await),
                None => None,
            };
            let (dir, bytes) = (dir.clone(), spec.bytes);
            let formatted = spec.shared && source.is_none();
            blocking(&act, move || make(&dir, bytes, source.as_deref(), formatted)).await?;
        } else if saved.is_none() {
            tracing::warn!(volume = %spec.id, "the specification of a volume was damaged and is written anew");
        }
        if saved.as_ref() != Some(&made) {
            made.write(&dir)?;
        }
        let (file, bytes) = (image.clone(), spec.bytes);
        blocking(&act, move || grow(&file, bytes)).await?;
        if spec.shared {
            self.open_share(&act, &image).await?;
        }
        self.tell_size(&act, &image).await
    }

    /// Makes a share available to all machines: as a loop device.
    async fn open_share(&self, act: &str, image: &Path) -> Result<(), FabricError> {
        let there = loop_device::holding(image)?;
        // A device under release cannot be used; a later call finds none and makes another.
        if there.iter().any(|device| device.leaving) {
            return Err(FabricError::failed(act, "its loop device is being released"));
        }
        if there.is_empty() {
            self.make_device(act, image).await?;
        }
        Ok(())
    }

    /// Updates the size of loop devices to that of the file. Always checked: an earlier call may have been
    /// interrupted before it.
    async fn tell_size(&self, act: &str, image: &Path) -> Result<(), FabricError> {
        let bytes = size(image)?;
        for device in loop_device::holding(image)? {
            if device.bytes < bytes {
                let argv = ["losetup", "--set-capacity", &device.path()];
                exec::run(&self.env, act, &argv, None).await?;
            }
        }
        Ok(())
    }

    /// The file of a complete volume.
    fn complete_volume(&self, id: &VolumeId) -> Result<PathBuf, FabricError> {
        let image = self.volume_dir(id).join(IMAGE);
        if is_there(&image)? {
            Ok(image)
        } else {
            Err(FabricError::NotFound(format!("volume {id}")))
        }
    }

    /// The machine may stop or be deleted meanwhile, since its lock is not held: then the volume stays
    /// attached, as if the machine had stopped later.
    pub(crate) async fn attach_volume(&self, id: &VolumeId, machine: &MachineId) -> Result<(), FabricError> {
        validate::identity("volume", id.as_str())?;
        validate::identity("machine", machine.as_str())?;
        let act = format!("give volume {id} to machine {machine}");
        let (dir, image) = (self.volume_dir(id), self.complete_volume(id)?);
        if is_share(&dir)? {
            return Err(FabricError::failed(act, "it is a share: all machines have it"));
        }
        let container = self.container(machine).await?;
        let runs = container.is_some_and(|container| container.is_running());
        if !runs || !disk::is_whole(&self.machine_dir(machine)) {
            return Err(FabricError::NotFound(format!("running machine {machine}")));
        }
        if !loop_device::holding(&image)?.is_empty() {
            match attached(&dir)? {
                Some(found) if found == *machine => return Ok(()),
                Some(other) => return Err(FabricError::failed(act, format!("machine {other} has it"))),
                // The record of its machine was lost. If the volume is in use, this fails.
                None => self.take_back(&act, &dir).await?,
            }
        }
        files::write(&dir.join(ATTACHED), machine.as_str().as_bytes())?;
        self.make_device(&act, &image).await
    }

    async fn make_device(&self, act: &str, image: &Path) -> Result<(), FabricError> {
        let file = image.display().to_string();
        let argv = ["losetup", "--find", "--show", &file];
        let device = exec::run(&self.env, act, &argv, None).await?;
        let device = device.trim();
        if loop_device::holding(image)?.is_empty() {
            // A device that is not visible there would allow another attachment.
            exec::run(&self.env, act, &["losetup", "--detach", device], None).await?;
            let why = format!(
                "{} does not show that {device} holds {file}",
                loop_device::DEVICES
            );
            return Err(FabricError::failed(act, why));
        }
        // Without this each page is cached twice. Not every filesystem supports it; in one step with the
        // device, losetup would fail and leave the device.
        let argv = ["losetup", "--direct-io=on", device];
        if let Err(error) = exec::run(&self.env, act, &argv, None).await {
            tracing::debug!(%error, "the data of a volume is cached twice");
        }
        Ok(())
    }

    pub(crate) async fn detach_volume(&self, id: &VolumeId) -> Result<(), FabricError> {
        validate::identity("volume", id.as_str())?;
        let act = format!("take volume {id} from its machine");
        self.take_back(&act, &self.volume_dir(id)).await
    }

    /// Detaches a volume.
    async fn take_back(&self, act: &str, dir: &Path) -> Result<(), FabricError> {
        self.release_stacked(act, dir).await?;
        if let Some(device) = self.release(act, &dir.join(IMAGE)).await? {
            let who = match attached(dir)? {
                Some(machine) => format!("something in machine {machine}"),
                None => "something".to_owned(),
            };
            let why = format!("{who} still uses it ({})", device.path());
            return Err(FabricError::failed(act, why));
        }
        files::remove(&dir.join(ATTACHED))
    }

    /// A kubelet puts another loop device on each block volume of a pod. That device belongs to the host and
    /// outlives the machine: it is released once the machine does not run.
    async fn release_stacked(&self, act: &str, dir: &Path) -> Result<(), FabricError> {
        let Some(machine) = attached(dir)? else {
            return Ok(());
        };
        let container = self.container(&machine).await?;
        if container.is_some_and(|container| container.is_running()) {
            return Ok(());
        }
        for device in loop_device::holding(&dir.join(IMAGE))? {
            for over in loop_device::over(&device)? {
                exec::run(&self.env, act, &["losetup", "--detach", &over.path()], None).await?;
            }
        }
        Ok(())
    }

    /// Releases the loop devices that an ended machine left over its volumes. The volumes stay attached.
    pub(crate) async fn release_stacked_of(&self, act: &str, machine: &MachineId) -> Result<(), FabricError> {
        for id in self.held_volumes()? {
            let dir = self.volume_dir(&id);
            if attached(&dir)?.as_ref() == Some(machine) {
                self.release_stacked(act, &dir).await?;
            }
        }
        Ok(())
    }

    /// Releases the loop devices of a file. Returns one that is still in use: it is released when that ends.
    async fn release(&self, act: &str, image: &Path) -> Result<Option<LoopDevice>, FabricError> {
        let mut complaint = None;
        for device in loop_device::holding(image)? {
            // A release is already pending. After it, the number may belong to another file before the next
            // request.
            if device.leaving {
                continue;
            }
            let argv = ["losetup", "--detach", &device.path()];
            complaint = exec::run(&self.env, act, &argv, None).await.err().or(complaint);
        }
        let holding = || loop_device::holding(image);
        match (
            loop_device::released(&self.env, RELEASE, holding).await?,
            complaint,
        ) {
            (Some(_), Some(complaint)) => Err(complaint),
            (held, _) => Ok(held),
        }
    }

    pub(crate) async fn delete_volume(&self, id: &VolumeId) -> Result<(), FabricError> {
        validate::identity("volume", id.as_str())?;
        let act = format!("delete volume {id}");
        let dir = self.volume_dir(id);
        match attached(&dir)? {
            Some(machine) if !loop_device::holding(&dir.join(IMAGE))?.is_empty() => {
                return Err(FabricError::failed(act, format!("machine {machine} has it")));
            }
            Some(_) => {}
            // Usually it is not attached. The record of its machine may have been lost, too.
            None => self.take_back(&act, &dir).await?,
        }
        let saved = Saved::read(&dir)?.filter(|saved| !saved.made);
        if let Some(source) = saved.and_then(|saved| saved.spec.source) {
            // The interrupted copy may have left its source frozen, and is not repeated.
            let _source = self.locks.hold(&format!("volume {source}")).await;
            let (image, place) = (self.volume_dir(&source).join(IMAGE), dir.join(FROZEN));
            blocking(&act, move || thaw(&image, &place)).await?;
        }
        blocking(&act, move || delete(&dir)).await
    }

    /// All volumes, complete or not, in order of their ids.
    pub(crate) fn volumes(&self) -> Result<Vec<VolumeSeen>, FabricError> {
        let ids = self.volume_ids()?;
        let devices = devices_for(&ids)?;
        ids.into_iter().map(|id| self.volume_seen(id, &devices)).collect()
    }

    fn volume_seen(&self, id: VolumeId, devices: &[LoopDevice]) -> Result<VolumeSeen, FabricError> {
        let dir = self.volume_dir(&id);
        let image = dir.join(IMAGE);
        let bytes = match fs::metadata(&image) {
            Ok(found) => found.len(),
            // It is being created or deleted.
            Err(error) if error.kind() == ErrorKind::NotFound => 0,
            Err(error) => return Err(FabricError::failed(format!("look at {}", image.display()), error)),
        };
        let device = holder(devices, &image);
        let spec = Saved::read(&dir)?.map(|saved| saved.spec);
        Ok(VolumeSeen {
            open: device.is_some_and(|device| !device.leaving)
                && spec.as_ref().is_some_and(|spec| spec.shared),
            // A machine has no more of it than its device shows; a device under release shows nothing.
            bytes: device
                .filter(|device| device.bytes > 0)
                .map_or(bytes, |device| device.bytes.min(bytes)),
            labels: spec.map(|spec| spec.labels).unwrap_or_default(),
            attached: match device {
                Some(_) => attached(&dir)?,
                None => None,
            },
            id,
        })
    }

    /// The volumes attached to any machine.
    pub(crate) fn held_volumes(&self) -> Result<Vec<VolumeId>, FabricError> {
        let mut ids = self.volume_ids()?;
        let devices = devices_for(&ids)?;
        ids.retain(|id| holder(&devices, &self.volume_dir(id).join(IMAGE)).is_some());
        Ok(ids)
    }

    fn volume_ids(&self) -> Result<Vec<VolumeId>, FabricError> {
        let mut names = files::names_in(&self.volumes_dir())
            .map_err(|error| FabricError::failed("list volumes", error))?;
        // The directory may be a filesystem with `lost+found`.
        names.retain(|name| validate::identity("volume", name).is_ok());
        Ok(names.into_iter().map(VolumeId).collect())
    }

    /// Removes all volumes. None is attached.
    pub(crate) async fn delete_volumes(&self) -> Result<(), FabricError> {
        let dir = self.volumes_dir();
        blocking("delete volumes", move || files::remove_tree(&dir)).await
    }
}

/// The loop devices of the host, read once for all volumes, and not at all if there are no volumes.
fn devices_for(volumes: &[VolumeId]) -> Result<Vec<LoopDevice>, FabricError> {
    if volumes.is_empty() {
        return Ok(Vec::new());
    }
    loop_device::all(Path::new(loop_device::DEVICES))
        .map_err(|error| FabricError::failed("list loop devices", error))
}

fn holder<'a>(devices: &'a [LoopDevice], image: &Path) -> Option<&'a LoopDevice> {
    if devices.is_empty() {
        return None;
    }
    let image = loop_device::real(image);
    devices.iter().find(|device| device.file == image)
}

/// Whether a file exists. Uncertainty is an error, because a missing file is created.
fn is_there(path: &Path) -> Result<bool, FabricError> {
    path.try_exists()
        .map_err(|error| FabricError::failed(format!("look for {}", path.display()), error))
}

fn size(path: &Path) -> Result<u64, FabricError> {
    let found = fs::metadata(path);
    let found = found.map_err(|error| FabricError::failed(format!("look at {}", path.display()), error))?;
    Ok(found.len())
}

/// Whether the recorded specification is that of a share. A lost record is written again when the share is
/// next ensured.
fn is_share(dir: &Path) -> Result<bool, FabricError> {
    Ok(Saved::read(dir)?.is_some_and(|saved| saved.spec.shared))
}

/// The recorded machine of a volume. The volume is attached only while a loop device is backed by the file.
fn attached(dir: &Path) -> Result<Option<MachineId>, FabricError> {
    let text = files::read(&dir.join(ATTACHED))?.unwrap_or_default();
    let id = text.trim();
    Ok((!id.is_empty()).then(|| MachineId::from(id)))
}

/// Creates a volume's file: empty, or as a copy of another in its current state. `formatted`: with an empty
/// filesystem.
fn make(dir: &Path, bytes: u64, source: Option<&Path>, formatted: bool) -> Result<(), FabricError> {
    let new = dir.join(NEW);
    // Of an interrupted call.
    files::remove(&new)?;
    let filled = fill(&new, bytes, source).and_then(|()| {
        if formatted {
            disk_image::format_share(&new)
        } else {
            Ok(())
        }
    });
    if filled.is_err() {
        // On a full disk its space is needed; the first error is returned.
        let _left = fs::remove_file(&new);
    }
    filled?;
    files::rename(&new, &dir.join(IMAGE))
}

fn fill(new: &Path, bytes: u64, source: Option<&Path>) -> Result<(), FabricError> {
    if let Some(source) = source {
        let shared = source.parent().map(is_share).transpose()?;
        copy(source, new, shared.unwrap_or_default())?;
    }
    let opened = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(new);
    opened
        .and_then(|file| {
            let size = file.metadata()?.len().max(bytes);
            file.set_len(size)?;
            file.sync_all()
        })
        .map_err(|error: io::Error| FabricError::failed(format!("write {}", new.display()), error))
}

/// Makes a file larger; a file that is large enough is left alone.
fn grow(image: &Path, bytes: u64) -> Result<(), FabricError> {
    if size(image)? >= bytes {
        return Ok(());
    }
    let opened = OpenOptions::new().write(true).open(image);
    opened
        .and_then(|file| {
            file.set_len(bytes)?;
            file.sync_all()
        })
        .map_err(|error| FabricError::failed(format!("make {} larger", image.display()), error))
}

/// Deletes a volume, and its directory last: as long as it exists, the volume is listed, and its deletion
/// retried.
fn delete(dir: &Path) -> Result<(), FabricError> {
    for name in [IMAGE, NEW, ATTACHED] {
        files::remove(&dir.join(name))?;
    }
    files::remove_tree(dir)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileExt as _, MetadataExt as _};

    use super::*;

    fn spec() -> VolumeSpec {
        VolumeSpec {
            id: VolumeId::from("v1"),
            bytes: 8 << 20,
            source: None,
            shared: false,
            labels: [("cluster".to_owned(), "c1".to_owned())].into(),
        }
    }

    #[test]
    fn a_file_is_sparse_private_and_complete_or_not_there() {
        let place = tempfile::tempdir().unwrap();
        let dir = place.path().join("v1");
        Saved::new(&spec(), false).write(&dir).unwrap();
        fs::write(dir.join(NEW), "of a call that was cut short").unwrap();
        make(&dir, 8 << 20, None, false).unwrap();
        let image = dir.join(IMAGE);
        let found = fs::metadata(&image).unwrap();
        assert_eq!((found.len(), found.mode() & 0o777), (8 << 20, 0o600));
        assert!(found.blocks() < 16, "{} blocks", found.blocks());
        assert!(!dir.join(NEW).exists());
        assert_eq!(fs::metadata(&dir).unwrap().mode() & 0o777, 0o700);

        // A failed creation leaves nothing behind.
        let other = place.path().join("v2");
        files::make_dir(&other).unwrap();
        let error = make(&other, 8 << 20, Some(Path::new("/nowhere/volume.img")), false).unwrap_err();
        assert!(error.to_string().contains("copy /nowhere/volume.img"), "{error}");
        assert_eq!(files::names_in(&other).unwrap(), [""; 0]);
    }

    #[test]
    fn a_copy_has_what_its_source_has_and_at_least_its_size() {
        let place = tempfile::tempdir().unwrap();
        let (one, two, three) = (
            place.path().join("v1"),
            place.path().join("v2"),
            place.path().join("v3"),
        );
        for dir in [&one, &two, &three] {
            files::make_dir(dir).unwrap();
        }
        make(&one, 8 << 20, None, false).unwrap();
        let source = one.join(IMAGE);
        let file = OpenOptions::new().write(true).open(&source).unwrap();
        file.write_all_at(b"kept", 5 << 20).unwrap();
        for (dir, bytes, expected) in [(&two, 16 << 20, 16 << 20), (&three, 1 << 20, 8 << 20)] {
            make(dir, bytes, Some(&source), false).unwrap();
            let image = dir.join(IMAGE);
            let found = fs::metadata(&image).unwrap();
            assert_eq!((found.len(), found.mode() & 0o777), (expected, 0o600));
            assert!(found.blocks() < 2048, "{} blocks", found.blocks());
            let mut read = [0; 4];
            let copied = fs::File::open(&image).unwrap();
            copied.read_exact_at(&mut read, 5 << 20).unwrap();
            assert_eq!(&read, b"kept");
        }
    }

    #[test]
    fn a_file_grows_and_never_shrinks() {
        let place = tempfile::tempdir().unwrap();
        make(place.path(), 8 << 20, None, false).unwrap();
        let image = place.path().join(IMAGE);
        for (asked, expected) in [(4_u64 << 20, 8_u64 << 20), (9 << 20, 9 << 20), (1 << 20, 9 << 20)] {
            grow(&image, asked).unwrap();
            assert_eq!(size(&image).unwrap(), expected);
        }
        fs::remove_file(&image).unwrap();
        assert!(grow(&image, 1 << 20).is_err(), "it is not made by that");
        assert!(!is_there(&image).unwrap());
    }

    #[test]
    fn what_is_written_down_may_be_damaged() {
        let place = tempfile::tempdir().unwrap();
        let dir = place.path().join("v1");
        let saved = Saved::new(&spec(), true);
        assert_eq!(Saved::read(&dir).unwrap(), None);
        saved.write(&dir).unwrap();
        assert_eq!(Saved::read(&dir).unwrap(), Some(saved));
        fs::write(dir.join("spec.json"), "{\"v\":1,\"ma").unwrap();
        assert_eq!(Saved::read(&dir).unwrap(), None);

        assert_eq!(attached(&dir).unwrap(), None);
        files::write(&dir.join(ATTACHED), b"m1").unwrap();
        assert_eq!(attached(&dir).unwrap(), Some(MachineId::from("m1")));
        fs::write(dir.join(ATTACHED), "").unwrap();
        assert_eq!(attached(&dir).unwrap(), None);
    }

    #[test]
    fn a_volume_is_deleted_whatever_is_there_of_it() {
        let place = tempfile::tempdir().unwrap();
        let dir = place.path().join("v1");
        Saved::new(&spec(), false).write(&dir).unwrap();
        make(&dir, 1 << 20, None, false).unwrap();
        files::write(&dir.join(ATTACHED), b"m1").unwrap();
        for _ in 0..2 {
            delete(&dir).unwrap();
            assert!(!dir.exists());
        }
        fs::create_dir(&dir).unwrap();
        delete(&dir).unwrap();
        assert!(!dir.exists());
    }
}
