//! What machines suffer from, and what cures them.

use std::{fmt, str::FromStr};

/// What a machine suffers from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ailment {
    /// Its agent does not reach the service. Everything else works.
    Silent,
    /// Nothing in it gets on: its agent is silent, its processes do not answer.
    Hangs,
    /// Its kubelet says that the node is not ready. The agent knows of nothing.
    NotReady,
    /// A process keeps ending.
    Ends(String),
    /// A process runs and does not answer.
    Deaf(String),
    /// No space is left on its disk.
    DiskFull,
}

/// The least that cures an ailment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cure {
    /// Its processes are started again.
    Process,
    /// The machine is started again.
    Reboot,
    /// The machine is made anew.
    Reimage,
    /// Nothing: only another machine helps.
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
