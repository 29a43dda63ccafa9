//! Reads an object, and continues after a broken connection.

use std::{
    io::{self, Read},
    sync::Arc,
};

use ureq::{
    BodyReader,
    http::{HeaderMap, StatusCode, header},
};

use crate::{Shared, http};

pub(crate) struct Download {
    shared: Arc<Shared>,
    key: String,
    body: BodyReader<'static>,
    /// Identifies this object, as opposed to a later one with the same key.
    etag: Option<String>,
    length: Option<u64>,
    at: u64,
    /// Attempts since the last successful read.
    attempts: u32,
}

impl Download {
    pub(crate) fn open(shared: Arc<Shared>, key: String) -> io::Result<Self> {
        let answer = {
            let get = shared.bucket.get_object(Some(&shared.credentials), &key);
            http::expect(shared.client.send(&get, &[], &[])?, &[StatusCode::OK])?
        };
        let text = |headers: &HeaderMap, name| headers.get(name)?.to_str().ok().map(str::to_owned);
        Ok(Self {
            etag: text(answer.headers(), header::ETAG),
            length: text(answer.headers(), header::CONTENT_LENGTH).and_then(|length| length.parse().ok()),
            body: answer.into_body().into_reader(),
            shared,
            key,
            at: 0,
            attempts: 0,
        })
    }

    fn resume(&mut self) -> io::Result<()> {
        let shared = &self.shared;
        let get = shared.bucket.get_object(Some(&shared.credentials), &self.key);
        let range = format!("bytes={}-", self.at);
        let mut headers = vec![("range", range.as_str())];
        if let Some(etag) = &self.etag {
            headers.push(("if-match", etag));
        }
        let answer = http::expect(
            shared.client.send(&get, &headers, &[])?,
            &[StatusCode::PARTIAL_CONTENT],
        )?;
        self.body = answer.into_body().into_reader();
        Ok(())
    }
}

impl Read for Download {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        loop {
            let broken = match self.body.read(out) {
                Ok(0) if self.length.is_some_and(|length| self.at < length) => io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the object store broke off in the middle of an object",
                ),
                Ok(read) => {
                    self.at += read as u64;
                    self.attempts = 0;
                    return Ok(read);
                }
                Err(error) => error,
            };
            self.attempts += 1;
            if !self.shared.client.pause(self.attempts) {
                return Err(broken);
            }
            self.resume()?;
        }
    }
}
