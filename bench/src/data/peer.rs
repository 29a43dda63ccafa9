//! The server (`bench/peer`): built, started on the host, and copied into a pod.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use base_env::Clock;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    process::{Child, Command},
};

use super::load;

/// The kind of host that Landfall runs on.
const TARGET: &str = "x86_64-unknown-linux-gnu";
/// Time limit of a response that is waited for.
const ANSWER: Duration = Duration::from_secs(3);
/// The program is handed over within this.
const HANDED: Duration = Duration::from_secs(30);
/// Between two tries.
const AGAIN: Duration = Duration::from_millis(100);
/// This many responses in a row: each node in rotation was used, and leads to the pod.
const IN_A_ROW: u32 = 50;
/// Tries after the program was handed over, before it is handed over anew.
const TRIES: u32 = 50;

/// Builds it, static: there are no libraries in the image of the pod.
pub(super) fn build(target: &Path) -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = std::process::Command::new(cargo)
        .args([
            "build",
            "--quiet",
            "--locked",
            "--release",
            "--package",
            "bench-peer",
        ])
        .args(["--target", TARGET])
        .arg("--target-dir")
        .arg(target)
        .env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=+crt-static")
        .status()
        .context("cannot run cargo")?;
    ensure!(status.success(), "the program that is asked could not be built");
    Ok(target.join(TARGET).join("release/bench-peer"))
}

/// It, as a bare process.
pub(super) struct Bare {
    pub(super) address: SocketAddr,
    /// It ends with this.
    _process: Child,
}

impl Bare {
    /// Starts it on the loopback, with this directory to write to.
    pub(super) async fn start(clock: &Arc<dyn Clock>, program: &Path, directory: &Path) -> Result<Self> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, base_testkit::port()));
        let process = Command::new(program)
            .arg(address.to_string())
            .arg(directory)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        answers(clock, address, ANSWER).await?;
        Ok(Self {
            address,
            _process: process,
        })
    }
}

/// The script of a pod that receives the program at a port and then executes it, with this directory to write
/// to.
///
/// The image has busybox and no program that could fetch a file. After an incomplete transfer, or one from
/// another client, it waits again.
pub(super) fn script(size: usize, port: u16, directory: &str) -> String {
    format!(
        "until nc -l -p {port} > /tmp/peer < /dev/null && test $(wc -c < /tmp/peer) = {size}; do sleep 0.1; done; \
         chmod 755 /tmp/peer && exec /tmp/peer 0.0.0.0:{port} {directory}"
    )
}

/// Sends the program to the pod at an address, and waits until it responds there.
pub(super) async fn deliver(
    clock: &Arc<dyn Clock>,
    address: SocketAddr,
    program: &[u8],
    bound: Duration,
) -> Result<()> {
    let deadline = clock.monotonic() + bound;
    loop {
        // The port may not be open yet, or not all nodes may have the route: the following requests show
        // whether it worked.
        let handed = clock.timeout(HANDED, hand(address, program)).await;
        let mut last = match handed {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error),
            Err(elapsed) => Some(elapsed.into()),
        };
        if last.is_none() {
            for _ in 0..TRIES {
                match once(clock, address).await {
                    Ok(()) => return Ok(()),
                    Err(error) => last = Some(error),
                }
                clock.sleep(AGAIN).await;
            }
        }
        if clock.monotonic() > deadline {
            let last = last.map_or_else(String::new, |error| format!(": {error:#}"));
            bail!("the pod behind {address} does not answer within {bound:?}{last}");
        }
        clock.sleep(AGAIN).await;
    }
}

async fn hand(address: SocketAddr, program: &[u8]) -> Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(program).await?;
    stream.shutdown().await?;
    // The other end may send no data, and close before this has arrived.
    stream.read_to_end(&mut Vec::new()).await?;
    Ok(())
}

/// Waits until the server at an address responds many times in a row.
pub(super) async fn answers(clock: &Arc<dyn Clock>, address: SocketAddr, bound: Duration) -> Result<()> {
    let deadline = clock.monotonic() + bound;
    let mut row = 0;
    while row < IN_A_ROW {
        match once(clock, address).await {
            Ok(()) => row += 1,
            Err(error) => {
                row = 0;
                if clock.monotonic() > deadline {
                    return Err(
                        error.context(format!("{address} does not answer each time within {bound:?}"))
                    );
                }
                clock.sleep(AGAIN).await;
            }
        }
    }
    Ok(())
}

async fn once(clock: &Arc<dyn Clock>, address: SocketAddr) -> Result<()> {
    clock.timeout(ANSWER, load::get(address, "/")).await??;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pod_runs_what_it_got_only_when_it_is_whole() {
        let script = script(1234, 8080, "/data");
        assert!(script.contains("= 1234; do"), "{script}");
        assert!(script.ends_with("exec /tmp/peer 0.0.0.0:8080 /data"), "{script}");
    }
}
