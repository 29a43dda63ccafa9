//! The backups of the world's clusters: their content over time. Kept only if [`crate::SimOptions::backup`]
//! is set: a world of thousands of clusters would not fit into memory.

use std::{collections::BTreeMap, sync::Arc};

use base_env::Clock;
use serde_json::Value;

use crate::node::Node;

/// The content of a cluster at some time.
#[derive(Clone, Default)]
pub(crate) struct Kept {
    pub(crate) nodes: BTreeMap<String, Node>,
    pub(crate) objects: BTreeMap<String, Value>,
}

/// See the module.
pub(crate) struct Past {
    clock: Arc<dyn Clock>,
    /// States by the time of their beginning, milliseconds since 1970.
    states: BTreeMap<i64, Kept>,
}

impl Past {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            states: BTreeMap::new(),
        }
    }

    pub(crate) fn keep(&mut self, nodes: &BTreeMap<String, Node>, objects: &BTreeMap<String, Value>) {
        let kept = Kept {
            nodes: nodes.clone(),
            objects: objects.clone(),
        };
        self.states.insert(self.clock.now().as_millisecond(), kept);
    }

    /// The first moment that can be restored, milliseconds since 1970.
    pub(crate) fn since(&self) -> Option<i64> {
        self.states.keys().next().copied()
    }

    /// The state at the end of that second; `None`: the newest.
    pub(crate) fn at(&self, moment: Option<i64>) -> Option<&Kept> {
        let end = moment.map_or(i64::MAX, |moment| moment.div_euclid(1000) * 1000 + 999);
        self.states.range(..=end).next_back().map(|(_, kept)| kept)
    }
}
