//! `managedClusters/maintenanceConfigurations`: when a cluster may be worked on that nobody has asked to be changed. They are validated, kept,
//! listed and deleted with their cluster. What goes by them: `crate::channels` (upgrades), the planner (releases of the service).

use std::sync::LazyLock;

use arm_kernel::{
    Operation, ResourceType, quote,
    schema::{Node, Pattern, Problems, Schema, Table},
};
use arm_wire::ErrorCode;
use cluster_maintenance::{AUTO_UPGRADE, DEFAULT, NODE_OS};
use jiff::{Timestamp, civil};
use serde_json::{Map, Value, json};

use crate::{
    ContainerService,
    api_versions::API_VERSIONS,
    children::{Asked, Child, Document},
};

pub(crate) const TYPE: ResourceType<ContainerService> = ResourceType {
    path: "managedClusters/maintenanceConfigurations",
    versions: API_VERSIONS,
    schema: Some(Schema {
        title: "MaintenanceConfiguration",
        table: || &TABLE,
        resource: "maintenance",
    }),
    members: None,
    operations: &[
        Operation::get::<Configurations>("MaintenanceConfigurations_Get").since(SINCE),
        Operation::put::<Configurations>("MaintenanceConfigurations_CreateOrUpdate").since(SINCE),
        Operation::delete::<Configurations>("MaintenanceConfigurations_Delete").since(SINCE),
        Operation::list::<Configurations>("MaintenanceConfigurations_ListByManagedCluster").since(SINCE),
    ],
};

/// When they came.
const SINCE: &str = "2020-12-01";

type Configurations = Child<Maintenance>;

static TABLE: LazyLock<Table> = LazyLock::new(|| Table::parse(include_str!("properties.tsv"), PATTERNS));
static TREE: LazyLock<Node> = LazyLock::new(|| TABLE.tree("maintenance"));

const PATTERNS: &[Pattern] = &[
    Pattern::of("time-of-day", |text| {
        let form = text.len() == 5 && text.parse::<civil::Time>().is_ok();
        form.then_some(()).ok_or("a time such as 01:30")
    }),
    Pattern::of("utc-offset", |text| {
        let time = text.strip_prefix(['+', '-']).filter(|time| time.len() == 5);
        let form = time.is_some_and(|time| time.parse::<civil::Time>().is_ok());
        form.then_some(()).ok_or("an offset such as +02:00")
    }),
    Pattern::of("date", |text| {
        let form = text.len() == 10 && text.parse::<civil::Date>().is_ok();
        form.then_some(()).ok_or("a date such as 2026-12-31")
    }),
    Pattern::of("date-time", |text| {
        let form = text.parse::<Timestamp>().is_ok();
        form.then_some(()).ok_or("a time such as 2026-12-31T01:00:00Z")
    }),
];

/// All names that there are.
const NAMES: [&str; 3] = [DEFAULT, AUTO_UPGRADE, NODE_OS];
/// A window has exactly one of these.
const SCHEDULES: [&str; 4] = ["daily", "weekly", "absoluteMonthly", "relativeMonthly"];

/// See the module.
pub(crate) enum Maintenance {}

impl Document for Maintenance {
    const KIND: &'static str = "maintenanceConfigurations";
    // There is one of each name.
    const MOST: usize = NAMES.len();

    fn tree() -> &'static Node {
        &TREE
    }

    fn adapt(body: &mut Value) {
        // The Azure CLI sends what `--day-of-month` says as text.
        let day = body.pointer_mut("/properties/maintenanceWindow/schedule/absoluteMonthly/dayOfMonth");
        if let Some(day) = day
            && let Some(number) = day.as_str().and_then(|text| text.parse::<u8>().ok())
        {
            *day = json!(number);
        }
    }

    fn complete(asked: &Asked<'_>, properties: &mut Map<String, Value>, problems: &mut Problems) {
        let name = asked.name;
        let Some(name) = NAMES.iter().find(|own| own.eq_ignore_ascii_case(name)) else {
            let message = format!(
                "There is no maintenance configuration {}; use one of {}.",
                quote(name),
                NAMES.join(", ")
            );
            problems.add(ErrorCode::INVALID_RESOURCE_NAME, "name", message);
            return;
        };
        let slots = ["timeInWeek", "notAllowedTime"]
            .into_iter()
            .find(|field| properties.contains_key(*field));
        spans(
            properties.get("notAllowedTime"),
            "properties.notAllowedTime",
            problems,
        );
        let target = "properties.maintenanceWindow";
        let window = properties
            .get_mut("maintenanceWindow")
            .and_then(Value::as_object_mut);
        match (slots, window) {
            (Some(slots), _) if *name != DEFAULT => problems.add(
                ErrorCode::INVALID_PARAMETER,
                format!("properties.{slots}"),
                format!("'{slots}' is for the configuration '{DEFAULT}'; '{name}' has a maintenanceWindow."),
            ),
            (Some(slots), Some(_)) => problems.add(
                ErrorCode::INVALID_PARAMETER,
                target,
                format!("Give either maintenanceWindow or '{slots}', not both."),
            ),
            (Some(_), None) => {}
            (None, None) => problems.add(
                ErrorCode::MISSING_PARAMETER,
                target,
                "A maintenance configuration needs a maintenanceWindow.",
            ),
            (None, Some(window)) => complete_window(name, window, problems),
        }
    }
}

fn complete_window(name: &str, window: &mut Map<String, Value>, problems: &mut Problems) {
    let target = "properties.maintenanceWindow.schedule";
    let schedule = window.get("schedule").and_then(Value::as_object);
    let given = || {
        SCHEDULES
            .into_iter()
            .filter(|kind| schedule.is_some_and(|own| own.contains_key(*kind)))
    };
    match (given().next(), given().count()) {
        (Some(kind), 1) if name == DEFAULT && kind != "weekly" => problems.add(
            ErrorCode::INVALID_PARAMETER,
            target,
            format!("The configuration '{DEFAULT}' can only have a weekly schedule."),
        ),
        (_, 1) => {}
        (_, count) => problems.add(
            ErrorCode::INVALID_PARAMETER,
            target,
            format!(
                "A schedule is exactly one of {}; {count} are given.",
                SCHEDULES.join(", ")
            ),
        ),
    }
    spans(
        window.get("notAllowedDates"),
        "properties.maintenanceWindow.notAllowedDates",
        problems,
    );
    window.entry("durationHours").or_insert_with(|| json!(24));
    window.entry("utcOffset").or_insert_with(|| json!("+00:00"));
}

/// Spans of time end after they begin. Dates and times of this form are in the order of their texts.
fn spans(list: Option<&Value>, target: &str, problems: &mut Problems) {
    for (index, span) in list.and_then(Value::as_array).into_iter().flatten().enumerate() {
        let bound = |name: &str| span.get(name).and_then(Value::as_str);
        let order = |text: &str| text.parse::<Timestamp>().ok();
        let (Some(start), Some(end)) = (bound("start"), bound("end")) else {
            continue;
        };
        let backwards = match (order(start), order(end)) {
            (Some(start), Some(end)) => end <= start,
            _ => end < start,
        };
        if backwards {
            problems.add(
                ErrorCode::INVALID_PARAMETER,
                format!("{target}[{index}].end"),
                format!(
                    "The span ends at {}, before it begins at {}.",
                    quote(end),
                    quote(start)
                ),
            );
        }
    }
}
