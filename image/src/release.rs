//! Official downloads, checked against their pinned checksums.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};

use crate::{
    digest::{self, Summing},
    error::{ImageError, IoContext as _},
};

/// No release of any component is nearly as large.
const LARGEST: u64 = 1 << 30;
/// Debian's bundle, the same that curl and apt use.
const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// One download.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Download {
    /// Upstream's address, with `{sha256}` in place of the checksum if it is part of it. The name of the pin.
    pub(crate) url: String,
    pub(crate) sha256: String,
    /// The path of the program inside the archive; `None`: the download is the program.
    pub(crate) member: Option<String>,
}

/// Writes the program of `download` to `target`. The download itself is kept in `downloads` under its
/// checksum: several programs come from one archive.
pub(crate) fn program(
    download: &Download,
    mirror: Option<&str>,
    downloads: &Path,
    scratch: &Path,
    target: &Path,
) -> Result<(), ImageError> {
    // Named after the program: concurrent lanes have no program in common.
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    let partial = scratch.join(format!("{name}.download"));
    let kept = fetch(download, mirror, downloads, &partial)?;
    match &download.member {
        Some(member) => extract(&kept, member, target),
        None => fs::copy(&kept, target).map(drop).at("write", target),
    }
}

fn fetch(
    download: &Download,
    mirror: Option<&str>,
    downloads: &Path,
    partial: &Path,
) -> Result<PathBuf, ImageError> {
    let kept = downloads.join(&download.sha256);
    if kept.is_file() {
        return Ok(kept);
    }
    let url = address(&download.url.replace("{sha256}", &download.sha256), mirror);
    let file = File::create(partial).at("write", partial)?;
    let mut sum = Summing::new(file);
    receive(&url, &mut sum)?;
    let (got, _, _) = sum.finish();
    if got != download.sha256 {
        fs::remove_file(partial).at("remove", partial)?;
        return Err(ImageError::PinMismatch {
            url,
            wanted: download.sha256.clone(),
            got,
        });
    }
    fs::create_dir_all(downloads).at("create", downloads)?;
    fs::rename(partial, &kept).at("write", &kept)?;
    Ok(kept)
}

fn address(url: &str, mirror: Option<&str>) -> String {
    match mirror {
        Some(mirror) => {
            let path = url.split_once("://").map_or(url, |(_, path)| path);
            format!("{}/{path}", mirror.trim_end_matches('/'))
        }
        None => url.to_owned(),
    }
}

fn receive(url: &str, to: &mut impl io::Write) -> Result<(), ImageError> {
    let failed = |error: &ureq::Error| match error {
        ureq::Error::Io(_)
        | ureq::Error::Timeout(_)
        | ureq::Error::HostNotFound
        | ureq::Error::ConnectionFailed => ImageError::Network {
            what: format!("downloading {url}"),
            detail: error.to_string(),
        },
        other => ImageError::Download {
            url: url.to_owned(),
            detail: other.to_string(),
        },
    };
    let response = agent()?.get(url).call().map_err(|error| failed(&error))?;
    let mut body = response.into_body().into_with_config().limit(LARGEST).reader();
    digest::copy(&mut body, to)
        .map(drop)
        .map_err(|error| failed(&ureq::Error::from(error)))
}

fn agent() -> Result<ureq::Agent, ImageError> {
    let bundle = Path::new(CERTIFICATES);
    // Without the package there are no root certificates: http mirrors work, and https reports an untrusted
    // server.
    let text = if bundle.exists() {
        fs::read(bundle).at("read", bundle)?
    } else {
        Vec::new()
    };
    let roots: Vec<_> = parse_pem(&text)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    let tls = TlsConfig::builder()
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .root_certs(RootCerts::new_with_certs(&roots))
        .build();
    let config = ureq::Agent::config_builder()
        .tls_config(tls)
        .timeout_connect(Some(Duration::from_secs(20)))
        .timeout_recv_response(Some(Duration::from_secs(60)))
        .build();
    Ok(config.into())
}

/// Extracts one file from a gzipped archive.
fn extract(archive: &Path, member: &str, target: &Path) -> Result<(), ImageError> {
    let bad = |detail: String| ImageError::BadArchive {
        archive: archive.display().to_string(),
        detail,
    };
    let file = File::open(archive).at("open", archive)?;
    let mut entries = tar::Archive::new(flate2::read::GzDecoder::new(io::BufReader::new(file)));
    for entry in entries.entries().at("read", archive)? {
        let mut entry = entry.map_err(|error| bad(error.to_string()))?;
        let found = entry.path().map_err(|error| bad(error.to_string()))?;
        if found.strip_prefix(".").unwrap_or(&found) != Path::new(member) {
            continue;
        }
        if !entry.header().entry_type().is_file() || entry.size() > LARGEST {
            return Err(bad(format!("{member} in it is not a program")));
        }
        let mut out = File::create(target).at("write", target)?;
        digest::copy(&mut entry, &mut out).at("unpack", archive)?;
        return Ok(());
    }
    Err(bad(format!("there is no {member} in it")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{BufRead as _, BufReader, Write as _},
        net::TcpListener,
    };

    /// Serves `files` on loopback for this number of requests; returns the address and the requested paths.
    fn mirror(
        files: Vec<(&'static str, Vec<u8>)>,
        requests: usize,
    ) -> (String, std::thread::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let served = std::thread::spawn(move || {
            let mut asked = Vec::new();
            for _ in 0..requests {
                let (mut stream, _) = listener.accept().unwrap();
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                let first = lines.next().unwrap().unwrap();
                while !lines.next().unwrap().unwrap().is_empty() {}
                let path = first.split(' ').nth(1).unwrap().to_owned();
                let (status, body) = match files.iter().find(|(name, _)| *name == path) {
                    Some((_, body)) => ("200 OK", body.as_slice()),
                    None => ("404 Not Found", &[][..]),
                };
                let head = format!(
                    "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
                    body.len()
                );
                stream.write_all(head.as_bytes()).unwrap();
                stream.write_all(body).unwrap();
                asked.push(path);
            }
            asked
        });
        (url, served)
    }

    fn archive() -> Vec<u8> {
        let mut builder = tar::Builder::new(flate2::write::GzEncoder::new(
            Vec::new(),
            flate2::Compression::fast(),
        ));
        for (path, content) in [("./bin/a", "program a"), ("bin/b", "program b")] {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o755);
            builder
                .append_data(&mut header, path, content.as_bytes())
                .unwrap();
        }
        builder.into_inner().unwrap().finish().unwrap()
    }

    #[test]
    fn two_programs_of_one_archive_are_one_download() {
        let archive = archive();
        let sha256 = digest::of_bytes(&archive);
        let (url, served) = mirror(vec![("/example.org/x.tgz", archive)], 1);
        let dir = tempfile::tempdir().unwrap();
        let downloads = dir.path().join("downloads");
        for name in ["a", "b"] {
            let download = Download {
                url: "https://example.org/x.tgz".to_owned(),
                sha256: sha256.clone(),
                member: Some(format!("bin/{name}")),
            };
            let target = dir.path().join(name);
            program(&download, Some(&url), &downloads, dir.path(), &target).unwrap();
            assert_eq!(fs::read_to_string(target).unwrap(), format!("program {name}"));
        }
        assert_eq!(served.join().unwrap(), ["/example.org/x.tgz"]);
        let missing = Download {
            url: "https://example.org/x.tgz".to_owned(),
            sha256,
            member: Some("bin/c".to_owned()),
        };
        let error = program(
            &missing,
            Some(&url),
            &downloads,
            dir.path(),
            &dir.path().join("c"),
        )
        .unwrap_err();
        assert!(error.to_string().contains("there is no bin/c in it"), "{error}");
    }

    #[test]
    fn a_wrong_checksum_and_a_missing_file_are_refused() {
        let (url, served) = mirror(vec![("/example.org/x", b"other".to_vec())], 2);
        let dir = tempfile::tempdir().unwrap();
        let get = |path: &str| {
            let download = Download {
                url: format!("https://example.org/{path}"),
                sha256: digest::of_bytes(b"wanted"),
                member: None,
            };
            program(
                &download,
                Some(&url),
                &dir.path().join("d"),
                dir.path(),
                &dir.path().join("x"),
            )
            .unwrap_err()
        };
        let error = get("x");
        assert!(
            matches!(&error, ImageError::PinMismatch { got, .. } if *got == digest::of_bytes(b"other")),
            "{error}"
        );
        let error = get("y");
        assert!(
            matches!(&error, ImageError::Download { detail, .. } if detail.contains("404")),
            "{error}"
        );
        served.join().unwrap();
        assert!(!dir.path().join("x").exists());
        // The server has ended.
        let error = get("x");
        assert!(matches!(error, ImageError::Network { .. }), "{error}");
    }

    #[test]
    fn a_checksum_can_be_part_of_the_address() {
        let sha256 = digest::of_bytes(b"blob");
        let path: &'static str = Box::leak(format!("/r/v2/x/blobs/sha256:{sha256}").into_boxed_str());
        let (url, served) = mirror(vec![(path, b"blob".to_vec())], 1);
        let dir = tempfile::tempdir().unwrap();
        let download = Download {
            url: "https://r/v2/x/blobs/sha256:{sha256}".to_owned(),
            sha256,
            member: None,
        };
        program(
            &download,
            Some(&url),
            &dir.path().join("d"),
            dir.path(),
            &dir.path().join("x"),
        )
        .unwrap();
        served.join().unwrap();
        assert_eq!(fs::read(dir.path().join("x")).unwrap(), b"blob");
    }
}
