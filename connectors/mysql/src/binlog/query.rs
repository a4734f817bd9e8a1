//! Query events: statements, some of which only bracket transactions.

use super::cursor::{Cursor, Read};
use super::event::{Query, Xid};
use super::transaction::parse_xid;
use crate::charset::Charset;

/// A query event.
pub(super) struct Parsed {
    pub(super) thread: u32,
    pub(super) statement: Statement,
}

/// What a statement of the log means.
pub(super) enum Statement {
    Begin,
    Commit,
    Rollback,
    XaStart(Option<Xid>),
    XaEnd,
    XaCommit(Xid),
    XaRollback(Xid),
    Other(Query),
}

pub(super) fn parse_query(body: &[u8]) -> Read<Parsed> {
    let mut c = Cursor(body);
    let thread = c.u32()?;
    c.u32()?;
    let database_length = usize::from(c.u8()?);
    let error_code = c.u16()?;
    let variables_length = usize::from(c.u16()?);
    let variables = c.take(variables_length)?;
    let database = c.take(database_length)?;
    c.take(1)?;
    let statement = match bracket(c.0) {
        Some(statement) => statement,
        None => Statement::Other(Query {
            statement: text(c.0, client_collation(variables)),
            database: String::from_utf8_lossy(database).into_owned(),
            thread,
            error_code,
        }),
    };
    Ok(Parsed { thread, statement })
}

/// Servers write these themselves, in one form each; anything longer or commented is no bracket.
fn bracket(statement: &[u8]) -> Option<Statement> {
    const LONGEST: usize = 1024;
    if statement.len() > LONGEST {
        return None;
    }
    let text = std::str::from_utf8(statement).ok()?.trim();
    let upper = text.to_ascii_uppercase();
    Some(match upper.as_str() {
        "BEGIN" => Statement::Begin,
        "COMMIT" => Statement::Commit,
        "ROLLBACK" => Statement::Rollback,
        xa if xa.starts_with("XA ") => return xa_bracket(&upper, text),
        _ => return None,
    })
}

fn xa_bracket(upper: &str, text: &str) -> Option<Statement> {
    let rest = |verb: &str| upper.strip_prefix(verb).and_then(|_| text.get(verb.len()..));
    if let Some(id) = rest("XA START ") {
        return Some(Statement::XaStart(parse_xid(id)));
    }
    if let Some(id) = rest("XA COMMIT ") {
        return parse_xid(id).map(Statement::XaCommit);
    }
    if let Some(id) = rest("XA ROLLBACK ") {
        return parse_xid(id).map(Statement::XaRollback);
    }
    rest("XA END ").map(|_| Statement::XaEnd)
}

/// The collation of the client that sent the statement, out of the status variables; those before it have known lengths.
fn client_collation(variables: &[u8]) -> Option<u32> {
    let mut c = Cursor(variables);
    loop {
        match c.u8().ok()? {
            0 | 3 => drop(c.take(4).ok()?),
            1 => drop(c.take(8).ok()?),
            4 => return c.u16().ok().map(u32::from),
            5 | 6 => {
                let length = usize::from(c.u8().ok()?);
                c.take(length).ok()?;
            }
            _ => return None,
        }
    }
}

/// As UTF-8. A statement is only looked at for what it does to which table, so a byte that can't be converted is no reason
/// to stop.
fn text(statement: &[u8], collation: Option<u32>) -> String {
    let charset = collation.and_then(|id| Charset::by_collation(id).ok());
    if let Some(charset) = charset.filter(|c| !c.is_utf8()) {
        let mut out = Vec::with_capacity(statement.len());
        if charset.decode(statement, &mut out).is_ok() {
            return String::from_utf8_lossy(&out).into_owned();
        }
    }
    String::from_utf8_lossy(statement).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn body(variables: &[u8], database: &str, statement: &[u8]) -> Vec<u8> {
        let mut b = 42u32.to_le_bytes().to_vec();
        b.extend_from_slice(&[0; 4]);
        b.push(database.len() as u8);
        b.extend_from_slice(&[0, 0]);
        b.extend_from_slice(&(variables.len() as u16).to_le_bytes());
        b.extend_from_slice(variables);
        b.extend_from_slice(database.as_bytes());
        b.push(0);
        b.extend_from_slice(statement);
        b
    }

    #[test]
    fn statements_that_bracket_are_told_from_those_that_do_something() {
        let kind = |s: &str| parse_query(&body(&[], "db", s.as_bytes())).unwrap().statement;
        assert!(matches!(kind("BEGIN"), Statement::Begin));
        assert!(matches!(kind("COMMIT"), Statement::Commit));
        assert!(matches!(kind("XA START X'61',X'',1"), Statement::XaStart(Some(_))));
        assert!(matches!(kind("XA COMMIT X'61',X'',1"), Statement::XaCommit(_)));
        assert!(matches!(kind("XA ROLLBACK X'61',X'',1"), Statement::XaRollback(_)));
        assert!(matches!(kind("BEGIN; drop table x"), Statement::Other(_)));
        assert!(matches!(kind("SAVEPOINT `a`"), Statement::Other(_)));
    }

    #[test]
    fn a_statement_is_converted_from_its_clients_character_set() {
        let variables = [&[0, 0, 0, 0, 0, 1][..], &[0; 8], &[4, 8, 0, 8, 0, 8, 0]].concat();
        let parsed = parse_query(&body(&variables, "db", b"drop table `caf\xe9`")).unwrap();
        let Statement::Other(query) = parsed.statement else { panic!("a statement") };
        assert_eq!(
            (query.statement.as_str(), query.database.as_str(), query.thread),
            ("drop table `café`", "db", 42)
        );
    }
}
