//! The operators of the demo: Arrow batches in, Arrow batches out.
//!
//! The one thing to know: they are plain functions, so that the raylet's workers, the plain run that
//! checks them and the plain processes that they are measured against all run the same ones. Each
//! reads its input where it lies, and makes its output's columns once. They must not know who calls
//! them, nor keep anything between calls: the order of batches must not matter.
//!
//! | batch | columns |
//! | --- | --- |
//! | documents, as read | `file`, `copy`, `path`, `text` |
//! | documents | `file`, `copy`, `text` |
//! | verdict | `keep`, a row for each document |
//! | passages | `file`, `copy`, `offset`, `text` |
//! | words | `word`, `count` |

mod filter;
mod markup;
mod normalise;
mod passages;
mod words;

pub(crate) use filter::{filter, kept_documents};
pub(crate) use markup::strip_markup;
pub(crate) use normalise::normalise;
pub(crate) use passages::{HASH_BYTES, drop_rows, is_set, slice};
pub(crate) use words::{WORDS_MERGED_AT_ONCE, count_words, merge_words};

use arrow_array::types::ArrowPrimitiveType;
use arrow_array::{Array, ArrayRef, LargeStringArray, PrimitiveArray, RecordBatch};
use arrow_buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::{ArrowError, DataType, Field, Schema};
use std::sync::Arc;

/// A batch is not what an operator works on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum OperatorError {
    /// A column is missing, or of another type.
    #[error("a batch of {columns} columns has no column {name:?} of type {data_type}")]
    Column {
        /// Which one.
        name: &'static str,
        /// What it should be.
        data_type: DataType,
        /// How many there are.
        columns: usize,
    },
    /// Two inputs that belong together are of different lengths.
    #[error("{verdicts} verdicts came for {rows} rows")]
    Verdicts {
        /// Rows to decide on.
        rows: usize,
        /// Decisions.
        verdicts: usize,
    },
    /// Arrow refused what was made.
    #[error(transparent)]
    Arrow(#[from] ArrowError),
}

/// Texts being written one after the other, as the column they become.
pub(crate) struct Texts {
    values: String,
    ends: Vec<i64>,
}

impl Texts {
    /// Room for this much without moving.
    pub(crate) fn with_capacity(rows: usize, bytes: usize) -> Texts {
        let mut ends = Vec::with_capacity(rows + 1);
        ends.push(0);
        Texts { values: String::with_capacity(bytes), ends }
    }

    /// The end of the text being written: append to it.
    pub(crate) fn open(&mut self) -> &mut String {
        &mut self.values
    }

    /// Bytes of the text being written, so far.
    pub(crate) fn open_bytes(&self) -> usize {
        self.values.len() - self.ends.last().map_or(0, |end| *end as usize)
    }

    /// The text being written is complete.
    pub(crate) fn close(&mut self) {
        self.ends.push(self.values.len() as i64);
    }

    /// The column.
    pub(crate) fn finish(self) -> Result<ArrayRef, OperatorError> {
        let offsets = OffsetBuffer::new(ScalarBuffer::from(self.ends));
        Ok(Arc::new(LargeStringArray::try_new(offsets, Buffer::from_vec(self.values.into_bytes()), None)?))
    }
}

/// A column of numbers.
pub(crate) fn numbers<T: ArrowPrimitiveType>(values: Vec<T::Native>) -> ArrayRef {
    Arc::new(PrimitiveArray::<T>::new(ScalarBuffer::from(values), None))
}

/// A batch without nulls.
pub(crate) fn batch(columns: Vec<(&'static str, ArrayRef)>) -> Result<RecordBatch, OperatorError> {
    let field = |(name, column): &(&'static str, ArrayRef)| Field::new(*name, column.data_type().clone(), false);
    let schema = Schema::new(columns.iter().map(field).collect::<Vec<_>>());
    let columns = columns.into_iter().map(|(_, column)| column).collect();
    Ok(RecordBatch::try_new(Arc::new(schema), columns)?)
}

/// The column of this name and type.
pub(crate) fn column<'a, A: Array + 'static>(
    batch: &'a RecordBatch,
    name: &'static str,
    data_type: DataType,
) -> Result<&'a A, OperatorError> {
    let found = batch.column_by_name(name).and_then(|column| column.as_any().downcast_ref());
    found.ok_or(OperatorError::Column { name, data_type, columns: batch.num_columns() })
}

/// A column of texts.
pub(crate) fn texts<'a>(batch: &'a RecordBatch, name: &'static str) -> Result<&'a LargeStringArray, OperatorError> {
    column(batch, name, DataType::LargeUtf8)
}

/// The values of a column of numbers.
pub(crate) fn values<'a, T: ArrowPrimitiveType>(
    batch: &'a RecordBatch,
    name: &'static str,
) -> Result<&'a [T::Native], OperatorError> {
    Ok(column::<PrimitiveArray<T>>(batch, name, T::DATA_TYPE)?.values())
}

/// The column as it is, for a batch that shares it.
fn shared(batch: &RecordBatch, name: &'static str, data_type: DataType) -> Result<ArrayRef, OperatorError> {
    let columns = batch.num_columns();
    batch.column_by_name(name).cloned().ok_or(OperatorError::Column { name, data_type, columns })
}

/// The same documents with other texts: `rewrite` appends each one's new text.
fn rewrite_texts(
    documents: &RecordBatch,
    mut rewrite: impl FnMut(usize, &str, &mut String),
) -> Result<RecordBatch, OperatorError> {
    let old = texts(documents, "text")?;
    let mut new = Texts::with_capacity(old.len(), text_bytes(old));
    for (row, text) in old.iter().flatten().enumerate() {
        rewrite(row, text, new.open());
        new.close();
    }
    batch(vec![
        ("file", shared(documents, "file", DataType::Int32)?),
        ("copy", shared(documents, "copy", DataType::Int32)?),
        ("text", new.finish()?),
    ])
}

/// Bytes of all texts of a column.
pub(crate) fn text_bytes(texts: &LargeStringArray) -> usize {
    match texts.value_offsets() {
        [first, .., last] => (last - first) as usize,
        _ => 0,
    }
}

/// Bytes of a batch's values, offsets and validity: what it takes to store them.
pub(crate) fn bytes_of(batch: &RecordBatch) -> u64 {
    let bytes = |column: &ArrayRef| column.to_data().get_slice_memory_size().unwrap_or_default();
    batch.columns().iter().map(|column| bytes(column) as u64).sum()
}

#[cfg(test)]
pub(crate) fn documents(texts: &[(&str, &str)]) -> RecordBatch {
    use arrow_array::types::Int32Type;
    let rows = texts.len() as i32;
    let column = |values: Vec<&str>| Arc::new(LargeStringArray::from(values)) as ArrayRef;
    batch(vec![
        ("file", numbers::<Int32Type>((0..rows).collect())),
        ("copy", numbers::<Int32Type>(vec![0; texts.len()])),
        ("path", column(texts.iter().map(|(path, _)| *path).collect())),
        ("text", column(texts.iter().map(|(_, text)| *text).collect())),
    ])
    .unwrap()
}
