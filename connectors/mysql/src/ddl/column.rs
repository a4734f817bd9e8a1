//! Definitions of columns: whether rows that exist get, or change, a value.

use super::statement::Effect;
use super::tokens::Words;
use caudal_core::{Column, TableSchema};

/// A new column, from its type on. All rows have NULL in it exactly if it may be NULL and has no default and is not computed.
pub(super) fn added(words: &mut Words<'_>) -> Effect {
    let ty = words.next_word();
    // TIMESTAMP means NOT NULL on servers with the old rule, unless NULL is said; SERIAL is a numbered key.
    let mut nullable = ty != "TIMESTAMP" && ty != "SERIAL";
    let mut valued = false;
    while !words.is_end() {
        match words.next_word().as_str() {
            "(" => skip_brackets(words),
            "NOT" => {
                words.skip("NULL");
                return Effect::Rewrites;
            }
            "NULL" => nullable = true,
            "DEFAULT" => valued = !words.skip("NULL"),
            "AS" | "GENERATED" | "AUTO_INCREMENT" | "PRIMARY" | "KEY" | "SERIAL" | "…" => {
                return Effect::Rewrites;
            }
            _ => {}
        }
    }
    if nullable && !valued { Effect::Metadata } else { Effect::Rewrites }
}

/// Skips what stands in brackets that are open.
fn skip_brackets(words: &mut Words<'_>) {
    let mut depth = 1;
    while depth > 0 && !words.is_end() {
        match words.next_word().as_str() {
            "(" => depth += 1,
            ")" => depth -= 1,
            _ => {}
        }
    }
}

/// A column with a new definition, from its type on; `before` is what it was. Values stay if the type stays or gets wider, the
/// character set stays, and NULL stays allowed if it was.
pub(super) fn redefined(
    words: &mut Words<'_>,
    before: Option<&Column>,
    table: Option<&TableSchema>,
) -> Effect {
    let Some(before) = before else { return Effect::Rewrites };
    let new = Definition::read(words);
    let null_stays = !before.nullable || new.nullable;
    let generated = before.generated || new.computed;
    let charset_stays = match (&new.charset, &before.charset) {
        (Some(new), Some(old)) => same_charset(new, old),
        (Some(_), None) => false,
        (None, Some(old)) => {
            table.and_then(|t| t.charset.as_deref()).is_some_and(|default| same_charset(default, old))
        }
        (None, None) => true,
    };
    let wider = Type::of_native(&before.native)
        .is_some_and(|old| new.ty.as_ref().is_some_and(|ty| old.widens_to(ty)));
    if null_stays && !generated && charset_stays && wider { Effect::Metadata } else { Effect::Rewrites }
}

fn same_charset(a: &str, b: &str) -> bool {
    let new =
        |n: &str| if n.eq_ignore_ascii_case("utf8") { "utf8mb3".to_owned() } else { n.to_ascii_lowercase() };
    new(a) == new(b)
}

/// What a definition says, as far as values depend on it.
struct Definition {
    ty: Option<Type>,
    nullable: bool,
    computed: bool,
    charset: Option<String>,
}

impl Definition {
    fn read(words: &mut Words<'_>) -> Self {
        let ty = Type::read(words);
        let mut new = Self { ty, nullable: true, computed: false, charset: None };
        while !words.is_end() {
            match words.next_word().as_str() {
                "(" => skip_brackets(words),
                "NOT" => new.nullable &= !words.skip("NULL"),
                "PRIMARY" | "AUTO_INCREMENT" => new.nullable = false,
                "AS" | "GENERATED" => new.computed = true,
                "CHARSET" => new.charset = words.identifier(),
                "CHARACTER" => {
                    words.skip("SET");
                    new.charset = words.identifier();
                }
                // The character set goes with the collation: `latin1_bin`.
                "COLLATE" => {
                    let collation = words.identifier().unwrap_or_default();
                    let charset = collation.split('_').next().unwrap_or_default().to_owned();
                    new.charset.get_or_insert(charset);
                }
                "…" => new.ty = None,
                _ => {}
            }
        }
        new
    }
}

/// A type of the source: its name in one spelling, the numbers in brackets, its attributes.
#[derive(Debug, Default, PartialEq, Eq)]
struct Type {
    name: String,
    numbers: Vec<u32>,
    /// Labels of ENUM and SET.
    members: Vec<String>,
    unsigned: bool,
}

impl Type {
    fn of_native(native: &str) -> Option<Self> {
        let tokens = super::tokens::tokens(native);
        Self::read(&mut Words::new(&tokens, ""))
    }

    /// None for what is not known: it never counts as wider.
    fn read(words: &mut Words<'_>) -> Option<Self> {
        let written = words.next_word();
        let mut ty = Self { name: plain(&written).to_owned(), ..Self::default() };
        if let Some(mut list) = words.brackets() {
            while !list.is_end() {
                match list.text() {
                    Some(member) => ty.members.push(member.to_owned()),
                    None => ty.numbers.push(list.next_word().parse().ok()?),
                }
                list.skip(",");
            }
        }
        if matches!(written.as_str(), "BOOL" | "BOOLEAN") {
            ty.numbers = vec![1];
        }
        while matches!(words.peek().as_str(), "UNSIGNED" | "ZEROFILL" | "SIGNED") {
            ty.unsigned |= words.next_word() != "SIGNED";
        }
        Some(ty)
    }

    /// Whether each value of this type is the same value in `new`.
    fn widens_to(&self, new: &Self) -> bool {
        const INTEGERS: [&str; 5] = ["TINYINT", "SMALLINT", "MEDIUMINT", "INT", "BIGINT"];
        const TEXTS: [&str; 4] = ["TINYTEXT", "TEXT", "MEDIUMTEXT", "LONGTEXT"];
        const BLOBS: [&str; 4] = ["TINYBLOB", "BLOB", "MEDIUMBLOB", "LONGBLOB"];
        let rank = |list: &[&str], name: &str| list.iter().position(|n| *n == name);
        if let (Some(old), Some(at)) = (rank(&INTEGERS, &self.name), rank(&INTEGERS, &new.name)) {
            // One digit makes a TINYINT a boolean: other cells.
            let boolean = |t: &Self| t.name == "TINYINT" && t.numbers == [1];
            return old <= at && self.unsigned == new.unsigned && boolean(self) == boolean(new);
        }
        for list in [&TEXTS, &BLOBS] {
            if let (Some(old), Some(at)) = (rank(list, &self.name), rank(list, &new.name)) {
                return old <= at;
            }
        }
        let grows = || {
            self.numbers.len() == new.numbers.len()
                && self.numbers.iter().zip(&new.numbers).all(|(a, b)| a <= b)
        };
        let same = self.name == new.name;
        match self.name.as_str() {
            "VARCHAR" | "VARBINARY" => same && grows(),
            // Values are told by their labels; those of a SET in the order of the declaration.
            "ENUM" => same && self.members.iter().all(|m| new.members.contains(m)),
            "SET" => same && new.members.starts_with(&self.members),
            _ => self == new,
        }
    }
}

/// One spelling for each type.
fn plain(name: &str) -> &str {
    match name {
        "INTEGER" | "INT4" => "INT",
        "INT1" | "BOOL" | "BOOLEAN" => "TINYINT",
        "INT2" => "SMALLINT",
        "INT3" | "MIDDLEINT" => "MEDIUMINT",
        "INT8" => "BIGINT",
        "DEC" | "NUMERIC" | "FIXED" => "DECIMAL",
        "REAL" => "DOUBLE",
        other => other,
    }
}
