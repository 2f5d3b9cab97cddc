//! `raylet logs`: what workers wrote, from the files in the session's directory.
//!
//! The one thing to know: a file's name tells its worker, and a full file becomes the older one under
//! another name, so whoever follows looks at the file again, not only at its end. Nothing is asked of
//! the raylet but which worker an actor is. This file must not change the files.

use super::{CliError, SessionOptions, pages};
use crate::ask::Asker;
use crate::{logs, session};
use clap::Args;
use raylet_api::address::{self, AddressError};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often files that are followed are looked at.
const LOOK_AGAIN_DELAY: Duration = Duration::from_millis(50);

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    session: SessionOptions,
    /// Only this worker: its number or its pid
    #[arg(long, value_name = "ID", conflicts_with = "actor")]
    worker: Option<u64>,
    /// Only the worker that is the actor of this name
    #[arg(long, value_name = "NAME")]
    actor: Option<String>,
    /// Go on with what is written from now, until the raylet ends
    #[arg(long, short)]
    follow: bool,
    /// Only the last lines of each worker, so many
    #[arg(long, value_name = "COUNT")]
    tail: Option<usize>,
}

/// A worker's file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Source {
    worker: u64,
    pid: u32,
    path: PathBuf,
}

pub(super) fn run(options: &Options) -> Result<(), CliError> {
    let session = options.session.directory()?;
    if !session::is_held(&session)? {
        let path = session.join(address::SOCKET_NAME);
        return Err(AddressError::NotRunning { path }.into());
    }
    let wanted = wanted(options, &session)?;
    let directory = session.join(logs::DIRECTORY);
    let found = sources(&directory, wanted).map_err(|source| CliError::File { path: directory.clone(), source })?;
    if let (Some(wanted), true, false) = (wanted, found.is_empty(), options.follow) {
        let known = sources(&directory, None).map_or(0, |all| all.len());
        return Err(CliError::NoSuchWorker { wanted, known });
    }
    let mut printer = Printer { wanted, tail: options.tail, seen: BTreeMap::new(), out: io::stdout() };
    match printer.follow(&session, &directory, options.follow) {
        // Whoever stopped listening has what they wanted.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        printed => printed.map_err(|source| CliError::File { path: directory, source }),
    }
}

/// The number or pid that is asked for.
fn wanted(options: &Options, session: &Path) -> Result<Option<u64>, CliError> {
    let Some(name) = &options.actor else { return Ok(options.worker) };
    let mut worker = None;
    pages::each_actor(&mut Asker::connect(session)?, |actor| {
        if actor.name.as_ref() == Some(name) && actor.worker.is_some() {
            worker = actor.worker;
        }
        worker.is_none()
    })?;
    worker.map(Some).ok_or_else(|| CliError::NoSuchActor { name: name.clone() })
}

/// The files there are, in the order of their workers. None have written where there is no directory.
fn sources(directory: &Path, wanted: Option<u64>) -> io::Result<Vec<Source>> {
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let Some((worker, pid)) = logs::parse_file_name(name) else { continue };
        if wanted.is_none_or(|wanted| wanted == worker || wanted == u64::from(pid)) {
            found.push(Source { worker, pid, path });
        }
    }
    found.sort();
    Ok(found)
}

/// How far a file has been printed.
#[derive(Debug)]
struct Seen {
    file: File,
    inode: u64,
    /// What came after the last newline.
    rest: Vec<u8>,
    /// Several workers' lines are told apart; one's are as they were written.
    label: String,
}

struct Printer<W> {
    wanted: Option<u64>,
    tail: Option<usize>,
    seen: BTreeMap<PathBuf, Seen>,
    out: W,
}

impl<W: Write> Printer<W> {
    /// Prints what there is, and what comes for as long as the raylet runs where that is asked for.
    fn follow(&mut self, session: &Path, directory: &Path, follow: bool) -> io::Result<()> {
        loop {
            // Looked at before the files, so that what was written last is printed.
            let is_over = !follow || !session::is_held(session).unwrap_or(false);
            for source in sources(directory, self.wanted)? {
                self.print(&source)?;
            }
            self.out.flush()?;
            if is_over {
                return self.finish();
            }
            // What was there before the first look is over; everything that comes is new.
            self.tail = None;
            std::thread::sleep(LOOK_AGAIN_DELAY);
        }
    }

    /// Prints what was written to one file since it was looked at last.
    fn print(&mut self, source: &Source) -> io::Result<()> {
        // Gone between the listing and now: its worker ended long ago.
        let Ok(file) = File::open(&source.path) else { return Ok(()) };
        let inode = file.metadata()?.ino();
        match self.seen.get_mut(&source.path) {
            None => {
                let label = match self.wanted {
                    Some(_) => String::new(),
                    None => format!("(worker {} pid={}) ", source.worker, source.pid),
                };
                let mut seen = Seen { file, inode, rest: Vec::new(), label };
                seen.print_first(&logs::older(&source.path), self.tail, &mut self.out)?;
                self.seen.insert(source.path.clone(), seen);
            }
            Some(seen) => {
                seen.print_new(&mut self.out)?;
                if seen.inode != inode {
                    // The one that was read is the older one now.
                    (seen.file, seen.inode) = (file, inode);
                    seen.print_new(&mut self.out)?;
                }
            }
        }
        Ok(())
    }

    /// Lines without an end are printed as well.
    fn finish(&mut self) -> io::Result<()> {
        for seen in self.seen.values_mut().filter(|seen| !seen.rest.is_empty()) {
            let rest = std::mem::take(&mut seen.rest);
            write_line(&mut self.out, &seen.label, &rest)?;
        }
        self.out.flush()
    }
}

impl Seen {
    /// What there is in the older and the newer file, or the last lines of it.
    fn print_first(&mut self, older: &Path, tail: Option<usize>, out: &mut impl Write) -> io::Result<()> {
        let mut bytes = match std::fs::read(older) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            read => read?,
        };
        self.file.read_to_end(&mut bytes)?;
        let end = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        self.rest = bytes.split_off(end);
        let lines: Vec<&[u8]> = bytes.split_inclusive(|&byte| byte == b'\n').collect();
        let skip = tail.map_or(0, |tail| lines.len().saturating_sub(tail));
        lines.iter().skip(skip).try_for_each(|line| write_line(out, &self.label, &line[..line.len() - 1]))
    }

    fn print_new(&mut self, out: &mut impl Write) -> io::Result<()> {
        let mut reader = BufReader::new(&self.file);
        while reader.read_until(b'\n', &mut self.rest)? > 0 {
            if self.rest.pop_if(|byte| *byte == b'\n').is_some() {
                write_line(out, &self.label, &self.rest)?;
                self.rest.clear();
            }
        }
        Ok(())
    }
}

fn write_line(out: &mut impl Write, label: &str, line: &[u8]) -> io::Result<()> {
    out.write_all(label.as_bytes())?;
    out.write_all(line)?;
    out.write_all(b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixture {
        directory: tempfile::TempDir,
        printer: Printer<Vec<u8>>,
    }

    impl Fixture {
        fn new(wanted: Option<u64>, tail: Option<usize>) -> Fixture {
            let directory = tempfile::tempdir().unwrap();
            Fixture { directory, printer: Printer { wanted, tail, seen: BTreeMap::new(), out: Vec::new() } }
        }

        fn path(&self, worker: u64) -> PathBuf {
            self.directory.path().join(logs::file_name(worker, 70 + worker as u32))
        }

        fn append(&self, worker: u64, text: &str) {
            let mut file = File::options().append(true).create(true).open(self.path(worker)).unwrap();
            file.write_all(text.as_bytes()).unwrap();
        }

        /// What one look prints.
        fn look(&mut self) -> String {
            for source in sources(self.directory.path(), self.printer.wanted).unwrap() {
                self.printer.print(&source).unwrap();
            }
            String::from_utf8(std::mem::take(&mut self.printer.out)).unwrap()
        }
    }

    #[test]
    fn what_is_written_later_is_printed_once_it_is_a_line() {
        let mut fixture = Fixture::new(None, None);
        fixture.append(1, "one\ntwo\nthr");
        assert_eq!(fixture.look(), "(worker 1 pid=71) one\n(worker 1 pid=71) two\n");
        fixture.append(1, "ee\n");
        fixture.append(2, "other\nopen");
        assert_eq!(fixture.look(), "(worker 1 pid=71) three\n(worker 2 pid=72) other\n");
        assert_eq!(fixture.look(), "");
        fixture.printer.finish().unwrap();
        assert_eq!(fixture.look(), "(worker 2 pid=72) open\n");
    }

    #[test]
    fn one_worker_is_found_by_number_and_pid_and_printed_plainly() {
        for wanted in [2, 72] {
            let mut fixture = Fixture::new(Some(wanted), Some(1));
            fixture.append(1, "not this\n");
            fixture.append(2, "first\n\nlast\n");
            assert_eq!(fixture.look(), "last\n");
        }
    }

    #[test]
    fn a_file_that_was_full_goes_on_in_the_next() {
        let mut fixture = Fixture::new(Some(1), None);
        fixture.append(1, "a\n");
        assert_eq!(fixture.look(), "a\n");
        fixture.append(1, "b\nc");
        std::fs::rename(fixture.path(1), logs::older(&fixture.path(1))).unwrap();
        fixture.append(1, "c\nd\n");
        assert_eq!(fixture.look(), "b\ncc\nd\n");
        let mut late = Fixture { printer: Fixture::new(Some(1), Some(3)).printer, ..fixture };
        assert_eq!(late.look(), "b\ncc\nd\n");
    }
}
