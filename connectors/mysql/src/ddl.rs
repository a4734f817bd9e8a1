//! Which tables a logged statement concerns. Not a parser of DDL: it reads as many words as it needs, and what it does not
//! know concerns any table. So a statement that nobody has seen before costs a comparison of shapes, and never stops the stream.

use caudal_core::TableId;

/// What a statement means to a capture.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Statement {
    /// All rows of the table are gone.
    Truncate(TableId),
    /// These tables are new (or have a new name).
    Creates(Vec<TableId>),
    /// These tables may have another shape now, or be gone.
    Changes(Vec<TableId>),
    /// Any table may have changed.
    Unknown,
    /// Rows of this table were changed by a statement, which says nothing of the rows.
    Rows(Option<TableId>),
    /// Nothing that concerns tables' shapes or rows.
    Other,
}

/// Reads a statement; `database` is its default.
pub(crate) fn read(statement: &str, database: &str) -> Statement {
    let tokens = tokens(statement);
    let mut words = Words { tokens: &tokens, at: 0, database };
    match words.next_word().as_str() {
        "TRUNCATE" => {
            words.skip("TABLE");
            words.name().map_or(Statement::Unknown, Statement::Truncate)
        }
        "CREATE" => create(&mut words),
        "ALTER" => alter(&mut words),
        "DROP" => drop(&mut words),
        "RENAME" => rename(&mut words),
        "INSERT" | "REPLACE" => rows(&mut words, &["INTO"]),
        "UPDATE" => rows(&mut words, &[]),
        "DELETE" => rows(&mut words, &["FROM"]),
        "LOAD" => load(&mut words),
        "BEGIN" | "COMMIT" | "ROLLBACK" | "SAVEPOINT" | "RELEASE" | "XA" | "GRANT" | "REVOKE" | "SET"
        | "FLUSH" | "ANALYZE" | "OPTIMIZE" | "CHECK" | "INSTALL" | "UNINSTALL" | "KILL" | "DO" | "CALL"
        | "USE" => Statement::Other,
        _ => Statement::Unknown,
    }
}

/// Kinds of objects that hold no rows.
const NOT_TABLES: [&str; 14] = [
    "VIEW",
    "PROCEDURE",
    "FUNCTION",
    "TRIGGER",
    "EVENT",
    "USER",
    "ROLE",
    "SERVER",
    "SEQUENCE",
    "PACKAGE",
    "TABLESPACE",
    "LOGFILE",
    "RESOURCE",
    "SPATIAL_REFERENCE",
];

fn create(words: &mut Words<'_>) -> Statement {
    loop {
        match words.next_word().as_str() {
            "OR" | "REPLACE" | "UNIQUE" | "FULLTEXT" | "SPATIAL" | "ONLINE" | "OFFLINE" => {}
            // Rows of temporary tables are not logged.
            "TEMPORARY" => return Statement::Other,
            "TABLE" => {
                words.skip_all(&["IF", "NOT", "EXISTS"]);
                return words.name().map_or(Statement::Unknown, |id| Statement::Creates(vec![id]));
            }
            "INDEX" => return words.after("ON"),
            "DATABASE" | "SCHEMA" => return Statement::Other,
            word if NOT_TABLES.contains(&word)
                || word == "DEFINER"
                || word == "ALGORITHM"
                || word == "SQL" =>
            {
                return Statement::Other;
            }
            _ => return Statement::Unknown,
        }
    }
}

fn alter(words: &mut Words<'_>) -> Statement {
    loop {
        match words.next_word().as_str() {
            "ONLINE" | "OFFLINE" | "IGNORE" => {}
            "TABLE" => break,
            word if NOT_TABLES.contains(&word)
                || matches!(word, "DEFINER" | "ALGORITHM" | "SQL" | "INSTANCE") =>
            {
                return Statement::Other;
            }
            _ => return Statement::Unknown,
        }
    }
    words.skip_all(&["IF", "EXISTS"]);
    let Some(id) = words.name() else { return Statement::Unknown };
    let mut ids = vec![id];
    // `RENAME TO other`, `EXCHANGE PARTITION p WITH TABLE other`
    while let Some(token) = words.next() {
        let word = token.word();
        if word == "RENAME" && words.skip_any(&["TO", "AS"]) || word == "WITH" && words.skip("TABLE") {
            ids.extend(words.name());
        }
    }
    Statement::Changes(ids)
}

fn drop(words: &mut Words<'_>) -> Statement {
    match words.next_word().as_str() {
        "TEMPORARY" => Statement::Other,
        "TABLE" | "TABLES" => {
            words.skip_all(&["IF", "EXISTS"]);
            let mut ids = Vec::new();
            while let Some(id) = words.name() {
                ids.push(id);
                if !words.skip(",") {
                    break;
                }
            }
            if ids.is_empty() { Statement::Unknown } else { Statement::Changes(ids) }
        }
        "INDEX" => words.after("ON"),
        word if NOT_TABLES.contains(&word) => Statement::Other,
        _ => Statement::Unknown,
    }
}

fn rename(words: &mut Words<'_>) -> Statement {
    if !words.skip_any(&["TABLE", "TABLES"]) {
        return Statement::Other;
    }
    words.skip_all(&["IF", "EXISTS"]);
    let mut ids = Vec::new();
    while let Some(from) = words.name() {
        ids.push(from);
        words.skip("TO");
        ids.extend(words.name());
        if !words.skip(",") {
            break;
        }
    }
    if ids.is_empty() { Statement::Unknown } else { Statement::Changes(ids) }
}

fn rows(words: &mut Words<'_>, before_name: &[&str]) -> Statement {
    words.skip_all(&["LOW_PRIORITY", "DELAYED", "HIGH_PRIORITY", "QUICK", "IGNORE"]);
    words.skip_all(before_name);
    Statement::Rows(words.name())
}

/// `LOAD DATA … INTO TABLE name`; the file's name comes before it, in quotes.
fn load(words: &mut Words<'_>) -> Statement {
    while let Some(token) = words.next() {
        if token.word() == "INTO" && words.skip("TABLE") {
            return Statement::Rows(words.name());
        }
    }
    Statement::Rows(None)
}

#[derive(Debug, PartialEq, Eq)]
enum Token {
    /// As written.
    Word(String),
    /// An identifier in quotes.
    Quoted(String),
    /// Anything else, one character.
    Mark(char),
}

impl Token {
    /// Upper case; empty for an identifier in quotes, which is no keyword.
    fn word(&self) -> String {
        match self {
            Self::Word(w) => w.to_ascii_uppercase(),
            Self::Quoted(_) => String::new(),
            Self::Mark(c) => c.to_string(),
        }
    }
}

struct Words<'a> {
    tokens: &'a [Token],
    at: usize,
    database: &'a str,
}

impl Words<'_> {
    fn next(&mut self) -> Option<&Token> {
        self.at += 1;
        self.tokens.get(self.at - 1)
    }

    fn next_word(&mut self) -> String {
        self.next().map(Token::word).unwrap_or_default()
    }

    fn skip(&mut self, word: &str) -> bool {
        let found = self.tokens.get(self.at).is_some_and(|t| t.word() == word);
        self.at += usize::from(found);
        found
    }

    fn skip_any(&mut self, words: &[&str]) -> bool {
        words.iter().any(|w| self.skip(w))
    }

    fn skip_all(&mut self, words: &[&str]) {
        while self.skip_any(words) {}
    }

    /// `table`, `database.table`, either part in quotes.
    fn name(&mut self) -> Option<TableId> {
        let first = self.identifier()?;
        if self.skip(".") {
            return Some(TableId::new(first, self.identifier()?));
        }
        Some(TableId::new(self.database, first))
    }

    fn identifier(&mut self) -> Option<String> {
        let (Token::Word(name) | Token::Quoted(name)) = self.tokens.get(self.at)? else { return None };
        self.at += 1;
        Some(name.clone())
    }

    /// The table behind the first `word` that is no identifier in quotes.
    fn after(&mut self, word: &str) -> Statement {
        while let Some(token) = self.next() {
            if token.word() == word {
                return self.name().map_or(Statement::Unknown, |id| Statement::Changes(vec![id]));
            }
        }
        Statement::Unknown
    }
}

/// Words, quoted identifiers and marks; comments and texts are left out, but what servers execute of comments (`/*! … */`) stays.
fn tokens(statement: &str) -> Vec<Token> {
    /// The names are near the front; a statement of megabytes need not be read to its end.
    const MOST: usize = 4_096;
    let chars: Vec<char> = statement.chars().take(MOST * 16).collect();
    let mut out = Vec::new();
    let mut i = 0;
    while i < chars.len() && out.len() < MOST {
        let rest = &chars[i..];
        match rest[0] {
            '/' if rest.get(1) == Some(&'*') => i += comment(rest),
            '*' if rest.get(1) == Some(&'/') => i += 2,
            '#' => i += line(rest),
            '-' if rest.starts_with(&['-', '-']) && rest.get(2).is_none_or(|c| c.is_whitespace()) => {
                i += line(rest)
            }
            c if c.is_whitespace() => i += 1,
            '\'' => i += quoted(rest).1,
            '`' | '"' => {
                let (text, len) = quoted(rest);
                out.push(Token::Quoted(text));
                i += len;
            }
            c if is_word(c) => {
                let word: String = rest.iter().take_while(|&&c| is_word(c)).collect();
                i += word.chars().count();
                out.push(Token::Word(word));
            }
            c => {
                out.push(Token::Mark(c));
                i += 1;
            }
        }
    }
    out
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '$'
}

fn line(rest: &[char]) -> usize {
    rest.iter().position(|&c| c == '\n').unwrap_or(rest.len())
}

/// Length of a comment; of an executable one, of what opens it, with its version number.
fn comment(rest: &[char]) -> usize {
    let mark = match rest {
        ['/', '*', '!', ..] => 3,
        ['/', '*', 'M', '!', ..] => 4,
        _ => {
            let end = rest.windows(2).skip(2).position(|w| w == ['*', '/']);
            return end.map_or(rest.len(), |n| n + 4);
        }
    };
    mark + rest[mark..].iter().take_while(|c| c.is_ascii_digit()).count()
}

/// What is in quotes, and its length with them.
fn quoted(rest: &[char]) -> (String, usize) {
    let quote = rest[0];
    let mut text = String::new();
    let mut i = 1;
    while i < rest.len() {
        match rest[i] {
            '\\' if quote != '`' => {
                text.extend(rest.get(i + 1));
                i += 2;
            }
            c if c == quote && rest.get(i + 1) == Some(&quote) => {
                text.push(quote);
                i += 2;
            }
            c if c == quote => return (text, i + 1),
            c => {
                text.push(c);
                i += 1;
            }
        }
    }
    (text, rest.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(database: &str, table: &str) -> TableId {
        TableId::new(database, table)
    }

    #[test]
    fn comments_quotes_and_other_databases_do_not_hide_the_table() {
        let alter = Statement::Changes(vec![id("d", "t")]);
        for text in [
            "ALTER TABLE t ADD c INT",
            "/* x */ ALTER -- y\n TABLE `t` ADD c INT",
            "alter online table if exists d.t add c int",
            "/*!40000 ALTER TABLE `t` DISABLE KEYS */",
            "# note\nALTER IGNORE TABLE `d` . `t` ADD c INT",
        ] {
            assert_eq!(read(text, "d"), alter, "{text}");
        }
        assert_eq!(read("ALTER TABLE `a``b.c` ADD c INT", "d"), Statement::Changes(vec![id("d", "a`b.c")]));
    }

    #[test]
    fn all_tables_of_a_statement_are_found() {
        assert_eq!(
            read("RENAME TABLE a TO b, x.c TO x.d", "d"),
            Statement::Changes(vec![id("d", "a"), id("d", "b"), id("x", "c"), id("x", "d")])
        );
        assert_eq!(
            read("DROP TABLE IF EXISTS `a`,`b` /* generated by server */", "d"),
            Statement::Changes(vec![id("d", "a"), id("d", "b")])
        );
        assert_eq!(
            read("ALTER TABLE a RENAME TO b", "d"),
            Statement::Changes(vec![id("d", "a"), id("d", "b")])
        );
        assert_eq!(read("CREATE UNIQUE INDEX `ON` ON t (a)", "d"), Statement::Changes(vec![id("d", "t")]));
        assert_eq!(read("CREATE TABLE IF NOT EXISTS t (a int)", "d"), Statement::Creates(vec![id("d", "t")]));
    }

    #[test]
    fn truncate_is_told_apart_and_the_unknown_concerns_all() {
        assert_eq!(read("TRUNCATE t", "d"), Statement::Truncate(id("d", "t")));
        assert_eq!(read("truncate table `x`.`t`", "d"), Statement::Truncate(id("x", "t")));
        assert_eq!(read("FROBNICATE TABLE t", "d"), Statement::Unknown);
        assert_eq!(read("DROP DATABASE x", "d"), Statement::Unknown);
        assert_eq!(read("CREATE OR REPLACE VIEW v AS SELECT 1", "d"), Statement::Other);
        assert_eq!(read("INSERT INTO t VALUES (1)", "d"), Statement::Rows(Some(id("d", "t"))));
    }
}
