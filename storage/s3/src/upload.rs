//! Writes an object: in one request, or in parts.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use rusty_s3::actions::{CompleteMultipartUploadResponse, CreateMultipartUpload};
use serde::{Deserialize, Serialize};
use ureq::http::{StatusCode, header};

use crate::{S3Store, Shared, http};

/// S3's limit.
const PARTS: usize = 10_000;
/// The largest answer about an upload, bytes.
const LARGEST_ANSWER: u64 = 64 * 1024;

/// The record of a multipart upload, written before its first part is sent.
#[derive(Serialize, Deserialize)]
struct Noted {
    key: String,
    upload: String,
}

/// An upload that was started.
struct Begun {
    id: String,
    etags: Vec<String>,
    noted: PathBuf,
}

/// Receives an object's content. No object exists before [`Upload::finish`]; dropped before that, the upload
/// is aborted.
pub(crate) struct Upload<'a> {
    store: &'a S3Store,
    key: String,
    buffer: Vec<u8>,
    written: u64,
    begun: Option<Begun>,
}

impl<'a> Upload<'a> {
    pub(crate) fn new(store: &'a S3Store, key: String) -> Self {
        Self {
            store,
            key,
            buffer: Vec::new(),
            written: 0,
            begun: None,
        }
    }

    /// Completes the object.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        let shared = &*self.store.shared;
        if self.begun.is_none() {
            let put = shared.bucket.put_object(Some(&shared.credentials), &self.key);
            return http::expect(shared.client.send(&put, &[], &self.buffer)?, &[StatusCode::OK]).map(drop);
        }
        if !self.buffer.is_empty() {
            self.send_part()?;
        }
        let Some(begun) = &self.begun else {
            return Err(io::Error::other("an upload without a beginning"));
        };
        let etags = || begun.etags.iter().map(String::as_str);
        let complete = || {
            shared
                .bucket
                .complete_multipart_upload(Some(&shared.credentials), &self.key, &begun.id, etags())
        };
        let answer = shared
            .client
            .send(&complete(), &[], complete().body().as_bytes())?;
        let done = match answer.status() {
            StatusCode::OK => {
                let text = http::text(answer, LARGEST_ANSWER)?;
                CompleteMultipartUploadResponse::parse(&text)
                    .map(drop)
                    .map_err(|_| http::refusal(StatusCode::OK, &text))
            }
            // It was completed, and the answer was lost.
            StatusCode::NOT_FOUND if self.is_there()? => Ok(()),
            _ => http::expect(answer, &[]).map(drop),
        };
        if done.is_ok()
            && let Some(begun) = self.begun.take()
        {
            forget(&begun.noted);
        }
        done
    }

    fn is_there(&self) -> io::Result<bool> {
        let found = self.store.find(&self.key, false)?;
        Ok(found
            .iter()
            .any(|(rest, size)| rest.is_empty() && *size == self.written))
    }

    fn begin(&self) -> io::Result<Begun> {
        self.store.abort_left();
        let shared = &*self.store.shared;
        let create = shared
            .bucket
            .create_multipart_upload(Some(&shared.credentials), &self.key);
        let answer = http::expect(shared.client.send(&create, &[], &[])?, &[StatusCode::OK])?;
        let text = http::text(answer, LARGEST_ANSWER)?;
        let id = CreateMultipartUpload::parse_response(&text).map_err(http::unreadable)?;
        let note = Noted {
            key: self.key.clone(),
            upload: id.upload_id().to_owned(),
        };
        let noted = write_down(&self.store.journal, &self.store.own, &note)?;
        Ok(Begun {
            id: note.upload,
            etags: Vec::new(),
            noted,
        })
    }

    fn send_part(&mut self) -> io::Result<()> {
        let shared = &*self.store.shared;
        let mut begun = match self.begun.take() {
            Some(begun) => begun,
            None => self.begin()?,
        };
        let sent = (|| {
            let number = begun.etags.len() + 1;
            let number = u16::try_from(number)
                .ok()
                .filter(|_| number <= PARTS)
                .ok_or_else(|| {
                    io::Error::new(
                        io::ErrorKind::FileTooLarge,
                        format!("an object of more than {PARTS} parts"),
                    )
                })?;
            let part = shared
                .bucket
                .upload_part(Some(&shared.credentials), &self.key, number, &begun.id);
            let answer = http::expect(shared.client.send(&part, &[], &self.buffer)?, &[StatusCode::OK])?;
            let etag = answer
                .headers()
                .get(header::ETAG)
                .and_then(|etag| etag.to_str().ok());
            etag.map(str::to_owned)
                .ok_or_else(|| io::Error::other("the object store took a part and does not say its ETag"))
        })();
        let sent = sent.map(|etag| begun.etags.push(etag));
        self.begun = Some(begun);
        self.buffer.clear();
        sent
    }
}

impl Write for Upload<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Only if more data follows: the last part may be as large as the others.
        if self.buffer.len() == self.store.part {
            self.send_part()?;
        }
        let taken = bytes.len().min(self.store.part - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..taken]);
        self.written += taken as u64;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Upload<'_> {
    fn drop(&mut self) {
        let Some(begun) = self.begun.take() else { return };
        match abort(&self.store.shared, &self.key, &begun.id) {
            Ok(()) => forget(&begun.noted),
            Err(error) => tracing::warn!(%error, "an upload cannot be aborted now; it is at the next start"),
        }
    }
}

fn abort(shared: &Shared, key: &str, id: &str) -> io::Result<()> {
    let abort = shared
        .bucket
        .abort_multipart_upload(Some(&shared.credentials), key, id);
    let gone = [StatusCode::OK, StatusCode::NO_CONTENT, StatusCode::NOT_FOUND];
    http::expect(shared.client.send(&abort, &[], &[])?, &gone).map(drop)
}

fn forget(noted: &Path) {
    if let Err(error) = fs::remove_file(noted) {
        tracing::warn!(%error, "the note of an upload that is over cannot be removed");
    }
}

/// Records of uploads that another process left in the journal.
pub(crate) fn left(journal: &Path, own: &str) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(journal) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let ours = format!("{own}-");
    let mut left = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(&ours) {
            left.push(entry.path());
        }
    }
    Ok(left)
}

/// Writes a record into the journal, durably, under an unused name.
fn write_down(journal: &Path, own: &str, note: &Noted) -> io::Result<PathBuf> {
    base_files::make_directories(journal, 0o700)?;
    let text = serde_json::to_vec(note)?;
    for number in 0_u32.. {
        let path = journal.join(format!("{own}-{number}"));
        match base_files::create_new(&path, &text, 0o600) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other("no name is free in the journal of uploads"))
}

/// Aborts the upload in a record.
pub(crate) fn abort_left(shared: &Shared, noted: &Path) -> io::Result<()> {
    let note: Noted = serde_json::from_slice(&fs::read(noted)?)?;
    abort(shared, &note.key, &note.upload)?;
    fs::remove_file(noted)
}
