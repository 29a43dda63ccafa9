//! An advert on the wire: fixed length, authenticated.
//!
//! `"LFVIP1"`, flags (1: healthy, 2: holds), 0, the VIP, the sender, a count (8 bytes, big endian), HMAC-SHA-256 of all before.

use std::net::Ipv4Addr;

use aws_lc_rs::hmac;

use crate::state::Say;

const MAGIC: &[u8; 6] = b"LFVIP1";
const SIGNED: usize = 24;
/// The length of an advert in bytes.
pub const LENGTH: usize = SIGNED + 32;

/// The content of an advert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Advert {
    /// The address it is about.
    pub vip: Ipv4Addr,
    /// The sender.
    pub from: Ipv4Addr,
    /// Increases with each advert of a sender, also across its restarts.
    pub count: u64,
    /// The state of the sender.
    pub say: Say,
}

/// The key of a cluster's adverts.
pub struct Key(hmac::Key);

impl Key {
    /// A key from its bytes.
    pub fn new(bytes: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }

    /// Encodes and signs an advert.
    pub fn seal(&self, advert: &Advert) -> Vec<u8> {
        let flags = u8::from(advert.say.healthy) | u8::from(advert.say.holds) << 1;
        let mut bytes = Vec::with_capacity(LENGTH);
        bytes.extend(MAGIC);
        bytes.extend([flags, 0]);
        bytes.extend(advert.vip.octets());
        bytes.extend(advert.from.octets());
        bytes.extend(advert.count.to_be_bytes());
        let tag = hmac::sign(&self.0, &bytes);
        bytes.extend(tag.as_ref());
        bytes
    }

    /// Decodes an advert; `None` if it is not one that was signed with the key.
    pub fn open(&self, bytes: &[u8]) -> Option<Advert> {
        if bytes.len() != LENGTH {
            return None;
        }
        let (signed, tag) = bytes.split_at(SIGNED);
        hmac::verify(&self.0, signed, tag).ok()?;
        let flags = signed.strip_prefix(MAGIC)?.first()?;
        let address = |at: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(signed.get(at..at + 4)?).ok()?));
        Some(Advert {
            vip: address(8)?,
            from: address(12)?,
            count: u64::from_be_bytes(signed.get(16..)?.try_into().ok()?),
            say: Say {
                healthy: flags & 1 != 0,
                holds: flags & 2 != 0,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_has_the_key_is_heard() {
        let key = Key::new(&[7; 32]);
        for (healthy, holds) in [(false, false), (true, false), (false, true), (true, true)] {
            let advert = Advert {
                vip: Ipv4Addr::new(100, 64, 9, 9),
                from: Ipv4Addr::new(100, 64, 0, 3),
                count: u64::MAX - 5,
                say: Say { healthy, holds },
            };
            let sealed = key.seal(&advert);
            assert_eq!((sealed.len(), key.open(&sealed)), (LENGTH, Some(advert)));
            assert_eq!(Key::new(&[8; 32]).open(&sealed), None);
            for at in 0..sealed.len() {
                let mut bent = sealed.clone();
                bent[at] ^= 1;
                assert_eq!(key.open(&bent), None, "byte {at}");
            }
            assert_eq!(key.open(&sealed[..LENGTH - 1]), None);
        }
    }
}
