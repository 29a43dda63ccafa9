//! What scripts do with budgets of requests.

use anyhow::{Context as _, Result, bail};
use arm_edge::{Budget, Budgets};

use crate::script::Player;

/// The budgets of a script's words; the other kinds of requests are not counted.
pub(crate) fn of(words: &[&str]) -> Result<Budgets> {
    let mut budgets = Budgets::OFF;
    for word in words {
        let (kind, figures) = word.split_once('=').context("a word without '='")?;
        let (size, refill) = figures.split_once('+').context("a budget without '+'")?;
        let budget = Budget::new(size.parse()?, refill.parse()?);
        let budget = Some(budget.context("a budget that nobody can have")?);
        match kind {
            "reads" => budgets.reads = budget,
            "writes" => budgets.writes = budget,
            "deletes" => budgets.deletes = budget,
            _ => bail!("there is no such kind of requests"),
        }
    }
    Ok(budgets)
}

impl Player {
    /// GETs of a cluster, one after the other without a wait; prints how many were served, and what the first
    /// of the others was told.
    pub(crate) async fn reads(&mut self, name: &str, count: u32) -> Result<()> {
        let (mut served, mut told) = (0, None);
        for _ in 0..count {
            let answer = self.stamp.show(name).await?;
            match answer.status {
                200 => served += 1,
                429 => {
                    told.get_or_insert(answer.error());
                }
                _ => bail!("{}: {}", answer.status, answer.error()),
            }
        }
        self.say(&format!("{served} served, {} refused", count - served));
        if let Some(told) = told {
            // Without the ids of subscription and principal.
            let (code, _) = told.split_once(": ").context("no code")?;
            let (_, wait) = told.split_once("exceeded. ").context("no wait")?;
            self.say(&format!("  {code}: {wait}"));
        }
        Ok(())
    }
}
