//! What the job leaves: an Arrow IPC file of passages, and the findings that go with it.
//!
//! The one thing to know: the file's bytes follow from the corpus alone: same passages, in the
//! corpus' order, in the batches that they were found in. So two runs are compared by a hash. Paths
//! are a dictionary, written once. This file must not know who found the passages.

use super::corpus::{Corpus, Portioned};
use super::operators::{OperatorError, text_bytes, texts, values};
use arrow_array::types::{Int32Type, UInt64Type};
use arrow_array::{DictionaryArray, Int32Array, LargeStringArray, RecordBatch};
use arrow_ipc::writer::FileWriter;
use arrow_schema::{ArrowError, DataType, Field, Schema};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::io::{self, Write};
use std::sync::Arc;

/// What was found; the same for every run on the same files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Findings {
    /// Files that are text; a copy's count again.
    pub(crate) documents: u64,
    /// Files that are not, or could not be read.
    pub(crate) files_skipped: u64,
    /// Bytes of all files.
    pub(crate) bytes_read: u64,
    /// Documents that are long enough and not mostly repetition.
    pub(crate) documents_kept: u64,
    /// Passages of these.
    pub(crate) passages: u64,
    /// Passages that no earlier one equals.
    pub(crate) passages_kept: u64,
    /// Bytes of text in these.
    pub(crate) text_bytes: u64,
    /// Words in these.
    pub(crate) words: u64,
    /// Different ones.
    pub(crate) distinct_words: u64,
}

impl Findings {
    /// Counts a portion.
    pub(crate) fn add_read(&mut self, read: &Portioned) {
        self.documents += read.documents.num_rows() as u64;
        self.files_skipped += read.skipped;
        self.bytes_read += read.bytes;
    }

    /// Counts the words of all passages.
    pub(crate) fn set_words(&mut self, words: &RecordBatch) -> Result<(), OperatorError> {
        self.words = values::<UInt64Type>(words, "count")?.iter().sum();
        self.distinct_words = words.num_rows() as u64;
        Ok(())
    }
}

/// The file being written.
pub(crate) struct PassageFile<W: Write> {
    writer: FileWriter<W>,
    schema: Arc<Schema>,
    paths: Arc<LargeStringArray>,
}

impl<W: Write> PassageFile<W> {
    /// Without a passage so far.
    pub(crate) fn new(corpus: &Corpus, out: W) -> Result<PassageFile<W>, ArrowError> {
        let path = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::LargeUtf8));
        let schema = Arc::new(Schema::new(vec![
            Field::new("path", path, false),
            Field::new("copy", DataType::Int32, false),
            Field::new("offset", DataType::Int64, false),
            Field::new("text", DataType::LargeUtf8, false),
        ]));
        let paths = Arc::new(LargeStringArray::from_iter_values(&corpus.paths));
        Ok(PassageFile { writer: FileWriter::try_new(out, &schema)?, schema, paths })
    }

    /// Appends the kept passages of the next batch, and counts them.
    pub(crate) fn write(&mut self, passages: &RecordBatch, findings: &mut Findings) -> Result<(), OperatorError> {
        findings.passages_kept += passages.num_rows() as u64;
        findings.text_bytes += text_bytes(texts(passages, "text")?) as u64;
        let files = Int32Array::new(
            super::operators::column::<Int32Array>(passages, "file", DataType::Int32)?.values().clone(),
            None,
        );
        let path = DictionaryArray::<Int32Type>::try_new(files, self.paths.clone())?;
        let same = |name| {
            passages.column_by_name(name).cloned().ok_or(OperatorError::Column {
                name,
                data_type: DataType::Null,
                columns: passages.num_columns(),
            })
        };
        let columns = vec![Arc::new(path) as _, same("copy")?, same("offset")?, same("text")?];
        Ok(self.writer.write(&RecordBatch::try_new(self.schema.clone(), columns)?)?)
    }

    /// Completes it.
    pub(crate) fn finish(mut self) -> Result<W, ArrowError> {
        self.writer.finish()?;
        self.writer.into_inner()
    }
}

/// The most frequent words; those of one count by the alphabet.
pub(crate) fn ranked(words: &RecordBatch, count: usize) -> Result<Vec<(String, u64)>, OperatorError> {
    let (texts, counts) = (texts(words, "word")?, values::<UInt64Type>(words, "count")?);
    let mut all: Vec<(u64, &str)> = counts.iter().copied().zip(texts.iter().flatten()).collect();
    let order = |left: &(u64, &str), right: &(u64, &str)| right.0.cmp(&left.0).then(left.1.cmp(right.1));
    if all.len() > count {
        all.select_nth_unstable_by(count, order);
        all.truncate(count);
    }
    all.sort_unstable_by(order);
    Ok(all.into_iter().map(|(count, word)| (word.to_owned(), count)).collect())
}

/// The SHA-256 of what is written to it.
#[derive(Default)]
pub(crate) struct Fingerprint(Sha256);

impl Fingerprint {
    /// In hexadecimal digits.
    pub(crate) fn digits(self) -> String {
        self.0.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl Write for Fingerprint {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
