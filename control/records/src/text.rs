//! Bytes in a JSON record: base64. As an array of numbers, which is what serde makes of bytes and what records of before
//! hold, they take almost three times the room and many times the time; that form is still read.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{
    Deserializer, Serializer,
    de::{Error, SeqAccess, Visitor},
};

pub(crate) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&STANDARD.encode(bytes))
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    deserializer.deserialize_any(Bytes)
}

struct Bytes;

impl<'de> Visitor<'de> for Bytes {
    type Value = Vec<u8>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("base64, or an array of bytes")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        STANDARD
            .decode(text)
            .map_err(|error| E::custom(format!("not base64: {error}")))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut bytes = Vec::new();
        while let Some(byte) = seq.next_element()? {
            bytes.push(byte);
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use crate::SealedRecord;

    fn record(json: &str) -> Result<SealedRecord, serde_json::Error> {
        serde_json::from_str(json)
    }

    #[test]
    fn sealed_bytes_are_base64_and_come_back() {
        for length in 0..40 {
            let sealed = SealedRecord {
                v: 1,
                sealed: (0..length).map(|byte: u8| byte.wrapping_mul(7)).collect(),
            };
            let json = serde_json::to_string(&sealed).unwrap();
            assert_eq!(record(&json).unwrap(), sealed, "{json}");
        }
        let json = serde_json::to_string(&record(r#"{"v":1,"sealed":[255,0,16]}"#).unwrap()).unwrap();
        assert_eq!(json, r#"{"v":1,"sealed":"/wAQ"}"#);
    }

    #[test]
    fn records_of_before_are_read_and_what_is_neither_is_refused() {
        let sealed = record(r#"{"v":1,"sealed":[1,2,255]}"#).unwrap().sealed;
        assert_eq!(sealed, [1, 2, 255]);
        for bad in [
            r#"{"v":1,"sealed":"!"}"#,
            r#"{"v":1,"sealed":[256]}"#,
            r#"{"v":1,"sealed":7}"#,
            r#"{"v":1,"sealed":null}"#,
        ] {
            assert!(record(bad).is_err(), "{bad}");
        }
    }
}
