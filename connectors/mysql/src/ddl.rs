//! What a logged statement does to which tables. Not a parser of DDL: it reads as many words as it needs, and what it does not
//! know counts as the worst. So a statement that nobody has seen before costs a re-read at most, and never stops the stream.
//!
//! Most statements that change a table log no rows, though rows may change with them. [`Effect`] is the class of what
//! happens to rows that nobody is told of:
//!
//! | class | examples |
//! |---|---|
//! | metadata only | indexes, names, comments, a new column that is NULL in all rows, a wider type |
//! | rewrites values | a new column with a default or computed, another type or character set, a new key |
//! | removes or brings rows | DROP, TRUNCATE, EXCHANGE PARTITION, IMPORT TABLESPACE |
//! | unknown | treated as the last: the table is read again and compared |

mod alter;
mod column;
mod statement;
mod tokens;

pub(crate) use statement::{Alter, Create, Effect, Statement, read};
