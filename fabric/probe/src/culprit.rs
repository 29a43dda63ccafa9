//! The rule or policy that drops a connection. Pure.

use std::fmt;

/// Which packet filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Engine {
    /// nftables, or iptables on top of it.
    Nftables { family: String },
    /// iptables as it was before nftables.
    Iptables,
}

/// What drops a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Culprit {
    pub(crate) engine: Engine,
    pub(crate) table: String,
    /// The base chain, where the kernel hands packets over.
    pub(crate) base: String,
    /// The chain with the rule, which the base chain led to.
    pub(crate) chain: String,
    /// The rule; `None` where it is the chain's policy.
    pub(crate) rule: Option<String>,
    /// What the packet met before, as it was traced.
    pub(crate) way: String,
}

impl Culprit {
    /// Whether the packet met something with this in its name.
    pub(crate) fn mentions(&self, word: &str) -> bool {
        [&self.way, &self.chain].iter().any(|text| text.contains(word))
            || self.rule.as_ref().is_some_and(|rule| rule.contains(word))
    }

    /// Whether the packet was on its way from one card to another.
    pub(crate) fn is_forward(&self) -> bool {
        self.way.lines().any(|line| {
            line.strip_prefix("packet: ")
                .is_some_and(|packet| packet.contains("iif \"") && packet.contains("oif \""))
        })
    }
}

impl fmt::Display for Culprit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.engine {
            Engine::Nftables { family } => write!(f, "table {family} {}, chain {}", self.table, self.chain)?,
            Engine::Iptables => write!(f, "iptables-legacy, table {}, chain {}", self.table, self.chain)?,
        }
        if self.base != self.chain {
            write!(f, " (from chain {})", self.base)?;
        }
        match &self.rule {
            Some(rule) => write!(f, ": {rule}"),
            None => f.write_str(": policy drop"),
        }
    }
}
