//! The clauses of ALTER TABLE.
//!
//! A column whose new name the last known shape has already is another one under that name: the former was dropped or renamed since, by the
//! same statement or by one behind which no row came. By its name it would be taken for the former, so its rows are read again.

use super::column;
use super::statement::{Alter, Effect};
use super::tokens::Words;
use caudal_core::TableSchema;

/// Engines that keep rows as they are.
const ENGINES: [&str; 6] = ["INNODB", "ARIA", "MYISAM", "ROCKSDB", "NDB", "NDBCLUSTER"];

/// Options of a table, and hints for the work: no row changes by them.
const OPTIONS: [&str; 45] = [
    "ALGORITHM",
    "LOCK",
    "COMMENT",
    "AUTO_INCREMENT",
    "AVG_ROW_LENGTH",
    "CHARSET",
    "CHARACTER",
    "COLLATE",
    "DEFAULT",
    "CHECKSUM",
    "TABLE_CHECKSUM",
    "COMPRESSION",
    "CONNECTION",
    "DATA",
    "DELAY_KEY_WRITE",
    "ENCRYPTION",
    "ENGINE_ATTRIBUTE",
    "SECONDARY_ENGINE_ATTRIBUTE",
    "SECONDARY_ENGINE",
    "SECONDARY_LOAD",
    "SECONDARY_UNLOAD",
    "INSERT_METHOD",
    "KEY_BLOCK_SIZE",
    "MAX_ROWS",
    "MIN_ROWS",
    "PACK_KEYS",
    "PASSWORD",
    "ROW_FORMAT",
    "START",
    "STATS_AUTO_RECALC",
    "STATS_PERSISTENT",
    "STATS_SAMPLE_PAGES",
    "AUTOEXTEND_SIZE",
    "TABLESPACE",
    "STORAGE",
    "FORCE",
    "ORDER",
    "ENABLE",
    "DISABLE",
    "WITH",
    "WITHOUT",
    "PAGE_CHECKSUM",
    "PAGE_COMPRESSED",
    "PAGE_COMPRESSION_LEVEL",
    "TRANSACTIONAL",
];

/// What else than a column may be added.
const NO_COLUMNS: [&str; 13] = [
    "INDEX",
    "KEY",
    "FULLTEXT",
    "SPATIAL",
    "VECTOR",
    "UNIQUE",
    "CHECK",
    "FOREIGN",
    "PARTITION",
    "PRIMARY",
    "CONSTRAINT",
    "PERIOD",
    "SYSTEM",
];

/// Reads all clauses.
pub(super) fn clauses(words: &mut Words<'_>, shape: Option<&TableSchema>, alter: &mut Alter) {
    if words.is_cut() {
        alter.effect = Effect::Replaces;
    }
    while !words.is_end() {
        let mut clause = words.clause();
        let effect = one(&mut clause, shape, alter);
        alter.effect = alter.effect.max(effect);
    }
}

fn one(words: &mut Words<'_>, shape: Option<&TableSchema>, alter: &mut Alter) -> Effect {
    match words.next_word().as_str() {
        "ADD" => {
            alter.adds |= !NO_COLUMNS.contains(&words.peek().as_str());
            add(words, shape)
        }
        "DROP" => drop(words),
        "MODIFY" => {
            words.skip("COLUMN");
            words.skip_all(&["IF", "EXISTS"]);
            let name = words.identifier();
            column::redefined(words, name.and_then(|name| find(shape, &name)), shape)
        }
        "CHANGE" => {
            words.skip("COLUMN");
            words.skip_all(&["IF", "EXISTS"]);
            let (from, to) = (words.identifier(), words.identifier());
            let effect = column::redefined(words, from.as_ref().and_then(|name| find(shape, name)), shape);
            effect.max(taken(shape, from.as_deref(), to.as_deref()))
        }
        // Defaults and visibility of columns, indexes and constraints.
        "ALTER" => Effect::Metadata,
        "RENAME" => rename(words, shape, alter),
        "CONVERT" => convert(words, alter),
        "ENGINE" | "TYPE" => {
            words.skip("=");
            if ENGINES.contains(&words.next_word().as_str()) { engines_end(words) } else { Effect::Replaces }
        }
        "PARTITION" if words.skip("BY") => Effect::Metadata,
        "REMOVE" if words.skip("PARTITIONING") => Effect::Metadata,
        "REORGANIZE" | "COALESCE" | "ANALYZE" | "CHECK" | "OPTIMIZE" | "REBUILD"
            if words.skip("PARTITION") =>
        {
            Effect::Metadata
        }
        "EXCHANGE" => {
            if words.skip_to("TABLE") {
                alter.others.extend(words.name());
            }
            Effect::Replaces
        }
        // DISCARD, IMPORT, TRUNCATE, REPAIR: whatever follows, rows come or go.
        word if OPTIONS.contains(&word) => options(words),
        _ => Effect::Replaces,
    }
}

/// Options may follow each other without commas: only an engine among them matters.
fn options(words: &mut Words<'_>) -> Effect {
    while !words.is_end() {
        match words.next_word().as_str() {
            "ENGINE" => {
                words.skip("=");
                return match ENGINES.contains(&words.next_word().as_str()) {
                    true => options(words),
                    false => Effect::Replaces,
                };
            }
            "PARTITION" | "REMOVE" | "CONVERT" | "IMPORT" | "DISCARD" => return Effect::Replaces,
            _ => {}
        }
    }
    Effect::Metadata
}

fn engines_end(words: &mut Words<'_>) -> Effect {
    if words.is_end() { Effect::Metadata } else { options(words) }
}

fn add(words: &mut Words<'_>, shape: Option<&TableSchema>) -> Effect {
    match words.peek().as_str() {
        "INDEX" | "KEY" | "FULLTEXT" | "SPATIAL" | "VECTOR" | "UNIQUE" | "CHECK" | "FOREIGN" => {
            Effect::Metadata
        }
        // New partitions are empty.
        "PARTITION" => Effect::Metadata,
        "PRIMARY" => Effect::Rewrites,
        "CONSTRAINT" => constraint(words),
        "PERIOD" | "SYSTEM" => Effect::Replaces,
        _ => {
            words.skip("COLUMN");
            // Then nothing may have happened.
            let shape = shape.filter(|_| words.peek() != "IF");
            words.skip_all(&["IF", "NOT", "EXISTS"]);
            columns(words, shape)
        }
    }
}

/// `CONSTRAINT name …`: a primary key may have a name too.
fn constraint(words: &mut Words<'_>) -> Effect {
    while !words.is_end() {
        match words.next_word().as_str() {
            "PRIMARY" => return Effect::Rewrites,
            "(" => break,
            _ => {}
        }
    }
    Effect::Metadata
}

/// One column, or several in brackets.
fn columns(words: &mut Words<'_>, shape: Option<&TableSchema>) -> Effect {
    let Some(mut list) = words.brackets() else { return new_column(words, shape) };
    let mut worst = Effect::Metadata;
    while !list.is_end() {
        let mut clause = list.clause();
        let effect = match clause.peek().as_str() {
            "INDEX" | "KEY" | "FULLTEXT" | "SPATIAL" | "UNIQUE" | "CHECK" | "FOREIGN" | "PRIMARY"
            | "CONSTRAINT" => add(&mut clause, shape),
            _ => new_column(&mut clause, shape),
        };
        worst = worst.max(effect);
    }
    worst
}

fn new_column(words: &mut Words<'_>, shape: Option<&TableSchema>) -> Effect {
    match words.identifier() {
        Some(name) => column::added(words).max(taken(shape, None, Some(&name))),
        None => Effect::Replaces,
    }
}

/// What it means that a column gets the name `to`.
fn taken(shape: Option<&TableSchema>, from: Option<&str>, to: Option<&str>) -> Effect {
    let same = from.zip(to).is_some_and(|(from, to)| from.eq_ignore_ascii_case(to));
    match to.and_then(|to| find(shape, to)) {
        Some(_) if !same => Effect::Rewrites,
        _ => Effect::Metadata,
    }
}

fn drop(words: &mut Words<'_>) -> Effect {
    match words.peek().as_str() {
        "PARTITION" | "SYSTEM" | "PERIOD" => Effect::Replaces,
        "PRIMARY" => Effect::Rewrites,
        // A column, an index or a constraint. Whether it was of the key, the shapes tell.
        _ => Effect::Metadata,
    }
}

fn rename(words: &mut Words<'_>, shape: Option<&TableSchema>, alter: &mut Alter) -> Effect {
    if words.skip("COLUMN") {
        words.skip_all(&["IF", "EXISTS"]);
        let from = words.identifier();
        words.skip("TO");
        return taken(shape, from.as_deref(), words.identifier().as_deref());
    }
    if words.skip_any(&["INDEX", "KEY"]) {
        return Effect::Metadata;
    }
    words.skip_any(&["TO", "AS", "="]);
    match words.name() {
        Some(name) => {
            alter.renamed = Some(name);
            Effect::Metadata
        }
        None => Effect::Replaces,
    }
}

/// `CONVERT TO CHARACTER SET`: characters that the new set lacks become others. MariaDB: `CONVERT PARTITION p TO TABLE t` and back.
fn convert(words: &mut Words<'_>, alter: &mut Alter) -> Effect {
    match words.next_word().as_str() {
        "TO" => Effect::Rewrites,
        _ => {
            let mut rest = *words;
            if rest.skip_to("TABLE") {
                alter.others.extend(rest.name());
            }
            Effect::Replaces
        }
    }
}

fn find<'a>(shape: Option<&'a TableSchema>, name: &str) -> Option<&'a caudal_core::Column> {
    shape?.columns.iter().find(|c| c.name.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::super::statement::{Statement, read};
    use super::*;
    use caudal_core::{Column, ColumnType, KeyKind, TableId};

    /// `a varchar(10)` and `n int` that may be NULL, `e enum('x','y')` that may not; utf8mb4.
    fn shape() -> TableSchema {
        let column = |name: &str, native: &str, nullable, text: bool| Column {
            id: 1,
            name: name.to_owned(),
            ty: ColumnType::Json,
            nullable,
            native: native.to_owned(),
            charset: text.then(|| "utf8mb4".to_owned()),
            default: None,
            generated: false,
            auto_increment: false,
            comment: None,
        };
        TableSchema {
            id: TableId::new("d", "t"),
            version: 1,
            generation: 1,
            columns: vec![
                column("a", "varchar(10)", true, true),
                column("n", "int(11)", true, false),
                column("e", "enum('x','y')", false, true),
                column("d", "decimal(10,2)", true, false),
                column("b", "tinyint(1)", true, false),
            ],
            key: Vec::new(),
            key_kind: KeyKind::None,
            unique_keys: Vec::new(),
            foreign_keys: Vec::new(),
            charset: Some("utf8mb4".to_owned()),
            comment: None,
        }
    }

    fn effect(clauses: &str) -> Effect {
        let shape = shape();
        match read(&format!("ALTER TABLE t {clauses}"), "d", &|_| Some(&shape)) {
            Statement::Alter(alter) => alter.effect,
            other => panic!("{clauses}: {other:?}"),
        }
    }

    #[test]
    fn what_leaves_all_rows_as_they_are_is_metadata_only() {
        for clauses in [
            "ADD COLUMN c INT",
            "ADD c VARCHAR(10) NULL DEFAULT NULL COMMENT 'not null' AFTER a",
            "ADD (c INT, d2 TEXT, KEY (c))",
            "ADD TIMES TIMESTAMP NULL",
            "ADD KEY k (a), ADD UNIQUE u (n), DROP KEY z, DROP FOREIGN KEY f, RENAME INDEX x TO y",
            "ADD CONSTRAINT f FOREIGN KEY (a) REFERENCES p (id) ON DELETE SET NULL",
            "DROP COLUMN a, RENAME COLUMN n TO m, ALTER n SET DEFAULT 5, ALTER COLUMN a DROP DEFAULT",
            "COMMENT='x' ENGINE=InnoDB AUTO_INCREMENT=5, ALGORITHM=INPLACE, LOCK=NONE, FORCE",
            "DEFAULT CHARACTER SET latin1",
            "MODIFY a VARCHAR(20) COMMENT 'x'",
            "CHANGE a a2 VARCHAR(10) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin FIRST",
            "MODIFY COLUMN n BIGINT, MODIFY e ENUM('x','z','y') NOT NULL, MODIFY d NUMERIC(10,2)",
            "MODIFY e ENUM('x','y') NULL DEFAULT 'x'",
            "ADD PARTITION (PARTITION p9 VALUES LESS THAN (99))",
            "REORGANIZE PARTITION p INTO (PARTITION q VALUES LESS THAN (9))",
            "PARTITION BY HASH (n) PARTITIONS 4",
            "REMOVE PARTITIONING",
            "RENAME TO z",
            "ADD COLUMN IF NOT EXISTS n INT, RENAME COLUMN n TO N, RENAME COLUMN IF EXISTS n TO m",
        ] {
            assert_eq!(effect(clauses), Effect::Metadata, "{clauses}");
        }
    }

    #[test]
    fn what_gives_rows_other_values_rewrites_them() {
        for clauses in [
            "ADD c INT NOT NULL",
            "DROP COLUMN n, ADD COLUMN n INT",
            "ADD (x INT, `N` INT)",
            "RENAME COLUMN n TO x, RENAME COLUMN a TO n",
            "CHANGE a n VARCHAR(10)",
            "ADD c INT DEFAULT 5",
            "ADD c VARCHAR(9) DEFAULT (UUID())",
            "ADD c INT AS (n + 1)",
            "ADD c INT GENERATED ALWAYS AS (n + 1) STORED",
            "ADD c TIMESTAMP",
            "ADD (c INT, x INT DEFAULT 1)",
            "ADD id BIGINT AUTO_INCREMENT PRIMARY KEY",
            "ADD PRIMARY KEY (n)",
            "ADD CONSTRAINT pk PRIMARY KEY (n)",
            "DROP PRIMARY KEY, ADD KEY (a)",
            "MODIFY a VARCHAR(5)",
            "MODIFY a INT",
            "MODIFY a VARCHAR(10) NOT NULL",
            "MODIFY a VARCHAR(10) CHARACTER SET latin1",
            "MODIFY a VARCHAR(10) COLLATE latin1_bin",
            "MODIFY n INT UNSIGNED",
            "MODIFY b TINYINT",
            "MODIFY n INT AS (1)",
            "MODIFY e ENUM('x') NOT NULL",
            "MODIFY d DECIMAL(10,1)",
            "MODIFY nosuch INT",
            "CONVERT TO CHARACTER SET utf8mb4",
        ] {
            assert_eq!(effect(clauses), Effect::Rewrites, "{clauses}");
        }
    }

    #[test]
    fn what_takes_or_brings_rows_and_what_nobody_knows_replaces_them() {
        for clauses in [
            "DROP PARTITION p0",
            "TRUNCATE PARTITION ALL",
            "EXCHANGE PARTITION p0 WITH TABLE x",
            "IMPORT TABLESPACE",
            "DISCARD TABLESPACE",
            "IMPORT PARTITION p TABLESPACE",
            "ENGINE=BLACKHOLE",
            "COMMENT='x' ENGINE=BLACKHOLE",
            "DROP SYSTEM VERSIONING",
            "CONVERT PARTITION p TO TABLE x",
            "REPAIR PARTITION p",
            "FROBNICATE ALL ROWS",
            "ADD KEY (a), FROBNICATE",
        ] {
            assert_eq!(effect(clauses), Effect::Replaces, "{clauses}");
        }
        let Statement::Alter(alter) =
            read("ALTER TABLE t EXCHANGE PARTITION p WITH TABLE x.y", "d", &|_| None)
        else {
            panic!("an ALTER");
        };
        assert_eq!(alter.others, [TableId::new("x", "y")]);
    }

    #[test]
    fn columns_that_are_added_are_told_from_all_else_that_may_be() {
        let adds = |clauses: &str| {
            let statement = format!("ALTER TABLE t {clauses}");
            let Statement::Alter(alter) = read(&statement, "shop", &|_| None) else { panic!("{statement}") };
            alter.adds
        };
        for clauses in
            ["ADD c INT", "ADD COLUMN c INT", "ADD (c INT, d INT)", "DROP x, ADD IF NOT EXISTS c INT"]
        {
            assert!(adds(clauses), "{clauses}");
        }
        for clauses in
            ["ADD KEY k (a)", "ADD UNIQUE (a)", "RENAME COLUMN a TO b", "CHANGE a b INT", "DROP COLUMN a"]
        {
            assert!(!adds(clauses), "{clauses}");
        }
    }
}
