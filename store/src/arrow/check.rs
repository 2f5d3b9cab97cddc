//! Do the values of one array keep Arrow's rules? Asked once per array, children first.
//!
//! The one thing to know: the decoder has already checked everything about lengths, so this looks
//! at values only: offsets, UTF-8, keys, run ends, type ids, nulls. Where `ArrayData`'s own
//! validation could panic, allocate or take quadratic time on hostile bytes, we do it ourselves.
//! Nothing here trusts a length that no buffer backs.

use arrow_buffer::{ArrowNativeType, Buffer, ScalarBuffer};
use arrow_data::{ArrayData, validate_binary_view};
use arrow_schema::{ArrowError, DataType};

use super::DecodeError;

/// Views that overlap in a buffer that is not UTF-8 throughout are read one by one; together they
/// may be this many times as long as the buffers.
const OVERLAP_MAX: usize = 8;

/// Checks the values of this array, not those of its children.
pub(super) fn check_values(data: &ArrayData) -> Result<(), DecodeError> {
    match data.data_type() {
        DataType::FixedSizeList(item, size) if !item.is_nullable() => check_items_not_null(data, *size as usize),
        DataType::FixedSizeList(_, _) => Ok(()),
        DataType::ListView(_) => check_entries::<i32>(data),
        DataType::LargeListView(_) => check_entries::<i64>(data),
        DataType::Utf8View => check_string_views(data),
        _ => {
            check_first_offset(data)?;
            data.validate_nulls().and_then(|()| data.validate_values()).map_err(data_error)
        }
    }
}

fn data_error(source: ArrowError) -> DecodeError {
    DecodeError::Data { source }
}

/// `validate_values` skips the first offset: in `ArrayData` another check has seen it before.
fn check_first_offset(data: &ArrayData) -> Result<(), DecodeError> {
    use DataType::*;
    let available = match data.data_type() {
        Utf8 | Binary | LargeUtf8 | LargeBinary => data.buffers()[1].len(),
        List(_) | Map(_, _) | LargeList(_) => data.child_data()[0].len(),
        _ => return Ok(()),
    };
    let bytes = data.buffers()[0].as_slice();
    let first = match data.data_type() {
        LargeUtf8 | LargeBinary | LargeList(_) => bytes.first_chunk().map_or(0, |word| i64::from_le_bytes(*word)),
        _ => bytes.first_chunk().map_or(0, |word| i32::from_le_bytes(*word).into()),
    };
    match usize::try_from(first) {
        Ok(first) if first <= available => Ok(()),
        _ => Err(DecodeError::OutOfBounds { offset: first, length: 0, available }),
    }
}

/// Items may be null only where the whole list is. Bounded by the bitmap of the items, which must
/// exist for an item to be null.
fn check_items_not_null(data: &ArrayData, size: usize) -> Result<(), DecodeError> {
    let items = &data.child_data()[0];
    let Some(item_nulls) = items.nulls().filter(|_| size > 0) else {
        return Ok(());
    };
    let visible = item_nulls.slice(0, data.len() * size);
    let hidden = match data.nulls() {
        Some(nulls) => {
            let lists = (0..data.len()).filter(|&row| nulls.is_null(row));
            lists.map(|row| visible.slice(row * size, size).null_count()).sum()
        }
        None => 0,
    };
    match visible.null_count() - hidden {
        0 => Ok(()),
        null_count => Err(DecodeError::UnexpectedNulls { null_count }),
    }
}

fn check_entries<T: ArrowNativeType + Into<i64>>(data: &ArrayData) -> Result<(), DecodeError> {
    let offsets = ScalarBuffer::<T>::new(data.buffers()[0].clone(), 0, data.len());
    let sizes = ScalarBuffer::<T>::new(data.buffers()[1].clone(), 0, data.len());
    let available = data.child_data()[0].len();
    for (row, (&offset, &size)) in offsets.iter().zip(sizes.iter()).enumerate() {
        let (offset, size) = (offset.into(), size.into());
        let end = offset.checked_add(size).and_then(|end| usize::try_from(end).ok());
        if offset < 0 || size < 0 || end.is_none_or(|end| end > available) {
            return Err(DecodeError::ListView { row, offset, size, available });
        }
    }
    Ok(())
}

fn check_string_views(data: &ArrayData) -> Result<(), DecodeError> {
    let views = ScalarBuffer::<u128>::new(data.buffers()[0].clone(), 0, data.len());
    let buffers = &data.buffers()[1..];
    validate_binary_view(&views, buffers).map_err(data_error)?;
    // One look at each buffer makes every view of it a matter of two boundaries, however many
    // views share it.
    let texts: Vec<Option<&str>> = buffers.iter().map(|b| std::str::from_utf8(b).ok()).collect();
    let bytes: usize = buffers.iter().map(|buffer| buffer.len()).sum();
    let mut budget = bytes.saturating_mul(OVERLAP_MAX);
    for (row, view) in views.iter().enumerate() {
        if !is_string_view(*view, buffers, &texts, &mut budget)? {
            return Err(DecodeError::Utf8 { row });
        }
    }
    Ok(())
}

fn is_string_view(
    view: u128,
    buffers: &[Buffer],
    texts: &[Option<&str>],
    budget: &mut usize,
) -> Result<bool, DecodeError> {
    let length = view as u32 as usize;
    if length <= 12 {
        return Ok(std::str::from_utf8(&view.to_le_bytes()[4..4 + length]).is_ok());
    }
    let (buffer, start) = ((view >> 64) as u32 as usize, (view >> 96) as usize);
    if let Some(text) = texts[buffer] {
        return Ok(text.is_char_boundary(start) && text.is_char_boundary(start + length));
    }
    let bytes = buffers[buffer].len();
    *budget = budget.checked_sub(length).ok_or(DecodeError::TooCostly { bytes })?;
    Ok(std::str::from_utf8(&buffers[buffer][start..start + length]).is_ok())
}
