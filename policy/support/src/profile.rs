//! Whose support policies a stamp goes by.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A set of support policies. A stamp has one; a rule that differs by document names the profiles it is of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// AKS.
    #[default]
    Aks,
    /// AKS enabled by Arc.
    Arc,
    /// AKS on Azure Stack HCI.
    Hci,
    /// AKS engine on Azure Stack Hub.
    HubEngine,
    /// AKS on Azure Stack Hub.
    Hub,
}

/// A text that is no profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoProfile;

impl fmt::Display for NoProfile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = Profile::ALL.map(Profile::as_str);
        write!(f, "not a support profile: use one of {}", names.join(", "))
    }
}

impl std::error::Error for NoProfile {}

impl Profile {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Aks, Self::Arc, Self::Hci, Self::HubEngine, Self::Hub];

    /// As in requests and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Aks => "aks",
            Self::Arc => "arc",
            Self::Hci => "hci",
            Self::HubEngine => "hub-engine",
            Self::Hub => "hub",
        }
    }

    /// The document that it comes from, for people.
    pub fn document(self) -> &'static str {
        match self {
            Self::Aks => "AKS",
            Self::Arc => "AKS enabled by Arc",
            Self::Hci => "AKS on Azure Stack HCI",
            Self::HubEngine => "AKS engine on Azure Stack Hub",
            Self::Hub => "AKS on Azure Stack Hub",
        }
    }

    /// Whether it is one of the profiles of which the service, not the owner, has control plane and nodes.
    pub(crate) fn is_managed(self) -> bool {
        matches!(self, Self::Aks | Self::Arc | Self::Hci)
    }

    /// Whether it is one of the profiles of which hosts are somebody's own, with a connection to keep.
    pub(crate) fn is_hybrid(self) -> bool {
        matches!(self, Self::Arc | Self::Hci)
    }
}

impl FromStr for Profile {
    type Err = NoProfile;

    fn from_str(text: &str) -> Result<Self, NoProfile> {
        let mut all = Self::ALL.into_iter();
        all.find(|profile| profile.as_str().eq_ignore_ascii_case(text))
            .ok_or(NoProfile)
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
