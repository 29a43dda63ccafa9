//! Events of the activity log: filters, and their form.

use arm_ids::ResourcePath;
use arm_kernel::{
    odata::{Term, terms},
    quote, store_error,
};
use arm_wire::{ArmError, ErrorCode, Request};
use control_records::activity::{self, ActivityRecord, ActivityStatus};
use jiff::{Timestamp, civil, tz::TimeZone};
use serde_json::{Map, Value, json};

use crate::Insights;

/// The fields of filters, in lower case. All are compared without case.
const FIELDS: [&str; 7] = [
    "resourcegroupname",
    "resourceid",
    "resourceuri",
    "resourceprovider",
    "correlationid",
    "caller",
    "status",
];

/// A filter.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wanted {
    from: Option<Timestamp>,
    until: Option<Timestamp>,
    fields: Vec<(String, String)>,
}

impl Insights {
    /// The events that match a request, newest first: of a subscription, or those outside all subscriptions.
    pub(crate) async fn events(&self, request: &Request) -> Result<Vec<(String, Value)>, ArmError> {
        if !request
            .path
            .name(0)
            .is_some_and(|name| name.eq_ignore_ascii_case("management"))
        {
            let message = "There are events of the type 'management' only.";
            return Err(ArmError::new(ErrorCode::NOT_FOUND, message));
        }
        let wanted = Wanted::of(request.query("$filter"))?;
        let subscription = request.path.subscription.as_deref();
        self.list(subscription, &wanted, selected(request).as_deref())
            .await
    }

    /// Events with their sort keys.
    async fn list(
        &self,
        subscription: Option<&str>,
        wanted: &Wanted,
        selected: Option<&[String]>,
    ) -> Result<Vec<(String, Value)>, ArmError> {
        let log = activity::log(&*self.store, subscription)
            .await
            .map_err(store_error)?;
        let events = log.into_iter().filter_map(|(id, record)| {
            let event = Event::of(&record, &id);
            wanted.takes(&event).then(|| {
                let mut document = event.document(subscription.unwrap_or_default(), &self.tenant);
                if let (Some(selected), Some(fields)) = (selected, document.as_object_mut()) {
                    // The permission to see an event is checked by its id.
                    fields.retain(|name, _| {
                        name == "id" || selected.iter().any(|own| own.eq_ignore_ascii_case(name))
                    });
                }
                (newest_first(&record), document)
            })
        });
        Ok(events.collect())
    }
}

/// The sort key of an event: later ones first. It depends on the event only, so a page goes on where the one
/// before ended, even after new events.
fn newest_first(record: &ActivityRecord) -> String {
    let since_1970 = record.at.as_millisecond().max(0).unsigned_abs();
    format!("{:020} {}", u64::MAX - since_1970, record.request_id)
}

/// The fields of `$select`, if it is given.
fn selected(request: &Request) -> Option<Vec<String>> {
    let text = request.query("$select").filter(|text| !text.trim().is_empty())?;
    Some(text.split(',').map(|name| name.trim().to_owned()).collect())
}

impl Wanted {
    fn of(filter: Option<&str>) -> Result<Self, ArmError> {
        let words = "eventTimestamp ge '{time}', eventTimestamp le '{time}', or resourceGroupName, resourceId, resourceProvider, \
                     correlationId, caller or status eq '{value}'";
        let known = |term: &Term| match term {
            Term::Is(name, _) => FIELDS.contains(&name.as_str()),
            Term::AtLeast(name, _) | Term::AtMost(name, _) => name == "eventtimestamp",
            _ => false,
        };
        let mut wanted = Self::default();
        for term in terms(filter, known, words)? {
            match term {
                Term::AtLeast(_, text) => wanted.from = Some(time(&text)?),
                Term::AtMost(_, text) => wanted.until = Some(time(&text)?),
                Term::Is(name, value) => wanted.fields.push((name, value)),
                _ => {}
            }
        }
        Ok(wanted)
    }

    fn takes(&self, event: &Event<'_>) -> bool {
        let at = event.record.at;
        self.from.is_none_or(|from| from <= at)
            && self.until.is_none_or(|until| at <= until)
            && self.fields.iter().all(|(name, value)| {
                let own = match name.as_str() {
                    "resourcegroupname" => event.group(),
                    "resourceid" | "resourceuri" => &event.record.scope,
                    "resourceprovider" => event.provider(),
                    "correlationid" => &event.record.correlation_id,
                    "caller" => &event.record.principal_name,
                    _ => event.status(),
                };
                own.eq_ignore_ascii_case(value)
            })
    }
}

/// A time in a filter; without a zone it is UTC, as the Azure CLI writes it.
fn time(text: &str) -> Result<Timestamp, ArmError> {
    let zoned = text.parse::<Timestamp>().ok();
    let plain = || {
        let civil = text.parse::<civil::DateTime>().ok()?;
        Some(civil.to_zoned(TimeZone::UTC).ok()?.timestamp())
    };
    zoned.or_else(plain).ok_or_else(|| {
        let message = format!(
            "{} is no time; use one such as 2026-12-31T01:00:00Z.",
            quote(text)
        );
        ArmError::new(ErrorCode::BAD_REQUEST, message).target("$filter")
    })
}

/// An entry of the log as an event.
struct Event<'a> {
    record: &'a ActivityRecord,
    id: &'a str,
    path: Option<ResourcePath>,
}

impl<'a> Event<'a> {
    fn of(record: &'a ActivityRecord, id: &'a str) -> Self {
        Self {
            record,
            id,
            path: ResourcePath::parse(&record.scope).ok(),
        }
    }

    fn group(&self) -> &str {
        let group = self.path.as_ref().and_then(|path| path.resource_group.as_deref());
        group.unwrap_or_default()
    }

    /// The namespace of the action.
    fn provider(&self) -> &str {
        let action = &self.record.action;
        action
            .split_once('/')
            .map_or(action.as_str(), |(namespace, _)| namespace)
    }

    fn status(&self) -> &'static str {
        self.record.status.as_str()
    }

    fn document(&self, subscription: &str, tenant: &str) -> Value {
        let record = self.record;
        let named = |value: &str| json!({ "value": value, "localizedValue": value });
        let http_status = record.http_status.map(|status| status.to_string());
        let kind = self
            .path
            .as_ref()
            .map(ResourcePath::full_type)
            .unwrap_or_default();
        let mut properties = Map::new();
        for (name, value) in [
            ("statusCode", http_status.as_deref()),
            ("errorCode", record.code.as_deref()),
            ("requestId", Some(record.request_id.as_str())),
        ] {
            if let Some(value) = value {
                properties.insert(name.to_owned(), json!(value));
            }
        }
        let mut request = Map::new();
        if let Some(address) = record.address {
            request.insert("clientIpAddress".to_owned(), json!(address.to_string()));
        }
        // Events logged before the method was stored show it by their action, as far as possible.
        let method = record
            .method
            .as_deref()
            .or_else(|| match record.action.rsplit('/').next() {
                Some("delete") => Some("DELETE"),
                Some("action") => Some("POST"),
                _ => None,
            });
        if let Some(method) = method {
            request.insert("method".to_owned(), json!(method));
        }
        json!({
            "id": format!("{}/events/{}/ticks/{}", record.scope, self.id, record.at.as_millisecond()),
            "eventDataId": self.id,
            "correlationId": record.correlation_id,
            "operationId": record.operation.as_deref().unwrap_or(&record.correlation_id),
            "caller": record.principal_name,
            "claims": {
                "http://schemas.microsoft.com/identity/claims/objectidentifier": record.principal,
                "idtyp": if record.principal_type == "User" { "user" } else { "app" },
            },
            "authorization": { "action": record.action, "scope": record.scope },
            "category": named("Administrative"),
            "eventName": named("EndRequest"),
            "operationName": named(&record.action),
            "resourceProviderName": named(self.provider()),
            "resourceType": named(&kind),
            "resourceId": record.scope,
            "resourceGroupName": self.group(),
            "subscriptionId": subscription,
            "tenantId": tenant,
            "eventTimestamp": record.at.to_string(),
            "submissionTimestamp": record.at.to_string(),
            "status": named(self.status()),
            "subStatus": named(http_status.as_deref().unwrap_or_default()),
            "level": if record.status == ActivityStatus::Failed { "Error" } else { "Informational" },
            "httpRequest": request,
            "properties": properties,
        })
    }
}

#[cfg(test)]
mod tests {
    use control_store::Txn;

    use super::*;

    fn record(action: &str, status: ActivityStatus) -> ActivityRecord {
        ActivityRecord {
            v: 1,
            at: "2026-11-29T01:02:03Z".parse().unwrap(),
            principal: "0a".to_owned(),
            principal_name: "ada@example.test".to_owned(),
            principal_type: "User".to_owned(),
            address: Some([127, 0, 0, 1].into()),
            action: action.to_owned(),
            method: Some("PATCH".to_owned()),
            scope:
                "/subscriptions/s/resourceGroups/Rg/providers/Microsoft.ContainerService/managedClusters/c"
                    .to_owned(),
            status,
            http_status: Some(202),
            code: None,
            operation: None,
            correlation_id: "co".to_owned(),
            request_id: "r".to_owned(),
        }
    }

    #[test]
    fn events_are_chosen_as_the_azure_cli_asks_for_them() {
        let record = record(
            "Microsoft.ContainerService/managedClusters/write",
            ActivityStatus::Accepted,
        );
        let event = Event::of(&record, "i");
        for (text, takes) in [
            ("", true),
            (
                "eventTimestamp ge 2026-11-29T01:02:03 and eventTimestamp le 2026-11-29T01:02:03.000001",
                true,
            ),
            ("eventTimestamp ge '2026-11-29T01:02:04Z'", false),
            ("eventTimestamp le 2026-11-29T01:02:02+00:00", false),
            ("resourceGroupName eq 'rg' and caller eq 'ADA@example.test'", true),
            ("resourceGroupName eq 'other'", false),
            (
                "resourceProvider eq 'microsoft.containerservice' and status eq 'accepted'",
                true,
            ),
            ("correlationId eq 'co'", true),
            ("status eq 'Failed'", false),
        ] {
            assert_eq!(Wanted::of(Some(text)).unwrap().takes(&event), takes, "{text}");
        }
        for text in [
            "eventTimestamp ge 'x'",
            "colour eq 'red'",
            "caller ge 'a'",
            "atScope()",
        ] {
            assert_eq!(
                Wanted::of(Some(text)).unwrap_err().code,
                ErrorCode::BAD_REQUEST,
                "{text}"
            );
        }
    }

    #[tokio::test]
    async fn an_event_keeps_its_place_when_newer_ones_come_between_two_pages() {
        let store: std::sync::Arc<dyn control_store::Store> =
            std::sync::Arc::new(storage_redb::MemoryStore::new());
        let insights = crate::tests::insights(&store);
        let keep = async |at: &str, request_id: &str| {
            let record = ActivityRecord {
                at: at.parse().unwrap(),
                request_id: request_id.to_owned(),
                ..record("Microsoft.Test/things/write", ActivityStatus::Succeeded)
            };
            store
                .txn(Txn::default().with(record.put(Some("s"))))
                .await
                .unwrap();
        };
        let listed = async || -> Vec<String> {
            let events = insights.list(Some("s"), &Wanted::default(), None).await.unwrap();
            events.into_iter().map(|(key, _)| key).collect()
        };
        keep("2026-11-29T01:02:03Z", "a").await;
        keep("2026-11-29T01:02:03Z", "b").await;
        let before = listed().await;
        keep("2026-11-29T01:02:04Z", "c").await;
        let after = listed().await;
        assert!(
            before.iter().all(|key| after.contains(key)),
            "{before:?} {after:?}"
        );
        assert!(
            after.iter().min().is_some_and(|first| !before.contains(first)),
            "{after:?}"
        );
    }

    #[test]
    fn an_event_has_azures_form() {
        let record = record(
            "Microsoft.ContainerService/managedClusters/write",
            ActivityStatus::Accepted,
        );
        let document = Event::of(&record, "i").document("s", "t");
        assert_eq!(document["operationName"]["value"], record.action);
        assert_eq!(document["resourceGroupName"], "Rg");
        assert_eq!(
            document["resourceType"]["value"],
            "Microsoft.ContainerService/managedClusters"
        );
        assert_eq!(
            document["httpRequest"],
            json!({ "clientIpAddress": "127.0.0.1", "method": "PATCH" })
        );
        // A record made before the method was stored.
        let before = |action: &str| {
            let record = ActivityRecord {
                method: None,
                action: action.to_owned(),
                ..record.clone()
            };
            Event::of(&record, "i").document("s", "t")["httpRequest"]["method"].clone()
        };
        assert_eq!(before("N/t/write"), Value::Null, "a PUT or a PATCH");
        assert_eq!(before("N/t/delete"), "DELETE");
        assert_eq!(before("N/t/abort/action"), "POST");
        assert_eq!(
            document["properties"],
            json!({ "statusCode": "202", "requestId": "r" })
        );
        assert!(ResourcePath::parse(document["id"].as_str().unwrap()).is_ok());
    }
}
