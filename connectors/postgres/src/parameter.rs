//! Parameters that are encoded already.

use crate::client::Param;
use crate::encode;
use crate::prepare::Columns;
use crate::types::Wire;
use bytes::{BufMut, BytesMut};
use std::error::Error;
use std::fmt;
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};

/// A binary array over encoded fields.
pub(crate) struct Array<'a> {
    wire: Wire,
    len: usize,
    fields: &'a [u8],
}

/// One encoded field: its length, then its value.
pub(crate) struct Field<'a>(pub(crate) &'a [u8]);

// Values must not reach logs: the driver prints parameters at its debug level.
impl fmt::Debug for Array<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} × {:?}", self.len, self.wire)
    }
}

impl fmt::Debug for Field<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }
}

impl ToSql for Array<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        let mut head = Vec::with_capacity(20);
        encode::array_head(&mut head, self.wire, self.len);
        out.put_slice(&head);
        out.put_slice(self.fields);
        Ok(IsNull::No)
    }

    // The type is the one that was given beside the parameter.
    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

impl ToSql for Field<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        match self.0.split_first_chunk::<4>() {
            Some((len, value)) if i32::from_be_bytes(*len) >= 0 => {
                out.put_slice(value);
                Ok(IsNull::No)
            }
            _ => Ok(IsNull::Yes),
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

impl Columns {
    /// One array for each column.
    pub(crate) fn arrays(&self) -> Vec<(Array<'_>, Type)> {
        self.fields
            .iter()
            .map(|(wire, fields)| {
                let ty = wire.array().unwrap_or(Type::UNKNOWN);
                (Array { wire: *wire, len: self.len, fields }, ty)
            })
            .collect()
    }
}

/// Borrows typed parameters the way the driver wants them.
pub(crate) fn borrow<T: ToSql + Sync>(params: &[(T, Type)]) -> Vec<Param<'_>> {
    params.iter().map(|(value, ty)| (value as &(dyn ToSql + Sync), ty.clone())).collect()
}
