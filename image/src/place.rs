//! The location of node images on a host.
//!
//! Always true: root runs these programs, so no other user owns, or can write to, the directory or one above
//! it; HOME has no effect, since services have none and `sudo` keeps the caller's.

use std::{
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use crate::error::{ImageError, IoContext as _};

/// The cache directory: `$LANDFALL_CACHE_DIR`, else `remembered` (the directory of the stamp), else
/// `$XDG_CACHE_HOME/landfall`, else `.cache/landfall` in the home directory that the user database has for
/// this user.
///
/// # Errors
/// [`ImageError::NoCacheDirectory`] when none of them is known; [`ImageError::UnsafeCache`] when another user
/// could change its content.
pub fn cache_dir(remembered: Option<&Path>) -> Result<PathBuf, ImageError> {
    let variable = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let user = nix::unistd::geteuid();
    // A user that is not in the database; root still has its usual home.
    let home = nix::unistd::User::from_uid(user)
        .ok()
        .flatten()
        .map(|user| user.dir)
        .or_else(|| user.is_root().then(|| PathBuf::from("/root")));
    let place = chosen(
        variable("LANDFALL_CACHE_DIR"),
        remembered,
        variable("XDG_CACHE_HOME"),
        home,
    )
    .ok_or(ImageError::NoCacheDirectory)?;
    let place = std::path::absolute(&place).at("find", &place)?;
    check(&place, user.as_raw())?;
    Ok(place)
}

fn chosen(
    named: Option<PathBuf>,
    remembered: Option<&Path>,
    caches: Option<PathBuf>,
    home: Option<PathBuf>,
) -> Option<PathBuf> {
    named
        .or_else(|| remembered.map(Path::to_owned))
        .or_else(|| caches.map(|base| base.join("landfall")))
        .or_else(|| home.map(|home| home.join(".cache/landfall")))
}

/// Refuses a file or directory that a user other than `user` or root could replace, directly or through a
/// parent directory.
///
/// # Errors
/// [`ImageError::UnsafeCache`], and [`ImageError::Io`] where the path cannot be read.
pub fn check(path: &Path, user: u32) -> Result<(), ImageError> {
    // A missing path is created by this process, in the deepest existing directory.
    let mut existing = path;
    let real = loop {
        match existing.canonicalize() {
            Ok(real) => break real,
            Err(error) if error.kind() == io::ErrorKind::NotFound => match existing.parent() {
                Some(parent) => existing = parent,
                None => return Err(error).at("find", path),
            },
            other => break other.at("find", existing)?,
        }
    };
    for part in real.ancestors() {
        let data = std::fs::metadata(part).at("look at", part)?;
        if let Some(why) = objection(data.uid(), data.mode(), user) {
            return Err(ImageError::UnsafeCache {
                path: path.display().to_string(),
                part: part.display().to_string(),
                why,
            });
        }
    }
    Ok(())
}

/// The reason why a file or directory with this owner and mode is not safe for `user`.
fn objection(owner: u32, mode: u32, user: u32) -> Option<String> {
    const WRITABLE: u32 = 0o022;
    const STICKY: u32 = 0o1000;
    const KIND: u32 = 0o170_000;
    const DIRECTORY: u32 = 0o040_000;
    if owner != 0 && owner != user {
        return Some(format!("belongs to user {owner}"));
    }
    // In a sticky directory only the owner can rename a file.
    let sticky = mode & KIND == DIRECTORY && mode & STICKY != 0;
    (mode & WRITABLE != 0 && !sticky).then(|| format!("can be written by others (mode {:o})", mode & 0o7777))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_stamp_keeps_its_place_unless_another_is_named() {
        let path = |text: &str| Some(PathBuf::from(text));
        let kept = Path::new("/kept");
        assert_eq!(
            chosen(path("/named"), Some(kept), path("/x"), path("/h")),
            path("/named")
        );
        assert_eq!(chosen(None, Some(kept), path("/x"), path("/h")), path("/kept"));
        assert_eq!(chosen(None, None, path("/x"), path("/h")), path("/x/landfall"));
        assert_eq!(chosen(None, None, None, path("/h")), path("/h/.cache/landfall"));
        assert_eq!(chosen(None, None, None, None), None);
    }

    #[test]
    fn what_others_can_change_is_refused() {
        for (owner, mode, user, fine) in [
            (0, 0o040_755, 0, true),
            (0, 0o041_777, 0, true),
            (1000, 0o040_755, 1000, true),
            (1000, 0o040_755, 0, false),
            (0, 0o040_775, 0, false),
            (0, 0o040_757, 0, false),
            (0, 0o100_755, 0, true),
            // The sticky bit has no meaning for a file.
            (0, 0o101_777, 0, false),
        ] {
            assert_eq!(
                objection(owner, mode, user).is_none(),
                fine,
                "{owner} {mode:o} {user}"
            );
        }
    }

    #[test]
    fn directories_above_and_links_are_looked_at() {
        let user = nix::unistd::geteuid().as_raw();
        let dir = tempfile::tempdir().unwrap();
        let cache = dir.path().join("open/cache/not/there/yet");
        check(&cache, user).unwrap();
        std::fs::create_dir_all(dir.path().join("open/cache")).unwrap();
        check(&cache, user).unwrap();
        let open = dir.path().join("open");
        std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o777)).unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(open.join("cache"), &link).unwrap();
        for path in [&cache, &link] {
            let said = check(path, user).unwrap_err().to_string();
            assert!(
                said.contains("open can be written by others (mode 777)"),
                "{said}"
            );
        }
    }
}
