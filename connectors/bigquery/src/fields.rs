//! Protocol buffers as far as two calls need them: fields that are numbers, texts and messages
//! (<https://protobuf.dev/programming-guides/encoding>).

/// Writes a message.
#[derive(Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    fn varint(&mut self, mut n: u64) {
        while n >= 0x80 {
            self.0.push(n as u8 | 0x80);
            n >>= 7;
        }
        self.0.push(n as u8);
    }

    pub(crate) fn number(&mut self, field: u64, value: u64) {
        self.varint(field << 3);
        self.varint(value);
    }

    pub(crate) fn bytes(&mut self, field: u64, value: &[u8]) {
        self.varint(field << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
    }

    pub(crate) fn text(&mut self, field: u64, value: &str) {
        self.bytes(field, value.as_bytes());
    }

    pub(crate) fn end(self) -> Vec<u8> {
        self.0
    }
}

/// A field's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Value<'a> {
    /// Empty of a number.
    pub(crate) fn bytes(self) -> &'a [u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Number(_) => &[],
        }
    }

    /// 0 of bytes.
    pub(crate) fn number(self) -> u64 {
        match self {
            Self::Number(n) => n,
            Self::Bytes(_) => 0,
        }
    }
}

/// Reads a message: its fields by their numbers. Ends with `Some(None)` where it is none.
pub(crate) struct Wire<'a>(&'a [u8]);

impl<'a> Wire<'a> {
    pub(crate) fn new(message: &'a [u8]) -> Self {
        Self(message)
    }

    /// The bytes of the first field of that number.
    pub(crate) fn find(mut self, wanted: u64) -> Option<&'a [u8]> {
        self.find_map(|field| field.filter(|(number, _)| *number == wanted)).map(|(_, value)| value.bytes())
    }

    fn field(&mut self) -> Option<(u64, Value<'a>)> {
        let tag = varint(&mut self.0)?;
        let value = match tag & 7 {
            0 => Value::Number(varint(&mut self.0)?),
            1 => Value::Bytes(take(&mut self.0, 8)?),
            2 => {
                let size = varint(&mut self.0)?;
                Value::Bytes(take(&mut self.0, usize::try_from(size).ok()?)?)
            }
            5 => Value::Bytes(take(&mut self.0, 4)?),
            _ => return None,
        };
        Some((tag >> 3, value))
    }
}

impl<'a> Iterator for Wire<'a> {
    type Item = Option<(u64, Value<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field)
    }
}

/// The first `size` bytes, if there are so many.
pub(crate) fn take<'a>(from: &mut &'a [u8], size: usize) -> Option<&'a [u8]> {
    let (taken, rest) = from.split_at_checked(size)?;
    *from = rest;
    Some(taken)
}

/// Seven bits of each byte, the lowest first.
pub(crate) fn varint(from: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(from, 1)?[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut inner = Writer::default();
        inner.text(1, "ñandú");
        let mut message = Writer::default();
        message.number(3, 300);
        message.bytes(10, &inner.end());
        message.number(2, u64::MAX);
        let bytes = message.end();
        let fields: Vec<_> = Wire::new(&bytes).map(Option::unwrap).collect();
        assert_eq!(fields[0], (3, Value::Number(300)));
        assert_eq!(Wire::new(fields[1].1.bytes()).find(1), Some("ñandú".as_bytes()));
        assert_eq!(fields[2], (2, Value::Number(u64::MAX)));
    }

    #[test]
    fn what_is_no_message_is_told() {
        for wrong in [&[0x0a, 0x05, 1][..], &[0x08], &[0x0b], &[0xff; 11]] {
            assert!(Wire::new(wrong).any(|field| field.is_none()), "{wrong:?}");
        }
    }
}
