//! Many dictionaries become one: the file format allows one per field for all batches.
//!
//! The one thing to know: what happens depends on how the batches' dictionaries differ.
//!
//! | they are | then |
//! | --- | --- |
//! | the same array, or equal, or a prefix of the longest | the longest is written, keys stay |
//! | different | they are concatenated, keys of later batches grow by what stands before |
//! | too many for the key type | flat values are written once each, keys go through a table |
//! | still too many | an error that says how many |
//!
//! Dictionaries are numbered as `frame.rs` numbers them: inner ones first. Nothing here writes.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_data::ArrayData;
use arrow_data::transform::MutableArrayData;
use arrow_schema::{ArrowError, DataType, Schema};

use super::EncodeError;
use super::piece::Renumber;
use super::schema::{children, dictionary_count, fixed_width};

/// One dictionary of the file.
#[derive(Debug)]
pub(super) struct Dictionary {
    pub(super) values: ArrayData,
    /// How many dictionaries there are inside the values; they have the ids just below.
    pub(super) inner_count: usize,
    /// Per chunk (batch, or 0 for the values of another dictionary), what happens to its keys.
    pub(super) renumber: Vec<Renumber>,
}

/// Finds the dictionaries of all columns and makes each one.
pub(super) fn collect(schema: &Schema, batches: &[RecordBatch]) -> Result<Vec<Dictionary>, EncodeError> {
    let mut found = Vec::new();
    for (i, field) in schema.fields().iter().enumerate() {
        if dictionary_count(field.data_type()) > 0 {
            let chunks = batches.iter().map(|batch| batch.column(i).to_data()).collect();
            visit(field.data_type(), chunks, &mut found)?;
        }
    }
    Ok(found)
}

fn visit(data_type: &DataType, chunks: Vec<ArrayData>, found: &mut Vec<Dictionary>) -> Result<(), EncodeError> {
    if let DataType::Dictionary(key, values) = data_type {
        return visit_dictionary(key, values, &chunks, found);
    }
    for (i, child) in children(data_type).into_iter().enumerate() {
        if dictionary_count(child) > 0 {
            let chunks = chunks.iter().map(|chunk| chunk.child_data()[i].clone()).collect();
            visit(child, chunks, found)?;
        }
    }
    Ok(())
}

fn visit_dictionary(
    key: &DataType,
    value_type: &DataType,
    chunks: &[ArrayData],
    found: &mut Vec<Dictionary>,
) -> Result<(), EncodeError> {
    let inner_count = dictionary_count(value_type);
    let number = found.len() + inner_count;
    let chunks: Vec<&ArrayData> = chunks.iter().map(|chunk| &chunk.child_data()[0]).collect();
    let (values, renumber) = unify(number, key, value_type, &chunks)?;
    visit(value_type, vec![values.clone()], found)?;
    found.push(Dictionary { values, inner_count, renumber });
    Ok(())
}

fn unify(
    number: usize,
    key: &DataType,
    value_type: &DataType,
    chunks: &[&ArrayData],
) -> Result<(ArrayData, Vec<Renumber>), EncodeError> {
    let Some(longest) = chunks.iter().max_by_key(|chunk| chunk.len()) else {
        return Ok((ArrayData::new_empty(value_type), Vec::new()));
    };
    if chunks.iter().all(|chunk| is_prefix(chunk, longest)) {
        return Ok(((*longest).clone(), vec![Renumber::Same; chunks.len()]));
    }
    let (parts, part_of_chunk) = distinct(chunks);
    let values: usize = parts.iter().map(|part| part.len()).sum();
    let values_max = key_count_max(key);
    if values <= values_max {
        let merged = concatenate(&parts);
        let merged = merged.map_err(|source| EncodeError::DictionaryMerge { dictionary: number, source })?;
        return Ok((merged, additions(&parts, &part_of_chunk)));
    }
    let (merged, tables) = deduplicate(&parts)
        .ok_or(EncodeError::DictionaryTooLarge { dictionary: number, values, values_max })?
        .map_err(|source| EncodeError::DictionaryMerge { dictionary: number, source })?;
    if merged.len() > values_max {
        let values = merged.len();
        return Err(EncodeError::DictionaryTooLarge { dictionary: number, values, values_max });
    }
    let renumber = part_of_chunk.iter().map(|&part| Renumber::Table(tables[part].clone()));
    Ok((merged, renumber.collect()))
}

fn is_prefix(chunk: &ArrayData, longest: &ArrayData) -> bool {
    chunk.ptr_eq(longest) || longest.slice(0, chunk.len()) == *chunk
}

/// The different dictionaries, and for each chunk which of them it uses.
fn distinct<'a>(chunks: &[&'a ArrayData]) -> (Vec<&'a ArrayData>, Vec<usize>) {
    let mut parts: Vec<&ArrayData> = Vec::new();
    let mut part_of_chunk = Vec::with_capacity(chunks.len());
    for chunk in chunks {
        // Only neighbours are compared by value: all pairs would be quadratic.
        let same = parts.iter().position(|part| part.ptr_eq(chunk));
        let same = same.or_else(|| parts.last().filter(|part| **part == *chunk).map(|_| parts.len() - 1));
        part_of_chunk.push(same.unwrap_or(parts.len()));
        if same.is_none() {
            parts.push(chunk);
        }
    }
    (parts, part_of_chunk)
}

fn additions(parts: &[&ArrayData], part_of_chunk: &[usize]) -> Vec<Renumber> {
    let mut end = 0;
    let mut firsts = Vec::with_capacity(parts.len());
    for part in parts {
        firsts.push(end);
        end += part.len() as u64;
    }
    let renumber = |&part: &usize| match firsts[part] {
        0 => Renumber::Same,
        first => Renumber::Add(first),
    };
    part_of_chunk.iter().map(renumber).collect()
}

/// All values of all parts, copied.
pub(super) fn concatenate(parts: &[&ArrayData]) -> Result<ArrayData, ArrowError> {
    let values = parts.iter().map(|part| part.len()).sum();
    let mut merged = MutableArrayData::new(parts.to_vec(), false, values);
    for (i, part) in parts.iter().enumerate() {
        merged.try_extend(i, 0, part.len())?;
    }
    Ok(merged.freeze())
}

type Deduplicated = Result<(ArrayData, Vec<Arc<[u64]>>), ArrowError>;

/// Each different value once, and for each part a table from its keys to the common ones. `None`
/// if values of this type cannot be compared as bytes.
fn deduplicate(parts: &[&ArrayData]) -> Option<Deduplicated> {
    let mut numbers: HashMap<Option<&[u8]>, u64> = HashMap::new();
    let mut firsts: Vec<(usize, usize)> = Vec::new();
    let mut tables: Vec<Arc<[u64]>> = Vec::with_capacity(parts.len());
    for (i, part) in parts.iter().enumerate() {
        let mut table = Vec::with_capacity(part.len());
        for row in 0..part.len() {
            let value = if part.is_null(row) { None } else { Some(value_bytes(part, row)?) };
            let number = *numbers.entry(value).or_insert_with(|| {
                firsts.push((i, row));
                firsts.len() as u64 - 1
            });
            table.push(number);
        }
        tables.push(table.into());
    }
    let mut merged = MutableArrayData::new(parts.to_vec(), false, firsts.len());
    for (part, row) in firsts {
        if let Err(error) = merged.try_extend(part, row, row + 1) {
            return Some(Err(error));
        }
    }
    Some(Ok((merged.freeze(), tables)))
}

fn value_bytes(data: &ArrayData, row: usize) -> Option<&[u8]> {
    let at = data.offset() + row;
    let buffers = data.buffers();
    match data.data_type() {
        DataType::Utf8 | DataType::Binary => {
            let (start, end) = (number::<4>(&buffers[0], at)?, number::<4>(&buffers[0], at + 1)?);
            buffers[1].get(start..end)
        }
        DataType::LargeUtf8 | DataType::LargeBinary => {
            let (start, end) = (number::<8>(&buffers[0], at)?, number::<8>(&buffers[0], at + 1)?);
            buffers[1].get(start..end)
        }
        other => {
            let (width, _) = fixed_width(other)?;
            buffers[0].get(at * width..(at + 1) * width)
        }
    }
}

fn number<const WIDTH: usize>(bytes: &[u8], at: usize) -> Option<usize> {
    let mut word = [0; 8];
    word[..WIDTH].copy_from_slice(bytes.get(at * WIDTH..(at + 1) * WIDTH)?);
    usize::try_from(u64::from_le_bytes(word)).ok()
}

/// How many values keys of this type can name.
fn key_count_max(key: &DataType) -> usize {
    match key {
        DataType::Int8 => 1 << 7,
        DataType::UInt8 => 1 << 8,
        DataType::Int16 => 1 << 15,
        DataType::UInt16 => 1 << 16,
        DataType::Int32 => 1 << 31,
        DataType::UInt32 => 1 << 32,
        _ => i64::MAX as usize,
    }
}
