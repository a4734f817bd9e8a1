//! Shapes of tables over time.
//!
//! Why values never land in wrong columns: the log's table maps say, for each run of rows, the columns as they were when
//! those rows were written. A map that differs from the known shape makes a new version *from the map*; what the log does not
//! say (display width, UUID and INET types, comments, defaults) comes from the version before, or from `information_schema`
//! where its column of that name agrees with the map, and never overrides the map. So two ALTERs while nobody read give two
//! versions, each with its own rows. Where the server logs no names (`binlog_row_metadata` is not FULL) the map still has the number and
//! layout of columns: a shape that does not fit them is a fault that names the table.
//!
//! Memory: one shape per captured table, and one entry per table map in use.

use crate::binlog::{MapColumn, TableMap, WireType};
use crate::charset::Charset;
use crate::client::Client;
use crate::discover::{self, Table, carries_charset};
use crate::selection::Selection;
use caudal_core::{Column, ColumnType, Error, KeyKind, Result, TableId, TableSchema};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Bindings of table maps that are kept; more start afresh.
const MAX_BOUND: usize = 4_096;

/// What is known of one table.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    /// The newest version.
    pub(crate) schema: Arc<TableSchema>,
    /// What information_schema said when it was last asked.
    pub(crate) table: Arc<Table>,
    /// A statement changed the table since: what the log does not say must be asked again.
    stale: bool,
}

struct Bound {
    map: Arc<TableMap>,
    /// None for tables that are not captured.
    schema: Option<Arc<TableSchema>>,
}

/// All captured tables' shapes.
pub(crate) struct Timeline {
    selection: Selection,
    tables: BTreeMap<TableId, Known>,
    bound: HashMap<u64, Bound>,
    warned: bool,
}

impl Timeline {
    /// From what information_schema says now, and the versions that were stored.
    pub(crate) fn new(
        selection: Selection,
        now: BTreeMap<TableId, Table>,
        mut stored: BTreeMap<TableId, TableSchema>,
    ) -> Self {
        let known = |(id, table): (TableId, Table)| {
            let old = stored.remove(&id);
            let schema = match &old {
                // Which of the two the stream's next rows have, the first table map tells.
                Some(old) => old.clone(),
                None => table.schema.clone(),
            };
            (id, Known { schema: Arc::new(schema), stale: old.is_some(), table: Arc::new(table) })
        };
        let tables = now.into_iter().map(known).collect();
        Self { selection, tables, bound: HashMap::new(), warned: false }
    }

    /// What is captured.
    pub(crate) fn selection(&self) -> &Selection {
        &self.selection
    }

    /// All tables.
    pub(crate) fn tables(&self) -> impl Iterator<Item = (&TableId, &Known)> {
        self.tables.iter()
    }

    /// One table.
    pub(crate) fn known(&self, id: &TableId) -> Option<&Known> {
        self.tables.get(id)
    }

    /// The shape of a map's rows, if this map was met before: `Some(None)` for a table that is not captured.
    pub(crate) fn bound(&self, map: &Arc<TableMap>) -> Option<Option<&Arc<TableSchema>>> {
        let bound = self.bound.get(&map.id).filter(|b| Arc::ptr_eq(&b.map, map))?;
        Some(bound.schema.as_ref())
    }

    /// A statement changed these tables (or, with none named, any): their next map is compared with fresh metadata.
    pub(crate) fn changed(&mut self, ids: Option<&[TableId]>) {
        self.bound.clear();
        match ids {
            Some(ids) => {
                for id in ids {
                    if let Some(known) = self.tables.get_mut(id) {
                        known.stale = true;
                    }
                }
            }
            None => self.tables.values_mut().for_each(|k| k.stale = true),
        }
    }

    /// Finds the shape of a map's rows. Gives it, and whether it is a new version.
    ///
    /// # Errors
    /// As for SQL; `Data`, naming the table, where the log lacks names and the known shape does not fit.
    pub(crate) async fn bind(
        &mut self,
        client: &mut Client,
        map: &Arc<TableMap>,
    ) -> Result<Option<(Arc<TableSchema>, bool)>> {
        let id = TableId::new(map.database.clone(), map.table.clone());
        if !self.selection.selects(&id) {
            self.remember(map, None);
            return Ok(None);
        }
        let (schema, new) = self.version(client, &id, map).await?;
        self.remember(map, Some(Arc::clone(&schema)));
        Ok(Some((schema, new)))
    }

    fn remember(&mut self, map: &Arc<TableMap>, schema: Option<Arc<TableSchema>>) {
        if self.bound.len() >= MAX_BOUND {
            self.bound.clear();
        }
        self.bound.insert(map.id, Bound { map: Arc::clone(map), schema });
    }

    async fn version(
        &mut self,
        client: &mut Client,
        id: &TableId,
        map: &Arc<TableMap>,
    ) -> Result<(Arc<TableSchema>, bool)> {
        if !map.full && !self.warned {
            self.warned = true;
            tracing::warn!(
                "the server logs no column names (binlog_row_metadata is not FULL): after an ALTER while the capture is stopped, rows cannot be told apart; set binlog_row_metadata=FULL"
            );
        }
        if let Some(known) = self.tables.get(id)
            && !known.stale
            && fits(map, &known.schema)
        {
            return Ok((Arc::clone(&known.schema), false));
        }
        let now = discover::tables(client, &self.selection, Some(id)).await?.remove(id);
        let old = self.tables.get(id).map(|k| Arc::clone(&k.schema));
        let schema = match &now {
            Some(now) if fits(map, &now.schema) => now.schema.clone(),
            _ if map.full => {
                let mut made = from_map(id, map, old.as_deref(), now.as_ref().map(|t| &t.schema))?;
                self.selection.keys.apply(&mut made)?;
                made
            }
            _ => match &old {
                Some(old) if fits(map, old) => (**old).clone(),
                _ => return Err(unknowable(id)),
            },
        };
        Ok(self.adopt(id, schema, old, now))
    }

    /// Makes `schema` the table's newest version, unless it already is.
    fn adopt(
        &mut self,
        id: &TableId,
        schema: TableSchema,
        old: Option<Arc<TableSchema>>,
        now: Option<Table>,
    ) -> (Arc<TableSchema>, bool) {
        let schema = Arc::new(numbered(schema, old.as_deref()));
        let (schema, new) = match old {
            Some(old) if *old == *schema => (old, false),
            _ => (schema, true),
        };
        let table = now.map(Arc::new).or_else(|| self.tables.get(id).map(|k| Arc::clone(&k.table)));
        let table = table.unwrap_or_else(|| Arc::new(bare_table(&schema)));
        self.tables.insert(id.clone(), Known { schema: Arc::clone(&schema), table, stale: false });
        (schema, new)
    }

    /// For the snapshot: takes the table's shape from information_schema if a statement in the stream changed it. Gives the
    /// table as it is now and whether it has the shape of the newest version (if not, the stream has yet to bring the change).
    ///
    /// # Errors
    /// As for SQL.
    pub(crate) async fn refresh(
        &mut self,
        client: &mut Client,
        id: &TableId,
    ) -> Result<Option<(Known, bool)>> {
        let Some(now) = discover::tables(client, &self.selection, Some(id)).await?.remove(id) else {
            return Ok(None);
        };
        let known = self.tables.get(id).cloned();
        if known.as_ref().is_none_or(|k| k.stale) {
            self.adopt(id, now.schema.clone(), known.map(|k| k.schema), Some(now.clone()));
        }
        let Some(known) = self.tables.get_mut(id) else { return Ok(None) };
        let same = same_shape(&known.schema, &now.schema);
        known.table = Arc::new(now);
        Ok(Some((known.clone(), same)))
    }
}

fn same_shape(a: &TableSchema, b: &TableSchema) -> bool {
    let column = |a: &Column, b: &Column| a.name == b.name && a.ty == b.ty;
    a.key == b.key
        && a.columns.len() == b.columns.len()
        && a.columns.iter().zip(&b.columns).all(|(a, b)| column(a, b))
}

fn unknowable(id: &TableId) -> Error {
    Error::data(format!(
        "{id}: the rows in the log have another shape than the table now, and the server logs no column names"
    ))
    .hint("SET GLOBAL binlog_row_metadata=FULL on the source; then start this source anew so that the table is read again")
}

fn bare_table(schema: &TableSchema) -> Table {
    Table {
        schema: schema.clone(),
        estimated_rows: 0,
        row_bytes: 0,
        key_index: None,
        virtual_columns: Vec::new(),
        collations: vec![None; schema.columns.len()],
    }
}

/// Whether rows with this map have this shape, as far as the map tells.
fn fits(map: &TableMap, schema: &TableSchema) -> bool {
    map.columns.len() == schema.columns.len()
        && map.columns.iter().zip(&schema.columns).all(|(m, c)| column_fits(m, c))
        && (!map.full || key_fits(map, schema))
}

fn key_fits(map: &TableMap, schema: &TableSchema) -> bool {
    match schema.key_kind {
        KeyKind::Primary => map.primary_key.iter().map(|&(i, _)| i).eq(schema.key.iter().copied()),
        // The configuration's key stays, whatever keys the table has of its own.
        KeyKind::Configured => true,
        _ => map.primary_key.is_empty(),
    }
}

fn column_fits(map: &MapColumn, column: &Column) -> bool {
    map.name.as_ref().is_none_or(|n| *n == column.name)
        && map.nullable == column.nullable
        && column_type(map, Some(column)) == column.ty
        && charset_of(map).is_none_or(|c| {
            !carries_charset(&column.ty) || column.charset.as_deref().is_none_or(|k| same_charset(k, c))
        })
}

/// utf8 is the old name of utf8mb3.
fn same_charset(a: &str, b: &str) -> bool {
    let new = |n| if n == "utf8" { "utf8mb3" } else { n };
    new(a) == new(b)
}

fn charset_of(map: &MapColumn) -> Option<&'static str> {
    Charset::by_collation(map.collation?).ok().map(Charset::name)
}

/// The type of a map's column; `hint` tells what the log cannot (and, without metadata, signedness and character or not).
fn column_type(map: &MapColumn, hint: Option<&Column>) -> ColumnType {
    let hinted = hint.map(|c| &c.ty);
    let unsigned = map.unsigned.unwrap_or(matches!(hinted, Some(ColumnType::UInt { .. })));
    match map.ty {
        WireType::Int(1) if !unsigned && hinted == Some(&ColumnType::Bool) => ColumnType::Bool,
        WireType::Int(bytes) if unsigned => ColumnType::UInt { bits: bytes * 8 },
        WireType::Int(bytes) => ColumnType::Int { bits: bytes * 8 },
        WireType::Float => ColumnType::Float32,
        WireType::Double => ColumnType::Float64,
        WireType::Decimal { precision, scale } => ColumnType::Decimal { precision, scale },
        WireType::Bit(bits) => ColumnType::Bit { bits: bits as u8 },
        WireType::Enum(_) => ColumnType::Enum { members: members(map, hinted) },
        WireType::Set(_) => ColumnType::Set { members: members(map, hinted) },
        WireType::Date => ColumnType::Date,
        WireType::Year => ColumnType::Year,
        WireType::Time(precision) => ColumnType::Time { precision },
        WireType::DateTime(precision) => ColumnType::DateTime { precision },
        WireType::Timestamp(precision) => ColumnType::Timestamp { precision },
        WireType::OldTime => ColumnType::Time { precision: hint_precision(hinted) },
        WireType::OldDateTime => ColumnType::DateTime { precision: hint_precision(hinted) },
        WireType::OldTimestamp => ColumnType::Timestamp { precision: hint_precision(hinted) },
        WireType::Char { max_bytes } => char_type(map, u32::from(max_bytes), hinted),
        WireType::VarChar { max_bytes, .. } => text_or_bytes(map, Some(u32::from(max_bytes)), false, hinted),
        WireType::Blob { .. } => text_or_bytes(map, None, false, hinted),
        WireType::Json { .. } => ColumnType::Json,
        WireType::Geometry { .. } => ColumnType::Geometry,
        WireType::Vector { .. } => ColumnType::Vector { dimensions: dimensions(map, hinted) },
    }
}

fn members(map: &MapColumn, hint: Option<&ColumnType>) -> Vec<String> {
    match hint {
        Some(ColumnType::Enum { members } | ColumnType::Set { members }) if map.members.is_empty() => {
            members.clone()
        }
        _ => map.members.clone(),
    }
}

fn hint_precision(hint: Option<&ColumnType>) -> u8 {
    match hint {
        Some(
            ColumnType::Time { precision }
            | ColumnType::DateTime { precision }
            | ColumnType::Timestamp { precision },
        ) => *precision,
        _ => 0,
    }
}

fn dimensions(map: &MapColumn, hint: Option<&ColumnType>) -> u32 {
    map.dimensions.unwrap_or(match hint {
        Some(ColumnType::Vector { dimensions }) => *dimensions,
        _ => 0,
    })
}

/// CHAR and BINARY; MariaDB lays out UUID and INET types as BINARY of their length.
fn char_type(map: &MapColumn, max_bytes: u32, hint: Option<&ColumnType>) -> ColumnType {
    match (max_bytes, hint) {
        (16, Some(ColumnType::Uuid)) => ColumnType::Uuid,
        (16, Some(ColumnType::Inet6)) => ColumnType::Inet6,
        (4, Some(ColumnType::Inet4)) => ColumnType::Inet4,
        _ => text_or_bytes(map, Some(max_bytes), true, hint),
    }
}

fn text_or_bytes(
    map: &MapColumn,
    max_bytes: Option<u32>,
    fixed: bool,
    hint: Option<&ColumnType>,
) -> ColumnType {
    let charset = map.collation.map(|_| charset_of(map));
    let binary = match charset {
        Some(name) => name == Some("binary"),
        None => matches!(hint, Some(ColumnType::Bytes { .. } | ColumnType::Vector { .. })),
    };
    if let (true, Some(vector @ ColumnType::Vector { .. })) = (binary, hint) {
        return vector.clone();
    }
    if binary {
        return ColumnType::Bytes { max_bytes, fixed };
    }
    let max_chars = max_bytes.map(|bytes| match (hint, charset.flatten()) {
        (Some(ColumnType::Text { max_chars: Some(n) }), Some(name)) if n * width(name) == bytes => *n,
        (Some(ColumnType::Text { max_chars: Some(n) }), None) => *n,
        (_, name) => bytes / name.map_or(1, width),
    });
    ColumnType::Text { max_chars }
}

/// Most bytes of one character.
fn width(charset: &str) -> u32 {
    match charset {
        "utf8mb4" | "utf16" | "utf16le" | "utf32" | "gb18030" => 4,
        "utf8mb3" | "utf8" | "ujis" | "eucjpms" => 3,
        "ucs2" | "gbk" | "gb2312" | "big5" | "sjis" | "cp932" | "euckr" => 2,
        _ => 1,
    }
}

/// A shape from a map with names. A column takes what the map does not say from the version before, else from now's.
fn from_map(
    id: &TableId,
    map: &TableMap,
    old: Option<&TableSchema>,
    now: Option<&TableSchema>,
) -> Result<TableSchema> {
    let named = |schema: Option<&TableSchema>, name: &str| {
        schema.and_then(|s| s.columns.iter().find(|c| c.name == name).cloned())
    };
    let mut columns = Vec::with_capacity(map.columns.len());
    for (i, m) in map.columns.iter().enumerate() {
        let name = m.name.clone().ok_or_else(|| unknowable(id))?;
        let hint = [named(old, &name), named(now, &name)].into_iter().flatten().find(|c| column_fits(m, c));
        columns.push(hint.unwrap_or_else(|| bare_column(i as u32, name, m)));
    }
    let primary: Vec<u32> = map.primary_key.iter().map(|&(i, _)| i).collect();
    let (key_kind, key) =
        if primary.is_empty() { unique_key(&columns, old.or(now)) } else { (KeyKind::Primary, primary) };
    Ok(TableSchema {
        id: id.clone(),
        version: 1,
        generation: 1,
        columns,
        key,
        key_kind,
        unique_keys: Vec::new(),
        foreign_keys: Vec::new(),
        charset: old.or(now).and_then(|s| s.charset.clone()),
        comment: old.or(now).and_then(|s| s.comment.clone()),
    })
}

/// The log does not name unique keys: one that is known stays, as long as its columns are there and cannot be NULL.
fn unique_key(columns: &[Column], known: Option<&TableSchema>) -> (KeyKind, Vec<u32>) {
    let find = |c: &Column| columns.iter().position(|k| k.name == c.name && !k.nullable).map(|i| i as u32);
    match known {
        Some(known) if known.key_kind == KeyKind::Unique => match known.key_columns().map(find).collect() {
            Some(key) => (KeyKind::Unique, key),
            None => (KeyKind::None, Vec::new()),
        },
        _ => (KeyKind::None, Vec::new()),
    }
}

fn bare_column(index: u32, name: String, map: &MapColumn) -> Column {
    let ty = column_type(map, None);
    Column {
        id: index + 1,
        name,
        nullable: map.nullable,
        native: native_text(&ty),
        charset: charset_of(map).filter(|_| carries_charset(&ty)).map(str::to_owned),
        default: None,
        generated: false,
        auto_increment: false,
        comment: None,
        ty,
    }
}

/// How the server would write the type, for a column that exists in the log only.
fn native_text(ty: &ColumnType) -> String {
    let int = |bits: u8| match bits {
        8 => "tinyint",
        16 => "smallint",
        24 => "mediumint",
        32 => "int",
        _ => "bigint",
    };
    let fraction = |name: &str, precision: u8| {
        if precision == 0 { name.to_owned() } else { format!("{name}({precision})") }
    };
    match ty {
        ColumnType::Bool => "tinyint(1)".to_owned(),
        ColumnType::Int { bits } => int(*bits).to_owned(),
        ColumnType::UInt { bits } => format!("{} unsigned", int(*bits)),
        ColumnType::Float32 => "float".to_owned(),
        ColumnType::Float64 => "double".to_owned(),
        ColumnType::Decimal { precision, scale } => format!("decimal({precision},{scale})"),
        ColumnType::Text { max_chars: Some(n) } => format!("varchar({n})"),
        ColumnType::Text { max_chars: None } => "longtext".to_owned(),
        ColumnType::Bytes { max_bytes: Some(n), fixed: true } => format!("binary({n})"),
        ColumnType::Bytes { max_bytes: Some(n), fixed: false } => format!("varbinary({n})"),
        ColumnType::Bytes { max_bytes: None, .. } => "longblob".to_owned(),
        ColumnType::Date => "date".to_owned(),
        ColumnType::Time { precision } => fraction("time", *precision),
        ColumnType::DateTime { precision } => fraction("datetime", *precision),
        ColumnType::Timestamp { precision } => fraction("timestamp", *precision),
        ColumnType::Year => "year".to_owned(),
        ColumnType::Json => "json".to_owned(),
        ColumnType::Enum { members } => format!("enum({})", labels(members)),
        ColumnType::Set { members } => format!("set({})", labels(members)),
        ColumnType::Bit { bits } => format!("bit({bits})"),
        ColumnType::Geometry => "geometry".to_owned(),
        ColumnType::Vector { dimensions } => format!("vector({dimensions})"),
        ColumnType::Uuid => "uuid".to_owned(),
        ColumnType::Inet4 => "inet4".to_owned(),
        ColumnType::Inet6 => "inet6".to_owned(),
    }
}

fn labels(members: &[String]) -> String {
    members.iter().map(|m| format!("'{}'", m.replace('\'', "''"))).collect::<Vec<_>>().join(",")
}

/// Gives version, generation and column ids that continue those of the version before. A column keeps its id by its name; one
/// that alone changed its name, with place and type as they were, was renamed.
fn numbered(mut schema: TableSchema, old: Option<&TableSchema>) -> TableSchema {
    let Some(old) = old else { return schema };
    let mut next = old.columns.iter().map(|c| c.id).max().unwrap_or(0) + 1;
    let ids: Vec<u32> = schema
        .columns
        .iter()
        .enumerate()
        .map(|(i, c)| {
            old.columns
                .iter()
                .find(|o| o.name == c.name)
                .map(|o| o.id)
                .or_else(|| renamed(&schema, old, i))
                .unwrap_or_else(|| {
                    next += 1;
                    next - 1
                })
        })
        .collect();
    for (column, id) in schema.columns.iter_mut().zip(ids) {
        column.id = id;
    }
    let names = |s: &TableSchema| s.key_columns().map(|c| c.id).collect::<Vec<_>>();
    schema.generation = old.generation + u32::from(names(&schema) != names(old));
    schema.version = old.version;
    if schema != *old {
        schema.version += 1;
    }
    schema
}

fn renamed(new: &TableSchema, old: &TableSchema, i: usize) -> Option<u32> {
    let gone = |o: &&Column| !new.columns.iter().any(|c| c.name == o.name);
    let added = |c: &&Column| !old.columns.iter().any(|o| o.name == c.name);
    let before = old.columns.get(i).filter(gone)?;
    let alone = old.columns.iter().filter(gone).count() == 1 && new.columns.iter().filter(added).count() == 1;
    (alone && old.columns.len() == new.columns.len() && before.ty == new.columns[i].ty).then_some(before.id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn column(name: &str, ty: ColumnType) -> Column {
        Column {
            id: 1,
            name: name.to_owned(),
            native: native_text(&ty),
            ty,
            nullable: false,
            charset: None,
            default: None,
            generated: false,
            auto_increment: false,
            comment: None,
        }
    }

    fn table(columns: Vec<Column>) -> TableSchema {
        let columns: Vec<Column> =
            columns.into_iter().enumerate().map(|(i, c)| Column { id: i as u32 + 1, ..c }).collect();
        TableSchema {
            id: TableId::new("d", "t"),
            version: 1,
            generation: 1,
            columns,
            key: vec![0],
            key_kind: KeyKind::Primary,
            unique_keys: Vec::new(),
            foreign_keys: Vec::new(),
            charset: None,
            comment: None,
        }
    }

    fn map(columns: &[(&str, WireType, bool)]) -> TableMap {
        let columns = columns.iter().map(|&(name, ty, unsigned)| MapColumn {
            ty,
            nullable: false,
            unsigned: Some(unsigned),
            collation: None,
            name: Some(name.to_owned()),
            members: Vec::new(),
            visible: true,
            geometry: None,
            dimensions: None,
        });
        TableMap {
            id: 1,
            database: "d".to_owned(),
            table: "t".to_owned(),
            columns: columns.collect(),
            primary_key: vec![(0, 0)],
            full: true,
            minimal: true,
            raw: Bytes::new(),
        }
    }

    const INT: ColumnType = ColumnType::Int { bits: 32 };

    #[test]
    fn a_map_with_swapped_columns_does_not_fit_and_makes_a_version_of_its_own() {
        let known = table(vec![column("id", INT), column("a", INT), column("flag", ColumnType::Bool)]);
        let same = map(&[
            ("id", WireType::Int(4), false),
            ("a", WireType::Int(4), false),
            ("flag", WireType::Int(1), false),
        ]);
        assert!(fits(&same, &known));
        let swapped = map(&[
            ("id", WireType::Int(4), false),
            ("flag", WireType::Int(1), false),
            ("a", WireType::Int(4), false),
        ]);
        assert!(!fits(&swapped, &known));
        let made = numbered(from_map(&known.id, &swapped, Some(&known), None).unwrap(), Some(&known));
        assert_eq!((made.version, made.generation), (2, 1));
        assert_eq!(made.columns.iter().map(|c| c.id).collect::<Vec<_>>(), [1, 3, 2]);
        assert_eq!(made.columns[1].ty, ColumnType::Bool);
    }

    #[test]
    fn the_present_never_overrides_the_log() {
        let known = table(vec![column("id", INT)]);
        let now = table(vec![column("id", INT), column("x", ColumnType::Text { max_chars: Some(5) })]);
        let logged = map(&[("id", WireType::Int(4), false), ("x", WireType::Int(8), true)]);
        let made = from_map(&known.id, &logged, Some(&known), Some(&now)).unwrap();
        assert_eq!(made.columns[1].ty, ColumnType::UInt { bits: 64 });
    }

    #[test]
    fn a_renamed_column_keeps_its_id_and_a_new_one_gets_a_new_id() {
        let known = table(vec![column("id", INT), column("a", INT)]);
        let renamed = numbered(table(vec![column("id", INT), column("b", INT)]), Some(&known));
        assert_eq!(renamed.columns[1].id, 2);
        let added =
            numbered(table(vec![column("id", INT), column("b", INT), column("c", INT)]), Some(&known));
        assert_eq!(added.columns.iter().map(|c| c.id).collect::<Vec<_>>(), [1, 3, 4]);
    }

    #[test]
    fn another_key_starts_a_new_generation() {
        let known = table(vec![column("id", INT), column("a", INT)]);
        let mut rekeyed = known.clone();
        rekeyed.key = vec![1];
        let made = numbered(rekeyed, Some(&known));
        assert_eq!((made.version, made.generation), (2, 2));
    }
}
