//! Fuzzing: invalid requests to the whole service in one process, with checks of every response.
//!
//! Requests are made from the offered routes, property tables and Graph's collections and from earlier
//! responses, and then mutated: body, path, query, headers ([`requests`], [`bodies`]). While they are sent,
//! the service does no background work, so that all writes are caused by requests; between rounds it works
//! until it is settled, so that requests meet clusters in every state.
//!
//! Always true: the same seed sends the same requests; a whole epoch (a separate stamp) is repeated by its
//! number alone. Called by: its test, with a few requests on every change, and `cargo xtask fuzz`.

mod bodies;
mod dice;
mod requests;

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result};
use axum::body::to_bytes;
use base_env::Seed;
use control_records::access;
use control_store::{Change, Changes, Op, Store as _, Txn};
use fabric_sim::SimOptions;
use futures::{FutureExt as _, StreamExt as _};
use serde::Serialize;
use serde_json::Value;

use self::{
    dice::Dice,
    requests::{Bearers, Sent, Shaker},
};
use crate::{config, login, panics, run, stamp::Stamp};

/// Requests that are sent to one stamp before a new one takes its place.
pub const EPOCH: u64 = 2_000;
/// Requests between two rounds of background work.
const ROUND: u64 = 250;
/// How long that lasts at most, in virtual time.
const SETTLING: Duration = Duration::from_secs(60 * 60);

/// The result of an epoch.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Ended {
    /// Requests that were sent.
    pub requests: u64,
    /// How often each status was answered.
    pub statuses: BTreeMap<u16, u64>,
    /// The number of successful requests of each operation.
    pub operations: BTreeMap<&'static str, u64>,
    /// Failed checks, each with the request.
    pub problems: Vec<String>,
}

impl Ended {
    /// Both.
    pub fn add(&mut self, other: Self) {
        self.requests += other.requests;
        for (status, count) in other.statuses {
            *self.statuses.entry(status).or_default() += count;
        }
        for (operation, count) in other.operations {
            *self.operations.entry(operation).or_default() += count;
        }
        self.problems.extend(other.problems);
    }
}

/// Plays an epoch of so many requests.
///
/// # Errors
/// When the stamp itself fails, or a task loops without waiting.
pub fn play(seed: u64, epoch: u64, requests: u64) -> Result<Ended> {
    run(async || {
        panics::watch();
        let mut stamp = Stamp::new(seed.wrapping_add(epoch), SimOptions::default()).await?;
        let dice = Dice::new(Seed::new(seed).child("fuzz").child(&epoch.to_string()));
        stamp.start_with(false)?;
        let mut shaker = Shaker::new(dice, stamp.routes());
        let mut ended = Ended::default();
        let mut news = stamp.disk.news().await?;
        while ended.requests < requests {
            if ended.requests % ROUND == ROUND - 1 {
                settle(&mut stamp).await?;
                news = stamp.disk.news().await?;
            }
            let sent = shaker.next(bearers(&stamp)?);
            ended.requests += 1;
            let answer = ask(&stamp, &mut news, &sent, &mut ended).await?;
            if let Some((status, body)) = answer {
                shaker.learn(&sent, status, &body);
            }
        }
        stamp.kill().await?;
        Ok(ended)
    })
}

fn bearers(stamp: &Stamp) -> Result<Bearers> {
    let now = stamp.env.clock.now();
    Ok(Bearers {
        arm: login::bearer(now)?,
        graph: login::bearer_for(now, config::GRAPH)?,
    })
}

/// Sends a request, and checks the response and the writes. Gives the status and the JSON of the response.
async fn ask(
    stamp: &Stamp,
    news: &mut Changes,
    sent: &Sent,
    ended: &mut Ended,
) -> Result<Option<(u16, Value)>> {
    let Some(request) = sent.request() else {
        // HTTP itself does not permit it.
        return Ok(None);
    };
    let answer = stamp.send(request).await?.context("no service runs")?;
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    let bytes = to_bytes(answer.into_body(), usize::MAX).await?;
    let plain = !headers.contains_key("content-encoding");
    let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    *ended.statuses.entry(status).or_default() += 1;
    let mut wrong = Vec::new();
    if matches!(status, 500 | 502 | 503 | 504) {
        wrong.push("the service fails".to_owned());
    }
    if !headers.contains_key("x-ms-request-id") {
        wrong.push("the answer has no request id".to_owned());
    }
    let json = headers.get("content-type");
    let json = json.is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    if plain && json && !bytes.is_empty() && body.is_null() {
        wrong.push("the answer is no JSON".to_owned());
    }
    // Errors of the token service and of Graph have other forms.
    let told = |code: &Value| code.as_str().is_some_and(|code| !code.is_empty());
    let named = told(&body["error"]["code"]) && told(&body["error"]["message"]) || told(&body["error"]);
    if plain && json && status >= 400 && !bytes.is_empty() && !named {
        wrong.push("the error has no code".to_owned());
    }
    let mut written = Vec::new();
    while let Some(Some(change)) = news.next().now_or_never() {
        let Change { key, .. } = change?;
        // The activity log keeps refusals as well.
        if !key.starts_with("/activity/") {
            written.push(key);
        }
    }
    if status >= 400 && !written.is_empty() {
        wrong.push(format!("it is refused and writes {written:?}"));
    }
    if matches!(sent.method.as_str(), "GET" | "HEAD" | "OPTIONS") && !written.is_empty() {
        wrong.push(format!("it asks and writes {written:?}"));
    }
    wrong.extend(
        panics::take()
            .into_iter()
            .map(|panic| format!("a panic: {panic}")),
    );
    if status < 300
        && let Some(operation) = sent.operation
    {
        *ended.operations.entry(operation).or_default() += 1;
    }
    for wrong in wrong {
        let text: String = String::from_utf8_lossy(&bytes).chars().take(600).collect();
        ended.problems.push(format!("{wrong}\n{sent}\n{status} {text}"));
    }
    Ok(Some((status, body)))
}

/// Runs background work until it is settled, or for a while; removes obstacles to all further requests.
async fn settle(stamp: &mut Stamp) -> Result<()> {
    stamp.stop().await?;
    unlock(stamp).await?;
    stamp.start()?;
    // Work that requests keep from settling is no fault: requests are to meet that, too.
    drop(stamp.settle(SETTLING).await?);
    stamp.stop().await?;
    stamp.start_with(false)
}

async fn unlock(stamp: &Stamp) -> Result<()> {
    let (locks, _) = stamp.disk.list(access::LOCKS).await?;
    for (key, _) in locks {
        stamp.disk.write(Txn::default().with(Op::Delete(key))).await?;
    }
    Ok(())
}
