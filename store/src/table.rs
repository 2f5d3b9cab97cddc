//! Arrow tables as objects: written straight into shared memory, read in place.
//!
//! The one thing to know: the bytes of such an object are an Arrow IPC file, so that any Arrow
//! implementation reads the mapping. What this library wrote is not validated again; what somebody
//! else wrote is validated by its first reader, which marks the object.

use crate::arrow::{BatchBuilder, BatchPlan, BuildError, Layout, Table, decode};
use crate::error::{CreateError, GetError};
use crate::make::ObjectWriter;
use crate::object::{Encoding, Object, ObjectRef};
use crate::store::{CreateOptions, Store};
use arrow_array::RecordBatch;
use arrow_buffer::Buffer;
use arrow_schema::SchemaRef;

/// Building a batch in place failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildBatchError {
    /// No object could be made for it.
    #[error(transparent)]
    Create(#[from] Box<CreateError>),
    /// The columns were not filled as planned; the object was aborted.
    #[error(transparent)]
    Build(#[from] BuildError),
}

impl Store {
    /// Puts one batch.
    pub fn put_batch(&self, batch: &RecordBatch) -> Result<ObjectRef, Box<CreateError>> {
        self.put_table(&batch.schema(), std::slice::from_ref(batch), &CreateOptions::default())
    }

    /// Puts a table: every buffer is copied once, to where it stays; slices are written compactly.
    pub fn put_table(
        &self,
        schema: &SchemaRef,
        batches: &[RecordBatch],
        options: &CreateOptions,
    ) -> Result<ObjectRef, Box<CreateError>> {
        let layout = Layout::plan(schema, batches).map_err(CreateError::from)?;
        let mut writer = self.create_arrow(layout.bytes() as u64, options)?;
        layout.write(&mut writer).map_err(CreateError::from)?;
        writer.mark_validated();
        Ok(writer.seal())
    }

    /// Lays a batch of known shape out in a new object and lets `fill` write its columns in place:
    /// no copy is made. Fails, and leaves nothing, if the columns do not fit the plan.
    pub fn create_batch(
        &self,
        plan: BatchPlan,
        options: &CreateOptions,
        fill: impl FnOnce(&mut BatchBuilder<'_>) -> Result<(), BuildError>,
    ) -> Result<ObjectRef, BuildBatchError> {
        let mut writer = self.create_arrow(plan.bytes()? as u64, options)?;
        let mut builder = BatchBuilder::new(plan, &mut writer)?;
        fill(&mut builder)?;
        builder.finish()?;
        writer.mark_validated();
        Ok(writer.seal())
    }

    fn create_arrow(&self, bytes: u64, options: &CreateOptions) -> Result<ObjectWriter, Box<CreateError>> {
        self.create(bytes, &CreateOptions { encoding: Encoding::Arrow, ..options.clone() })
    }

    /// The table in an object: all its buffers point into shared memory and own the pin together.
    pub fn get_table(&self, object: &ObjectRef) -> Result<Table, Box<GetError>> {
        self.get(object)?.into_table()
    }
}

impl Object {
    /// The bytes as the table they encode; nothing is copied.
    pub fn into_table(self) -> Result<Table, Box<GetError>> {
        let (id, handle, encoding) = (self.id(), self.handle(), self.encoding());
        if encoding != Encoding::Arrow {
            return Err(Box::new(GetError::WrongEncoding { id, found: encoding }));
        }
        let validated = self.inner().is_validated(handle);
        let store = self.store();
        let table =
            decode(Buffer::from(self.into_bytes()), validated).map_err(|source| GetError::Decode { id, source })?;
        if !validated {
            store.inner.mark_validated(handle);
        }
        // The pin goes with the table's buffers.
        Ok(table)
    }
}
