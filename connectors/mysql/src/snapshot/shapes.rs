//! What a table looks like now, for planning how it is read.

use crate::client::Client;
use crate::schema::Timeline;
use crate::snapshot::plan::Plan;
use async_trait::async_trait;
use caudal_core::{Result, TableId};
use std::sync::Arc;

/// A table as it is now.
pub(crate) enum Shape {
    /// There is none.
    Gone,
    /// It was changed, and the stream has yet to bring that.
    Ahead,
    /// Its rows can be told in the shape that the stream is at.
    Known(Arc<Plan>),
}

/// Who knows.
#[async_trait]
pub(crate) trait Shapes: Send {
    /// The shape of one table.
    async fn shape(&mut self, id: &TableId) -> Result<Shape>;
}

/// The timeline, and the connection to ask by.
pub(crate) struct Asked<'a>(pub(crate) &'a mut Timeline, pub(crate) &'a mut Client);

#[async_trait]
impl Shapes for Asked<'_> {
    async fn shape(&mut self, id: &TableId) -> Result<Shape> {
        Ok(match self.0.refresh(self.1, id).await? {
            None => Shape::Gone,
            Some((_, false)) => Shape::Ahead,
            Some((known, true)) => Shape::Known(Arc::new(Plan::new(&known, self.0.selection())?)),
        })
    }
}
