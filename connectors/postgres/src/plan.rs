//! How rows of one shape are written to their table: the SQL.

use crate::catalog::{Relation, is_key};
use crate::project::Role;
use crate::quote::{ident, qualified};
use crate::types::JsonAs;
use crate::types::{PgType, Wire, holds, of};
use caudal_core::TableSchema;

/// A table's SQL for one shape of its rows.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Quoted name.
    pub(crate) target: String,
    /// Name for people.
    pub(crate) name: String,
    /// Name of the stage.
    pub(crate) stage_name: String,
    /// Quoted name of the stage, with its schema.
    pub(crate) stage: String,
    /// One for each column of the shape.
    pub(crate) columns: Vec<Mapped>,
    /// Indexes into `columns`.
    pub(crate) key: Vec<usize>,
    /// Unique indexes beside the key that are over plain columns, each with its columns.
    others: Vec<Vec<usize>>,
    /// Columns of unique indexes beside the key that are checked at once, written ones only: a row that changes one is deleted before it
    /// is written. None where that would be seen.
    unique: Vec<usize>,
    /// Whether a row that is deleted and written again is another one than before: rows of other tables refer to it, or the table has
    /// columns that nobody writes here.
    lasting: bool,
    /// Columns that take NULL.
    nullable: Vec<usize>,
    /// Whether COPY may write to the table itself: every column there takes the form on the wire.
    pub(crate) direct: bool,
    /// Whether the table may be truncated (no other table refers to it).
    truncatable: bool,
    /// Whether a row's place alone does not tell it: each partition has places of its own.
    partitioned: bool,
    /// Which rows a comparison looks at, if not all.
    pub(crate) only: Option<String>,
    /// What comes before the numbers of a batch's events, in a history.
    pub(crate) base: i64,
}

/// A column of the shape and what it is in the table.
#[derive(Debug)]
pub(crate) struct Mapped {
    pub(crate) wire: Wire,
    name: String,
    sql: String,
    /// Not written: the server computes it.
    skipped: bool,
    /// Whether a value needs a cast to the column's type.
    cast: bool,
    /// Whether the table has no such column, or not of a type that holds it, and is meant to stay so.
    absent: bool,
    /// What it is, if it is no column of the source's.
    role: Option<Role>,
}

impl Mapped {
    /// Quoted name in the table.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether the column is what a text, the parameter of that number, says.
    pub(crate) fn is_text(&self, parameter: usize) -> String {
        format!("{} = {}", self.name, self.of_text(parameter))
    }

    /// The value that a text, the parameter of that number, says.
    pub(crate) fn of_text(&self, parameter: usize) -> String {
        format!("(${parameter}::text)::{}", self.sql)
    }

    /// Whether nothing is written to it, since the table stays as it is.
    pub(crate) fn is_absent(&self) -> bool {
        self.absent
    }

    /// Whether it tells of the row's writing, not of the row: a difference there alone changes nothing.
    fn is_quiet(&self) -> bool {
        matches!(self.role, Some(Role::DeletedAt | Role::Watermark))
    }

    /// A value of the wire's type, cast where needed.
    fn value(&self, expression: &str) -> String {
        if self.cast { format!("{expression}::{}", self.sql) } else { expression.to_owned() }
    }

    /// An expression of the column that differs where the value shows differently. Equality alone is coarser: 0 equals -0 and,
    /// without a declared scale or within JSON, 1.0 equals 1.00; `json` has none at all.
    pub(crate) fn comparable(&self, expression: &str) -> String {
        match self.sql.as_str() {
            "json" | "jsonb" | "citext" | "numeric" => format!("({expression})::text"),
            "real" => format!("float4send({expression})"),
            "double precision" => format!("float8send({expression})"),
            _ => expression.to_owned(),
        }
    }
}

/// Where rows come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum From {
    /// Array parameters, one for each column.
    Arrays,
    /// The stage table.
    Stage,
}

impl Plan {
    /// The plan for rows of `schema`, whose columns have the names `names` in the table; `stage` is the stage's name, bare and
    /// quoted with its schema. Columns of `absent` (by their indexes) are not written.
    pub(crate) fn new(
        schema: &TableSchema,
        names: &[String],
        place: (&str, &str),
        stage: (String, String),
        relation: &Relation,
        (json, absent): (JsonAs, &[usize]),
    ) -> Self {
        let columns: Vec<Mapped> = schema
            .columns
            .iter()
            .zip(names)
            .enumerate()
            .filter_map(|(at, (column, name))| {
                let wanted = of(&column.ty, json);
                let role = Role::of(column.id);
                if absent.contains(&at) {
                    let (wire, sql) = (wanted.wire, wanted.sql);
                    let name = ident(name);
                    return Some(Mapped { wire, name, sql, skipped: true, cast: false, absent: true, role });
                }
                let there = relation.column(name)?;
                Some(Mapped {
                    wire: wanted.wire,
                    name: ident(name),
                    skipped: there.generated,
                    cast: !same_form(&there.sql, &wanted),
                    sql: there.sql.clone(),
                    absent: false,
                    role,
                })
            })
            .collect();
        let key: Vec<usize> = schema.key.iter().map(|k| *k as usize).collect();
        let key_names: Vec<&str> = key.iter().map(|k| names[*k].as_str()).collect();
        let history = columns.iter().any(|c| c.role == Some(Role::Seq));
        let direct = !history && columns.iter().all(|c| !c.skipped && !c.cast);
        let others = relation.uniques.iter().filter(|u| !is_key(u, &key_names));
        let own = |name: &String| names.contains(name);
        let lasting = relation.holds_others || relation.columns.iter().any(|c| !c.generated && !own(&c.name));
        let unique = match lasting {
            // Written event by event, values move in the order in which they did in the source.
            true => Vec::new(),
            false => unique_columns(others.clone().filter(|u| !u.deferrable), names, &columns),
        };
        let is_nullable = |name: &String| relation.column(name).is_some_and(|c| !c.not_null && !c.generated);
        let nullable = (0..names.len()).filter(|i| is_nullable(&names[*i])).collect();
        let others = others.filter_map(|u| plain_columns(u, names)).collect();
        Self {
            target: qualified(place.0, place.1),
            name: format!("{}.{}", place.0, place.1),
            stage_name: stage.0,
            stage: stage.1,
            columns,
            key,
            others,
            unique,
            lasting,
            nullable,
            direct,
            truncatable: !relation.referenced,
            partitioned: relation.kind == "p",
            only: None,
            base: 0,
        }
    }

    /// A given value of a column, cast where needed.
    pub(crate) fn given(&self, column: usize) -> String {
        self.columns[column].value(&format!("u.c{column}"))
    }

    /// Columns whose values are written, the key's left out.
    pub(crate) fn compared(&self) -> impl Iterator<Item = usize> {
        self.written().map(|(i, _)| i).filter(|i| !self.is_key(*i))
    }

    fn written(&self) -> impl Iterator<Item = (usize, &Mapped)> {
        self.columns.iter().enumerate().filter(|(_, c)| !c.skipped)
    }

    fn is_key(&self, column: usize) -> bool {
        self.key.contains(&column)
    }

    /// `FROM` item `u` with the columns `c0 …` of `columns`.
    fn source(&self, from: From, columns: &[usize]) -> String {
        if from == From::Stage {
            return format!("{} AS u", self.stage);
        }
        format!(
            "unnest({}) AS u({})",
            list(1..=columns.len(), |i| format!("${i}")),
            list(columns, |c| format!("c{c}"))
        )
    }

    fn matches(&self) -> String {
        let equal = |k: &usize| {
            let column = &self.columns[*k];
            format!("t.{} = {}", column.name, column.value(&format!("u.c{k}")))
        };
        self.key.iter().map(equal).collect::<Vec<_>>().join(" AND ")
    }

    /// All columns of the shape, as array parameters or in the stage.
    fn all(&self) -> Vec<usize> {
        (0..self.columns.len()).collect()
    }

    /// Inserts whole rows; those whose key is there are updated where something differs.
    pub(crate) fn upsert(&self, from: From) -> String {
        let mut sql = self.insert(from);
        let key = list(&self.key, |k| self.columns[*k].name.clone());
        let others: Vec<&Mapped> = self.written().filter(|(i, _)| !self.is_key(*i)).map(|(_, c)| c).collect();
        let telling: Vec<&&Mapped> = others.iter().filter(|c| !c.is_quiet()).collect();
        // What a history has of a change is not written again.
        if telling.is_empty() || self.is_history() {
            sql.push_str(&format!(" ON CONFLICT ({key}) DO NOTHING"));
            return sql;
        }
        let set = list(&others, |c| format!("{0} = excluded.{0}", c.name));
        let old = list(&telling, |c| c.comparable(&format!("t.{}", c.name)));
        let new = list(&telling, |c| c.comparable(&format!("excluded.{}", c.name)));
        sql.push_str(&format!(
            " ON CONFLICT ({key}) DO UPDATE SET {set} WHERE ROW({old}) IS DISTINCT FROM ROW({new})"
        ));
        sql
    }

    /// Inserts whole rows.
    pub(crate) fn insert(&self, from: From) -> String {
        let written: Vec<(usize, &Mapped)> = self.written().collect();
        format!(
            "INSERT INTO {} AS t ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM {}",
            self.target,
            list(&written, |(_, c)| c.name.clone()),
            list(&written, |(i, _)| self.written_value(*i)),
            self.source(from, &self.all()),
        )
    }

    /// The value that is written to a column.
    fn written_value(&self, column: usize) -> String {
        let given = self.given(column);
        match self.columns[column].role {
            Some(Role::Seq) => format!("({given} + {})", self.base),
            Some(Role::At) => format!("coalesce({given}, clock_timestamp())"),
            Some(Role::DeletedAt) => match self.role(Role::Deleted) {
                Some((deleted, _)) => {
                    format!("CASE WHEN u.c{deleted} THEN coalesce({given}, clock_timestamp()) END")
                }
                None => given,
            },
            _ => given,
        }
    }

    fn role(&self, role: Role) -> Option<(usize, &Mapped)> {
        self.columns.iter().enumerate().find(|(_, column)| column.role == Some(role))
    }

    /// Whether each change is a row of its own.
    pub(crate) fn is_history(&self) -> bool {
        self.role(Role::Seq).is_some()
    }

    /// Marks all rows as deleted, at the time of an expression; none where rows that are deleted go.
    pub(crate) fn gone(&self, at: &str) -> Option<String> {
        let (_, deleted) = self.role(Role::Deleted)?;
        let (_, deleted_at) = self.role(Role::DeletedAt)?;
        Some(format!(
            "UPDATE {} AS t SET {2} = true, {1} = {at} WHERE NOT t.{2}",
            self.target, deleted_at.name, deleted.name
        ))
    }

    /// Ends the versions of a history that these rows' versions follow. None where nothing tells whose versions they are.
    pub(crate) fn close(&self, from: From) -> Option<String> {
        let (position, _) = self.role(Role::Position)?;
        let key: Vec<usize> = self.key.iter().copied().filter(|k| *k != position).collect();
        if key.is_empty() {
            return None;
        }
        let of = |table: &str| list(&key, |k| format!("{table}.{}", self.columns[*k].name));
        let given = list(&key, |k| self.given(*k));
        let same: Vec<String> =
            self.key.iter().map(|k| format!("t.{0} = n.{0}", self.columns[*k].name)).collect();
        Some(format!(
            "UPDATE {target} AS t SET \"_valid_to\" = n.\"until\" FROM (SELECT {of_v}, v.\"_position\", \
             CASE WHEN v.\"_op\" = 'd' THEN v.\"_at\" WHEN lead(v.\"_at\") OVER w IS NOT NULL \
             THEN greatest(v.\"_at\", lead(v.\"_at\") OVER w) END AS \"until\" \
             FROM {target} AS v WHERE v.\"_valid_to\" IS NULL AND ({of_v}) IN (SELECT {given} FROM {source}) \
             WINDOW w AS (PARTITION BY {of_v} ORDER BY v.\"_seq\")) AS n \
             WHERE {same} AND n.\"until\" IS NOT NULL",
            target = self.target,
            of_v = of("v"),
            source = self.source(from, &self.all()),
            same = same.join(" AND "),
        ))
    }

    /// Deletes the rows that change a column of another unique index, so that values may move between rows: the upsert writes
    /// them anew. None where the table has no such index, or where its rows are to stay.
    pub(crate) fn make_room(&self, from: From) -> Option<String> {
        if self.unique.is_empty() || self.is_history() {
            return None;
        }
        let old =
            list(&self.unique, |i| self.columns[*i].comparable(&format!("t.{}", self.columns[*i].name)));
        let new = list(&self.unique, |i| {
            let column = &self.columns[*i];
            column.comparable(&column.value(&format!("u.c{i}")))
        });
        Some(format!(
            "DELETE FROM {} AS t USING {} WHERE {} AND ROW({old}) IS DISTINCT FROM ROW({new})",
            self.target,
            self.source(from, &self.all()),
            self.matches(),
        ))
    }

    /// Notes the keys of rows as collected by a sweep.
    pub(crate) fn collect(&self, from: From, keys: &str) -> String {
        let values = list(&self.key, |k| self.columns[*k].value(&format!("u.c{k}")));
        let source = self.source(from, &self.all());
        format!("INSERT INTO {keys} SELECT {values} FROM {source} ON CONFLICT DO NOTHING")
    }

    /// Takes keys, given as arrays of the key's columns, out of what a sweep has collected.
    pub(crate) fn forget(&self, keys: &str) -> String {
        let equal =
            |(i, k): (usize, &usize)| format!("s.k{i} = {}", self.columns[*k].value(&format!("u.c{k}")));
        let equal: Vec<String> = self.key.iter().enumerate().map(equal).collect();
        let source = self.source(From::Arrays, &self.key);
        format!("DELETE FROM {keys} AS s USING {source} WHERE {}", equal.join(" AND "))
    }

    /// Deletes rows under other keys that have the unique values of rows to be written: one statement for each unique index.
    /// They are gone from the log, or come again further on: where rows are to stay until that is known, they lose the value, if the
    /// index has a column that takes NULL, or the row that has it now is refused. Where changes do not come in one order (not `ordered`), what the
    /// sweep has collected stays.
    pub(crate) fn evict(&self, from: From, keys: &str, ordered: bool) -> Vec<String> {
        let of_key = |of: &str| list(&self.key, |k| format!("{of}.{}", self.columns[*k].name));
        let uncollected = if ordered {
            String::new()
        } else {
            let equal: Vec<String> = self
                .key
                .iter()
                .enumerate()
                .map(|(i, k)| format!("s.k{i} = t.{}", self.columns[*k].name))
                .collect();
            format!(" AND NOT EXISTS (SELECT 1 FROM {keys} AS s WHERE {})", equal.join(" AND "))
        };
        let new_key = list(&self.key, |k| self.columns[*k].value(&format!("u.c{k}")));
        let statement = |unique: &Vec<usize>| {
            let (act, from_word) = match self.lasting {
                false => (format!("DELETE FROM {} AS t", self.target), "USING"),
                true => {
                    let column = unique.iter().find(|i| self.nullable.contains(i))?;
                    let set =
                        format!("UPDATE {} AS t SET {} = NULL", self.target, self.columns[*column].name);
                    (set, "FROM")
                }
            };
            let equal: Vec<String> = unique
                .iter()
                .map(|i| {
                    format!("t.{} = {}", self.columns[*i].name, self.columns[*i].value(&format!("u.c{i}")))
                })
                .collect();
            Some(format!(
                "{act} {from_word} {} WHERE {} AND ROW({}) IS DISTINCT FROM ROW({new_key}){uncollected}",
                self.source(from, &self.all()),
                equal.join(" AND "),
                of_key("t"),
            ))
        };
        self.others.iter().filter_map(statement).collect()
    }

    /// Deletes rows by arrays of their key columns.
    pub(crate) fn delete(&self) -> String {
        format!(
            "DELETE FROM {} AS t USING {} WHERE {}",
            self.target,
            self.source(From::Arrays, &self.key),
            self.matches(),
        )
    }

    /// Updates the columns of `present`; none if only the key is there.
    pub(crate) fn patch(&self, present: &[usize]) -> Option<String> {
        let set: Vec<usize> =
            present.iter().copied().filter(|i| !self.is_key(*i) && !self.columns[*i].skipped).collect();
        if set.is_empty() {
            return None;
        }
        let set = list(&set, |i| {
            let column = &self.columns[*i];
            format!("{} = {}", column.name, self.written_value(*i))
        });
        Some(format!(
            "UPDATE {} AS t SET {set} FROM {} WHERE {}",
            self.target,
            self.source(From::Arrays, present),
            self.matches(),
        ))
    }

    /// Deletes one row that equals an image; `present` tells for each column whether the image has a value (`Some(true)`), is
    /// NULL, or lacks it (`None`). Parameters are the values, in order.
    pub(crate) fn remove(&self, present: &[Option<bool>]) -> String {
        let mut number = 0;
        let mut conditions = Vec::new();
        for (column, there) in self.columns.iter().zip(present) {
            match there {
                _ if column.absent => {}
                None => {}
                Some(false) => conditions.push(format!("{} IS NULL", column.name)),
                Some(true) => {
                    number += 1;
                    let value = column.comparable(&column.value(&format!("${number}")));
                    conditions.push(format!("{} = {value}", column.comparable(&column.name)));
                }
            }
        }
        let matches = if conditions.is_empty() { "true".to_owned() } else { conditions.join(" AND ") };
        if self.partitioned {
            return format!(
                "DELETE FROM {0} WHERE (tableoid, ctid) IN (SELECT tableoid, ctid FROM {0} WHERE {matches} LIMIT 1)",
                self.target
            );
        }
        format!(
            "DELETE FROM {0} WHERE ctid = (SELECT ctid FROM {0} WHERE {matches} LIMIT 1 FOR UPDATE)",
            self.target
        )
    }

    /// Empties the table; `at_us`: when the source did. Where rows outlive that, they are told to be gone.
    pub(crate) fn truncate(&self, at_us: i64) -> String {
        let at = format!("to_timestamp({} / 1000000.0)", at_us);
        if self.is_history() {
            return format!(
                "UPDATE {} SET \"_valid_to\" = greatest(\"_at\", {at}) WHERE \"_valid_to\" IS NULL",
                self.target
            );
        }
        if let Some(gone) = self.gone(&at) {
            return gone;
        }
        if self.truncatable {
            format!("TRUNCATE {}", self.target)
        } else {
            format!("DELETE FROM {}", self.target)
        }
    }

    /// COPY into the table.
    pub(crate) fn copy_direct(&self) -> String {
        format!(
            "COPY {} ({}) FROM STDIN WITH (FORMAT binary)",
            self.target,
            list(&self.columns, |c| c.name.clone())
        )
    }

    /// COPY into the stage.
    pub(crate) fn copy_stage(&self) -> String {
        format!(
            "COPY {} ({}) FROM STDIN WITH (FORMAT binary)",
            self.stage,
            list(&self.all(), |c| format!("c{c}"))
        )
    }

    /// The stage's columns with their types.
    pub(crate) fn stage_columns(&self) -> Vec<(String, &'static str)> {
        self.columns.iter().enumerate().map(|(i, c)| (format!("c{i}"), c.wire.stage_sql())).collect()
    }
}

/// Whether a column takes the wire's binary form as it is; precision and length are applied by the column itself.
fn same_form(actual: &str, wanted: &PgType) -> bool {
    let base = |sql: &str| -> String {
        match (sql.find('('), sql.find(')')) {
            (Some(open), Some(close)) => format!("{}{}", &sql[..open], &sql[close + 1..]),
            _ => sql.to_owned(),
        }
    };
    match wanted.wire {
        Wire::Bit(_) => matches!(base(actual).as_str(), "bit" | "bit varying"),
        wire => base(actual) == wire.stage_sql(),
    }
}

/// Columns of the given unique indexes. An index over expressions may depend on any column.
fn unique_columns<'a>(
    others: impl Iterator<Item = &'a crate::catalog::Unique>,
    names: &[String],
    columns: &[Mapped],
) -> Vec<usize> {
    let mut found = vec![false; columns.len()];
    for unique in others {
        let expression = !unique.plain && unique.columns.is_empty();
        for (at, name) in names.iter().enumerate() {
            found[at] |= expression || unique.columns.contains(name);
        }
    }
    (0..columns.len()).filter(|i| found[*i] && !columns[*i].skipped).collect()
}

/// The columns of a unique index, if it is over plain ones of the shape.
fn plain_columns(unique: &crate::catalog::Unique, names: &[String]) -> Option<Vec<usize>> {
    let at = |column: &String| names.iter().position(|name| name == column);
    let columns: Option<Vec<usize>> = unique.columns.iter().map(at).collect();
    columns.filter(|columns| (unique.plain || unique.deferrable) && !columns.is_empty())
}

fn list<T>(items: impl IntoIterator<Item = T>, f: impl Fn(T) -> String) -> String {
    items.into_iter().map(f).collect::<Vec<_>>().join(", ")
}

/// Whether the column of the table takes every value of the shape's column.
pub(crate) fn takes(there: &crate::catalog::Present, column: &caudal_core::Column, json: JsonAs) -> bool {
    let max_chars = match column.ty {
        caudal_core::ColumnType::Text { max_chars } => max_chars,
        _ => None,
    };
    holds(&there.sql, there.is_enum, &of(&column.ty, json), max_chars)
}
