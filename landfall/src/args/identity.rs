//! Arguments of `landfall identity`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `landfall identity`.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Whoever is named may be named by object id, by what they log in with, or by a display name that only one has.
What somebody may do is given with `landfall access`.

Examples:
  landfall identity user create ada@example.org --display-name 'Ada Lovelace'
  landfall identity app create ci
  landfall identity secret add ci
  landfall identity group create operators
  landfall identity group member add operators ada@example.org")]
pub(crate) enum Identity {
    /// People
    #[command(subcommand)]
    User(User),
    /// Groups of people, applications and groups: what is given to a group its members have
    #[command(subcommand)]
    Group(Group),
    /// Applications: programs that log in as themselves
    #[command(subcommand)]
    App(Application),
    /// Service principals: what applications and managed identities are to this stamp
    #[command(subcommand)]
    Sp(ServicePrincipal),
    /// Secrets of applications and service principals
    #[command(subcommand)]
    Secret(Secret),
    /// Certificates of applications and service principals
    #[command(subcommand)]
    Certificate(Certificate),
    /// Tokens of other issuers that an application may log in with
    #[command(subcommand)]
    Federated(Federated),
    /// Have the next key sign tokens, as soon as everybody can know it; it is also done by itself, every ninety days
    RotateKeys(RotateKeys),
}

/// `landfall identity rotate-keys`.
#[derive(Debug, Args)]
#[command(after_help = "\
A key is published for a day before it signs, and for an hour after it signed last, so nobody is refused because of it.

With --revoke all keys end at once, and every token with them: for when somebody else has one. Programs and `az` get themselves \
others; who is logged in stays so.")]
pub(crate) struct RotateKeys {
    /// End all keys now, and every token with them
    #[arg(long)]
    pub(crate) revoke: bool,

    /// Do not ask before tokens are ended
    #[arg(long, short)]
    pub(crate) yes: bool,
}

/// `landfall identity user`.
#[derive(Debug, Subcommand)]
pub(crate) enum User {
    /// List all
    List,
    /// Show one, with the groups that it is in
    Show {
        /// Whom
        user: String,
    },
    /// Make one; the password is made and printed once, unless a file has it
    Create(UserCreate),
    /// Remove one, with its memberships
    Delete {
        /// Whom
        user: String,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
    /// Let one log in again
    Enable {
        /// Whom
        user: String,
    },
    /// Refuse one from the next request on
    Disable {
        /// Whom
        user: String,
    },
    /// Give one another password, and end its sessions; it is made and printed once, unless a file has it
    ResetPassword(ResetPassword),
    /// End all sessions of one: it has to log in again
    Revoke {
        /// Whom
        user: String,
    },
}

/// `landfall identity user create`.
#[derive(Debug, Args)]
pub(crate) struct UserCreate {
    /// What it logs in with, e.g. ada@example.org
    pub(crate) login: String,
    /// What people call it [default: the part before the @]
    #[arg(long, value_name = "NAME")]
    pub(crate) display_name: Option<String>,
    /// A file with the password in its first line; `-` is standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,
}

/// `landfall identity user reset-password`.
#[derive(Debug, Args)]
pub(crate) struct ResetPassword {
    /// Whose
    pub(crate) user: String,
    /// A file with the password in its first line; `-` is standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,
}

/// `landfall identity group`.
#[derive(Debug, Subcommand)]
pub(crate) enum Group {
    /// List all
    List,
    /// Show one, with its members
    Show {
        /// Which
        group: String,
    },
    /// Make one without members
    Create {
        /// Its name; no two groups have the same
        display_name: String,
        /// What it is for
        #[arg(long, value_name = "TEXT")]
        description: Option<String>,
    },
    /// Remove one; its members lose what it gave them
    Delete {
        /// Which
        group: String,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
    /// Its members
    #[command(subcommand)]
    Member(Member),
}

/// `landfall identity group member`.
#[derive(Debug, Subcommand)]
pub(crate) enum Member {
    /// List them
    List {
        /// Of which group
        group: String,
    },
    /// Put a user, a service principal or a group into a group
    Add {
        /// Which group
        group: String,
        /// Whom
        member: String,
    },
    /// Take one out of a group
    Remove {
        /// Which group
        group: String,
        /// Whom
        member: String,
    },
}

/// `landfall identity app`.
#[derive(Debug, Subcommand)]
pub(crate) enum Application {
    /// List all
    List,
    /// Show one, with what it can prove itself with
    Show {
        /// Which
        app: String,
    },
    /// Make one, and its service principal
    Create {
        /// What people call it
        display_name: String,
        /// A further name of it, e.g. api://shop
        #[arg(long = "identifier-uri", value_name = "URI")]
        identifier_uris: Vec<String>,
    },
    /// Remove one, with its service principal
    Delete {
        /// Which
        app: String,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
}

/// `landfall identity sp`.
#[derive(Debug, Subcommand)]
pub(crate) enum ServicePrincipal {
    /// List all
    List,
    /// Show one, with the groups that it is in
    Show {
        /// Which
        sp: String,
    },
    /// Make the service principal of an application that has none
    Create {
        /// Which application
        app: String,
    },
    /// Remove one; its application stays
    Delete {
        /// Which
        sp: String,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
    /// Let one log in again
    Enable {
        /// Which
        sp: String,
    },
    /// Refuse one from the next request on
    Disable {
        /// Which
        sp: String,
    },
    /// Make what it was issued good for nothing: it has to log in again
    Revoke {
        /// Which
        sp: String,
    },
}

/// `landfall identity secret`.
#[derive(Debug, Subcommand)]
pub(crate) enum Secret {
    /// List them, without themselves
    List {
        /// Of which application or service principal
        of: String,
    },
    /// Make one more; it is printed now and never again
    Add {
        /// For which application or service principal
        of: String,
        /// For how many days it is good
        #[arg(long, value_name = "DAYS", default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=3650))]
        days: u32,
        /// What it is for
        #[arg(long, value_name = "TEXT", default_value = "landfall")]
        display_name: String,
    },
    /// Remove one
    Remove {
        /// Of which application or service principal
        of: String,
        /// Its key id, as the list has it
        key: String,
    },
    /// Make another one and remove all that there were; that of this stamp's own application is kept where `landfall` finds it
    Reset {
        /// Of which application or service principal
        of: String,
        /// For how many days it is good [default: 365; for this stamp's own application 3650]
        #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=3650))]
        days: Option<u32>,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
}

/// `landfall identity certificate`.
#[derive(Debug, Subcommand)]
pub(crate) enum Certificate {
    /// List them
    List {
        /// Of which application or service principal
        of: String,
    },
    /// Add one
    Add {
        /// For which application or service principal
        of: String,
        /// A PEM file with the certificate; a private key beside it is not sent
        file: PathBuf,
        /// What it is for
        #[arg(long, value_name = "TEXT", default_value = "landfall")]
        display_name: String,
    },
    /// Remove one
    Remove {
        /// Of which application or service principal
        of: String,
        /// Its key id, as the list has it
        key: String,
    },
}

/// `landfall identity federated`.
#[derive(Debug, Subcommand)]
pub(crate) enum Federated {
    /// List them
    List {
        /// Of which application
        app: String,
    },
    /// Add one
    Add {
        /// For which application
        app: String,
        /// What it is called
        #[arg(long, value_name = "NAME")]
        credential: String,
        /// The `iss` of its tokens, exactly
        #[arg(long, value_name = "URL")]
        issuer: String,
        /// The `sub` of its tokens, exactly
        #[arg(long, value_name = "TEXT")]
        subject: String,
        /// The `aud` of its tokens
        #[arg(long, value_name = "TEXT", default_value = "api://AzureADTokenExchange")]
        audience: String,
    },
    /// Remove one
    Remove {
        /// Of which application
        app: String,
        /// Its name or id
        credential: String,
    },
}
