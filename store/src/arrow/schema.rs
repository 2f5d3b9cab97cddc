//! Types: what the format can say, what Arrow allows, how deep they nest.
//!
//! The one thing to know: both directions refuse the same types, so what we write we also read.
//! Nothing here looks at values.

use arrow_ipc::Type;
use arrow_schema::{DataType, Fields};

use super::{DEPTH_MAX, DecodeError};

/// The types directly under `data_type`, in the order in which the format lists them. A
/// dictionary's values are not among them: they travel in messages of their own.
pub(super) fn children(data_type: &DataType) -> Vec<&DataType> {
    match data_type {
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::ListView(field)
        | DataType::LargeListView(field)
        | DataType::FixedSizeList(field, _)
        | DataType::Map(field, _) => vec![field.data_type()],
        DataType::Struct(fields) => fields.iter().map(|field| field.data_type()).collect(),
        DataType::Union(fields, _) => fields.iter().map(|(_, field)| field.data_type()).collect(),
        DataType::RunEndEncoded(run_ends, values) => {
            vec![run_ends.data_type(), values.data_type()]
        }
        _ => Vec::new(),
    }
}

/// How many dictionaries a column of this type has, those inside dictionaries included.
pub(super) fn dictionary_count(data_type: &DataType) -> usize {
    match data_type {
        DataType::Dictionary(_, values) => 1 + dictionary_count(values),
        other => children(other).into_iter().map(dictionary_count).sum(),
    }
}

/// Finds a type that is not valid Arrow, or that the format cannot express, or that nests deeper
/// than `depth`.
pub(super) fn check_type(data_type: &DataType, depth: usize) -> Result<(), DecodeError> {
    let depth = depth.checked_sub(1).ok_or(DecodeError::TooDeep { depth_max: DEPTH_MAX })?;
    if !has_valid_shape(data_type) {
        return Err(DecodeError::Type { data_type: data_type.clone() });
    }
    match data_type {
        DataType::Dictionary(_, values) => check_type(values, depth),
        DataType::Struct(fields) => fields.iter().try_for_each(|field| check_type(field.data_type(), depth)),
        nested if nested.is_nested() => children(nested).into_iter().try_for_each(|child| check_type(child, depth)),
        _ => Ok(()),
    }
}

/// Checks the types of all columns.
pub(super) fn check_fields(fields: &Fields) -> Result<(), DecodeError> {
    fields.iter().try_for_each(|field| check_type(field.data_type(), DEPTH_MAX))
}

fn has_valid_shape(data_type: &DataType) -> bool {
    match data_type {
        DataType::FixedSizeBinary(size) | DataType::FixedSizeList(_, size) => *size >= 0,
        DataType::Decimal32(precision, scale) => is_decimal(*precision, *scale, 9),
        DataType::Decimal64(precision, scale) => is_decimal(*precision, *scale, 18),
        DataType::Decimal128(precision, scale) => is_decimal(*precision, *scale, 38),
        DataType::Decimal256(precision, scale) => is_decimal(*precision, *scale, 76),
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(fields) => fields.len() == 2 && !entries.is_nullable() && !fields[0].is_nullable(),
            _ => false,
        },
        DataType::RunEndEncoded(run_ends, _) => {
            let is_index = matches!(run_ends.data_type(), DataType::Int16 | DataType::Int32 | DataType::Int64);
            is_index && !run_ends.is_nullable()
        }
        // The format marks a *field* as a dictionary, so the values cannot be one themselves.
        DataType::Dictionary(key, values) => {
            key.is_dictionary_key_type() && !matches!(**values, DataType::Dictionary(_, _))
        }
        _ => true,
    }
}

fn is_decimal(precision: u8, scale: i8, precision_max: u8) -> bool {
    (1..=precision_max).contains(&precision) && scale.unsigned_abs() <= precision_max
}

/// Refuses what the conversion of a flatbuffer schema would trip over instead of reporting: unions
/// of more than 128 fields, type ids outside a byte, children nested too deep.
pub(super) fn check_flatbuffer(schema: &arrow_ipc::Schema) -> Result<(), DecodeError> {
    let fields = schema.fields().into_iter().flatten();
    for field in fields {
        check_flatbuffer_field(&field, DEPTH_MAX)?;
    }
    Ok(())
}

fn check_flatbuffer_field(field: &arrow_ipc::Field, depth: usize) -> Result<(), DecodeError> {
    let depth = depth.checked_sub(1).ok_or(DecodeError::TooDeep { depth_max: DEPTH_MAX })?;
    if field.type_type() == Type::Union {
        check_flatbuffer_union(field)?;
    }
    for child in field.children().into_iter().flatten() {
        check_flatbuffer_field(&child, depth)?;
    }
    Ok(())
}

fn check_flatbuffer_union(field: &arrow_ipc::Field) -> Result<(), DecodeError> {
    let fields = field.children().map_or(0, |children| children.len());
    let type_ids = field.type_as_union().and_then(|union| union.typeIds());
    let is_valid = match type_ids {
        Some(ids) => ids.iter().all(|id| (0..=127).contains(&id)),
        None => fields <= 128,
    };
    if is_valid { Ok(()) } else { Err(DecodeError::UnionFields { fields }) }
}

/// Bytes per value and the alignment Rust needs, for types of one fixed-width buffer.
pub(super) fn fixed_width(data_type: &DataType) -> Option<(usize, usize)> {
    use arrow_schema::IntervalUnit::{DayTime, MonthDayNano};
    let width = match data_type {
        DataType::FixedSizeBinary(size) => return Some((usize::try_from(*size).ok()?, 1)),
        DataType::Interval(DayTime) => return Some((8, 4)),
        DataType::Interval(MonthDayNano) => return Some((16, 8)),
        other => other.primitive_width()?,
    };
    Some((width, width.min(16)))
}
