//! Sealed streams: each piece is bound to its stream's name, its number, and whether it is the last.

use std::io::{self, Read, Write};

use base_sealer::Sealer;

const PIECE: usize = 256 * 1024;
/// The overhead of sealing, with a margin; no piece is longer.
const LONGEST: u32 = (PIECE + 1024) as u32;

fn piece(name: &str, number: u64, last: bool) -> String {
    format!("{name}#{number}{}", if last { "." } else { "" })
}

/// Seals the data written to it. Invalid without [`SealedWriter::finish`].
pub(crate) struct SealedWriter<'a> {
    sealer: &'a Sealer,
    name: &'a str,
    out: &'a mut dyn Write,
    buffer: Vec<u8>,
    number: u64,
    written: u64,
}

impl<'a> SealedWriter<'a> {
    pub(crate) fn new(sealer: &'a Sealer, name: &'a str, out: &'a mut dyn Write) -> Self {
        Self {
            sealer,
            name,
            out,
            buffer: Vec::new(),
            number: 0,
            written: 0,
        }
    }

    fn put(&mut self, last: bool) -> io::Result<()> {
        let name = piece(self.name, self.number, last);
        let sealed = self.sealer.seal(&name, &self.buffer).map_err(io::Error::other)?;
        let length = u32::try_from(sealed.len()).map_err(io::Error::other)?;
        self.out.write_all(&length.to_le_bytes())?;
        self.out.write_all(&sealed)?;
        self.written += 4 + u64::from(length);
        self.buffer.clear();
        self.number += 1;
        Ok(())
    }

    /// Seals the last piece. Returns the total number of bytes.
    pub(crate) fn finish(mut self) -> io::Result<u64> {
        self.put(true)?;
        Ok(self.written)
    }
}

impl Write for SealedWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(PIECE - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..taken]);
        if self.buffer.len() == PIECE {
            self.put(false)?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Unseals a stream. A missing last piece is an error, not an end.
pub(crate) struct SealedReader<R> {
    sealer: std::sync::Arc<Sealer>,
    name: String,
    source: R,
    piece: Vec<u8>,
    at: usize,
    number: u64,
    ended: bool,
}

impl<R: Read> SealedReader<R> {
    pub(crate) fn new(sealer: std::sync::Arc<Sealer>, name: String, source: R) -> Self {
        Self {
            sealer,
            name,
            source,
            piece: Vec::new(),
            at: 0,
            number: 0,
            ended: false,
        }
    }

    fn next(&mut self) -> io::Result<()> {
        let damaged = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
        let mut length = [0; 4];
        self.source.read_exact(&mut length)?;
        let length = u32::from_le_bytes(length);
        if length > LONGEST {
            return Err(damaged("a sealed piece of an impossible size"));
        }
        let mut sealed = vec![0; length as usize];
        self.source.read_exact(&mut sealed)?;
        let open = |last| self.sealer.unseal(&piece(&self.name, self.number, last), &sealed);
        // Most streams have a single piece.
        let (opened, last) = match open(true) {
            Ok(opened) => (opened, true),
            Err(_) => (open(false).map_err(|error| damaged(&error.to_string()))?, false),
        };
        self.piece.clear();
        self.piece.extend_from_slice(&opened);
        self.at = 0;
        self.number += 1;
        self.ended = last;
        Ok(())
    }
}

impl<R: Read> Read for SealedReader<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.at == self.piece.len() {
            if self.ended {
                return Ok(0);
            }
            self.next()?;
        }
        let taken = out.len().min(self.piece.len() - self.at);
        out[..taken].copy_from_slice(&self.piece[self.at..self.at + taken]);
        self.at += taken;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn sealed(name: &str, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let sealer = Sealer::from_key(&[7; 32]);
        let mut writer = SealedWriter::new(&sealer, name, &mut out);
        writer.write_all(bytes).unwrap();
        writer.finish().unwrap();
        out
    }

    fn open(name: &str, sealed: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        SealedReader::new(Arc::new(Sealer::from_key(&[7; 32])), name.to_owned(), sealed)
            .read_to_end(&mut out)?;
        Ok(out)
    }

    #[test]
    fn a_stream_of_any_length_comes_back_under_its_name_only() {
        for length in [0, 1, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 3 * PIECE + 9] {
            let bytes: Vec<u8> = (0..length).map(|index| (index % 251) as u8).collect();
            let text = sealed("a/x", &bytes);
            assert_eq!(open("a/x", &text).unwrap(), bytes);
            assert!(open("b/x", &text).is_err());
        }
    }

    #[test]
    fn pieces_cannot_be_dropped_or_exchanged() {
        let text = sealed("n", &vec![1; 2 * PIECE + 5]);
        let first = 4 + u32::from_le_bytes(text[..4].try_into().unwrap()) as usize;
        assert!(open("n", &text[..first]).is_err());
        assert!(open("n", &text[first..]).is_err());
        assert!(open("n", &text[..text.len() - 1]).is_err());
        let exchanged = [&text[first..2 * first], &text[..first], &text[2 * first..]].concat();
        assert!(open("n", &exchanged).is_err());
    }
}
