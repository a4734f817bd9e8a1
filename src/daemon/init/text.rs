//! The text that `init` writes: YAML with comments.

use super::super::output::count;
use caudal_core::{Check, Severity, TableSchema};
use std::fmt::Write;

/// A source or a sink in the configuration.
pub(super) struct End {
    pub(super) kind: &'static str,
    pub(super) name: String,
    /// Without secrets.
    pub(super) url: String,
    /// What stands for the secret.
    pub(super) variable: Option<String>,
}

/// A table that was found.
pub(super) struct Table {
    pub(super) schema: TableSchema,
    /// As the server estimates.
    pub(super) rows: Option<u64>,
}

/// Everything that the text tells.
pub(super) struct Draft {
    pub(super) prefix: String,
    pub(super) source: End,
    pub(super) tables: Vec<Table>,
    pub(super) checks: Vec<Check>,
    pub(super) sink: Option<(End, Vec<Check>)>,
}

/// Tables listed by name; of more, the number is told.
const LISTED: usize = 500;

impl Draft {
    /// The variables that must be set, in the order of the file.
    pub(super) fn variables(&self) -> Vec<&str> {
        let sink = self.sink.as_ref().and_then(|(end, _)| end.variable.as_deref());
        self.source.variable.as_deref().into_iter().chain(sink).collect()
    }

    /// The file.
    pub(super) fn text(&self) -> String {
        let mut out = String::from(
            "# Written by `caudal init`. All keys: docs/configuration.md or `caudal schema config --markdown`.\n",
        );
        for variable in self.variables() {
            let what = if variable.ends_with("_URL") {
                "the whole URL"
            } else {
                "the password as it stood in the URL"
            };
            let _ = writeln!(
                out,
                "# Set before `caudal check` and `caudal run`: export {variable}='…'   ({what})"
            );
        }
        let _ = write!(
            out,
            "
# First part of the topics' names: {0}.<database>.<table>
prefix: {0}

# Left out, Caudal serves the log itself, from ./caudal-data. For a cluster:
# kafka:
#   brokers: [kafka-1:9092]

sources:
  {1}:
",
            scalar(&self.prefix),
            self.source.name
        );
        end(&mut out, &self.source);
        self.tables(&mut out);
        findings(&mut out, &self.checks);
        self.sinks(&mut out);
        out
    }

    fn tables(&self, out: &mut String) {
        out.push_str("    # All tables. To choose: tables: [orders, \"fact*\", \"!*_tmp\"]\n");
        let rows: u64 = self.tables.iter().filter_map(|table| table.rows).sum();
        let _ = writeln!(out, "    # There are {}, about {} rows:", self.tables.len(), count(rows));
        let width = self
            .tables
            .iter()
            .take(LISTED)
            .map(|t| t.schema.id.to_string().chars().count())
            .max()
            .unwrap_or(0);
        for table in self.tables.iter().take(LISTED) {
            let name = table.schema.id.to_string();
            let rows = table.rows.map(|rows| format!("about {} rows", count(rows))).unwrap_or_default();
            let line = format!("    #   {name:<width$}  {}  {rows}", key(&table.schema));
            let _ = writeln!(out, "{}", line.trim_end());
        }
        if self.tables.len() > LISTED {
            let _ = writeln!(out, "    #   … and {} more", self.tables.len() - LISTED);
        }
    }

    fn sinks(&self, out: &mut String) {
        let Some((sink, checks)) = &self.sink else {
            let _ = write!(
                out,
                "
# sinks:
#   dashboards:
#     type: postgres
#     url: postgres://user:${{env:DATABASE_PASSWORD}}@host/database
#     from: [{}]
",
                self.source.name
            );
            return;
        };
        let _ = write!(out, "\nsinks:\n  {}:\n", sink.name);
        end(out, sink);
        let _ = write!(
            out,
            "    from: [{}]
    # transaction: whole source transactions, across tables. key: each row by itself, the fastest.
    consistency: transaction
",
            self.source.name
        );
        findings(out, checks);
    }
}

fn end(out: &mut String, end: &End) {
    let _ = write!(out, "    type: {}\n    url: {}\n", end.kind, scalar(&end.url));
}

fn key(schema: &TableSchema) -> String {
    let columns: Vec<&str> = schema.key_columns().map(|column| column.name.as_str()).collect();
    if columns.is_empty() { "no key".to_owned() } else { format!("key ({})", columns.join(", ")) }
}

/// What `check` says beside "ok", as comments.
fn findings(out: &mut String, checks: &[Check]) {
    for check in checks {
        let word = if check.severity == Severity::Error { "TO MEND" } else { "note" };
        let _ = writeln!(out, "    # {word}: {}: {}", check.subject, one_line(&check.message));
        if let Some(fix) = &check.fix {
            let _ = writeln!(out, "    #   fix: {}", one_line(fix));
        }
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// In quotes where YAML needs them.
fn scalar(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-/:@?=&%${}+,~".contains(c);
    let starts = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '$');
    let word = matches!(text, "true" | "false" | "null" | "yes" | "no" | "on" | "off");
    match starts && !word && !text.ends_with(':') && text.chars().all(plain) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', "''")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::registry::registry;
    use super::*;
    use caudal_control::config;
    use caudal_control::config::secret::Vault;
    use caudal_core::{Column, ColumnType, KeyKind, TableId};
    use std::path::Path;

    struct AllSet;

    impl Vault for AllSet {
        fn variable(&self, _: &str) -> Option<String> {
            Some("geheim".into())
        }
        fn file(&self, _: &Path) -> std::io::Result<String> {
            Err(std::io::ErrorKind::NotFound.into())
        }
    }

    fn table(name: &str, key: Vec<u32>, rows: Option<u64>) -> Table {
        let id = Column {
            id: 1,
            name: "id".into(),
            ty: ColumnType::Int { bits: 32 },
            nullable: false,
            native: "int".into(),
            charset: None,
            default: None,
            generated: false,
            auto_increment: true,
            comment: None,
        };
        let key_kind = if key.is_empty() { KeyKind::None } else { KeyKind::Primary };
        let schema = TableSchema {
            id: TableId::new("shop", name),
            version: 1,
            generation: 1,
            columns: vec![id],
            key,
            key_kind,
            unique_keys: Vec::new(),
            foreign_keys: Vec::new(),
            charset: None,
            comment: None,
        };
        Table { schema, rows }
    }

    fn draft(sink: bool) -> Draft {
        let end = |kind, name: &str, url: &str, variable: Option<&str>| End {
            kind,
            name: name.into(),
            url: url.into(),
            variable: variable.map(str::to_owned),
        };
        let url = "mysql://cdc:${env:SHOP_PASSWORD}@127.0.0.1:3306/shop";
        Draft {
            prefix: "shop".into(),
            source: end("mysql", "shop", url, Some("SHOP_PASSWORD")),
            tables: vec![table("orders", vec![0], Some(1_234_567)), table("log", Vec::new(), None)],
            checks: vec![Check::warning("shop.log", "has no key", "ALTER TABLE\n  shop.log")],
            sink: sink.then(|| (end("postgres", "dash", "postgres://app@127.0.0.1/dash", None), Vec::new())),
        }
    }

    #[test]
    fn what_is_written_is_a_right_configuration() {
        for sink in [true, false] {
            let text = draft(sink).text();
            let resolved = config::parse(&text, "caudal.yaml", Path::new(""), &registry(), &AllSet);
            let resolved = resolved.unwrap_or_else(|invalid| panic!("{invalid}\n{text}"));
            assert_eq!((resolved.sources.len(), resolved.sinks.len()), (1, usize::from(sink)));
        }
    }

    #[test]
    fn tables_keys_rows_and_findings_stand_in_comments() {
        let text = draft(true).text();
        for line in [
            "# Set before `caudal check` and `caudal run`: export SHOP_PASSWORD='…'   (the password as it stood in the URL)",
            "    # There are 2, about 1,234,567 rows:",
            "    #   shop.orders  key (id)  about 1,234,567 rows",
            "    #   shop.log     no key",
            "    # note: shop.log: has no key",
            "    #   fix: ALTER TABLE shop.log",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} not in\n{text}");
        }
    }

    #[test]
    fn texts_that_yaml_would_read_otherwise_are_quoted() {
        for (text, expected) in [
            ("shop", "shop"),
            ("no", "'no'"),
            ("1st", "'1st'"),
            ("mysql://u:${env:X}@h:1/d?a=b", "mysql://u:${env:X}@h:1/d?a=b"),
            ("it's #1", "'it''s #1'"),
        ] {
            assert_eq!(scalar(text), expected);
        }
    }
}
