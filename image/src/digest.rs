//! SHA-256 of bytes, files and streams.

use std::{
    fs::File,
    io::{self, Read, Write},
    path::Path,
};

use sha2::{Digest as _, Sha256};

use crate::error::{ImageError, IoContext as _};

/// 64 lower-case hex digits.
pub(crate) fn of_bytes(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// Reads the whole file.
pub(crate) fn of_file(path: &Path) -> Result<String, ImageError> {
    let mut file = File::open(path).at("open", path)?;
    let mut sum = Summing::new(io::sink());
    copy(&mut file, &mut sum).at("read", path)?;
    let (digest, _, _) = sum.finish();
    Ok(digest)
}

/// `io::copy` with a buffer that suits files of a hundred megabytes.
pub(crate) fn copy(from: &mut impl Read, to: &mut impl Write) -> io::Result<u64> {
    let mut buffer = vec![0; 1 << 18];
    let mut total = 0;
    loop {
        let n = match from.read(&mut buffer) {
            Ok(0) => return Ok(total),
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        to.write_all(&buffer[..n])?;
        total += n as u64;
    }
}

/// Writes through and computes the digest.
pub(crate) struct Summing<W> {
    inner: W,
    sum: Sha256,
    size: u64,
}

impl<W: Write> Summing<W> {
    pub(crate) fn new(inner: W) -> Self {
        Self {
            inner,
            sum: Sha256::new(),
            size: 0,
        }
    }

    /// Digest, size and the inner writer.
    pub(crate) fn finish(self) -> (String, u64, W) {
        (hex::encode(self.sum.finalize()), self.size, self.inner)
    }
}

impl<W: Write> Write for Summing<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(buffer)?;
        self.sum.update(&buffer[..n]);
        self.size += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
