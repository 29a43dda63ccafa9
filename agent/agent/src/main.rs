//! `landfall-agent`: first process of a Landfall machine. See the library.

use std::{path::Path, process::ExitCode};

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    match (arguments.next().as_deref(), arguments.next()) {
        (None, None) => landfall_agent::run::run(Path::new("/")),
        (Some("--root"), Some(root)) => landfall_agent::run::run(Path::new(&root)),
        (Some("--version"), None) => say(&format!("landfall-agent {}", env!("CARGO_PKG_VERSION"))),
        _ => {
            say("usage: landfall-agent [--root DIRECTORY | --version]");
            ExitCode::from(2)
        }
    }
}

#[expect(clippy::print_stdout, reason = "what the user asked for")]
fn say(line: &str) -> ExitCode {
    println!("{line}");
    ExitCode::SUCCESS
}
