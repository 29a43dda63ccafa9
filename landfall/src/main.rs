//! The `landfall` binary: only commands, wiring and progress.
//!
//! Always true: only [`printer`] writes to the terminal; every error ends as one sentence and a next step,
//! with exit code 1, 2 for a wrong command line, or 130 after an interruption.

mod addresses;
mod admin;
mod args;
mod arm;
mod background;
mod catalogue;
mod commands;
mod doctor;
mod graph;
mod host;
mod images;
mod limits;
mod log_file;
mod packages;
mod places;
mod printer;
mod problem;
mod quotas;
mod reference;
mod registry;
mod serve;
mod stamp;
mod systemd;

use std::{process::ExitCode, sync::Arc};

use anyhow::{Context as _, Result};
use base_env::Env;
use clap::{CommandFactory as _, Parser as _};
use serde_json::json;

use crate::{
    args::{Cli, Command, Output},
    commands::Context,
    printer::{Level, Printer},
    stamp::Places,
};

/// With many clusters, many small allocations are made and freed at each observation; the system's allocator
/// took a third of the service's CPU time (`cargo xtask bench engine`).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let env = Env::system();
    let level = match (cli.global.quiet, cli.global.verbose) {
        (true, _) => Level::Quiet,
        (_, true) => Level::Verbose,
        _ => Level::Normal,
    };
    let printer = Printer::new(cli.global.output, level, Arc::clone(&env.clock));
    match run(cli, env, &printer) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            printer.problem(&error);
            ExitCode::from(problem::exit_code(&error))
        }
    }
}

fn run(cli: Cli, env: Env, printer: &Printer) -> Result<()> {
    // One cryptographic provider for all TLS in the process. A second call would fail; there is only one.
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("the cryptographic provider is set twice"))?;
    if cli.global.output == Output::Csv && !matches!(cli.command, Command::Usage(_)) {
        let next = "use --output table or --output json";
        return Err(problem::Problem::usage("only landfall usage writes CSV", next).into());
    }
    let context = Context {
        printer: printer.clone(),
        env,
        places: Places::of(&cli.global.name)?,
    };
    if !matches!(
        cli.command,
        Command::Image(_) | Command::Version | Command::Completion { .. } | Command::Reference
    ) {
        background::check_home(&context.places, matches!(cli.command, Command::Down(_)))?;
    }
    if let Command::Serve(args) = &cli.command {
        return serve::run(context, args);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        let work = command(&context, cli.command);
        tokio::select! {
            outcome = work => outcome,
            _ = tokio::signal::ctrl_c() => Err(problem::Problem::interrupted().into()),
        }
    })
}

async fn command(context: &Context, command: Command) -> Result<()> {
    let printer = &context.printer;
    match command {
        Command::Up(args) => Box::pin(commands::up::run(context, &args)).await,
        Command::Down(args) => commands::down::run(context, &args).await,
        Command::Status => commands::status::run(context).await,
        Command::Service(command) => commands::service::run(context, &command).await,
        Command::Doctor(args) => commands::doctor::run(context, &args).await,
        Command::Az(args) => commands::az::run(context, &args).await,
        Command::Kubeconfig(args) => commands::kubeconfig::run(context, &args).await,
        Command::Kubelogin => commands::kubelogin::run(context),
        Command::Credentials(command) => Box::pin(commands::credentials::run(context, &command)).await,
        Command::Kubectl(args) => commands::kubectl::run(context, &args).await,
        Command::Logs(args) => commands::logs::run(context, &args).await,
        Command::Store(command) => Box::pin(commands::store::run(context, &command)).await,
        Command::Unknown(command) => Box::pin(commands::unknown::run(context, &command)).await,
        Command::Maintenance(command) => Box::pin(commands::maintenance::run(context, &command)).await,
        Command::Subscription(command) => Box::pin(commands::subscription::run(context, &command)).await,
        Command::Support(command) => Box::pin(commands::support::run(context, &command)).await,
        Command::Access(command) => Box::pin(commands::access::run(context, &command)).await,
        Command::Identity(command) => Box::pin(commands::identity::run(context, &command)).await,
        Command::Secrets(command) => Box::pin(commands::secrets::run(context, &command)).await,
        Command::Operation(command) => Box::pin(commands::operation::run(context, &command)).await,
        Command::Upgrade(command) => Box::pin(commands::upgrade::run(context, &command)).await,
        Command::Catalogue(command) => commands::catalogue::run(context, &command),
        Command::Backup(command) => Box::pin(commands::backup::run(context, &command)).await,
        Command::Events(args) => Box::pin(commands::events::run(context, &args)).await,
        Command::Alerts(args) => Box::pin(commands::alerts::run(context, &args)).await,
        Command::Metrics => commands::metrics::run(context).await,
        Command::Usage(args) => Box::pin(commands::usage::run(context, &args)).await,
        Command::Certificate(command) => Box::pin(commands::certificate::run(context, &command)).await,
        Command::Image(args) => Box::pin(commands::image::run(context, args)).await,
        Command::Version => {
            let version = env!("CARGO_PKG_VERSION");
            let kubernetes = cluster_versions::PINNED;
            printer.result(
                &json!({ "event": "result", "version": version, "kubernetes": kubernetes }),
                || format!("landfall {version}\nKubernetes {}", kubernetes.join(", ")),
            );
            Ok(())
        }
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "landfall", &mut script);
            printer.text(
                "script",
                &String::from_utf8(script).context("the script is not text")?,
            );
            Ok(())
        }
        Command::Reference => {
            let pages = serde_json::to_string(&reference::pages()).context("texts are JSON")?;
            printer.text("pages", &pages);
            Ok(())
        }
        Command::Serve(_) => unreachable!("handled before the runtime was made"),
    }
}
