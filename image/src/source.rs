//! The sources of programs.

use std::{collections::BTreeMap, fs, path::PathBuf};

use serde::Deserialize;

use crate::{components::RELEASE_PINS, error::ImageError};

/// The source of an image's programs. The base system always comes from Debian.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Compiled here from the pinned Go modules. Needs a Go toolchain.
    Modules,
    /// Existing files, in this directory or in `bin` below it, named like the programs. Each is run to check
    /// its version.
    Directory(PathBuf),
    /// Upstream's official downloads, with pinned checksums.
    Release(Release),
}

/// Options of official downloads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Release {
    /// Base address of a mirror; `https://dl.k8s.io/x` becomes `<mirror>/dl.k8s.io/x`. Without: upstream's addresses.
    pub mirror: Option<String>,
    /// A file with further checksums: lines `"URL" = "64 hex digits"` under `[sha256]`, with upstream's URLs.
    pub pins: Option<PathBuf>,
}

impl Source {
    /// `modules`, `directory` or `release`.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Modules => "modules",
            Self::Directory(_) => "directory",
            Self::Release(_) => "release",
        }
    }
}

/// Checksums by URL.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pins {
    #[serde(default)]
    sha256: BTreeMap<String, String>,
}

impl Pins {
    /// The pins of this crate and those of the file; the file wins.
    pub(crate) fn load(release: &Release) -> Result<Self, ImageError> {
        let mut pins = Self::parse(RELEASE_PINS, "release-pins.toml")?;
        if let Some(path) = &release.pins {
            let name = path.display().to_string();
            let text = fs::read_to_string(path).map_err(|error| ImageError::BadPins {
                path: name.clone(),
                detail: error.to_string(),
            })?;
            pins.sha256.extend(Self::parse(&text, &name)?.sha256);
        }
        Ok(pins)
    }

    fn parse(text: &str, path: &str) -> Result<Self, ImageError> {
        let bad = |detail: String| ImageError::BadPins {
            path: path.to_owned(),
            detail,
        };
        let pins: Self = toml::from_str(text).map_err(|error| bad(error.message().to_owned()))?;
        let wrong = pins.sha256.iter().find(|(_, pin)| {
            pin.len() != 64
                || !pin
                    .bytes()
                    .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
        });
        match wrong {
            Some((url, pin)) => Err(bad(format!("'{pin}' for {url} is not 64 lower-case hex digits"))),
            None => Ok(pins),
        }
    }

    /// The checksum of the download at `url`.
    pub(crate) fn get(&self, url: &str) -> Result<&str, ImageError> {
        self.sha256
            .get(url)
            .map(String::as_str)
            .ok_or_else(|| ImageError::MissingPin { url: url.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_pin_is_named() {
        let pins = Pins::load(&Release::default()).unwrap();
        let error = pins.get("https://dl.k8s.io/v9/x").unwrap_err().to_string();
        assert!(
            error.starts_with("no SHA-256 is pinned for https://dl.k8s.io/v9/x"),
            "{error}"
        );
    }

    #[test]
    fn a_pin_file_is_read_and_checked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pins.toml");
        let release = Release {
            mirror: None,
            pins: Some(path.clone()),
        };
        assert!(matches!(Pins::load(&release), Err(ImageError::BadPins { .. })));
        fs::write(
            &path,
            format!("[sha256]\n\"https://a/b\" = \"{}\"\n", "0f".repeat(32)),
        )
        .unwrap();
        assert_eq!(
            Pins::load(&release).unwrap().get("https://a/b").unwrap(),
            "0f".repeat(32)
        );
        fs::write(&path, "[sha256]\n\"https://a/b\" = \"0F\"\n").unwrap();
        let error = Pins::load(&release).unwrap_err().to_string();
        assert!(error.contains("'0F' for https://a/b is not 64"), "{error}");
    }
}
