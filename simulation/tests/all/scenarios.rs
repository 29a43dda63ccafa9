//! The scripts of `scenarios/` give their golden transcripts; reviews read the differences.
//!
//! With `BLESS=1` in the environment, the transcripts are written instead.

use simulation::{run, script::Player};

/// A test runs in its crate's folder; where it was compiled may be another checkout.
const SCENARIOS: &str = "../scenarios";

/// The transcript and the hash of the trace.
fn play(script: &str, seed: u64) -> (String, String) {
    match run(async || Player::new(seed).await?.play(script).await) {
        Ok(played) => played,
        Err(error) => (format!("{error:#}\n"), String::new()),
    }
}

#[test]
fn scenarios_go_as_their_transcripts_say() {
    let bless = std::env::var_os("BLESS").is_some();
    let only = std::env::var("ONLY").unwrap_or_default();
    let mut scripts: Vec<_> = std::fs::read_dir(SCENARIOS)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "cmd"))
        .filter(|path| path.to_string_lossy().contains(&only))
        .collect();
    scripts.sort();
    assert!(!scripts.is_empty(), "there are no scenarios");
    let mut different = Vec::new();
    for path in scripts {
        let script = std::fs::read_to_string(&path).unwrap();
        let (transcript, hash) = play(&script, 1);
        assert!(!hash.is_empty(), "{path:?}: {transcript}");
        assert_eq!(
            hash,
            play(&script, 1).1,
            "{path:?}: the same seed gives the same trace"
        );
        let golden = path.with_extension("out");
        if bless {
            std::fs::write(&golden, &transcript).unwrap();
        } else if std::fs::read_to_string(&golden).unwrap_or_default() != transcript {
            println!("--- {golden:?} would now be:\n{transcript}");
            different.push(golden);
        }
    }
    assert!(
        different.is_empty(),
        "{different:?} differ; look at the difference, and if it is right run again with BLESS=1"
    );
}

#[test]
fn another_seed_gives_another_history_that_ends_the_same() {
    let script = "start\ncreate c1 np1=2\nfail ensure-machine 3\nsettle\ndelete c1\nsettle\nrecords\n";
    let (one, other) = (play(script, 1), play(script, 2));
    assert_ne!(one.1, other.1);
    for (transcript, _) in [one, other] {
        let left: Vec<_> = transcript
            .lines()
            .rev()
            .take_while(|line| line.starts_with('/'))
            .filter(|key| {
                (key.starts_with("/c/") && key.contains("/machine"))
                    || key.starts_with("/leases")
                    || key.ends_with("/pki")
            })
            .collect();
        assert!(transcript.contains("/op/"), "{transcript}");
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn what_is_not_as_asked_for_is_found() {
    // A script can fail: without a running service no command has an effect.
    let (transcript, hash) = play("start\ncreate c1 np1=1\nstop\nsettle\n", 1);
    assert!(
        hash.is_empty() && transcript.contains("does not settle"),
        "{transcript}"
    );
}
