//! The operators as remote functions, each with a receipt of what it did.
//!
//! The one thing to know: a receipt is a result of its own, of a few bytes: the driver waits for
//! receipts and passes the batches on by reference, unread. This file must not do work; the
//! operators do.

use super::corpus::Portion;
use super::operators::{self, WORDS_MERGED_AT_ONCE, bytes_of};
use arrow_array::RecordBatch;
use bytes::Bytes;
use raylet_client::prelude::*;
use serde::{Deserialize, Serialize};
use std::time::Instant;

/// What a task did.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, Value)]
pub(crate) struct Receipt {
    /// Of the worker.
    pub(crate) pid: u32,
    /// How long the operator took.
    pub(crate) ns: u64,
    /// Bytes of its arguments.
    pub(crate) bytes_in: u64,
    /// Bytes of its results.
    pub(crate) bytes_out: u64,
    /// Rows that it made; of a filter, rows that stay.
    pub(crate) rows: u64,
    /// Files that were no text.
    pub(crate) skipped: u64,
}

impl Receipt {
    /// For what started then.
    pub(crate) fn since(started: Instant, bytes_in: u64, bytes_out: u64, rows: usize) -> Receipt {
        let (pid, ns) = (std::process::id(), started.elapsed().as_nanos() as u64);
        Receipt { pid, ns, bytes_in, bytes_out, rows: rows as u64, skipped: 0 }
    }
}

/// Files as documents.
#[remote(num_returns = 2)]
pub(crate) fn read(portion: Portion) -> Result<(RecordBatch, Receipt)> {
    let started = Instant::now();
    let read = portion.read()?;
    let (rows, bytes_out) = (read.documents.num_rows(), bytes_of(&read.documents));
    let receipt = Receipt { skipped: read.skipped, ..Receipt::since(started, read.bytes, bytes_out, rows) };
    Ok((read.documents, receipt))
}

/// See [`operators::strip_markup`].
#[remote(num_returns = 2)]
pub(crate) fn strip_markup(documents: RecordBatch) -> Result<(RecordBatch, Receipt)> {
    one_batch(&[&documents], || operators::strip_markup(&documents))
}

/// See [`operators::normalise`].
#[remote(num_returns = 2)]
pub(crate) fn normalise(documents: RecordBatch) -> Result<(RecordBatch, Receipt)> {
    one_batch(&[&documents], || operators::normalise(&documents))
}

/// See [`operators::filter`].
#[remote(num_returns = 2)]
pub(crate) fn filter(documents: RecordBatch) -> Result<(RecordBatch, Receipt)> {
    let (verdict, receipt) = one_batch(&[&documents], || operators::filter(&documents))?;
    let kept = operators::kept_documents(&verdict)?;
    Ok((verdict, Receipt { rows: kept as u64, ..receipt }))
}

/// See [`operators::slice`].
#[remote(num_returns = 3)]
pub(crate) fn slice(documents: RecordBatch, verdict: RecordBatch) -> Result<(RecordBatch, Bytes, Receipt)> {
    let started = Instant::now();
    let (passages, hashes) = operators::slice(&documents, &verdict)?;
    let (bytes_in, bytes_out) = (bytes_of(&documents) + bytes_of(&verdict), bytes_of(&passages) + hashes.len() as u64);
    let receipt = Receipt::since(started, bytes_in, bytes_out, passages.num_rows());
    Ok((passages, Bytes::from(hashes), receipt))
}

/// See [`operators::drop_rows`].
#[remote(num_returns = 2)]
pub(crate) fn drop_duplicates(passages: RecordBatch, is_first: Bytes) -> Result<(RecordBatch, Receipt)> {
    one_batch(&[&passages], || operators::drop_rows(&passages, &is_first))
}

/// See [`operators::count_words`].
#[remote(num_returns = 2)]
pub(crate) fn count_words(passages: RecordBatch) -> Result<(RecordBatch, Receipt)> {
    one_batch(&[&passages], || operators::count_words(&passages))
}

/// See [`operators::merge_words`].
#[remote(num_returns = 2)]
pub(crate) fn merge_words(
    a: RecordBatch,
    b: RecordBatch,
    c: RecordBatch,
    d: RecordBatch,
) -> Result<(RecordBatch, Receipt)> {
    let parts: [&RecordBatch; WORDS_MERGED_AT_ONCE] = [&a, &b, &c, &d];
    one_batch(&parts, || operators::merge_words(&parts))
}

fn one_batch(
    arguments: &[&RecordBatch],
    operator: impl FnOnce() -> Result<RecordBatch, operators::OperatorError>,
) -> Result<(RecordBatch, Receipt)> {
    let started = Instant::now();
    let result = operator()?;
    let bytes_in = arguments.iter().map(|argument| bytes_of(argument)).sum();
    let receipt = Receipt::since(started, bytes_in, bytes_of(&result), result.num_rows());
    Ok((result, receipt))
}
