//! The catalogue's own words.

use std::sync::{Arc, LazyLock};

use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use crate::{FORMAT, MOST, Scheme, check};

/// Why a text is no catalogue.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CatalogueError {
    /// Too long.
    #[error("the catalogue has {bytes} bytes; at most {MOST} are read")]
    TooLarge {
        /// Its length.
        bytes: usize,
    },
    /// Not TOML, or other members than a catalogue has.
    #[error("line {line} of the catalogue cannot be read: {detail}")]
    Malformed {
        /// From 1.
        line: usize,
        /// What is wrong with it.
        detail: String,
    },
    /// Of another release.
    #[error(
        "the catalogue has format {found}, and this release reads {FORMAT}: a newer release of Landfall reads it"
    )]
    Format {
        /// Its format.
        found: u32,
    },
    /// A value that cannot be right.
    #[error("{place} of the catalogue: {why}")]
    Invalid {
        /// The entry.
        place: String,
        /// What is wrong with it.
        why: String,
    },
}

/// Everything that is known. All days are UTC's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Catalogue {
    /// [`FORMAT`].
    pub format: u32,
    /// Grows with each issue.
    pub serial: u64,
    /// When it was written.
    pub issued: Date,
    /// Kubernetes' minors, oldest first.
    #[serde(rename = "minor")]
    pub minors: Vec<Minor>,
    /// The managed components.
    #[serde(rename = "component")]
    pub components: Vec<Component>,
    /// Vulnerabilities of them.
    #[serde(default, rename = "cve")]
    pub cves: Vec<Cve>,
    /// Known issues of them.
    #[serde(default, rename = "issue")]
    pub issues: Vec<Issue>,
}

/// A minor of Kubernetes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Minor {
    /// `1.36`
    pub name: String,
    /// When its first release was published.
    pub released: Date,
    /// From when on the community only mends what is grave.
    pub maintenance: Date,
    /// The last day of the community's support.
    pub end_of_support: Date,
    /// The month of Azure's preview, `2026-05`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub azure_preview: Option<String>,
    /// The month from which on Azure has it for everybody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub azure_general: Option<String>,
    /// The last day of Azure's support.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub azure_end: Option<Date>,
    /// The last day of long-term support.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lts_end: Option<Date>,
    /// Its patch releases, oldest first.
    pub patches: Vec<Patch>,
    /// Where this is written.
    pub sources: Vec<String>,
}

/// A patch release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Patch {
    /// `1.36.3`
    pub version: String,
    /// When it was published.
    pub released: Date,
}

/// A kind of machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum On {
    /// A member of a control plane.
    ControlPlane,
    /// A node.
    Node,
}

impl On {
    /// As in the catalogue.
    pub fn name(self) -> &'static str {
        match self {
            Self::ControlPlane => "control-plane",
            Self::Node => "node",
        }
    }
}

/// A component that Landfall manages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Component {
    /// What entries call it.
    pub name: String,
    /// Its package URL without a version, as in bills of materials.
    pub package: String,
    /// How its versions are ordered.
    pub versions: Scheme,
    /// Where it runs.
    pub on: Vec<On>,
}

/// Versions from one on, up to the one that ends it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Range {
    /// The first one, included.
    pub from: String,
    /// The first one that is mended, excluded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fixed: Option<String>,
    /// When that was published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fixed_on: Option<Date>,
    /// A fix that the project has, and the component's source of packages has not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream: Option<Upstream>,
}

impl Range {
    /// Whether a version is in it; `None` where that cannot be told.
    pub fn has(&self, scheme: Scheme, version: &str) -> Option<bool> {
        let begun = scheme.compare(version, &self.from)?.is_ge();
        let over = match &self.fixed {
            Some(fixed) => scheme.compare(version, fixed)?.is_ge(),
            None => false,
        };
        Some(begun && !over)
    }

    /// The release that mends it and the day of that: of the component's own source first.
    pub fn fix(&self) -> Option<(&str, Option<Date>)> {
        let own = self.fixed.as_deref().map(|fixed| (fixed, self.fixed_on));
        own.or_else(|| {
            let upstream = self.upstream.as_ref()?;
            Some((upstream.fixed.as_str(), Some(upstream.fixed_on)))
        })
    }
}

/// A project's own fix.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Upstream {
    /// The project's release.
    pub fixed: String,
    /// When it was published.
    pub fixed_on: Date,
}

/// A vulnerability.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Cve {
    /// `CVE-2026-33413`
    pub id: String,
    /// One sentence.
    pub summary: String,
    /// Of which component.
    pub component: String,
    /// Which versions have it.
    pub ranges: Vec<Range>,
    /// Where this is written.
    pub sources: Vec<String>,
}

/// A known issue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Issue {
    /// The project and its number there, `kubernetes-139823`.
    pub id: String,
    /// One sentence.
    pub title: String,
    /// Of which component.
    pub component: String,
    /// On which machines it shows.
    pub on: On,
    /// Which versions have it.
    pub ranges: Vec<Range>,
    /// What else has to be so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<Predicate>,
    /// What one meets.
    pub impact: String,
    /// What one can do meanwhile.
    pub workaround: String,
    /// Who can.
    pub mitigation: Mitigation,
    /// How it goes on, roughly.
    pub timeline: String,
    /// The project's own pages of it.
    pub upstream: Vec<String>,
}

/// Who can do something about an issue before it is mended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mitigation {
    /// Whoever uses the cluster.
    Tenant,
    /// Whoever runs the stamp.
    Operator,
    /// Nobody.
    Nobody,
}

impl Mitigation {
    /// As in the catalogue.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tenant => "tenant",
            Self::Operator => "operator",
            Self::Nobody => "nobody",
        }
    }
}

/// A condition over facts of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Predicate {
    /// The fact is so.
    Is(Flag),
    /// There are so many.
    AtLeast(Threshold),
    /// All of these.
    All(Vec<Predicate>),
    /// One of these.
    Any(Vec<Predicate>),
    /// Not this.
    Not(Box<Predicate>),
}

impl Predicate {
    /// Calls back for each fact that it is made of.
    pub fn facts(&self, flag: &mut impl FnMut(Flag), count: &mut impl FnMut(Count)) {
        match self {
            Self::Is(wanted) => flag(*wanted),
            Self::AtLeast(threshold) => count(threshold.of),
            Self::All(parts) | Self::Any(parts) => {
                for part in parts {
                    part.facts(&mut *flag, &mut *count);
                }
            }
            Self::Not(part) => part.facts(flag, count),
        }
    }
}

/// A number that something reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Threshold {
    /// What is counted.
    pub of: Count,
    /// The least.
    pub number: u64,
}

/// What is so, or is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Flag {
    /// The control plane has more than one member.
    SeveralMembers,
    /// A member of the control plane is being repaired, upgraded or removed.
    MemberAway,
    /// There is a DeviceClass.
    DynamicResourceAllocation,
    /// There is a CSIDriver with `requiresRepublish`.
    RepublishingDrivers,
    /// There are PriorityClasses beside the system's.
    PriorityClasses,
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Count {
    /// Endpoints of all Services.
    Endpoints,
    /// Processors of the largest node.
    CoresOfANode,
}

impl Catalogue {
    /// The catalogue of this program, as it is written.
    pub const BUILT_IN: &'static str = include_str!("../data/catalogue.toml");

    /// The catalogue of this program.
    pub fn built_in() -> Arc<Self> {
        static READ: LazyLock<Arc<Catalogue>> = LazyLock::new(|| {
            Arc::new(
                Catalogue::parse(Catalogue::BUILT_IN).expect("a test reads the catalogue of the program"),
            )
        });
        Arc::clone(&READ)
    }

    /// Reads a catalogue and checks all of it.
    ///
    /// # Errors
    /// As [`CatalogueError`] says, at the first fault.
    pub fn parse(text: &str) -> Result<Self, CatalogueError> {
        if text.len() > MOST {
            return Err(CatalogueError::TooLarge { bytes: text.len() });
        }
        let malformed = |error: toml::de::Error| {
            let before = error.span().and_then(|span| text.get(..span.start));
            CatalogueError::Malformed {
                line: before.map_or(1, |before| before.matches('\n').count() + 1),
                detail: error.message().to_owned(),
            }
        };
        // What another format has beside it is of no interest.
        #[derive(Deserialize)]
        struct Head {
            format: u32,
        }
        let head: Head = toml::from_str(text).map_err(malformed)?;
        if head.format != FORMAT {
            return Err(CatalogueError::Format { found: head.format });
        }
        let catalogue: Self = toml::from_str(text).map_err(malformed)?;
        check::all(&catalogue)?;
        Ok(catalogue)
    }

    /// A component by its name.
    pub fn component(&self, name: &str) -> Option<&Component> {
        self.components.iter().find(|component| component.name == name)
    }

    /// A component by a package of a bill of materials.
    pub fn of_package(&self, package: &str) -> Option<&Component> {
        self.components
            .iter()
            .find(|component| component.package == package)
    }

    /// A minor, by its numbers.
    pub fn minor(&self, major: u32, minor: u32) -> Option<&Minor> {
        let name = format!("{major}.{minor}");
        self.minors.iter().find(|found| found.name == name)
    }
}
