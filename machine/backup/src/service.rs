//! The connection of a machine's backup to the service.

use std::{fs::File, io::Read, path::Path, time::Duration};

use cluster_backup::ObjectName;
use machine_program::https::{self, Bounds};

/// The time for a small part; also the limit for a service that hangs.
const BOUND: Duration = Duration::from_secs(30);
/// The time for a base of 8 GiB at 10 MiB a second.
const LONG: Duration = Duration::from_secs(15 * 60);
/// The largest list of names.
const LARGEST: u64 = 64 * 1024 * 1024;
/// The path segment of the machine's own cluster, in place of its uid.
pub const OWN: &str = "own";

/// The reason why an object was not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Invalid: the same object will never be accepted.
    Refused(String),
    /// Any other failure: worth a retry.
    Away(String),
}

impl Failure {
    fn status(answer: ureq::http::Response<ureq::Body>) -> Self {
        let refused = answer.status().as_u16() == 422;
        let why = Service::refused(answer);
        if refused {
            Self::Refused(why)
        } else {
            Self::Away(why)
        }
    }
}

/// The destination of backups.
pub(crate) trait BackupSink {
    /// The objects of the machine's own cluster.
    fn has(&self) -> Result<Vec<ObjectName>, Failure>;
    /// Sends a part of a log. It is durable when this returns.
    fn take(&self, name: &ObjectName, bytes: &[u8]) -> Result<(), Failure>;
    /// Sends a base.
    fn take_file(&self, name: &ObjectName, path: &Path) -> Result<(), Failure>;
}

/// The service, which keeps backups.
pub(crate) struct Service {
    url: String,
    short: ureq::Agent,
    long: ureq::Agent,
}

impl Service {
    /// The service of the machine with this root, with the identity from its agent's enrolment.
    pub(crate) fn of_machine(root: &Path) -> Result<Self, String> {
        let (url, short) = https::service_of(root, Bounds::whole(BOUND))?;
        let (_, long) = https::service_of(root, Bounds::whole(LONG))?;
        Ok(Self { url, short, long })
    }

    fn address(&self, cluster: &str, object: &str) -> String {
        format!("{}/agent/v1/backup/{cluster}/{object}", self.url)
    }

    fn refused(mut answer: ureq::http::Response<ureq::Body>) -> String {
        let why = answer
            .body_mut()
            .with_config()
            .limit(1024)
            .read_to_string()
            .unwrap_or_default();
        format!("the service answers {}: {why}", answer.status())
    }

    /// The objects of a cluster.
    pub(crate) fn list(&self, cluster: &str) -> Result<Vec<ObjectName>, String> {
        let url = format!("{}/agent/v1/backup/{cluster}", self.url);
        let mut answer = self.short.get(&url).call().map_err(|error| error.to_string())?;
        if answer.status().as_u16() != 200 {
            return Err(Self::refused(answer));
        }
        let names: Vec<String> = answer
            .body_mut()
            .with_config()
            .limit(LARGEST)
            .read_json()
            .map_err(|error| error.to_string())?;
        Ok(names.iter().filter_map(|name| ObjectName::parse(name)).collect())
    }

    /// The content of one object.
    pub(crate) fn get(&self, cluster: &str, name: &ObjectName) -> Result<impl Read + use<>, String> {
        let url = self.address(cluster, &name.to_string());
        let answer = self.long.get(&url).call().map_err(|error| error.to_string())?;
        if answer.status().as_u16() != 200 {
            return Err(Self::refused(answer));
        }
        Ok(answer.into_body().into_reader())
    }

    fn taken(answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Result<(), Failure> {
        let answer = answer.map_err(|error| Failure::Away(error.to_string()))?;
        match answer.status().as_u16() {
            200 | 201 | 204 => Ok(()),
            _ => Err(Failure::status(answer)),
        }
    }
}

impl BackupSink for Service {
    fn has(&self) -> Result<Vec<ObjectName>, Failure> {
        self.list(OWN).map_err(Failure::Away)
    }

    fn take(&self, name: &ObjectName, bytes: &[u8]) -> Result<(), Failure> {
        Self::taken(self.short.put(&self.address(OWN, &name.to_string())).send(bytes))
    }

    fn take_file(&self, name: &ObjectName, path: &Path) -> Result<(), Failure> {
        let file = File::open(path)
            .map_err(|error| Failure::Away(format!("cannot read {}: {error}", path.display())))?;
        Self::taken(self.long.put(&self.address(OWN, &name.to_string())).send(file))
    }
}
