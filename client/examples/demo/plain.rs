//! The same operators without a raylet: one batch after the other, in one thread.
//!
//! The one thing to know: it is what a run on workers is checked against, and, on a share of the
//! corpus, what each of the plain processes does that it is measured against. This file must not
//! share code with the job beyond the operators and the output.

use super::corpus::{Corpus, Portion};
use super::dedupe::Seen;
use super::operators::{count_words, drop_rows, filter, kept_documents, merge_words, normalise, slice, strip_markup};
use super::output::{Findings, PassageFile};
use arrow_array::RecordBatch;
use raylet_client::prelude::Result;
use std::io::Write;

/// The operators that need nothing but their batch.
pub(crate) fn map(documents: &RecordBatch, findings: &mut Findings) -> Result<(RecordBatch, Vec<u8>)> {
    let documents = normalise(&strip_markup(documents)?)?;
    let verdict = filter(&documents)?;
    findings.documents_kept += kept_documents(&verdict)? as u64;
    let (passages, hashes) = slice(&documents, &verdict)?;
    findings.passages += passages.num_rows() as u64;
    Ok((passages, hashes))
}

/// The whole job on some portions: what was found, and how often each word stands in it.
pub(crate) fn run<'a>(
    corpus: &Corpus,
    portions: impl Iterator<Item = &'a Portion>,
    out: impl Write,
) -> Result<(Findings, RecordBatch)> {
    let (mut findings, mut seen, mut words) = (Findings::default(), Seen::new(0, 1), Vec::new());
    let mut file = PassageFile::new(corpus, out)?;
    for (number, portion) in portions.enumerate() {
        let read = portion.read()?;
        findings.add_read(&read);
        let (passages, hashes) = map(&read.documents, &mut findings)?;
        let kept = drop_rows(&passages, &seen.first_bits(number as u32, &hashes))?;
        words.push(count_words(&kept)?);
        file.write(&kept, &mut findings)?;
    }
    file.finish()?.flush()?;
    let words = merge_words(&words.iter().collect::<Vec<_>>())?;
    findings.set_words(&words)?;
    Ok((findings, words))
}
