//! Parses table maps. (`Table_map_event` in MySQL's `rows_event.h`; MariaDB's differs in which columns have character sets.)

use super::{MapColumn, TableMap, WireType};
use crate::binlog::cursor::{Cursor, Damage, Read, bit, damage};
use crate::charset::Charset;
use crate::connection::Family;
use bytes::Bytes;

pub(super) fn table_map(body: &[u8], family: Family) -> Read<TableMap> {
    let mut c = Cursor(body);
    let id = c.little(6)?;
    c.u16()?;
    let database = name(&mut c)?;
    let table = name(&mut c)?;
    let count = c.count()?;
    let types = c.take(count)?;
    let mut layout = Cursor(c.counted()?);
    let nulls = c.take(count.div_ceil(8))?;
    let mut columns = Vec::with_capacity(count);
    for (i, &ty) in types.iter().enumerate() {
        columns.push(MapColumn::bare(wire_type(ty, &mut layout)?, bit(nulls, i)));
    }
    let mut map = TableMap {
        id,
        database,
        table,
        columns,
        primary_key: Vec::new(),
        full: false,
        minimal: false,
        raw: Bytes::copy_from_slice(body),
    };
    Metadata { map: &mut map, family, members: Vec::new() }.read(c)?;
    Ok(map)
}

impl MapColumn {
    fn bare(ty: WireType, nullable: bool) -> Self {
        Self {
            ty,
            nullable,
            unsigned: None,
            collation: None,
            name: None,
            members: Vec::new(),
            visible: true,
            geometry: None,
            dimensions: None,
        }
    }

    /// Signedness is told for these; YEAR counts as a number.
    fn is_number(&self) -> bool {
        use WireType as W;
        matches!(self.ty, W::Int(_) | W::Float | W::Double | W::Decimal { .. } | W::Year)
    }

    /// The list of collations counts these.
    fn has_collation(&self, family: Family) -> bool {
        match self.ty {
            WireType::VarChar { .. } | WireType::Char { .. } | WireType::Blob { .. } => true,
            WireType::Geometry { .. } => family == Family::MariaDb,
            WireType::Vector { .. } => family == Family::MySql,
            _ => false,
        }
    }

    fn is_set(&self) -> bool {
        matches!(self.ty, WireType::Set(_))
    }

    fn is_enum(&self) -> bool {
        matches!(self.ty, WireType::Enum(_))
    }
}

/// A name of at most 255 bytes with a zero byte behind it.
fn name(c: &mut Cursor<'_>) -> Read<String> {
    let length = usize::from(c.u8()?);
    let name = String::from_utf8_lossy(c.take(length)?).into_owned();
    c.u8()?;
    Ok(name)
}

fn wire_type(code: u8, layout: &mut Cursor<'_>) -> Read<WireType> {
    use WireType as W;
    Ok(match code {
        1 => W::Int(1),
        2 => W::Int(2),
        9 => W::Int(3),
        3 => W::Int(4),
        8 => W::Int(8),
        4 => {
            layout.u8()?;
            W::Float
        }
        5 => {
            layout.u8()?;
            W::Double
        }
        246 => {
            let (precision, scale) = (layout.u8()?, layout.u8()?);
            if precision > 65 || scale > precision {
                return damage("a DECIMAL column has impossible digits");
            }
            W::Decimal { precision, scale }
        }
        16 => {
            let (bits, bytes) = (layout.u8()?, layout.u8()?);
            let width = u16::from(bytes) * 8 + u16::from(bits);
            if width == 0 || width > 64 {
                return damage("a BIT column has an impossible width");
            }
            W::Bit(width)
        }
        10 | 14 => W::Date,
        13 => W::Year,
        19 => W::Time(fraction(layout)?),
        18 => W::DateTime(fraction(layout)?),
        17 => W::Timestamp(fraction(layout)?),
        11 => W::OldTime,
        12 => W::OldDateTime,
        7 => W::OldTimestamp,
        15 | 253 => W::VarChar { max_bytes: layout.u16()?, compressed: false },
        141 => W::VarChar { max_bytes: layout.u16()?, compressed: true },
        140 => W::Blob { length_bytes: length_bytes(layout)?, compressed: true },
        249..=252 => W::Blob { length_bytes: length_bytes(layout)?, compressed: false },
        245 => W::Json { length_bytes: length_bytes(layout)? },
        255 => W::Geometry { length_bytes: length_bytes(layout)? },
        242 => W::Vector { length_bytes: length_bytes(layout)? },
        254 => char_enum_or_set(layout)?,
        other => return Err(Damage::of(format!("column type {other} is not known"))),
    })
}

fn fraction(layout: &mut Cursor<'_>) -> Read<u8> {
    match layout.u8()? {
        digits @ 0..=6 => Ok(digits),
        _ => damage("a temporal column has impossible fraction digits"),
    }
}

fn length_bytes(layout: &mut Cursor<'_>) -> Read<u8> {
    match layout.u8()? {
        bytes @ 1..=4 => Ok(bytes),
        _ => damage("a BLOB column has an impossible length"),
    }
}

/// One type code for three kinds of columns. The two top bits of a long CHAR's length hide, inverted, in the type byte.
fn char_enum_or_set(layout: &mut Cursor<'_>) -> Read<WireType> {
    let (real, low) = (layout.u8()?, layout.u8()?);
    match real {
        247 if matches!(low, 1 | 2) => Ok(WireType::Enum(low)),
        248 if (1..=8).contains(&low) => Ok(WireType::Set(low)),
        247 | 248 => damage("an ENUM or SET column has an impossible width"),
        _ => Ok(WireType::Char { max_bytes: u16::from(low) | (u16::from(real & 0x30) ^ 0x30) << 4 }),
    }
}

/// The optional metadata behind the columns: fields of type, length and value. Unknown ones are passed over.
struct Metadata<'m, 'a> {
    map: &'m mut TableMap,
    family: Family,
    /// Labels as they stand: their collation may come later.
    members: Vec<(usize, Vec<&'a [u8]>)>,
}

impl<'a> Metadata<'_, 'a> {
    fn read(mut self, mut c: Cursor<'a>) -> Read<()> {
        while !c.is_empty() {
            let field = c.u8()?;
            let value = Cursor(c.counted()?);
            self.field(field, value)?;
        }
        self.label();
        Ok(())
    }

    fn field(&mut self, field: u8, value: Cursor<'a>) -> Read<()> {
        let family = self.family;
        match field {
            1 => {
                self.map.minimal = true;
                self.signedness(value.0);
            }
            2 => self.default_collation(value, |c| c.has_collation(family))?,
            3 => self.collations(value, |c| c.has_collation(family))?,
            4 => self.names(value)?,
            5 => self.labels(value, MapColumn::is_set)?,
            6 => self.labels(value, MapColumn::is_enum)?,
            7 => self.numbers(
                value,
                |c| matches!(c.ty, WireType::Geometry { .. }),
                |c, n| c.geometry = Some(n),
            )?,
            8 => self.key(value, false)?,
            9 => self.key(value, true)?,
            10 => self.default_collation(value, |c| c.is_enum() || c.is_set())?,
            11 => self.collations(value, |c| c.is_enum() || c.is_set())?,
            12 => {
                for (i, column) in self.map.columns.iter_mut().enumerate() {
                    column.visible = high_bit(value.0, i);
                }
            }
            13 => self.numbers(
                value,
                |c| matches!(c.ty, WireType::Vector { .. }),
                |c, n| c.dimensions = Some(n),
            )?,
            _ => {}
        }
        Ok(())
    }

    fn signedness(&mut self, bits: &[u8]) {
        for (i, column) in self.map.columns.iter_mut().filter(|c| c.is_number()).enumerate() {
            column.unsigned = Some(high_bit(bits, i));
        }
    }

    /// One for all, then pairs of a column's number and its own.
    fn default_collation(&mut self, mut value: Cursor<'_>, counts: impl Fn(&MapColumn) -> bool) -> Read<()> {
        self.map.minimal = true;
        let default = small(&mut value)?;
        let mut columns: Vec<_> = self.map.columns.iter_mut().filter(|c| counts(c)).collect();
        columns.iter_mut().for_each(|c| c.collation = Some(default));
        while !value.is_empty() {
            let (i, collation) = (small(&mut value)?, small(&mut value)?);
            match columns.get_mut(i as usize) {
                Some(column) => column.collation = Some(collation),
                None => return damage("a table map tells the collation of a column that it has not"),
            }
        }
        Ok(())
    }

    fn collations(&mut self, value: Cursor<'_>, counts: impl Fn(&MapColumn) -> bool) -> Read<()> {
        self.map.minimal = true;
        self.numbers(value, counts, |c, n| c.collation = Some(n))
    }

    fn numbers(
        &mut self,
        mut value: Cursor<'_>,
        counts: impl Fn(&MapColumn) -> bool,
        set: impl Fn(&mut MapColumn, u32),
    ) -> Read<()> {
        for column in self.map.columns.iter_mut().filter(|c| counts(c)) {
            set(column, small(&mut value)?);
        }
        if value.is_empty() { Ok(()) } else { damage("a table map tells more of its columns than it has") }
    }

    fn names(&mut self, mut value: Cursor<'_>) -> Read<()> {
        self.map.full = true;
        for column in &mut self.map.columns {
            column.name = Some(String::from_utf8_lossy(value.counted()?).into_owned());
        }
        Ok(())
    }

    fn labels(&mut self, mut value: Cursor<'a>, counts: impl Fn(&MapColumn) -> bool) -> Read<()> {
        for (i, _) in self.map.columns.iter().enumerate().filter(|(_, c)| counts(c)) {
            let count = value.count()?;
            let members = (0..count).map(|_| value.counted()).collect::<Read<_>>()?;
            self.members.push((i, members));
        }
        Ok(())
    }

    /// Labels in their column's character set; where that is not known the column has none.
    fn label(&mut self) {
        for (i, members) in &self.members {
            let column = &mut self.map.columns[*i];
            let charset = column.collation.map_or_else(|| Charset::by_name("utf8mb4"), Charset::by_collation);
            let text = |charset: Charset| members.iter().map(|m| charset.label(m)).collect::<Option<_>>();
            column.members = charset.ok().and_then(text).unwrap_or_default();
        }
    }

    fn key(&mut self, mut value: Cursor<'_>, prefixes: bool) -> Read<()> {
        while !value.is_empty() {
            let column = small(&mut value)?;
            let prefix = if prefixes { small(&mut value)? } else { 0 };
            if column as usize >= self.map.columns.len() {
                return damage("a table's key has a column that the table has not");
            }
            self.map.primary_key.push((column, prefix));
        }
        Ok(())
    }
}

fn small(c: &mut Cursor<'_>) -> Read<u32> {
    u32::try_from(c.length_encoded()?).map_err(|_| Damage::of("a number in a table map is too large"))
}

/// Bit `i`, the highest of a byte first.
fn high_bit(bits: &[u8], i: usize) -> bool {
    bits.get(i / 8).is_some_and(|byte| byte >> (7 - i % 8) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::binlog::table_map::TableMaps;

    fn field(kind: u8, value: &[u8]) -> Vec<u8> {
        [&[kind, value.len() as u8][..], value].concat()
    }

    /// `t(a int unsigned, b enum('x','ü') latin1, c varchar(300) utf8mb4, y year, s set)`, key (c(10), a).
    fn body() -> Vec<u8> {
        let mut b = vec![7, 0, 0, 0, 0, 0, 1, 0, 2];
        b.extend_from_slice(b"db\0\x01t\0\x05");
        b.extend_from_slice(&[3, 254, 15, 13, 254]);
        b.extend_from_slice(&[6, 247, 1, 0xb0, 4, 248, 1, 0b11110]);
        b.extend(field(1, &[0b1000_0000]));
        b.extend(field(2, &[45]));
        b.extend(field(11, &[8, 45]));
        b.extend(field(4, b"\x01a\x01b\x01c\x01y\x01s"));
        b.extend(field(6, b"\x02\x01x\x01\xfc"));
        b.extend(field(5, b"\x01\x03one"));
        b.extend(field(9, &[2, 10, 0, 0]));
        b.extend(field(12, &[0b1110_1000]));
        b.extend(field(99, b"newer"));
        b
    }

    #[test]
    fn all_metadata_is_read() {
        let map = table_map(&body(), Family::MySql).unwrap();
        assert_eq!((map.id, map.database.as_str(), map.table.as_str()), (7, "db", "t"));
        assert!(map.full && map.minimal);
        let c = &map.columns;
        assert_eq!(c[0].ty, WireType::Int(4));
        assert_eq!((c[0].unsigned, c[3].unsigned), (Some(true), Some(false)));
        assert_eq!((c[1].ty, c[1].collation), (WireType::Enum(1), Some(8)));
        assert_eq!(c[1].members, ["x", "ü"]);
        assert_eq!(c[2].ty, WireType::VarChar { max_bytes: 1200, compressed: false });
        assert_eq!((c[2].collation, c[2].name.as_deref()), (Some(45), Some("c")));
        assert_eq!(c[4].members, ["one"]);
        assert_eq!(map.primary_key, [(2, 10), (0, 0)]);
        let visible: Vec<_> = c.iter().map(|c| c.visible).collect();
        assert_eq!(visible, [true, true, true, false, true]);
        let nullable: Vec<_> = c.iter().map(|c| c.nullable).collect();
        assert_eq!(nullable, [false, true, true, true, true]);
    }

    #[test]
    fn every_cut_of_a_table_map_is_damage_or_a_shorter_one() {
        let whole = body();
        for cut in 0..whole.len() {
            let _ = table_map(&whole[..cut], Family::MariaDb);
        }
        assert!(table_map(&whole[..30], Family::MySql).is_err());
    }

    #[test]
    fn an_equal_map_is_parsed_once_and_counts_in_its_transaction_only() {
        let mut maps = TableMaps::new(Family::MySql);
        maps.new_transaction();
        let first = maps.map(&body()).unwrap();
        assert!(maps.get(7).is_ok());
        maps.new_transaction();
        assert!(maps.get(7).is_err(), "a map of an earlier transaction");
        assert!(std::sync::Arc::ptr_eq(&first, &maps.map(&body()).unwrap()));
        let mut other = body();
        let last = other.len() - 1;
        other[last] ^= 1;
        assert!(!std::sync::Arc::ptr_eq(&first, &maps.map(&other).unwrap()));
    }

    #[test]
    fn long_chars_hide_their_length_in_the_type() {
        // CHAR(255) of utf8mb4: 1,020 bytes.
        let mut layout = Cursor(&[0xfe ^ 0x30, 0xfc]);
        assert_eq!(char_enum_or_set(&mut layout), Ok(WireType::Char { max_bytes: 1020 }));
        assert_eq!(char_enum_or_set(&mut Cursor(&[0xfe, 16])), Ok(WireType::Char { max_bytes: 16 }));
    }
}
