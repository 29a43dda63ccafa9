//! What `landfall usage` takes, and where metrics are served.

use std::net::SocketAddr;

use clap::Args;

/// `landfall usage`.
#[derive(Debug, Args)]
#[command(after_help = "\
Counted are cores, memory and disks of nodes that are to be there, sizes of volumes, and leased addresses of the stamp's network, each summed up over
its time; control planes count for nobody. Kept for 90 days.

Examples:
  landfall usage
  landfall usage --from 2026-12-01 --to 2027-01-01 --output csv > december.csv")]
pub(crate) struct Usage {
    /// From this day or time on, in UTC [default: a day before the end]
    #[arg(long, value_name = "TIME")]
    pub(crate) from: Option<String>,

    /// Up to this day or time, in UTC [default: now]
    #[arg(long, value_name = "TIME")]
    pub(crate) to: Option<String>,

    /// Only this subscription, by its id or name [default: all]
    #[arg(long, value_name = "SUBSCRIPTION")]
    pub(crate) subscription: Option<String>,
}

/// Where metrics are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MetricsListen {
    /// Nowhere but at the admin socket.
    Off,
    /// At this address.
    At(SocketAddr),
}

impl MetricsListen {
    /// Of a word of the command line.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self::Off);
        }
        let address = text.parse().map(Self::At);
        address.map_err(|error| format!("{error}; give an address and a port, e.g. 127.0.0.1:9443, or none"))
    }

    /// The address, if there is one.
    pub(crate) fn address(self) -> Option<SocketAddr> {
        match self {
            Self::Off => None,
            Self::At(address) => Some(address),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_served_at_an_address_or_nowhere() {
        assert_eq!(MetricsListen::parse("none").unwrap().address(), None);
        let at = MetricsListen::parse("[::1]:9443").unwrap().address().unwrap();
        assert_eq!((at.port(), at.is_ipv6()), (9443, true));
        for wrong in ["", "9443", "localhost:9443", "off"] {
            assert!(
                MetricsListen::parse(wrong).unwrap_err().contains("or none"),
                "{wrong}"
            );
        }
    }
}
