//! Tables as `information_schema` describes them *now*: for the start, for `discover`, and to fill in what the log lacks.
//!
//! Memory: the shapes of the selected tables.

use crate::client::{Client, Row, row_text};
use crate::native::NativeType;
use crate::selection::Selection;
use crate::value::Value;
use caudal_core::{Column, ColumnType, Error, ForeignKey, KeyKind, Result, TableId, TableSchema, UniqueKey};
use std::collections::BTreeMap;

/// A table with what only the reader needs to know of it.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    /// Its shape.
    pub(crate) schema: TableSchema,
    /// Rows, as the server estimates; 0 until [`estimates`] was asked.
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

/// What was found.
pub(crate) struct Survey {
    /// Tables that can be captured.
    pub(crate) tables: BTreeMap<TableId, Table>,
    /// Tables that cannot, and why: a column's type is not known.
    pub(crate) refused: BTreeMap<TableId, Error>,
    /// Foreign keys whose rules change rows, of all tables in the databases of the selection, captured or not.
    pub(crate) cascades: Vec<Cascade>,
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
    let survey = survey(client, selection, only).await?;
    match survey.refused.into_values().next() {
        Some(error) => Err(error),
        None => Ok(survey.tables),
    }
}

/// The same, with the tables that cannot be captured set aside.
///
/// # Errors
/// As for SQL.
pub(crate) async fn survey(
    client: &mut Client,
    selection: &Selection,
    only: Option<&TableId>,
) -> Result<Survey> {
    client.revive().await?;
    let filter = Filter::new(selection, only);
    let mut tables = base_tables(client, &filter).await?;
    let refused = columns(client, &filter, &mut tables).await?;
    let indexes = indexes(client, &filter).await?;
    for (id, table) in &mut tables {
        let indexes = indexes.get(id).map(Vec::as_slice).unwrap_or_default();
        apply_indexes(table, indexes);
        if selection.keys.has(id) {
            selection.keys.apply(&mut table.schema)?;
            table.key_index = index_over_key(&table.schema, indexes);
        }
    }
    let references = references(client, &filter).await?;
    let cascades = references.iter().filter_map(Reference::cascade).collect();
    for reference in references {
        if let Some(table) = tables.get_mut(&reference.child) {
            table.schema.foreign_keys.push(reference.key);
        }
    }
    Ok(Survey { tables, refused, cascades })
}

/// Fills in how many rows there are, as the server estimates. Apart from the rest, for it is what takes servers longest: MariaDB
/// opens each table for it.
///
/// # Errors
/// As for SQL.
pub(crate) async fn estimates(
    client: &mut Client,
    selection: &Selection,
    tables: &mut BTreeMap<TableId, Table>,
) -> Result<()> {
    let only = (tables.len() == 1).then(|| tables.keys().next().cloned()).flatten();
    let (condition, parameters) =
        Filter::new(selection, only.as_ref()).condition("TABLE_SCHEMA", "TABLE_NAME");
    let sql = format!(
        "SELECT TABLE_SCHEMA, TABLE_NAME, TABLE_ROWS, AVG_ROW_LENGTH FROM information_schema.TABLES WHERE {condition}"
    );
    for row in client.bound_rows("estimate tables", &sql, parameters).await? {
        if let Some(table) = tables.get_mut(&TableId::new(text(&row, 0), text(&row, 1))) {
            table.estimated_rows = number(&row, 2).unwrap_or(0);
            table.row_bytes = number(&row, 3).unwrap_or(0);
        }
    }
    Ok(())
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
    fn condition(&self, schema: &str, table: &str) -> (String, Vec<Value>) {
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
        "SELECT t.TABLE_SCHEMA, t.TABLE_NAME, t.TABLE_COMMENT, c.CHARACTER_SET_NAME \
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
            charset: row_text(row, 3),
            comment: row_text(row, 2).filter(|c| !c.is_empty()),
        },
        estimated_rows: 0,
        row_bytes: 0,
        key_index: None,
        virtual_columns: Vec::new(),
        collations: Vec::new(),
    }
}

/// Fills in the columns. Tables with a type that is not known are taken out, and returned with the reason.
async fn columns(
    client: &mut Client,
    filter: &Filter<'_>,
    tables: &mut BTreeMap<TableId, Table>,
) -> Result<BTreeMap<TableId, Error>> {
    let (condition, parameters) = filter.condition("TABLE_SCHEMA", "TABLE_NAME");
    let sql = format!(
        "SELECT TABLE_SCHEMA, TABLE_NAME, COLUMN_NAME, DATA_TYPE, COLUMN_TYPE, CHARACTER_MAXIMUM_LENGTH, NUMERIC_PRECISION, \
         NUMERIC_SCALE, DATETIME_PRECISION, IS_NULLABLE, CHARACTER_SET_NAME, COLUMN_DEFAULT, EXTRA, COLUMN_COMMENT, COLLATION_NAME \
         FROM information_schema.COLUMNS WHERE {condition} ORDER BY TABLE_SCHEMA, TABLE_NAME, ORDINAL_POSITION"
    );
    let mut refused = BTreeMap::new();
    for row in client.bound_rows("list columns", &sql, parameters).await? {
        let id = TableId::new(text(&row, 0), text(&row, 1));
        let Some(table) = tables.get_mut(&id) else { continue };
        match column(&row, &id, table.schema.columns.len() as u32) {
            Ok(column) => {
                if text(&row, 12).to_ascii_uppercase().contains("VIRTUAL") {
                    table.virtual_columns.push(table.schema.columns.len() as u32);
                }
                table.collations.push(row_text(&row, 14));
                table.schema.columns.push(column);
            }
            Err(error) => {
                tables.remove(&id);
                refused.insert(id, error);
            }
        }
    }
    Ok(refused)
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

/// The rules of foreign keys, and their columns. In two queries: servers make the tables of information_schema up as they are
/// asked for, and a join of two can take them all once for each row.
async fn references(client: &mut Client, filter: &Filter<'_>) -> Result<Vec<Reference>> {
    let (condition, parameters) = filter.condition("CONSTRAINT_SCHEMA", "TABLE_NAME");
    let sql = format!(
        "SELECT CONSTRAINT_SCHEMA, TABLE_NAME, CONSTRAINT_NAME, DELETE_RULE, UPDATE_RULE \
         FROM information_schema.REFERENTIAL_CONSTRAINTS WHERE {condition}"
    );
    let key = |row: &Row| (TableId::new(text(row, 0), text(row, 1)), text(row, 2));
    let rules: BTreeMap<_, _> = client
        .bound_rows("list foreign keys", &sql, parameters)
        .await?
        .iter()
        .map(|row| (key(row), (text(row, 3), text(row, 4))))
        .collect();
    if rules.is_empty() {
        return Ok(Vec::new());
    }
    let (condition, parameters) = filter.condition("TABLE_SCHEMA", "TABLE_NAME");
    let sql = format!(
        "SELECT TABLE_SCHEMA, TABLE_NAME, CONSTRAINT_NAME, COLUMN_NAME, REFERENCED_TABLE_SCHEMA, \
         REFERENCED_TABLE_NAME, REFERENCED_COLUMN_NAME FROM information_schema.KEY_COLUMN_USAGE \
         WHERE REFERENCED_TABLE_NAME IS NOT NULL AND {condition} \
         ORDER BY TABLE_SCHEMA, TABLE_NAME, CONSTRAINT_NAME, ORDINAL_POSITION"
    );
    let mut out: Vec<Reference> = Vec::new();
    for row in client.bound_rows("list columns of foreign keys", &sql, parameters).await? {
        let (child, name) = key(&row);
        if out.last().is_none_or(|r| (&r.child, &r.key.name) != (&child, &name)) {
            let (on_delete, on_update) =
                rules.get(&(child.clone(), name.clone())).cloned().unwrap_or_default();
            let parent = TableId::new(text(&row, 4), text(&row, 5));
            let (columns, parent_columns) = (Vec::new(), Vec::new());
            out.push(Reference {
                child,
                key: ForeignKey { name, columns, parent, parent_columns, on_delete, on_update },
            });
        }
        if let Some(last) = out.last_mut() {
            last.key.columns.push(text(&row, 3));
            last.key.parent_columns.push(text(&row, 6));
        }
    }
    Ok(out)
}

struct Reference {
    child: TableId,
    key: ForeignKey,
}

impl Reference {
    fn cascade(&self) -> Option<Cascade> {
        let (on_delete, on_update) = (acts(&self.key.on_delete), acts(&self.key.on_update));
        (on_delete || on_update).then(|| Cascade {
            parent: self.key.parent.clone(),
            parent_columns: self.key.parent_columns.clone(),
            child: self.child.clone(),
            columns: self.key.columns.clone(),
            on_delete,
            on_update,
        })
    }
}

/// A foreign key whose rule changes rows of the child when the parent's change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cascade {
    /// The table referred to.
    pub(crate) parent: TableId,
    /// Its columns.
    pub(crate) parent_columns: Vec<String>,
    /// The table that refers.
    pub(crate) child: TableId,
    /// Its columns.
    pub(crate) columns: Vec<String>,
    /// Whether a deleted parent changes it.
    pub(crate) on_delete: bool,
    /// Whether a changed parent changes it.
    pub(crate) on_update: bool,
}

/// Whether a rule of a foreign key changes rows.
pub(crate) fn acts(rule: &str) -> bool {
    matches!(rule, "CASCADE" | "SET NULL" | "SET DEFAULT")
}

/// Foreign keys whose rules change rows.
///
/// # Errors
/// As for SQL.
pub(crate) async fn cascades(client: &mut Client, selection: &Selection) -> Result<Vec<Cascade>> {
    let references = references(client, &Filter::new(selection, None)).await?;
    Ok(references.iter().filter_map(Reference::cascade).collect())
}

/// Whether the server logs what foreign keys' rules do: MySQL from 9.6 on, unless it is told to leave them to InnoDB.
///
/// # Errors
/// As for SQL.
pub(crate) async fn logs_cascades(client: &mut Client) -> Result<bool> {
    if client.version.is_mariadb() || client.version.number < (9, 6, 0) {
        return Ok(false);
    }
    let sql = "SHOW GLOBAL VARIABLES LIKE 'innodb_native_foreign_keys'";
    let native = client.row("ask who runs foreign keys", sql).await?.and_then(|row| row_text(&row, 1));
    Ok(native.is_none_or(|value| !matches!(value.to_ascii_uppercase().as_str(), "ON" | "1")))
}

fn text(row: &Row, column: usize) -> String {
    row_text(row, column).unwrap_or_default()
}

fn number(row: &Row, column: usize) -> Option<u64> {
    row_text(row, column)?.parse().ok()
}
