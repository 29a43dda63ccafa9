//! Numbers and bytes in the payload of a frame: LEB128 for numbers, a length before bytes.

use crate::BackupError;

pub(crate) fn put_number(out: &mut Vec<u8>, mut number: u64) {
    loop {
        let low = (number & 0x7f) as u8;
        number >>= 7;
        if number == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}

/// Writes a signed number that is rarely negative, as its bits.
pub(crate) fn put_signed(out: &mut Vec<u8>, number: i64) {
    put_number(out, number.cast_unsigned());
}

pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Reads a payload from its start. Its checksum was valid, so a mismatch is an error of the writer.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    /// For errors: the position of the frame.
    whole: u64,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(payload: &'a [u8], whole: u64) -> Self {
        Self { rest: payload, whole }
    }

    fn short(&self) -> BackupError {
        BackupError::Damaged {
            whole: self.whole,
            why: "a block holds less than it says",
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn byte(&mut self) -> Result<u8, BackupError> {
        let (first, rest) = self.rest.split_first().ok_or_else(|| self.short())?;
        self.rest = rest;
        Ok(*first)
    }

    pub(crate) fn number(&mut self) -> Result<u64, BackupError> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(self.short())
    }

    pub(crate) fn signed(&mut self) -> Result<i64, BackupError> {
        self.number().map(u64::cast_signed)
    }

    pub(crate) fn bytes(&mut self) -> Result<Vec<u8>, BackupError> {
        let length = usize::try_from(self.number()?).map_err(|_| self.short())?;
        let (bytes, rest) = self.rest.split_at_checked(length).ok_or_else(|| self.short())?;
        self.rest = rest;
        Ok(bytes.to_vec())
    }
}
