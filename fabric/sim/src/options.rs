//! How fast the simulated world is, and how bad.

use std::{ops::RangeInclusive, time::Duration};

use base_env::Seed;
use fabric_api::{StampNetwork, Uplink};

/// A delay, drawn evenly from a range.
pub type Span = RangeInclusive<Duration>;

/// How fast the simulated world is, and how bad.
#[derive(Debug, Clone)]
pub struct SimOptions {
    /// The stamp's network.
    pub network: StampNetwork,
    /// How long the fabric takes to make, stop or delete a machine.
    pub fabric: Span,
    /// From a machine's start to its agent's first report.
    pub boot: Span,
    /// From a published configuration to its being in force.
    pub config: Span,
    /// From a control plane's configuration being in force to its API being ready.
    pub api_ready: Span,
    /// From a node's configuration being in force to its processes being ready. The node object appears at once if the API is ready.
    pub node_ready: Span,
    /// How long a cluster's API takes to answer.
    pub api: Span,
    /// How long a node takes to be rid of its pods.
    pub drain: Span,
    /// From the loss of a machine to its node being seen as not ready.
    pub node_lost: Span,
    /// Whether a cluster whose control plane machines are all gone comes back from its backup when there is one again.
    pub backup: bool,
    /// How many pods each node has, to be drained.
    pub pods: u32,
    /// The part of all calls that fail, `0.0..=1.0`: half of them before they do anything, half after.
    pub failure_rate: f64,
}

impl Default for SimOptions {
    /// About as fast as the container driver on a laptop; nothing fails.
    fn default() -> Self {
        Self {
            network: StampNetwork {
                range: "100.64.0.0/20".parse().expect("a constant that parses"),
                uplink: Uplink::None,
            },
            fabric: millis(50, 150),
            boot: millis(50, 200),
            config: millis(10, 50),
            api_ready: millis(3000, 3600),
            node_ready: millis(1100, 1300),
            api: millis(1, 8),
            drain: millis(500, 2000),
            node_lost: millis(40_000, 45_000),
            backup: false,
            pods: 2,
            failure_rate: 0.0,
        }
    }
}

impl SimOptions {
    /// Everything happens at once: for tests that are not about time.
    pub fn instant() -> Self {
        let none = millis(0, 0);
        Self {
            fabric: none.clone(),
            boot: none.clone(),
            config: none.clone(),
            api_ready: none.clone(),
            node_ready: none.clone(),
            api: none.clone(),
            drain: none.clone(),
            node_lost: none,
            ..Self::default()
        }
    }
}

fn millis(from: u64, to: u64) -> Span {
    Duration::from_millis(from)..=Duration::from_millis(to)
}

/// The `index`-th delay of this node of the seed's tree.
pub(crate) fn draw(span: &Span, seed: Seed, index: u64) -> Duration {
    let width = span.end().saturating_sub(*span.start());
    *span.start() + width.mul_f64(seed.fraction(index))
}

impl crate::Inner {
    /// How long a cluster's API takes this time.
    pub(crate) fn draw_api(&self, call: crate::Call) -> Duration {
        let calls = self.state().faults.tally(call).calls;
        draw(
            &self.options.api,
            self.env.seed.child("api").child(call.name()),
            calls,
        )
    }
}
