//! Ailments of machines, and their cures.

use std::{fmt, str::FromStr};

/// An ailment of a machine.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ailment {
    /// The agent does not reach the service. Everything else works.
    Silent,
    /// The whole machine hangs: its agent is silent, its processes do not answer.
    Hangs,
    /// The kubelet reports the node as not ready. The agent does not know it.
    NotReady,
    /// A process keeps exiting.
    Ends(String),
    /// A process runs and does not answer.
    Deaf(String),
    /// No space is left on its disk.
    DiskFull,
}

/// The least action that cures an ailment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cure {
    /// A restart of its processes.
    Process,
    /// A restart of the machine.
    Reboot,
    /// A new disk.
    Reimage,
    /// Only a replacement by another machine.
    Replace,
}

impl FromStr for Ailment {
    type Err = String;

    /// `silent`, `hangs`, `not-ready`, `ends:PROCESS`, `deaf:PROCESS`, `disk-full`.
    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text.split_once(':').unwrap_or((text, "")) {
            ("silent", "") => Self::Silent,
            ("hangs", "") => Self::Hangs,
            ("not-ready", "") => Self::NotReady,
            ("disk-full", "") => Self::DiskFull,
            ("ends", process) => Self::Ends(process.to_owned()),
            ("deaf", process) => Self::Deaf(process.to_owned()),
            _ => return Err(format!("there is no ailment named {text}")),
        })
    }
}

impl fmt::Display for Ailment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent => f.write_str("silent"),
            Self::Hangs => f.write_str("hangs"),
            Self::NotReady => f.write_str("not-ready"),
            Self::Ends(process) => write!(f, "ends:{process}"),
            Self::Deaf(process) => write!(f, "deaf:{process}"),
            Self::DiskFull => f.write_str("disk-full"),
        }
    }
}

impl FromStr for Cure {
    type Err = String;

    /// `process`, `reboot`, `reimage`, `replace`.
    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "process" => Self::Process,
            "reboot" => Self::Reboot,
            "reimage" => Self::Reimage,
            "replace" => Self::Replace,
            _ => return Err(format!("there is no cure named {text}")),
        })
    }
}
