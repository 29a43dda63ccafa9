//! Commands that are to be run in clusters, among their children: `/c/{uid}/child/commands/{id}`, with what is asked and what came of it in
//! records of their own, which may be large: `…/child/commandinputs/{id}`, `…/child/commandoutputs/{id}`.
//!
//! Always true: what is asked and what came of it are sealed, since both may hold secrets; a command that has ended is never run again, and
//! what was asked is gone then; its record says whether anything of it may still be in the cluster.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::child;

/// What commands are called among children.
const KIND: &str = "commands";

/// A command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CommandRecord {
    /// Format.
    pub v: u32,
    /// Its identity, lower-case letters and digits.
    pub id: String,
    /// Object id of who asked for it.
    pub asked_by: String,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// Whether it has ended: there is a [`CommandOutput`], and no [`CommandInput`] any more.
    #[serde(default)]
    pub ended: bool,
    /// Whether nothing of it is in the cluster any more.
    #[serde(default)]
    pub gone: bool,
}

/// What is to be run.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CommandInput {
    /// For a shell.
    pub command: String,
    /// A zip archive in base64; it is unpacked where the command runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
    /// The token with which it speaks to the cluster; without, it is the cluster's administrator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

/// What came of it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CommandOutput {
    /// How it ended; `None`: it never did.
    pub exit_code: Option<i64>,
    /// When it began.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Timestamp,
    /// What it printed.
    pub logs: String,
    /// Why it did not run to its end.
    pub reason: Option<String>,
}

impl CommandRecord {
    /// The prefix of a cluster's commands.
    pub fn all(uid: &str) -> String {
        child::key(uid, KIND, "")
    }

    /// Its key.
    pub fn key(uid: &str, id: &str) -> String {
        child::key(uid, KIND, id)
    }

    /// Whether a key, without the cluster's prefix, is a command's.
    pub fn is_key(rest: &str) -> bool {
        rest.starts_with("child/commands/")
    }

    /// The key of a part, a [`crate::SealedRecord`].
    pub fn part_key(uid: &str, id: &str, part: Part) -> String {
        let kind = match part {
            Part::Input => "commandinputs",
            Part::Output => "commandoutputs",
        };
        child::key(uid, kind, id)
    }

    /// Under which name a part is sealed.
    pub fn sealed_as(uid: &str, id: &str, part: Part) -> String {
        format!("/commands/{uid}/{id}/{part:?}")
    }

    /// Whether something is still to be done for it.
    pub fn is_open(&self) -> bool {
        !self.gone
    }
}

/// A part of a command that has a record of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// A [`CommandInput`].
    Input,
    /// A [`CommandOutput`].
    Output,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key;

    #[test]
    fn a_command_is_a_child_of_its_cluster() {
        let name = CommandRecord::key("u", "abc");
        assert!(name.starts_with(&CommandRecord::all("u")) && name.starts_with(&child::all("u")));
        let (uid, rest) = key::of_cluster(&name).unwrap();
        assert!(uid == "u" && CommandRecord::is_key(rest));
        assert!(!CommandRecord::is_key("child/maintenanceconfigurations/default"));
        // They are listed without their parts.
        for part in [Part::Input, Part::Output] {
            let part = CommandRecord::part_key("u", "abc", part);
            assert!(part.starts_with(&child::all("u")) && !part.starts_with(&CommandRecord::all("u")));
        }
    }
}
