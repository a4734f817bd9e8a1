//! A table's shape, as the server describes it without running anything: names, types, key.

use crate::client::{Client, number, text, values};
use crate::config::Table;
use crate::names::ObjectName;
use crate::param::{Param, declarations};
use crate::refusal::described;
use crate::types::{Cast, reading};
use caudal_core::{Column, ColumnType, Error, KeyKind, Result, TableSchema};
use std::sync::Arc;

/// The shape, and how its columns are read.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub(crate) schema: Arc<TableSchema>,
    /// One for each of the schema's columns behind those of the store.
    pub(crate) casts: Vec<Cast>,
    /// Columns of the store, in front.
    pub(crate) own: usize,
}

const DESCRIBE: &str = "SELECT CAST(name AS nvarchar(128)), CAST(system_type_name AS nvarchar(256)), CAST(is_nullable AS int), \
    CAST(error_number AS int), CAST(error_message AS nvarchar(2000)) \
    FROM sys.dm_exec_describe_first_result_set(@P1, @P2, 0) ORDER BY column_ordinal";

const PRIMARY_KEY: &str = "SELECT CAST(c.name AS nvarchar(128)) FROM sys.indexes AS i \
    JOIN sys.index_columns AS ic ON ic.object_id = i.object_id AND ic.index_id = i.index_id \
    JOIN sys.columns AS c ON c.object_id = ic.object_id AND c.column_id = ic.column_id \
    WHERE i.object_id = OBJECT_ID(@P1) AND i.is_primary_key = 1 ORDER BY ic.key_ordinal";

struct Described {
    name: String,
    native: String,
    nullable: bool,
}

/// Asks for the shape of what `sql` selects.
///
/// # Errors
/// `Config` if the query or the key cannot be.
pub(crate) async fn shape(client: &mut Client, table: &Table, sql: &str, params: &[Param]) -> Result<Shape> {
    let columns = describe(client, table, sql, params).await?;
    let (key, kind) = match (&table.object, table.key.is_empty()) {
        (Some(object), true) => (primary_key(client, table, object).await?, KeyKind::Primary),
        _ => (table.key.clone(), KeyKind::Configured),
    };
    build(table, columns, &key, kind)
}

async fn describe(client: &mut Client, table: &Table, sql: &str, params: &[Param]) -> Result<Vec<Described>> {
    let what = format!("describe {}", table.id);
    let asked = [Param::Text(sql.to_owned()), Param::Text(declarations(params))];
    let mut columns = Vec::new();
    for row in client.rows(&what, DESCRIBE, &asked).await? {
        let row = values(row);
        if let Some(error) = number(row.get(3)) {
            let message = text(row.get(4)).unwrap_or_default();
            return Err(described(&what, i32::try_from(error).unwrap_or(0), &message));
        }
        let name = text(row.first()).filter(|name| !name.is_empty()).ok_or_else(|| {
            Error::config(format!("{what}: a column has no name")).hint("give it one: SELECT count(*) AS n")
        })?;
        let native = text(row.get(1)).unwrap_or_default();
        columns.push(Described { name, native, nullable: number(row.get(2)) != Some(0) });
    }
    if columns.is_empty() {
        return Err(Error::config(format!("{what}: nothing is selected")).hint("`query` must be one SELECT"));
    }
    Ok(columns)
}

async fn primary_key(client: &mut Client, table: &Table, object: &ObjectName) -> Result<Vec<String>> {
    let what = format!("look up the key of {}", table.id);
    let rows = client.rows(&what, PRIMARY_KEY, &[Param::Text(object.quoted())]).await?;
    let key: Vec<String> = rows.into_iter().filter_map(|row| text(values(row).first())).collect();
    if key.is_empty() {
        return Err(Error::config(format!("{} has no primary key that can be seen", table.id))
            .hint("name what tells its rows apart: key: [codigo]; of a view, or a table of another database, always"));
    }
    Ok(key)
}

fn build(table: &Table, described: Vec<Described>, key: &[String], key_kind: KeyKind) -> Result<Shape> {
    let own: Vec<&String> = table.store_columns.iter().map(|(column, _)| column).collect();
    let mut columns: Vec<(String, ColumnType, String, bool)> = own
        .iter()
        .map(|name| ((*name).clone(), ColumnType::Text { max_chars: None }, "nvarchar".into(), false))
        .collect();
    let mut casts = Vec::new();
    // Names differ by more than their case, or the server would not tell them apart within a query.
    for column in described.into_iter().filter(|c| !own.iter().any(|own| own.eq_ignore_ascii_case(&c.name))) {
        let Described { name, native, nullable } = column;
        let how = reading(&native).ok_or_else(|| {
            let native = if native.is_empty() { "a CLR type" } else { &native };
            Error::config(format!("{}: the column `{name}` is of {native}, which is not read", table.id))
                .hint("convert it in a `query`: CAST(… AS nvarchar(max)) AS …")
        })?;
        casts.push(how.cast);
        columns.push((name, how.ty, native, nullable));
    }
    let find = |name: &String| {
        let found = columns.iter().position(|(column, ..)| column.eq_ignore_ascii_case(name));
        found.map(|i| i as u32).ok_or_else(|| {
            Error::config(format!("{}: there is no column `{name}` for the key", table.id))
                .hint("correct `key`")
        })
    };
    let mut whole: Vec<u32> = (0..own.len() as u32).collect();
    for name in key {
        let at = find(name)?;
        if !whole.contains(&at) {
            whole.push(at);
        }
    }
    let column = |(i, (name, ty, native, nullable)): (usize, (String, ColumnType, String, bool))| Column {
        id: i as u32 + 1,
        nullable: nullable && !whole.contains(&(i as u32)),
        native,
        name,
        ty,
        charset: None,
        default: None,
        generated: false,
        auto_increment: false,
        comment: None,
    };
    let schema = TableSchema {
        id: table.id.clone(),
        version: 1,
        generation: 1,
        columns: columns.into_iter().enumerate().map(column).collect(),
        key: whole.clone(),
        key_kind,
        unique_keys: Vec::new(),
        foreign_keys: Vec::new(),
        charset: None,
        comment: None,
    };
    Ok(Shape { schema: Arc::new(schema), casts, own: own.len() })
}

impl Shape {
    /// Columns that the server has, with their casts and their place in the schema.
    pub(crate) fn selected(&self) -> impl Iterator<Item = (usize, &Column, Cast)> {
        let own = self.own;
        self.schema
            .columns
            .iter()
            .enumerate()
            .skip(own)
            .zip(&self.casts)
            .map(|((at, column), cast)| (at, column, *cast))
    }

    /// Columns of the key that the server has.
    pub(crate) fn key(&self) -> impl Iterator<Item = &Column> {
        self.schema
            .key
            .iter()
            .filter(|at| **at as usize >= self.own)
            .map(|at| &self.schema.columns[*at as usize])
    }

    /// A column by its name.
    ///
    /// # Errors
    /// `Config` if there is none.
    pub(crate) fn column(&self, name: &str) -> Result<(usize, &Column)> {
        let found = self.schema.columns.iter().enumerate().find(|(_, c)| c.name.eq_ignore_ascii_case(name));
        found.ok_or_else(|| {
            Error::config(format!("{}: there is no column `{name}` to be polled by", self.schema.id))
                .hint("correct `column`; a query must select it")
        })
    }
}
