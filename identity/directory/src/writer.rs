//! Who writes, and why it is not written.

use base_env::Env;
use control_store::{Op, Store, StoreError, Txn};

use crate::{MAX_LOGIN_CHARS, MAX_NAME_CHARS};

/// How often a change is decided again because the records changed meanwhile.
pub(crate) const MAX_ATTEMPTS: usize = 16;

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

    /// Commits; `false` where the records changed meanwhile and `attempt` may be followed by another.
    pub(crate) async fn commit(&self, mut txn: Txn, attempt: usize) -> Result<bool, DirectoryError> {
        txn.ops.extend(self.note.iter().cloned());
        match self.store.txn(txn).await {
            Ok(_) => {
                (self.done)();
                Ok(true)
            }
            Err(StoreError::Conflict { .. }) if attempt < MAX_ATTEMPTS => Ok(false),
            Err(error) => Err(error.into()),
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
