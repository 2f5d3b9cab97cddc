//! The corpus: which files, in which order, in which portions, and how a portion becomes a batch.
//!
//! The one thing to know: everything is decided before anything is read: files are sorted, bounded and
//! cut into portions here, so that whoever runs the portions, in whatever order, works on the same
//! batches. A file that cannot be read, or is no text, is left out when its turn comes. This file
//! must not know operators.

use super::operators::{OperatorError, Texts, batch, numbers};
use arrow_array::RecordBatch;
use arrow_array::types::Int32Type;
use raylet_client::Value;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Larger files are data rather than text.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// Directories of the standard library that are not part of it.
const FOREIGN: &[&str] = &["site-packages", "dist-packages", "__pycache__"];

/// There is nothing to read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum CorpusError {
    /// A folder that was given cannot be read.
    #[error("{} cannot be read: {source}", path.display())]
    Folder {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// No folder was given, and neither default is on this machine.
    #[error("neither Python's library nor Rust's documentation was found: give a folder with text")]
    NoDefault,
    /// All folders together have no file that fits.
    #[error("{folders} folders have no file of at most {max_bytes} bytes")]
    Empty {
        /// How many folders.
        folders: usize,
        /// The bound on all files together.
        max_bytes: u64,
    },
}

/// Where files come from.
#[derive(Debug, Clone)]
pub(crate) struct Root {
    /// The folder.
    pub(crate) path: PathBuf,
    /// The end of the names of its files that are wanted; none: all.
    end: Option<&'static str>,
}

impl Root {
    /// All files of a folder, or a file.
    pub(crate) fn folder(path: PathBuf) -> Root {
        Root { path, end: None }
    }
}

/// How much to read, and how often.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Bytes of files, each once.
    pub(crate) max_bytes: u64,
    /// How often the files are read.
    pub(crate) repeat: u32,
    /// As often as it takes to so many bytes; goes before `repeat`.
    pub(crate) to_bytes: Option<u64>,
    /// Bytes of a portion.
    pub(crate) portion_bytes: u64,
}

/// A file to read.
#[derive(Debug, Clone)]
struct Entry {
    path: String,
    bytes: u64,
}

/// All files in order, and the portions that they are worked on in.
#[derive(Debug)]
pub(crate) struct Corpus {
    /// Where they come from.
    pub(crate) roots: Vec<Root>,
    /// The path of each file, by its number.
    pub(crate) paths: Vec<String>,
    /// What is worked on, in order.
    pub(crate) portions: Vec<Portion>,
    /// Bytes of all portions.
    pub(crate) bytes: u64,
    /// How often the files are in it, the last time perhaps not all of them.
    pub(crate) copies: u32,
}

/// Some files that become one batch.
#[derive(Debug, Clone, Serialize, Deserialize, Value)]
pub(crate) struct Portion {
    /// Which copy of the corpus, from 0.
    pub(crate) copy: i32,
    /// The number of the first file.
    pub(crate) first_file: i32,
    /// The files, which have consecutive numbers.
    pub(crate) paths: Vec<String>,
    /// Their bytes, as listed.
    pub(crate) bytes: u64,
}

impl Corpus {
    /// Lists and cuts. Two calls give the same while nobody changes the files.
    pub(crate) fn find(roots: Vec<Root>, bounds: &Bounds) -> Result<Corpus, CorpusError> {
        let roots = if roots.is_empty() { default_roots()? } else { roots };
        let lists = roots.iter().map(list).collect::<Result<Vec<_>, _>>()?;
        let files = bounded(lists, bounds.max_bytes);
        let bytes: u64 = files.iter().map(|file| file.bytes).sum();
        if bytes == 0 {
            return Err(CorpusError::Empty { folders: roots.len(), max_bytes: bounds.max_bytes });
        }
        let wanted = bounds.to_bytes.unwrap_or(bytes * u64::from(bounds.repeat.max(1)));
        let portions = portions(&files, wanted, bounds.portion_bytes);
        let copies = portions.last().map_or(0, |portion| portion.copy as u32 + 1);
        let bytes = portions.iter().map(|portion| portion.bytes).sum();
        let paths = files.into_iter().map(|file| file.path).collect();
        Ok(Corpus { roots, paths, portions, bytes, copies })
    }
}

/// Python's library and Rust's documentation, where they are installed.
fn default_roots() -> Result<Vec<Root>, CorpusError> {
    let library = said(Command::new("python3").args(["-c", "import sysconfig; print(sysconfig.get_path('stdlib'))"]));
    let sysroot = said(Command::new("rustc").args(["--print", "sysroot"]));
    let documentation = sysroot.map(|root| root.join("share/doc/rust/html"));
    let python = library.map(|path| Root { path, end: Some(".py") });
    let rust = documentation.map(|path| Root { path, end: Some(".html") });
    let found: Vec<Root> = [python, rust].into_iter().flatten().filter(|root| root.path.is_dir()).collect();
    if found.is_empty() { Err(CorpusError::NoDefault) } else { Ok(found) }
}

/// The path that a program prints.
fn said(command: &mut Command) -> Option<PathBuf> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(PathBuf::from(text.trim()))
}

/// The files below a root, sorted by path. What cannot be listed below it is left out.
fn list(root: &Root) -> Result<Vec<Entry>, CorpusError> {
    let failed = |source| CorpusError::Folder { path: root.path.clone(), source };
    let mut found = Vec::new();
    if root.path.is_dir() {
        std::fs::read_dir(&root.path).map_err(failed)?;
        list_directory(&root.path, &mut found);
    } else {
        let bytes = root.path.metadata().map_err(failed)?.len();
        found.extend(root.path.to_str().map(|path| Entry { path: path.to_owned(), bytes }));
    }
    found.retain(|file| root.end.is_none_or(|end| file.path.ends_with(end)));
    found.sort_unstable_by(|left, right| left.path.cmp(&right.path));
    Ok(found)
}

fn list_directory(directory: &Path, found: &mut Vec<Entry>) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        // Of a link it is the link's own type: no loop is followed.
        let Ok(kind) = entry.file_type() else { continue };
        let is_foreign = entry.file_name().to_str().is_none_or(|name| FOREIGN.contains(&name));
        if kind.is_dir() && !is_foreign {
            list_directory(&entry.path(), found);
        } else if kind.is_file()
            && let Some(path) = entry.path().to_str().map(str::to_owned)
            && let Ok(bytes) = entry.metadata().map(|data| data.len())
            && (1..=FILE_BYTES_MAX).contains(&bytes)
        {
            found.push(Entry { path, bytes });
        }
    }
}

/// The first files of each root. Each may have an equal part of the bytes, and what smaller ones
/// leave of theirs.
fn bounded(lists: Vec<Vec<Entry>>, max_bytes: u64) -> Vec<Entry> {
    let total = |list: &Vec<Entry>| list.iter().map(|file| file.bytes).sum::<u64>();
    let mut by_size: Vec<usize> = (0..lists.len()).collect();
    by_size.sort_by_key(|at| total(&lists[*at]));
    let (mut left_bytes, mut allowed) = (max_bytes, vec![0; lists.len()]);
    for (done, at) in by_size.iter().enumerate() {
        let part = left_bytes / (lists.len() - done) as u64;
        allowed[*at] = part;
        left_bytes -= part.min(total(&lists[*at]));
    }
    let lists = lists.into_iter().zip(allowed);
    lists.flat_map(|(list, allowed)| fitting(list, allowed)).collect()
}

/// Files in order, but for those that would be too much.
fn fitting(list: Vec<Entry>, allowed: u64) -> impl Iterator<Item = Entry> {
    let mut left_bytes = allowed;
    list.into_iter().filter(move |file| {
        let fits = file.bytes <= left_bytes;
        left_bytes -= if fits { file.bytes } else { 0 };
        fits
    })
}

/// The files cut into portions, again and again until there are so many bytes.
fn portions(files: &[Entry], wanted_bytes: u64, portion_bytes: u64) -> Vec<Portion> {
    let mut portions: Vec<Portion> = Vec::new();
    let mut bytes = 0;
    for copy in 0.. {
        let mut is_new = true;
        for (number, file) in files.iter().enumerate() {
            if bytes >= wanted_bytes {
                return portions;
            }
            if is_new {
                portions.push(Portion { copy, first_file: number as i32, paths: Vec::new(), bytes: 0 });
            }
            let portion = portions.last_mut().expect("the first file of a copy makes one");
            portion.paths.push(file.path.clone());
            portion.bytes += file.bytes;
            bytes += file.bytes;
            is_new = portion.bytes >= portion_bytes;
        }
    }
    portions
}

/// What reading a portion gave.
pub(crate) struct Portioned {
    /// A row for each file that is text.
    pub(crate) documents: RecordBatch,
    /// Bytes read from files, those of the skipped ones too.
    pub(crate) bytes: u64,
    /// Files that are no text, or could not be read.
    pub(crate) skipped: u64,
}

impl Portion {
    /// Reads the files: their text where the batch will have it, without a copy in between.
    pub(crate) fn read(&self) -> Result<Portioned, OperatorError> {
        let rows = self.paths.len();
        let (mut files, mut paths) = (Vec::with_capacity(rows), Texts::with_capacity(rows, rows * 64));
        // One byte more than all files have: the end of the last is seen without moving the others.
        let mut texts = Texts::with_capacity(rows, self.bytes as usize + 64);
        let mut bytes = 0;
        for (number, path) in (self.first_file..).zip(&self.paths) {
            bytes += append_file(path, &mut texts);
            if texts.open_bytes() > 0 {
                texts.close();
                files.push(number);
                paths.open().push_str(path);
                paths.close();
            }
        }
        let skipped = (rows - files.len()) as u64;
        let copies = vec![self.copy; files.len()];
        let documents = batch(vec![
            ("file", numbers::<Int32Type>(files)),
            ("copy", numbers::<Int32Type>(copies)),
            ("path", paths.finish()?),
            ("text", texts.finish()?),
        ])?;
        Ok(Portioned { documents, bytes, skipped })
    }
}

/// Appends the text of a file, nothing if it has none; gives its bytes.
fn append_file(path: &str, texts: &mut Texts) -> u64 {
    let open = texts.open();
    let start = open.len();
    let bytes = match File::open(path).and_then(|mut file| file.read_to_string(open)) {
        Ok(bytes) => bytes,
        Err(_) => append_lossy(path, open),
    };
    if memchr::memchr(0, &open.as_bytes()[start..]).is_some() {
        open.truncate(start);
    }
    bytes as u64
}

/// As far as it is text: what is not becomes a character that says so.
fn append_lossy(path: &str, out: &mut String) -> usize {
    let bytes = std::fs::read(path).unwrap_or_default();
    out.push_str(&String::from_utf8_lossy(&bytes));
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::super::operators::texts;
    use super::*;

    const ALL: Bounds = Bounds { max_bytes: 1 << 20, repeat: 1, to_bytes: None, portion_bytes: 100 };

    /// A folder with files of these sizes, `00`, `01` and so on.
    fn folder(sizes: &[usize]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (number, size) in sizes.iter().enumerate() {
            std::fs::write(folder.path().join(format!("{number:02}")), "x".repeat(*size)).unwrap();
        }
        folder
    }

    fn find(folders: &[&tempfile::TempDir], bounds: &Bounds) -> Corpus {
        let roots = folders.iter().map(|folder| Root::folder(folder.path().to_owned())).collect();
        Corpus::find(roots, bounds).unwrap()
    }

    fn shape(corpus: &Corpus) -> Vec<(i32, i32, usize)> {
        corpus.portions.iter().map(|portion| (portion.copy, portion.first_file, portion.paths.len())).collect()
    }

    #[test]
    fn files_are_cut_into_portions_in_order() {
        let corpus = find(&[&folder(&[60, 50, 0, 300, 1])], &ALL);
        assert_eq!(shape(&corpus), [(0, 0, 2), (0, 2, 1), (0, 3, 1)]);
        assert_eq!((corpus.bytes, corpus.copies, corpus.paths.len()), (411, 1, 4));
    }

    #[test]
    fn a_corpus_is_repeated_to_a_number_of_bytes() {
        let folder = folder(&[60, 50, 100]);
        let corpus = find(&[&folder], &Bounds { to_bytes: Some(500), ..ALL });
        assert_eq!(shape(&corpus), [(0, 0, 2), (0, 2, 1), (1, 0, 2), (1, 2, 1), (2, 0, 2)]);
        assert_eq!((corpus.bytes, corpus.copies, corpus.paths.len()), (530, 3, 3));
        assert_eq!(find(&[&folder], &Bounds { repeat: 2, ..ALL }).copies, 2);
    }

    #[test]
    fn small_roots_leave_room_to_large_ones() {
        let [small, large] = [folder(&[100]), folder(&[200, 900, 300])];
        let corpus = find(&[&large, &small], &Bounds { max_bytes: 700, ..ALL });
        let names: Vec<_> = corpus.paths.iter().map(|path| path.rsplit('/').next().unwrap()).collect();
        assert_eq!(names, ["00", "02", "00"], "900 bytes do not fit, the others do");
    }

    #[test]
    fn what_is_no_text_is_left_out_and_counted() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
        file("a", b"text");
        file("b", b"\x7fELF\0");
        file("c", b"caf\xe9");
        file("d", b"gone");
        let corpus = find(&[&folder], &ALL);
        std::fs::remove_file(folder.path().join("d")).unwrap();
        let read = corpus.portions[0].read().unwrap();
        let found: Vec<_> = texts(&read.documents, "text").unwrap().iter().flatten().collect();
        assert_eq!(found, ["text", "caf\u{fffd}"]);
        assert_eq!((read.bytes, read.skipped), (13, 2));
    }

    #[test]
    fn nothing_to_read_is_an_error() {
        let none = Corpus::find(vec![Root::folder("/does/not/exist".into())], &ALL).unwrap_err();
        assert!(matches!(none, CorpusError::Folder { .. }), "{none}");
        let roots = vec![Root::folder(folder(&[]).path().to_owned())];
        assert!(Corpus::find(roots, &ALL).is_err());
    }
}
