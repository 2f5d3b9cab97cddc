//! A batch built where it will be read: plan its shape, fill its columns, finish.
//!
//! The one thing to know: a [`BatchPlan`] fixes every place from the schema, the number of rows and
//! a bound on the bytes of each string column, so columns are slices of the object itself and no
//! value is ever copied. The metadata is written last, with the true lengths and null counts.
//! Until [`BatchBuilder::finish`] the bytes are not a table; it refuses a column nobody wrote. Who
//! cannot hold slices, as Python, fills the columns by their [`Places`].
//!
//! One batch, flat types: fixed-width, boolean, fixed-size binary, (large) string and binary.

use std::ops::Range;

use arrow_array::{ArrowPrimitiveType, PrimitiveArray};
use arrow_ipc::{Block, Buffer as BufferPlace, FieldNode};
use arrow_schema::{DataType, SchemaRef};

use super::frame::{self, Listing, add, align_up};
use super::schema::fixed_width;
use super::{ALIGNMENT, BuildError, EncodeError, native};

/// The shape of one batch.
#[derive(Debug, Clone)]
pub struct BatchPlan {
    schema: SchemaRef,
    rows: usize,
    columns: Vec<Capacity>,
}

/// How many bytes the buffers of one column may use.
#[derive(Debug, Clone, Copy, Default)]
struct Capacity {
    validity: usize,
    offsets: Option<usize>,
    values: usize,
}

impl BatchPlan {
    /// Plans `rows` rows. String and binary columns have no room for bytes yet.
    pub fn new(schema: SchemaRef, rows: usize) -> Result<Self, BuildError> {
        let fields = schema.fields().iter().enumerate();
        let columns = fields
            .map(|(column, field)| {
                let validity = if field.is_nullable() { rows.div_ceil(8) } else { 0 };
                let capacity = capacity(field.data_type(), rows)?;
                let unsupported = || {
                    let data_type = field.data_type().clone();
                    BuildError::UnsupportedType { column, data_type }
                };
                Ok(Capacity { validity, ..capacity.ok_or_else(unsupported)? })
            })
            .collect::<Result<_, BuildError>>()?;
        Ok(Self { schema, rows, columns })
    }

    /// Reserves room for the bytes of all values of a string or binary column together.
    pub fn value_bytes(mut self, column: usize, bytes: usize) -> Result<Self, BuildError> {
        let columns = self.columns.len();
        let capacity = self.columns.get_mut(column);
        let capacity = capacity.ok_or(BuildError::NoSuchColumn { column, columns })?;
        let width = offset_width(self.schema.field(column).data_type());
        match width {
            Some(4) if i32::try_from(bytes).is_err() => Err(EncodeError::TooLarge { bytes })?,
            Some(_) => capacity.values = bytes,
            None => {
                let data_type = self.schema.field(column).data_type().clone();
                return Err(BuildError::WrongType { column, data_type });
            }
        }
        Ok(self)
    }

    /// How many bytes the object needs.
    pub fn bytes(&self) -> Result<usize, BuildError> {
        let parts = self.parts(&self.listing(None)?)?;
        Ok(parts.body.end + parts.tail.len())
    }

    /// Where the buffers of each column lie in the object, for who fills them by other means: from a
    /// [`BatchBuilder`] that was made over the object, and dropped, to [`BatchBuilder::of_filled`].
    pub fn places(&self) -> Result<Vec<Places>, BuildError> {
        let start = self.parts(&self.listing(None)?)?.body.start;
        let mut end = start;
        let mut place = |bytes: usize| {
            let place = end..end + bytes;
            // `parts` has added these up without an overflow.
            end += bytes.next_multiple_of(ALIGNMENT);
            place
        };
        let columns = self.columns.iter().map(|capacity| Places {
            validity: place(capacity.validity),
            offsets: capacity.offsets.map(&mut place),
            values: place(capacity.values),
        });
        Ok(columns.collect())
    }

    /// The lists of the batch's message: with the capacities before the columns are filled, with
    /// their true numbers afterwards. The places are the same.
    fn listing(&self, filled: Option<&[Column<'_>]>) -> Result<Listing, BuildError> {
        let mut listing = Listing::default();
        let mut offset = 0;
        for (i, capacity) in self.columns.iter().enumerate() {
            let column = filled.map(|columns| &columns[i]);
            let null_count = column.map_or(0, Column::null_count);
            listing.nodes.push(FieldNode::new(self.rows as i64, null_count as i64));
            for (bytes, is_values) in capacity.buffers() {
                let used = column.filter(|_| is_values).map_or(bytes, Column::used_bytes);
                listing.buffers.push(BufferPlace::new(offset as i64, used as i64));
                offset = align_up(add(offset, bytes)?)?;
            }
        }
        Ok(listing)
    }

    fn body_bytes(&self) -> Result<usize, BuildError> {
        let mut end = 0;
        for (bytes, _) in self.columns.iter().flat_map(Capacity::buffers) {
            end = align_up(add(end, bytes)?)?;
        }
        Ok(end)
    }

    fn parts(&self, listing: &Listing) -> Result<Parts, BuildError> {
        let mut prologue = frame::HEAD.to_vec();
        prologue.extend(frame::schema_message(&self.schema, prologue.len())?);
        let (message_start, body_bytes) = (prologue.len(), self.body_bytes()?);
        prologue.extend(frame::batch_message(self.rows, listing, body_bytes)?);
        let metadata_bytes = prologue.len() - message_start;
        let body = prologue.len()..add(prologue.len(), body_bytes)?;
        // `frame` refused metadata longer than an i32.
        let block = Block::new(message_start as i64, metadata_bytes as i32, body_bytes as i64);
        let tail = frame::tail(&self.schema, &[], &[block])?;
        add(body.end, tail.len())?;
        Ok(Parts { prologue, body, tail })
    }
}

/// Where the buffers of one column lie, in bytes from the start of the object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// One bit per row, 1 where there is a value; empty where the column is not nullable.
    pub validity: Range<usize>,
    /// Of a string or binary column, where each value begins in `values`, and where the last one ends.
    pub offsets: Option<Range<usize>>,
    /// The values; of a string or binary column the room for their bytes.
    pub values: Range<usize>,
}

/// The file around the columns.
struct Parts {
    prologue: Vec<u8>,
    body: Range<usize>,
    tail: Vec<u8>,
}

impl Capacity {
    /// The buffers in the order of the format, and whether each is the values.
    fn buffers(&self) -> impl Iterator<Item = (usize, bool)> + use<> {
        let offsets = self.offsets.map(|bytes| (bytes, false));
        [Some((self.validity, false)), offsets, Some((self.values, true))].into_iter().flatten()
    }
}

/// What a column of this type needs without its validity, or `None` if it cannot be built in place.
fn capacity(data_type: &DataType, rows: usize) -> Result<Option<Capacity>, BuildError> {
    let product = |count: usize, width: usize| count.checked_mul(width).ok_or(EncodeError::TooLarge { bytes: count });
    if let Some(width) = offset_width(data_type) {
        let offsets = Some(product(add(rows, 1)?, width)?);
        return Ok(Some(Capacity { offsets, ..Capacity::default() }));
    }
    let values = match (data_type, fixed_width(data_type)) {
        (DataType::Boolean, _) => rows.div_ceil(8),
        (_, Some((width, _))) => product(rows, width)?,
        _ => return Ok(None),
    };
    Ok(Some(Capacity { values, ..Capacity::default() }))
}

fn offset_width(data_type: &DataType) -> Option<usize> {
    match data_type {
        DataType::Utf8 | DataType::Binary => Some(4),
        DataType::LargeUtf8 | DataType::LargeBinary => Some(8),
        _ => None,
    }
}

/// A batch being filled in place.
#[derive(Debug)]
pub struct BatchBuilder<'a> {
    plan: BatchPlan,
    prologue: &'a mut [u8],
    columns: Vec<Column<'a>>,
}

impl<'a> BatchBuilder<'a> {
    /// Lays `plan` out over `out`, which is as long as the plan says and starts aligned. All rows
    /// of nullable columns are valid until said otherwise.
    pub fn new(plan: BatchPlan, out: &'a mut [u8]) -> Result<Self, BuildError> {
        let mut builder = Self::over(plan, out)?;
        // Half-built bytes are not to be taken for a table.
        builder.prologue.fill(0);
        builder.columns.iter_mut().for_each(Column::clear);
        Ok(builder)
    }

    /// Over bytes that [`BatchBuilder::new`] laid out by the same plan and whose columns were filled
    /// since, each in its [`Places`]. Of what was written the offsets are checked here, as the lengths
    /// follow from them; the rest by who reads the table.
    pub fn of_filled(plan: BatchPlan, out: &'a mut [u8]) -> Result<Self, BuildError> {
        let mut builder = Self::over(plan, out)?;
        builder.columns.iter_mut().try_for_each(Column::take_as_filled)?;
        Ok(builder)
    }

    /// The columns in their places, and the file's tail written.
    fn over(plan: BatchPlan, out: &'a mut [u8]) -> Result<Self, BuildError> {
        let parts = plan.parts(&plan.listing(None)?)?;
        let planned = parts.body.end + parts.tail.len();
        if out.len() != planned {
            return Err(BuildError::OutputLength { actual: out.len(), planned });
        }
        let misaligned_bytes = out.as_ptr().addr() % ALIGNMENT;
        if misaligned_bytes != 0 {
            return Err(BuildError::Misaligned { misaligned_bytes, alignment: ALIGNMENT });
        }
        let (prologue, rest) = out.split_at_mut(parts.body.start);
        let (mut body, tail) = rest.split_at_mut(parts.body.len());
        tail.copy_from_slice(&parts.tail);
        let fields = plan.schema.fields().iter().zip(&plan.columns).enumerate();
        let columns = fields
            .map(|(number, (field, capacity))| Column {
                number,
                data_type: field.data_type().clone(),
                rows: plan.rows,
                validity: field.is_nullable().then(|| take(&mut body, capacity.validity)).or_else(|| {
                    take(&mut body, 0);
                    None
                }),
                offsets: capacity.offsets.map(|bytes| take(&mut body, bytes)),
                values: take(&mut body, capacity.values),
                is_written: false,
                appended: 0,
                appended_bytes: 0,
            })
            .collect();
        Ok(Self { plan, prologue, columns })
    }

    /// One column.
    pub fn column(&mut self, column: usize) -> Result<&mut Column<'a>, BuildError> {
        let columns = self.columns.len();
        self.columns.get_mut(column).ok_or(BuildError::NoSuchColumn { column, columns })
    }

    /// All columns, to fill several at once.
    pub fn columns(&mut self) -> &mut [Column<'a>] {
        &mut self.columns
    }

    /// The values of a fixed-width column.
    pub fn primitive<T: ArrowPrimitiveType>(&mut self, column: usize) -> Result<&mut [T::Native], BuildError> {
        self.column(column)?.primitive::<T>()
    }

    /// Completes the metadata; now the bytes are a table.
    pub fn finish(mut self) -> Result<(), BuildError> {
        self.columns.iter().try_for_each(Column::check_complete)?;
        self.columns.iter_mut().for_each(Column::pad);
        let listing = self.plan.listing(Some(&self.columns))?;
        let parts = self.plan.parts(&listing)?;
        self.prologue.copy_from_slice(&parts.prologue);
        Ok(())
    }
}

/// Cuts a buffer off the front of the body, and the padding behind it, which becomes zero.
fn take<'a>(body: &mut &'a mut [u8], bytes: usize) -> &'a mut [u8] {
    let (buffer, rest) = std::mem::take(body).split_at_mut(bytes);
    let padding = bytes.next_multiple_of(ALIGNMENT) - bytes;
    let (padding, rest) = rest.split_at_mut(padding);
    padding.fill(0);
    *body = rest;
    buffer
}

/// One column of a batch being filled.
#[derive(Debug)]
pub struct Column<'a> {
    number: usize,
    data_type: DataType,
    rows: usize,
    validity: Option<&'a mut [u8]>,
    offsets: Option<&'a mut [u8]>,
    values: &'a mut [u8],
    is_written: bool,
    appended: usize,
    appended_bytes: usize,
}

impl Column<'_> {
    /// The column's type.
    pub fn data_type(&self) -> &DataType {
        &self.data_type
    }

    /// The values of a fixed-width column. They start as whatever was in the memory.
    pub fn primitive<T: ArrowPrimitiveType>(&mut self) -> Result<&mut [T::Native], BuildError> {
        let wrong_type = self.wrong_type();
        if !PrimitiveArray::<T>::is_compatible(&self.data_type) {
            return Err(wrong_type);
        }
        let values = native::values_mut::<T::Native>(self.values).ok_or(wrong_type)?;
        self.is_written = true;
        Ok(values)
    }

    /// The values of a fixed-size binary column, one after the other.
    pub fn fixed_size_binary(&mut self) -> Result<&mut [u8], BuildError> {
        if !matches!(self.data_type, DataType::FixedSizeBinary(_)) {
            return Err(self.wrong_type());
        }
        self.is_written = true;
        Ok(self.values)
    }

    /// The values of a boolean column, all false at first.
    pub fn booleans(&mut self) -> Result<BitsMut<'_>, BuildError> {
        if self.data_type != DataType::Boolean {
            return Err(self.wrong_type());
        }
        self.is_written = true;
        Ok(BitsMut { bits: self.values, rows: self.rows })
    }

    /// Which rows are valid, all at first.
    pub fn validity(&mut self) -> Result<BitsMut<'_>, BuildError> {
        let column = self.number;
        let bits = self.validity.as_deref_mut().ok_or(BuildError::NotNullable { column })?;
        Ok(BitsMut { bits, rows: self.rows })
    }

    /// Appends a string to a string or binary column.
    pub fn append_str(&mut self, value: &str) -> Result<(), BuildError> {
        self.append(value.as_bytes())
    }

    /// Appends bytes to a binary column.
    pub fn append_bytes(&mut self, value: &[u8]) -> Result<(), BuildError> {
        if !matches!(self.data_type, DataType::Binary | DataType::LargeBinary) {
            return Err(self.wrong_type());
        }
        self.append(value)
    }

    /// Appends a null to a nullable string or binary column.
    pub fn append_null(&mut self) -> Result<(), BuildError> {
        if self.offsets.is_none() {
            return Err(self.wrong_type());
        }
        let row = self.appended;
        if row >= self.rows {
            return Err(BuildError::TooManyValues { column: self.number, rows: self.rows });
        }
        self.validity()?.set(row, false)?;
        self.append(&[])
    }

    fn append(&mut self, value: &[u8]) -> Result<(), BuildError> {
        let (column, rows) = (self.number, self.rows);
        let wrong_type = self.wrong_type();
        let offsets = self.offsets.as_deref_mut().ok_or(wrong_type)?;
        if self.appended >= rows {
            return Err(BuildError::TooManyValues { column, rows });
        }
        let free = &mut self.values[self.appended_bytes..];
        let (requested_bytes, free_bytes) = (value.len(), free.len());
        let place = free.get_mut(..value.len());
        let place = place.ok_or(BuildError::OutOfSpace { column, requested_bytes, free_bytes })?;
        place.copy_from_slice(value);
        self.appended += 1;
        self.appended_bytes += value.len();
        write_offset(offsets, rows, self.appended, self.appended_bytes);
        Ok(())
    }

    fn wrong_type(&self) -> BuildError {
        BuildError::WrongType { column: self.number, data_type: self.data_type.clone() }
    }

    /// Sets what must not be left as whatever was in the memory.
    fn clear(&mut self) {
        let rows = self.rows;
        if let Some(validity) = &mut self.validity {
            validity.fill(0xff);
            clear_behind(validity, rows);
        }
        if let Some(offsets) = &mut self.offsets {
            write_offset(offsets, rows, 0, 0);
        }
        if self.data_type == DataType::Boolean {
            self.values.fill(0);
        }
    }

    /// Takes what somebody else wrote for the column's content.
    fn take_as_filled(&mut self) -> Result<(), BuildError> {
        self.is_written = true;
        if let Some(validity) = &mut self.validity {
            clear_behind(validity, self.rows);
        }
        if let Some(offsets) = &self.offsets {
            self.appended_bytes = checked_end(offsets, self.rows, self.values.len())
                .map_err(|row| BuildError::Offset { column: self.number, row, value_bytes: self.values.len() })?;
            self.appended = self.rows;
        }
        Ok(())
    }

    fn check_complete(&self) -> Result<(), BuildError> {
        let (column, rows) = (self.number, self.rows);
        match self.offsets {
            Some(_) if self.appended < rows => Err(BuildError::TooFewValues { column, values: self.appended, rows }),
            None if !self.is_written && rows > 0 => Err(BuildError::NotWritten { column }),
            _ => Ok(()),
        }
    }

    fn pad(&mut self) {
        let used = self.used_bytes();
        self.values[used..].fill(0);
    }

    fn used_bytes(&self) -> usize {
        if self.offsets.is_some() { self.appended_bytes } else { self.values.len() }
    }

    fn null_count(&self) -> usize {
        let Some(validity) = &self.validity else {
            return 0;
        };
        let valid: usize = validity.iter().map(|byte| byte.count_ones() as usize).sum();
        self.rows - valid
    }
}

/// Offset `i` of `rows` + 1. The plan bounded the values of a 32-bit column to what fits.
fn write_offset(offsets: &mut [u8], rows: usize, i: usize, offset: usize) {
    let width = offsets.len() / (rows + 1);
    let bytes = (offset as u64).to_le_bytes();
    offsets[i * width..(i + 1) * width].copy_from_slice(&bytes[..width]);
}

/// Where the last value ends, if the offsets begin at 0, never fall, and stay within the values; else
/// the first that does not.
fn checked_end(offsets: &[u8], rows: usize, value_bytes: usize) -> Result<usize, usize> {
    let mut end = 0;
    for (row, bytes) in offsets.chunks_exact(offsets.len() / (rows + 1)).enumerate() {
        let mut word = [0; 8];
        word[..bytes.len()].copy_from_slice(bytes);
        let offset = u64::from_le_bytes(word);
        let is_next = if row == 0 { offset == 0 } else { (end as u64..=value_bytes as u64).contains(&offset) };
        end = is_next.then_some(offset as usize).ok_or(row)?;
    }
    Ok(end)
}

fn clear_behind(bits: &mut [u8], rows: usize) {
    if let Some(last) = bits.last_mut().filter(|_| !rows.is_multiple_of(8)) {
        *last &= (1 << (rows % 8)) - 1;
    }
}

/// One bit per row.
#[derive(Debug)]
pub struct BitsMut<'a> {
    bits: &'a mut [u8],
    rows: usize,
}

impl BitsMut<'_> {
    /// Sets the bit of one row.
    pub fn set(&mut self, row: usize, value: bool) -> Result<(), BuildError> {
        let rows = self.rows;
        let byte = self.bits.get_mut(row / 8).filter(|_| row < rows);
        let byte = byte.ok_or(BuildError::NoSuchRow { row, rows })?;
        *byte = *byte & !(1 << (row % 8)) | u8::from(value) << (row % 8);
        Ok(())
    }

    /// Sets the bits from row 0 on, one per item, and returns how many there were. Items beyond
    /// the last row are an error.
    pub fn fill(&mut self, values: impl IntoIterator<Item = bool>) -> Result<usize, BuildError> {
        let mut count = 0;
        for value in values {
            self.set(count, value)?;
            count += 1;
        }
        Ok(count)
    }
}
