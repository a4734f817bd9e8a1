//! What the server sends, as bytes: packets, tokens, types and values.

use std::io;

use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::{Refusal, Ty, Value};

pub(super) const DONE: u8 = 0xFD;
pub(super) const DONE_PROC: u8 = 0xFE;
pub(super) const DONE_IN_PROC: u8 = 0xFF;

const PACKET: usize = 4096;
/// Bytes that are collected before whole packets of them are sent.
const COLLECTED: usize = 64 << 10;
/// Latin1_General_CI_AS: code page 1252.
const COLLATION: [u8; 5] = [0x09, 0x04, 0xD0, 0x00, 0x34];

/// A message as it is written.
#[derive(Default)]
pub(super) struct Packets {
    body: Vec<u8>,
    number: u8,
}

impl Packets {
    pub(super) fn body(&mut self) -> &mut Vec<u8> {
        &mut self.body
    }

    /// Sends whole packets, once there are many.
    pub(super) async fn pass_on<S: AsyncWrite + Unpin>(&mut self, stream: &mut S) -> io::Result<()> {
        if self.body.len() < COLLECTED {
            return Ok(());
        }
        let whole = (self.body.len() - 1) / (PACKET - 8) * (PACKET - 8);
        let rest = self.body.split_off(whole);
        let packets = self.framed(false);
        self.body = rest;
        stream.write_all(&packets).await
    }

    /// Sends what there is, but not the message's end.
    pub(super) async fn all_but_the_last<S: AsyncWrite + Unpin>(&mut self, stream: &mut S) -> io::Result<()> {
        let packets = self.framed(false);
        stream.write_all(&packets).await?;
        stream.flush().await
    }

    pub(super) async fn finish<S: AsyncWrite + Unpin>(&mut self, stream: &mut S) -> io::Result<()> {
        let packets = self.framed(true);
        stream.write_all(&packets).await?;
        stream.flush().await
    }

    fn framed(&mut self, ends: bool) -> Vec<u8> {
        let body = std::mem::take(&mut self.body);
        let mut out = Vec::with_capacity(body.len() + body.len() / PACKET * 8 + 16);
        let count = body.len().div_ceil(PACKET - 8).max(usize::from(ends));
        for i in 0..count {
            let part = &body[i * (PACKET - 8)..body.len().min((i + 1) * (PACKET - 8))];
            self.number = self.number.wrapping_add(1);
            out.extend([4, u8::from(ends && i + 1 == count)]);
            out.extend((part.len() as u16 + 8).to_be_bytes());
            out.extend([0, 0, self.number, 0]);
            out.extend(part);
        }
        out
    }
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

fn short_text(out: &mut Vec<u8>, text: &str) {
    out.push(text.encode_utf16().count() as u8);
    out.extend(utf16(text));
}

fn token(out: &mut Vec<u8>, kind: u8, body: &[u8]) {
    out.push(kind);
    out.extend((body.len() as u16).to_le_bytes());
    out.extend(body);
}

/// The server's PRELOGIN: version 16, its word on encryption, and nothing else.
pub(super) fn prelogin(encryption: u8) -> Vec<u8> {
    let options: [(u8, &[u8]); 5] =
        [(0, &[16, 0, 0x10, 0, 0, 0]), (1, &[encryption]), (2, &[0]), (3, &[]), (4, &[0])];
    let (mut head, mut data) = (Vec::<u8>::new(), Vec::<u8>::new());
    for (kind, value) in options {
        head.push(kind);
        head.extend(((options.len() * 5 + 1 + data.len()) as u16).to_be_bytes());
        head.extend((value.len() as u16).to_be_bytes());
        data.extend(value);
    }
    head.push(0xFF);
    head.extend(data);
    head
}

fn changed(out: &mut Vec<u8>, kind: u8, new: &str, old: &str) {
    let mut body = vec![kind];
    short_text(&mut body, new);
    short_text(&mut body, old);
    token(out, 0xE3, &body);
}

/// Database, collation, language and packet size; then the acknowledgement of the login.
pub(super) fn logged_in(out: &mut Vec<u8>, database: &str) {
    changed(out, 1, database, "master");
    let mut collation = vec![7, 5];
    collation.extend(COLLATION);
    collation.push(0);
    token(out, 0xE3, &collation);
    changed(out, 2, "us_english", "");
    changed(out, 4, &PACKET.to_string(), &PACKET.to_string());
    let mut acknowledged = vec![1, 0x74, 0, 0, 4];
    short_text(&mut acknowledged, "Microsoft SQL Server");
    acknowledged.extend([16, 0, 0x10, 0]);
    token(out, 0xAD, &acknowledged);
    done(out, DONE, 0, 0);
}

pub(super) fn done(out: &mut Vec<u8>, kind: u8, status: u16, rows: u64) {
    out.push(kind);
    out.extend(status.to_le_bytes());
    out.extend(0xC1_u16.to_le_bytes());
    out.extend(rows.to_le_bytes());
}

pub(super) fn error(out: &mut Vec<u8>, refusal: &Refusal) {
    let mut body = refusal.number.to_le_bytes().to_vec();
    body.extend([1, refusal.class]);
    body.extend((refusal.message.encode_utf16().count() as u16).to_le_bytes());
    body.extend(utf16(&refusal.message));
    short_text(&mut body, "fixture");
    short_text(&mut body, "");
    body.extend(1_u32.to_le_bytes());
    token(out, 0xAA, &body);
}

pub(super) fn columns(out: &mut Vec<u8>, columns: &[(String, Ty)]) {
    out.push(0x81);
    out.extend((columns.len() as u16).to_le_bytes());
    for (name, ty) in columns {
        out.extend(0_u32.to_le_bytes());
        out.extend([0x09, 0x00]);
        type_info(out, *ty);
        short_text(out, name);
    }
}

pub(super) fn row(out: &mut Vec<u8>, columns: &[(String, Ty)], row: &[Value]) {
    assert_eq!(columns.len(), row.len(), "the fixture's row has as many values as it has columns");
    out.push(0xD1);
    for ((_, ty), value) in columns.iter().zip(row) {
        put(out, *ty, value);
    }
}

fn type_info(out: &mut Vec<u8>, ty: Ty) {
    let mut sized = |kind: u8, length: u16, collated: bool| {
        out.push(kind);
        out.extend(length.to_le_bytes());
        if collated {
            out.extend(COLLATION);
        }
    };
    match ty {
        Ty::NVarChar(chars) => sized(0xE7, chars * 2, true),
        Ty::NVarCharMax => sized(0xE7, 0xFFFF, true),
        Ty::VarChar(bytes) => sized(0xA7, bytes, true),
        Ty::VarCharMax => sized(0xA7, 0xFFFF, true),
        Ty::VarBinary(bytes) => sized(0xA5, bytes, false),
        Ty::VarBinaryMax => sized(0xA5, 0xFFFF, false),
        Ty::Binary(bytes) => sized(0xAD, bytes, false),
        Ty::Bit => out.extend([0x68, 1]),
        Ty::TinyInt => out.extend([0x26, 1]),
        Ty::SmallInt => out.extend([0x26, 2]),
        Ty::Int => out.extend([0x26, 4]),
        Ty::BigInt => out.extend([0x26, 8]),
        Ty::Real => out.extend([0x6D, 4]),
        Ty::Float => out.extend([0x6D, 8]),
        Ty::Money => out.extend([0x6E, 8]),
        Ty::SmallMoney => out.extend([0x6E, 4]),
        Ty::Decimal(precision, scale) => out.extend([0x6A, 17, precision, scale]),
        Ty::Date => out.push(0x28),
        Ty::Time(scale) => out.extend([0x29, scale]),
        Ty::DateTime2(scale) => out.extend([0x2A, scale]),
        Ty::DateTimeOffset(scale) => out.extend([0x2B, scale]),
        Ty::DateTime => out.extend([0x6F, 8]),
        Ty::SmallDateTime => out.extend([0x6F, 4]),
        Ty::Guid => out.extend([0x24, 16]),
    }
}

/// Bytes of a time of day.
fn time_bytes(scale: u8) -> usize {
    match scale {
        0..=2 => 3,
        3..=4 => 4,
        _ => 5,
    }
}

fn in_parts(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend((bytes.len() as u64).to_le_bytes());
    for part in bytes.chunks(4000) {
        out.extend((part.len() as u32).to_le_bytes());
        out.extend(part);
    }
    out.extend(0_u32.to_le_bytes());
}

fn long(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend((bytes.len() as u16).to_le_bytes());
    out.extend(bytes);
}

fn short(out: &mut Vec<u8>, parts: &[&[u8]]) {
    out.push(parts.iter().map(|part| part.len()).sum::<usize>() as u8);
    parts.iter().for_each(|part| out.extend(*part));
}

fn put(out: &mut Vec<u8>, ty: Ty, value: &Value) {
    match (ty, value) {
        (Ty::NVarCharMax | Ty::VarCharMax | Ty::VarBinaryMax, Value::Null) => {
            out.extend(u64::MAX.to_le_bytes())
        }
        (Ty::NVarChar(_) | Ty::VarChar(_) | Ty::VarBinary(_) | Ty::Binary(_), Value::Null) => {
            out.extend([0xFF, 0xFF])
        }
        (_, Value::Null) => out.push(0),
        (Ty::Bit, Value::Bool(bit)) => short(out, &[&[u8::from(*bit)]]),
        (Ty::TinyInt, Value::Int(n)) => short(out, &[&n.to_le_bytes()[..1]]),
        (Ty::SmallInt, Value::Int(n)) => short(out, &[&n.to_le_bytes()[..2]]),
        (Ty::Int, Value::Int(n)) => short(out, &[&n.to_le_bytes()[..4]]),
        (Ty::BigInt, Value::Int(n)) => short(out, &[&n.to_le_bytes()]),
        (Ty::Real, Value::Float(n)) => short(out, &[&(*n as f32).to_le_bytes()]),
        (Ty::Float, Value::Float(n)) => short(out, &[&n.to_le_bytes()]),
        (Ty::Money, Value::Decimal(n)) => {
            // The high half first.
            let bytes = (*n as i64).to_le_bytes();
            short(out, &[&bytes[4..], &bytes[..4]]);
        }
        (Ty::SmallMoney, Value::Decimal(n)) => short(out, &[&(*n as i32).to_le_bytes()]),
        (Ty::Decimal(precision, _), Value::Decimal(n)) => {
            let bytes = match precision {
                1..=9 => 4,
                10..=19 => 8,
                20..=28 => 12,
                _ => 16,
            };
            short(out, &[&[u8::from(*n >= 0)], &n.unsigned_abs().to_le_bytes()[..bytes]]);
        }
        (Ty::Date, Value::Date(days)) => short(out, &[&days.to_le_bytes()[..3]]),
        (Ty::Time(scale), Value::Time(units)) => short(out, &[&units.to_le_bytes()[..time_bytes(scale)]]),
        (Ty::DateTime2(scale), Value::DateTime2(days, units)) => {
            short(out, &[&units.to_le_bytes()[..time_bytes(scale)], &days.to_le_bytes()[..3]]);
        }
        (Ty::DateTimeOffset(scale), Value::DateTimeOffset(days, units, offset)) => {
            let units = &units.to_le_bytes()[..time_bytes(scale)];
            short(out, &[units, &days.to_le_bytes()[..3], &offset.to_le_bytes()]);
        }
        (Ty::DateTime, Value::DateTime(days, parts)) => {
            short(out, &[&days.to_le_bytes(), &parts.to_le_bytes()])
        }
        (Ty::SmallDateTime, Value::SmallDateTime(days, minutes)) => {
            short(out, &[&days.to_le_bytes(), &minutes.to_le_bytes()]);
        }
        (Ty::Guid, Value::Guid(id)) => {
            short(out, &[&[id[3], id[2], id[1], id[0], id[5], id[4], id[7], id[6]], &id[8..]]);
        }
        (Ty::NVarChar(_), Value::Text(text)) => long(out, &utf16(text)),
        (Ty::NVarCharMax, Value::Text(text)) => in_parts(out, &utf16(text)),
        (Ty::VarChar(_) | Ty::VarBinary(_) | Ty::Binary(_), Value::Bytes(bytes)) => long(out, bytes),
        (Ty::VarCharMax | Ty::VarBinaryMax, Value::Bytes(bytes)) => in_parts(out, bytes),
        (ty, value) => panic!("the fixture cannot send {value:?} as {ty:?}"),
    }
}
