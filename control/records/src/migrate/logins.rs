//! Format 5 to 6: until then a login was looked for among all principals. Each gets an entry in the index of logins. Of two that log in with
//! the same, which no release has made, the first keeps it, as it was found before.

use control_store::{Store, Txn, put_record};
use serde_json::json;

use super::{
    change::{BATCH, parse},
    format::{MigrateError, damaged},
};

const FROM: u32 = 5;

/// Makes the index of logins. Returns how many entries were made.
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
            let login = text("login")?
                .to_ascii_lowercase()
                .replace('%', "%25")
                .replace('/', "%2f");
            let index = format!("/directory/login/{login}");
            let written = txn
                .ops
                .iter()
                .any(|op| matches!(op, control_store::Op::Put(key, _) if *key == index));
            if written || store.get(&index).await?.is_some() {
                continue;
            }
            let value = json!({ "v": 1, "principal": text("objectId")? });
            txn = txn.with(put_record(index, &value));
            made += 1;
        }
        if !txn.ops.is_empty() {
            store.txn(txn).await?;
        }
    }
    Ok(made)
}
