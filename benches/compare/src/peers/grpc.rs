//! A unary gRPC echo by `tonic` over a Unix socket, between two pinned processes.
//!
//! Setting: the payload travels as it is, without protobuf, in frames of 1 MiB and the widest windows;
//! one runtime on one thread at each end; one call at a time. A sample is the call with the
//! payload there and back.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Buf, BufMut, Bytes};
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio::runtime::Runtime;
use tonic::body::Body;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::tokio_stream::wrappers::UnixListenerStream;
use tonic::codegen::{Service, http};
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status};

use crate::child::{HARNESS_CORE, OTHER_CORE, OwnedChild, end_with_parent, pin_to_core};
use crate::error::BenchError;
use crate::plan::Made;
use crate::run::Bench;
use crate::scratch;

/// The largest that HTTP/2 has.
const WINDOW_BYTES: u32 = (1 << 31) - 1;
/// The fastest for 64 MiB: by default frames are 16 KiB and take twice the time, 16 MiB are slower again.
const FRAME_BYTES: u32 = 1 << 20;
/// Written to the socket at once.
const BUFFER_BYTES: usize = 1 << 20;
/// How long the other end may take to listen.
const SILENCE: Duration = Duration::from_secs(10);

/// Echoes of `payload`, `count` a round.
pub fn contender(payload: Bytes, count: usize, bench: &Bench) -> Made {
    let mut pair = Pair::start()?;
    let count = bench.effort.count(count);
    Ok(Some(Box::new(move || {
        pin_to_core(HARNESS_CORE);
        (0..count).map(|_| pair.echo(&payload)).collect()
    })))
}

struct Pair {
    runtime: Runtime,
    calls: tonic::client::Grpc<Channel>,
    _other: OwnedChild,
    // Removed when the socket in it is no longer needed.
    _directory: TempDir,
}

impl Pair {
    fn start() -> Result<Self, BenchError> {
        let directory = scratch::on_disk()?;
        let socket = directory.path().join("grpc");
        let core = OTHER_CORE.to_string();
        let other = OwnedChild::start_role(&["grpc-echo", "--socket", &socket.display().to_string(), "--core", &core])?;
        await_socket(&socket)?;
        let runtime = runtime()?;
        let channel = runtime.block_on(connect(&socket)).map_err(refused("connect"))?;
        let calls = tonic::client::Grpc::new(channel)
            .max_decoding_message_size(usize::MAX)
            .max_encoding_message_size(usize::MAX);
        Ok(Self { runtime, calls, _other: other, _directory: directory })
    }

    fn echo(&mut self, payload: &Bytes) -> Result<f64, BenchError> {
        let calls = &mut self.calls;
        let start = Instant::now();
        let answer = self.runtime.block_on(async {
            calls.ready().await.map_err(refused("a channel"))?;
            let path = http::uri::PathAndQuery::from_static("/bench.Echo/Echo");
            let answer = calls.unary(Request::new(payload.clone()), path, AsItIs).await;
            answer.map_err(refused("a call"))
        })?;
        let nanos = start.elapsed().as_nanos() as f64;
        check_echo(payload, answer.get_ref())?;
        Ok(nanos)
    }
}

fn check_echo(expected: &Bytes, found: &Bytes) -> Result<(), BenchError> {
    let (expected, found) = (expected.len() as u64, found.len() as u64);
    (expected == found).then_some(()).ok_or(BenchError::WrongBytes { expected, found })
}

fn await_socket(socket: &Path) -> Result<(), BenchError> {
    let start = Instant::now();
    while !socket.exists() {
        if start.elapsed() > SILENCE {
            return Err(BenchError::Silent { waited_ms: SILENCE.as_millis() as u64 });
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

async fn connect(socket: &Path) -> Result<Channel, tonic::transport::Error> {
    Endpoint::from_shared(format!("unix://{}", socket.display()))?
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES)
        .connect()
        .await
}

fn runtime() -> Result<Runtime, BenchError> {
    let built = tokio::runtime::Builder::new_current_thread().enable_all().build();
    built.map_err(BenchError::system("a runtime"))
}

fn refused<E: std::error::Error + Send + Sync + 'static>(step: &'static str) -> impl FnOnce(E) -> BenchError {
    move |error| BenchError::Grpc { step, source: Box::new(error) }
}

/// The other end; ends with the harness.
pub fn echo(socket: &Path, core: usize, parent: u32) -> Result<(), BenchError> {
    end_with_parent(parent)?;
    pin_to_core(core);
    runtime()?.block_on(async {
        // Bound under another name first, so that whoever sees the socket can connect.
        let hidden = socket.with_extension("new");
        let listener = UnixListener::bind(&hidden).map_err(BenchError::system("a socket"))?;
        std::fs::rename(&hidden, socket).map_err(BenchError::system("a socket's name"))?;
        Server::builder()
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .max_frame_size(FRAME_BYTES)
            .serve_with_incoming(EchoServer, UnixListenerStream::new(listener))
            .await
            .map_err(refused("serve"))
    })
}

type Answer<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

/// Speaks HTTP.
#[derive(Clone)]
struct EchoServer;

impl Service<http::Request<Body>> for EchoServer {
    type Response = http::Response<Body>;
    type Error = std::convert::Infallible;
    type Future = Answer<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let mut grpc = tonic::server::Grpc::new(AsItIs)
            .max_decoding_message_size(usize::MAX)
            .max_encoding_message_size(usize::MAX);
        Box::pin(async move { Ok(grpc.unary(Echo, request).await) })
    }
}

/// Answers with what it got.
struct Echo;

impl Service<Request<Bytes>> for Echo {
    type Response = Response<Bytes>;
    type Error = Status;
    type Future = Answer<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        Box::pin(async move { Ok(Response::new(request.into_inner())) })
    }
}

/// A message is its bytes.
#[derive(Clone, Copy)]
struct AsItIs;

impl Codec for AsItIs {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for AsItIs {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER_BYTES, BUFFER_BYTES)
    }
}

impl Decoder for AsItIs {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER_BYTES, BUFFER_BYTES)
    }
}
