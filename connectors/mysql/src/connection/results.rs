//! What the server answers to a statement: OK, an error, or columns and rows, packet by packet.
//!
//! Why a connection is never used half-read: a command is sent only while no answer is outstanding, and an answer is outstanding from the
//! first byte of its command to its last packet, whoever stops waiting for it. A dropped future or reader of rows thus leaves a
//! connection that refuses its next command; the caller drops it and connects anew.
//!
//! Memory: one row (in whole), and the columns' forms, at most 4,096.

use super::{Connection, garbled};
use crate::packet::Fields;
use crate::refusal::Refusal;
use crate::value::{Form, Value};
use bytes::Bytes;
use caudal_core::Error;
use std::sync::Arc;

const MAX_COLUMNS: u64 = 4096;
const OK: u8 = 0x00;
const END: u8 = 0xfe;
const ERROR: u8 = 0xff;

/// Why a statement was not answered.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The server refused it; the connection can be used on.
    Refused(Refusal),
    /// The connection is of no use any more.
    Lost(Error),
}

impl Failure {
    /// The server's code, where it refused.
    pub(crate) fn code(&self) -> Option<u16> {
        match self {
            Self::Refused(refusal) => Some(refusal.code),
            Self::Lost(_) => None,
        }
    }

    /// Who must act.
    pub(crate) fn into_error(self) -> Error {
        match self {
            Self::Refused(refusal) => refusal.of_statement(),
            Self::Lost(error) => error,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Lost(error)
    }
}

/// How an answer begins.
pub(super) enum Head {
    /// And ends: there are no rows.
    Done { affected: u64 },
    /// Rows follow.
    Rows(Arc<[Form]>),
}

/// A row of the binary protocol, as it came.
#[derive(Clone)]
pub(crate) struct PackedRow {
    pub(crate) bytes: Bytes,
    pub(crate) forms: Arc<[Form]>,
}

impl PackedRow {
    /// How many fields it has.
    pub(crate) fn width(&self) -> usize {
        self.forms.len()
    }

    /// Its fields, from the first on.
    pub(crate) fn fields(&self) -> RowFields<'_> {
        let mut fields = Fields(&self.bytes);
        // A zero byte, then a bit per column and two more in front: set for NULL.
        let head = fields.take(1).and_then(|_| fields.take((self.forms.len() + 9) / 8));
        RowFields { fields, nulls: head.unwrap_or_default(), forms: &self.forms, at: 0 }
    }

    /// Its fields with bytes of their own; none if it is damaged.
    pub(crate) fn values(&self) -> Option<Vec<Value>> {
        let mut fields = self.fields();
        (0..self.width()).map(|_| Some(fields.next()?.to_owned())).collect()
    }
}

/// Reads the fields of a row one by one.
pub(crate) struct RowFields<'a> {
    fields: Fields<'a>,
    nulls: &'a [u8],
    forms: &'a [Form],
    at: usize,
}

impl<'a> RowFields<'a> {
    /// The next field; none behind the last one, and if the row is damaged.
    pub(crate) fn next(&mut self) -> Option<Value<&'a [u8]>> {
        let form = *self.forms.get(self.at)?;
        let bit = self.at + 2;
        self.at += 1;
        if self.nulls.get(bit / 8)? & 1 << (bit % 8) != 0 {
            return Some(Value::Null);
        }
        Value::read(form, &mut self.fields)
    }
}

impl Connection {
    /// Sends a command and reads its answer up to the first row.
    pub(super) async fn ask(&mut self, command: &[u8]) -> Result<Head, Failure> {
        self.begin()?;
        self.command(command).await?;
        let head = self.packet().await?;
        match head.first() {
            Some(&OK) => {
                self.outstanding = false;
                let affected = Fields(&head[1..]).length_encoded().unwrap_or(0);
                Ok(Head::Done { affected })
            }
            _ => {
                let columns = Fields(&head).length_encoded().filter(|n| (1..=MAX_COLUMNS).contains(n));
                Ok(Head::Rows(self.columns(columns.ok_or_else(garbled)?).await?))
            }
        }
    }

    /// Marks that an answer is outstanding; a connection with one cannot be used.
    pub(super) fn begin(&mut self) -> Result<(), Failure> {
        if std::mem::replace(&mut self.outstanding, true) {
            return Err(Failure::Lost(Error::transient(
                "the connection was left in the middle of an answer",
            )));
        }
        Ok(())
    }

    /// A packet of the answer that is no error; an error ends the answer.
    pub(super) async fn packet(&mut self) -> Result<Bytes, Failure> {
        let packet = self.wire.receive().await?;
        if packet.first() == Some(&ERROR) {
            self.outstanding = false;
            return Err(match Refusal::parse(&packet) {
                Some(refusal) => Failure::Refused(refusal),
                None => Failure::Lost(garbled()),
            });
        }
        Ok(packet)
    }

    /// Definitions of columns (or parameters), and the packet that ends them.
    pub(super) async fn columns(&mut self, count: u64) -> Result<Arc<[Form]>, Failure> {
        let mut forms = Vec::with_capacity(count as usize);
        self.names.clear();
        for _ in 0..count {
            let (name, form) = form(&self.packet().await?).ok_or_else(garbled)?;
            self.names.push(name);
            forms.push(form);
        }
        let end = self.packet().await?;
        if end.first() != Some(&END) {
            return Err(garbled().into());
        }
        Ok(forms.into())
    }

    /// The next row's packet; none at the end.
    pub(super) async fn row(&mut self) -> Result<Option<Bytes>, Failure> {
        /// In the end's status: another answer follows. Only procedures have several.
        const MORE_RESULTS: u8 = 0x08;
        let packet = self.packet().await?;
        if packet.first() != Some(&END) || packet.len() >= 9 {
            return Ok(Some(packet));
        }
        if packet.get(3).is_some_and(|status| status & MORE_RESULTS != 0) {
            return Err(Error::bug("run a statement with several results").into());
        }
        self.outstanding = false;
        Ok(None)
    }
}

/// A column's name, and the type and flags in its definition.
fn form(definition: &[u8]) -> Option<(Box<str>, Form)> {
    let mut fields = Fields(definition);
    // Catalog, database, table and column, the last two also by their first names.
    let mut names = [&[][..]; 6];
    for name in &mut names {
        let length = usize::try_from(fields.length_encoded()?).ok()?;
        *name = fields.take(length)?;
    }
    let name = String::from_utf8_lossy(names[4]).into();
    // A length of 12, then character set and width.
    fields.take(1 + 2 + 4)?;
    let kind = fields.take(1)?[0];
    Some((name, Form::new(kind, u16::from_le_bytes(fields.array()?))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_a_row_are_null_where_their_bit_says_so() {
        let forms: Arc<[Form]> = [Form::new(1, 0), Form::new(253, 0), Form::new(1, 0x20)].into();
        // The second of three: bit 3.
        let row = PackedRow { bytes: Bytes::from_static(b"\x00\x08\xff\x80"), forms: Arc::clone(&forms) };
        assert!(row.values() == Some(vec![Value::Int(-1), Value::Null, Value::Int(128)]));
        assert!(row.fields().next() == Some(Value::Int(-1)));
        for bytes in [&b""[..], b"\x00", b"\x00\x00", b"\x00\x00\x01\x05ab"] {
            let row = PackedRow { bytes: Bytes::copy_from_slice(bytes), forms: Arc::clone(&forms) };
            assert!(row.values().is_none());
        }
    }

    #[test]
    fn the_form_of_a_column_is_found_behind_its_names() {
        let definition =
            b"\x03def\x01d\x01t\x01t\x01c\x01c\x0c\x3f\x00\x0b\x00\x00\x00\x03\x21\x00\x00\x00\x00";
        assert_eq!(form(definition), Some(("c".into(), Form::new(3, 0x20))));
        (0..definition.len() - 3).for_each(|cut| assert!(form(&definition[..cut]).is_none()));
    }
}
