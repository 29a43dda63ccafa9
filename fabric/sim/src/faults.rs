//! Failures, requested by a test or drawn from the seed, and the count of all calls.

use std::{collections::BTreeMap, fmt, str::FromStr};

use base_env::Seed;

/// The fate of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It works.
    Works,
    /// It fails without effect.
    Fails,
    /// It has its effect and fails all the same.
    LosesAnswer,
}

macro_rules! calls {
    ($($(#[$doc:meta])* $name:ident = $text:literal),+ $(,)?) => {
        /// A kind of call into the world.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Call {
            $($(#[$doc])* $name,)+
        }

        impl Call {
            /// All kinds.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// Its name in scripts and transcripts, e.g. `ensure-machine`.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }
        }
    };
}

calls! {
    /// [`fabric_api::Fabric::ensure_stamp`]
    EnsureStamp = "ensure-stamp",
    /// [`fabric_api::Fabric::stop_stamp`]
    StopStamp = "stop-stamp",
    /// [`fabric_api::Fabric::delete_stamp`]
    DeleteStamp = "delete-stamp",
    /// [`fabric_api::Fabric::ensure_network`]
    EnsureNetwork = "ensure-network",
    /// [`fabric_api::Fabric::delete_network`]
    DeleteNetwork = "delete-network",
    /// [`fabric_api::Fabric::ensure_image`]
    EnsureImage = "ensure-image",
    /// [`fabric_api::Fabric::ensure_addon_image`]
    EnsureAddonImage = "ensure-addon-image",
    /// [`fabric_api::Fabric::ensure_machine`]
    EnsureMachine = "ensure-machine",
    /// [`fabric_api::Fabric::stop_machine`]
    StopMachine = "stop-machine",
    /// [`fabric_api::Fabric::delete_machine`]
    DeleteMachine = "delete-machine",
    /// [`fabric_api::Fabric::reset_machine`]
    ResetMachine = "reset-machine",
    /// [`fabric_api::Fabric::delete_kept_disk`]
    DeleteKeptDisk = "delete-kept-disk",
    /// [`fabric_api::Fabric::ensure_volume`]
    EnsureVolume = "ensure-volume",
    /// [`fabric_api::Fabric::delete_volume`]
    DeleteVolume = "delete-volume",
    /// [`fabric_api::Fabric::attach_volume`]
    AttachVolume = "attach-volume",
    /// [`fabric_api::Fabric::detach_volume`]
    DetachVolume = "detach-volume",
    /// [`fabric_api::Fabric::list`]
    List = "list",
    /// [`agent_api::Agents::logs`]
    Logs = "logs",
    /// [`cluster_api::Connect::connect`]
    Connect = "connect",
    /// [`cluster_api::ClusterApi::ready`]
    Ready = "ready",
    /// [`cluster_api::ClusterApi::nodes`]
    Nodes = "nodes",
    /// [`cluster_api::ClusterApi::set_node`]
    SetNode = "set-node",
    /// [`cluster_api::ClusterApi::approve_serving`]
    ApproveServing = "approve-serving",
    /// [`cluster_api::ClusterApi::apply`]
    Apply = "apply",
    /// [`cluster_api::ClusterApi::replace`]
    Replace = "replace",
    /// [`cluster_api::ClusterApi::drain`]
    Drain = "drain",
    /// [`cluster_api::ClusterApi::delete_node`]
    DeleteNode = "delete-node",
    /// [`cluster_api::ClusterApi::services`]
    Services = "services",
    /// [`cluster_api::ClusterApi::set_service`]
    SetService = "set-service",
    /// [`cluster_api::ClusterApi::volumes`]
    Volumes = "volumes",
    /// [`cluster_api::ClusterApi::set_volume`]
    SetVolume = "set-volume",
    /// [`cluster_api::ClusterApi::delete_objects`]
    DeleteObjects = "delete-objects",
    /// [`cluster_api::ClusterApi::work`]
    Work = "work",
    /// [`cluster_api::ClusterApi::tell_work`]
    TellWork = "tell-work",
    /// [`cluster_api::ClusterApi::set_namespace`]
    SetNamespace = "set-namespace",
    /// [`cluster_api::ClusterApi::command`]
    Command = "command",
    /// [`cluster_api::ClusterApi::end_command`]
    EndCommand = "end-command",
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Call {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .iter()
            .copied()
            .find(|call| call.name() == text)
            .ok_or_else(|| format!("there is no call named {text}"))
    }
}

/// The number of calls of a kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// All calls.
    pub calls: u64,
    /// Those that failed by an injected fault.
    pub failed: u64,
}

#[derive(Default)]
pub(crate) struct Faults {
    before: BTreeMap<Call, u32>,
    after: BTreeMap<Call, u32>,
    tallies: BTreeMap<Call, Tally>,
    /// Number of machine starts that fail.
    pub(crate) boots: u32,
}

impl Faults {
    pub(crate) fn before(&mut self, call: Call, times: u32) {
        *self.before.entry(call).or_default() += times;
    }

    pub(crate) fn after(&mut self, call: Call, times: u32) {
        *self.after.entry(call).or_default() += times;
    }

    /// Drops the requested failures.
    pub(crate) fn forget(&mut self) {
        self.before.clear();
        self.after.clear();
        self.boots = 0;
    }

    /// Counts a call and decides its fate.
    pub(crate) fn judge(&mut self, call: Call, seed: Seed, rate: f64) -> Verdict {
        let tally = self.tallies.entry(call).or_default();
        let chance = seed.child("faults").child(call.name()).fraction(tally.calls);
        tally.calls += 1;
        let verdict = if take(&mut self.before, call) || chance < rate / 2.0 {
            Verdict::Fails
        } else if take(&mut self.after, call) || chance < rate {
            Verdict::LosesAnswer
        } else {
            Verdict::Works
        };
        tally.failed += u64::from(verdict != Verdict::Works);
        verdict
    }

    pub(crate) fn tally(&self, call: Call) -> Tally {
        self.tallies.get(&call).copied().unwrap_or_default()
    }

    pub(crate) fn tallies(&self) -> Vec<(Call, Tally)> {
        let mut all: Vec<_> = self.tallies.iter().map(|(call, tally)| (*call, *tally)).collect();
        all.sort_unstable_by_key(|(call, _)| call.name());
        all
    }
}

fn take(left: &mut BTreeMap<Call, u32>, call: Call) -> bool {
    match left.get_mut(&call) {
        Some(left) if *left > 0 => {
            *left -= 1;
            true
        }
        _ => false,
    }
}
