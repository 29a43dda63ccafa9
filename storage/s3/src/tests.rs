//! Against a bucket on loopback that checks signatures by what it received.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
};

use aws_lc_rs::hmac;
use cluster_archive::Archive;
use cluster_backup::{Entry, ObjectName, base::BaseWriter};
use control_store::Sealer;

use super::*;

const SECRET: &str = "a secret / with + characters";
/// Names in a page of a list.
const PAGE: usize = 3;

/// What is in the bucket.
#[derive(Default)]
struct Bucket {
    objects: BTreeMap<String, Vec<u8>>,
    requests: usize,
}

struct Stand {
    bucket: Arc<Mutex<Bucket>>,
    endpoint: String,
    scratch: tempfile::TempDir,
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
            scratch: tempfile::tempdir().unwrap(),
        }
    }

    fn objects(&self, secret: &str) -> S3Store {
        let place = S3Config {
            endpoint: self.endpoint.clone(),
            bucket: "backups".to_owned(),
            prefix: "stamp a/x".to_owned(),
            region: "somewhere".to_owned(),
            access: "ACCESS".to_owned(),
            secret: Zeroizing::new(secret.to_owned()),
            ca: None,
        };
        let now = || "2026-11-21T12:00:00Z".parse().unwrap();
        S3Store::new(place, self.scratch.path(), now).unwrap()
    }
}

/// One request of a connection; `None` when it ends.
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
    let (status, text) = answer(&method, &target, &headers, body, &mut bucket.lock().unwrap());
    let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n", text.len());
    let mut out = stream;
    out.write_all(head.as_bytes()).ok()?;
    out.write_all(&text).ok()
}

/// What the signature must be, by the rules and by what came.
fn expected(method: &str, path: &str, query: &str, headers: &BTreeMap<String, String>) -> String {
    let date = &headers["x-amz-date"];
    let scope = format!("{}/somewhere/s3/aws4_request", &date[..8]);
    let mut lines = vec![method.to_owned(), path.to_owned(), query.to_owned()];
    for name in ["host", "x-amz-content-sha256", "x-amz-date"] {
        lines.push(format!("{name}:{}", headers[name]));
    }
    lines.push(String::new());
    lines.push("host;x-amz-content-sha256;x-amz-date".to_owned());
    lines.push(headers["x-amz-content-sha256"].clone());
    let text = [
        "AWS4-HMAC-SHA256",
        date,
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

fn answer(
    method: &str,
    target: &str,
    headers: &BTreeMap<String, String>,
    body: Vec<u8>,
    bucket: &mut Bucket,
) -> (&'static str, Vec<u8>) {
    bucket.requests += 1;
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let refused =
        |code: &str| format!("<Error><Code>{code}</Code><Message>no &amp; no</Message></Error>").into_bytes();
    let signature = expected(method, path, query, headers);
    if !headers["authorization"].ends_with(&format!("Signature={signature}")) {
        return ("403 Forbidden", refused("SignatureDoesNotMatch"));
    }
    if headers["x-amz-content-sha256"] != sha256(&body) {
        return ("400 Bad Request", refused("XAmzContentSHA256Mismatch"));
    }
    let decoded = path.replace("%20", " ");
    let key = decoded.strip_prefix("/backups").unwrap().trim_start_matches('/');
    match (method, key) {
        ("PUT", key) => {
            bucket.objects.insert(key.to_owned(), body);
            ("200 OK", Vec::new())
        }
        ("DELETE", key) => {
            bucket.objects.remove(key);
            ("204 No Content", Vec::new())
        }
        ("GET", "") => ("200 OK", list(query, bucket).into_bytes()),
        ("GET", key) => match bucket.objects.get(key) {
            Some(bytes) => ("200 OK", bytes.clone()),
            None => ("404 Not Found", refused("NoSuchKey")),
        },
        _ => ("405 Method Not Allowed", Vec::new()),
    }
}

fn list(query: &str, bucket: &Bucket) -> String {
    let asked: BTreeMap<&str, String> = query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name, value.replace("%2F", "/").replace("%20", " ")))
        .collect();
    let prefix = &asked["prefix"];
    let mut lines: Vec<String> = bucket
        .objects
        .iter()
        .filter_map(|(key, bytes)| {
            let rest = key.strip_prefix(prefix)?;
            Some(match (asked.contains_key("delimiter"), rest.split_once('/')) {
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
    let from: usize = asked
        .get("continuation-token")
        .map_or(0, |token| token.parse().unwrap());
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
    format!("<?xml version=\"1.0\"?><ListBucketResult>{text}</ListBucketResult>")
}

fn put(objects: &S3Store, name: &str, bytes: &[u8]) -> io::Result<()> {
    objects.put(name, &mut |out| out.write_all(bytes))
}

fn read(objects: &S3Store, name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    objects.get(name).unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn files_come_and_go_and_lists_have_many_pages() {
    let stand = Stand::new();
    let objects = stand.objects(SECRET);
    for number in 0..8 {
        put(&objects, &format!("c1/{number}"), &vec![7; number]).unwrap();
    }
    put(&objects, "c2/a", b"other").unwrap();
    let names: Vec<_> = objects.list(Some("c1")).unwrap();
    assert_eq!(names.len(), 8);
    assert_eq!(names[3], ("3".to_owned(), 3));
    let folders: Vec<String> = objects
        .list(None)
        .unwrap()
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    assert_eq!(folders, ["c1", "c2"]);
    assert_eq!(read(&objects, "c1/5"), vec![7; 5]);
    assert!(
        stand
            .bucket
            .lock()
            .unwrap()
            .objects
            .contains_key("stamp a/x/c2/a")
    );
    objects.delete("c1/5").unwrap();
    objects.delete("c1/5").unwrap();
    assert_eq!(objects.get("c1/5").err().unwrap().kind(), io::ErrorKind::NotFound);
    objects.delete_folder("c1").unwrap();
    assert!(objects.list(Some("c1")).unwrap().is_empty());
    assert_eq!(read(&objects, "c2/a"), b"other");
}

#[test]
fn what_is_large_goes_by_way_of_the_disk_and_what_breaks_off_is_not_sent() {
    let stand = Stand::new();
    let objects = stand.objects(SECRET);
    let large: Vec<u8> = (0..3 * IN_MEMORY).map(|index| (index % 251) as u8).collect();
    objects
        .put("c/large", &mut |out| {
            large.chunks(100_000).try_for_each(|chunk| out.write_all(chunk))
        })
        .unwrap();
    assert!(read(&objects, "c/large") == large);
    let before = stand.bucket.lock().unwrap().requests;
    let broken = objects.put("c/broken", &mut |out| {
        out.write_all(b"half")?;
        Err(io::Error::other("it broke off"))
    });
    assert!(broken.is_err());
    assert_eq!(stand.bucket.lock().unwrap().requests, before);
}

#[test]
fn somebody_else_is_refused_in_words() {
    let stand = Stand::new();
    let refused = put(&stand.objects("another secret"), "c/a", b"x").unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
    let said = refused.to_string();
    assert!(
        said.contains("SignatureDoesNotMatch no & no") && !said.contains("another secret"),
        "{said}"
    );
    assert!(stand.bucket.lock().unwrap().objects.is_empty());
}

#[test]
fn an_archive_is_kept_there_and_nothing_in_it_can_be_read() {
    let stand = Stand::new();
    let archive = || {
        Archive::new(
            Arc::new(stand.objects(SECRET)),
            Arc::new(Sealer::from_key(&[7; 32])),
        )
    };
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
    for bytes in stand.bucket.lock().unwrap().objects.values() {
        assert!(!bytes.windows(6).any(|window| window == b"secret"));
    }
}
