//! Against a bucket on loopback that checks the signature of each request.

use std::{
    collections::{BTreeMap, VecDeque},
    io::{BufRead as _, BufReader},
    net::{TcpListener, TcpStream},
    sync::atomic::{AtomicU32, Ordering},
};

use aws_lc_rs::hmac;
use base_sealer::Sealer;
use cluster_archive::Archive;
use cluster_backup::{Entry, ObjectName, base::BaseWriter};

use super::*;

mod store_copies;

const SECRET: &str = "a secret / with + characters";
/// Keys in a page of a list.
const PAGE: usize = 3;
/// Bytes of a part.
const SMALL_PART: usize = 1000;

/// The failure of the next request.
enum Fault {
    /// The server answers with this status.
    Status(&'static str),
    /// The answer ends after this number of bytes of its body.
    CutAfter(usize),
    /// The request is processed, and the connection breaks before the answer.
    AnswerLost,
}

/// The content of the bucket.
#[derive(Default)]
struct Bucket {
    objects: BTreeMap<String, Vec<u8>>,
    /// Parts of uploads in progress, by id.
    uploads: BTreeMap<String, BTreeMap<usize, Vec<u8>>>,
    begun: usize,
    aborted: usize,
    /// Requests as method and key.
    requests: Vec<String>,
    faults: VecDeque<Fault>,
}

struct Stand {
    bucket: Arc<Mutex<Bucket>>,
    endpoint: String,
    journal: tempfile::TempDir,
    pauses: Arc<AtomicU32>,
}

impl Stand {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let bucket = Arc::new(Mutex::new(Bucket::default()));
        let served = Arc::clone(&bucket);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let bucket = Arc::clone(&served);
                std::thread::spawn(move || while serve(&stream, &bucket).is_some() {});
            }
        });
        Self {
            bucket,
            endpoint,
            journal: tempfile::tempdir().unwrap(),
            pauses: Arc::default(),
        }
    }

    fn config(&self) -> S3Config {
        S3Config {
            endpoint: self.endpoint.clone(),
            bucket: "backups".to_owned(),
            prefix: "stamp a/x".to_owned(),
            region: "somewhere".to_owned(),
            access: "ACCESS".to_owned(),
            secret: Zeroizing::new(SECRET.to_owned()),
            ca: None,
            allow_http: false,
        }
    }

    fn open(&self, config: S3Config) -> io::Result<S3Store> {
        let pauses = Arc::clone(&self.pauses);
        let timing = Timing {
            now: Box::new(|| "2026-11-21T12:00:00Z".parse().unwrap()),
            pause: Box::new(move |_| {
                pauses.fetch_add(1, Ordering::Relaxed);
            }),
        };
        S3Store::with_parts(config, self.journal.path(), timing, SMALL_PART)
    }

    fn store(&self) -> S3Store {
        self.open(self.config()).unwrap()
    }

    fn bucket(&self) -> std::sync::MutexGuard<'_, Bucket> {
        self.bucket.lock().unwrap()
    }

    fn fault(&self, fault: Fault) {
        self.bucket().faults.push_back(fault);
    }

    fn notes(&self) -> usize {
        std::fs::read_dir(self.journal.path()).unwrap().count()
    }
}

/// Handles one request of a connection; `None` when it ends.
fn serve(stream: &TcpStream, bucket: &Mutex<Bucket>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers
        .get("content-length")
        .map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let mut bucket = bucket.lock().unwrap();
    let fault = bucket.faults.pop_front();
    let (status, mut text) = match fault {
        Some(Fault::Status(status)) => (status, Vec::new()),
        _ => answer(&method, &target, &headers, body, &mut bucket),
    };
    drop(bucket);
    let etag = hex::encode(Sha256::digest(&text));
    let mut head = format!(
        "HTTP/1.1 {status}\r\netag: \"{etag}\"\r\ncontent-length: {}\r\n",
        text.len()
    );
    head.push_str("\r\n");
    let mut out = stream;
    match fault {
        Some(Fault::AnswerLost) => {
            stream.shutdown(std::net::Shutdown::Both).ok()?;
            return None;
        }
        Some(Fault::CutAfter(bytes)) => text.truncate(bytes),
        _ => {}
    }
    out.write_all(head.as_bytes()).ok()?;
    out.write_all(&text).ok()?;
    if matches!(fault, Some(Fault::CutAfter(_))) {
        stream.shutdown(std::net::Shutdown::Both).ok()?;
        return None;
    }
    Some(())
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// The expected signature, computed from the request.
fn expected(method: &str, path: &str, query: &str, headers: &BTreeMap<String, String>) -> String {
    let asked = |name: &str| parameter(query, name).unwrap();
    let date = asked("X-Amz-Date");
    let scope = format!("{}/somewhere/s3/aws4_request", &date[..8]);
    assert_eq!(asked("X-Amz-Credential"), format!("ACCESS/{scope}"));
    assert_eq!(asked("X-Amz-SignedHeaders"), "host");
    let mut signed: Vec<&str> = query
        .split('&')
        .filter(|pair| !pair.starts_with("X-Amz-Signature="))
        .collect();
    signed.sort_unstable();
    let lines = [
        method,
        path,
        &signed.join("&"),
        &format!("host:{}", headers["host"]),
        "",
        "host",
        "UNSIGNED-PAYLOAD",
    ];
    let text = [
        "AWS4-HMAC-SHA256",
        &date,
        &scope,
        &sha256(lines.join("\n").as_bytes()),
    ]
    .join("\n");
    let mut key = format!("AWS4{SECRET}").into_bytes();
    for part in scope.split('/').chain([text.as_str()]) {
        key = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), part.as_bytes())
            .as_ref()
            .to_vec();
    }
    hex::encode(key)
}

/// A decoded query parameter.
fn parameter(query: &str, wanted: &str) -> Option<String> {
    query.split('&').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        (name == wanted).then(|| value.replace("%2F", "/").replace("%3B", ";").replace("%20", " "))
    })
}

fn answer(
    method: &str,
    target: &str,
    headers: &BTreeMap<String, String>,
    body: Vec<u8>,
    bucket: &mut Bucket,
) -> (&'static str, Vec<u8>) {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let refused =
        |code: &str| format!("<Error><Code>{code}</Code><Message>no &amp; no</Message></Error>").into_bytes();
    if parameter(query, "X-Amz-Signature").unwrap() != expected(method, path, query, headers) {
        return ("403 Forbidden", refused("SignatureDoesNotMatch"));
    }
    let decoded = path.replace("%20", " ");
    let key = decoded
        .strip_prefix("/backups")
        .unwrap()
        .trim_start_matches('/')
        .to_owned();
    bucket.requests.push(format!("{method} {key}"));
    let upload = parameter(query, "uploadId");
    match (method, upload) {
        ("POST", None) => {
            bucket.begun += 1;
            let id = format!("upload-{}", bucket.begun);
            let text = format!(
                "<InitiateMultipartUploadResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><UploadId>{id}</UploadId></InitiateMultipartUploadResult>"
            );
            bucket.uploads.insert(id, BTreeMap::new());
            ("200 OK", text.into_bytes())
        }
        ("PUT", Some(id)) => {
            let number = parameter(query, "partNumber").unwrap().parse().unwrap();
            bucket.uploads.get_mut(&id).unwrap().insert(number, body);
            ("200 OK", Vec::new())
        }
        ("POST", Some(id)) => {
            let Some(parts) = bucket.uploads.remove(&id) else {
                return ("404 Not Found", refused("NoSuchUpload"));
            };
            let named = String::from_utf8(body).unwrap().matches("<PartNumber>").count();
            assert_eq!(named, parts.len());
            bucket
                .objects
                .insert(key, parts.into_values().flatten().collect());
            let text = "<CompleteMultipartUploadResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><ETag>e</ETag></CompleteMultipartUploadResult>";
            ("200 OK", text.as_bytes().to_vec())
        }
        ("DELETE", Some(id)) => {
            bucket.aborted += usize::from(bucket.uploads.remove(&id).is_some());
            ("204 No Content", Vec::new())
        }
        ("PUT", None) => {
            bucket.objects.insert(key, body);
            ("200 OK", Vec::new())
        }
        ("DELETE", None) => {
            bucket.objects.remove(&key);
            ("204 No Content", Vec::new())
        }
        ("GET", _) if key.is_empty() => ("200 OK", list(query, bucket).into_bytes()),
        ("GET", _) => match (bucket.objects.get(&key), headers.get("range")) {
            (Some(bytes), None) => ("200 OK", bytes.clone()),
            (Some(bytes), Some(range)) => {
                let same = format!("\"{}\"", sha256(bytes));
                if headers.get("if-match") != Some(&same) {
                    return ("412 Precondition Failed", refused("PreconditionFailed"));
                }
                let from = range
                    .trim_start_matches("bytes=")
                    .trim_end_matches('-')
                    .parse::<usize>();
                ("206 Partial Content", bytes[from.unwrap()..].to_vec())
            }
            (None, _) => ("404 Not Found", refused("NoSuchKey")),
        },
        _ => ("405 Method Not Allowed", Vec::new()),
    }
}

fn list(query: &str, bucket: &Bucket) -> String {
    let prefix = parameter(query, "prefix").unwrap();
    let folders = parameter(query, "delimiter").is_some();
    let mut lines: Vec<String> = bucket
        .objects
        .iter()
        .filter_map(|(key, bytes)| {
            let rest = key.strip_prefix(&prefix)?;
            Some(match (folders, rest.split_once('/')) {
                (true, Some((folder, _))) => {
                    format!("<CommonPrefixes><Prefix>{prefix}{folder}/</Prefix></CommonPrefixes>")
                }
                _ => format!(
                    "<Contents><Key>{key}</Key><Size>{}</Size></Contents>",
                    bytes.len()
                ),
            })
        })
        .collect();
    lines.dedup();
    let from: usize = parameter(query, "continuation-token").map_or(0, |token| token.parse().unwrap());
    let mut text = lines[from.min(lines.len())..]
        .iter()
        .take(PAGE)
        .cloned()
        .collect::<String>();
    if lines.len() > from + PAGE {
        text.push_str(&format!(
            "<NextContinuationToken>{}</NextContinuationToken>",
            from + PAGE
        ));
    }
    format!(
        "<?xml version=\"1.0\"?><ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{text}</ListBucketResult>"
    )
}

fn put(store: &S3Store, name: &str, bytes: &[u8]) -> io::Result<()> {
    store.put(name, &mut |out| {
        bytes.chunks(300).try_for_each(|chunk| out.write_all(chunk))
    })
}

fn read(store: &S3Store, name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    store.get(name).unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index % 251) as u8).collect()
}

#[test]
fn files_come_and_go_and_lists_have_many_pages() {
    let stand = Stand::new();
    let store = stand.store();
    for number in 0..8 {
        put(&store, &format!("c1/{number}"), &vec![7; number]).unwrap();
    }
    put(&store, "c2/a", b"other").unwrap();
    let names: Vec<_> = store.list(Some("c1")).unwrap();
    assert_eq!(names.len(), 8);
    assert_eq!(names[3], ("3".to_owned(), 3));
    let folders: Vec<String> = store
        .list(None)
        .unwrap()
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    assert_eq!(folders, ["c1", "c2"]);
    assert_eq!(read(&store, "c1/5"), vec![7; 5]);
    assert!(stand.bucket().objects.contains_key("stamp a/x/c2/a"));
    store.delete("c1/5").unwrap();
    store.delete("c1/5").unwrap();
    assert_eq!(store.get("c1/5").err().unwrap().kind(), io::ErrorKind::NotFound);
    store.delete_folder("c1").unwrap();
    assert!(store.list(Some("c1")).unwrap().is_empty());
    assert_eq!(read(&store, "c2/a"), b"other");
    assert_eq!(stand.pauses.load(Ordering::Relaxed), 0);
}

#[test]
fn a_large_object_goes_in_parts_and_comes_back_whole() {
    let stand = Stand::new();
    let store = stand.store();
    for (length, uploads) in [
        (SMALL_PART, 0),
        (SMALL_PART + 1, 1),
        (3 * SMALL_PART, 2),
        (5 * SMALL_PART + 7, 3),
    ] {
        let content = pattern(length);
        put(&store, "c/large", &content).unwrap();
        assert_eq!(stand.bucket().begun, uploads);
        assert!(read(&store, "c/large") == content, "{length}");
    }
    assert_eq!(stand.notes(), 0);
}

#[test]
fn content_that_breaks_off_leaves_nothing() {
    let stand = Stand::new();
    let store = stand.store();
    let break_off = |name: &str, length: usize| {
        store.put(name, &mut |out| {
            out.write_all(&pattern(length))?;
            Err(io::Error::other("it broke off"))
        })
    };
    assert!(break_off("c/small", 10).is_err());
    assert!(stand.bucket().requests.is_empty());
    let why = break_off("c/large", 4 * SMALL_PART).unwrap_err();
    assert_eq!(why.to_string(), "it broke off");
    let bucket = stand.bucket();
    assert!(bucket.objects.is_empty() && bucket.uploads.is_empty());
    assert_eq!((bucket.begun, bucket.aborted), (1, 1));
    drop(bucket);
    assert_eq!(stand.notes(), 0);
}

#[test]
fn an_upload_that_a_crash_left_is_aborted_before_the_next() {
    let stand = Stand::new();
    let store = stand.store();
    let mut upload = Upload::new(&store, "stamp a/x/c/crashed".to_owned());
    upload.write_all(&pattern(2 * SMALL_PART + 1)).unwrap();
    // Like a killed process.
    std::mem::forget(upload);
    assert_eq!((stand.bucket().uploads.len(), stand.notes()), (1, 1));
    let elsewhere = S3Config {
        prefix: "another".to_owned(),
        ..stand.config()
    };
    put(&stand.open(elsewhere).unwrap(), "c/1", &pattern(2 * SMALL_PART)).unwrap();
    assert_eq!(stand.bucket().uploads.len(), 1, "it is not that store's");
    put(&stand.store(), "c/2", &pattern(2 * SMALL_PART)).unwrap();
    assert_eq!((stand.bucket().uploads.len(), stand.notes()), (0, 0));
}

#[test]
fn what_passes_by_itself_is_tried_again_and_the_rest_is_not() {
    let stand = Stand::new();
    let store = stand.store();
    stand.fault(Fault::Status("503 Slow Down"));
    stand.fault(Fault::AnswerLost);
    stand.fault(Fault::Status("429 Too Many Requests"));
    put(&store, "c/a", b"x").unwrap();
    assert_eq!(stand.pauses.load(Ordering::Relaxed), 3);
    for _ in 0..4 {
        stand.fault(Fault::Status("500 Internal Server Error"));
    }
    let failed = put(&store, "c/b", b"x").unwrap_err().to_string();
    assert!(failed.contains("500"), "{failed}");
    stand.fault(Fault::Status("400 Bad Request"));
    assert!(put(&store, "c/b", b"x").is_err());
    assert_eq!(stand.pauses.load(Ordering::Relaxed), 6);
}

#[test]
fn a_completion_whose_answer_is_lost_is_found_done() {
    let stand = Stand::new();
    let store = stand.store();
    let content = pattern(2 * SMALL_PART);
    let mut upload = Upload::new(&store, "stamp a/x/c/large".to_owned());
    upload.write_all(&content).unwrap();
    // The answer to the second part is lost twice, then that to the completion.
    for _ in 0..3 {
        stand.fault(Fault::AnswerLost);
    }
    upload.finish().unwrap();
    assert_eq!(read(&store, "c/large"), content);
    assert_eq!(stand.notes(), 0);
}

#[test]
fn reading_goes_on_where_the_connection_broke() {
    let stand = Stand::new();
    let store = stand.store();
    let content = pattern(200_000);
    stand
        .bucket()
        .objects
        .insert("stamp a/x/c/a".to_owned(), content.clone());
    for cut in [70_000, 0, 0, 50_000] {
        stand.fault(Fault::CutAfter(cut));
    }
    assert!(read(&store, "c/a") == content);
    assert_eq!(stand.bucket().requests.len(), 5);
    // Another object has replaced it: the rest of that one must not be used.
    stand.fault(Fault::CutAfter(70_000));
    let mut file = store.get("c/a").unwrap();
    stand
        .bucket()
        .objects
        .insert("stamp a/x/c/a".to_owned(), vec![1; 200_000]);
    let why = file.read_to_end(&mut Vec::new()).unwrap_err().to_string();
    assert!(why.contains("412"), "{why}");
    // The connection keeps breaking.
    for _ in 0..5 {
        stand.fault(Fault::CutAfter(0));
    }
    assert!(store.get("c/a").unwrap().read_to_end(&mut Vec::new()).is_err());
}

#[test]
fn a_whole_body_has_no_bound_and_a_silent_one_has() {
    let stand = Stand::new();
    let bounds = stand.store().shared.client.bounds();
    assert_eq!(
        (bounds.global, bounds.send_body, bounds.recv_body),
        (None, None, None)
    );
    assert!(bounds.connect.is_some() && bounds.recv_response.is_some());
}

#[test]
fn somebody_else_is_refused_in_words() {
    let stand = Stand::new();
    let other = S3Config {
        secret: Zeroizing::new("another secret".to_owned()),
        ..stand.config()
    };
    let refused = put(&stand.open(other).unwrap(), "c/a", b"x").unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
    let said = refused.to_string();
    assert!(
        said.contains("SignatureDoesNotMatch no & no") && !said.contains("another secret"),
        "{said}"
    );
    assert!(stand.bucket().objects.is_empty());
}

#[test]
fn what_cannot_be_a_place_is_refused() {
    let stand = Stand::new();
    let refused = |change: &dyn Fn(&mut S3Config)| {
        let mut config = stand.config();
        change(&mut config);
        stand.open(config).err().map(|error| error.to_string())
    };
    let plain = refused(&|config| config.endpoint = "http://10.1.2.3:9000".to_owned()).unwrap();
    assert!(plain.contains("allow_http=true"), "{plain}");
    let allowed = |config: &mut S3Config| {
        config.endpoint = "http://10.1.2.3:9000".to_owned();
        config.allow_http = true;
    };
    assert_eq!(refused(&allowed), None);
    for endpoint in [
        "http://localhost:9000",
        "http://[::1]:9000",
        "https://s3.example.com",
    ] {
        assert_eq!(
            refused(&|config| config.endpoint = endpoint.to_owned()),
            None,
            "{endpoint}"
        );
    }
    for endpoint in ["", "s3.example.com", "ftp://x", "https://"] {
        assert!(
            refused(&|config| config.endpoint = endpoint.to_owned()).is_some(),
            "{endpoint}"
        );
    }
    for prefix in ["..", "a/../b", "a//b", "./a"] {
        assert!(
            refused(&|config| config.prefix = prefix.to_owned()).is_some(),
            "{prefix}"
        );
    }
    assert!(refused(&|config| config.ca = Some("no PEM".to_owned())).is_some());
    assert!(refused(&|config| config.secret = Zeroizing::default()).is_some());
}

#[test]
fn an_archive_is_kept_there_and_nothing_in_it_can_be_read() {
    let stand = Stand::new();
    let archive = || Archive::new(Arc::new(stand.store()), Arc::new(Sealer::from_key(&[7; 32])));
    let mut writer = BaseWriter::new(9, 100);
    let entry = Entry {
        key: b"/registry/secrets/default/till".to_vec(),
        value: b"a secret value".to_vec(),
        revision: 9,
        lease: 0,
    };
    writer.add(&entry).unwrap();
    let name = ObjectName::Base { revision: 9, at: 100 };
    archive()
        .put("u1", name, writer.finish(&[]).unwrap().0.as_slice())
        .unwrap();
    let (index, folded) = archive().index("u1", None).unwrap();
    assert_eq!((index.len(), folded.revision), (1, 9));
    for bytes in stand.bucket().objects.values() {
        assert!(!bytes.windows(6).any(|window| window == b"secret"));
    }
}
