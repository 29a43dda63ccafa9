//! What scripts do with channels, maintenance windows and an operator who holds planned work up.

use anyhow::{Context as _, Result, ensure};
use control_records::{
    ObservedRecord, key,
    planned::{HOLD, HoldRecord, Paused, WaitingRecord, waiting_key},
};
use control_store::{Txn, put_record};
use serde_json::{Value, json};

use crate::{
    script::Player,
    stamp::Answer,
    wishes::{Wish, path},
};

impl Player {
    /// The PUT of a cluster with another upgrade channel.
    pub(crate) async fn channel(&mut self, name: &str, channel: &str) -> Result<()> {
        let change = |body: &mut Value| {
            body["properties"]["autoUpgradeProfile"]["upgradeChannel"] = json!(channel);
        };
        let answer = self.stamp.put_again(name, change).await?;
        self.answered(&answer);
        Ok(())
    }

    /// The PUT of a maintenance configuration with a window each week.
    pub(crate) async fn window(
        &mut self,
        name: &str,
        configuration: &str,
        [day, time, hours]: [&str; 3],
    ) -> Result<()> {
        let hours: u8 = hours.parse()?;
        let schedule = json!({ "weekly": { "intervalWeeks": 1, "dayOfWeek": day } });
        let window = json!({ "schedule": schedule, "startTime": time, "durationHours": hours });
        let body = json!({ "properties": { "maintenanceWindow": window } });
        let path = path(name, &format!("/maintenanceConfigurations/{configuration}"));
        let answer = self.stamp.arm("PUT", &path, Some(body)).await?;
        self.answered(&answer);
        Ok(())
    }

    pub(crate) fn answered(&mut self, answer: &Answer) {
        let text = match answer.status {
            0 => "no answer".to_owned(),
            status if answer.accepted() => status.to_string(),
            status => format!("{status} {}", answer.error()),
        };
        self.say(&text);
    }

    /// An operator holds planned work up, or lets it go on.
    pub(crate) async fn hold(&mut self, reason: Option<&str>) -> Result<()> {
        let paused = reason.map(|reason| Paused {
            at: self.stamp.env.clock.now(),
            by: "operator".to_owned(),
            reason: reason.to_owned(),
        });
        let record = HoldRecord { v: 1, paused };
        let txn = Txn::default().with(put_record(HOLD, &record));
        self.stamp.disk.write(txn).await?;
        Ok(())
    }

    /// Prints what planned work of a cluster waits for.
    pub(crate) async fn waits(&mut self, name: &str) -> Result<()> {
        let cluster = self
            .stamp
            .cluster(name)
            .await?
            .context("there is no such cluster")?;
        let upgrade = self
            .stamp
            .record::<WaitingRecord>(&waiting_key(&cluster.uid))
            .await?;
        let observed = self
            .stamp
            .record::<ObservedRecord>(&key::observed(&cluster.uid))
            .await?;
        let release = observed.and_then(|observed| observed.release_waits);
        let all = upgrade.map(|found| found.waiting).into_iter().chain(release);
        let lines: Vec<String> = all.map(|waiting| waiting.sentence()).collect();
        if lines.is_empty() {
            self.say("nothing waits");
        }
        for line in lines {
            self.say(&line);
        }
        Ok(())
    }

    /// The service has asked for another version by itself: that is what is to be from now on.
    pub(crate) async fn upgraded(&mut self, name: &str, version: &str) -> Result<()> {
        let cluster = self
            .stamp
            .cluster(name)
            .await?
            .context("there is no such cluster")?;
        let wanted = &cluster.spec().kubernetes_version;
        ensure!(wanted == version, "{name} is to have {wanted}");
        let wish = Wish::Upgrade {
            cluster: name.to_owned(),
            version: version.to_owned(),
            only: None,
        };
        let answer = Answer {
            status: 200,
            body: Value::Null,
        };
        self.asked.heard(&wish, &answer);
        self.say(&format!(
            "asked for by {} at {}",
            cluster.modified_by, cluster.modified_at
        ));
        Ok(())
    }
}
