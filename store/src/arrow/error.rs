//! What can go wrong, one enum per operation: encode, decode, build in place.
//!
//! The one thing to know: variants carry the numbers a reader needs, and a refused operation has
//! changed nothing. Nothing here decides; it only says.

use arrow_schema::{ArrowError, DataType};

/// Why a table was not encoded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// A batch has another number of columns than the schema.
    #[error("batch {batch} has {columns} columns, the schema {expected}")]
    ColumnCount {
        /// Which batch.
        batch: usize,
        /// How many columns it has.
        columns: usize,
        /// How many the schema has.
        expected: usize,
    },
    /// A column has another type than its field.
    #[error("batch {batch} column {column} is {actual}, the schema says {expected}")]
    ColumnType {
        /// Which batch.
        batch: usize,
        /// Which column.
        column: usize,
        /// The type of the column.
        actual: DataType,
        /// The type of the field.
        expected: DataType,
    },
    /// A column whose field is not nullable contains nulls.
    #[error("batch {batch} column {column} has {null_count} nulls but is not nullable")]
    UnexpectedNulls {
        /// Which batch.
        batch: usize,
        /// Which column.
        column: usize,
        /// How many nulls.
        null_count: usize,
    },
    /// The format has no way to say this type.
    #[error("column {column}: the format cannot express {data_type}")]
    Inexpressible {
        /// Which column.
        column: usize,
        /// The offending type.
        data_type: DataType,
    },
    /// The dictionaries of the batches differ, and together have more values than keys can name.
    #[error("dictionary {dictionary}: {values} values together, but the keys name at most {values_max}")]
    DictionaryTooLarge {
        /// Which dictionary, in the order of the fields.
        dictionary: usize,
        /// How many values the batches have together.
        values: usize,
        /// How many the key type can name.
        values_max: usize,
    },
    /// The dictionaries of the batches could not be concatenated.
    #[error("dictionary {dictionary} could not be made one")]
    DictionaryMerge {
        /// Which dictionary, in the order of the fields.
        dictionary: usize,
        /// What Arrow said.
        source: ArrowError,
    },
    /// The table needs more bytes than the format or the address space can count.
    #[error("the table is too large: a part of {bytes} bytes")]
    TooLarge {
        /// The size that does not fit.
        bytes: usize,
    },
    /// The output is not as long as the plan.
    #[error("the output has {actual} bytes, the plan {planned}")]
    OutputLength {
        /// How long the output is.
        actual: usize,
        /// How long it must be.
        planned: usize,
    },
}

/// Why bytes were not decoded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Not an Arrow file: the magic is missing or there is no room for a footer.
    #[error("{bytes} bytes are not an Arrow IPC file")]
    NotArrow {
        /// How many bytes there are.
        bytes: usize,
    },
    /// A part lies outside the bytes that should hold it.
    #[error("a part at {offset} of {length} bytes leaves its {available} bytes")]
    OutOfBounds {
        /// Where the part claims to start.
        offset: i64,
        /// How long it claims to be.
        length: i64,
        /// How many bytes there are.
        available: usize,
    },
    /// Parts that must be disjoint claim more bytes together than there are.
    #[error("parts claim {claimed} bytes of {available}")]
    Overlapping {
        /// What they claim together.
        claimed: usize,
        /// How many bytes there are.
        available: usize,
    },
    /// A flatbuffer is malformed, or larger than its bytes could honestly be.
    #[error("malformed metadata at {offset}")]
    Metadata {
        /// Where the flatbuffer starts.
        offset: usize,
        /// What the verifier said.
        source: flatbuffers::InvalidFlatbuffer,
    },
    /// Metadata lacks a part that is required.
    #[error("metadata at {offset} lacks its {part}")]
    Missing {
        /// Where the flatbuffer starts.
        offset: usize,
        /// What is missing.
        part: Part,
    },
    /// The schema is not one Arrow allows.
    #[error("the schema is not valid Arrow")]
    Schema {
        /// What Arrow said.
        source: ArrowError,
    },
    /// A type has parameters Arrow does not allow.
    #[error("{data_type} is not a valid type")]
    Type {
        /// The offending type.
        data_type: DataType,
    },
    /// A union has type ids outside 0..=127 or too many fields.
    #[error("a union has {fields} fields, or type ids outside 0..=127")]
    UnionFields {
        /// How many fields it has.
        fields: usize,
    },
    /// Types nest too deep.
    #[error("types nest deeper than {depth_max}")]
    TooDeep {
        /// The limit.
        depth_max: usize,
    },
    /// Valid Arrow that we do not read.
    #[error("not supported: {feature:?}")]
    Unsupported {
        /// What it uses.
        feature: Feature,
    },
    /// A batch has fewer nodes or buffers than its schema needs, or more.
    #[error("the batch has {count} {part:?} entries, not what its schema needs")]
    Count {
        /// Of what.
        part: Part,
        /// How many it has.
        count: usize,
    },
    /// A length or count is negative or impossible.
    #[error("impossible {part:?}: {value}")]
    Number {
        /// Of what.
        part: Part,
        /// The value claimed.
        value: i64,
    },
    /// A buffer is shorter than its array's length requires.
    #[error("an array of {rows} rows needs a buffer of {needed} bytes, got {bytes}")]
    ShortBuffer {
        /// The array's length.
        rows: usize,
        /// How many bytes the buffer needs.
        needed: usize,
        /// How many it has.
        bytes: usize,
    },
    /// A child array is not as long as its parent requires.
    #[error("a child array has {rows} rows, its parent needs {needed}")]
    ChildLength {
        /// The child's length.
        rows: usize,
        /// What the parent needs.
        needed: usize,
    },
    /// The values break a rule of Arrow.
    #[error("the data is not valid Arrow")]
    Data {
        /// What Arrow said.
        source: ArrowError,
    },
    /// A null count is wrong.
    #[error("{claimed} nulls claimed, {actual} found")]
    NullCount {
        /// What the metadata says.
        claimed: usize,
        /// What the bitmap says.
        actual: usize,
    },
    /// Something that is not nullable has nulls.
    #[error("{null_count} nulls where none are allowed")]
    UnexpectedNulls {
        /// How many.
        null_count: usize,
    },
    /// An offset and size of a list view leave the child array.
    #[error("list view entry {row} at {offset} of size {size} leaves its {available} values")]
    ListView {
        /// Which entry.
        row: usize,
        /// Its offset.
        offset: i64,
        /// Its size.
        size: i64,
        /// How many values there are.
        available: usize,
    },
    /// A string is not UTF-8.
    #[error("string view {row} is not UTF-8")]
    Utf8 {
        /// Which row.
        row: usize,
    },
    /// Two dictionaries claim one id, or one depends on itself, or fields disagree about its type.
    #[error("dictionary {id} is ambiguous")]
    Dictionary {
        /// The dictionary's id.
        id: i64,
    },
    /// Decoding would need far more memory or time than the bytes justify.
    #[error("decoding {bytes} bytes would cost out of proportion")]
    TooCostly {
        /// How many bytes there are.
        bytes: usize,
    },
}

/// A part of the metadata, for error messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Part {
    /// The schema.
    Schema,
    /// The header of a message.
    Header,
    /// The fields of a batch's arrays.
    Node,
    /// The places of a batch's buffers.
    Buffer,
    /// How many data buffers a view column has.
    VariadicCount,
    /// The length of an array or batch.
    Rows,
    /// The null count of an array.
    NullCount,
    /// The length of a body.
    Body,
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(self, f)
    }
}

/// Valid Arrow that we do not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Feature {
    /// Compressed bodies: they cannot be read in place.
    Compression,
    /// Values stored big end first.
    BigEndian,
    /// Metadata older than version 4.
    OldVersion,
    /// A dictionary in pieces whose values are nested.
    NestedDelta,
    /// A message that is neither schema, dictionary nor batch.
    MessageKind,
}

/// Why a batch could not be built in place.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The type cannot be built in place.
    #[error("column {column}: {data_type} cannot be built in place")]
    UnsupportedType {
        /// Which column.
        column: usize,
        /// Its type.
        data_type: DataType,
    },
    /// There is no such column.
    #[error("no column {column} among {columns}")]
    NoSuchColumn {
        /// The column asked for.
        column: usize,
        /// How many there are.
        columns: usize,
    },
    /// The column has another type than asked for.
    #[error("column {column} is {data_type}, not what was asked for")]
    WrongType {
        /// Which column.
        column: usize,
        /// Its type.
        data_type: DataType,
    },
    /// The column is not nullable.
    #[error("column {column} is not nullable")]
    NotNullable {
        /// Which column.
        column: usize,
    },
    /// The column's values were never asked for, so nobody wrote them.
    #[error("column {column} was never written")]
    NotWritten {
        /// Which column.
        column: usize,
    },
    /// A writer has fewer values than the batch has rows.
    #[error("column {column} has {values} values of {rows} rows")]
    TooFewValues {
        /// Which column.
        column: usize,
        /// How many values were appended.
        values: usize,
        /// How many rows the batch has.
        rows: usize,
    },
    /// A writer was given more values than the batch has rows.
    #[error("column {column} is full: {rows} rows")]
    TooManyValues {
        /// Which column.
        column: usize,
        /// How many rows the batch has.
        rows: usize,
    },
    /// A value does not fit what the plan reserved.
    #[error("column {column} has room for {free_bytes} more bytes, not {requested_bytes}")]
    OutOfSpace {
        /// Which column.
        column: usize,
        /// How many bytes the value has.
        requested_bytes: usize,
        /// How many are left.
        free_bytes: usize,
    },
    /// A bit outside the batch.
    #[error("row {row} of {rows}")]
    NoSuchRow {
        /// The row asked for.
        row: usize,
        /// How many there are.
        rows: usize,
    },
    /// A column that was filled from outside says of a value that it begins where it cannot.
    #[error("column {column}: offset {row} does not follow the one before it within {value_bytes} bytes of values")]
    Offset {
        /// Which column.
        column: usize,
        /// Which offset.
        row: usize,
        /// How many bytes the values may have.
        value_bytes: usize,
    },
    /// The output is not as long as the plan.
    #[error("the output has {actual} bytes, the plan {planned}")]
    OutputLength {
        /// How long the output is.
        actual: usize,
        /// How long it must be.
        planned: usize,
    },
    /// The output does not start at an aligned address.
    #[error("the output starts {misaligned_bytes} bytes after a multiple of {alignment}")]
    Misaligned {
        /// How far off.
        misaligned_bytes: usize,
        /// What is needed.
        alignment: usize,
    },
    /// The metadata could not be laid out.
    #[error("the batch could not be laid out")]
    Layout {
        /// Why.
        #[from]
        source: EncodeError,
    },
}
