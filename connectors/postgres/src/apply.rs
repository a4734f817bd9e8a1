//! Writes prepared groups inside an open transaction.
//!
//! Order within a group: truncate, delete (deleted keys, and rows whose values of another unique index change, so that values may
//! move between rows), write whole rows in the order of their keys (all writers lock rows in one order), then partial updates.
//!
//! A row that is deleted to be written again is not what it was if others refer to it (`ON DELETE CASCADE`) or if the table has columns of its own.
//! There nothing is deleted: a value that is taken makes the group fail, and its events are written one after the other (`PgWriter::bisect`), in
//! whose order the source itself had no value twice.

use crate::client::{Connection, Failure, Param};
use crate::parameter::{Field, borrow};
use crate::plan::{From, Plan};
use crate::prepare::{Columns, Group, Patch, Rows, Step};
use crate::shape::Shaper;
use crate::state::State;
use crate::sweep::Collecting;
use bytes::Bytes;
use tokio_postgres::types::{ToSql, Type};

/// What COPY straight into a table has cost and spared so far: it is tried again after a pause that doubles with each conflict.
#[derive(Debug, Default)]
pub(crate) struct Optimism {
    pause: u32,
    left: u32,
}

impl Optimism {
    fn may_try(&mut self) -> bool {
        if self.left == 0 {
            return true;
        }
        self.left -= 1;
        false
    }

    fn failed(&mut self) {
        self.pause = (self.pause * 2).clamp(4, 1024);
        self.left = self.pause;
    }
}

/// Writes the groups of one table.
pub(crate) struct Applier<'a> {
    pub(crate) connection: &'a Connection,
    pub(crate) state: &'a State,
    pub(crate) plan: &'a Plan,
    pub(crate) staged: &'a mut bool,
    pub(crate) optimism: &'a mut Optimism,
    /// If the table is being swept.
    pub(crate) collecting: Option<Collecting>,
}

impl Applier<'_> {
    /// Writes a group.
    pub(crate) async fn apply(&mut self, group: &Group) -> Result<(), Failure> {
        if let Some(at_us) = group.truncate {
            self.connection.batch(&self.plan.truncate(at_us)).await?;
            if let Some(collecting) = &self.collecting {
                self.connection.batch(&format!("TRUNCATE {}", collecting.keys)).await?;
            }
        }
        if group.schema.key.is_empty() {
            return self.steps(&group.steps).await;
        }
        self.delete(&group.deletes).await?;
        self.upsert(&group.upserts, group.new_rows).await?;
        for patch in &group.patches {
            self.patch(patch).await?;
        }
        Ok(())
    }

    async fn delete(&self, keys: &Columns) -> Result<(), Failure> {
        if keys.len > 0 {
            let arrays = keys.arrays();
            self.connection.execute(&self.plan.delete(), &borrow(&arrays)).await?;
            if let Some(collecting) = &self.collecting {
                self.connection.execute(&self.plan.forget(&collecting.keys), &borrow(&arrays)).await?;
            }
        }
        Ok(())
    }

    async fn upsert(&mut self, rows: &Rows, new_rows: bool) -> Result<(), Failure> {
        if rows.len() == 0 {
            return Ok(());
        }
        match rows {
            Rows::Arrays(columns) => {
                let arrays = columns.arrays();
                self.write_from(From::Arrays, &borrow(&arrays)).await
            }
            Rows::Copy(bytes, _) => {
                if new_rows && self.copied_directly(bytes).await? {
                    return Ok(());
                }
                self.stage(bytes).await?;
                self.write_from(From::Stage, &[]).await
            }
        }
    }

    /// Notes the keys of a group's whole rows as collected, and writes nothing else.
    pub(crate) async fn collect(&mut self, group: &Group) -> Result<(), Failure> {
        let Some(collecting) = self.collecting.clone() else { return Ok(()) };
        match &group.upserts {
            Rows::Arrays(columns) if columns.len > 0 => {
                let arrays = columns.arrays();
                let sql = self.plan.collect(From::Arrays, &collecting.keys);
                self.connection.execute(&sql, &borrow(&arrays)).await?;
            }
            Rows::Arrays(_) => {}
            Rows::Copy(bytes, _) => {
                self.stage(bytes).await?;
                self.connection.execute(&self.plan.collect(From::Stage, &collecting.keys), &[]).await?;
            }
        }
        Ok(())
    }

    async fn write_from(&self, from: From, params: &[Param<'_>]) -> Result<(), Failure> {
        if let Some(Collecting { keys, ordered }) = &self.collecting {
            for sql in self.plan.evict(from, keys, *ordered) {
                self.connection.execute(&sql, params).await?;
            }
            self.connection.execute(&self.plan.collect(from, keys), params).await?;
        }
        if let Some(sql) = self.plan.make_room(from) {
            self.connection.execute(&sql, params).await?;
        }
        self.connection.execute(&self.plan.upsert(from), params).await?;
        if self.plan.is_history()
            && let Some(sql) = self.plan.close(from)
        {
            self.connection.execute(&sql, params).await?;
        }
        Ok(())
    }

    /// New rows straight into the table: as good as an upsert if no key is there yet, which the unique index tells.
    async fn copied_directly(&mut self, rows: &Bytes) -> Result<bool, Failure> {
        if !self.plan.direct || self.collecting.is_some() || !self.optimism.may_try() {
            return Ok(false);
        }
        self.connection.batch("SAVEPOINT caudal_copy").await?;
        match self.connection.copy(&self.plan.copy_direct(), rows).await {
            Ok(_) => {
                self.connection.batch("RELEASE caudal_copy").await?;
                Ok(true)
            }
            Err(failure) if failure.is_unique_violation() => {
                self.optimism.failed();
                self.connection.batch("ROLLBACK TO caudal_copy; RELEASE caudal_copy").await?;
                Ok(false)
            }
            Err(failure) => Err(failure),
        }
    }

    async fn stage(&mut self, rows: &Bytes) -> Result<(), Failure> {
        if !*self.staged {
            Shaper::stage(self.connection, self.state, self.plan).await?;
            *self.staged = true;
        }
        self.connection.batch(&format!("TRUNCATE {}", self.plan.stage)).await?;
        self.connection.copy(&self.plan.copy_stage(), rows).await?;
        Ok(())
    }

    async fn patch(&self, patch: &Patch) -> Result<(), Failure> {
        if let Some(sql) = self.plan.patch(&patch.present) {
            self.connection.execute(&sql, &borrow(&patch.rows.arrays())).await?;
        }
        Ok(())
    }

    /// The steps of a table without a key.
    async fn steps(&mut self, steps: &[Step]) -> Result<(), Failure> {
        for step in steps {
            match step {
                Step::Insert(Rows::Arrays(columns)) => {
                    let sql = self.plan.insert(From::Arrays);
                    self.connection.execute(&sql, &borrow(&columns.arrays())).await?;
                }
                Step::Insert(Rows::Copy(bytes, _)) if self.plan.direct => {
                    self.connection.copy(&self.plan.copy_direct(), bytes).await?;
                }
                Step::Insert(Rows::Copy(bytes, _)) => {
                    self.stage(bytes).await?;
                    self.connection.execute(&self.plan.insert(From::Stage), &[]).await?;
                }
                Step::Remove(fields) => self.remove(fields).await?,
            }
        }
        Ok(())
    }

    async fn remove(&self, fields: &[Option<Vec<u8>>]) -> Result<(), Failure> {
        let present: Vec<Option<bool>> = fields
            .iter()
            .zip(&self.plan.columns)
            .map(|(field, column)| {
                let field = field.as_ref().filter(|_| !column.is_absent())?;
                Some(!field.starts_with(&[255; 4]))
            })
            .collect();
        let values: Vec<(Field<'_>, Type)> = fields
            .iter()
            .zip(&present)
            .zip(&self.plan.columns)
            .filter(|((_, there), _)| **there == Some(true))
            .filter_map(|((field, _), column)| field.as_ref().map(|f| (Field(f), column.wire.element())))
            .collect();
        let params: Vec<Param<'_>> =
            values.iter().map(|(value, ty)| (value as &(dyn ToSql + Sync), ty.clone())).collect();
        self.connection.execute(&self.plan.remove(&present), &params).await?;
        Ok(())
    }
}
