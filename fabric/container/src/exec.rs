//! Running the system's programs: `ip`, `nft`, `runc`.

use std::{process::Stdio, time::Duration};

use base_env::Env;
use fabric_api::FabricError;
use tokio::{io::AsyncWriteExt, process::Command};

/// No program that is run here takes long; a longer run counts as stuck.
const BOUND: Duration = Duration::from_secs(60);

/// The length of a program's error output that is kept.
const COMPLAINT_MAX: usize = 1500;

/// Services are often started with a PATH that lacks the administrator's programs.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Runs a program with `input` on its standard input and returns its standard output. `act` names the
/// purpose, as an infinitive.
pub(crate) async fn run(
    env: &Env,
    act: &str,
    argv: &[&str],
    input: Option<&str>,
) -> Result<String, FabricError> {
    let (program, arguments) = argv.split_first().expect("callers name a program");
    let failed = |why: String| FabricError::failed(act, why);
    let mut child = Command::new(program)
        .args(arguments)
        .env("PATH", PATH)
        .env("LC_ALL", "C")
        .stdin(if input.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| failed(format!("{program} cannot be started: {error}")))?;
    let mut stdin = child.stdin.take();
    let talk = async {
        let write = async {
            if let (Some(pipe), Some(text)) = (stdin.as_mut(), input) {
                // A program that exits without reading everything explains it on stderr.
                let _ = pipe.write_all(text.as_bytes()).await;
            }
            stdin = None;
        };
        tokio::join!(write, child.wait_with_output()).1
    };
    let output = env
        .clock
        .timeout(BOUND, talk)
        .await
        .map_err(|elapsed| failed(format!("{program} {elapsed}")))?
        .map_err(|error| failed(format!("{program}: {error}")))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(failed(format!(
        "{program} ended with {}: {}",
        output.status,
        complaint(&String::from_utf8_lossy(&output.stderr))
    )))
}

/// Runs lines with `ip -batch`, on the host or in a network namespace. Not atomic: it stops at the first line
/// that fails.
pub(crate) async fn ip_batch(
    env: &Env,
    act: &str,
    namespace: Option<&str>,
    lines: &[String],
) -> Result<(), FabricError> {
    if lines.is_empty() {
        return Ok(());
    }
    let mut argv = vec!["ip"];
    if let Some(namespace) = namespace {
        argv.extend(["-n", namespace]);
    }
    argv.extend(["-batch", "-"]);
    let mut text = lines.join("\n");
    text.push('\n');
    run(env, act, &argv, Some(&text)).await.map(drop)
}

/// Runs lines with `ip -batch`, continuing after failures: for removals, where "not there" is fine. The
/// caller checks the result; the error output is returned for its error message.
pub(crate) async fn ip_batch_anyway(
    env: &Env,
    act: &str,
    namespace: Option<&str>,
    lines: &[String],
) -> Option<FabricError> {
    if lines.is_empty() {
        return None;
    }
    let mut argv = vec!["ip"];
    if let Some(namespace) = namespace {
        argv.extend(["-n", namespace]);
    }
    argv.extend(["-force", "-batch", "-"]);
    let mut text = lines.join("\n");
    text.push('\n');
    run(env, act, &argv, Some(&text)).await.err()
}

/// The end of a program's output, on one line.
pub(crate) fn complaint(text: &str) -> String {
    let text = text.trim();
    let from = text.len().saturating_sub(COMPLAINT_MAX);
    let from = (from..=text.len())
        .find(|at| text.is_char_boundary(*at))
        .unwrap_or(0);
    text[from..]
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn failures_carry_what_the_program_said() {
        let env = Env::system();
        let error = run(
            &env,
            "try",
            &["sh", "-c", "echo one >&2; echo two >&2; exit 3"],
            None,
        )
        .await
        .unwrap_err()
        .to_string();
        assert_eq!(error, "cannot try: sh ended with exit status: 3: one; two");
        let error = run(&env, "try", &["no-such-program"], None)
            .await
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("cannot try: no-such-program cannot be started"),
            "{error}"
        );
        // More than a pipe holds, for a program that does not read it all.
        let long = "x\n".repeat(100_000);
        assert_eq!(
            run(&env, "try", &["head", "-n", "1"], Some(&long)).await.unwrap(),
            "x\n"
        );
        assert_eq!(run(&env, "try", &["cat"], Some(&long)).await.unwrap(), long);
    }

    #[test]
    fn complaints_are_bounded() {
        assert!(complaint(&"ä".repeat(5000)).len() <= COMPLAINT_MAX);
    }
}
