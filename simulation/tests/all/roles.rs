//! Each operation of a stamp has a row in the table of permissions, which the roles' own test fills for every
//! kind of principal.

use arm_kernel::GENERIC;
use fabric_sim::SimOptions;
use simulation::{Stamp, run};

const TABLE: &str = include_str!(
    "../../../providers/authorization/tests/authorization/snapshots/authorization__matrix__everybody_may.snap"
);

/// A row: permitted principals, method, path, action, operation.
fn row(line: &str) -> Option<[&str; 5]> {
    let cells: Vec<&str> = line.split_whitespace().collect();
    cells.try_into().ok()
}

#[test]
fn every_operation_that_is_routed_has_a_row_for_every_kind_of_principal() {
    let routes = run(async || {
        let mut stamp = Stamp::new(1, SimOptions::default()).await?;
        stamp.start()?;
        let routes = stamp.routes().to_vec();
        stamp.kill().await?;
        Ok(routes)
    })
    .unwrap();
    assert!(routes.len() > 200, "{}", routes.len());
    let rows: Vec<[&str; 5]> = TABLE.lines().filter_map(row).collect();
    let missing: Vec<String> = routes
        .iter()
        .filter(|(namespace, route)| {
            let provider = format!("/providers/{namespace}/");
            !rows.iter().any(|[_, method, path, _, name]| {
                *name == route.name
                    && *method == route.verb.method()
                    // A path without a provider belongs to one namespace, which it does not name.
                    && (path.contains(&provider) || *namespace == GENERIC)
            })
        })
        .map(|(namespace, route)| format!("{namespace} {} {}", route.verb.method(), route.name))
        .collect();
    assert!(missing.is_empty(), "without a row:\n{}", missing.join("\n"));
}
