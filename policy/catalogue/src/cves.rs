//! Vulnerabilities of what runs: rules R6 and R7.
//!
//! Only components that the catalogue has are looked at. A fix that has been published for more than thirty days is the service's duty, if no upgrade that
//! the stamp has brings it: if there is one, it is the tenant's to take it. Younger fixes are named, and are nobody's duty yet.
//!
//! Pure: what runs and what the stamp has are arguments.

use std::collections::BTreeSet;

use cluster_versions::Version;
use jiff::{Timestamp, civil::Date};

use crate::{Catalogue, Component, Cve, On, Range, bill::Bill};

/// A fix of more than so many days is a duty.
pub const DUTY_DAYS: i64 = 30;

/// Machines of a cluster that run one node image.
#[derive(Debug, Clone)]
pub struct Running<'a> {
    /// The image's Kubernetes version.
    pub version: Version,
    /// What is in it.
    pub bill: &'a Bill,
    /// Which kinds of machines run it.
    pub on: BTreeSet<On>,
}

/// What a stamp could let machines run instead.
#[derive(Debug, Clone, Copy)]
pub struct Offer<'a> {
    /// The Kubernetes version.
    pub version: Version,
    /// The newest node image of it; `None` where it is not built yet.
    pub bill: Option<&'a Bill>,
}

/// Whose turn it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Duty {
    /// The service's: the fix is old, and the stamp has no upgrade with it.
    Service,
    /// The tenant's: the fix is old, and the stamp has an upgrade with it.
    Upgrade,
    /// Nobody's yet: the fix is young.
    Young,
    /// Nobody's: there is no fix.
    NoFix,
}

impl Duty {
    /// For answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Service => "Service",
            Self::Upgrade => "Upgrade",
            Self::Young => "Young",
            Self::NoFix => "NoFix",
        }
    }
}

/// The upgrade that mends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// A newer build of the node image of the same version.
    NodeImage {
        /// When it was built.
        built: Timestamp,
    },
    /// Another Kubernetes version, whose image may have to be built first.
    Kubernetes {
        /// Which.
        version: Version,
    },
    /// The stamp has none.
    None,
}

/// A vulnerability of machines.
#[derive(Debug, Clone)]
pub struct Finding<'a> {
    /// Which.
    pub cve: &'a Cve,
    /// Of which component.
    pub component: &'a Component,
    /// The version that runs.
    pub version: &'a str,
    /// The range that has it.
    pub range: &'a Range,
    /// On which of the machines.
    pub on: BTreeSet<On>,
    /// The upgrade that mends it.
    pub remedy: Remedy,
    /// Whose turn it is.
    pub duty: Duty,
}

/// Whether an image is without a vulnerability. A program may be another package in a newer image, which is another component: one of the components with the
/// vulnerability has to be in the image, and each that is has to be mended. What cannot be compared is not said to be mended.
fn mended(catalogue: &Catalogue, id: &str, bill: &Bill) -> bool {
    let mut there = false;
    for cve in catalogue.cves.iter().filter(|cve| cve.id == id) {
        let Some(component) = catalogue.component(&cve.component) else {
            continue;
        };
        let Some(version) = bill.version_of(&component.package) else {
            continue;
        };
        if !without(component, cve, version) {
            return false;
        }
        there = true;
    }
    there
}

/// Whether a version is in none of the ranges of a vulnerability for certain.
fn without(component: &Component, cve: &Cve, version: &str) -> bool {
    let mut ranges = cve.ranges.iter();
    ranges.all(|range| range.has(component.versions, version) == Some(false))
}

/// The range of a vulnerability that a version is in.
fn range<'a>(component: &Component, cve: &'a Cve, version: &str) -> Option<&'a Range> {
    let mut ranges = cve.ranges.iter();
    ranges.find(|range| range.has(component.versions, version) == Some(true))
}

/// The vulnerabilities of machines that run an image. `same` is the newest image of the same version; `upgrades` are the versions that they can go to, in the order in
/// which they are to be preferred.
pub fn findings<'a>(
    catalogue: &'a Catalogue,
    running: &Running<'a>,
    same: &Bill,
    upgrades: &[Offer<'_>],
    today: Date,
) -> Vec<Finding<'a>> {
    let mut found = Vec::new();
    for cve in &catalogue.cves {
        let Some(component) = catalogue.component(&cve.component) else {
            continue;
        };
        let on: BTreeSet<On> = component
            .on
            .iter()
            .copied()
            .filter(|on| running.on.contains(on))
            .collect();
        let bill = running.bill;
        let Some(version) = bill.version_of(&component.package).filter(|_| !on.is_empty()) else {
            continue;
        };
        let Some(range) = range(component, cve, version) else {
            continue;
        };
        let remedy = remedy(catalogue, component, cve, running, same, upgrades);
        found.push(Finding {
            cve,
            component,
            version,
            range,
            on,
            remedy,
            duty: duty(range, remedy, today),
        });
    }
    found.sort_by(|a, b| (a.duty, &a.component.name, &a.cve.id).cmp(&(b.duty, &b.component.name, &b.cve.id)));
    found
}

fn duty(range: &Range, remedy: Remedy, today: Date) -> Duty {
    let Some((_, published)) = range.fix() else {
        return Duty::NoFix;
    };
    let days = published.map(|published| today.duration_since(published).as_hours() / 24);
    match (days, remedy) {
        // A fix whose day is unknown counts as old: nothing is put off by a gap.
        (Some(days), _) if days <= DUTY_DAYS => Duty::Young,
        (_, Remedy::None) => Duty::Service,
        (_, Remedy::NodeImage { .. } | Remedy::Kubernetes { .. }) => Duty::Upgrade,
    }
}

fn remedy(
    catalogue: &Catalogue,
    component: &Component,
    cve: &Cve,
    running: &Running<'_>,
    same: &Bill,
    upgrades: &[Offer<'_>],
) -> Remedy {
    let mended = |bill: &Bill| mended(catalogue, &cve.id, bill);
    if same.build != running.bill.build && mended(same) {
        return Remedy::NodeImage { built: same.created };
    }
    let kubernetes = component.package == KUBERNETES;
    let better = |offer: &&Offer<'_>| {
        if kubernetes {
            return without(component, cve, &offer.version.to_string());
        }
        offer.bill.is_some_and(mended)
    };
    upgrades
        .iter()
        .find(better)
        .map_or(Remedy::None, |offer| Remedy::Kubernetes {
            version: offer.version,
        })
}

/// The package whose version is that of the node image.
pub const KUBERNETES: &str = "pkg:golang/k8s.io/kubernetes";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bill::Part;

    const ETCD: &str = "pkg:golang/go.etcd.io/etcd/server/v3";
    const RUNC: &str = "pkg:golang/github.com/opencontainers/runc";
    const RUNC_OF_DEBIAN: &str = "pkg:deb/debian/runc";
    const CONTAINERD: &str = "pkg:golang/github.com/containerd/containerd/v2";

    fn bill(day: &str, parts: &[(&str, &str)]) -> Bill {
        let parts = parts.iter().map(|(package, version)| Part {
            package: (*package).to_owned(),
            version: (*version).to_owned(),
        });
        Bill {
            build: day.to_owned(),
            created: format!("{day}T00:00:00Z").parse().unwrap(),
            parts: parts.collect(),
            libraries: 0,
        }
    }

    fn look<'a>(
        catalogue: &'a Catalogue,
        runs: &'a Bill,
        on: &[On],
        same: &Bill,
        upgrades: &[Offer<'_>],
        today: &str,
    ) -> Vec<(&'a str, Duty, Remedy)> {
        let running = Running {
            version: "1.36.3".parse().unwrap(),
            bill: runs,
            on: on.iter().copied().collect(),
        };
        let found = findings(catalogue, &running, same, upgrades, today.parse().unwrap());
        found
            .iter()
            .map(|finding| (finding.cve.id.as_str(), finding.duty, finding.remedy))
            .collect()
    }

    #[test]
    fn r6_an_old_fix_is_the_services_duty_and_a_young_one_is_named() {
        let catalogue = Catalogue::built_in();
        let runs = bill("2026-07-01", &[(ETCD, "3.6.13")]);
        let look = |today: &str| look(&catalogue, &runs, &[On::ControlPlane], &runs, &[], today);
        // Both were mended on 2026-07-23.
        let duties = |today: &str| {
            look(today)
                .into_iter()
                .map(|(_, duty, _)| duty)
                .collect::<Vec<_>>()
        };
        assert_eq!(
            duties("2026-08-22"),
            [Duty::Young, Duty::Young],
            "30 days are not more than 30"
        );
        assert_eq!(duties("2026-08-23"), [Duty::Service, Duty::Service]);
        let ids: Vec<_> = look("2026-08-23").into_iter().map(|(id, _, _)| id).collect();
        assert_eq!(ids, ["CVE-2026-73499", "CVE-2026-73500"]);
        let mended = bill("2026-08-01", &[(ETCD, "3.6.16")]);
        assert!(
            super::tests::look(
                &catalogue,
                &mended,
                &[On::ControlPlane],
                &mended,
                &[],
                "2026-11-30"
            )
            .is_empty()
        );
    }

    #[test]
    fn r7_only_components_of_the_catalogue_count_and_only_where_they_run() {
        let catalogue = Catalogue::built_in();
        let runs = bill("2026-07-01", &[(ETCD, "3.6.13"), ("pkg:deb/debian/bash", "0.1")]);
        assert!(look(&catalogue, &runs, &[On::Node], &runs, &[], "2026-11-30").is_empty());
    }

    #[test]
    fn an_upgrade_that_the_stamp_has_is_the_tenants_to_take() {
        let catalogue = Catalogue::built_in();
        let runs = bill("2026-06-01", &[(CONTAINERD, "2.3.1")]);
        let newer = bill("2026-08-15", &[(CONTAINERD, "2.3.4")]);
        let found = look(&catalogue, &runs, &[On::Node], &newer, &[], "2026-11-30");
        assert_eq!(found.len(), 5);
        for (id, duty, remedy) in found {
            assert_eq!(duty, Duty::Upgrade, "{id}");
            assert_eq!(remedy, Remedy::NodeImage { built: newer.created }, "{id}");
        }
        let version: Version = "1.37.1".parse().unwrap();
        let offers = [
            Offer {
                version: "1.36.4".parse().unwrap(),
                bill: None,
            },
            Offer {
                version,
                bill: Some(&newer),
            },
        ];
        let found = look(&catalogue, &runs, &[On::Node], &runs, &offers, "2026-11-30");
        assert_eq!(
            found[0].2,
            Remedy::Kubernetes { version },
            "what is not built is not known"
        );
    }

    #[test]
    fn kubernetes_own_fixes_are_in_its_versions() {
        let catalogue = Catalogue::built_in();
        let runs = bill("2025-10-01", &[(KUBERNETES, "1.34.1")]);
        let version: Version = "1.34.2".parse().unwrap();
        let offers = [Offer { version, bill: None }];
        let found = look(
            &catalogue,
            &runs,
            &[On::ControlPlane],
            &runs,
            &offers,
            "2026-11-30",
        );
        assert_eq!(
            found,
            [("CVE-2025-13281", Duty::Upgrade, Remedy::Kubernetes { version })]
        );
    }

    #[test]
    fn a_fix_that_only_the_project_has_counts_by_its_day() {
        let catalogue = Catalogue::built_in();
        let runs = bill("2026-11-01", &[(RUNC_OF_DEBIAN, "1.1.5+ds1-1+deb12u1")]);
        let found = look(&catalogue, &runs, &[On::Node], &runs, &[], "2026-11-30");
        let ids: Vec<_> = found.iter().map(|(id, _, _)| *id).collect();
        assert_eq!(
            ids,
            [
                "CVE-2024-45310",
                "CVE-2025-31133",
                "CVE-2025-52565",
                "CVE-2025-52881",
                "CVE-2026-41579",
                "CVE-2026-119101"
            ]
        );
        let (young, old) = found.split_last().unwrap();
        assert_eq!(young.1, Duty::Young, "of 2026-11-12");
        assert!(old.iter().all(|(_, duty, _)| *duty == Duty::Service));
        let before = bill("2023-11-01", &[(RUNC_OF_DEBIAN, "1.1.5+ds1-1")]);
        let found = look(&catalogue, &before, &[On::Node], &runs, &[], "2026-11-30");
        let escaped = found.iter().find(|(id, _, _)| *id == "CVE-2024-21626").unwrap();
        assert_eq!(escaped.1, Duty::Upgrade, "Debian has this one");
    }

    #[test]
    fn each_branch_of_a_component_has_its_own_fix() {
        let catalogue = Catalogue::built_in();
        let found = |version: &str| -> Vec<String> {
            let runs = bill("2026-11-20", &[(RUNC, version)]);
            let found = look(&catalogue, &runs, &[On::Node], &runs, &[], "2027-01-30");
            found.into_iter().map(|(id, _, _)| id.to_owned()).collect()
        };
        for mended in ["1.3.7", "1.4.4", "1.5.3", "1.6.0-rc.2", "1.6.0"] {
            assert!(found(mended).is_empty(), "{mended}: {:?}", found(mended));
        }
        let both = ["CVE-2026-119101", "CVE-2026-41579"];
        for (version, ids) in [
            ("1.2.8", &both[..]),
            ("1.3.6", &both[..1]),
            ("1.4.2", &both[..]),
            ("1.4.3", &both[..1]),
            ("1.5.2", &both[..1]),
            ("1.6.0-rc.1", &both[..1]),
        ] {
            assert_eq!(found(version), ids, "{version}");
        }
        // From before all of them: 1.1.12 to 1.4.4.
        assert_eq!(found("1.1.5").len(), 7);
    }

    #[test]
    fn a_package_that_newer_images_have_from_elsewhere_is_mended_by_them() {
        let catalogue = Catalogue::built_in();
        let old = bill("2026-10-01", &[(RUNC_OF_DEBIAN, "1.1.5+ds1-1+deb12u1")]);
        let duties = |newer: &Bill| {
            let found = look(&catalogue, &old, &[On::Node], newer, &[], "2026-12-30");
            let duties = found.into_iter().map(|(id, duty, _)| (id.to_owned(), duty));
            duties.collect::<std::collections::BTreeMap<_, _>>()
        };
        let mended = duties(&bill("2026-11-29", &[(RUNC, "1.4.4")]));
        assert_eq!(mended.len(), 6);
        assert!(mended.values().all(|duty| *duty == Duty::Upgrade), "{mended:?}");
        // Not everything is mended by the first image with the other package.
        let partly = duties(&bill("2026-09-01", &[(RUNC, "1.4.3")]));
        assert_eq!(partly["CVE-2026-119101"], Duty::Service);
        assert_eq!(partly["CVE-2026-41579"], Duty::Upgrade);
        // Both are there: both count.
        let both = [(RUNC, "1.4.4"), (RUNC_OF_DEBIAN, "1.1.5+ds1-1+deb12u1")];
        let both = duties(&bill("2026-11-29", &both));
        assert!(both.values().all(|duty| *duty == Duty::Service), "{both:?}");
        // Of an image with neither, nothing is known.
        let neither = duties(&bill("2026-11-29", &[(CONTAINERD, "2.4.2")]));
        assert!(neither.values().all(|duty| *duty == Duty::Service), "{neither:?}");
    }
}
