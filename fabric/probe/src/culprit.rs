//! The rule or policy that drops a connection. Pure.

use std::fmt;

/// The packet filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Engine {
    /// nftables, or iptables on top of it.
    Nftables { family: String },
    /// The legacy iptables, without nftables.
    Iptables,
}

/// The rule or policy that drops a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Culprit {
    pub(crate) engine: Engine,
    pub(crate) table: String,
    /// The base chain, which is attached to a hook.
    pub(crate) base: String,
    /// The chain with the rule, reached from the base chain.
    pub(crate) chain: String,
    /// The rule; `None` for the chain's policy.
    pub(crate) rule: Option<String>,
    /// The trace of the packet before the drop.
    pub(crate) way: String,
}

impl Culprit {
    /// Whether the trace contains this word.
    pub(crate) fn mentions(&self, word: &str) -> bool {
        [&self.way, &self.chain].iter().any(|text| text.contains(word))
            || self.rule.as_ref().is_some_and(|rule| rule.contains(word))
    }

    /// Whether the packet was being forwarded.
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
