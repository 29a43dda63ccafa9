//! `bench create`: floor and product, round by round in turn, so that both run under the same conditions.
//! Before each, pending writes of the one before are flushed: etcd waits for the disk in either.
#![expect(clippy::print_stdout, reason = "a bench's result is what it prints")]

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result};
use base_env::Env;
use serde_json::json;

use crate::{Create, arm::Stamp, floor::Floor, kube::Milestones};

/// Longer than this is a failure, not a slow round.
const BOUND: Duration = Duration::from_secs(120);

pub(crate) async fn run(options: &Create) -> Result<()> {
    let env = Env::system();
    let clock = Arc::clone(&env.clock);
    let scratch = tempfile::Builder::new().prefix("landfall-bench-").tempdir()?;
    let landfall = options.common.landfall()?;
    let stamp = Stamp::start(&clock, &landfall, scratch.path()).await?;

    let version = options
        .kubernetes
        .clone()
        .unwrap_or_else(|| cluster_versions::Offered::pinned().default_version().to_string());
    let store = image::ImageStore::open(image::cache_dir(None)?)?;
    let image = store
        .find(&version)?
        .with_context(|| format!("there is no node image for {version}"))?;
    let spec = crate::floor::spec(&version)?;

    let (mut floor, mut product) = (Vec::new(), Vec::new());
    for round in 1..=options.rounds {
        nix::unistd::sync();
        let mut bare = Floor::prepare(&env, &spec, &image.layers, &scratch.path().join("floor"))?;
        let seen = bare.round(&clock, BOUND).await?;
        drop(bare);
        println!("round {round}  floor    {}", words(&seen));
        floor.push(seen);

        let name = format!("round{round}");
        nix::unistd::sync();
        let seen = stamp.create(&clock, &name, &version, BOUND).await;
        if seen.is_err() {
            println!("the stamp says: {}", stamp.status()?);
        }
        let seen = seen?;
        println!("round {round}  product  {}", words(&seen));
        product.push(seen);
        stamp.delete_named(&clock, &name).await?;
    }

    let (floor, product) = (Milestones::median(&floor), Milestones::median(&product));
    let ratio = product.divided_by(&floor);
    println!("median   floor    {}", words(&floor));
    println!("median   product  {}", words(&product));
    println!(
        "ratio             API ready {:5.2}    node Ready {:5.2}    pod running {:5.2}",
        ratio.api_ready_s, ratio.node_ready_s, ratio.pod_running_s
    );
    if options.common.json {
        println!(
            "{}",
            json!({ "floor": floor.rounded(), "product": product.rounded(), "ratio": ratio.rounded() })
        );
    }
    Ok(())
}

fn words(seen: &Milestones) -> String {
    format!(
        "API ready {:5.2} s  node Ready {:5.2} s  pod running {:5.2} s",
        seen.api_ready_s, seen.node_ready_s, seen.pod_running_s
    )
}
