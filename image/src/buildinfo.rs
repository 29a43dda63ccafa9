//! The modules that a Go program was linked from, read from the program itself, without a Go toolchain.
//!
//! The linker writes a block that starts with a magic string on a 16-byte boundary (documented in Go's
//! `debug/buildinfo`): 14 bytes magic, pointer size, flags; since Go 1.18, at offset 32, two strings with a
//! varint length each: the toolchain's version, and the module list between two sentinels of 16 bytes.

use std::{fs::File, io::Read as _, path::Path};

use crate::error::{ImageError, IoContext as _};

const MAGIC: &[u8] = b"\xff Go buildinf:";
const INLINE_STRINGS: u8 = 2;
/// Larger than any module list; limits the read from a file that only looks like a Go program.
const LIMIT: usize = 4 << 20;

/// The build information of a Go program.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct BuildInfo {
    /// `go1.26.8`
    pub(crate) go: String,
    /// Module path and version, as linked (after replacements), without the main module.
    pub(crate) modules: Vec<(String, String)>,
    /// C libraries in the program, with their versions. Not in the block: whoever compiles it knows them.
    pub(crate) libraries: Vec<(String, String)>,
}

/// `None` when the file is not a Go program or was built by an old toolchain.
pub(crate) fn of_file(path: &Path) -> Result<Option<BuildInfo>, ImageError> {
    let mut file = File::open(path).at("open", path)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).at("read", path)?;
    Ok(of_bytes(&bytes))
}

fn of_bytes(bytes: &[u8]) -> Option<BuildInfo> {
    // A program that itself reads build information also contains the magic as a constant: try all
    // occurrences.
    bytes
        .chunks_exact(16)
        .enumerate()
        .filter(|(_, chunk)| chunk.starts_with(MAGIC) && chunk[15] & INLINE_STRINGS != 0)
        .find_map(|(index, _)| block(bytes.get(index * 16 + 32..)?))
}

fn block(bytes: &[u8]) -> Option<BuildInfo> {
    let (go, rest) = string(bytes)?;
    let go = std::str::from_utf8(go)
        .ok()
        .filter(|go| go.starts_with("go") || go.starts_with("devel"))?;
    let (list, _) = string(rest)?;
    let list = list.get(16..list.len().checked_sub(16)?)?;
    let mut modules: Vec<(String, String)> = Vec::new();
    for line in std::str::from_utf8(list).ok()?.lines() {
        let mut fields = line.split('\t');
        let (kind, path, version) = (fields.next(), fields.next(), fields.next());
        match (kind, path, version) {
            (Some("dep"), Some(path), Some(version)) => modules.push((path.to_owned(), version.to_owned())),
            // The line after a dependency that was replaced.
            (Some("=>"), Some(path), Some(version)) => {
                if let Some(last) = modules.last_mut() {
                    *last = (path.to_owned(), version.to_owned());
                }
            }
            // A program built in its own repository, as in official releases.
            (Some("mod"), Some(path), Some(version)) if version != "(devel)" && !version.is_empty() => {
                modules.push((path.to_owned(), version.to_owned()));
            }
            _ => {}
        }
    }
    Some(BuildInfo {
        go: go.to_owned(),
        modules,
        libraries: Vec::new(),
    })
}

/// A varint length and that many bytes.
fn string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut length = 0_usize;
    for (index, byte) in bytes.iter().take(5).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            let rest = &bytes[index + 1..];
            return (length <= LIMIT && length <= rest.len()).then(|| rest.split_at(length));
        }
    }
    None
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A file as the Go linker would leave it.
    pub(crate) fn program(go: &str, list: &str) -> Vec<u8> {
        let mut bytes = vec![0x7f; 48];
        // The magic as a constant, without a block.
        bytes.extend(MAGIC);
        bytes.extend([8, 2]);
        bytes.extend([0xff; 16]);
        bytes.extend(MAGIC);
        bytes.extend([8, 2]);
        bytes.extend([0; 16]);
        for text in [
            go.as_bytes().to_vec(),
            [&[b'<'; 16][..], list.as_bytes(), &[b'>'; 16][..]].concat(),
        ] {
            let mut length = text.len();
            while length >= 0x80 {
                bytes.push((length & 0x7f) as u8 | 0x80);
                length >>= 7;
            }
            bytes.push(length as u8);
            bytes.extend(text);
        }
        bytes.extend([0; 100]);
        bytes
    }

    #[test]
    fn modules_and_toolchain_are_read() {
        let list = "path\tk8s.io/kubernetes/cmd/kubelet\nmod\tlandfall.dev/components/kubernetes-1.36\t(devel)\t\n\
                    dep\tcel.dev/expr\tv0.25.1\th1:x=\ndep\tk8s.io/api\tv0.0.0\n=>\tk8s.io/api\tv0.36.3\th1:y=\n\
                    build\tCGO_ENABLED=0\n";
        let info = of_bytes(&program("go1.26.8", list)).unwrap();
        assert_eq!(info.go, "go1.26.8");
        let wanted = [("cel.dev/expr", "v0.25.1"), ("k8s.io/api", "v0.36.3")];
        assert_eq!(
            info.modules,
            wanted.map(|(path, version)| (path.to_owned(), version.to_owned()))
        );
    }

    #[test]
    fn other_files_have_none() {
        assert_eq!(of_bytes(b"#!/bin/sh\n"), None);
        let mut cut = program("go1.26.8", &"dep\ta\tv1\n".repeat(50));
        cut.truncate(130);
        assert_eq!(of_bytes(&cut), None);
    }
}
