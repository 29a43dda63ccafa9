//! What scripts ask about the support of clusters, and what they do with the subscription.

use std::time::Duration;

use anyhow::{Context as _, Result};
use control_records::{SubscriptionRecord, SubscriptionState, key};
use control_store::{Txn, put_record};
use serde_json::Value;

use crate::{script::Player, stamp::SUBSCRIPTION};

impl Player {
    /// Prints the state of support of a cluster by a profile, so many days from now with the facts of now.
    pub(crate) async fn support(&mut self, name: &str, profile: &str, days: &str) -> Result<()> {
        let days: u64 = days.parse()?;
        let wait = Duration::from_secs(days * 24 * 60 * 60);
        let at = self.stamp.env.clock.now().checked_add(wait)?;
        let group = self
            .stamp
            .cluster(name)
            .await?
            .context("there is no such cluster")?
            .resource_group;
        let path = format!(
            "resourceGroups/{group}/providers/Landfall.ContainerService/managedClusters/{name}/supportState?profile={profile}&at={at}"
        );
        let answer = self.stamp.arm("GET", &path, None).await?;
        if !answer.accepted() {
            self.say(&format!("{} {}", answer.status, answer.error()));
            return Ok(());
        }
        let told = answer.body;
        let text = |value: &Value, key: &str| value[key].as_str().unwrap_or("-").to_owned();
        self.say(&format!(
            "{} at {}, until {}",
            text(&told, "state"),
            text(&told, "at"),
            text(&told, "until")
        ));
        for area in told["areas"].as_array().into_iter().flatten() {
            if area["state"] != told["state"] {
                self.say(&format!("  {}: {}", text(area, "area"), text(area, "state")));
            }
        }
        for reason in told["reasons"].as_array().into_iter().flatten() {
            self.say(&format!(
                "  {} {}, by {}: {}",
                text(reason, "rule"),
                text(reason, "state"),
                text(reason, "by"),
                self.stamp.trace.told(&text(reason, "message"))
            ));
        }
        Ok(())
    }

    /// An operator disables the subscription, or enables it.
    pub(crate) async fn subscription(&mut self, disabled: bool) -> Result<()> {
        let own = key::subscription(SUBSCRIPTION);
        let record = self.stamp.record::<SubscriptionRecord>(&own).await?;
        let mut record = record.context("there is no subscription")?;
        record.state = if disabled {
            SubscriptionState::Disabled
        } else {
            SubscriptionState::Enabled
        };
        record.state_since = Some(self.stamp.env.clock.now());
        let txn = Txn::default().with(put_record(own, &record));
        self.stamp.disk.write(txn).await?;
        Ok(())
    }
}
