//! Whether a shadow holds just what its topic holds: the same number of rows, and each row the same.
//!
//! The topic is read twice more, up to where the shadow stands. The first time tells for each key which record is its last, on disk
//! (`caudal_index`: 24 bytes a key, in the folder for temporary files); the second time just those records are compared with the shadow's
//! rows, by the sink's server, by the equality that decides whether applying them would change anything. It shares nothing with the filling
//! but the decoder: not the coalescing, not the writing, not the order.
//!
//! Of a table without a key the rows are counted.

use super::Work;
use super::fill::Shadow;
use caudal_core::compare::{Bound, Range, SinkSide};
use caudal_core::{Batch, Error, LogPosition, Op, Raw, Result, TableSchema};
use caudal_index::{Builder, Index, KeyHash, key_hash};
use std::path::PathBuf;
use std::sync::Arc;

/// Differences that are named.
const NAMED: usize = 5;

/// The file of an index, gone with this.
struct File(PathBuf);

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// The number of rows that are right.
///
/// # Errors
/// `Data` if anything differs.
pub(super) async fn prove(work: &mut Work<'_>, shadow: &Shadow) -> Result<u64> {
    let schema = &shadow.table.schema;
    let (mut side, rows) = work.rebuild.shadow(schema).await?;
    let name = schema.id.to_string().replace(|c: char| !c.is_ascii_alphanumeric(), "_");
    let file = File(std::env::temp_dir().join(format!("caudal-rebuild-{}-{name}.keys", std::process::id())));
    let (index, unkeyed) = last_records(work, shadow, &file).await?;
    let expected = if schema.key.is_empty() { unkeyed } else { index.len() };
    let refused = shadow.refused.len() as u64;
    if rows > expected || rows + refused < expected {
        return Err(wrong(shadow, &format!("it has {rows} rows, and the topic {expected}")));
    }
    if !schema.key.is_empty() {
        compare(work, shadow, &index, side.as_mut()).await?;
    }
    Ok(rows)
}

fn wrong(shadow: &Shadow, what: &str) -> Error {
    Error::data(format!(
        "the shadow of {} is not what its topic holds: {what}; nothing was exchanged",
        shadow.id()
    ))
    .hint("begin anew: --discard, then without --from; if it stays, it is a mistake of ours: please tell us")
}

/// A key within its partition: two partitions never have the same one, but a table may be spread otherwise by somebody else.
fn hash(batch: &Batch, raw: &Raw) -> KeyHash {
    let mut bytes = raw.partition.to_le_bytes().to_vec();
    bytes.extend(raw.key.map_or(&[][..], |key| batch.bytes(key)));
    key_hash(&bytes)
}

/// For each key that is alive the offset of its last record, plus one; and the number of rows of a table without a key.
async fn last_records(work: &Work<'_>, shadow: &Shadow, file: &File) -> Result<(Index, u64)> {
    let mut builder = Builder::new(&file.0, None)?;
    let mut unkeyed: i64 = 0;
    let keyed = !shadow.table.schema.key.is_empty();
    let mut reader = work.log.read_table("rebuild-proof", &shadow.table, LogPosition::default()).await?;
    reader.aim(&shadow.position())?;
    while let Some(batch) = reader.next().await? {
        for (event, raw) in batch.events.iter().zip(&batch.raw) {
            match event.op {
                Op::Truncate => {
                    builder.clear()?;
                    unkeyed = 0;
                }
                Op::Delete => {
                    unkeyed -= 1;
                    if keyed {
                        builder.remove(hash(&batch, raw))?;
                    }
                }
                op => {
                    unkeyed += i64::from(op != Op::Update);
                    if keyed {
                        builder.put(hash(&batch, raw), raw.offset as u64 + 1)?;
                    }
                }
            }
        }
    }
    let built = tokio::task::spawn_blocking(move || builder.finish("")).await;
    let index = built.map_err(|e| Error::bug("make an index of keys").because(e))??;
    Ok((index, unkeyed.max(0) as u64))
}

async fn compare(work: &Work<'_>, shadow: &Shadow, index: &Index, side: &mut dyn SinkSide) -> Result<()> {
    // Not a range that both ends find: rows that only the shadow has are found by their number.
    let range = Range { from: Some(Bound { token: String::new(), numbers: None }), to: None };
    let mut reader = work.log.read_table("rebuild-proof", &shadow.table, LogPosition::default()).await?;
    reader.aim(&shadow.position())?;
    while let Some(mut batch) = reader.next().await? {
        let last = last_ones(&batch, index, shadow)?;
        for table in 0..batch.tables.len() as u32 {
            let events: Vec<_> =
                last.iter().map(|i| batch.events[*i]).filter(|event| event.table == table).collect();
            if events.is_empty() {
                continue;
            }
            let schema = Arc::new(as_now(&batch.tables[table as usize], &shadow.table.schema));
            batch.tables[table as usize] = Arc::clone(&schema);
            let all = std::mem::replace(&mut batch.events, events);
            side.open(&schema).await?.ok_or_else(|| wrong(shadow, "it is gone"))?;
            let found = side.compare(&mut batch, &schema, &range).await?;
            batch.events = all;
            if !found.differences.is_empty() {
                let named = found.differences.iter().take(NAMED);
                let named: Vec<String> =
                    named.map(|d| format!("({}) {}", d.key.join(", "), d.columns.join(", "))).collect();
                return Err(wrong(shadow, &format!("rows differ: {}", named.join("; "))));
            }
        }
    }
    Ok(())
}

/// Indexes of the batch's events that are the last of their keys.
fn last_ones(batch: &Batch, index: &Index, shadow: &Shadow) -> Result<Vec<usize>> {
    let rows: Vec<usize> = (0..batch.events.len())
        .filter(|i| !matches!(batch.events[*i].op, Op::Delete | Op::Truncate))
        .filter(|i| !shadow.refused.contains(&(batch.raw[*i].partition, batch.raw[*i].offset)))
        .collect();
    let keys: Vec<KeyHash> = rows.iter().map(|i| hash(batch, &batch.raw[*i])).collect();
    let found = index.find_all(&keys)?;
    let is_last = |(i, found): (&usize, Option<caudal_index::Found>)| {
        found.is_some_and(|f| f.content == batch.raw[*i].offset as u64 + 1).then_some(*i)
    };
    Ok(rows.iter().zip(found).filter_map(is_last).collect())
}

/// An older shape with the names that its columns have now.
fn as_now(older: &TableSchema, newest: &TableSchema) -> TableSchema {
    let mut schema = older.clone();
    for column in &mut schema.columns {
        if let Some(now) = newest.columns.iter().find(|now| now.id == column.id) {
            column.name.clone_from(&now.name);
        }
    }
    schema
}
