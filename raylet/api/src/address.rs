//! Where a session's socket is, and how to reach it however long its path.
//!
//! The one thing to know: a socket address holds 107 bytes of path, a directory's path may be
//! longer. So the directory is opened and the socket named through `/proc/self/fd/<n>/`, which is
//! always short. This file must not create anything; the raylet does.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// The session of who names none.
pub const DEFAULT_SESSION: &str = "default";
/// The socket's name inside the session's directory.
pub const SOCKET_NAME: &str = "socket";
/// The variable that names the directory of all sessions.
pub const DIRECTORY_VARIABLE: &str = "RAYLET_DIR";
/// Bytes of a session's name at most.
pub const SESSION_BYTES_MAX: usize = 64;

/// What a socket address holds, the closing zero not counted.
const ADDRESS_BYTES_MAX: usize = 107;

/// Why there is no address, or nobody at it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// The name cannot be a session's.
    #[error(
        "{name:?} cannot name a session: 1 to {SESSION_BYTES_MAX} letters, digits, '-', '_' or '.', \
         the first of them no '.'"
    )]
    BadSessionName {
        /// The name as given.
        name: String,
    },
    /// No raylet listens there.
    #[error("no raylet runs at {}", path.display())]
    NotRunning {
        /// The socket.
        path: PathBuf,
    },
    /// The system said no.
    #[error("cannot reach the socket {}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
}

/// The directory of all sessions: `$RAYLET_DIR`, else `$XDG_RUNTIME_DIR/raylet-<uid>`, else
/// `/tmp/raylet-<uid>`. An empty or relative value counts as none.
pub fn base_directory() -> PathBuf {
    let variable = |name| std::env::var_os(name).map(PathBuf::from);
    let uid = nix::unistd::geteuid().as_raw();
    choose_base(variable(DIRECTORY_VARIABLE), variable("XDG_RUNTIME_DIR"), uid)
}

fn choose_base(chosen: Option<PathBuf>, runtime: Option<PathBuf>, uid: u32) -> PathBuf {
    if let Some(chosen) = chosen.filter(|path| path.is_absolute()) {
        return chosen;
    }
    let runtime = runtime.filter(|path| path.is_absolute());
    runtime.unwrap_or_else(|| "/tmp".into()).join(format!("raylet-{uid}"))
}

/// The directory of one session.
pub fn session_directory(base: &Path, session: &str) -> Result<PathBuf, AddressError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let good =
        (1..=SESSION_BYTES_MAX).contains(&session.len()) && session.bytes().all(plain) && !session.starts_with('.');
    match good {
        true => Ok(base.join(session)),
        false => Err(AddressError::BadSessionName { name: session.to_owned() }),
    }
}

/// Connects to the raylet of the session in `directory`; the stream blocks.
pub fn connect(directory: &Path) -> Result<UnixStream, AddressError> {
    let path = directory.join(SOCKET_NAME);
    match with_short_path(&path, |path| UnixStream::connect(path)) {
        Ok(stream) => Ok(stream),
        Err(source) => Err(match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => AddressError::NotRunning { path },
            _ => AddressError::Io { path, source },
        }),
    }
}

/// Calls `use_path` with a path to the same file that fits into a socket address.
pub fn with_short_path<T>(path: &Path, use_path: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    if path.as_os_str().as_bytes().len() <= ADDRESS_BYTES_MAX {
        return use_path(path);
    }
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return use_path(path);
    };
    let directory: File =
        OpenOptions::new().read(true).custom_flags(nix::fcntl::OFlag::O_DIRECTORY.bits()).open(directory)?;
    use_path(&Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn the_directory_is_the_first_that_is_set() {
        let path = |text: &str| Some(PathBuf::from(text));
        let check = |chosen, runtime, expected: &str| {
            assert_eq!(choose_base(chosen, runtime, 7), Path::new(expected));
        };
        check(path("/chosen"), path("/run"), "/chosen");
        check(path("relative"), path("/run"), "/run/raylet-7");
        check(None, path(""), "/tmp/raylet-7");
        check(None, None, "/tmp/raylet-7");
    }

    #[test]
    fn names_that_leave_the_directory_are_refused() {
        for name in ["", ".", "..", ".x", "a/b", "a b", "ä", &"x".repeat(65)] {
            let error = session_directory(Path::new("/base"), name).unwrap_err();
            assert!(matches!(error, AddressError::BadSessionName { .. }), "{name:?}");
        }
        let path = session_directory(Path::new("/base"), "my-1.x_y").unwrap();
        assert_eq!(path, Path::new("/base/my-1.x_y"));
    }

    #[test]
    fn a_socket_is_reached_however_long_its_path() {
        let base = tempfile::tempdir().unwrap();
        for depth in [1, 200] {
            let directory = base.path().join("d".repeat(depth));
            std::fs::create_dir(&directory).unwrap();
            let error = connect(&directory).unwrap_err();
            assert!(matches!(error, AddressError::NotRunning { .. }), "{error}");
            let path = directory.join(SOCKET_NAME);
            let listener = with_short_path(&path, |path| UnixListener::bind(path)).unwrap();
            connect(&directory).unwrap();
            listener.accept().unwrap();
            drop(listener);
            let error = connect(&directory).unwrap_err();
            assert!(matches!(error, AddressError::NotRunning { .. }), "{error}");
        }
    }
}
