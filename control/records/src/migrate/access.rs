//! Format 4 to 5: until then every principal might do everything. Those that there are keep that: each is made an owner of the stamp, by
//! an assignment like any other, which can be taken away. Who comes later has nothing until it is given.

use control_store::{Op, Store, Txn};
use serde_json::{Value, json};

use super::{
    change::{BATCH, parse},
    format::{MigrateError, damaged},
};

const FROM: u32 = 4;
const OWNER: &str = "8e3af657-a8ff-443c-a75c-2fe8c4bcb635";

/// Makes every principal an owner. Returns how many were made.
pub(super) async fn run(store: &dyn Store) -> Result<usize, MigrateError> {
    let mut made = 0;
    let (principals, _) = store.list("/principals/").await?;
    for batch in principals.chunks(BATCH) {
        let mut txn = Txn::default();
        for (key, record) in batch {
            let principal = parse(key, FROM, record)?;
            let text = |member: &str| {
                let found = principal[member].as_str();
                found.ok_or_else(|| damaged(key, FROM, &format!("{member} is missing")))
            };
            let (id, kind) = (text("objectId")?.to_ascii_lowercase(), text("kind")?);
            let created = text("createdAt")?;
            let assignment = format!("/access/assignment/{id}/{OWNER}");
            if store.get(&assignment).await?.is_some() {
                continue;
            }
            let name = name(&id).ok_or_else(|| damaged(key, FROM, "objectId is no GUID"))?;
            let value = json!({
                "v": 1, "name": name, "principal": id,
                "principalType": if kind == "User" { "User" } else { "ServicePrincipal" },
                "role": OWNER, "scope": "/",
                "createdOn": created, "createdBy": "", "updatedOn": created, "updatedBy": "",
            });
            let index = json!({ "v": 1, "assignment": assignment });
            txn.ops.push(put(assignment, &value));
            txn.ops
                .push(put(format!("/access/assignment-name/{name}"), &index));
            made += 1;
        }
        if !txn.ops.is_empty() {
            store.txn(txn).await?;
        }
    }
    Ok(made)
}

/// The name of the assignment that makes a principal an owner.
fn name(principal: &str) -> Option<String> {
    let (id, role): (uuid::Uuid, uuid::Uuid) = (principal.parse().ok()?, OWNER.parse().ok()?);
    Some(uuid::Uuid::from_u128(id.as_u128() ^ role.as_u128()).to_string())
}

fn put(key: String, value: &Value) -> Op {
    control_store::put_record(key, value)
}
