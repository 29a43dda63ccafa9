//! Bodies: into files and out of files, a piece at a time.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
    sync::Arc,
    time::Duration,
};

use axum::body::{Body, to_bytes};
use base_blocking::Pool;
use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use http::{HeaderMap, StatusCode, header};
use storage_images::{Registry, Repository, UploadId};

use crate::{Registries, answer::Failure};

/// Bytes that a thread reads or writes at a time.
pub(crate) const PIECE: usize = 1 << 18;
/// The time-out between two pieces of a body.
const STALLED: Duration = Duration::from_secs(60);
/// The time-out of a body that is read as a whole.
const WHOLE: Duration = Duration::from_secs(30);

impl Registries {
    /// Reads a small body.
    pub(crate) async fn small(&self, body: Body, limit: usize) -> Result<Bytes, Failure> {
        let read = self.inner.env.clock.timeout(WHOLE, to_bytes(body, limit)).await;
        match read {
            Ok(Ok(bytes)) => Ok(bytes),
            Ok(Err(_)) => Err(Failure::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "SIZE_INVALID",
                format!("the body has more than {limit} bytes, or did not arrive whole"),
            )),
            Err(_) => Err(late()),
        }
    }

    /// Appends a body to an upload that has `at` bytes so far; gives how many it has then. What came before a
    /// body breaks off is kept: the client goes on from there.
    pub(crate) async fn receive(&self, to: &Upload, mut at: u64, body: Body) -> Result<u64, Failure> {
        let clock = &self.inner.env.clock;
        let mut stream = body.into_data_stream();
        let mut gathered = BytesMut::new();
        loop {
            let next = clock.timeout(STALLED, stream.next()).await;
            let goes_on = match &next {
                Ok(Some(Ok(piece))) => {
                    gathered.extend_from_slice(piece);
                    true
                }
                _ => false,
            };
            if gathered.len() >= PIECE || (!goes_on && !gathered.is_empty()) {
                at = self.append(to, at, gathered.split().freeze()).await?;
            }
            match next {
                Ok(Some(Ok(_))) => {}
                Ok(None) => return Ok(at),
                Ok(Some(Err(_))) => return Err(Failure::upload_invalid("the body did not arrive whole")),
                Err(_) => return Err(late()),
            }
        }
    }

    async fn append(&self, to: &Upload, at: u64, piece: Bytes) -> Result<u64, Failure> {
        let to = to.clone();
        self.on_disk(move || {
            let Upload {
                images,
                repository,
                id,
                limit,
            } = &to;
            images.append(repository, id, at, &piece, *limit)
        })
        .await
    }
}

/// Where a body goes.
#[derive(Clone)]
pub(crate) struct Upload {
    pub(crate) images: Arc<Registry>,
    pub(crate) repository: Repository,
    pub(crate) id: UploadId,
    /// The bytes that the registry may hold.
    pub(crate) limit: u64,
}

fn late() -> Failure {
    Failure::new(
        StatusCode::REQUEST_TIMEOUT,
        "SIZE_INVALID",
        "the body did not arrive in time",
    )
}

/// The part of a file that a request wants: from, and how many bytes; `None`: all of it.
///
/// # Errors
/// 416 where there is no such part.
pub(crate) fn range(headers: &HeaderMap, size: u64) -> Result<Option<(u64, u64)>, Failure> {
    let Some(text) = headers.get(header::RANGE).and_then(|value| value.to_str().ok()) else {
        return Ok(None);
    };
    // Several ranges are answered with all of it, as the specification of HTTP permits.
    let Some(spec) = text.strip_prefix("bytes=").filter(|spec| !spec.contains(',')) else {
        return Ok(None);
    };
    let Some((first, last)) = spec.trim().split_once('-') else {
        return Ok(None);
    };
    let part = match (first.parse::<u64>(), last) {
        (Ok(first), "") if first < size => Some((first, size - first)),
        (Ok(first), last) if first < size => match last.parse::<u64>() {
            Ok(last) if last >= first => Some((first, last.min(size - 1) - first + 1)),
            _ => None,
        },
        // The last so many bytes.
        (Err(_), last) if first.is_empty() => match last.parse::<u64>() {
            Ok(count) if count > 0 && size > 0 => Some((size.saturating_sub(count), count.min(size))),
            _ => None,
        },
        _ => None,
    };
    part.map(Some).ok_or_else(|| {
        Failure::new(
            StatusCode::RANGE_NOT_SATISFIABLE,
            "SIZE_INVALID",
            format!("the blob has {size} bytes; there is no such part of it"),
        )
        .with(header::CONTENT_RANGE, format!("bytes */{size}"))
    })
}

/// A part of a file as a body. A thread for each piece and none in between: a slow client holds no thread.
pub(crate) fn body_of(pool: &Pool, mut file: File, from: u64, count: u64) -> io::Result<Body> {
    if from > 0 {
        file.seek(SeekFrom::Start(from))?;
    }
    let start = Some((pool.clone(), file, count));
    let stream = futures::stream::unfold(start, |state| async move {
        let (pool, mut file, left) = state?;
        if left == 0 {
            return None;
        }
        let read = move || {
            let wanted = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
            let mut piece = vec![0; wanted];
            let read = file.read(&mut piece)?;
            piece.truncate(read);
            Ok::<_, io::Error>((Bytes::from(piece), file))
        };
        match pool.run(read).await {
            // The answer breaks off, so that it is not taken for whole.
            Ok(Ok((piece, _))) if piece.is_empty() => {
                Some((Err(io::Error::from(io::ErrorKind::UnexpectedEof)), None))
            }
            Ok(Ok((piece, file))) => {
                let left = left.saturating_sub(piece.len() as u64);
                Some((Ok(piece), Some((pool, file, left))))
            }
            Ok(Err(error)) => Some((Err(error), None)),
            Err(error) => Some((Err(io::Error::other(error)), None)),
        }
    });
    Ok(Body::from_stream(stream))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_file_is_what_was_asked_for() {
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RANGE, text.parse().unwrap());
            range(&headers, 10).map_err(|_| ())
        };
        assert_eq!(range(&HeaderMap::new(), 10).ok(), Some(None));
        for (text, part) in [
            ("bytes=0-", Ok(Some((0, 10)))),
            ("bytes=4-", Ok(Some((4, 6)))),
            ("bytes=4-5", Ok(Some((4, 2)))),
            ("bytes=4-50", Ok(Some((4, 6)))),
            ("bytes=-3", Ok(Some((7, 3)))),
            ("bytes=0-1,4-5", Ok(None)),
            ("pages=1-2", Ok(None)),
            ("bytes=10-", Err(())),
            ("bytes=5-4", Err(())),
            ("bytes=-0", Err(())),
        ] {
            assert_eq!(of(text), part, "{text}");
        }
    }
}
