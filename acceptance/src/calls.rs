//! Counts which operations of the ARM API were called by which real client, in all stamps of a run together,
//! from the services' own counters (`GET /calls` of the admin socket).
//!
//! Counters are lost with their process, and processes are killed here. So they are read continuously, and
//! before each planned end; the last reading of a process counts. Calls in the last moment before an
//! unplanned end are missing; no call is counted that did not happen.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    sync::{
        Mutex, PoisonError,
        mpsc::{RecvTimeoutError, channel},
    },
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// How often the counters of a stamp are read.
const EACH: Duration = Duration::from_millis(500);
/// Time limit of a response.
const BOUND: Duration = Duration::from_secs(10);
/// The namespace whose operations must all be called.
const NAMESPACE: &str = "Microsoft.ContainerService";
/// Clients as their makers release them, by the names that the service has for them.
const REAL: [&str; 5] = ["az", "python", "javascript", "terraform", "curl"];
/// Operations on resources that a stamp never has: a 404 is their correct response.
const OF_NOTHING: [&str; 5] = [
    "ManagedClusters_GetMeshRevisionProfile",
    "ManagedClusters_GetMeshUpgradeProfile",
    "PrivateEndpointConnections_Get",
    "PrivateEndpointConnections_Update",
    "ResolvePrivateLinkServiceId_POST",
];

/// The last reading of each process.
#[derive(Default)]
pub(crate) struct Ledger(Mutex<BTreeMap<String, Value>>);

impl Ledger {
    /// Reads the counters of a stamp, if its service runs.
    pub(crate) fn read(&self, stamp: &str) {
        let Ok(told) = ask(stamp) else { return };
        let process = format!("{stamp} {}", told["process"]);
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(process, told);
    }

    /// Runs a closure, and reads the counters of a stamp meanwhile.
    pub(crate) fn meanwhile<T>(&self, stamp: &str, act: impl FnOnce() -> T) -> T {
        // Dropped when it is done, also by a panic.
        let (acts, ended) = channel::<()>();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                while ended.recv_timeout(EACH) == Err(RecvTimeoutError::Timeout) {
                    self.read(stamp);
                }
                self.read(stamp);
            });
            let outcome = act();
            drop(acts);
            outcome
        })
    }

    /// All together.
    pub(crate) fn sum(&self) -> Sum {
        let told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Sum::of(told.values())
    }
}

/// `GET /calls` of a stamp's service.
fn ask(stamp: &str) -> Result<Value> {
    let socket = Path::new("/run/landfall").join(stamp).join("admin.sock");
    let mut socket = UnixStream::connect(socket)?;
    socket.set_read_timeout(Some(BOUND))?;
    socket.set_write_timeout(Some(BOUND))?;
    // With this version, the response is complete when its connection ends.
    socket.write_all(b"GET /calls HTTP/1.0\r\nHost: landfall\r\n\r\n")?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no answer")?;
    let status = head.split(' ').nth(1);
    ensure!(status == Some("200"), "{head}");
    Ok(serde_json::from_str(body)?)
}

/// An operation, in all stamps.
#[derive(Debug, Default, PartialEq, Eq)]
struct Operation {
    works: bool,
    /// By client: the number of successful calls, and of those answered with 404.
    clients: BTreeMap<String, (u64, u64)>,
}

impl Operation {
    /// The clients that count for it, with how often.
    fn real(&self, name: &str) -> impl Iterator<Item = (&str, u64)> {
        let of_nothing = OF_NOTHING.contains(&name);
        let clients = self
            .clients
            .iter()
            .filter(|(client, _)| REAL.contains(&client.as_str()));
        clients
            .map(move |(client, (done, missing))| {
                let calls = if of_nothing { done + missing } else { *done };
                (client.as_str(), calls)
            })
            .filter(|(_, calls)| *calls > 0)
    }
}

/// The calls of each namespace, by name.
#[derive(Debug, Default)]
pub(crate) struct Sum(BTreeMap<String, BTreeMap<String, Operation>>);

impl Sum {
    fn of<'a>(all: impl Iterator<Item = &'a Value>) -> Self {
        let mut sum = Self::default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        for operation in all.flat_map(|told| told["operations"].as_array().into_iter().flatten()) {
            let namespace = sum.0.entry(text(&operation["namespace"])).or_default();
            let own = namespace.entry(text(&operation["operation"])).or_default();
            own.works |= operation["works"] == true;
            for (client, counts) in operation["clients"].as_object().into_iter().flatten() {
                let (done, missing) = own.clients.entry(client.clone()).or_default();
                *done += counts["done"].as_u64().unwrap_or_default();
                *missing += counts["missing"].as_u64().unwrap_or_default();
            }
        }
        sum
    }

    /// Operations that work and that no real client has called.
    fn uncalled(operations: &BTreeMap<String, Operation>) -> BTreeSet<&str> {
        let working = operations.iter().filter(|(_, operation)| operation.works);
        working
            .filter(|(name, operation)| operation.real(name).next().is_none())
            .map(|(name, _)| name.as_str())
            .collect()
    }

    /// A line for each operation that works, with its clients; and one for each other namespace.
    pub(crate) fn table(&self) -> String {
        let mut table = format!("operations of {NAMESPACE} that work, and calls of them:\n");
        for (name, operation) in self.0.get(NAMESPACE).into_iter().flatten() {
            if !operation.works {
                continue;
            }
            let clients: Vec<String> = operation
                .real(name)
                .map(|(client, calls)| format!("{client} {calls}"))
                .collect();
            let clients = if clients.is_empty() {
                "NONE".to_owned()
            } else {
                clients.join(", ")
            };
            // Writing to a text never fails.
            let _ = writeln!(table, "  {name:<60} {clients}");
        }
        for (namespace, operations) in self.0.iter().filter(|(name, _)| *name != NAMESPACE) {
            let working = operations.values().filter(|operation| operation.works).count();
            let called = working - Self::uncalled(operations).len();
            let _ = writeln!(table, "  {namespace}: {called} of {working}");
        }
        table.trim_end().to_owned()
    }

    /// Each operation that works was called by a real client.
    pub(crate) fn check(&self) -> Result<()> {
        let own = self.0.get(NAMESPACE);
        let own = own.context("no service has told what was called")?;
        let uncalled = Self::uncalled(own);
        ensure!(uncalled.is_empty(), "no client has called {uncalled:?}");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn operation(name: &str, works: bool, clients: &Value) -> Value {
        json!({ "namespace": NAMESPACE, "operation": name, "works": works, "clients": clients })
    }

    #[test]
    fn processes_are_summed_up_and_only_real_clients_count() {
        let first = json!({ "operations": [
            operation("A_Get", true, &json!({ "az": { "done": 2, "missing": 1 } })),
            operation("A_Put", true, &json!({ "landfall": { "done": 9, "missing": 0 } })),
            operation("A_Stop", false, &json!({})),
        ]});
        let second = json!({ "operations": [
            operation("A_Get", true, &json!({ "az": { "done": 1, "missing": 0 }, "python": { "done": 1, "missing": 0 } })),
            operation("A_Put", true, &json!({ "other": { "done": 9, "missing": 0 }, "curl": { "done": 0, "missing": 3 } })),
        ]});
        let sum = Sum::of([&first, &second].into_iter());
        let table = sum.table();
        let line = |name: &str| {
            let line = table.lines().find(|line| line.contains(name));
            line.map(|line| line.split_whitespace().skip(1).collect::<Vec<_>>().join(" "))
        };
        assert_eq!(line("A_Get").unwrap(), "az 3, python 1");
        assert_eq!(line("A_Put").unwrap(), "NONE");
        assert_eq!(line("A_Stop"), None);
        let said = sum.check().unwrap_err().to_string();
        assert!(
            said.contains("A_Put") && !said.contains("A_Get") && !said.contains("A_Stop"),
            "{said}"
        );
    }

    #[test]
    fn of_nothing_that_there_is_none_is_the_answer() {
        let told = |missing: u64| {
            let clients = json!({ "python": { "done": 0, "missing": missing } });
            json!({ "operations": [operation("PrivateEndpointConnections_Get", true, &clients)] })
        };
        let (none, one) = (told(0), told(1));
        assert!(Sum::of([&none].into_iter()).check().is_err());
        Sum::of([&one].into_iter()).check().unwrap();
        assert!(Sum::of(std::iter::empty()).check().is_err());
    }

    #[test]
    fn a_stamp_without_a_service_tells_nothing() {
        let ledger = Ledger::default();
        assert_eq!(ledger.meanwhile("no-such-stamp", || 7), 7);
        assert!(ledger.sum().check().is_err());
    }
}
