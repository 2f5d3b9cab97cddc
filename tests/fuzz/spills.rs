//! Spill files, mutated.
//!
//! The one thing to know: a changed byte breaks a checksum, so half of the inputs have their
//! checksums put right again, or nothing behind them would ever be reached. The bytes go through a
//! real file, as they do in a store. It must not touch a disk.

use crate::Reader;
use crate::tally::{Depth, Tally};
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use store::arrow::fuzz::Mutator;
use store::spill_file::{self, ID_BYTES, SpillError};

const ID: [u8; ID_BYTES] = [5; ID_BYTES];
/// The header, and where its checksum is in it.
const HEADER_BYTES: usize = 64;
const HEADER_SUM_AT: usize = 60;
/// The largest value that an input is read into.
const VALUE_BYTES_MAX: usize = 4096;

/// Seeds, the file they are put into, and the last input.
pub(crate) struct Files {
    seeds: Vec<Vec<u8>>,
    file: File,
    path: PathBuf,
    bytes: Vec<u8>,
    value: Vec<u8>,
    sums: [u32; 256],
}

impl Files {
    pub(crate) fn new() -> Files {
        let sums = sums();
        let shapes = [(1 << 20, 0), (1 << 20, 1), (1 << 20, 1000), (1, 8), (7, 50), (64, 128), (100, 1001)];
        let seeds = shapes.map(|(block, value)| file_of(block, value, &sums)).into();
        let file: File = memfd_create(c"fuzz", MFdFlags::MFD_CLOEXEC).expect("there is memory").into();
        let path = format!("/proc/self/fd/{}", file.as_raw_fd()).into();
        Files { seeds, file, path, bytes: Vec::new(), value: vec![0; VALUE_BYTES_MAX], sums }
    }

    /// How long a value the reader asks for: mostly what the header says.
    fn value_bytes(&self, random: &mut Mutator) -> usize {
        let claimed = number(&self.bytes, 16, 8) as usize;
        match random.below(16) {
            0 => random.below(VALUE_BYTES_MAX),
            _ => claimed.min(VALUE_BYTES_MAX),
        }
    }

    fn read(&mut self, value_bytes: usize) -> Result<(), SpillError> {
        self.file.set_len(self.bytes.len() as u64).expect("there is memory");
        self.file.write_all_at(&self.bytes, 0).expect("there is memory");
        spill_file::read_into(&self.path, ID, &mut self.value[..value_bytes])
    }
}

impl Reader for Files {
    fn input(&mut self, random: &mut Mutator, tally: &mut Tally) {
        random.mutate(&self.seeds, &mut self.bytes);
        match random.below(4) {
            0 => put_right(&mut self.bytes, &self.sums, false),
            1..=2 => put_right(&mut self.bytes, &self.sums, true),
            _ => {}
        }
        let value_bytes = self.value_bytes(random);
        match self.read(value_bytes) {
            Ok(()) => {
                tally.depth(Depth::Accepted);
                tally.outcome("accepted");
            }
            Err(error) => {
                let is_first = matches!(error, SpillError::NotASpillFile { .. });
                let is_short = self.bytes.len() < HEADER_BYTES;
                tally.depth(if is_first || is_short { Depth::Refused } else { Depth::Entered });
                tally.error("", &error);
            }
        }
    }
}

/// A valid file with blocks of any size, as the format allows and the writer does not.
fn file_of(block_bytes: u32, value_bytes: usize, sums: &[u32; 256]) -> Vec<u8> {
    let mut bytes = b"RAYSPILL\x01\0\0\0".to_vec();
    bytes.extend(block_bytes.to_le_bytes());
    bytes.extend((value_bytes as u64).to_le_bytes());
    bytes.extend(ID);
    bytes.resize(HEADER_BYTES, 0);
    let blocks = value_bytes.div_ceil(block_bytes as usize);
    bytes.resize(HEADER_BYTES + value_bytes + 4 * blocks, 3);
    put_right(&mut bytes, sums, true);
    bytes
}

/// Puts the header's checksum right, and those of the blocks, as far as the bytes go.
fn put_right(bytes: &mut [u8], sums: &[u32; 256], with_blocks: bool) {
    if bytes.len() < HEADER_BYTES {
        return;
    }
    let sum = checksum(sums, &[&bytes[..HEADER_SUM_AT]]);
    bytes[HEADER_SUM_AT..HEADER_BYTES].copy_from_slice(&sum.to_le_bytes());
    let (block_bytes, mut left) = (number(bytes, 12, 4), number(bytes, 16, 8));
    let (header, mut rest) = bytes.split_at_mut(HEADER_BYTES);
    let id = &header[24..24 + ID_BYTES];
    for block in 0_u64.. {
        let length = block_bytes.min(left) as usize;
        if !with_blocks || length == 0 || rest.len() < length.saturating_add(4) {
            return;
        }
        let (value, behind) = rest.split_at_mut(length);
        let (sum, behind) = behind.split_at_mut(4);
        sum.copy_from_slice(&checksum(sums, &[id, &block.to_le_bytes(), value]).to_le_bytes());
        left -= length as u64;
        rest = behind;
    }
}

/// A little-endian number of the header; 0 where the bytes end before.
fn number(bytes: &[u8], at: usize, length: usize) -> u64 {
    let bytes = bytes.get(at..at + length).unwrap_or_default();
    bytes.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte))
}

/// The table of CRC-32, byte-wise.
fn sums() -> [u32; 256] {
    std::array::from_fn(|byte| (0..8).fold(byte as u32, |sum, _| sum >> 1 ^ if sum & 1 == 1 { 0xedb8_8320 } else { 0 }))
}

fn checksum(sums: &[u32; 256], parts: &[&[u8]]) -> u32 {
    let bytes = parts.iter().copied().flatten();
    !bytes.fold(u32::MAX, |sum, &byte| sums[(sum as u8 ^ byte) as usize] ^ sum >> 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_files_that_are_read() {
        let mut files = Files::new();
        for seed in files.seeds.clone() {
            files.bytes = seed;
            let value_bytes = number(&files.bytes, 16, 8) as usize;
            files.read(value_bytes).unwrap();
        }
    }
}
