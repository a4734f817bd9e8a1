//! Statements, by their first words.

use super::alter;
use super::tokens::{Words, tokens};
use caudal_core::{TableId, TableSchema};

/// What happens to rows that the log does not tell. The worse is the greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Effect {
    /// Nothing.
    Metadata,
    /// Rows stay, with other values.
    Rewrites,
    /// Rows are gone, or new, or nobody knows.
    Replaces,
}

/// What a statement means to a capture.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Statement {
    /// All rows of the table are gone.
    Truncate(TableId),
    /// A table is made.
    Create(TableId, Create),
    /// A table is changed.
    Alter(Alter),
    /// These tables are gone.
    Drop(Vec<TableId>),
    /// All tables of a database are gone.
    DropDatabase(String),
    /// Tables have other names, one after the other.
    Rename(Vec<(TableId, TableId)>),
    /// Any table may have changed; these names stand in it.
    Unknown(Vec<TableId>),
    /// Rows of this table were changed by a statement, which says nothing of the rows.
    Rows(Option<TableId>),
    /// Nothing that concerns tables' shapes or rows.
    Other,
}

/// How a table is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Create {
    /// There was none of this name.
    New,
    /// If there is one already, nothing happens (and it is logged all the same).
    IfMissing,
    /// One of this name is dropped first.
    Replace,
}

/// A table is changed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Alter {
    /// The table.
    pub(crate) table: TableId,
    /// What happens to its rows.
    pub(crate) effect: Effect,
    /// Whether it gets a column that it did not have.
    pub(crate) adds: bool,
    /// Its new name.
    pub(crate) renamed: Option<TableId>,
    /// Tables that give or take rows: partitions go from one to the other.
    pub(crate) others: Vec<TableId>,
}

/// Reads a statement; `database` is its default. `known` gives a table's shape before it, if that is known: whether a type gets
/// wider or other depends on it.
pub(crate) fn read<'k>(
    statement: &str,
    database: &str,
    known: &dyn Fn(&TableId) -> Option<&'k TableSchema>,
) -> Statement {
    let tokens = tokens(statement);
    let all = Words::new(&tokens, database);
    let mut words = all;
    let read = match words.next_word().as_str() {
        "TRUNCATE" => {
            words.skip("TABLE");
            words.name().map(Statement::Truncate)
        }
        "CREATE" => create(&mut words),
        "ALTER" => alter(&mut words, known),
        "DROP" => drop(&mut words),
        "RENAME" => rename(&mut words),
        "INSERT" | "REPLACE" => rows(&mut words, &["INTO"]),
        "UPDATE" => rows(&mut words, &[]),
        "DELETE" => delete(&mut words),
        "LOAD" => Some(Statement::Rows(load(&mut words))),
        "REPAIR" => repair(&mut words),
        "BEGIN" | "COMMIT" | "ROLLBACK" | "SAVEPOINT" | "RELEASE" | "XA" | "GRANT" | "REVOKE" | "SET"
        | "FLUSH" | "ANALYZE" | "OPTIMIZE" | "CHECK" | "INSTALL" | "UNINSTALL" | "KILL" | "DO" | "CALL"
        | "USE" | "CACHE" | "PURGE" | "RESET" | "CHANGE" | "START" | "STOP" | "LOCK" | "UNLOCK" | "" => {
            Some(Statement::Other)
        }
        _ => None,
    };
    read.unwrap_or_else(|| Statement::Unknown(all.names()))
}

/// Kinds of objects that hold no rows.
const NOT_TABLES: [&str; 18] = [
    "VIEW",
    "PROCEDURE",
    "FUNCTION",
    "TRIGGER",
    "EVENT",
    "USER",
    "ROLE",
    "SERVER",
    "SEQUENCE",
    "PACKAGE",
    "TABLESPACE",
    "UNDO",
    "LOGFILE",
    "RESOURCE",
    "SPATIAL_REFERENCE",
    "LIBRARY",
    "INSTANCE",
    "AGGREGATE",
];

/// Words that stand before the kind of an object without rows.
fn is_not_table(word: &str) -> bool {
    NOT_TABLES.contains(&word) || matches!(word, "DEFINER" | "ALGORITHM" | "SQL")
}

fn create(words: &mut Words<'_>) -> Option<Statement> {
    let mut how = Create::New;
    loop {
        match words.next_word().as_str() {
            "OR" | "UNIQUE" | "FULLTEXT" | "VECTOR" | "ONLINE" | "OFFLINE" => {}
            "REPLACE" => how = Create::Replace,
            // An index, or a reference system.
            "SPATIAL" if words.peek() == "REFERENCE" => return Some(Statement::Other),
            "SPATIAL" => {}
            // Rows of temporary tables are not logged.
            "TEMPORARY" => return Some(Statement::Other),
            "TABLE" => {
                if words.skip("IF") {
                    words.skip_all(&["NOT", "EXISTS"]);
                    how = Create::IfMissing;
                }
                return words.name().map(|id| Statement::Create(id, how));
            }
            "INDEX" => return index(words),
            "DATABASE" | "SCHEMA" => return Some(Statement::Other),
            word if is_not_table(word) => return Some(Statement::Other),
            _ => return None,
        }
    }
}

/// `… INDEX name … ON table`: the statement changes no row.
fn index(words: &mut Words<'_>) -> Option<Statement> {
    let table = words.skip_to("ON").then(|| words.name()).flatten()?;
    Some(Statement::Alter(Alter {
        table,
        effect: Effect::Metadata,
        adds: false,
        renamed: None,
        others: Vec::new(),
    }))
}

fn alter<'k>(
    words: &mut Words<'_>,
    known: &dyn Fn(&TableId) -> Option<&'k TableSchema>,
) -> Option<Statement> {
    let mut worst = Effect::Metadata;
    loop {
        match words.next_word().as_str() {
            "ONLINE" | "OFFLINE" => {}
            // Rows that break a new unique key are deleted.
            "IGNORE" => worst = Effect::Replaces,
            "TABLE" => break,
            "DATABASE" | "SCHEMA" => return Some(Statement::Other),
            word if is_not_table(word) => return Some(Statement::Other),
            _ => return None,
        }
    }
    words.skip_all(&["IF", "EXISTS"]);
    let table = words.name()?;
    // `WAIT n` and `NOWAIT` come before the clauses.
    if words.skip("WAIT") {
        words.next();
    }
    words.skip("NOWAIT");
    let shape = known(&table);
    let mut alter = Alter { table, effect: worst, adds: false, renamed: None, others: Vec::new() };
    alter::clauses(words, shape, &mut alter);
    Some(Statement::Alter(alter))
}

fn drop(words: &mut Words<'_>) -> Option<Statement> {
    match words.next_word().as_str() {
        "TEMPORARY" => Some(Statement::Other),
        "TABLE" | "TABLES" => {
            words.skip_all(&["IF", "EXISTS"]);
            let mut ids = Vec::new();
            while let Some(id) = words.name() {
                ids.push(id);
                if !words.skip(",") {
                    break;
                }
            }
            (!ids.is_empty()).then_some(Statement::Drop(ids))
        }
        "DATABASE" | "SCHEMA" => {
            words.skip_all(&["IF", "EXISTS"]);
            words.identifier().map(Statement::DropDatabase)
        }
        "INDEX" => index(words),
        "SPATIAL" => Some(Statement::Other),
        word if is_not_table(word) || word == "PREPARE" => Some(Statement::Other),
        _ => None,
    }
}

fn rename(words: &mut Words<'_>) -> Option<Statement> {
    if !words.skip_any(&["TABLE", "TABLES"]) {
        return Some(Statement::Other);
    }
    words.skip_all(&["IF", "EXISTS"]);
    let mut pairs = Vec::new();
    while let Some(from) = words.name() {
        if words.skip("WAIT") {
            words.next();
        }
        words.skip("NOWAIT");
        if !words.skip("TO") {
            return None;
        }
        pairs.push((from, words.name()?));
        if !words.skip(",") {
            break;
        }
    }
    (!pairs.is_empty()).then_some(Statement::Rename(pairs))
}

fn rows(words: &mut Words<'_>, before_name: &[&str]) -> Option<Statement> {
    words.skip_all(&["LOW_PRIORITY", "DELAYED", "HIGH_PRIORITY", "QUICK", "IGNORE"]);
    words.skip_all(before_name);
    Some(Statement::Rows(words.name()))
}

/// A server that starts anew logs that its tables in memory are empty: as a DELETE without a condition.
fn delete(words: &mut Words<'_>) -> Option<Statement> {
    let read = rows(words, &["FROM"])?;
    match read {
        Statement::Rows(Some(id)) if words.is_end() => Some(Statement::Truncate(id)),
        other => Some(other),
    }
}

/// `LOAD DATA … INTO TABLE t`
fn load(words: &mut Words<'_>) -> Option<TableId> {
    words.skip_to("INTO").then_some(())?;
    words.skip("TABLE").then(|| words.name()).flatten()
}

/// Rows that cannot be repaired are gone.
fn repair(words: &mut Words<'_>) -> Option<Statement> {
    words.skip_all(&["NO_WRITE_TO_BINLOG", "LOCAL"]);
    match words.next_word().as_str() {
        "TABLE" | "TABLES" => {
            let table = words.name()?;
            let mut others = Vec::new();
            while words.skip(",") {
                others.extend(words.name());
            }
            Some(Statement::Alter(Alter {
                table,
                effect: Effect::Replaces,
                adds: false,
                renamed: None,
                others,
            }))
        }
        "VIEW" => Some(Statement::Other),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(database: &str, table: &str) -> TableId {
        TableId::new(database, table)
    }

    fn plain(text: &str) -> Statement {
        read(text, "d", &|_| None)
    }

    #[test]
    fn comments_quotes_and_other_databases_do_not_hide_the_table() {
        let table = |text: &str| match plain(text) {
            Statement::Alter(alter) => alter.table,
            other => panic!("{text}: {other:?}"),
        };
        for text in [
            "ALTER TABLE t ADD c INT",
            "/* x */ ALTER -- y\n TABLE `t` ADD c INT",
            "alter online table if exists d.t add c int",
            "/*!40000 ALTER TABLE `t` DISABLE KEYS */",
            "# note\nALTER IGNORE TABLE `d` . `t` ADD c INT",
            "CREATE UNIQUE INDEX `ON` ON t (a)",
            "DROP INDEX i ON d.t",
        ] {
            assert_eq!(table(text), id("d", "t"), "{text}");
        }
        assert_eq!(table("ALTER TABLE `a``b.c` ADD c INT"), id("d", "a`b.c"));
    }

    #[test]
    fn all_tables_of_a_statement_are_found() {
        assert_eq!(
            plain("RENAME TABLE a TO b, x.c TO x.d"),
            Statement::Rename(vec![(id("d", "a"), id("d", "b")), (id("x", "c"), id("x", "d"))])
        );
        assert_eq!(
            plain("DROP TABLE IF EXISTS `a`,`b` /* generated by server */"),
            Statement::Drop(vec![id("d", "a"), id("d", "b")])
        );
        assert_eq!(plain("DROP DATABASE IF EXISTS `x`"), Statement::DropDatabase("x".to_owned()));
        let Statement::Alter(alter) = plain("ALTER TABLE a RENAME TO b") else { panic!("an ALTER") };
        assert_eq!((alter.renamed, alter.effect), (Some(id("d", "b")), Effect::Metadata));
    }

    #[test]
    fn a_table_is_new_or_perhaps_there_or_replaced() {
        let how = |text: &str| match plain(text) {
            Statement::Create(table, how) => (table == id("d", "t")).then_some(how),
            _ => None,
        };
        assert_eq!(how("CREATE TABLE t (a int)"), Some(Create::New));
        assert_eq!(how("CREATE TABLE IF NOT EXISTS t (a int)"), Some(Create::IfMissing));
        assert_eq!(how("CREATE OR REPLACE TABLE t (a int)"), Some(Create::Replace));
        assert_eq!(plain("CREATE OR REPLACE VIEW v AS SELECT 1"), Statement::Other);
        assert_eq!(plain("CREATE TEMPORARY TABLE t (a int)"), Statement::Other);
    }

    #[test]
    fn truncate_is_told_apart_and_the_unknown_tells_its_names() {
        assert_eq!(plain("TRUNCATE t"), Statement::Truncate(id("d", "t")));
        assert_eq!(plain("truncate table `x`.`t`"), Statement::Truncate(id("x", "t")));
        assert_eq!(plain("DELETE FROM `d`.`t`"), Statement::Truncate(id("d", "t")));
        assert_eq!(plain("DELETE FROM t WHERE a = 1"), Statement::Rows(Some(id("d", "t"))));
        let Statement::Unknown(names) = plain("FROBNICATE TABLE x.t WITH `u` 'text'") else {
            panic!("unknown");
        };
        assert!(names.contains(&id("x", "t")) && names.contains(&id("d", "u")), "{names:?}");
        assert_eq!(plain("INSERT INTO t VALUES (1)"), Statement::Rows(Some(id("d", "t"))));
        assert_eq!(plain("LOAD DATA INFILE 'x' IGNORE INTO TABLE `t`"), Statement::Rows(Some(id("d", "t"))));
    }

    #[test]
    fn no_statement_of_any_length_or_shape_is_more_than_unknown() {
        for text in [
            "",
            "(",
            "'",
            "`",
            "ALTER",
            "ALTER TABLE",
            "ALTER TABLE t (",
            "RENAME TABLE a",
            "/*",
            "/*!",
            "DROP TABLE ,",
        ] {
            let _ = plain(text);
        }
        let long = format!("ALTER TABLE t COMMENT 'x', ADD KEY (a){}", ", ADD KEY (a)".repeat(10_000));
        let Statement::Alter(alter) = plain(&long) else { panic!("an ALTER") };
        assert_eq!(alter.effect, Effect::Replaces, "what was not read counts as the worst");
    }
}
