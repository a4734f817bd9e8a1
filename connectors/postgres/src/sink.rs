//! The sink: checks, and opens writers.

use crate::after::After;
use crate::client::{Connection, Doing};
use crate::compare::Side;
use crate::config::{Consistency, Resolved};
use crate::prepare::Options;
use crate::project::Projector;
use crate::rebuild::PgRebuild;
use crate::state::State;
use crate::writer::PgWriter;
use async_trait::async_trait;
use caudal_core::compare::SinkSide;
use caudal_core::rebuild::Rebuild;
use caudal_core::{Check, Result, Selected, Sink, Writer};
use std::sync::Arc;

/// Rows of a table in one batch from which on they go through COPY and the stage.
const COPY_ROWS: usize = 5_000;
/// The same where all rows are new and go straight into the table.
const COPY_NEW_ROWS: usize = 500;

/// How rows of the sink are prepared.
pub(crate) fn options(config: &Resolved) -> Options {
    Options {
        json: config.json,
        projector: Arc::new(Projector::new(config.tables.clone())),
        copy_rows: COPY_ROWS,
        copy_new_rows: COPY_NEW_ROWS,
    }
}

/// A database to write to.
pub(crate) struct PgSink {
    pub(crate) config: Arc<Resolved>,
}

#[async_trait]
impl Sink for PgSink {
    async fn check(&self) -> Vec<Check> {
        crate::check::run(&self.config).await
    }

    async fn open(&self) -> Result<Box<dyn Writer>> {
        let connection = Connection::open(&self.config).await?;
        crate::check::refuse_old(&connection).await?;
        State::new(&self.config.state_schema).create(&connection).await?;
        crate::rebuild::drop_expired(&connection).await.doing(&self.config, "drop tables that were kept")?;
        let options = options(&self.config);
        let after = After::start(&connection, &self.config).await?;
        Ok(Box::new(PgWriter::new(connection, Arc::clone(&self.config), options).with(after)))
    }

    async fn side(&self) -> Result<Option<Box<dyn SinkSide>>> {
        Ok(Some(Box::new(Side::open(&self.config).await?)))
    }

    async fn rebuild(&self) -> Result<Option<Box<dyn Rebuild>>> {
        Ok(Some(Box::new(PgRebuild::open(&self.config).await?)))
    }

    fn selected(&self) -> Option<Selected> {
        let projector = Arc::new(Projector::new(self.config.tables.clone()));
        Some(Selected::new(move |schema| projector.selected(schema)))
    }

    fn whole_transactions(&self) -> bool {
        self.config.consistency == Consistency::Transaction
    }
}
