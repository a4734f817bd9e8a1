//! Tables as `information_schema` describes them *now*: for the start, for `discover`, and to fill in what the log lacks.
//!
//! Memory: the shapes of the selected tables.

use crate::client::{Client, row_text};
use crate::native::NativeType;
use crate::selection::Selection;
use caudal_core::{Column, ColumnType, Error, ForeignKey, KeyKind, Result, TableId, TableSchema, UniqueKey};
use mysql_async::Row;
use std::collections::BTreeMap;

/// A table with what only the reader needs to know of it.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    /// Its shape.
    pub(crate) schema: TableSchema,
    /// Rows, as the server estimates.
    pub(crate) estimated_rows: u64,
    /// Mean bytes of a row, as the server estimates.
    pub(crate) row_bytes: u64,
    /// The server's index that is the key, and whether each key column is in it as a whole.
    pub(crate) key_index: Option<KeyIndex>,
    /// Indexes of columns that are computed when read, not stored.
    pub(crate) virtual_columns: Vec<u32>,
    /// Collations of the columns, where they are text.
    pub(crate) collations: Vec<Option<String>>,
}

/// The index behind a table's key.
#[derive(Clone, Debug)]
pub(crate) struct KeyIndex {
    /// Its name.
    pub(crate) name: String,
    /// Whether one of its columns is indexed by a prefix only.
    pub(crate) prefixed: bool,
}

/// Reads all selected tables, or one.
///
/// # Errors
/// As for SQL; `Data` for a column type that is not known.
pub(crate) async fn tables(
    client: &mut Client,
    selection: &Selection,
    only: Option<&TableId>,
) -> Result<BTreeMap<TableId, Table>> {
    let filter = Filter::new(selection, only);
    let mut tables = base_tables(client, &filter).await?;
    columns(client, &filter, &mut tables).await?;
    let indexes = indexes(client, &filter).await?;
    for (id, table) in &mut tables {
        let indexes = indexes.get(id).map(Vec::as_slice).unwrap_or_default();
        apply_indexes(table, indexes);
        if selection.keys.has(id) {
            selection.keys.apply(&mut table.schema)?;
            table.key_index = index_over_key(&table.schema, indexes);
        }
    }
    foreign_keys(client, &filter, &mut tables).await?;
    Ok(tables)
}

/// What the queries are restricted to. The databases go into SQL (they are what makes the server's answer small); patterns
/// are applied here.
struct Filter<'a> {
    selection: &'a Selection,
    only: Option<&'a TableId>,
}

impl<'a> Filter<'a> {
    fn new(selection: &'a Selection, only: Option<&'a TableId>) -> Self {
        Self { selection, only }
    }

    /// A condition on the named columns and its parameters.
    fn condition(&self, schema: &str, table: &str) -> (String, Vec<mysql_async::Value>) {
        if let Some(id) = self.only {
            let parameters = vec![id.database.as_str().into(), id.table.as_str().into()];
            return (format!("{schema} = ? AND {table} = ?"), parameters);
        }
        match self.selection.databases() {
            Some(names) => (
                format!("{schema} IN ({})", vec!["?"; names.len()].join(",")),
                names.into_iter().map(Into::into).collect(),
            ),
            None => (
                format!("{schema} NOT IN ('mysql','information_schema','performance_schema','sys')"),
                Vec::new(),
            ),
        }
    }

    fn takes(&self, id: &TableId) -> bool {
        self.only.map_or_else(|| self.selection.selects(id), |only| only == id)
    }
}

async fn base_tables(client: &mut Client, filter: &Filter<'_>) -> Result<BTreeMap<TableId, Table>> {
    let (condition, parameters) = filter.condition("t.TABLE_SCHEMA", "t.TABLE_NAME");
    let sql = format!(
        "SELECT t.TABLE_SCHEMA, t.TABLE_NAME, t.TABLE_ROWS, t.AVG_ROW_LENGTH, t.TABLE_COMMENT, c.CHARACTER_SET_NAME \
         FROM information_schema.TABLES t \
         LEFT JOIN information_schema.COLLATIONS c ON c.COLLATION_NAME = t.TABLE_COLLATION \
         WHERE t.TABLE_TYPE IN ('BASE TABLE','SYSTEM VERSIONED') AND {condition}"
    );
    let mut tables = BTreeMap::new();
    for row in client.bound_rows("list tables", &sql, parameters).await? {
        let id = TableId::new(text(&row, 0), text(&row, 1));
        if filter.takes(&id) {
            tables.insert(id.clone(), empty_table(id, &row));
        }
    }
    Ok(tables)
}

fn empty_table(id: TableId, row: &Row) -> Table {
    Table {
        schema: TableSchema {
            id,
            version: 1,
            generation: 1,
            columns: Vec::new(),
            key: Vec::new(),
            key_kind: KeyKind::None,
            unique_keys: Vec::new(),
            foreign_keys: Vec::new(),
            charset: row_text(row, 5),
            comment: row_text(row, 4).filter(|c| !c.is_empty()),
        },
        estimated_rows: number(row, 2).unwrap_or(0),
        row_bytes: number(row, 3).unwrap_or(0),
        key_index: None,
        virtual_columns: Vec::new(),
        collations: Vec::new(),
    }
}

async fn columns(
    client: &mut Client,
    filter: &Filter<'_>,
    tables: &mut BTreeMap<TableId, Table>,
) -> Result<()> {
    let (condition, parameters) = filter.condition("TABLE_SCHEMA", "TABLE_NAME");
    let sql = format!(
        "SELECT TABLE_SCHEMA, TABLE_NAME, COLUMN_NAME, DATA_TYPE, COLUMN_TYPE, CHARACTER_MAXIMUM_LENGTH, NUMERIC_PRECISION, \
         NUMERIC_SCALE, DATETIME_PRECISION, IS_NULLABLE, CHARACTER_SET_NAME, COLUMN_DEFAULT, EXTRA, COLUMN_COMMENT, COLLATION_NAME \
         FROM information_schema.COLUMNS WHERE {condition} ORDER BY TABLE_SCHEMA, TABLE_NAME, ORDINAL_POSITION"
    );
    for row in client.bound_rows("list columns", &sql, parameters).await? {
        let id = TableId::new(text(&row, 0), text(&row, 1));
        if let Some(table) = tables.get_mut(&id) {
            let column = column(&row, &id, table.schema.columns.len() as u32)?;
            if text(&row, 12).to_ascii_uppercase().contains("VIRTUAL") {
                table.virtual_columns.push(table.schema.columns.len() as u32);
            }
            table.collations.push(row_text(&row, 14));
            table.schema.columns.push(column);
        }
    }
    Ok(())
}

fn column(row: &Row, id: &TableId, index: u32) -> Result<Column> {
    let native = NativeType {
        name: text(row, 3).to_ascii_lowercase(),
        full: text(row, 4),
        length: number(row, 5),
        precision: number(row, 6),
        scale: number(row, 7),
        fraction: number(row, 8),
    };
    let name = text(row, 2);
    let ty = native.column_type().ok_or_else(|| {
        Error::data(format!("{id}: column `{name}` has the type `{}`, which is not known", native.full))
            .hint("exclude the table (`!table` in `tables`) and report the type")
    })?;
    let extra = text(row, 12).to_ascii_uppercase();
    Ok(Column {
        id: index + 1,
        charset: row_text(row, 10).filter(|_| carries_charset(&ty)),
        name,
        ty,
        nullable: text(row, 9) == "YES",
        native: native.full,
        default: row_text(row, 11).filter(|d| d != "NULL"),
        generated: extra.contains("GENERATED") && !extra.contains("DEFAULT_GENERATED")
            || extra.contains("VIRTUAL GENERATED")
            || extra.contains("STORED GENERATED"),
        auto_increment: extra.contains("AUTO_INCREMENT"),
        comment: row_text(row, 13).filter(|c| !c.is_empty()),
    })
}

/// Whether a column of this type has a character set of its own.
pub(crate) fn carries_charset(ty: &ColumnType) -> bool {
    matches!(ty, ColumnType::Text { .. } | ColumnType::Enum { .. } | ColumnType::Set { .. })
}

struct IndexColumn {
    index: String,
    column: String,
    nullable: bool,
    prefixed: bool,
    unique: bool,
    /// Whether a query can be made to walk it upwards.
    ordered: bool,
}

/// The unique indexes of all tables, column by column; all indexes where the configuration gives keys.
async fn indexes(client: &mut Client, filter: &Filter<'_>) -> Result<BTreeMap<TableId, Vec<IndexColumn>>> {
    let (condition, parameters) = filter.condition("TABLE_SCHEMA", "TABLE_NAME");
    // An index that the optimizer may not use cannot be forced on it.
    let usable = if client.version.is_mariadb() { "IGNORED = 'NO'" } else { "IS_VISIBLE = 'YES'" };
    let which = if filter.selection.keys.is_empty() { "NON_UNIQUE = 0 AND" } else { "" };
    let sql = format!(
        "SELECT TABLE_SCHEMA, TABLE_NAME, INDEX_NAME, COLUMN_NAME, NULLABLE, SUB_PART, NON_UNIQUE, \
         INDEX_TYPE = 'BTREE' AND COLLATION = 'A' AND {usable} FROM information_schema.STATISTICS \
         WHERE {which} {condition} ORDER BY TABLE_SCHEMA, TABLE_NAME, INDEX_NAME, SEQ_IN_INDEX"
    );
    let mut indexes: BTreeMap<TableId, Vec<IndexColumn>> = BTreeMap::new();
    for row in client.bound_rows("list unique keys", &sql, parameters).await? {
        indexes.entry(TableId::new(text(&row, 0), text(&row, 1))).or_default().push(IndexColumn {
            index: text(&row, 2),
            // An index over an expression names no column: it can be no key.
            column: row_text(&row, 3).unwrap_or_default(),
            nullable: text(&row, 4) == "YES" || row_text(&row, 3).is_none(),
            prefixed: number(&row, 5).is_some(),
            unique: number(&row, 6) == Some(0),
            ordered: number(&row, 7) == Some(1),
        });
    }
    Ok(indexes)
}

/// The key is the primary key, else the first unique key (by name) over whole columns that cannot be NULL, else none.
fn apply_indexes(table: &mut Table, columns: &[IndexColumn]) {
    let groups: Vec<&[IndexColumn]> =
        columns.chunk_by(|a, b| a.index == b.index).filter(|g| g[0].unique).collect();
    let primary = groups.iter().find(|g| g[0].index == "PRIMARY");
    let unique = || groups.iter().find(|g| g.iter().all(|c| !c.nullable && !c.prefixed));
    let (kind, chosen) = match primary {
        Some(group) => (KeyKind::Primary, Some(*group)),
        None => unique().map_or((KeyKind::None, None), |g| (KeyKind::Unique, Some(*g))),
    };
    let positions = |group: &[IndexColumn]| -> Option<Vec<u32>> {
        group
            .iter()
            .map(|c| table.schema.columns.iter().position(|k| k.name == c.column).map(|i| i as u32))
            .collect()
    };
    let key = chosen.and_then(positions);
    let others: Vec<UniqueKey> = groups
        .iter()
        .filter(|g| chosen.is_none_or(|c| c[0].index != g[0].index))
        .filter(|g| g.iter().all(|c| !c.prefixed))
        .filter_map(|g| Some(UniqueKey { name: g[0].index.clone(), columns: positions(g)? }))
        .collect();
    table.schema.unique_keys = others;
    if let (Some(group), Some(key)) = (chosen, key) {
        table.schema.key = key;
        table.schema.key_kind = kind;
        table.key_index =
            Some(KeyIndex { name: group[0].index.clone(), prefixed: group.iter().any(|c| c.prefixed) });
    }
}

/// The index that begins with the columns of a configured key, in its order: chunks are read along it.
fn index_over_key(schema: &TableSchema, columns: &[IndexColumn]) -> Option<KeyIndex> {
    let key: Vec<&str> = schema.key_columns().map(|c| c.name.as_str()).collect();
    let over = |group: &&[IndexColumn]| {
        let leads = group.iter().zip(&key).all(|(c, k)| c.column == *k && !c.prefixed && c.ordered);
        group.len() >= key.len() && leads
    };
    let found = columns.chunk_by(|a, b| a.index == b.index).find(over)?;
    Some(KeyIndex { name: found[0].index.clone(), prefixed: false })
}

async fn foreign_keys(
    client: &mut Client,
    filter: &Filter<'_>,
    tables: &mut BTreeMap<TableId, Table>,
) -> Result<()> {
    let (condition, parameters) = filter.condition("k.TABLE_SCHEMA", "k.TABLE_NAME");
    let sql = format!(
        "SELECT k.TABLE_SCHEMA, k.TABLE_NAME, k.CONSTRAINT_NAME, k.COLUMN_NAME, k.REFERENCED_TABLE_SCHEMA, \
         k.REFERENCED_TABLE_NAME, k.REFERENCED_COLUMN_NAME, r.DELETE_RULE, r.UPDATE_RULE \
         FROM information_schema.KEY_COLUMN_USAGE k JOIN information_schema.REFERENTIAL_CONSTRAINTS r \
         ON r.CONSTRAINT_SCHEMA = k.CONSTRAINT_SCHEMA AND r.CONSTRAINT_NAME = k.CONSTRAINT_NAME AND r.TABLE_NAME = k.TABLE_NAME \
         WHERE k.REFERENCED_TABLE_NAME IS NOT NULL AND {condition} \
         ORDER BY k.TABLE_SCHEMA, k.TABLE_NAME, k.CONSTRAINT_NAME, k.ORDINAL_POSITION"
    );
    for row in client.bound_rows("list foreign keys", &sql, parameters).await? {
        let id = TableId::new(text(&row, 0), text(&row, 1));
        let Some(table) = tables.get_mut(&id) else { continue };
        let name = text(&row, 2);
        let keys = &mut table.schema.foreign_keys;
        if keys.last().is_none_or(|k| k.name != name) {
            keys.push(ForeignKey {
                name,
                columns: Vec::new(),
                parent: TableId::new(text(&row, 4), text(&row, 5)),
                parent_columns: Vec::new(),
                on_delete: text(&row, 7),
                on_update: text(&row, 8),
            });
        }
        if let Some(key) = keys.last_mut() {
            key.columns.push(text(&row, 3));
            key.parent_columns.push(text(&row, 6));
        }
    }
    Ok(())
}

fn text(row: &Row, column: usize) -> String {
    row_text(row, column).unwrap_or_default()
}

fn number(row: &Row, column: usize) -> Option<u64> {
    row_text(row, column)?.parse().ok()
}
