//! The envelope of `proto/caudal/v1/envelope.proto`: all of an event as it is, in a form that tells itself.

use crate::encode::change::Change;
use crate::encode::value::Mismatch;
use caudal_core::{Cell, ColumnType, Error, Result};
use caudal_proto::envelope::{self as proto, Kind, begin, bytes, end, fixed32, fixed64, number, zigzag};

pub(crate) fn envelope(out: &mut Vec<u8>, change: &Change<'_>) -> Result<()> {
    use proto::change as field;
    number(out, field::VERSION, proto::VERSION);
    for (number, row) in [(field::BEFORE, change.before), (field::AFTER, change.after)] {
        if let Some(cells) = row {
            nested(out, number, change, |out| row_of(out, change, cells))?;
        }
    }
    nested(out, field::SOURCE, change, |out| {
        source(out, change);
        Ok(())
    })?;
    if let Some(order) = &change.order {
        use proto::transaction as t;
        nested(out, field::TRANSACTION, change, |out| {
            bytes(out, t::ID, order.id.as_bytes());
            number(out, t::TOTAL_ORDER, order.total);
            number(out, t::DATA_COLLECTION_ORDER, order.of_table);
            Ok(())
        })?;
    }
    bytes(out, field::OP, change.op.letter().encode_utf8(&mut [0; 4]).as_bytes());
    number(out, field::TS_US, change.now as u64);
    Ok(())
}

pub(crate) fn nested(
    out: &mut Vec<u8>,
    field: u32,
    change: &Change<'_>,
    write: impl FnOnce(&mut Vec<u8>) -> Result<()>,
) -> Result<()> {
    let start = begin(out, field);
    write(out)?;
    if end(out, start) {
        return Ok(());
    }
    Err(Error::data(format!(
        "a row of {} is over the 256 MiB of a message in Protobuf",
        change.plan.schema.id
    ))
    .hint("leave out the large column, or take the format `json`"))
}

fn row_of(out: &mut Vec<u8>, change: &Change<'_>, cells: &[Cell]) -> Result<()> {
    for (i, &cell) in cells.iter().enumerate().filter(|(_, cell)| **cell != Cell::Unchanged) {
        let column = &change.plan.schema.columns[i];
        nested(out, proto::row::FIELDS, change, |out| {
            bytes(out, proto::row::NAME, column.name.as_bytes());
            number(out, proto::row::KIND, kind(&column.ty) as u64);
            value(out, change, cell).map_err(change.misfit(i, cell))
        })?;
    }
    Ok(())
}

fn value(out: &mut Vec<u8>, change: &Change<'_>, cell: Cell) -> std::result::Result<(), Mismatch> {
    use proto::row as field;
    match cell {
        Cell::Null => {}
        Cell::Unchanged => return Err(Mismatch),
        Cell::I64(n) => number(out, field::SIGNED, zigzag(n)),
        Cell::U64(n) => number(out, field::UNSIGNED, n),
        Cell::F32(f) => fixed32(out, field::SINGLE, f.to_le_bytes()),
        Cell::F64(f) => fixed64(out, field::DOUBLE, f.to_le_bytes()),
        Cell::Text(s) | Cell::Decimal(s) | Cell::Json(s) => {
            let text = change.batch.bytes(s);
            std::str::from_utf8(text).map_err(|_| Mismatch)?;
            bytes(out, field::TEXT, text);
        }
        Cell::Bytes(s) => bytes(out, field::BYTES, change.batch.bytes(s)),
    }
    Ok(())
}

fn source(out: &mut Vec<u8>, change: &Change<'_>) {
    use proto::source as field;
    let (event, plan, transaction) = (change.event, change.plan, change.transaction());
    bytes(out, field::VERSION, env!("CARGO_PKG_VERSION").as_bytes());
    bytes(out, field::CONNECTOR, plan.connector.as_bytes());
    bytes(out, field::NAME, plan.prefix.as_bytes());
    number(out, field::TS_US, event.ts_us as u64);
    bytes(out, field::SNAPSHOT, event.snapshot.as_str().as_bytes());
    bytes(out, field::DB, plan.schema.id.database.as_bytes());
    bytes(out, field::TABLE, plan.schema.id.table.as_bytes());
    number(out, field::SERVER_ID, transaction.server_id.into());
    for (number, slice) in [(field::GTID, transaction.gtid), (field::FILE, transaction.file)] {
        if let Some(slice) = slice {
            bytes(out, number, change.batch.bytes(slice));
        }
    }
    number(out, field::POS, event.pos);
    number(out, field::ROW, event.row.into());
    number(out, field::THREAD, transaction.thread.into());
}

fn kind(ty: &ColumnType) -> Kind {
    use ColumnType as T;
    match ty {
        T::Bool => Kind::Bool,
        T::Int { .. } => Kind::Int,
        T::UInt { .. } => Kind::Uint,
        T::Float32 => Kind::Float32,
        T::Float64 => Kind::Float64,
        T::Decimal { .. } => Kind::Decimal,
        T::Text { .. } => Kind::Text,
        T::Bytes { .. } => Kind::Bytes,
        T::Date => Kind::Date,
        T::Time { .. } => Kind::Time,
        T::DateTime { .. } => Kind::DateTime,
        T::Timestamp { .. } => Kind::Timestamp,
        T::Year => Kind::Year,
        T::Json => Kind::Json,
        T::Enum { .. } => Kind::Enum,
        T::Set { .. } => Kind::Set,
        T::Bit { .. } => Kind::Bit,
        T::Geometry => Kind::Geometry,
        T::Vector { .. } => Kind::Vector,
        T::Uuid => Kind::Uuid,
        T::Inet4 | T::Inet6 => Kind::Inet,
    }
}
