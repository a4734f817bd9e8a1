//! What clients send: PRELOGIN, LOGIN7, batches, and calls of `sp_executesql` with parameters.

use std::io;

use super::Value;

/// A statement to be answered.
#[derive(Clone, Debug)]
pub struct Request {
    /// Its SQL.
    pub sql: String,
    /// Values of its parameters, in order: `@P1` first.
    pub params: Vec<Value>,
    /// Whether it came as a call: else as a batch.
    pub is_call: bool,
}

pub(super) struct Login {
    pub(super) user: String,
    pub(super) password: String,
    pub(super) database: String,
}

/// What a PRELOGIN says of encryption.
pub(super) fn prelogin_encryption(message: &[u8]) -> Option<u8> {
    for option in message.chunks_exact(5) {
        match option {
            [0xFF, ..] => return None,
            &[1, a, b, ..] => return message.get(usize::from(u16::from_be_bytes([a, b]))).copied(),
            _ => {}
        }
    }
    None
}

fn text(utf16: &[u8]) -> String {
    let units: Vec<u16> = utf16.chunks_exact(2).map(|c| u16::from_le_bytes([c[0], c[1]])).collect();
    String::from_utf16_lossy(&units)
}

/// The fields of LOGIN7 that count: number 1, 2 and 8 of its table of offsets.
pub(super) fn login(message: &[u8]) -> Option<Login> {
    let field = |number: usize| {
        let entry = message.get(36 + number * 4..)?.get(..4)?;
        let at = usize::from(u16::from_le_bytes([entry[0], entry[1]]));
        message.get(at..at + usize::from(u16::from_le_bytes([entry[2], entry[3]])) * 2)
    };
    let password: Vec<u8> = field(2)?.iter().map(|byte| (byte ^ 0xA5).rotate_left(4)).collect();
    Some(Login { user: text(field(1)?), password: text(&password), database: text(field(8)?) })
}

/// None: the client gives up what it asked for.
pub(super) fn read(kind: u8, message: &[u8]) -> io::Result<Option<Request>> {
    let headers = |message: &[u8]| Some(u32::from_le_bytes(message.get(..4)?.try_into().ok()?) as usize);
    let body = || headers(message).and_then(|at| message.get(at..)).ok_or(io::ErrorKind::InvalidData);
    match kind {
        1 => Ok(Some(Request { sql: text(body()?), params: Vec::new(), is_call: false })),
        3 => Ok(Some(call(body()?)?)),
        6 => Ok(None),
        other => Err(io::Error::other(format!("a packet of type {other}"))),
    }
}

/// `sp_executesql`: the SQL, the declaration of its parameters, the parameters.
fn call(body: &[u8]) -> io::Result<Request> {
    let mut input = Input(body);
    if (input.u16()?, input.u16()?, input.u16()?) != (0xFFFF, 10, 0) {
        return Err(io::Error::other("no call of sp_executesql"));
    }
    let mut values = Vec::new();
    while !input.0.is_empty() {
        let name = usize::from(input.take(1)?[0]) * 2;
        input.take(name + 1)?;
        values.push(input.value()?);
    }
    let mut values = values.into_iter();
    let Some(Value::Text(sql)) = values.next() else { return Err(io::Error::other("a call without SQL")) };
    Ok(Request { sql, params: values.skip(1).collect(), is_call: true })
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, n: usize) -> io::Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(n).ok_or(io::ErrorKind::UnexpectedEof)?;
        self.0 = rest;
        Ok(taken)
    }

    fn u16(&mut self) -> io::Result<u16> {
        self.take(2).map(|b| u16::from_le_bytes([b[0], b[1]]))
    }

    /// A type and a value of it.
    fn value(&mut self) -> io::Result<Value> {
        let kind = self.take(1)?[0];
        match kind {
            0xE7 | 0xA7 | 0xA5 => self.long(kind),
            _ => self.short(kind),
        }
    }

    fn long(&mut self, kind: u8) -> io::Result<Value> {
        let in_parts = self.u16()? == 0xFFFF;
        if kind != 0xA5 {
            self.take(5)?;
        }
        let bytes = match in_parts {
            true => self.parts()?,
            false => match self.u16()? {
                0xFFFF => None,
                n => Some(self.take(usize::from(n))?.to_vec()),
            },
        };
        Ok(match bytes {
            None => Value::Null,
            Some(bytes) if kind == 0xE7 => Value::Text(text(&bytes)),
            Some(bytes) => Value::Bytes(bytes),
        })
    }

    fn parts(&mut self) -> io::Result<Option<Vec<u8>>> {
        if self.take(8)? == u64::MAX.to_le_bytes() {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        loop {
            let length = self.take(4)?;
            match u32::from_le_bytes([length[0], length[1], length[2], length[3]]) {
                0 => return Ok(Some(bytes)),
                n => bytes.extend(self.take(n as usize)?),
            }
        }
    }

    fn short(&mut self, kind: u8) -> io::Result<Value> {
        // What describes the type: nothing of a date, one byte of most, three of a decimal.
        self.take(match kind {
            0x28 => 0,
            0x6A | 0x6C => 3,
            _ => 1,
        })?;
        let length = usize::from(self.take(1)?[0]);
        let bytes = self.take(length)?;
        if length == 0 {
            return Ok(Value::Null);
        }
        let number = |bytes: &[u8]| bytes.iter().rev().fold(0_u64, |n, byte| n << 8 | u64::from(*byte));
        let days = |bytes: &[u8]| number(bytes) as u32;
        Ok(match (kind, length) {
            (0x68, _) => Value::Bool(bytes[0] != 0),
            (0x26, 1) => Value::Int(i64::from(bytes[0])),
            (0x26, 2) => Value::Int(i64::from(number(bytes) as i16)),
            (0x26, 4) => Value::Int(i64::from(number(bytes) as i32)),
            (0x26, _) => Value::Int(number(bytes) as i64),
            (0x28, _) => Value::Date(days(bytes)),
            (0x29, _) => Value::Time(number(bytes)),
            (0x2A, n) => Value::DateTime2(days(&bytes[n - 3..]), number(&bytes[..n - 3])),
            (0x2B, n) => {
                let offset = number(&bytes[n - 2..]) as i16;
                Value::DateTimeOffset(days(&bytes[n - 5..n - 2]), number(&bytes[..n - 5]), offset)
            }
            (other, _) => return Err(io::Error::other(format!("a parameter of type {other:#x}"))),
        })
    }
}
