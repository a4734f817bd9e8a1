//! The envelope and the key in Avro, as Connect's AvroData makes it of Debezium's schemas.
//!
//! A record is one byte 0, the schema's number in four bytes (big-endian), then Avro's binary form: fields in their order, numbers as
//! zigzag varints, a union by the number of its branch. What may be NULL is a union of null and its type. Avro has no absent field:
//! a partial row image cannot be written, and is refused.

use crate::encode::change::Change;
use crate::encode::connect::{Field, Kind, SNAPSHOT, SOURCE, array, object, quoted};
use crate::encode::value::{How, Mismatch, point};
use crate::encode::{decimal, value};
use caudal_core::{Cell, ColumnType, Error, Result, TableSchema};

/// Avro's names are letters, digits and `_`, and do not begin with a digit.
pub(crate) fn name(text: &str) -> String {
    let legal = |(i, c): (usize, char)| {
        if c == '_' || c.is_ascii_alphabetic() || i > 0 && c.is_ascii_digit() { c } else { '_' }
    };
    text.chars().enumerate().map(legal).collect()
}

fn namespace(topic: &str) -> String {
    topic.split('.').map(name).collect::<Vec<_>>().join(".")
}

/// The schema of a table's keys.
pub(crate) fn key_schema(schema: &TableSchema, hows: &[How], topic: &str) -> String {
    let fields: Vec<String> = schema.key.iter().map(|&i| field(schema, hows, i as usize)).collect();
    let space = namespace(topic);
    object(&[
        ("type", quoted("record")),
        ("name", quoted("Key")),
        ("namespace", quoted(&space)),
        ("fields", array(&fields)),
        ("connect.name", quoted(&format!("{space}.Key"))),
    ])
}

/// The schema of a table's envelopes.
pub(crate) fn value_schema(schema: &TableSchema, hows: &[How], topic: &str, connector: &str) -> String {
    let space = namespace(topic);
    let columns: Vec<String> = (0..schema.columns.len()).map(|i| field(schema, hows, i)).collect();
    let row = object(&[
        ("type", quoted("record")),
        ("name", quoted("Value")),
        ("fields", array(&columns)),
        ("connect.name", quoted(&format!("{space}.Value"))),
    ]);
    let source_space = format!("io.debezium.connector.{connector}");
    let source = object(&[
        ("type", quoted("record")),
        ("name", quoted("Source")),
        ("namespace", quoted(&source_space)),
        ("fields", array(&SOURCE.map(|(name, kind, optional)| source_field(name, kind, optional)))),
        ("connect.version", "1".into()),
        ("connect.name", quoted(&format!("{source_space}.Source"))),
    ]);
    let long = |name: &str| plain(name, &quoted("long"), false);
    let block = object(&[
        ("type", quoted("record")),
        ("name", quoted("block")),
        ("namespace", quoted("event")),
        (
            "fields",
            array(&[
                plain("id", &quoted("string"), false),
                long("total_order"),
                long("data_collection_order"),
            ]),
        ),
        ("connect.version", "1".into()),
        ("connect.name", quoted("event.block")),
    ]);
    let time = |name: &str| plain(name, &quoted("long"), true);
    let fields = [
        plain("before", &row, true),
        plain("after", &quoted("Value"), true),
        plain("source", &source, false),
        plain("transaction", &block, true),
        plain("op", &quoted("string"), false),
        time("ts_ms"),
        time("ts_us"),
        time("ts_ns"),
    ];
    object(&[
        ("type", quoted("record")),
        ("name", quoted("Envelope")),
        ("namespace", quoted(&space)),
        ("fields", array(&fields)),
        ("connect.version", "2".into()),
        ("connect.name", quoted(&format!("{space}.Envelope"))),
    ])
}

fn plain(name: &str, ty: &str, optional: bool) -> String {
    if optional {
        let union = format!("[\"null\",{ty}]");
        object(&[("name", quoted(name)), ("type", union), ("default", "null".into())])
    } else {
        object(&[("name", quoted(name)), ("type", ty.to_owned())])
    }
}

fn source_field(name: &str, kind: &str, optional: bool) -> String {
    let ty = match (name, kind) {
        ("snapshot", _) => object(&[
            ("type", quoted("string")),
            ("connect.version", "1".into()),
            ("connect.parameters", object(&[("allowed", quoted(SNAPSHOT))])),
            ("connect.name", quoted("io.debezium.data.Enum")),
        ]),
        (_, "int64") => quoted("long"),
        (_, "int32") => quoted("int"),
        _ => quoted("string"),
    };
    plain(name, &ty, optional)
}

fn field(schema: &TableSchema, hows: &[How], column: usize) -> String {
    let described = Field::of(&schema.columns[column], hows[column]);
    // Two columns whose names become one are told apart by their number.
    let own = name(&schema.columns[column].name);
    let twice = schema.columns[..column].iter().any(|c| name(&c.name) == own);
    let own = if twice { format!("{own}_{column}") } else { own };
    plain(&own, &kind(&described, &own), described.optional)
}

fn kind(field: &Field, name: &str) -> String {
    let base = match field.kind {
        Kind::Boolean => "boolean",
        Kind::Int16 | Kind::Int32 => "int",
        Kind::Int64 => "long",
        Kind::Float32 => "float",
        Kind::Float64 => "double",
        Kind::String => "string",
        Kind::Bytes => "bytes",
        Kind::Floats => "array",
        Kind::Shape { .. } => "record",
    };
    let mut all = vec![("type", quoted(base))];
    match field.kind {
        Kind::Floats => all.push(("items", quoted("float"))),
        Kind::Shape { point } => {
            let mut fields = Vec::new();
            if point {
                fields.extend([plain("x", &quoted("double"), false), plain("y", &quoted("double"), false)]);
            }
            fields.extend([plain("wkb", &quoted("bytes"), false), plain("srid", &quoted("int"), true)]);
            // Each column its own: a name is told once.
            all.extend([("name", quoted(&format!("{name}_shape"))), ("fields", array(&fields))]);
        }
        Kind::Int16 => all.push(("connect.type", quoted("int16"))),
        _ => {}
    }
    for (parameter, value) in &field.parameters {
        match *parameter {
            "scale" => all.push(("scale", value.clone())),
            "connect.decimal.precision" => all.push(("precision", value.clone())),
            _ => {}
        }
    }
    if let Some(semantic) = field.semantic {
        all.push(("connect.version", "1".into()));
        if !field.parameters.is_empty() {
            let parameters: Vec<_> = field.parameters.iter().map(|(k, v)| (*k, quoted(v))).collect();
            all.push(("connect.parameters", object(&parameters)));
        }
        all.push(("connect.name", quoted(semantic)));
        if semantic.ends_with(".Decimal") {
            all.push(("logicalType", quoted("decimal")));
        }
    }
    match all.len() {
        1 => quoted(base),
        _ => object(&all),
    }
}

/// What goes before each record.
pub(crate) fn frame(out: &mut Vec<u8>, id: u32) {
    out.push(0);
    out.extend_from_slice(&id.to_be_bytes());
}

pub(crate) fn long(out: &mut Vec<u8>, n: i64) {
    let mut zigzag = ((n << 1) ^ (n >> 63)) as u64;
    while zigzag >= 0x80 {
        out.push(zigzag as u8 | 0x80);
        zigzag >>= 7;
    }
    out.push(zigzag as u8);
}

fn bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    long(out, bytes.len() as i64);
    out.extend_from_slice(bytes);
}

fn maybe(out: &mut Vec<u8>, text: Option<&str>) {
    long(out, text.is_some().into());
    if let Some(text) = text {
        bytes(out, text.as_bytes());
    }
}

/// A key: the cells of the key in its order.
pub(crate) fn key(out: &mut Vec<u8>, change: &Change<'_>, cells: &[Cell]) -> Result<()> {
    change.plan.schema.key.iter().zip(cells).try_for_each(|(&i, &cell)| column(out, change, i as usize, cell))
}

/// An envelope.
pub(crate) fn envelope(out: &mut Vec<u8>, change: &Change<'_>) -> Result<()> {
    row(out, change, change.before)?;
    row(out, change, change.after)?;
    source(out, change);
    long(out, change.order.is_some().into());
    if let Some(order) = &change.order {
        bytes(out, order.id.as_bytes());
        long(out, order.total as i64);
        long(out, order.of_table as i64);
    }
    bytes(out, change.op.letter().encode_utf8(&mut [0; 4]).as_bytes());
    for time in [change.now / 1_000, change.now, change.now * 1_000] {
        long(out, 1);
        long(out, time);
    }
    Ok(())
}

fn row(out: &mut Vec<u8>, change: &Change<'_>, row: Option<&[Cell]>) -> Result<()> {
    long(out, row.is_some().into());
    let cells = row.unwrap_or_default().iter().enumerate();
    cells.into_iter().try_for_each(|(i, &cell)| column(out, change, i, cell))
}

fn source(out: &mut Vec<u8>, change: &Change<'_>) {
    let (event, plan, transaction) = (change.event, change.plan, change.transaction());
    bytes(out, env!("CARGO_PKG_VERSION").as_bytes());
    bytes(out, plan.connector.as_bytes());
    bytes(out, plan.prefix.as_bytes());
    long(out, event.ts_us.div_euclid(1_000));
    maybe(out, Some(event.snapshot.as_str()));
    bytes(out, plan.schema.id.database.as_bytes());
    maybe(out, None);
    for time in [event.ts_us, event.ts_us.saturating_mul(1_000)] {
        long(out, 1);
        long(out, time);
    }
    maybe(out, Some(&plan.schema.id.table));
    long(out, transaction.server_id.into());
    maybe(out, change.gtid());
    bytes(out, change.file().as_bytes());
    long(out, event.pos as i64);
    long(out, event.row.into());
    long(out, i64::from(transaction.thread != 0));
    if transaction.thread != 0 {
        long(out, transaction.thread.into());
    }
    maybe(out, None);
}

fn column(out: &mut Vec<u8>, change: &Change<'_>, i: usize, cell: Cell) -> Result<()> {
    let column = &change.plan.schema.columns[i];
    let how = change.how(i);
    let is_null = match cell {
        Cell::Null => true,
        Cell::Text(_) if value::is_moment(&column.ty) => column.nullable,
        Cell::Unchanged => {
            return Err(Error::data(format!(
                "a partial row image of {} cannot be written in the format `avro`: {} is missing",
                change.plan.schema.id, column.name
            ))
            .hint("set binlog_row_image=FULL at the source, or take the format `json`"));
        }
        _ => false,
    };
    if column.nullable {
        long(out, (!is_null).into());
    }
    match (is_null, column.nullable) {
        (true, true) => Ok(()),
        // A column that was made NOT NULL later: its old rows may hold NULL in a before image.
        (true, false) => {
            Err(Error::data(format!("{}.{} is NULL and may not be", change.plan.schema.id, column.name)))
        }
        _ => written(out, change, &column.ty, how, cell).map_err(change.misfit(i, cell)),
    }
}

fn written(
    out: &mut Vec<u8>,
    change: &Change<'_>,
    ty: &ColumnType,
    how: How,
    cell: Cell,
) -> std::result::Result<(), Mismatch> {
    use ColumnType as T;
    let batch = change.batch;
    match (ty, cell) {
        (T::Bool, Cell::I64(n)) => out.push((n != 0).into()),
        (T::Bit { bits: 1 }, Cell::U64(n)) => out.push((n != 0).into()),
        (T::Bit { bits }, Cell::U64(n)) => {
            bytes(out, &n.to_le_bytes()[..usize::from(bits.div_ceil(8)).min(8)])
        }
        (T::UInt { .. }, Cell::U64(n)) => unscaled(out, n.to_string().as_bytes())?,
        (T::DateTime { precision: ..=3 }, Cell::I64(n)) => long(out, n.div_euclid(1_000)),
        (T::Date | T::DateTime { .. }, Cell::Text(_)) => long(out, 0),
        (T::Timestamp { .. }, Cell::Text(_)) => bytes(out, b"1970-01-01T00:00:00Z"),
        (T::Timestamp { precision }, Cell::I64(n)) => {
            let mut text = Vec::with_capacity(32);
            value::timestamp(&mut text, n, *precision, false);
            bytes(out, &text[1..text.len() - 1]);
        }
        (
            T::Int { .. } | T::UInt { .. } | T::Date | T::Time { .. } | T::DateTime { .. } | T::Year,
            Cell::I64(n),
        ) => long(out, n),
        (T::Float32, Cell::F32(f)) => out.extend_from_slice(&f.to_le_bytes()),
        (T::Float64, Cell::F64(f)) => out.extend_from_slice(&f.to_le_bytes()),
        (T::Decimal { .. }, Cell::Decimal(s)) => unscaled(out, batch.bytes(s))?,
        (T::Json, Cell::Json(s)) => bytes(out, batch.bytes(s)),
        (ty, Cell::Text(s)) if value::holds_text(ty) => bytes(out, batch.bytes(s)),
        (T::Bytes { .. }, Cell::Bytes(s)) => bytes(out, batch.bytes(s)),
        (T::Geometry, Cell::Bytes(s)) => geometry(out, how, batch.bytes(s))?,
        (T::Vector { .. }, Cell::Bytes(s)) => {
            let floats = batch.bytes(s);
            if !floats.is_empty() {
                long(out, (floats.len() / 4) as i64);
                out.extend_from_slice(floats);
            }
            long(out, 0);
        }
        _ => return Err(Mismatch),
    }
    Ok(())
}

fn unscaled(out: &mut Vec<u8>, digits: &[u8]) -> std::result::Result<(), Mismatch> {
    let mut buffer = decimal::buffer();
    let start = decimal::unscaled(digits, &mut buffer).ok_or(Mismatch)?;
    bytes(out, &buffer[start..]);
    Ok(())
}

fn geometry(out: &mut Vec<u8>, how: How, cell: &[u8]) -> std::result::Result<(), Mismatch> {
    let (srid, wkb) = cell.split_first_chunk::<4>().ok_or(Mismatch)?;
    if how.point {
        let (x, y) = point(wkb).ok_or(Mismatch)?;
        out.extend_from_slice(&x.to_le_bytes());
        out.extend_from_slice(&y.to_le_bytes());
    }
    bytes(out, wkb);
    long(out, 1);
    long(out, i64::from(u32::from_le_bytes(*srid) as i32));
    Ok(())
}
