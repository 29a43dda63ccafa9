//! The writer of the directory, and its errors.

use std::pin::Pin;

use base_env::Env;
use control_store::{Op, Store, StoreError, Txn};

use crate::{MAX_LOGIN_CHARS, MAX_NAME_CHARS};

/// How often a change is decided because the records changed meanwhile.
const MAX_ATTEMPTS: usize = 16;

/// The outcome of a decision, each with the result of the change.
pub(crate) enum Decided<T> {
    /// To be written, if none of the records that it depends on changed.
    Write(Txn, T),
    /// No change is needed.
    Unchanged(T),
}

/// A decision in progress: it reads the records itself.
pub(crate) type Deciding<'a, T> =
    Pin<Box<dyn Future<Output = Result<Decided<T>, DirectoryError>> + Send + 'a>>;

/// The author of changes to the directory, and the activity log entry that is written with each.
pub struct Writer<'a> {
    /// Where.
    pub store: &'a dyn Store,
    /// Clock and identities.
    pub env: &'a Env,
    /// Written in each transaction of a change; writing it twice must have the same effect as once.
    pub note: Vec<Op>,
    /// Called after a change was committed together with the note.
    pub done: Box<dyn Fn() + Send + Sync + 'a>,
}

/// Why the directory was not changed.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// The store failed, or the records kept changing.
    #[error("the directory cannot be read or written")]
    Store(#[from] StoreError),
    /// The object does not exist.
    #[error("there is no {what} '{id}'")]
    Missing {
        /// Its kind.
        what: &'static str,
        /// Its id.
        id: String,
    },
    /// Another one has it.
    #[error("another {what} has the {field} '{value}' already")]
    Taken {
        /// The kind of the object that has it.
        what: &'static str,
        /// Which field.
        field: &'static str,
        /// The value.
        value: String,
    },
    /// A value is invalid.
    #[error("{field} {must}")]
    Invalid {
        /// Which field.
        field: &'static str,
        /// The valid form.
        must: String,
    },
    /// The limit is reached.
    #[error("there are {most} {what} already, which is the most")]
    Full {
        /// The kind of the objects.
        what: &'static str,
        /// The limit.
        most: usize,
    },
    /// It is a member already.
    #[error("'{member}' is a member of the group already")]
    MemberAlready {
        /// Which.
        member: String,
    },
    /// No administrator would be left.
    #[error(
        "no principal would be left that can assign roles at the whole stamp; make another owner at '/' before"
    )]
    LastAdmin,
}

impl DirectoryError {
    pub(crate) fn missing(what: &'static str, id: &str) -> Self {
        Self::Missing {
            what,
            id: id.chars().take(64).collect(),
        }
    }

    pub(crate) fn invalid(field: &'static str, must: impl Into<String>) -> Self {
        Self::Invalid {
            field,
            must: must.into(),
        }
    }
}

/// The record with this id, or the error that it does not exist.
pub(crate) fn needed<T>(found: Option<T>, what: &'static str, id: &str) -> Result<T, DirectoryError> {
    found.ok_or_else(|| DirectoryError::missing(what, id))
}

/// The changed record; `None` where it equals the old one.
pub(crate) fn changed<R: Clone + PartialEq>(
    before: &R,
    change: impl FnOnce(&mut R) -> Result<(), DirectoryError>,
) -> Result<Option<R>, DirectoryError> {
    let mut record = before.clone();
    change(&mut record)?;
    Ok((record != *before).then_some(record))
}

impl Writer<'_> {
    /// A writer without log entries: for changes by the service itself.
    pub fn unnoted<'a>(store: &'a dyn Store, env: &'a Env) -> Writer<'a> {
        Writer {
            store,
            env,
            note: Vec::new(),
            done: Box::new(|| ()),
        }
    }

    /// A new object id.
    pub(crate) fn id(&self) -> String {
        self.env.ids.uuid().to_string()
    }

    /// Decides and writes a change with its log entry; decides again where the records changed meanwhile.
    /// `asked` is the decision's input beside the records: passed as an argument, because data captured by a
    /// closure could not be lent to a future repeatedly.
    pub(crate) async fn decide<S: Send, T: Send>(
        &self,
        mut asked: S,
        decision: impl for<'a> Fn(&'a Self, &'a mut S) -> Deciding<'a, T> + Send + Sync,
    ) -> Result<T, DirectoryError> {
        let mut attempt = 1;
        loop {
            let (mut txn, answer) = match decision(self, &mut asked).await? {
                Decided::Write(txn, answer) => (txn, answer),
                Decided::Unchanged(answer) => return Ok(answer),
            };
            txn.ops.extend(self.note.iter().cloned());
            match self.store.txn(txn).await {
                Ok(_) => {
                    (self.done)();
                    return Ok(answer);
                }
                Err(StoreError::Conflict { .. }) if attempt < MAX_ATTEMPTS => attempt += 1,
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// A name for people.
pub(crate) fn check_name(field: &'static str, name: &str) -> Result<(), DirectoryError> {
    let length = name.chars().count();
    if (1..=MAX_NAME_CHARS).contains(&length) && !name.chars().any(char::is_control) {
        return Ok(());
    }
    let must = format!("has to have 1 to {MAX_NAME_CHARS} characters, without control characters");
    Err(DirectoryError::invalid(field, must))
}

/// Checks the name that a person logs in with.
///
/// # Errors
/// When it is empty, too long or has invisible characters.
pub fn check_login(login: &str) -> Result<(), DirectoryError> {
    let length = login.chars().count();
    let plain = login.trim() == login && !login.chars().any(char::is_control);
    if (1..=MAX_LOGIN_CHARS).contains(&length) && plain {
        return Ok(());
    }
    let must = format!("has to have 1 to {MAX_LOGIN_CHARS} printable characters");
    Err(DirectoryError::invalid("login", must))
}
