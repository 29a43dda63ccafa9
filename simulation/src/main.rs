//! `simulation chaos|cases|fuzz|play|years`: what `cargo xtask chaos` and `cargo xtask fuzz` run.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a tool for developers; it has no printer"
)]

use std::{
    path::PathBuf,
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::{Context as _, Result, bail};
use clap::{Parser, Subcommand};
use serde_json::json;
use simulation::{cases, chaos, fuzz, years};

/// The whole control plane in one process, in virtual time.
#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Random requests, faults, deaths and broken machines; then everything must become as it has to be
    Chaos(Chaos),
    /// Every operation × every step × every fault
    Cases {
        /// Only cases whose line contains this
        #[arg(long)]
        only: Option<String>,
        /// Only one in so many
        #[arg(long, default_value_t = 1)]
        every: usize,
        /// Threads
        #[arg(long, default_value_t = 2)]
        jobs: usize,
        /// One JSON object as the last line
        #[arg(long)]
        json: bool,
    },
    /// Requests that nobody should send, at a stamp of which nothing acts meanwhile
    Fuzz(Fuzz),
    /// Two years of clusters in all states with random acts: every deadline of the support policies is told and met, nothing is taken wrongly
    Years {
        /// How many clusters
        #[arg(long, default_value_t = 1000)]
        clusters: u64,
        /// The seed
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// One JSON object as the last line
        #[arg(long)]
        json: bool,
    },
    /// Play a script and print its transcript
    Play {
        /// The script
        script: PathBuf,
        /// The seed
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
}

#[derive(clap::Args)]
struct Chaos {
    /// How many seeds
    #[arg(long, default_value_t = 200)]
    seeds: u64,
    /// The first of them
    #[arg(long, default_value_t = 1)]
    start: u64,
    /// Only this one, with all it has to tell
    #[arg(long, conflicts_with_all = ["seeds", "start"])]
    seed: Option<u64>,
    /// Threads
    #[arg(long, default_value_t = 2)]
    jobs: u64,
    /// One JSON object as the last line
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
struct Fuzz {
    /// How many requests
    #[arg(long, default_value_t = 1_000_000)]
    requests: u64,
    /// The seed
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only this epoch of it
    #[arg(long)]
    epoch: Option<u64>,
    /// Threads
    #[arg(long, default_value_t = 2)]
    jobs: u64,
    /// One JSON object as the last line
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let outcome = match Args::parse().task {
        Task::Chaos(options) => play_chaos(&options),
        Task::Cases {
            only,
            every,
            jobs,
            json,
        } => play_cases(only.as_deref(), every, jobs, json),
        Task::Fuzz(options) => play_fuzz(&options),
        Task::Years { clusters, seed, json } => play_years(clusters, seed, json),
        Task::Play { script, seed } => play(&script, seed),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn play_years(clusters: u64, seed: u64, json: bool) -> Result<()> {
    let outcome = years::play(seed, clusters)?;
    if json {
        println!(
            "{}",
            json!({
                "clusters": outcome.clusters, "notices": outcome.notices, "stops": outcome.stops,
                "archives": outcome.archives, "deletions": outcome.deletions, "onTime": outcome.on_time,
            })
        );
    } else {
        println!(
            "{} clusters, {} notices; {} stops, {} archives and {} deletions, {} of them in the minute of their rule, the others later by their notices; none wrong",
            outcome.clusters,
            outcome.notices,
            outcome.stops,
            outcome.archives,
            outcome.deletions,
            outcome.on_time
        );
    }
    Ok(())
}

fn play_chaos(options: &Chaos) -> Result<()> {
    let (start, end) = match options.seed {
        Some(seed) => (seed, seed + 1),
        None => (options.start, options.start + options.seeds),
    };
    // A run of a single seed shows its whole trace.
    let tail = options.seed.map_or(chaos::TAIL, |_| usize::MAX);
    let (next, events, failed) = (AtomicU64::new(start), AtomicU64::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..options.jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    if (seed - start) % 1000 == 999 {
                        println!("{} seeds", seed - start + 1);
                    }
                    let problems = match chaos::play(seed, tail) {
                        Ok(ended) => {
                            events.fetch_add(ended.events, Ordering::Relaxed);
                            if ended.problems.is_empty() && options.seed.is_none() {
                                continue;
                            }
                            println!("seed {seed}: {} events, {:.0} s", ended.events, ended.seconds);
                            for line in &ended.tail {
                                println!("  {line}");
                            }
                            ended.problems
                        }
                        Err(error) => vec![format!("{error:#}")],
                    };
                    if problems.is_empty() {
                        continue;
                    }
                    for problem in &problems {
                        println!("  {problem}");
                    }
                    println!("reproduce: cargo xtask chaos --seed {seed}");
                    failed.lock().unwrap_or_else(PoisonError::into_inner).push(seed);
                }
            });
        }
    });
    let mut failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    failed.sort_unstable();
    let (seeds, events) = (end - start, events.into_inner());
    if options.json {
        println!(
            "{}",
            json!({ "seeds": seeds, "events": events, "failed": failed })
        );
    } else {
        println!("{seeds} seeds, {events} events, {} failed", failed.len());
    }
    if !failed.is_empty() {
        bail!("{} of {seeds} seeds failed: {failed:?}", failed.len());
    }
    Ok(())
}

fn play_cases(only: Option<&str>, every: usize, jobs: usize, json: bool) -> Result<()> {
    let mut chosen = cases::all()?;
    let total = chosen.len();
    chosen.retain(|case| only.is_none_or(|only| case.to_string().contains(only)));
    let chosen: Vec<_> = chosen.into_iter().step_by(every.max(1)).collect();
    let outcome = cases::play_all(&chosen, jobs)?;
    for (operation, count) in &outcome.played {
        println!("{operation:28} {count:6} cases");
    }
    for failure in &outcome.failures {
        println!("FAILED {}\n{}", failure.case, failure.why);
        println!("reproduce: cargo xtask chaos --cases --only '{}'", failure.case);
    }
    if json {
        let failed: Vec<_> = outcome
            .failures
            .iter()
            .map(|failure| failure.case.to_string())
            .collect();
        println!("{}", json!({ "cases": chosen.len(), "failed": failed }));
    } else {
        println!(
            "{} of {total} cases, {} failed",
            chosen.len(),
            outcome.failures.len()
        );
    }
    if !outcome.failures.is_empty() {
        bail!("{} cases failed", outcome.failures.len());
    }
    Ok(())
}

fn play_fuzz(options: &Fuzz) -> Result<()> {
    let (start, end) = match options.epoch {
        Some(epoch) => (epoch, epoch + 1),
        None => (0, options.requests.div_ceil(fuzz::EPOCH)),
    };
    let (next, all) = (AtomicU64::new(start), Mutex::new(fuzz::Ended::default()));
    std::thread::scope(|scope| {
        for _ in 0..options.jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let epoch = next.fetch_add(1, Ordering::Relaxed);
                    if epoch >= end {
                        return;
                    }
                    let left = options.requests.saturating_sub(epoch.saturating_mul(fuzz::EPOCH));
                    let requests = match options.epoch {
                        Some(_) => fuzz::EPOCH,
                        None => left.min(fuzz::EPOCH),
                    };
                    let ended =
                        fuzz::play(options.seed, epoch, requests).unwrap_or_else(|error| fuzz::Ended {
                            problems: vec![format!("{error:#}")],
                            ..fuzz::Ended::default()
                        });
                    for problem in &ended.problems {
                        println!("{problem}");
                        println!(
                            "reproduce: cargo xtask fuzz --seed {} --epoch {epoch}\n",
                            options.seed
                        );
                    }
                    let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
                    let before = all.requests / 100_000;
                    all.add(ended);
                    if all.requests / 100_000 > before {
                        println!("{} requests", all.requests);
                    }
                }
            });
        }
    });
    let all = all.into_inner().unwrap_or_else(PoisonError::into_inner);
    let (requests, problems) = (all.requests, all.problems.len());
    if options.json {
        println!(
            "{}",
            json!({ "requests": requests, "statuses": all.statuses, "operations": all.operations, "problems": problems })
        );
    } else {
        println!(
            "{requests} requests, {problems} problems; answered {:?}",
            all.statuses
        );
        println!("{} operations were asked for with success", all.operations.len());
    }
    if problems > 0 {
        bail!("{problems} of {requests} requests were answered wrongly");
    }
    Ok(())
}

fn play(script: &std::path::Path, seed: u64) -> Result<()> {
    let text =
        std::fs::read_to_string(script).with_context(|| format!("cannot read {}", script.display()))?;
    let (transcript, hash) =
        simulation::run(async || simulation::script::Player::new(seed).await?.play(&text).await)?;
    print!("{transcript}");
    println!("trace {hash}");
    Ok(())
}
