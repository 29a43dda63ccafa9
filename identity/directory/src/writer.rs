//! Who writes, and why it is not written.

use std::pin::Pin;

use base_env::Env;
use control_store::{Op, Store, StoreError, Txn};

use crate::{MAX_LOGIN_CHARS, MAX_NAME_CHARS};

/// How often a change is decided because the records changed meanwhile.
const MAX_ATTEMPTS: usize = 16;

/// What a decision comes to, each with what its change answers.
pub(crate) enum Decided<T> {
    /// This is to be written, where nothing that it rests on changed.
    Write(Txn, T),
    /// All is as it is to be.
    Unchanged(T),
}

/// A decision on its way: it reads the records itself.
pub(crate) type Deciding<'a, T> =
    Pin<Box<dyn Future<Output = Result<Decided<T>, DirectoryError>> + Send + 'a>>;

/// Who writes to the directory, and what is written with each change: the line of the activity log.
pub struct Writer<'a> {
    /// Where.
    pub store: &'a dyn Store,
    /// Clock and identities.
    pub env: &'a Env,
    /// Written in each transaction of a change; writing it twice has to be as writing it once.
    pub note: Vec<Op>,
    /// Told that a change is made, and the note with it.
    pub done: Box<dyn Fn() + Send + Sync + 'a>,
}

/// Why the directory was not changed.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// The store failed, or the records kept changing.
    #[error("the directory cannot be read or written")]
    Store(#[from] StoreError),
    /// There is no such thing.
    #[error("there is no {what} '{id}'")]
    Missing {
        /// What it would be.
        what: &'static str,
        /// Its id.
        id: String,
    },
    /// Another one has it.
    #[error("another {what} has the {field} '{value}' already")]
    Taken {
        /// What has it.
        what: &'static str,
        /// Which field.
        field: &'static str,
        /// What it is.
        value: String,
    },
    /// A value is not of its form.
    #[error("{field} {must}")]
    Invalid {
        /// Which field.
        field: &'static str,
        /// What it has to be.
        must: String,
    },
    /// There are as many as there may be.
    #[error("there are {most} {what} already, which is the most")]
    Full {
        /// Of what.
        what: &'static str,
        /// How many there may be.
        most: usize,
    },
    /// It is a member already.
    #[error("'{member}' is a member of the group already")]
    MemberAlready {
        /// Which.
        member: String,
    },
    /// Nobody would be left who could give rights.
    #[error(
        "nobody would be left who could give rights at the whole stamp; make another owner at '/' before"
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

/// What was looked for by this id.
pub(crate) fn needed<T>(found: Option<T>, what: &'static str, id: &str) -> Result<T, DirectoryError> {
    found.ok_or_else(|| DirectoryError::missing(what, id))
}

/// What a change makes of a record; `None`: the same.
pub(crate) fn changed<R: Clone + PartialEq>(
    before: &R,
    change: impl FnOnce(&mut R) -> Result<(), DirectoryError>,
) -> Result<Option<R>, DirectoryError> {
    let mut record = before.clone();
    change(&mut record)?;
    Ok((record != *before).then_some(record))
}

impl Writer<'_> {
    /// A change without a line in the log: what the stamp does of its own accord.
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

    /// Has a change decided and writes it, with its line of the log; it is decided again where what it rests on changed meanwhile. `asked` is
    /// what the decision goes by beside the records: handed in, as what a closure captures could not be lent to a future again and again.
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

/// What people log in with.
///
/// # Errors
/// When it is empty, too long or has characters that nobody can see.
pub fn check_login(login: &str) -> Result<(), DirectoryError> {
    let length = login.chars().count();
    let plain = login.trim() == login && !login.chars().any(char::is_control);
    if (1..=MAX_LOGIN_CHARS).contains(&length) && plain {
        return Ok(());
    }
    let must = format!("has to have 1 to {MAX_LOGIN_CHARS} printable characters");
    Err(DirectoryError::invalid("login", must))
}
