//! What the server refuses, as faults with hints.
//!
//! Codes are those of the servers' error reference (`mysqld_error.h`); the kinds of error 1236 are told apart by the
//! server's English texts, for it has one code for all of them (dump threads always answer in English).

use crate::client::quoted;
use caudal_core::{Error, Fault};

/// Why a dump was refused (error 1236), named apart because what helps differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DumpRefusal {
    /// The log that holds the next transactions is gone.
    Purged,
    /// We have seen transactions that this server never had: another history, or the wrong server.
    Diverged,
    /// The start is no event's first byte, or beyond the end of its file.
    WrongPosition,
    /// Another client uses our server id.
    ServerIdTaken,
    /// An event is larger than the server may send.
    TooLarge,
    /// Something else.
    Other,
}

impl DumpRefusal {
    /// From the text of error 1236.
    #[must_use]
    pub fn of(message: &str) -> Self {
        let has = |part: &str| message.contains(part);
        if has("same server_uuid/server_id") || has("same server_id") {
            Self::ServerIdTaken
        } else if has("more GTIDs than") || has("not in the master's binlog") || has("diverged") {
            Self::Diverged
        } else if has("purged") || has("first log file name") || has("in any binlog files") {
            Self::Purged
        } else if has("max_allowed_packet") && !has("bogus data") {
            Self::TooLarge
        } else if has("position") || has("bogus data") || has("log event entry exceeded") {
            Self::WrongPosition
        } else {
            Self::Other
        }
    }

    fn what(self) -> &'static str {
        match self {
            Self::Purged => "the source has purged the binlog that comes next (error 1236, purged)",
            Self::Diverged => {
                "the source never had transactions that were read before (error 1236, unknown GTID)"
            }
            Self::WrongPosition => "the source has no event at this position (error 1236, wrong position)",
            Self::ServerIdTaken => {
                "another replica of the source uses the same server_id (error 1236, server_id)"
            }
            Self::TooLarge => "an event is larger than the source may send (error 1236, max_allowed_packet)",
            Self::Other => "the source ended the dump (error 1236)",
        }
    }

    fn hint(self) -> &'static str {
        match self {
            Self::Purged => {
                "read the tables again (a new snapshot), or restore the binlogs; then keep binlogs for longer: \
                 binlog_expire_logs_seconds"
            }
            Self::Diverged => {
                "this is another server, or one that lost transactions in a failover: point the source at a server \
                 that has them, or read the tables again (a new snapshot)"
            }
            Self::WrongPosition => {
                "the file was replaced or cut, or this is another server: read the tables again (a new snapshot)"
            }
            Self::ServerIdTaken => "give this source a server_id of its own, or stop the other client",
            Self::TooLarge => "raise max_allowed_packet on the source to 1G",
            Self::Other => "see the server's error log",
        }
    }
}

/// What we do when a server's error is about the account itself.
pub(crate) const CONNECT: &str = "connect";

/// An error as the server sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// `mysqld_error.h`.
    pub(crate) code: u16,
    /// Five characters; none before the handshake's answer.
    pub(crate) state: String,
    /// In the server's language.
    pub(crate) message: String,
}

impl Refusal {
    /// From an error packet (its first byte is 0xff).
    pub(crate) fn parse(packet: &[u8]) -> Option<Self> {
        let (code, rest) = packet.get(1..)?.split_first_chunk::<2>()?;
        // The SQL state is there from the handshake's answer on, not before.
        let (state, text) = match rest.split_first_chunk::<6>() {
            Some((state, text)) if state[0] == b'#' => (&state[1..], text),
            _ => (&rest[..0], rest),
        };
        let text = String::from_utf8_lossy(text).into_owned();
        Some(Self {
            code: u16::from_le_bytes(*code),
            state: String::from_utf8_lossy(state).into_owned(),
            message: text,
        })
    }

    /// What it means for an ordinary statement.
    pub(crate) fn of_statement(&self) -> Error {
        self.judged(format!("the server says {}: {}", self.code, self.message), self.code, Fault::Transient)
    }

    /// What it means for connecting and replicating; `doing` is what we did: "connect".
    pub(crate) fn of(&self, doing: &str) -> Error {
        let Self { code, state, message } = self;
        if *code == 1236 {
            let kind = DumpRefusal::of(message);
            return Error::config(format!("{doing}: {}: {message}", kind.what())).hint(kind.hint());
        }
        // A server also says "access denied" to an account that may connect but not replicate.
        let meant = if *code == 1045 && doing != CONNECT { 1227 } else { *code };
        let other = match state.get(..2) {
            Some("42" | "28") => Fault::Config,
            _ => Fault::Transient,
        };
        self.judged(format!("{doing}: the server says {code}: {message}"), meant, other)
    }

    fn judged(&self, text: String, code: u16, other: Fault) -> Error {
        match self.advice(code) {
            Some(hint) => Error::config(text).hint(hint),
            None => Error::new(other, text),
        }
    }

    /// What the operator can do; none where that is not known to help.
    fn advice(&self, code: u16) -> Option<String> {
        let fixed = match code {
            1044 => {
                return Some(
                    grant_for(&self.message)
                        .unwrap_or_else(|| "grant the user SELECT on the url's database".to_owned()),
                );
            }
            1045 | 1698 => {
                "check user and password of the source's url; in SQL: ALTER USER … IDENTIFIED BY '…'"
            }
            1049 => "check the database in the url",
            1129 => "run FLUSH HOSTS on the server, then look for what failed before",
            1130 => "create the user for this client's host: CREATE USER 'user'@'%' …",
            1142 | 1143 | 1370 => "grant the missing privilege; `caudal check` prints the statements",
            1227 => {
                "GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO the user (MariaDB: REPLICATION SLAVE, BINLOG MONITOR); \
                 `caudal check` prints the statements"
            }
            1251 | 1524 => "the user's authentication plugin is not loaded on the server",
            1381 => "start the server with log_bin",
            1820 | 1862 => "the password has expired: ALTER USER … IDENTIFIED BY '…'",
            3118 | 4151 => "the account is locked: ALTER USER … ACCOUNT UNLOCK",
            3159 => "the server takes only encrypted connections: set tls.mode to required or more",
            _ => return None,
        };
        Some(fixed.to_owned())
    }
}

/// The statement that lets the account into the database, for "Access denied for user 'u'@'h' to database 'd'". Such an account
/// cannot connect, so nobody can look at its privileges.
fn grant_for(message: &str) -> Option<String> {
    let (_, who) = message.split_once(" for user ")?;
    let (user, database) = who.split_once(" to database ")?;
    Some(format!("GRANT SELECT ON {}.* TO {user};", quoted(database.trim_matches('\''))))
}

/// The fault of an error packet (its first byte is 0xff).
pub(crate) fn error_packet(doing: &str, packet: &[u8]) -> Error {
    match Refusal::parse(packet) {
        Some(refusal) => refusal.of(doing),
        None => Error::transient(format!("{doing}: the server sent half an error")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(doing: &str, code: u16, state: &str, message: &str) -> Error {
        Refusal { code, state: state.to_owned(), message: message.to_owned() }.of(doing)
    }

    #[test]
    fn an_account_that_may_not_use_the_database_is_told_the_grant() {
        let error = refused(CONNECT, 1044, "42000", "Access denied for user 'cdc'@'%' to database 'shop'");
        assert_eq!(error.hint_text(), Some("GRANT SELECT ON `shop`.* TO 'cdc'@'%';"));
        assert!(refused(CONNECT, 1044, "42000", "Zugriff verweigert").hint_text().is_some());
    }

    #[test]
    fn a_statement_that_fails_by_itself_may_succeed_again() {
        let refusal = |code| Refusal { code, state: "42S02".to_owned(), message: "x".to_owned() };
        assert_eq!(refusal(1146).of_statement().fault(), Fault::Transient);
        assert_eq!(refusal(1142).of_statement().fault(), Fault::Config);
        assert_eq!(refusal(1146).of(CONNECT).fault(), Fault::Config);
        assert!(refusal(1146).of_statement().to_string().contains("says 1146"));
    }

    #[test]
    fn the_kinds_of_error_1236_are_told_apart() {
        for (text, kind) in [
            ("Could not find first log file name in binary log index file", DumpRefusal::Purged),
            (
                "Cannot replicate because the source purged required binary logs. Replicate the missing",
                DumpRefusal::Purged,
            ),
            (
                "Could not find GTID state requested by slave in any binlog files. Probably the slave state is too old",
                DumpRefusal::Purged,
            ),
            (
                "Replica has more GTIDs than the source has, using the source's SERVER_UUID",
                DumpRefusal::Diverged,
            ),
            (
                "Error: connecting slave requested to start from GTID 0-1-5, which is not in the master's binlog",
                DumpRefusal::Diverged,
            ),
            (
                "Client requested source to start replication from position > file size",
                DumpRefusal::WrongPosition,
            ),
            (
                "bogus data in log event; the first event 'binlog.01' at 5, the last event read from",
                DumpRefusal::WrongPosition,
            ),
            (
                "A replica with the same server_uuid/server_id as this replica has connected to the source",
                DumpRefusal::ServerIdTaken,
            ),
            ("something new", DumpRefusal::Other),
        ] {
            assert_eq!(DumpRefusal::of(text), kind, "{text}");
            let e = refused("read the binlog", 1236, "HY000", text);
            assert_eq!(e.fault(), Fault::Config);
            assert!(e.hint_text().is_some());
        }
    }

    #[test]
    fn errors_say_who_must_act() {
        let wrong_password = error_packet("connect", b"\xff\x15\x04#28000Access denied for user 'a'@'b'");
        assert_eq!(wrong_password.fault(), Fault::Config);
        assert!(wrong_password.to_string().contains("1045"));
        let may_not_replicate = refused("register as a replica", 1045, "28000", "Access denied");
        assert!(may_not_replicate.hint_text().unwrap().contains("REPLICATION SLAVE"));
        let full = error_packet("connect", b"\xff\x10\x04Too many connections");
        assert_eq!(full.fault(), Fault::Transient);
        assert!(refused("x", 1227, "42000", "need").hint_text().unwrap().contains("REPLICATION SLAVE"));
        assert_eq!(error_packet("connect", b"\xff").fault(), Fault::Transient);
    }
}
