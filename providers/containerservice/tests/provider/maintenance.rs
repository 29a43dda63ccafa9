//! Maintenance configurations: valid bodies; they are stored, listed and deleted with their cluster.

use serde_json::{Value, json};

use crate::stamp::{Stamp, least, names};

const ALL: &str = "managedClusters/c/maintenanceConfigurations";

fn path(name: &str) -> String {
    format!("{ALL}/{name}")
}

fn window(schedule: Value) -> Value {
    json!({ "properties": { "maintenanceWindow": { "schedule": schedule, "startTime": "01:30", "durationHours": 4 } } })
}

#[tokio::test(start_paused = true)]
async fn configurations_are_kept_listed_changed_and_deleted() {
    let stamp = Stamp::new().await;
    stamp.create("c", least()).await;
    assert_eq!(stamp.get(ALL).await.body, json!({ "value": [] }));
    assert_eq!(stamp.get(&path("default")).await.code(), "ResourceNotFound");
    // As `az aks maintenanceconfiguration add --weekday Monday --start-hour 1` sends it.
    let az = json!({ "properties": { "timeInWeek": [{ "day": "monday", "hourSlots": [1] }], "notAllowedTime": null } });
    let made = stamp.ask("PUT", &path("default"), az).await;
    assert_eq!(made.status, 201, "{:#}", made.body);
    assert_eq!(made.header("azure-asyncoperation"), None);
    assert_eq!(
        made.body["properties"]["timeInWeek"],
        json!([{ "day": "Monday", "hourSlots": [1] }])
    );
    assert_eq!(
        made.body["type"],
        "Microsoft.ContainerService/managedClusters/maintenanceConfigurations"
    );
    assert_eq!(made.body["systemData"]["createdBy"], "tester");
    let weekly = json!({ "weekly": { "intervalWeeks": 1, "dayOfWeek": "Friday" } });
    let changed = stamp.ask("PUT", &path("Default"), window(weekly)).await;
    assert_eq!((changed.status, &changed.body["name"]), (200, &json!("Default")));
    assert_eq!(
        changed.body["properties"]["maintenanceWindow"]["utcOffset"],
        "+00:00"
    );
    assert_eq!(changed.body["properties"].get("timeInWeek"), None);
    // A body that was read can be sent back.
    let again = stamp
        .ask("PUT", &path("default"), stamp.get(&path("default")).await.body)
        .await;
    assert_eq!(
        (again.status, &again.body["properties"]),
        (200, &changed.body["properties"])
    );
    let daily = window(json!({ "daily": { "intervalDays": 3 } }));
    let node_os = path("aksManagedNodeOSUpgradeSchedule");
    assert_eq!(stamp.ask("PUT", &node_os, daily.clone()).await.status, 201);
    assert_eq!(
        names(&stamp.get(ALL).await.body),
        ["aksManagedNodeOSUpgradeSchedule", "default"]
    );
    assert_eq!(stamp.ask("DELETE", &node_os, Value::Null).await.status, 200);
    assert_eq!(stamp.ask("DELETE", &node_os, Value::Null).await.status, 204);
    assert_eq!(names(&stamp.get(ALL).await.body), ["default"]);
    // As `az aks maintenanceconfiguration add --day-of-month 15` sends it: the day as text.
    let monthly = window(json!({ "absoluteMonthly": { "intervalMonths": 1, "dayOfMonth": "15" } }));
    let made = stamp.ask("PUT", &node_os, monthly).await;
    assert_eq!(made.status, 201, "{:#}", made.body);
    assert_eq!(
        made.body["properties"]["maintenanceWindow"]["schedule"]["absoluteMonthly"]["dayOfMonth"],
        15
    );
    stamp.ask("DELETE", &node_os, Value::Null).await;
    // They need their cluster, but do not change it.
    let generation = stamp.record("c").await.unwrap().generation;
    assert_eq!(generation, 1);
    let elsewhere = "managedClusters/none/maintenanceConfigurations/default";
    assert_eq!(
        stamp.ask("PUT", elsewhere, daily.clone()).await.code(),
        "ParentResourceNotFound"
    );
    assert_eq!(
        stamp
            .get("managedClusters/none/maintenanceConfigurations")
            .await
            .code(),
        "ResourceNotFound"
    );
    stamp.ask("DELETE", "managedClusters/c", Value::Null).await;
    assert_eq!(stamp.ask("PUT", &node_os, daily).await.code(), "Conflict");
}

#[tokio::test(start_paused = true)]
async fn preconditions_hold_for_children_too() {
    let stamp = Stamp::new().await;
    stamp.create("c", least()).await;
    let body = window(json!({ "weekly": { "intervalWeeks": 1, "dayOfWeek": "Friday" } }));
    for (if_match, if_none_match, status) in [
        (Some("*"), None, 412),
        (None, Some("*"), 201),
        (None, Some("*"), 412),
        (Some("*"), None, 200),
        (Some("another"), None, 412),
    ] {
        let mut request = stamp.request("PUT", &path("default"), body.clone());
        request.if_match = if_match.map(str::to_owned);
        request.if_none_match = if_none_match.map(str::to_owned);
        assert_eq!(
            stamp.send(request).await.status,
            status,
            "{if_match:?} {if_none_match:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn what_no_schedule_can_be_is_refused() {
    let stamp = Stamp::new().await;
    stamp.create("c", least()).await;
    let auto = "aksManagedAutoUpgradeSchedule";
    let schedule = "properties.maintenanceWindow.schedule";
    let with = |field: &str, value: Value| {
        let mut body = window(json!({ "daily": { "intervalDays": 1 } }));
        body["properties"]["maintenanceWindow"][field] = value;
        body
    };
    let slots = json!([{ "day": "Monday", "hourSlots": [1] }]);
    for (name, body, code, target) in [
        (
            "mine",
            window(json!({ "daily": { "intervalDays": 1 } })),
            "InvalidResourceName",
            "name",
        ),
        (
            "default",
            json!({}),
            "MissingRequiredParameter",
            "properties.maintenanceWindow",
        ),
        (
            "default",
            window(json!({ "daily": { "intervalDays": 1 } })),
            "InvalidParameter",
            schedule,
        ),
        (
            auto,
            json!({ "properties": { "timeInWeek": slots } }),
            "InvalidParameter",
            "properties.timeInWeek",
        ),
        (auto, window(json!({})), "InvalidParameter", schedule),
        (
            auto,
            window(
                json!({ "daily": { "intervalDays": 1 }, "weekly": { "intervalWeeks": 1, "dayOfWeek": "Friday" } }),
            ),
            "InvalidParameter",
            schedule,
        ),
        (
            auto,
            window(json!({ "daily": { "intervalDays": 8 } })),
            "InvalidParameter",
            "properties.maintenanceWindow.schedule.daily.intervalDays",
        ),
        (
            auto,
            window(json!({ "weekly": { "intervalWeeks": 5, "dayOfWeek": "Friday" } })),
            "InvalidParameter",
            "properties.maintenanceWindow.schedule.weekly.intervalWeeks",
        ),
        (
            auto,
            window(json!({ "weekly": { "intervalWeeks": 1 } })),
            "MissingRequiredParameter",
            "properties.maintenanceWindow.schedule.weekly.dayOfWeek",
        ),
        (
            auto,
            window(json!({ "absoluteMonthly": { "intervalMonths": 1, "dayOfMonth": 32 } })),
            "InvalidParameter",
            "properties.maintenanceWindow.schedule.absoluteMonthly.dayOfMonth",
        ),
        (
            auto,
            window(json!({ "absoluteMonthly": { "intervalMonths": 1, "dayOfMonth": "32" } })),
            "InvalidParameter",
            "properties.maintenanceWindow.schedule.absoluteMonthly.dayOfMonth",
        ),
        (
            auto,
            window(json!({ "absoluteMonthly": { "intervalMonths": 1, "dayOfMonth": "last" } })),
            "InvalidParameter",
            "properties.maintenanceWindow.schedule.absoluteMonthly.dayOfMonth",
        ),
        (
            auto,
            window(
                json!({ "relativeMonthly": { "intervalMonths": 1, "weekIndex": "Fifth", "dayOfWeek": "Monday" } }),
            ),
            "InvalidParameter",
            "properties.maintenanceWindow.schedule.relativeMonthly.weekIndex",
        ),
        (
            auto,
            with("startTime", json!("25:00")),
            "InvalidParameter",
            "properties.maintenanceWindow.startTime",
        ),
        (
            auto,
            with("startTime", Value::Null),
            "MissingRequiredParameter",
            "properties.maintenanceWindow.startTime",
        ),
        (
            auto,
            with("durationHours", json!(3)),
            "InvalidParameter",
            "properties.maintenanceWindow.durationHours",
        ),
        (
            auto,
            with("utcOffset", json!("02:00")),
            "InvalidParameter",
            "properties.maintenanceWindow.utcOffset",
        ),
        (
            auto,
            with("startDate", json!("2026-02-30")),
            "InvalidParameter",
            "properties.maintenanceWindow.startDate",
        ),
        (
            auto,
            with(
                "notAllowedDates",
                json!([{ "start": "2026-12-31", "end": "2026-12-01" }]),
            ),
            "InvalidParameter",
            "properties.maintenanceWindow.notAllowedDates[0].end",
        ),
        (
            auto,
            with("colour", json!("red")),
            "UnknownProperty",
            "properties.maintenanceWindow.colour",
        ),
        (
            "default",
            json!({ "properties": { "timeInWeek": [{ "day": "Monday", "hourSlots": [24] }] } }),
            "InvalidParameter",
            "properties.timeInWeek[0].hourSlots[0]",
        ),
        (
            "default",
            json!({ "properties": { "timeInWeek": [{ "day": "Monday", "hourSlots": ["1"] }] } }),
            "InvalidParameter",
            "properties.timeInWeek[0].hourSlots[0]",
        ),
        (
            "default",
            json!({ "properties": { "notAllowedTime": [{ "start": "2026-12-01T02:00:00Z", "end": "2026-12-01T01:00:00Z" }] } }),
            "InvalidParameter",
            "properties.notAllowedTime[0].end",
        ),
    ] {
        let answer = stamp.ask("PUT", &path(name), body.clone()).await;
        let error = &answer.body["error"];
        assert_eq!(
            (answer.code(), error["target"].as_str()),
            (code, Some(target)),
            "{name} {body} {error}"
        );
        assert_eq!(answer.status, 400);
    }
    assert_eq!(stamp.get(ALL).await.body, json!({ "value": [] }));
}
