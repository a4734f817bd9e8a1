//! What the server says is wrong, as a fault: who must act, and what they can do.
//!
//! Numbers are those of `sys.messages`. Messages are shown only where they name objects and logins: many others quote values of rows ("Conversion failed when
//! converting the varchar value '…'"), which belong into no log.

use caudal_core::{Error, Fault};
use tiberius::error::TokenError;

/// What was done, and what came of it.
pub(crate) fn classify(what: &str, error: tiberius::error::Error) -> Error {
    use tiberius::error::Error as Tds;
    match error {
        Tds::Server(refusal) => refused(what, &refusal),
        Tds::Io { kind, .. } => Error::transient(format!("{what}: the connection broke"))
            .because(std::io::Error::from(kind))
            .hint("look at the network or VPN between, and at the server's log"),
        Tds::Routing { host, port } => Error::config(format!("{what}: the server is elsewhere"))
            .hint(format!("name the address that it gives: {host}, port {port}")),
        Tds::Utf8 | Tds::Utf16 | Tds::Encoding(_) => {
            Error::data(format!("{what}: a text is not in its character set"))
                .hint("convert the column in a `query`")
        }
        Tds::Protocol(_) | Tds::Conversion(_) | Tds::ParseInt(_) => {
            // What it says may quote what was read.
            Error::transient(format!("{what}: the server's answer is not understood"))
        }
        _ => Error::transient(format!("{what}: the connection broke")),
    }
}

/// Numbers, their fault, what they mean, and what to do.
type Known = (u32, Fault, &'static str, &'static str);

const KNOWN: &[Known] = &[
    (
        1205,
        Fault::Transient,
        "it was chosen as the victim of a deadlock",
        "it is tried again; `isolation: snapshot` or `read_uncommitted` takes no locks",
    ),
    (
        1222,
        Fault::Transient,
        "a lock was not released in time",
        "it is tried again; raise `lock_timeout`, or use `isolation: snapshot`",
    ),
    (3960, Fault::Transient, "the snapshot was in conflict with a change", "it is tried again"),
    (3961, Fault::Transient, "a table's shape changed during the snapshot", "it is tried again"),
    (
        3952,
        Fault::Config,
        "the database does not allow snapshots",
        "ALTER DATABASE <database> SET ALLOW_SNAPSHOT_ISOLATION ON; or another `isolation`",
    ),
    (18401, Fault::Transient, "the server is upgrading itself", "it is tried again"),
    (18451, Fault::Transient, "the server is shutting down", "it is tried again"),
    (6005, Fault::Transient, "the server is shutting down", "it is tried again"),
    (17142, Fault::Transient, "the server is paused", "it is tried again"),
    (
        18456,
        Fault::Config,
        "the login failed",
        "look at `user` and `password`, whether the server allows SQL logins (mixed mode), and whether the login is enabled",
    ),
    (18452, Fault::Config, "the login is not trusted", "use a SQL login: Windows accounts are not supported"),
    (18486, Fault::Config, "the login is locked", "ALTER LOGIN <login> WITH PASSWORD = '…' UNLOCK"),
    (
        18487,
        Fault::Config,
        "the login's password has expired",
        "ALTER LOGIN <login> WITH PASSWORD = '…', CHECK_EXPIRATION = OFF",
    ),
    (18488, Fault::Config, "the login's password must be changed", "ALTER LOGIN <login> WITH PASSWORD = '…'"),
    (
        4060,
        Fault::Config,
        "the database is not there, or this login may not open it",
        "look at `database`; USE <database>; CREATE USER <login> FOR LOGIN <login>",
    ),
    (911, Fault::Config, "the database is not there", "look at `database`"),
    (
        916,
        Fault::Config,
        "this login may not open the database",
        "USE <database>; CREATE USER <login> FOR LOGIN <login>",
    ),
    (
        208,
        Fault::Config,
        "there is no such table or view, or it is not visible",
        "look at `from` or `query`, and at `database`",
    ),
    (207, Fault::Config, "there is no such column", "look at `query`, `key` and `column`"),
    (229, Fault::Config, "SELECT is not allowed", "GRANT SELECT ON <table> TO <user>"),
    (230, Fault::Config, "SELECT is not allowed on a column", "GRANT SELECT ON <table> TO <user>"),
    (297, Fault::Config, "this user may not do that", "see the permissions in docs/sqlserver.md"),
    (300, Fault::Config, "this user may not do that", "see the permissions in docs/sqlserver.md"),
    (
        1033,
        Fault::Config,
        "ORDER BY is not possible here",
        "leave ORDER BY out of `query`: rows need no order",
    ),
    (8155, Fault::Config, "a column of `query` has no name", "give it one: SELECT count(*) AS n"),
    (
        8156,
        Fault::Config,
        "two columns of `query` have the same name",
        "name columns rather than `*`, each by another name",
    ),
    (
        102,
        Fault::Config,
        "`query` is not understood",
        "run it by hand; WITH and ORDER BY are not possible: put such a query into a view",
    ),
    (
        156,
        Fault::Config,
        "`query` is not understood",
        "run it by hand; WITH and ORDER BY are not possible: put such a query into a view",
    ),
    (
        22105,
        Fault::Config,
        "change tracking is not enabled",
        "ALTER TABLE <table> ENABLE CHANGE_TRACKING, after ALTER DATABASE <database> SET CHANGE_TRACKING = ON",
    ),
    (
        313,
        Fault::Config,
        "the log sequence numbers are outside of what change data capture keeps",
        "read all rows again: `caudal poll SOURCE TABLE --force`",
    ),
    (701, Fault::Transient, "the server is short of memory", "it is tried again"),
    (
        1204,
        Fault::Transient,
        "the server has no lock to give",
        "it is tried again; `isolation: snapshot` takes none",
    ),
    (8645, Fault::Transient, "the server had no memory for the query in time", "it is tried again"),
    (8628, Fault::Transient, "the query was not optimised in time", "it is tried again"),
    (40197, Fault::Transient, "the service is busy", "it is tried again"),
    (40501, Fault::Transient, "the service is busy", "it is tried again"),
    (40613, Fault::Transient, "the database is not available", "it is tried again"),
    (49918, Fault::Transient, "the service is busy", "it is tried again"),
    (49919, Fault::Transient, "the service is busy", "it is tried again"),
    (49920, Fault::Transient, "the service is busy", "it is tried again"),
    (10928, Fault::Transient, "the database's limit of requests is reached", "it is tried again"),
    (10929, Fault::Transient, "the service is busy", "it is tried again"),
    (
        245,
        Fault::Data,
        "a value cannot be converted",
        "look for it with TRY_CONVERT; correct the row, or `query`",
    ),
    (
        8114,
        Fault::Data,
        "a value cannot be converted",
        "look for it with TRY_CONVERT; correct the row, or `query`",
    ),
    (241, Fault::Data, "a text is no date", "look for it with TRY_CONVERT; correct the row, or `query`"),
    (242, Fault::Data, "a value is no date", "look for it with TRY_CONVERT; correct the row, or `query`"),
    (8115, Fault::Data, "a value is too large for its type", "look for it; correct the row, or `query`"),
    (8134, Fault::Data, "a division by zero", "use NULLIF in `query`"),
];

fn refused(what: &str, refusal: &TokenError) -> Error {
    let (number, class) = (refusal.code(), refusal.class());
    let told = told(number, class, refusal.message());
    match KNOWN.iter().find(|known| known.0 == number) {
        Some((_, fault, says, hint)) => {
            Error::new(*fault, format!("{what}: {says} (error {number}{told})")).hint(*hint)
        }
        None => {
            let error = Error::new(
                by_class(class),
                format!("{what}: error {number}, severity {class}, line {}{told}", refusal.line()),
            );
            error.hint(format!("SELECT text FROM sys.messages WHERE message_id = {number}"))
        }
    }
}

/// 20 and more end the connection, 17 to 19 are of the server's resources; what is below is of the statement.
fn by_class(class: u8) -> Fault {
    if class >= 17 { Fault::Transient } else { Fault::Config }
}

/// Messages that name objects, logins and rights, and never values.
fn told(number: u32, class: u8, message: &str) -> String {
    let names = class == 14 || matches!(number, 207 | 208 | 911 | 916 | 4060 | 3952 | 8155 | 8156 | 22105);
    if names { format!(": {message}") } else { String::new() }
}

/// An error that a description of a query holds, without its text.
pub(crate) fn described(what: &str, number: i32, message: &str) -> Error {
    let number = number.unsigned_abs();
    match KNOWN.iter().find(|known| known.0 == number) {
        Some((_, fault, says, hint)) => {
            Error::new(*fault, format!("{what}: {says} (error {number}{})", told(number, 16, message)))
                .hint(*hint)
        }
        None => Error::config(format!("{what}: error {number}"))
            .hint(format!("run it by hand; SELECT text FROM sys.messages WHERE message_id = {number}")),
    }
}
