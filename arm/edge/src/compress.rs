//! Compression of responses with gzip, for clients that accept it: lists are repetitive text.

use std::io::Write as _;

use axum::body::{Body, HttpBody as _, to_bytes};
use flate2::{Compression, write::GzEncoder};
use http::{HeaderMap, HeaderValue, header};

/// A smaller response fits into one packet as it is.
const SMALLEST: usize = 1400;

/// Whether a body of this many bytes is compressed.
pub(crate) fn is_worth_it(length: usize) -> bool {
    length >= SMALLEST
}

/// Packs.
pub(crate) fn pack(plain: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(plain.len() / 4), Compression::fast());
    encoder.write_all(plain)?;
    encoder.finish()
}

/// Sets the headers of a compressed body.
pub(crate) fn told(headers: &mut HeaderMap) {
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
}

/// Whether a client accepts gzip: `gzip` or `*` is in `Accept-Encoding`, with a weight above zero.
pub(crate) fn wanted(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT_ENCODING).into_iter();
    let named = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|item| {
            let (coding, parameters) = item.split_once(';').unwrap_or((item, ""));
            let weight = parameters.trim().strip_prefix("q=");
            let taken =
                weight.is_none_or(|weight| weight.trim().parse::<f32>().is_ok_and(|weight| weight > 0.0));
            match coding.trim() {
                coding if coding.eq_ignore_ascii_case("gzip") => Some((true, taken)),
                "*" => Some((false, taken)),
                _ => None,
            }
        });
    // The weight of `gzip` takes precedence over that of `*`.
    named
        .reduce(|best, other| if other.0 && !best.0 { other } else { best })
        .is_some_and(|(_, taken)| taken)
}

/// The response, compressed where that is worth it. All bodies are in memory.
pub(crate) async fn gzip(answer: http::Response<Body>) -> http::Response<Body> {
    let large = answer
        .body()
        .size_hint()
        .exact()
        .is_some_and(|size| usize::try_from(size).is_ok_and(is_worth_it));
    if !large || answer.headers().contains_key(header::CONTENT_ENCODING) {
        return answer;
    }
    let (mut parts, body) = answer.into_parts();
    let Ok(plain) = to_bytes(body, usize::MAX).await else {
        // A body in memory does not fail; without one the client sees that it is missing.
        return http::Response::from_parts(parts, Body::empty());
    };
    let body = match pack(&plain) {
        Ok(packed) => {
            told(&mut parts.headers);
            Body::from(packed)
        }
        Err(_) => Body::from(plain),
    };
    http::Response::from_parts(parts, body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_say_whether_they_take_it() {
        for (said, taken) in [
            ("gzip, deflate", true),
            ("deflate, GZIP;q=0.5", true),
            ("*", true),
            ("gzip;q=0, *", false),
            ("*;q=0, gzip", true),
            ("identity", false),
            ("gzip;q=x", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_str(said).unwrap());
            assert_eq!(wanted(&headers), taken, "{said}");
        }
        assert!(!wanted(&HeaderMap::new()));
    }

    #[tokio::test]
    async fn what_is_large_is_packed_and_comes_out_as_it_was() {
        use std::io::Read as _;
        let text = "the same again and again, ".repeat(1000);
        let answer = gzip(http::Response::new(Body::from(text.clone()))).await;
        assert_eq!(answer.headers()[header::CONTENT_ENCODING], "gzip");
        let packed = to_bytes(answer.into_body(), usize::MAX).await.unwrap();
        assert!(packed.len() * 10 < text.len());
        let mut plain = String::new();
        flate2::read::GzDecoder::new(&packed[..])
            .read_to_string(&mut plain)
            .unwrap();
        assert_eq!(plain, text);
        let small = gzip(http::Response::new(Body::from("small"))).await;
        assert!(!small.headers().contains_key(header::CONTENT_ENCODING));
    }
}
