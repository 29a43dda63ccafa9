//! The speed and the faults of the simulated world.

use std::{ops::RangeInclusive, time::Duration};

use base_env::Seed;
use fabric_api::{StampNetwork, Uplink};

/// A delay, drawn evenly from a range.
pub type Span = RangeInclusive<Duration>;

/// The speed and the faults of the simulated world.
#[derive(Debug, Clone)]
pub struct SimOptions {
    /// The stamp's network.
    pub network: StampNetwork,
    /// The fabric's time to create, stop or delete a machine.
    pub fabric: Span,
    /// The time to build the image of an add-on.
    pub image_build: Duration,
    /// From a machine's start to its agent's first report.
    pub boot: Span,
    /// From the publication of a configuration to its application.
    pub config: Span,
    /// From the application of a control plane's configuration to a ready API.
    pub api_ready: Span,
    /// From the application of a node's configuration to ready processes. The node object appears at once if
    /// the API is ready.
    pub node_ready: Span,
    /// The time of an API call to a cluster.
    pub api: Span,
    /// The time to drain a node.
    pub drain: Span,
    /// From the loss of a machine to the not-ready state of its node.
    pub node_lost: Span,
    /// Whether a cluster that lost all control plane machines is restored from its backup when it gets a new
    /// one.
    pub backup: bool,
    /// The number of pods on each node, to be drained.
    pub pods: u32,
    /// The fraction of calls that fail, `0.0..=1.0`: half of them before they have an effect, half after.
    pub failure_rate: f64,
}

impl Default for SimOptions {
    /// About as fast as the container driver on a laptop; no faults.
    fn default() -> Self {
        Self {
            network: StampNetwork {
                range: "100.64.0.0/20".parse().expect("a constant that parses"),
                uplink: Uplink::None,
            },
            fabric: millis(50, 150),
            image_build: Duration::from_secs(90),
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
    /// Without delays: for tests that are not about time.
    pub fn instant() -> Self {
        let none = millis(0, 0);
        Self {
            fabric: none.clone(),
            image_build: Duration::ZERO,
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
    /// The time of this call to a cluster's API.
    pub(crate) fn draw_api(&self, call: crate::Call) -> Duration {
        let calls = self.state().faults.tally(call).calls;
        draw(
            &self.options.api,
            self.env.seed.child("api").child(call.name()),
            calls,
        )
    }
}
