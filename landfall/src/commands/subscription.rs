//! `landfall subscription`: list, disable and enable subscriptions. Through the ARM API.

use anyhow::Result;
use owo_colors::OwoColorize as _;
use providers_resources::{SUBSCRIPTIONS_API_VERSIONS, SUBSCRIPTIONS_NAMESPACE};
use serde_json::{Value, json};

use super::Context;
use crate::{
    args,
    arm::{ArmClient, RESOURCES},
    printer,
    problem::Problem,
    stamp::Settings,
};

pub(crate) async fn run(context: &Context, command: &args::Subscription) -> Result<()> {
    let settings = Settings::required(&context.places)?;
    let arm = ArmClient::login(&context.places, &settings, &context.env).await?;
    let all = arm.list("/subscriptions", RESOURCES, &[]).await?;
    let (wanted, act) = match command {
        args::Subscription::List => {
            context
                .printer
                .result(&json!({ "event": "result", "subscriptions": all }), || page(&all));
            return Ok(());
        }
        args::Subscription::Disable { subscription } => (subscription, "disable"),
        args::Subscription::Enable { subscription } => (subscription, "enable"),
    };
    let id = text(
        chosen(&all, wanted.as_deref(), &context.name_flag())?,
        "subscriptionId",
    );
    let path = format!("/providers/{SUBSCRIPTIONS_NAMESPACE}/subscriptions/{id}/{act}");
    let done = arm.post(&path, SUBSCRIPTIONS_API_VERSIONS[0]).await?;
    context
        .printer
        .result(&json!({ "event": "result", "subscription": done }), || {
            told(&done)
        });
    Ok(())
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or("-")
}

/// The chosen subscription.
fn chosen<'a>(all: &'a [Value], wanted: Option<&str>, flag: &str) -> Result<&'a Value> {
    let list = || format!("see what there is: landfall subscription list{flag}");
    let Some(wanted) = wanted else {
        return match all {
            [only] => Ok(only),
            _ => {
                let what = format!("there are {} subscriptions, and none is named", all.len());
                Err(Problem::usage(what, list()).into())
            }
        };
    };
    let by = |key: &str| {
        let same = |one: &&Value| text(one, key).eq_ignore_ascii_case(wanted);
        all.iter().filter(same).collect::<Vec<_>>()
    };
    // Ids are unique, names need not be.
    match (&by("subscriptionId")[..], &by("displayName")[..]) {
        ([one], _) | ([], [one]) => Ok(*one),
        (_, []) => Err(Problem::new(format!("there is no subscription '{wanted}'"), list()).into()),
        _ => {
            let what = format!("more than one subscription is called '{wanted}'");
            Err(Problem::new(what, "give its id: it is in the list").into())
        }
    }
}

fn page(all: &[Value]) -> String {
    let rows = all.iter().map(|one| {
        let state = text(one, "state");
        vec![
            text(one, "subscriptionId").to_owned(),
            text(one, "displayName").to_owned(),
            match state {
                "Enabled" => state.green().to_string(),
                _ => state.yellow().to_string(),
            },
        ]
    });
    printer::table(&["ID", "NAME", "STATE"], rows.collect())
}

/// The result for one subscription.
fn told(one: &Value) -> String {
    let name = text(one, "displayName");
    match text(one, "state") {
        "Enabled" => format!("Everything can be done in the subscription {name}.\n"),
        _ => format!(
            "Nothing is made or changed in the subscription {name} any more; its clusters run on. What is in it can be read and deleted.\n"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subscription_is_found_by_its_id_or_name() {
        let one =
            |id: &str, name: &str| json!({ "subscriptionId": id, "displayName": name, "state": "Enabled" });
        let all = [one("s1", "Shop"), one("s2", "Lab"), one("s3", "lab")];
        let id = |wanted: Option<&str>| {
            chosen(&all, wanted, "").map(|found| text(found, "subscriptionId").to_owned())
        };
        assert_eq!(id(Some("S1")).unwrap(), "s1");
        assert_eq!(id(Some("shop")).unwrap(), "s1");
        for wrong in [None, Some("lab"), Some("none"), Some("")] {
            assert!(id(wrong).is_err(), "{wrong:?}");
        }
        assert_eq!(text(chosen(&all[..1], None, "").unwrap(), "subscriptionId"), "s1");
        assert!(chosen(&[], None, "").is_err());
    }

    #[test]
    fn its_state_is_told() {
        let of = |state: &str| told(&json!({ "displayName": "Shop", "state": state }));
        assert!(of("Enabled").starts_with("Everything"));
        assert!(of("Disabled").contains("run on"));
        let page = page(&[json!({ "subscriptionId": "s1", "displayName": "Shop", "state": "Disabled" })]);
        assert!(page.contains("s1") && page.contains("Disabled"), "{page}");
    }
}
