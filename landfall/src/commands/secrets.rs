//! `landfall secrets`: the keys that seal the stamp's own secrets. Through the ARM API.
//!
//! Always true: no key is read or shown here, only what is told of it.

use std::time::Duration;

use anyhow::Result;
use identity::{IDENTITY_API_VERSIONS, IDENTITY_NAMESPACE};
use jiff::Timestamp;
use owo_colors::OwoColorize as _;
use serde_json::{Value, json};

use super::{Context, identity::confirmed};
use crate::{
    args,
    arm::ArmClient,
    printer::{self, duration},
    problem::Problem,
    stamp::Settings,
};

/// How often it is looked how far a rotation is.
const LOOK: Duration = Duration::from_secs(1);
/// How long it is waited for.
const BOUND: Duration = Duration::from_secs(30 * 60);

/// Where the keys are.
fn path(rest: &str) -> String {
    format!("/providers/{IDENTITY_NAMESPACE}/sealingKeys{rest}")
}

pub(crate) async fn run(context: &Context, command: &args::Secrets) -> Result<()> {
    let settings = Settings::required(&context.places)?;
    let arm = ArmClient::login(&context.places, &settings, &context.env).await?;
    let version = IDENTITY_API_VERSIONS[0];
    match command {
        args::Secrets::List => {
            let keys = arm.list(&path(""), version, &[]).await?;
            let (now, flag) = (context.env.clock.now(), context.name_flag());
            context
                .printer
                .result(&json!({ "event": "result", "sealingKeys": keys }), || {
                    page(&keys, settings.created_at, now, &flag)
                });
        }
        args::Secrets::RotateSealingKey { no_wait } => rotate(context, &arm, *no_wait).await?,
        args::Secrets::DropSealingKey(args) => drop_key(context, &arm, args).await?,
    }
    Ok(())
}

async fn rotate(context: &Context, arm: &ArmClient, no_wait: bool) -> Result<()> {
    let (printer, flag) = (&context.printer, context.name_flag());
    let version = IDENTITY_API_VERSIONS[0];
    let step = printer.step("seal", "Sealing with another key");
    let begun = arm.post(&path("/default/rotate"), version).await?;
    let mut keys = begun["value"].as_array().cloned().unwrap_or_default();
    let deadline = context.env.clock.monotonic() + BOUND;
    while !no_wait && !is_done(&keys) {
        if context.env.clock.monotonic() > deadline {
            return Err(Problem::new(
                format!(
                    "not everything is sealed with the new key after {} minutes{}; it goes on in the background",
                    BOUND.as_secs() / 60,
                    problem(&keys).map_or_else(String::new, |why| format!(" ({why})"))
                ),
                format!("see how far it is: landfall secrets list{flag}"),
            )
            .into());
        }
        step.now(&progress(&keys));
        context.env.clock.sleep(LOOK).await;
        keys = arm.list(&path(""), version, &[]).await?;
    }
    let seals = keys.iter().find(|key| state(key) == "seals");
    let seals = seals.map_or("-", |key| text(key, "name")).to_owned();
    let is_done = is_done(&keys);
    step.done(if is_done {
        format!("everything is sealed with {seals}")
    } else {
        format!("{seals} seals; what was sealed before follows")
    });
    let file = context.places.sealing_key();
    printer.result(
        &json!({ "event": "result", "seals": seals, "done": is_done, "file": &file, "sealingKeys": keys }),
        || {
            let wait = if is_done {
                String::new()
            } else {
                format!("\nSee how far it is: landfall secrets list{flag}")
            };
            format!(
                "Keep a copy of {} now: without it, nothing that is sealed from now on can be read.{wait}",
                file.display()
            )
        },
    );
    Ok(())
}

async fn drop_key(context: &Context, arm: &ArmClient, wanted: &args::DropSealingKey) -> Result<()> {
    let (version, flag) = (IDENTITY_API_VERSIONS[0], context.name_flag());
    let keys = arm.list(&path(""), version, &[]).await?;
    let found = keys
        .iter()
        .map(|key| text(key, "name"))
        .find(|name| name.eq_ignore_ascii_case(&wanted.key));
    let Some(name) = found else {
        return Err(Problem::new(
            format!("there is no sealing key {}", wanted.key),
            format!("see what there is: landfall secrets list{flag}"),
        )
        .into());
    };
    let what = format!(
        "Copies of the store that were made while the key {name} sealed cannot be put back any more."
    );
    confirmed(context, wanted.yes, &what).await?;
    let done = arm.post(&path(&format!("/{name}/drop")), version).await?;
    context.printer.result(
        &json!({ "event": "result", "dropped": name, "sealingKeys": done["value"] }),
        || {
            format!(
                "The key {name} is dropped. Copies of {} from before still have it.",
                context.places.sealing_key().display()
            )
        },
    );
    Ok(())
}

fn text<'a>(value: &'a Value, member: &str) -> &'a str {
    value[member].as_str().unwrap_or("-")
}

fn state(key: &Value) -> &str {
    text(&key["properties"], "state")
}

/// Whether nothing is left that is sealed with another key than the one that seals.
fn is_done(keys: &[Value]) -> bool {
    keys.iter().all(|key| state(key) != "retiring")
}

fn problem(keys: &[Value]) -> Option<&str> {
    keys.iter().find_map(|key| key["properties"]["problem"].as_str())
}

/// How many values are sealed with a key, and where; nothing where nobody has looked.
fn sealed(key: &Value) -> Option<(u64, String)> {
    let places = key["properties"]["sealed"].as_object()?;
    let numbers = places
        .iter()
        .filter_map(|(place, number)| Some((place, number.as_u64()?)))
        .filter(|(_, number)| *number > 0);
    let said: Vec<String> = numbers
        .clone()
        .map(|(place, number)| format!("{place} {number}"))
        .collect();
    Some((numbers.map(|(_, number)| number).sum(), said.join(", ")))
}

fn progress(keys: &[Value]) -> String {
    let left: u64 = keys
        .iter()
        .filter(|key| state(key) == "retiring")
        .filter_map(|key| Some(sealed(key)?.0))
        .sum();
    match problem(keys) {
        Some(why) => format!("{left} values were left; {why}"),
        None if left > 0 => format!("{left} values are left"),
        None => "looking for what is sealed".to_owned(),
    }
}

fn page(keys: &[Value], made: Timestamp, now: Timestamp, flag: &str) -> String {
    let rows = keys.iter().map(|key| {
        let time = |member: &str| key["properties"][member].as_str()?.parse::<Timestamp>().ok();
        let age = now.duration_since(time("madeAt").unwrap_or(made));
        let is_alone = keys.len() == 1;
        vec![
            text(key, "name").to_owned(),
            match state(key) {
                "seals" => "seals".green().to_string(),
                "retiring" => "retiring".yellow().to_string(),
                other => other.to_owned(),
            },
            duration(age.as_secs_f64().max(0.0)),
            match sealed(key) {
                None if is_alone => "everything".to_owned(),
                None => "?".to_owned(),
                Some((0, _)) if is_alone => "everything".to_owned(),
                Some((0, _)) => "-".to_owned(),
                Some((_, said)) => said,
            },
            match time("unusedSince") {
                Some(since) => format!("copies of the store from before {since:.0}"),
                None => String::new(),
            },
        ]
    });
    let mut page = printer::table(
        &["KEY", "STATE", "AGE", "SEALED WITH IT", "KEPT FOR"],
        rows.collect(),
    );
    if let Some(why) = problem(keys) {
        page.push_str(&format!("\n\nNot everything could be looked at: {why}"));
    }
    page.push_str(&format!(
        "\n\nHave another one take the place of the one that seals: landfall secrets rotate-sealing-key{flag}\n"
    ));
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str, state: &str, sealed: &Value, unused: Option<&str>) -> Value {
        json!({ "name": name, "properties": {
            "state": state, "madeAt": null, "unusedSince": unused, "sealed": sealed, "problem": null,
        }})
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_rotation_is_done_when_no_key_is_retiring() {
        let seals = key("b", "seals", &json!({ "store": 3 }), None);
        let retiring = key("a", "retiring", &json!({ "store": 2, "backups": 1 }), None);
        let kept = key("a", "kept", &json!({}), Some("1970-01-01T00:01:00Z"));
        assert!(is_done(&[kept, seals.clone()]));
        let keys = [retiring, seals];
        assert!(!is_done(&keys));
        assert_eq!(progress(&keys), "3 values are left");
        let mut failing = keys;
        failing[0]["properties"]["problem"] = json!("backups: no room");
        assert!(progress(&failing).ends_with("backups: no room"));
        let unseen = [key("a", "retiring", &Value::Null, None)];
        assert!(progress(&unseen).starts_with("looking"));
    }

    #[test]
    fn the_page_says_how_old_keys_are_and_what_they_are_for() {
        let keys = [
            key("aa", "kept", &json!({}), Some("1970-01-01T00:01:00.5Z")),
            key("bb", "seals", &json!({ "store": 12, "endpoint": 1 }), None),
        ];
        let page = anstream::adapter::strip_str(&page(&keys, at(0), at(7200), " --name t")).to_string();
        for part in [
            "aa",
            "kept",
            "2 h 0 min",
            "store 12",
            "endpoint 1",
            "from before 1970-01-01T00:01:0",
            "rotate-sealing-key --name t",
        ] {
            assert!(page.contains(part), "{part}: {page}");
        }
        let alone = super::page(&[key("aa", "seals", &Value::Null, None)], at(0), at(60), "");
        assert!(alone.contains("everything"), "{alone}");
    }
}
