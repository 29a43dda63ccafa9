//! The effect of a tenant's storm on another: one create beside five hundred of another tenant, in virtual
//! time.
//!
//! The lanes are narrow here, so that the storm lasts long enough to have an effect: a host that can do four
//! things at once.

use std::time::Duration;

use anyhow::Result;
use base_env::Env;
use control_loops::{Limits, Settings};
use fabric_sim::SimOptions;

use crate::stamp::{Disk, SimStamp};

/// Clusters of the storm, all of one subscription.
pub(crate) const STORM: u32 = 500;
/// The storm has run for this long before the other request.
const LEAD: Duration = Duration::from_secs(2);
/// A bound against hanging.
const BOUND: Duration = Duration::from_secs(60 * 60);

/// Virtual times from an accepted request to all of it being there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Storm {
    /// The one cluster without a storm.
    pub(crate) alone: Duration,
    /// The one cluster beside the storm.
    pub(crate) beside: Duration,
    /// The one cluster beside a storm of its own tenant: it waits its turn among them.
    pub(crate) within: Duration,
    /// The storm.
    pub(crate) storm: Duration,
}

/// Measures in a separate runtime.
pub(crate) fn run() -> Result<Storm> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()?;
    runtime.block_on(async {
        let (alone, _) = play(0, STORM).await?;
        let (beside, storm) = play(STORM, STORM).await?;
        let (within, _) = play(STORM, STORM + 1).await?;
        Ok(Storm {
            alone,
            beside,
            within,
            storm,
        })
    })
}

/// How long the one takes beside so many others, and how long they take. A subscription has `tenant` clusters.
async fn play(others: u32, tenant: u32) -> Result<(Duration, Duration)> {
    let env = Env::simulated(1);
    let clock = &env.clock;
    let mut stamp = SimStamp::new(env.clone(), SimOptions::default(), Disk::None)?;
    stamp.tenant = tenant;
    stamp.settings = Settings {
        limits: Limits {
            passes: 16,
            host: 4,
            calls: 16,
        },
        ..Settings::default()
    };
    stamp.start()?;
    let client = stamp.service()?.client();
    client.groups(&env, STORM + 1).await?;
    let began = clock.monotonic();
    for number in 0..others {
        client.create(number, 1).await?;
    }
    clock.sleep(LEAD).await;
    let asked = clock.monotonic();
    client.create(STORM, 1).await?;
    client.reached(&env, STORM..STORM + 1, BOUND).await?;
    let one = clock.monotonic() - asked;
    client.reached(&env, 0..others, BOUND).await?;
    let all = clock.monotonic() - began;
    stamp.stop().await?;
    Ok((one, all))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_of_one_tenant_does_not_delay_the_single_create_of_another() {
        let seen = run().unwrap();
        assert!(
            seen.storm > 10 * seen.alone && seen.within > 4 * seen.alone,
            "the storm is too short to have an effect: {seen:?}"
        );
        assert!(
            seen.beside < seen.alone * 3 / 2,
            "it waited for the storm: {seen:?}"
        );
    }
}
