//! What scripts ask about the support of clusters, and what they do with the subscription.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use control_records::{
    EventKind, SubscriptionRecord, SubscriptionState,
    deadlines::{AtDeadline, POLICY, PolicyRecord},
    events, key,
};
use control_store::{Txn, put_record};
use serde_json::{Value, json};

use crate::{
    script::Player,
    stamp::{Answer, SUBSCRIPTION},
    wishes::Wish,
};

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

    /// An operator has deadlines act, or only told.
    pub(crate) async fn deadlines(&mut self, act: bool) -> Result<()> {
        let record = PolicyRecord {
            v: 1,
            deadlines: if act { AtDeadline::Act } else { AtDeadline::Tell },
            at: self.stamp.env.clock.now(),
            by: "operator".to_owned(),
        };
        let txn = Txn::default().with(put_record(POLICY, &record));
        self.stamp.disk.write(txn).await?;
        Ok(())
    }

    /// Prints what was told of a cluster's deadlines.
    pub(crate) async fn told(&mut self, name: &str) -> Result<()> {
        let cluster = self.stamp.cluster(name).await?;
        let uid = cluster.context("there is no such cluster")?.uid;
        let now = self.stamp.env.clock.now();
        let history = events::history(&*self.stamp.disk, &uid, now).await?;
        let own = history.into_iter().map(|(_, event)| event);
        let own: Vec<_> = own
            .filter(|event| event.event.kind == EventKind::Deadline)
            .collect();
        if own.is_empty() {
            self.say("nothing was told");
        }
        for event in own {
            let line = format!("{} {}", event.at, self.stamp.trace.told(&event.event.message));
            self.say(&line);
        }
        Ok(())
    }

    /// The service has stopped a cluster by a deadline: that is what is to be from now on.
    pub(crate) async fn by_policy(&mut self, name: &str) -> Result<()> {
        let cluster = self.stamp.cluster(name).await?;
        let cluster = cluster.context("there is no such cluster")?;
        ensure!(cluster.spec().stopped, "{name} is not to be stopped");
        ensure!(
            cluster.modified_by == "Landfall",
            "it was {}",
            cluster.modified_by
        );
        self.heard_of(name, 200);
        self.say(&format!(
            "stopped by {} at {}",
            cluster.modified_by, cluster.modified_at
        ));
        Ok(())
    }

    /// Asks for the archive of a cluster.
    pub(crate) async fn archive(&mut self, name: &str) -> Result<()> {
        let cluster = self.stamp.cluster(name).await?;
        let group = cluster.context("there is no such cluster")?.resource_group;
        let path = format!(
            "resourceGroups/{group}/providers/Landfall.ContainerService/managedClusters/{name}/archives/default/take"
        );
        let answer = self.stamp.arm("POST", &path, Some(json!({}))).await?;
        if answer.accepted() {
            self.heard_of(name, answer.status);
        }
        self.answered(&answer);
        Ok(())
    }

    /// The cluster is to be stopped from now on.
    fn heard_of(&mut self, name: &str, status: u16) {
        let wish = Wish::Power {
            cluster: name.to_owned(),
            stopped: true,
        };
        let answer = Answer {
            status,
            body: Value::Null,
        };
        self.asked.heard(&wish, &answer);
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
