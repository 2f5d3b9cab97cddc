//! Numbers for Prometheus: one page of text, on a port of 127.0.0.1 alone.
//!
//! The one thing to know: whoever can reach the port may be a web page in somebody's browser, so a
//! request counts only if its `Host` is ours and no foreign `Origin` stands in it; the page is read
//! only and nothing else is there. It is parsed by `httparse`, the parser of hyper, because a whole
//! HTTP server is more than one page that is asked for every 15 seconds needs. This file must not
//! measure anything.

use crate::guarded::spawn;
use raylet_api::Demand;
use raylet_api::inside::SummaryReply;
use raylet_api::message::StatusReply;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::future::Future;
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// Bytes of a request's head.
const HEAD_BYTES_MAX: usize = 8 << 10;
const HEADERS_COUNT_MAX: usize = 64;
/// Connections at once; more wait in the kernel.
const CONNECTION_COUNT_MAX: usize = 8;
/// How long one may take from its beginning to its end.
const CONNECTION_TIME: Duration = Duration::from_secs(5);
/// How long to wait when the process or the system has no descriptor left.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(50);

/// Takes the port; 0 takes a free one. Returns which.
pub(crate) fn bind(port: u16) -> io::Result<(std::net::TcpListener, u16)> {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    listener.set_nonblocking(true)?;
    let port = listener.local_addr()?.port();
    Ok((listener, port))
}

/// Answers for ever. `text` makes the page; without one the raylet is ending.
pub(crate) async fn serve<F, Text>(listener: std::net::TcpListener, text: F) -> io::Result<()>
where
    F: Fn() -> Text + Send + Sync + 'static,
    Text: Future<Output = Option<String>> + Send,
{
    let port = listener.local_addr()?.port();
    let listener = TcpListener::from_std(listener)?;
    let (text, room) = (Arc::new(text), Arc::new(Semaphore::new(CONNECTION_COUNT_MAX)));
    loop {
        let permit = room.clone().acquire_owned().await.expect("nobody closes it");
        match listener.accept().await {
            Ok((stream, _)) => {
                let text = text.clone();
                spawn(async move {
                    // One that takes too long, or breaks, is nobody's loss but its own.
                    let _ = tokio::time::timeout(CONNECTION_TIME, talk(stream, port, &*text)).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection for metrics could not be accepted");
                tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
            }
        }
    }
}

async fn talk<F, Text>(mut stream: TcpStream, port: u16, text: &F) -> io::Result<()>
where
    F: Fn() -> Text,
    Text: Future<Output = Option<String>>,
{
    let mut head = Vec::with_capacity(1024);
    let verdict = loop {
        if let Some(verdict) = judge(&head, port) {
            break verdict;
        }
        if stream.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    };
    let response = match verdict {
        Verdict::Page => match text().await {
            Some(text) => response("200 OK", &text),
            None => response("503 Service Unavailable", "the raylet is ending\n"),
        },
        Verdict::Refused(status, reason) => response(status, reason),
    };
    stream.write_all(response.as_bytes()).await?;
    stream.shutdown().await
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Page,
    Refused(&'static str, &'static str),
}

/// What a request gets, once its head is whole; `None` before.
fn judge(head: &[u8], port: u16) -> Option<Verdict> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_COUNT_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(head) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) if head.len() <= HEAD_BYTES_MAX => return None,
        Ok(httparse::Status::Partial) => {
            return Some(Verdict::Refused("431 Request Header Fields Too Large", "the request is too long\n"));
        }
        Err(_) => return Some(Verdict::Refused("400 Bad Request", "this is no request\n")),
    }
    if !is_for_us(request.headers, port) {
        return Some(Verdict::Refused("403 Forbidden", "only for programs of this machine that mean it\n"));
    }
    let verdict = match (request.method, request.path) {
        (Some("GET"), Some("/metrics")) => Verdict::Page,
        (Some("GET"), _) => Verdict::Refused("404 Not Found", "there is only /metrics\n"),
        _ => Verdict::Refused("405 Method Not Allowed", "there is only GET /metrics\n"),
    };
    Some(verdict)
}

/// One `Host` that is this machine's own name for us, and no `Origin` but that. A page whose name
/// was pointed at 127.0.0.1 still sends its own.
fn is_for_us(headers: &[httparse::Header<'_>], port: u16) -> bool {
    let of = |name: &'static str| headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name));
    let is_ours = |value: &[u8]| {
        let value = std::str::from_utf8(value).unwrap_or_default();
        let (host, with_port) = value.rsplit_once(':').unwrap_or((value, ""));
        ["127.0.0.1", "localhost"].contains(&host) && with_port.parse() == Ok(port)
    };
    let is_own_origin = |value: &[u8]| value.strip_prefix(b"http://").is_some_and(is_ours);
    of("host").count() == 1
        && of("host").all(|header| is_ours(header.value))
        && of("origin").all(|header| is_own_origin(header.value))
}

fn response(status: &str, body: &str) -> String {
    let allow = if status.starts_with("405") { "Allow: GET\r\n" } else { "" };
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n\
         Content-Length: {}\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n\
         {allow}Connection: close\r\n\r\n{body}",
        body.len()
    )
}

/// A page in the making.
struct Page(String);

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "# HELP raylet_{name} {help}\n# TYPE raylet_{name} {kind}");
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Into<f64>) {
        self.head(name, "gauge", help);
        let _ = writeln!(self.0, "raylet_{name} {}", value.into());
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.head(name, "counter", help);
        let _ = writeln!(self.0, "raylet_{name} {value}");
    }

    fn gauges(&mut self, name: &str, help: &str, label: &str, values: impl IntoIterator<Item = (String, f64)>) {
        self.head(name, "gauge", help);
        for (value, number) in values {
            let _ = writeln!(self.0, "raylet_{name}{{{label}=\"{}\"}} {number}", escaped(&value));
        }
    }
}

/// A label's value as the format wants it.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// The page. Counts of bytes and objects beyond 2^53 lose their last digits, as everywhere in the format.
pub(crate) fn text(status: &StatusReply, summary: &SummaryReply) -> String {
    let mut page = Page(String::with_capacity(8 << 10));
    store(&mut page, status);
    work(&mut page, summary);
    resources(&mut page, summary);
    page.0
}

fn store(page: &mut Page, status: &StatusReply) {
    let store = &status.store;
    page.gauge("uptime_seconds", "Since the raylet was ready.", status.uptime_ms as f64 / 1e3);
    let gauges = [
        ("store_capacity_bytes", "Bytes of the data segment.", store.capacity_bytes),
        ("store_used_bytes", "Bytes that objects have in memory.", store.used_bytes),
        ("store_unused_bytes", "Bytes that clients own and no object has.", store.unused_bytes),
        ("store_free_bytes", "Bytes nobody owns.", store.free_bytes),
        ("store_resident_bytes", "Bytes of the data segment the kernel has given memory to.", store.resident_bytes),
        ("store_metadata_bytes", "Bytes of the tables the kernel has given memory to.", store.metadata_bytes),
        ("store_spilled_bytes", "Bytes of objects that are on disk only.", store.spilled_bytes),
        ("store_objects", "Live objects.", store.object_count),
        ("store_spilled_objects", "Live objects that are on disk only.", store.spilled_object_count),
        ("clients", "Clients of the store, the raylet included.", u64::from(store.client_count)),
        ("connections", "Open connections.", status.connection_count),
    ];
    gauges.into_iter().for_each(|(name, help, value)| page.gauge(name, help, value as f64));
    page.counter("clients_swept_total", "Clients that left or died and were swept.", store.swept_client_count);
    page.counter("holds_swept_total", "Holds that sweeps gave back.", store.swept_hold_count);
    page.counter("connections_bad_total", "Connections closed for bad bytes.", status.bad_connection_count);
    for (name, value) in store.counters.iter().filter(|(name, _)| name.starts_with("objects_")) {
        page.counter(&format!("{name}_total"), "Counted by the store.", *value);
    }
}

fn work(page: &mut Page, summary: &SummaryReply) {
    let live = summary.submitted_task_count.saturating_sub(summary.ended_task_count);
    let pending = live.saturating_sub(summary.running_task_count) + summary.queued_record_count;
    let running = summary.running_task_count + summary.claimed_record_count;
    let tasks = [("PENDING", pending), ("RUNNING", running)];
    let tasks = tasks.map(|(state, count)| (state.to_owned(), count as f64));
    page.gauges("tasks", "Tasks and calls that have not ended, but for those their callers keep.", "state", tasks);
    page.counter("tasks_submitted_total", "Tasks through the raylet.", summary.submitted_task_count);
    page.counter("tasks_ended_total", "Tasks through the raylet that ended.", summary.ended_task_count);
    page.gauges("workers", "Workers by what they do.", "state", by_state(&summary.workers));
    page.gauge("workers_blocked", "Workers that sleep until an object is there.", summary.blocked_worker_count as f64);
    page.gauge("workers_max", "Workers there may be.", summary.worker_count_max as f64);
    page.gauges("actors", "Actors by where they are.", "state", by_state(&summary.actors));
    page.gauges("placement_groups", "Placement groups by where they are.", "state", by_state(&summary.groups));
    page.gauge("jobs", "Jobs that are not over.", summary.jobs.len() as f64);
    for (name, value) in &summary.counters {
        page.counter(&format!("{name}_total"), "Counted by the raylet.", *value);
    }
}

fn resources(page: &mut Page, summary: &SummaryReply) {
    page.gauges("resource_capacity", "How much there is.", "resource", wholes(&summary.capacity));
    page.gauges("resource_used", "How much is in use or reserved.", "resource", wholes(&summary.used));
}

fn by_state<T: Serialize>(counts: &BTreeMap<T, u64>) -> Vec<(String, f64)> {
    let name = |state: &T| serde_json::to_value(state).ok().and_then(|name| Some(name.as_str()?.to_owned()));
    counts.iter().filter_map(|(state, count)| Some((name(state)?, *count as f64))).collect()
}

fn wholes(demand: &Demand) -> Vec<(String, f64)> {
    demand.iter().map(|(name, &amount)| (name.clone(), raylet_api::inside::in_wholes(name, amount))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use raylet_api::inside::{ActorState, WorkerState};
    use std::io::{Read, Write as _};

    fn check(head: &str, expected: Option<&str>) {
        let found = judge(head.as_bytes(), 9000).map(|verdict| match verdict {
            Verdict::Page => "200",
            Verdict::Refused(status, _) => &status[..3],
        });
        assert_eq!(found, expected, "{head:?}");
    }

    #[test]
    fn only_those_who_mean_us_get_the_page() {
        let head = |line: &str, headers: &str| format!("{line} HTTP/1.1\r\n{headers}\r\n");
        let get = |headers: &str| head("GET /metrics", headers);
        check(&get("Host: 127.0.0.1:9000\r\n"), Some("200"));
        check(&get("host: localhost:9000\r\nOrigin: http://localhost:9000\r\n"), Some("200"));
        check(&get(""), Some("403"));
        check(&get("Host: evil.example:9000\r\n"), Some("403"));
        check(&get("Host: 127.0.0.1:9001\r\n"), Some("403"));
        check(&get("Host: 127.0.0.1\r\n"), Some("403"));
        check(&get("Host: 127.0.0.1:9000\r\nHost: 127.0.0.1:9000\r\n"), Some("403"));
        check(&get("Host: 127.0.0.1:9000\r\nOrigin: https://evil.example\r\n"), Some("403"));
        check(&get("Host: 127.0.0.1:9000\r\nOrigin: null\r\n"), Some("403"));
        check(&head("POST /metrics", "Host: 127.0.0.1:9000\r\n"), Some("405"));
        check(&head("GET /", "Host: 127.0.0.1:9000\r\n"), Some("404"));
        check("GET /metrics HT", None);
        check("\u{1}\u{2}\r\n\r\n", Some("400"));
        check(&format!("GET /metrics HTTP/1.1\r\nX: {}", "x".repeat(HEAD_BYTES_MAX)), Some("431"));
    }

    #[test]
    fn the_page_names_every_number() {
        let summary = SummaryReply {
            capacity: [("CPU".to_owned(), 20_000), ("ta\"pe".to_owned(), 5_000)].into(),
            submitted_task_count: 10,
            ended_task_count: 4,
            running_task_count: 1,
            queued_record_count: 7,
            workers: [(WorkerState::Idle, 2)].into(),
            actors: [(ActorState::Alive, 3)].into(),
            counters: [("worker_deaths".to_owned(), 5)].into(),
            ..SummaryReply::default()
        };
        let text = text(&StatusReply::default(), &summary);
        for line in [
            "raylet_store_spilled_bytes 0",
            "raylet_tasks{state=\"PENDING\"} 12",
            "raylet_tasks{state=\"RUNNING\"} 1",
            "raylet_workers{state=\"IDLE\"} 2",
            "raylet_actors{state=\"ALIVE\"} 3",
            "raylet_worker_deaths_total 5",
            "raylet_resource_capacity{resource=\"CPU\"} 2",
            "raylet_resource_capacity{resource=\"ta\\\"pe\"} 0.5",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
        let mut names: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count, "each metric once");
    }

    #[test]
    fn a_page_is_served_over_a_socket_of_this_machine_alone() {
        let (listener, port) = bind(0).unwrap();
        assert!(listener.local_addr().unwrap().ip().is_loopback());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let asked = std::thread::spawn(move || {
            let mut stream = std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
            write!(stream, "GET /metrics HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        });
        let (done, mut ended) = tokio::sync::oneshot::channel();
        let waiter = std::thread::spawn(move || {
            let answer = asked.join().unwrap();
            let _ = done.send(());
            answer
        });
        runtime.block_on(async {
            tokio::select! {
                served = serve(listener, || async { Some("raylet_clients 1\n".to_owned()) }) => served.unwrap(),
                _ = &mut ended => {}
            }
        });
        let answer = waiter.join().unwrap();
        assert!(
            answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nraylet_clients 1\n"),
            "{answer}"
        );
    }
}
