//! Signature version 4: how requests to S3 and what is like it say whom they are from.

use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign};
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

/// Whom requests are from.
#[derive(Clone)]
pub(crate) struct Signer {
    pub(crate) access: String,
    pub(crate) secret: Zeroizing<String>,
    pub(crate) region: String,
}

/// What is signed of a request.
pub(crate) struct Signed<'a> {
    pub(crate) method: &'a str,
    /// Name and port as in the `host` header.
    pub(crate) host: &'a str,
    /// Percent-encoded, with its slashes.
    pub(crate) path: &'a str,
    /// Percent-encoded, in order.
    pub(crate) query: &'a str,
    /// SHA-256 of the body, hex.
    pub(crate) payload: &'a str,
    pub(crate) at: Timestamp,
}

/// The signed headers besides `host`.
pub(crate) struct Headers {
    pub(crate) date: String,
    pub(crate) authorization: String,
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

impl Signer {
    pub(crate) fn sign(&self, request: &Signed<'_>) -> Headers {
        let date = request.at.strftime("%Y%m%dT%H%M%SZ").to_string();
        let day = &date[..8];
        let scope = format!("{day}/{}/s3/aws4_request", self.region);
        let names = "host;x-amz-content-sha256;x-amz-date";
        let canonical = format!(
            "{}\n{}\n{}\nhost:{}\nx-amz-content-sha256:{}\nx-amz-date:{date}\n\n{names}\n{}",
            request.method, request.path, request.query, request.host, request.payload, request.payload
        );
        let text = format!(
            "AWS4-HMAC-SHA256\n{date}\n{scope}\n{}",
            sha256(canonical.as_bytes())
        );
        let first = Zeroizing::new(format!("AWS4{}", self.secret.as_str()));
        let mut key = Zeroizing::new(first.as_bytes().to_vec());
        for part in [day, &self.region, "s3", "aws4_request"] {
            key = Zeroizing::new(hmac(&key, part));
        }
        let signature = hex::encode(hmac(&key, &text));
        Headers {
            authorization: format!(
                "AWS4-HMAC-SHA256 Credential={}/{scope},SignedHeaders={names},Signature={signature}",
                self.access
            ),
            date,
        }
    }
}

fn hmac(key: &[u8], text: &str) -> Vec<u8> {
    sign(&Key::new(HMAC_SHA256, key), text.as_bytes())
        .as_ref()
        .to_vec()
}

/// As a part of a path or a query.
pub(crate) fn encoded(text: &str, keep_slashes: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            b'/' if keep_slashes => out.push('/'),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_that_of_the_published_example() {
        // "GET Bucket (List Objects)" of the documentation of S3's signatures.
        let signer = Signer {
            access: "AKIAIOSFODNN7EXAMPLE".to_owned(),
            secret: Zeroizing::new("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".to_owned()),
            region: "us-east-1".to_owned(),
        };
        let headers = signer.sign(&Signed {
            method: "GET",
            host: "examplebucket.s3.amazonaws.com",
            path: "/",
            query: "max-keys=2&prefix=J",
            payload: &sha256(b""),
            at: "2013-05-24T00:00:00Z".parse().unwrap(),
        });
        assert_eq!(headers.date, "20130524T000000Z");
        assert!(
            headers
                .authorization
                .ends_with("34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"),
            "{}",
            headers.authorization
        );
    }

    #[test]
    fn what_is_no_plain_character_is_encoded() {
        assert_eq!(encoded("a b/c+~", true), "a%20b/c%2B~");
        assert_eq!(encoded("a/b=", false), "a%2Fb%3D");
    }
}
