//! Descriptors over Unix sockets.
//!
//! The one thing to know: what arrives is closed on exec from the first instant, and nothing leaks:
//! if not all of it fits, all of it is closed and the call fails. It must not know what the payload
//! says, or keep state between messages.

use std::io::{self, IoSlice};
use std::mem::{self, size_of};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use thiserror::Error;

/// The kernel's limit (`SCM_MAX_FD`) for one message.
pub const FDS_MAX: usize = 253;

/// What can go wrong when sending or receiving descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FdError {
    /// Descriptors travel with a byte of payload; there was none.
    #[error("descriptors need at least one byte of payload")]
    EmptyPayload,
    /// More than the kernel takes in one message.
    #[error("{count} descriptors are more than one message can carry ({limit})")]
    TooManyFds {
        /// How many were to be sent or received.
        count: usize,
        /// How many are possible.
        limit: usize,
    },
    /// The peer sent more descriptors, or other ancillary data, than was asked for. What came is
    /// closed.
    #[error("more than the {limit} expected descriptors came")]
    FdsTruncated {
        /// How many were expected at most.
        limit: usize,
    },
    /// A message was longer than the buffer. Not on byte streams. What came with it is closed.
    #[error("the message is longer than {limit} bytes")]
    PayloadTruncated {
        /// Size of the buffer.
        limit: usize,
    },
    /// Any other refusal of the kernel.
    #[error("{call} failed")]
    System {
        /// The system call.
        call: &'static str,
        /// What the kernel said.
        source: Errno,
    },
}

impl FdError {
    /// Whether a non-blocking socket was just not ready.
    pub fn would_block(&self) -> bool {
        let source = Errno::EAGAIN;
        matches!(self, FdError::System { source: found, .. } if *found == source)
    }
}

impl From<FdError> for io::Error {
    fn from(error: FdError) -> io::Error {
        match error {
            FdError::System { source, .. } => source.into(),
            other => io::Error::new(io::ErrorKind::InvalidData, other),
        }
    }
}

/// Sends payload and descriptors as one message; says how many bytes of the payload went. On a byte
/// stream that may be a part, and the descriptors went with it: send the rest without them.
pub fn send_fds(sock: BorrowedFd<'_>, payload: &[u8], fds: &[BorrowedFd<'_>]) -> Result<usize, FdError> {
    check_count(fds.len())?;
    if payload.is_empty() {
        return Err(FdError::EmptyPayload);
    }
    let raw: Vec<RawFd> = fds.iter().map(|fd| fd.as_raw_fd()).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control = if raw.is_empty() { &[][..] } else { &rights[..] };
    let parts = [IoSlice::new(payload)];
    loop {
        match sendmsg::<()>(sock.as_raw_fd(), &parts, control, MsgFlags::MSG_NOSIGNAL, None) {
            Err(Errno::EINTR) => {}
            outcome => return outcome.map_err(system("sendmsg")),
        }
    }
}

/// Receives payload into `buf` and at most `max_fds` descriptors. Zero bytes mean that the peer is
/// gone.
pub fn recv_fds(sock: BorrowedFd<'_>, buf: &mut [u8], max_fds: usize) -> Result<(usize, Vec<OwnedFd>), FdError> {
    check_count(max_fds)?;
    if buf.is_empty() {
        return Err(FdError::EmptyPayload);
    }
    let (bytes, flags, fds) = receive(sock, buf, max_fds)?;
    if flags & libc::MSG_CTRUNC != 0 {
        return Err(FdError::FdsTruncated { limit: max_fds });
    }
    if flags & libc::MSG_TRUNC != 0 {
        return Err(FdError::PayloadTruncated { limit: buf.len() });
    }
    Ok((bytes, fds))
}

fn check_count(count: usize) -> Result<(), FdError> {
    if count > FDS_MAX {
        let limit = FDS_MAX;
        return Err(FdError::TooManyFds { count, limit });
    }
    Ok(())
}

fn system(call: &'static str) -> impl Fn(Errno) -> FdError {
    move |source| FdError::System { call, source }
}

/// One `recvmsg`; takes ownership of whatever came before anybody looks at the flags. nix's own
/// function forgets the descriptors of a truncated message.
fn receive(sock: BorrowedFd<'_>, buf: &mut [u8], max_fds: usize) -> Result<(usize, i32, Vec<OwnedFd>), FdError> {
    let mut control = control_buffer(max_fds);
    let mut part = libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() };
    // SAFETY: all zeros is a valid msghdr: null pointers and no lengths.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    header.msg_iov = ptr::from_mut(&mut part);
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    // Exactly so long that one descriptor more is a truncation: padded, it would fit.
    header.msg_controllen = control_bytes(max_fds) as _;
    let bytes = recvmsg(sock, &mut header).map_err(system("recvmsg"))?;
    // SAFETY: the kernel has just filled the header, and its buffers are still there.
    let fds = unsafe { take_fds(&header) };
    Ok((bytes, header.msg_flags, fds))
}

fn recvmsg(sock: BorrowedFd<'_>, header: &mut libc::msghdr) -> Result<usize, Errno> {
    loop {
        // SAFETY: the header's pointers and lengths describe buffers that outlive the call.
        let result = unsafe { libc::recvmsg(sock.as_raw_fd(), header, libc::MSG_CMSG_CLOEXEC) };
        match Errno::result(result) {
            Err(Errno::EINTR) => {}
            outcome => return outcome.map(|bytes| bytes as usize),
        }
    }
}

/// Room for the control message, in words that have the alignment of its header.
fn control_buffer(max_fds: usize) -> Vec<u64> {
    vec![0; control_bytes(max_fds).div_ceil(size_of::<u64>())]
}

fn control_bytes(max_fds: usize) -> usize {
    if max_fds == 0 {
        return 0;
    }
    let payload_bytes = (max_fds * size_of::<RawFd>()) as libc::c_uint;
    // SAFETY: only arithmetic.
    unsafe { libc::CMSG_LEN(payload_bytes) as usize }
}

/// Owns the descriptors of a received message.
///
/// # Safety
///
/// The kernel filled the header, nobody took its descriptors before, and its buffers live.
unsafe fn take_fds(header: &libc::msghdr) -> Vec<OwnedFd> {
    let mut fds = Vec::new();
    // SAFETY: walks the control messages inside the buffer, as the kernel laid them out.
    unsafe {
        let mut message = libc::CMSG_FIRSTHDR(header);
        while let Some(current) = message.as_ref() {
            if (current.cmsg_level, current.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
                let header_bytes = libc::CMSG_LEN(0) as usize;
                let payload_bytes = current.cmsg_len.saturating_sub(header_bytes);
                let first = libc::CMSG_DATA(message).cast::<RawFd>();
                for index in 0..payload_bytes / size_of::<RawFd>() {
                    fds.push(OwnedFd::from_raw_fd(first.add(index).read_unaligned()));
                }
            }
            message = libc::CMSG_NXTHDR(header, message);
        }
    }
    fds
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use nix::fcntl::{FcntlArg, FdFlag, fcntl};
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

    use super::*;

    fn pipe() -> (File, File) {
        let (reader, writer) = nix::unistd::pipe().unwrap();
        (reader.into(), writer.into())
    }

    /// Sends the writing ends of `count` pipes and says what the receiver gets with `max_fds`; then
    /// every pipe must read as ended: no descriptor is left open anywhere.
    fn check_transfer(count: usize, max_fds: usize) -> Result<usize, FdError> {
        let (left, right) = UnixStream::pair().unwrap();
        let (readers, writers): (Vec<_>, Vec<_>) = (0..count).map(|_| pipe()).unzip();
        let fds: Vec<_> = writers.iter().map(File::as_fd).collect();
        assert_eq!(send_fds(left.as_fd(), b"hello", &fds), Ok(5));
        drop(writers);
        let mut buf = [0; 16];
        let outcome = recv_fds(right.as_fd(), &mut buf, max_fds);
        let outcome = outcome.map(|(bytes, fds)| {
            assert_eq!(&buf[..bytes], b"hello");
            check_fds(&fds);
            fds.len()
        });
        for mut reader in readers {
            let mut rest = Vec::new();
            reader.read_to_end(&mut rest).unwrap();
        }
        outcome
    }

    fn check_fds(fds: &[OwnedFd]) {
        for fd in fds {
            let flags = FdFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFD).unwrap());
            assert!(flags.contains(FdFlag::FD_CLOEXEC));
            File::from(fd.try_clone().unwrap()).write_all(b"x").unwrap();
        }
    }

    #[test]
    fn descriptors_arrive_usable_and_closed_on_exec() {
        assert_eq!(check_transfer(1, 1), Ok(1));
        assert_eq!(check_transfer(3, 8), Ok(3));
        assert_eq!(check_transfer(FDS_MAX, FDS_MAX), Ok(FDS_MAX));
    }

    #[test]
    fn payload_without_descriptors_arrives() {
        assert_eq!(check_transfer(0, 0), Ok(0));
        assert_eq!(check_transfer(0, 4), Ok(0));
    }

    #[test]
    fn more_descriptors_than_expected_are_closed_and_refused() {
        for (count, limit) in [(1, 0), (2, 1), (3, 2), (9, 4)] {
            let expected = Err(FdError::FdsTruncated { limit });
            assert_eq!(check_transfer(count, limit), expected);
        }
    }

    #[test]
    fn too_long_message_is_refused_and_its_descriptors_closed() {
        let kind = SockType::SeqPacket;
        let flags = SockFlag::SOCK_CLOEXEC;
        let (left, right) = socketpair(AddressFamily::Unix, kind, None, flags).unwrap();
        let (mut reader, writer) = pipe();
        send_fds(left.as_fd(), b"hello", &[writer.as_fd()]).unwrap();
        drop(writer);
        let outcome = recv_fds(right.as_fd(), &mut [0; 2], 1);
        assert_eq!(outcome.unwrap_err(), FdError::PayloadTruncated { limit: 2 });
        assert_eq!(reader.read(&mut [0; 1]).unwrap(), 0);
    }

    #[test]
    fn peer_that_is_gone_reads_as_zero_bytes() {
        let (left, right) = UnixStream::pair().unwrap();
        drop(left);
        let (bytes, fds) = recv_fds(right.as_fd(), &mut [0; 4], 1).unwrap();
        assert_eq!((bytes, fds.len()), (0, 0));
        let error = send_fds(right.as_fd(), b"x", &[]).unwrap_err();
        let call = "sendmsg";
        let source = Errno::EPIPE;
        assert_eq!(error, FdError::System { call, source });
    }

    #[test]
    fn impossible_requests_are_typed_errors() {
        let (left, right) = UnixStream::pair().unwrap();
        let fd = left.as_fd();
        let limit = FDS_MAX;
        let count = limit + 1;
        let too_many = FdError::TooManyFds { count, limit };
        assert_eq!(send_fds(fd, b"x", &vec![fd; count]), Err(too_many));
        let outcome = recv_fds(fd, &mut [0; 1], count);
        assert_eq!(outcome.unwrap_err(), too_many);
        assert_eq!(send_fds(fd, b"", &[fd]), Err(FdError::EmptyPayload));
        right.set_nonblocking(true).unwrap();
        let outcome = recv_fds(right.as_fd(), &mut [0; 1], 1);
        assert!(outcome.unwrap_err().would_block());
    }
}
