//! What a stamp knows of versions and node images: the version catalogue in force, the bills of materials of images, and which machine of a cluster runs which.
//!
//! Always true: what cannot be read is told as such, and never counted as free of faults.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use async_trait::async_trait;
use cluster_versions::Version;
use control_records::{MachineRecord, Role};
use jiff::{Timestamp, civil::Date, tz::TimeZone};
use policy_catalogue::{Catalogue, On, bill::Bill, signed::PublicKey};
use serde_json::{Value, json};

use super::api::HistoryApi;

/// The catalogue that is in force.
#[derive(Debug, Clone)]
pub struct InForce {
    /// All of it.
    pub catalogue: Arc<Catalogue>,
    /// The key that has signed it; `None`: it is the program's own.
    pub signed_by: Option<PublicKey>,
    /// Why an imported one is not in force, where one is there and cannot be used.
    pub refused: Option<String>,
}

impl InForce {
    /// The program's own.
    pub fn built_in() -> Self {
        Self {
            catalogue: Catalogue::built_in(),
            signed_by: None,
            refused: None,
        }
    }

    /// Which it is, for answers.
    pub(super) fn answer(&self) -> Value {
        json!({
            "serial": self.catalogue.serial,
            "issued": self.catalogue.issued,
            "source": if self.signed_by.is_some() { "Imported" } else { "BuiltIn" },
            "signedBy": self.signed_by.map(|key| key.to_string()),
            "refused": self.refused,
        })
    }
}

/// What a stamp has beside its records. Implemented by the program with its files.
#[async_trait]
pub trait SupportData: Send + Sync + 'static {
    /// The catalogue that is in force now.
    async fn catalogue(&self) -> InForce;

    /// The bills of materials of the node images of a Kubernetes version that the stamp has, the newest build first; none where none is
    /// built.
    ///
    /// # Errors
    /// Why they cannot be read, for people.
    async fn bills(&self, version: &str) -> Result<Vec<Arc<Bill>>, String>;
}

/// The program's catalogue, and no node images: for stamps whose machines are simulated.
#[derive(Debug, Clone, Copy)]
pub struct BuiltIn;

#[async_trait]
impl SupportData for BuiltIn {
    async fn catalogue(&self) -> InForce {
        InForce::built_in()
    }

    async fn bills(&self, _: &str) -> Result<Vec<Arc<Bill>>, String> {
        Ok(Vec::new())
    }
}

/// Machines of a cluster that run one build of a node image.
pub(super) struct Build {
    pub(super) version: Version,
    pub(super) bill: Arc<Bill>,
    /// The newest build of the same version.
    pub(super) newest: Arc<Bill>,
    pub(super) on: BTreeSet<On>,
    pub(super) machines: usize,
}

/// What a cluster's machines run.
pub(super) struct Images {
    /// By version and build.
    pub(super) builds: Vec<Build>,
    /// The images without a bill of materials, with the reason.
    pub(super) unread: Vec<String>,
}

/// Today, UTC.
pub(super) fn today(now: Timestamp) -> Date {
    now.to_zoned(TimeZone::UTC).date()
}

/// Which kind of machine it is; `None` while it stands by.
pub(super) fn kind(machine: &MachineRecord) -> Option<On> {
    Some(match machine.assignment.as_ref()?.role {
        Role::ControlPlane { .. } => On::ControlPlane,
        Role::Node { .. } => On::Node,
    })
}

impl HistoryApi {
    /// The builds that machines run. A machine is taken to run the newest build of its version that was there when it was made.
    pub(super) async fn images(&self, machines: &[MachineRecord]) -> Images {
        let mut versions: BTreeMap<&str, Vec<(On, Timestamp)>> = BTreeMap::new();
        for machine in machines {
            if let Some(on) = kind(machine) {
                let of = versions.entry(machine.image.as_str()).or_default();
                of.push((on, machine.created_at));
            }
        }
        let (mut builds, mut unread) = (Vec::new(), Vec::new());
        for (image, machines) in versions {
            let bills = self.known.bills(image).await;
            let version = image.parse::<Version>();
            let (bills, version) = match (bills, version) {
                (Ok(bills), Ok(version)) => (bills, version),
                (Err(why), _) => {
                    unread.push(format!("the node image of Kubernetes {image}: {why}"));
                    continue;
                }
                (_, Err(why)) => {
                    unread.push(format!("the node image {image}: {why}"));
                    continue;
                }
            };
            let (Some(newest), Some(oldest)) = (bills.first(), bills.last()) else {
                unread.push(format!(
                    "the node image of Kubernetes {image}: no bill of materials of it is kept here"
                ));
                continue;
            };
            let mut of: BTreeMap<&str, Build> = BTreeMap::new();
            for (on, made) in machines {
                let bill = bills.iter().find(|bill| bill.created <= made).unwrap_or(oldest);
                let build = of.entry(bill.build.as_str()).or_insert_with(|| Build {
                    version,
                    bill: Arc::clone(bill),
                    newest: Arc::clone(newest),
                    on: BTreeSet::new(),
                    machines: 0,
                });
                build.on.insert(on);
                build.machines += 1;
            }
            builds.extend(of.into_values());
        }
        Images { builds, unread }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_programs_catalogue_is_named_as_such() {
        let told = InForce::built_in().answer();
        assert_eq!(told["source"], "BuiltIn");
        assert_eq!(told["signedBy"], Value::Null);
        assert_eq!(told["issued"], "2026-11-30");
    }

    #[test]
    fn a_day_is_utcs() {
        let at = |text: &str| today(text.parse().unwrap()).to_string();
        assert_eq!(at("2026-11-30T23:59:59Z"), "2026-11-30");
        assert_eq!(at("2026-12-01T00:00:00Z"), "2026-12-01");
    }
}
