//! Whether a table that is there takes the rows.

use super::Shaper;
use crate::catalog::Relation;
use crate::config::Consistency;
use crate::plan::takes;
use crate::quote::{ident, qualified};
use crate::types::{JsonAs, of};
use caudal_core::{Error, Result, TableSchema};

impl Shaper<'_> {
    /// Whether rows of the shape can be written to the table, whose columns have the names `names`: everything that does not
    /// fit, in one message.
    pub(super) fn check_present(
        &self,
        relation: &Relation,
        names: &[String],
        absent: &[usize],
        place: (&str, &str),
    ) -> Result<()> {
        if relation.kind != "r" && relation.kind != "p" {
            return Err(self.misfit(place, &["it is no table".to_owned()], None));
        }
        let problems = misfits(self.schema, relation, names, (self.connection.config().json, absent));
        if !problems.is_empty() {
            return Err(self.misfit(place, &problems, None));
        }
        let key: Vec<&str> = self.schema.key.iter().map(|k| names[*k as usize].as_str()).collect();
        if !key.is_empty() && !relation.has_key(&key) {
            let columns = key.iter().map(|k| ident(k)).collect::<Vec<_>>().join(", ");
            let fix = format!("ALTER TABLE {} ADD PRIMARY KEY ({columns})", qualified(place.0, place.1));
            let problem = format!("no primary key or unique index over just ({columns})");
            return Err(self.misfit(place, &[problem], Some(fix)));
        }
        Ok(())
    }

    fn misfit(&self, (schema, table): (&str, &str), problems: &[String], fix: Option<String>) -> Error {
        let config = self.connection.config();
        Error::config(format!(
            "table {schema}.{table} has another shape than {}: {}",
            self.schema.id,
            problems.join("; ")
        ))
        .field(config.field("rename"))
        .hint(fix.unwrap_or_else(|| {
            format!(
                "change those columns, move the table away, or write elsewhere: rename: {{ {}: … }}",
                self.schema.id
            )
        }))
    }

    /// Constraints that no order of writing could hold.
    pub(super) fn check_constraints(&self, relation: &Relation, place: (&str, &str)) -> Result<()> {
        let config = self.connection.config();
        let by_key = config.consistency == Consistency::Key;
        let Some(reference) = relation.foreign_keys.iter().find(|f| by_key || !f.deferrable) else {
            return Ok(());
        };
        let name = ident(&reference.name);
        let target = qualified(place.0, place.1);
        let error = Error::config(format!(
            "foreign key {name} of {}.{} cannot be held: {}",
            place.0,
            place.1,
            if by_key {
                "with consistency: key, rows arrive in any order"
            } else {
                "it is checked at each statement"
            }
        ));
        Err(if by_key {
            error
                .hint(format!("ALTER TABLE {target} DROP CONSTRAINT {name}, or use consistency: transaction"))
        } else {
            error.hint(format!("ALTER TABLE {target} ALTER CONSTRAINT {name} DEFERRABLE INITIALLY DEFERRED"))
        })
    }
}

/// What keeps rows of a shape out of a table; `absent` columns are not written.
pub(crate) fn misfits(
    schema: &TableSchema,
    relation: &Relation,
    names: &[String],
    (json, absent): (JsonAs, &[usize]),
) -> Vec<String> {
    let mut problems = Vec::new();
    for (at, (column, name)) in schema.columns.iter().zip(names).enumerate() {
        let wanted = of(&column.ty, json).sql;
        match relation.column(name) {
            _ if absent.contains(&at) => {}
            None => problems.push(format!("column {name} ({wanted}) is missing")),
            Some(there) if there.generated => {}
            Some(there) if !takes(there, column, json) => {
                problems.push(format!("column {name} is {}, which does not hold every {wanted}", there.sql));
            }
            Some(there) if there.not_null && column.nullable && !schema.key.contains(&(at as u32)) => {
                problems.push(format!("column {name} forbids NULL, the source allows it"));
            }
            Some(_) => {}
        }
    }
    for there in &relation.columns {
        if there.not_null && !there.has_default && !there.generated && !names.contains(&there.name) {
            problems
                .push(format!("column {} is not in the source, forbids NULL and has no default", there.name));
        }
    }
    problems
}
