//! Bodies that are read by threads of a pool, piece by piece.

use std::io::{self, Read};

use axum::body::{Body, Bytes};
use base_blocking::Pool;

/// The body of an answer with all that a reader gives, in pieces of at most `piece` bytes. A thread for each piece and none in between: a slow
/// machine holds no thread. Where reading fails, the answer breaks off, so that it is not taken for whole.
pub(crate) fn streamed<R: Read + Send + 'static>(pool: &'static Pool, piece: usize, reader: R) -> Body {
    let stream = futures::stream::unfold(Some(reader), move |reader| async move {
        let mut reader = reader?;
        let read = move || {
            let mut bytes = vec![0; piece];
            let read = reader.read(&mut bytes)?;
            bytes.truncate(read);
            Ok::<_, io::Error>((Bytes::from(bytes), reader))
        };
        match pool.run(read).await {
            Ok(Ok((bytes, _))) if bytes.is_empty() => None,
            Ok(Ok((bytes, reader))) => Some((Ok(bytes), Some(reader))),
            Ok(Err(error)) => Some((Err(error), None)),
            Err(error) => Some((Err(io::Error::other(error)), None)),
        }
    });
    Body::from_stream(stream)
}
