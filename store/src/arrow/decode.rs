//! File bytes to record batches, without copying a value.
//!
//! The one thing to know: every number in the metadata is an allegation. Places and lengths are
//! checked on every decode, for that is cheap; the footer's flatbuffer and the values (offsets,
//! UTF-8, keys) only until somebody has checked them once. What makes hostile bytes harmless:
//!
//! * messages are disjoint, and so are the buffers of a message: work is linear in the bytes;
//! * flatbuffers may not expand to more than a few times their size, types nest to a limit;
//! * no allocation follows a claimed row count: only buffers that exist are looked at.
//!
//! Files of other writers may align buffers to 8 bytes only. Such a buffer is copied where Rust
//! needs more (decimals, views): never ours. Nothing here writes, or reads compressed bodies.
#![allow(unsafe_code)]

use std::cell::OnceCell;
use std::sync::Arc;

use arrow_array::types::{
    BinaryType, BinaryViewType, ByteArrayType, ByteViewType, LargeBinaryType, LargeUtf8Type, StringViewType, Utf8Type,
};
use arrow_array::{
    Array, ArrayRef, BooleanArray, DictionaryArray, GenericByteArray, GenericByteViewArray, GenericListArray,
    OffsetSizeTrait, PrimitiveArray, RecordBatch, StructArray, downcast_integer, downcast_primitive, make_array,
    new_empty_array,
};
use arrow_buffer::{BooleanBuffer, Buffer, MutableBuffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow_data::ArrayData;
use arrow_ipc::{Block, FieldNode, Footer, MetadataVersion};
use arrow_schema::{DataType, Field, FieldRef, Fields, SchemaRef, UnionFields, UnionMode};

use super::body::{Body, Node, Source};
use super::error::{Feature, Part};
use super::message::{Message, check_footer, check_schema, footer_bytes, number, read_schema};
use super::schema::fixed_width;
use super::schemas::{self, Key};
use super::{ALIGNMENT, DecodeError, Table, check, dictionary};

/// How many arrays inside dictionaries may be shared out beyond what the bytes pay for.
const SHARED_ARRAYS_FREE: usize = 4096;

/// Decodes a table whose buffers all point into `bytes`, which owns whatever keeps them in place.
///
/// With `validated` the footer and the values are taken to be valid: say so only of bytes that our
/// own writer made, or that have passed this function before, unchanged. Said of other bytes,
/// nothing holds any more.
pub fn decode(bytes: Buffer, validated: bool) -> Result<Table, DecodeError> {
    let footer_bytes = footer_bytes(&bytes)?;
    let footer = match validated {
        // SAFETY: the caller has promised that these bytes passed `check_footer` before, or that
        // our own writer made them. Verifying again would cost more than all the arrays.
        true => unsafe { arrow_ipc::root_as_footer_unchecked(footer_bytes) },
        false => check_footer(footer_bytes)?,
    };
    let schema = schema_of(footer_bytes, &footer, validated)?;
    let mut reader = Reader::new(&bytes, validated, &footer)?;
    let blocks = footer.recordBatches();
    let count = blocks.map_or(0, |blocks| blocks.len());
    let mut batches = Vec::with_capacity(count);
    for block in blocks.into_iter().flatten() {
        batches.push(reader.batch(block, &schema)?);
    }
    Ok(Table { schema, batches })
}

/// Decodes the schema alone.
pub fn decode_schema(bytes: &Buffer) -> Result<SchemaRef, DecodeError> {
    let footer_bytes = footer_bytes(bytes)?;
    schema_of(footer_bytes, &check_footer(footer_bytes)?, false)
}

/// The schema of a footer; of a valid one that looks like another lately, that one's.
fn schema_of(bytes: &[u8], footer: &Footer, validated: bool) -> Result<SchemaRef, DecodeError> {
    let key = Key::new(bytes, footer);
    if !validated {
        return read_schema(&check_schema(&key.blanked())?);
    }
    if let Some(schema) = schemas::find(key) {
        return Ok(schema);
    }
    let blanked = key.blanked();
    // SAFETY: the caller of `decode` has promised that these bytes passed `check_schema` before, or
    // that our own writer made the footer, in which nothing overlaps the lists.
    let schema = read_schema(&unsafe { arrow_ipc::root_as_footer_unchecked(&blanked) })?;
    schemas::keep(key, blanked, &schema);
    Ok(schema)
}

/// One message of a dictionary.
type DictionaryPart<'a> = (Message<'a>, arrow_ipc::DictionaryBatch<'a>);

/// A dictionary, read when the first column asks for it.
enum Dictionary<'a> {
    Unread(Vec<DictionaryPart<'a>>),
    Reading,
    Read(Values),
}

/// The values of a dictionary, in both forms that columns need.
struct Values {
    array: ArrayRef,
    data: OnceCell<ArrayData>,
}

impl From<ArrayRef> for Values {
    fn from(array: ArrayRef) -> Self {
        let data = OnceCell::new();
        Self { array, data }
    }
}

impl From<ArrayData> for Values {
    fn from(data: ArrayData) -> Self {
        let array = make_array(data.clone());
        let data = OnceCell::from(data);
        Self { array, data }
    }
}

impl Values {
    fn data(&self) -> &ArrayData {
        self.data.get_or_init(|| self.array.to_data())
    }
}

struct Reader<'a> {
    bytes: &'a Buffer,
    validated: bool,
    /// By id, ascending.
    dictionaries: Vec<(i64, Dictionary<'a>)>,
    /// Bytes of messages that may still be claimed: they are disjoint.
    unclaimed_bytes: usize,
    /// Bytes that may still be copied for alignment or to join a dictionary's parts.
    copyable_bytes: usize,
    /// Arrays inside dictionaries that may still be handed to columns.
    shareable_arrays: usize,
}

impl<'a> Reader<'a> {
    fn new(bytes: &'a Buffer, validated: bool, footer: &Footer<'a>) -> Result<Self, DecodeError> {
        let mut reader = Self {
            bytes,
            validated,
            dictionaries: Vec::new(),
            unclaimed_bytes: bytes.len(),
            copyable_bytes: bytes.len(),
            shareable_arrays: SHARED_ARRAYS_FREE + bytes.len() / size_of::<FieldNode>(),
        };
        let mut parts = Vec::new();
        for block in footer.dictionaries().into_iter().flatten() {
            parts.push(reader.dictionary_message(block)?);
        }
        // Stable: the parts of a dictionary stay in the order of the file.
        parts.sort_by_key(|(_, dictionary)| dictionary.id());
        reader.dictionaries.reserve(parts.len());
        parts.into_iter().try_for_each(|part| reader.list_dictionary(part))?;
        Ok(reader)
    }

    fn dictionary_message(&mut self, block: &Block) -> Result<DictionaryPart<'a>, DecodeError> {
        let message = self.message(block)?;
        let feature = Feature::MessageKind;
        let dictionary = message.header.header_as_dictionary_batch().ok_or(DecodeError::Unsupported { feature })?;
        Ok((message, dictionary))
    }

    fn list_dictionary(&mut self, part: DictionaryPart<'a>) -> Result<(), DecodeError> {
        let id = part.1.id();
        let is_delta = part.1.isDelta();
        match self.dictionaries.last_mut() {
            Some((last, Dictionary::Unread(parts))) if *last == id && is_delta => parts.push(part),
            Some((last, _)) if *last == id => return Err(DecodeError::Dictionary { id }),
            // A file's dictionary may grow, but not be replaced; and something must be there to grow.
            _ if is_delta => return Err(DecodeError::Dictionary { id }),
            _ => self.dictionaries.push((id, Dictionary::Unread(vec![part]))),
        }
        Ok(())
    }

    fn message(&mut self, block: &Block) -> Result<Message<'a>, DecodeError> {
        let message = match self.validated {
            // SAFETY: the caller of `decode` has promised that this message was verified before, or
            // that our own writer made it.
            true => Message::read_with(self.bytes, block, |_, flatbuffer| {
                Ok(unsafe { arrow_ipc::root_as_message_unchecked(flatbuffer) })
            }),
            false => Message::read(self.bytes, block),
        }?;
        let (claimed, available) = (message.bytes, self.bytes.len());
        let left = self.unclaimed_bytes.checked_sub(claimed);
        self.unclaimed_bytes = left.ok_or(DecodeError::Overlapping { claimed, available })?;
        Ok(message)
    }

    fn batch(&mut self, block: &Block, schema: &SchemaRef) -> Result<RecordBatch, DecodeError> {
        let message = self.message(block)?;
        let feature = Feature::MessageKind;
        let batch = message.header.header_as_record_batch().ok_or(DecodeError::Unsupported { feature })?;
        let rows = number(Part::Rows, batch.length())?;
        let mut body = Body::new(&message, &batch)?;
        let mut columns = Vec::with_capacity(schema.fields().len());
        for field in schema.fields() {
            columns.push(self.column(field, rows, &mut body)?);
        }
        body.finish()?;
        // SAFETY: `column` checked that each column is as long as the batch, and it made the
        // column of its field's type.
        Ok(unsafe { RecordBatch::new_unchecked(schema.clone(), columns, rows) })
    }

    fn column(&mut self, field: &Field, rows: usize, body: &mut Body<'a>) -> Result<ArrayRef, DecodeError> {
        let array = self.array(field.data_type(), dictionary_id(field), body)?;
        if array.len() != rows {
            let (rows, needed) = (array.len(), rows);
            return Err(DecodeError::ChildLength { rows, needed });
        }
        let null_count = array.null_count();
        if null_count > 0 && !field.is_nullable() {
            return Err(DecodeError::UnexpectedNulls { null_count });
        }
        Ok(array)
    }

    /// The next array of the body, where it can be without the detour over `ArrayData`: that is
    /// half the time, and less for nested arrays. Recursion is bounded: `check_fields` bounded the
    /// types.
    fn array(
        &mut self,
        data_type: &DataType,
        dictionary_id: Option<i64>,
        body: &mut Body<'a>,
    ) -> Result<ArrayRef, DecodeError> {
        if data_type.is_primitive() {
            return self.primitive(data_type, body);
        }
        if !self.validated {
            return Ok(make_array(self.data(data_type, dictionary_id, body)?));
        }
        match data_type {
            DataType::Boolean => self.booleans(body),
            DataType::Utf8 => self.strings::<Utf8Type>(body),
            DataType::Binary => self.strings::<BinaryType>(body),
            DataType::LargeUtf8 => self.strings::<LargeUtf8Type>(body),
            DataType::LargeBinary => self.strings::<LargeBinaryType>(body),
            DataType::Utf8View => self.views::<StringViewType>(body),
            DataType::BinaryView => self.views::<BinaryViewType>(body),
            DataType::List(item) => self.list::<i32>(item, body),
            DataType::LargeList(item) => self.list::<i64>(item, body),
            DataType::Struct(fields) => self.structs(fields, body),
            DataType::Dictionary(key, values) => self.keys(key, values, dictionary_id, body),
            other => Ok(make_array(self.data(other, dictionary_id, body)?)),
        }
    }

    fn booleans(&mut self, body: &mut Body<'a>) -> Result<ArrayRef, DecodeError> {
        let node = body.node()?;
        let (rows, nulls) = (node.rows, self.nulls(node, body)?);
        let bits = body.values(self, rows.div_ceil(8), 1, 1, rows)?;
        Ok(Arc::new(BooleanArray::new(BooleanBuffer::new(bits, 0, rows), nulls)))
    }

    /// Any bytes are valid values.
    fn primitive(&mut self, data_type: &DataType, body: &mut Body<'a>) -> Result<ArrayRef, DecodeError> {
        macro_rules! typed {
            ($t:ty, $rows:expr, $values:expr, $nulls:expr) => {
                Arc::new(
                    PrimitiveArray::<$t>::new(ScalarBuffer::new($values, 0, $rows), $nulls)
                        .with_data_type(data_type.clone()),
                )
            };
        }
        let node = body.node()?;
        let (rows, nulls) = (node.rows, self.nulls(node, body)?);
        let invalid = || DecodeError::Type { data_type: data_type.clone() };
        let (width, align) = fixed_width(data_type).ok_or_else(invalid)?;
        let values = body.values(self, rows, width, align, rows)?;
        Ok(downcast_primitive! {
            data_type => (typed, rows, values, nulls),
            _ => return Err(invalid())
        })
    }

    /// Strings as quickly, once their offsets and UTF-8 need no check.
    fn strings<T: ByteArrayType>(&mut self, body: &mut Body<'a>) -> Result<ArrayRef, DecodeError> {
        let node = body.node()?;
        let (rows, nulls) = (node.rows, self.nulls(node, body)?);
        let offsets = self.offsets::<T::Offset>(rows, body)?;
        let values = body.bytes(self)?;
        // SAFETY: the values are as long as the offsets say, and UTF-8 where they must be: the
        // caller of `decode` has promised.
        Ok(Arc::new(unsafe { GenericByteArray::<T>::new_unchecked(offsets, values, nulls) }))
    }

    /// Offsets that need no check.
    fn offsets<O: OffsetSizeTrait>(
        &mut self,
        rows: usize,
        body: &mut Body<'a>,
    ) -> Result<OffsetBuffer<O>, DecodeError> {
        let offsets = body.offsets(self, rows, size_of::<O>())?;
        if offsets.is_empty() {
            return Ok(OffsetBuffer::new_empty());
        }
        // SAFETY: one more than rows and aligned, says `Body::offsets`; ascending from no less than
        // 0, the caller of `decode` has promised.
        Ok(unsafe { OffsetBuffer::new_unchecked(ScalarBuffer::new(offsets, 0, rows + 1)) })
    }

    fn views<T: ByteViewType>(&mut self, body: &mut Body<'a>) -> Result<ArrayRef, DecodeError> {
        let node = body.node()?;
        let (rows, nulls) = (node.rows, self.nulls(node, body)?);
        let mut buffers = body.views(self, rows)?;
        let views = ScalarBuffer::new(buffers.remove(0), 0, rows);
        // SAFETY: each view lies inside its buffer and is UTF-8 where it must be: the caller of
        // `decode` has promised.
        Ok(Arc::new(unsafe { GenericByteViewArray::<T>::new_unchecked(views, buffers.into(), nulls) }))
    }

    fn list<O: OffsetSizeTrait>(&mut self, item: &FieldRef, body: &mut Body<'a>) -> Result<ArrayRef, DecodeError> {
        let node = body.node()?;
        let (rows, nulls) = (node.rows, self.nulls(node, body)?);
        let offsets = self.offsets::<O>(rows, body)?;
        let items = self.array(item.data_type(), dictionary_id(item), body)?;
        // SAFETY: the items are of the field's type, and as many as the offsets say: the caller of
        // `decode` has promised.
        Ok(Arc::new(unsafe { GenericListArray::<O>::new_unchecked(item.clone(), offsets, items, nulls) }))
    }

    fn structs(&mut self, fields: &Fields, body: &mut Body<'a>) -> Result<ArrayRef, DecodeError> {
        let node = body.node()?;
        let (rows, nulls) = (node.rows, self.nulls(node, body)?);
        let mut columns = Vec::with_capacity(fields.len());
        for field in fields {
            let column = self.array(field.data_type(), dictionary_id(field), body)?;
            columns.push(match column.len() {
                length if length == rows => column,
                length if length > rows => column.slice(0, rows),
                length => return Err(DecodeError::ChildLength { rows: length, needed: rows }),
            });
        }
        let fields = fields.clone();
        // SAFETY: each column is of its field's type and has as many rows as the struct.
        Ok(Arc::new(unsafe { StructArray::new_unchecked_with_length(fields, columns, nulls, rows) }))
    }

    /// A dictionary column whose keys need no check; all batches share one array of values.
    fn keys(
        &mut self,
        key: &DataType,
        values: &DataType,
        id: Option<i64>,
        body: &mut Body<'a>,
    ) -> Result<ArrayRef, DecodeError> {
        macro_rules! typed {
            ($t:ty, $rows:expr, $keys:expr, $nulls:expr, $values:expr) => {{
                let keys = PrimitiveArray::<$t>::new(ScalarBuffer::new($keys, 0, $rows), $nulls);
                // SAFETY: each valid key names a value, the caller of `decode` has promised.
                Arc::new(unsafe { DictionaryArray::<$t>::new_unchecked(keys, $values) })
            }};
        }
        let node = body.node()?;
        let (rows, nulls) = (node.rows, self.nulls(node, body)?);
        let (width, align) = fixed_width(key).unwrap_or((8, 8));
        let keys = body.values(self, rows, width, align, rows)?;
        let array = match self.dictionary_values(id, values)? {
            Some(values) => values.array.clone(),
            None => new_empty_array(values),
        };
        Ok(downcast_integer! {
            key => (typed, rows, keys, nulls, array),
            _ => return Err(DecodeError::Type { data_type: key.clone() })
        })
    }

    fn field(&mut self, field: &Field, body: &mut Body<'a>) -> Result<ArrayData, DecodeError> {
        self.data(field.data_type(), dictionary_id(field), body)
    }

    /// The next array of the body as data; checks its values unless they need none.
    fn data(
        &mut self,
        data_type: &DataType,
        dictionary_id: Option<i64>,
        body: &mut Body<'a>,
    ) -> Result<ArrayData, DecodeError> {
        use DataType::*;
        let node = body.node()?;
        match data_type {
            Null => return self.made(data_type, node.rows, None, vec![], vec![]),
            Union(fields, mode) => return self.union(data_type, fields, *mode, node.rows, body),
            RunEndEncoded(run_ends, values) => {
                let children = vec![self.field(run_ends, body)?, self.field(values, body)?];
                return self.run_ends(data_type, node.rows, children);
            }
            _ => {}
        }
        let nulls = self.nulls(node, body)?;
        let rows = node.rows;
        let (buffers, children) = match data_type {
            Boolean => (vec![body.values(self, rows.div_ceil(8), 1, 1, rows)?], vec![]),
            Utf8 | Binary => (vec![body.offsets(self, rows, 4)?, body.bytes(self)?], vec![]),
            LargeUtf8 | LargeBinary => (vec![body.offsets(self, rows, 8)?, body.bytes(self)?], vec![]),
            Utf8View | BinaryView => (body.views(self, rows)?, vec![]),
            List(item) | Map(item, _) => (vec![body.offsets(self, rows, 4)?], vec![self.field(item, body)?]),
            LargeList(item) => (vec![body.offsets(self, rows, 8)?], vec![self.field(item, body)?]),
            ListView(item) => (body.entries(self, rows, 4)?, vec![self.field(item, body)?]),
            LargeListView(item) => (body.entries(self, rows, 8)?, vec![self.field(item, body)?]),
            FixedSizeList(item, size) => {
                let items = self.field(item, body)?;
                let needed = rows.checked_mul(*size as usize);
                (vec![], vec![at_least(items, needed.unwrap_or(usize::MAX))?])
            }
            Struct(fields) => {
                let children = fields.iter().map(|field| at_least(self.field(field, body)?, rows));
                (vec![], children.collect::<Result<_, _>>()?)
            }
            Dictionary(key, values) => {
                let (width, align) = fixed_width(key).unwrap_or((8, 8));
                let keys = body.values(self, rows, width, align, rows)?;
                (vec![keys], vec![self.dictionary(dictionary_id, values)?])
            }
            other => {
                let invalid = || DecodeError::Type { data_type: other.clone() };
                let (width, align) = fixed_width(other).ok_or_else(invalid)?;
                (vec![body.values(self, rows, width, align, rows)?], vec![])
            }
        };
        self.made(data_type, rows, nulls, buffers, children)
    }

    fn made(
        &self,
        data_type: &DataType,
        rows: usize,
        nulls: Option<NullBuffer>,
        buffers: Vec<Buffer>,
        children: Vec<ArrayData>,
    ) -> Result<ArrayData, DecodeError> {
        let builder =
            ArrayData::builder(data_type.clone()).len(rows).nulls(nulls).buffers(buffers).child_data(children);
        // SAFETY: (1) the buffers and children are those of the type, long enough for the rows and
        // aligned: `array` and `Body` checked. (2) The values are valid: `check_values` says so
        // below before anybody sees the array, or the caller of `decode` has promised it.
        let data = unsafe { builder.build_unchecked() };
        if !self.validated {
            check::check_values(&data)?;
        }
        Ok(data)
    }

    fn nulls(&self, node: Node, body: &mut Body<'a>) -> Result<Option<NullBuffer>, DecodeError> {
        let Node { rows, null_count } = node;
        let bits = body.buffer(self)?;
        if null_count == 0 {
            return Ok(None);
        }
        let needed = rows.div_ceil(8);
        if bits.len() < needed {
            return Err(DecodeError::ShortBuffer { rows, needed, bytes: bits.len() });
        }
        let bits = BooleanBuffer::new(bits, 0, rows);
        if !self.validated {
            let actual = rows - bits.count_set_bits();
            if actual != null_count {
                return Err(DecodeError::NullCount { claimed: null_count, actual });
            }
        }
        // SAFETY: the count was compared just now, or the caller of `decode` has promised it.
        Ok(Some(unsafe { NullBuffer::new_unchecked(bits, null_count) }))
    }

    fn union(
        &mut self,
        data_type: &DataType,
        fields: &UnionFields,
        mode: UnionMode,
        rows: usize,
        body: &mut Body<'a>,
    ) -> Result<ArrayData, DecodeError> {
        if body.version < MetadataVersion::V5 {
            // Unions had a validity bitmap until version 5.
            body.buffer(self)?;
        }
        let mut buffers = vec![body.values(self, rows, 1, 1, rows)?];
        let mut child_rows = rows;
        if mode == UnionMode::Dense {
            buffers.push(body.values(self, rows, 4, 4, rows)?);
            child_rows = 0;
        }
        let children = fields.iter().map(|(_, field)| at_least(self.field(field, body)?, child_rows));
        let children = children.collect::<Result<_, _>>()?;
        self.made(data_type, rows, None, buffers, children)
    }

    fn run_ends(
        &mut self,
        data_type: &DataType,
        rows: usize,
        children: Vec<ArrayData>,
    ) -> Result<ArrayData, DecodeError> {
        let (run_ends, values) = (&children[0], &children[1]);
        if run_ends.len() != values.len() {
            return Err(DecodeError::ChildLength { rows: values.len(), needed: run_ends.len() });
        }
        match run_ends.null_count() {
            0 => self.made(data_type, rows, None, vec![], children),
            null_count => Err(DecodeError::UnexpectedNulls { null_count }),
        }
    }

    fn dictionary(&mut self, id: Option<i64>, data_type: &DataType) -> Result<ArrayData, DecodeError> {
        let Some(values) = self.dictionary_values(id, data_type)? else {
            return Ok(ArrayData::new_empty(data_type));
        };
        let data = values.data().clone();
        let bytes = self.bytes.len();
        let left = self.shareable_arrays.checked_sub(array_count(&data));
        self.shareable_arrays = left.ok_or(DecodeError::TooCostly { bytes })?;
        Ok(data)
    }

    /// Where the dictionary of this id is; ours are numbered from 0 on.
    fn dictionary_index(&self, id: i64) -> Option<usize> {
        let guess = usize::try_from(id).ok().filter(|&guess| match self.dictionaries.get(guess) {
            Some((found, _)) => *found == id,
            None => false,
        });
        guess.or_else(|| self.dictionaries.binary_search_by_key(&id, |(id, _)| *id).ok())
    }

    /// `None` where there is no such dictionary: it may be left out if no valid key needs it.
    fn dictionary_values(&mut self, id: Option<i64>, data_type: &DataType) -> Result<Option<&Values>, DecodeError> {
        let id = id.unwrap_or_default();
        let Some(index) = self.dictionary_index(id) else {
            return Ok(None);
        };
        if let Dictionary::Unread(parts) = &mut self.dictionaries[index].1 {
            let parts = std::mem::take(parts);
            self.dictionaries[index].1 = Dictionary::Reading;
            let values = self.join_dictionary(&parts, data_type)?;
            self.dictionaries[index].1 = Dictionary::Read(values);
        }
        match &self.dictionaries[index].1 {
            Dictionary::Read(values) if values.array.data_type() == data_type => Ok(Some(values)),
            _ => Err(DecodeError::Dictionary { id }),
        }
    }

    /// Usually there is one part, and nothing is copied.
    fn join_dictionary(&mut self, parts: &[DictionaryPart<'a>], data_type: &DataType) -> Result<Values, DecodeError> {
        if let ([(message, part)], true) = (parts, self.validated) {
            let mut body = dictionary_body(message, part)?;
            let values = self.array(data_type, None, &mut body)?;
            body.finish()?;
            return Ok(values.into());
        }
        if parts.len() > 1 && data_type.is_nested() {
            return Err(DecodeError::Unsupported { feature: Feature::NestedDelta });
        }
        let mut values = Vec::with_capacity(parts.len());
        for (message, part) in parts {
            values.push(self.dictionary_part(message, part, data_type)?);
        }
        if values.len() == 1 {
            return Ok(values.remove(0).into());
        }
        self.check_joinable(&values)?;
        let joined = dictionary::concatenate(&values.iter().collect::<Vec<_>>());
        Ok(joined.map_err(|source| DecodeError::Data { source })?.into())
    }

    fn dictionary_part(
        &mut self,
        message: &Message<'a>,
        part: &arrow_ipc::DictionaryBatch<'a>,
        data_type: &DataType,
    ) -> Result<ArrayData, DecodeError> {
        let mut body = dictionary_body(message, part)?;
        let values = self.data(data_type, None, &mut body)?;
        body.finish()?;
        Ok(values)
    }

    /// The parts of a joined dictionary are copied: that must stay in proportion.
    fn check_joinable(&mut self, values: &[ArrayData]) -> Result<(), DecodeError> {
        let bytes = self.bytes.len();
        for part in values {
            let buffers: usize = part.buffers().iter().map(|buffer| buffer.len()).sum();
            // A type without buffers could claim any length at no cost.
            let has_buffers = !part.buffers().is_empty() && buffers >= part.len() / 8;
            let left = self.copyable_bytes.checked_sub(buffers).filter(|_| has_buffers);
            self.copyable_bytes = left.ok_or(DecodeError::TooCostly { bytes })?;
        }
        Ok(())
    }
}

impl Source for Reader<'_> {
    fn bytes(&self) -> &Buffer {
        self.bytes
    }

    fn aligned(&mut self, buffer: Buffer, align: usize) -> Result<Buffer, DecodeError> {
        if buffer.as_ptr().align_offset(align) == 0 {
            return Ok(buffer);
        }
        let bytes = self.bytes.len();
        let left = self.copyable_bytes.checked_sub(buffer.len());
        self.copyable_bytes = left.ok_or(DecodeError::TooCostly { bytes })?;
        let mut copy = MutableBuffer::with_capacity(buffer.len());
        copy.extend_from_slice(&buffer);
        Ok(copy.into())
    }
}

fn dictionary_body<'a>(message: &Message<'a>, part: &arrow_ipc::DictionaryBatch<'a>) -> Result<Body<'a>, DecodeError> {
    let missing = DecodeError::Missing { offset: message.offset, part: Part::Header };
    Body::new(message, &part.data().ok_or(missing)?)
}

fn at_least(child: ArrayData, needed: usize) -> Result<ArrayData, DecodeError> {
    match child.len() {
        rows if rows < needed => Err(DecodeError::ChildLength { rows, needed }),
        _ => Ok(child),
    }
}

fn array_count(data: &ArrayData) -> usize {
    1 + data.child_data().iter().map(array_count).sum::<usize>()
}

fn dictionary_id(field: &Field) -> Option<i64> {
    // Arrow means to drop ids from its public fields, but offers no other way to them yet.
    #[expect(deprecated)]
    field.dict_id()
}

// The buffers of our own files satisfy every type Rust has.
const _: () = assert!(ALIGNMENT.is_multiple_of(align_of::<u128>()));
