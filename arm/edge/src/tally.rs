//! Counters of the operations that clients have called since the service began, by kinds of clients: they
//! show whether an operation is used, and by which programs. The activity log holds writes only, and the
//! service's log is bounded.
//!
//! Always true: the table is made at start, from the providers' rows, and never grows; a client is one of
//! [`Client::ALL`], whatever its `User-Agent`; no other data of a request is kept. The counters end with the
//! process.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
};

use http::{HeaderMap, StatusCode, header};

/// A kind of client, by its `User-Agent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    /// The Azure CLI.
    Az,
    /// Azure's SDK for Python.
    Python,
    /// Azure's SDK for JavaScript.
    JavaScript,
    /// Terraform.
    Terraform,
    /// curl.
    Curl,
    /// This product's own commands.
    Landfall,
    /// Any other client.
    Other,
}

/// The mark of each client in `User-Agent`, in the order of the search: the Azure CLI contains the SDK for
/// Python and names both.
const MARKS: [(&str, Client); 6] = [
    ("AZURECLI/", Client::Az),
    ("azsdk-python-", Client::Python),
    ("azsdk-js-", Client::JavaScript),
    ("Terraform/", Client::Terraform),
    ("curl/", Client::Curl),
    ("landfall/", Client::Landfall),
];

/// The number of kinds.
const KINDS: usize = 7;
/// The number of bytes of a name that are searched.
const LOOKED_AT: usize = 512;

impl Client {
    /// All kinds, in the order of their counters.
    const ALL: [Self; KINDS] = [
        Self::Az,
        Self::Python,
        Self::JavaScript,
        Self::Terraform,
        Self::Curl,
        Self::Landfall,
        Self::Other,
    ];

    /// Its name where counters are shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Az => "az",
            Self::Python => "python",
            Self::JavaScript => "javascript",
            Self::Terraform => "terraform",
            Self::Curl => "curl",
            Self::Landfall => "landfall",
            Self::Other => "other",
        }
    }

    /// The client that a request's headers name.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let name = headers
            .get(header::USER_AGENT)
            .and_then(|name| name.to_str().ok());
        // A header's text is ASCII, so every byte is a boundary.
        let name = name.map(|name| &name[..name.len().min(LOOKED_AT)]);
        let Some(name) = name else { return Self::Other };
        let found = MARKS.iter().find(|(mark, _)| name.contains(mark));
        found.map_or(Self::Other, |(_, client)| *client)
    }
}

/// Calls of one operation by one kind of client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Called {
    /// The kind of client.
    pub client: Client,
    /// Calls that were answered with a status below 400.
    pub done: u64,
    /// Calls that were answered with 404: for some types that is the only correct response, as no resource of
    /// them exists.
    pub missing: u64,
}

/// Calls of one operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Calls {
    /// The namespace of its provider.
    pub namespace: &'static str,
    /// Its name in the API specification.
    pub operation: &'static str,
    /// Whether it is implemented, or answers 501.
    pub works: bool,
    /// The kinds of clients that have called it.
    pub called: Vec<Called>,
}

#[derive(Default)]
struct Counts {
    done: AtomicU64,
    missing: AtomicU64,
}

#[derive(Default)]
struct Row {
    works: bool,
    by: [Counts; KINDS],
}

/// The counters.
pub(crate) struct Tally(BTreeMap<(&'static str, &'static str), Row>);

impl Tally {
    /// Counters at zero for these operations: namespace, name, whether it is implemented.
    pub(crate) fn new(operations: impl IntoIterator<Item = (&'static str, &'static str, bool)>) -> Self {
        let mut rows: BTreeMap<_, Row> = BTreeMap::new();
        for (namespace, operation, works) in operations {
            rows.entry((namespace, operation)).or_default().works |= works;
        }
        Self(rows)
    }

    /// A call was answered.
    pub(crate) fn note(&self, operation: (&'static str, &'static str), client: Client, status: StatusCode) {
        let Some(row) = self.0.get(&operation) else { return };
        let counts = &row.by[client as usize];
        // The counters are independent of other memory, so relaxed ordering is enough.
        if status.as_u16() < 400 {
            counts.done.fetch_add(1, Ordering::Relaxed);
        } else if status == StatusCode::NOT_FOUND {
            counts.missing.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// All operations, in the order of their names, with their counts so far.
    pub(crate) fn told(&self) -> Vec<Calls> {
        let rows = self.0.iter().map(|(&(namespace, operation), row)| {
            let called = Client::ALL
                .into_iter()
                .zip(&row.by)
                .map(|(client, counts)| Called {
                    client,
                    done: counts.done.load(Ordering::Relaxed),
                    missing: counts.missing.load(Ordering::Relaxed),
                });
            Calls {
                namespace,
                operation,
                works: row.works,
                called: called
                    .filter(|called| called.done > 0 || called.missing > 0)
                    .collect(),
            }
        });
        rows.collect()
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn clients_are_told_by_their_names() {
        for (name, client) in [
            (
                "AZURECLI/2.91.0 (PIP) azsdk-python-core/1.35.0 Python/3.13.7 (Linux-6.8)",
                Client::Az,
            ),
            ("python/3.13.7 (Linux-6.8) AZURECLI/2.91.0 (PIP)", Client::Az),
            (
                "azsdk-python-mgmt-containerservice/41.6.0 Python/3.13.7",
                Client::Python,
            ),
            (
                "azsdk-js-arm-containerservice/25.5.0 core-rest-pipeline/1.22.0 Node/22.19.0 OS/(x64-Linux)",
                Client::JavaScript,
            ),
            (
                "Go/go1.25 hashicorp/go-azure-sdk HashiCorp Terraform/1.5.7 (+https://www.terraform.io)",
                Client::Terraform,
            ),
            ("curl/8.14.1", Client::Curl),
            ("landfall/0.1.0", Client::Landfall),
            ("python-requests/2.32", Client::Other),
            ("", Client::Other),
        ] {
            let headers = HeaderMap::from_iter([(header::USER_AGENT, HeaderValue::from_static(name))]);
            assert_eq!(Client::of(&headers), client, "{name}");
        }
        assert_eq!(Client::of(&HeaderMap::new()), Client::Other);
        let late = format!("{}curl/8", "x".repeat(LOOKED_AT));
        let late = HeaderMap::from_iter([(header::USER_AGENT, HeaderValue::try_from(late).unwrap())]);
        assert_eq!(Client::of(&late), Client::Other);
        for (place, client) in Client::ALL.into_iter().enumerate() {
            assert_eq!(client as usize, place);
        }
    }

    #[test]
    fn done_and_missing_are_counted_and_refusals_are_not() {
        let tally = Tally::new([("N", "A_Get", true), ("N", "A_Put", false), ("M", "A_Get", true)]);
        for status in [200, 202, 304, 404, 400, 403, 409, 500, 501] {
            tally.note(("N", "A_Get"), Client::Az, StatusCode::from_u16(status).unwrap());
        }
        tally.note(("N", "A_Get"), Client::Curl, StatusCode::OK);
        // Of no provider: not counted, and not added.
        tally.note(("N", "B_Get"), Client::Az, StatusCode::OK);
        let called = |client, done, missing| Called {
            client,
            done,
            missing,
        };
        let row = |namespace, operation, works, called| Calls {
            namespace,
            operation,
            works,
            called,
        };
        assert_eq!(
            tally.told(),
            [
                row("M", "A_Get", true, vec![]),
                row(
                    "N",
                    "A_Get",
                    true,
                    vec![called(Client::Az, 3, 1), called(Client::Curl, 1, 0)]
                ),
                row("N", "A_Put", false, vec![]),
            ]
        );
    }
}
