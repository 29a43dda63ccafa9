//! `landfall-agent`: first process of a Landfall machine, and the programs that run beside etcd in control plane machines and beside the
//! kubelet in nodes. See the library, `machine/etcd`, `machine/backup`, `machine/vip`, `machine/csi` and `machine/image`.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use agent_protocol::programs::{BACKUP, CSI, ETCD, IMAGE, MEMBERSHIP};
use machine_backup::restore::{FromBackup, Programs};
use machine_etcd::{membership, prepare::Prepare};

const USAGE: &str = "usage: landfall-agent [--root DIRECTORY [--adopt FILE] | --can-adopt FILE | --version]
       landfall-agent etcd|etcd-keeper|etcd-backup|vip|csi-disk|image FILE";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let root = Path::new("/");
    if let ["--root", root, "--adopt", file] = arguments[..] {
        return landfall_agent::run::run(Path::new(root), Some(Path::new(file)));
    }
    let (command, file) = match arguments[..] {
        [] => (None, None),
        [command] => (Some(command), None),
        [command, file] => (Some(command), Some(Path::new(file))),
        _ => (Some("too much"), None),
    };
    match (command, file) {
        (None, None) => landfall_agent::run::run(root, None),
        (Some("--root"), Some(root)) => landfall_agent::run::run(root, None),
        (Some("--can-adopt"), Some(file)) => match landfall_agent::successor::can_adopt(file) {
            Ok(()) => ExitCode::SUCCESS,
            Err(why) => fail(&why),
        },
        (Some("--version"), None) => print(&format!("landfall-agent {}", env!("CARGO_PKG_VERSION"))),
        (Some(ETCD), Some(file)) => etcd(file),
        (Some(MEMBERSHIP), Some(file)) => match membership::run(file, &|line| log(line)) {
            Ok(never) => match never {},
            Err(why) => fail(&why),
        },
        (Some("vip"), Some(file)) => match machine_vip::program::run(file, root, &|line| log(line)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(why) => fail(&why),
        },
        (Some(BACKUP), Some(file)) => machine_backup::program::run(file, root),
        (Some(CSI), Some(file)) => match machine_csi::program::run(file, log) {
            Ok(()) => ExitCode::SUCCESS,
            Err(why) => fail(&why),
        },
        (Some(IMAGE), Some(file)) => match machine_image::run(&machine_image::Place::default(), file) {
            Ok(()) => ExitCode::SUCCESS,
            Err(why) => fail(&why),
        },
        _ => {
            print(USAGE);
            ExitCode::from(2)
        }
    }
}

fn etcd(file: &Path) -> ExitCode {
    let programs = Programs::default();
    let etcd = programs.etcd.clone();
    let restorer = FromBackup {
        root: PathBuf::from("/"),
        programs,
        log,
    };
    let log = |line: &str| log(line);
    let never = Prepare::new(file, &etcd, &restorer, &log).and_then(|prepare| prepare.become_etcd());
    match never {
        Ok(never) => match never {},
        Err(error) => {
            use std::error::Error as _;
            let cause = error.source().map(|source| format!(": {source}"));
            fail(&format!("{error}{}", cause.unwrap_or_default()))
        }
    }
}

#[expect(clippy::print_stderr, reason = "standard error is the process's log")]
fn log(line: &str) {
    eprintln!("{line}");
}

fn fail(line: &str) -> ExitCode {
    log(line);
    ExitCode::FAILURE
}

#[expect(clippy::print_stdout, reason = "what the user asked for")]
fn print(line: &str) -> ExitCode {
    println!("{line}");
    ExitCode::SUCCESS
}
