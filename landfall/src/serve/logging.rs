//! The destination of the service's log.

use std::path::Path;

use anyhow::{Context as _, Result};
use tracing_subscriber::{EnvFilter, fmt};

use crate::log_file::LogFile;

/// Starts logging: to `file` in the background, else to standard error. `LANDFALL_LOG` is the filter, e.g.
/// `debug` or `control_loops=debug`.
pub(super) fn start(file: Option<&Path>, verbose: bool) -> Result<()> {
    let default = if verbose {
        "debug,hyper=info,rustls=info,h2=info,kube_client=info"
    } else {
        "info,kube_client=off"
    };
    let filter = EnvFilter::try_from_env("LANDFALL_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let builder = fmt().with_env_filter(filter).with_target(true);
    match file {
        Some(path) => {
            let log = LogFile::open(path).with_context(|| format!("cannot open {}", path.display()))?;
            builder.with_ansi(false).with_writer(log).try_init()
        }
        None => builder
            .with_ansi(
                std::io::IsTerminal::is_terminal(&std::io::stderr())
                    && std::env::var_os("NO_COLOR").is_none(),
            )
            .with_writer(std::io::stderr)
            .try_init(),
    }
    .map_err(|error| anyhow::anyhow!("cannot start logging: {error}"))
}
