//! What a plan does to the world: on two levels, one module for each thing that is acted on. The modules of the same names in
//! `control/loops` say how each effect is carried out, what it costs, and what is learnt from its end.
//!
//! Always true: an effect is repeatable and names what it concerns; each module's matches name every effect of it, so that a
//! new one does not compile before all of that is decided. One that disturbs a machine names it by a [`crate::Permit`].

mod api;
mod config;
mod credentials;
mod fabric;
mod subject;

pub use api::ApiEffect;
pub use config::ConfigEffect;
pub use credentials::{CredentialsWish, TrustedGrant};
pub use fabric::FabricEffect;
pub use subject::Subject;

/// Something done to the world. Repeatable, and named by what it concerns.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// To machines and networks.
    Fabric(FabricEffect),
    /// To what a machine is configured with.
    Config(ConfigEffect),
    /// To the cluster, by way of its API.
    Api(ApiEffect),
}

impl Effect {
    /// The names of all effects, as [`Self::name`] gives them.
    pub fn names() -> impl Iterator<Item = &'static str> {
        let own = FabricEffect::NAMES.into_iter().chain(ConfigEffect::NAMES);
        own.chain(ApiEffect::NAMES)
    }

    /// Its name where effects are counted: that of its module, and its own.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Fabric(effect) => effect.name(),
            Self::Config(effect) => effect.name(),
            Self::Api(effect) => effect.name(),
        }
    }

    /// What it concerns.
    pub fn subject(&self) -> Subject {
        match self {
            Self::Fabric(effect) => effect.subject(),
            Self::Config(effect) => effect.subject(),
            Self::Api(effect) => effect.subject(),
        }
    }
}

impl From<FabricEffect> for Effect {
    fn from(effect: FabricEffect) -> Self {
        Self::Fabric(effect)
    }
}

impl From<ConfigEffect> for Effect {
    fn from(effect: ConfigEffect) -> Self {
        Self::Config(effect)
    }
}

impl From<ApiEffect> for Effect {
    fn from(effect: ApiEffect) -> Self {
        Self::Api(effect)
    }
}
