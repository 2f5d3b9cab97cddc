//! Programs as users write them, against any engine: the same ones run in every mode.
//!
//! The one thing to know: a program gets a [`Raylet`] and asserts what users may rely on, so no
//! program depends on being in one process with its tasks, or on not being. To add one, write a
//! function and a line in [`PROGRAMS`]. This file must not know an engine.

// Each test target uses its part of this.
#![allow(dead_code)]

use arrow_array::{Array, Int64Array, RecordBatch};
use bytes::Bytes;
use raylet_client::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

pub(crate) type Program = fn(&Raylet) -> Result<()>;

/// All programs of tasks, by name.
pub(crate) const TASKS: &[(&str, Program)] = &[
    ("values of all kinds go there and back", values),
    ("what a parameter accepts", accepted),
    ("a diamond of dependent tasks", diamond),
    ("a chain of a thousand", chain),
    ("tasks that submit tasks", nested),
    ("recursion ends", recursion),
    ("errors are results", errors),
    ("a panic has its message and backtrace", panics),
    ("an error passes through who depends on it", errors_pass),
    ("references inside values", references_in_values),
    ("references in results outlive who made them", references_in_results),
    ("a batch is read where it lies", batches),
    ("several results", several_results),
    ("a wrong number of results is an error", wrong_number_of_results),
    ("a wrong type is an error", wrong_type),
    ("wait gives ready ones in order", wait),
    ("what asks for nonsense is refused", nonsense),
    ("options are accepted", options),
    ("async functions", async_functions),
    ("references can be awaited", awaited),
    ("objects end with their references", objects_end),
];

/// All programs of actors, by name.
pub(crate) const ACTORS: &[(&str, Program)] = &[
    ("an actor has state", state),
    ("calls of one handle run in order", order),
    ("async methods", async_methods),
    ("handles travel in arguments and values", handles_travel),
    ("actors call actors", actors_call_actors),
    ("a method fails and the actor lives", method_errors),
    ("a constructor fails", constructor_errors),
    ("a killed actor answers with errors", killed),
    ("names find actors", named),
    ("an actor ends with its last handle", actors_end),
    ("a handle of another class is refused", wrong_class),
];

pub(crate) fn run(programs: &[(&str, Program)], init: fn() -> Raylet) {
    for (name, program) in programs {
        println!("program: {name}");
        let outcome = program(&init());
        assert!(outcome.is_ok(), "{name}: {outcome:?}");
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Value)]
struct Point<T> {
    x: T,
    y: Option<T>,
}

#[derive(Serialize, Deserialize, Value)]
struct Inputs {
    label: String,
    parts: Vec<ObjectRef<u64>>,
}

#[remote]
fn echo_number(value: u64) -> u64 {
    value
}

#[remote]
#[expect(clippy::too_many_arguments, reason = "as many as there can be")]
fn echo_many(
    unit: (),
    small: i8,
    text: String,
    point: Point<f32>,
    map: BTreeMap<String, Vec<u16>>,
    bytes: Vec<u8>,
    frozen: Bytes,
    address: Serde<Ipv4Addr>,
) -> (i8, String, Point<f32>, BTreeMap<String, Vec<u16>>, usize) {
    let () = unit;
    (small, format!("{text} {}", address.0), point, map, bytes.len() + frozen.len())
}

fn values(ray: &Raylet) -> Result<()> {
    let point = Point { x: 1.5f32, y: None };
    let map = BTreeMap::from([("a".to_owned(), vec![1, 2, 3])]);
    let long = Bytes::from(vec![7; 100_000]);
    let echoed = echo_many::remote(ray, (), -3, "text", &point, &map, &[1, 2, 3], &long, Serde(Ipv4Addr::LOCALHOST))?;
    let expected = (-3, "text 127.0.0.1".to_owned(), point, map, 100_003);
    assert_eq!(ray.get(&echoed)?, expected);
    for len in [0, 1, 127, 128, 1023, 1024, 1025, 70_000] {
        let bytes = vec![9u8; len];
        assert_eq!(ray.get(&length::remote(ray, &bytes)?)?, len, "in the call or in an object of its own");
        assert_eq!(ray.get(&ray.put(&bytes)?)?, bytes);
    }
    ray.get(&ray.put(())?)?;
    assert_eq!(ray.get(&ray.put(u128::MAX)?)?, u128::MAX);
    assert_eq!(ray.get(&ray.put(Some("x".to_owned()))?)?.as_deref(), Some("x"));
    Ok(())
}

#[remote]
fn length(bytes: Vec<u8>) -> usize {
    bytes.len()
}

#[remote]
fn add(left: u64, right: u64) -> u64 {
    left + right
}

#[allow(clippy::needless_borrows_for_generic_args, reason = "it is about what is borrowed")]
fn accepted(ray: &Raylet) -> Result<()> {
    let one = ray.put(1u64)?;
    let owned: u64 = 2;
    let sums = [
        add::remote(ray, 1, owned)?,
        add::remote(ray, &1, &owned)?,
        add::remote(ray, &one, owned)?,
        add::remote(ray, one.clone(), &owned)?,
    ];
    assert_eq!(ray.get_all(&sums)?, [3; 4]);
    assert_eq!(add(1, 2), 3);
    Ok(())
}

fn diamond(ray: &Raylet) -> Result<()> {
    let top = add::remote(ray, 1, 1)?;
    let (left, right) = (add::remote(ray, &top, 10)?, add::remote(ray, &top, 20)?);
    let bottom = add::remote(ray, &left, &right)?;
    assert_eq!(ray.get(&bottom)?, 34);
    assert_eq!(ray.get_timeout(&top, Duration::from_secs(60))?, 2);
    Ok(())
}

fn chain(ray: &Raylet) -> Result<()> {
    let mut last = ray.put(0u64)?;
    for _ in 0..1000 {
        last = add::remote(ray, &last, 1)?;
    }
    assert_eq!(ray.get(&last)?, 1000);
    Ok(())
}

#[remote]
fn sum_of_squares(ray: &Raylet, count: u64) -> Result<u64> {
    let squares: Vec<_> = (0..count).map(|x| square::remote(ray, x)).collect::<Result<_, _>>()?;
    Ok(ray.get_all(&squares)?.iter().sum())
}

#[remote]
fn square(x: u64) -> u64 {
    // Without the parameter: who asks is known.
    let ray = Raylet::current().expect("this is a task");
    let once = echo_number::remote(&ray, x).expect("it fits");
    let again = ray.get(&once).expect("it is there");
    again * x
}

fn nested(ray: &Raylet) -> Result<()> {
    assert_eq!(ray.get(&sum_of_squares::remote(ray, 5)?)?, 30);
    Ok(())
}

#[remote]
fn factorial(ray: &Raylet, n: u64) -> Result<u64> {
    if n < 2 {
        return Ok(1);
    }
    let rest = factorial::remote(ray, n - 1)?;
    Ok(n * ray.get(&rest)?)
}

fn recursion(ray: &Raylet) -> Result<()> {
    assert_eq!(ray.get(&factorial::remote(ray, 20)?)?, 2_432_902_008_176_640_000);
    Ok(())
}

#[derive(Debug, thiserror::Error)]
#[error("{0} is odd")]
struct Odd(u64);

#[remote]
fn half(x: u64) -> std::result::Result<u64, Odd> {
    if x.is_multiple_of(2) { Ok(x / 2) } else { Err(Odd(x)) }
}

type Checked = std::result::Result<u64, String>;

#[remote]
fn checked(x: u64) -> Checked {
    half(x).map_err(|error| error.to_string())
}

fn failure<T: Value>(ray: &Raylet, object: &ObjectRef<T>) -> TaskError {
    match ray.get(object) {
        Err(FetchError::Task(error)) => error,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it has a value"),
    }
}

fn errors(ray: &Raylet) -> Result<()> {
    assert_eq!(ray.get(&half::remote(ray, 4)?)?, 2);
    let error = failure(ray, &half::remote(ray, 5)?);
    assert_eq!((error.kind(), error.message()), (TaskErrorKind::Returned, "5 is odd"));
    assert!(error.function().ends_with("programs::half"), "{}", error.function());
    // A type that is not written `Result` is a value like any other.
    let as_value: ObjectRef<Checked> = checked::remote(ray, 5)?;
    assert_eq!(ray.get(&as_value)?, Err("5 is odd".to_owned()));
    Ok(())
}

#[remote]
fn divide(left: u64, right: u64) -> u64 {
    assert!(right != 0, "{left} by nothing");
    left / right
}

fn panics(ray: &Raylet) -> Result<()> {
    let error = failure(ray, &divide::remote(ray, 7, 0)?);
    assert_eq!(error.kind(), TaskErrorKind::Panicked);
    assert!(error.message().starts_with("7 by nothing at "), "{}", error.message());
    assert!(error.message().contains("programs/mod.rs:"), "{}", error.message());
    let backtrace = error.backtrace().expect("a panic has one");
    assert!(backtrace.contains("programs/mod.rs"), "{backtrace}");
    assert!(!backtrace.contains("begin_unwind") && !backtrace.contains("catch_unwind"), "{backtrace}");
    assert_eq!(ray.get(&divide::remote(ray, 8, 2)?)?, 4, "life goes on");
    Ok(())
}

fn errors_pass(ray: &Raylet) -> Result<()> {
    let odd = half::remote(ray, 3)?;
    let sum = add::remote(ray, 1, &odd)?;
    let error = failure(ray, &add::remote(ray, &sum, 1)?);
    assert_eq!((error.kind(), error.message()), (TaskErrorKind::Returned, "3 is odd"));
    assert_eq!(error.passed().count(), 2);
    assert!(error.to_string().contains("so "), "{error}");
    Ok(())
}

#[remote]
fn sum_inputs(ray: &Raylet, inputs: Inputs) -> Result<(String, u64)> {
    Ok((inputs.label, ray.get_all(&inputs.parts)?.iter().sum()))
}

fn references_in_values(ray: &Raylet) -> Result<()> {
    let parts = vec![ray.put(1u64)?, add::remote(ray, 1, 1)?, ray.put(1u64)?];
    let parts = [parts.clone(), parts].concat();
    let inputs = ray.put(Inputs { label: "six".to_owned(), parts })?;
    // Only the container names them now.
    assert_eq!(ray.get(&sum_inputs::remote(ray, &inputs)?)?, ("six".to_owned(), 8));
    let inside = ray.get(&inputs)?;
    drop(inputs);
    assert_eq!(ray.get(&inside.parts[1])?, 2);
    // A reference that is itself the value: not awaited.
    let reference = ray.put(&inside.parts[0])?;
    let same: ObjectRef<u64> = ray.get(&reference)?;
    assert_eq!(same, inside.parts[0]);
    let elsewhere = serde_json::to_string(&same).unwrap_err().to_string();
    assert!(elsewhere.contains("travels only inside"), "{elsewhere}");
    Ok(())
}

#[remote]
fn range(ray: &Raylet, count: u64) -> Result<Vec<ObjectRef<u64>>> {
    Ok((0..count).map(|x| ray.put(x)).collect::<Result<_, _>>()?)
}

fn references_in_results(ray: &Raylet) -> Result<()> {
    let made = range::remote(ray, 1000)?;
    let refs = ray.get(&made)?;
    drop(made);
    assert_eq!(ray.get_all(&refs)?, (0..1000).collect::<Vec<u64>>());
    Ok(())
}

fn batch(count: i64) -> RecordBatch {
    let column = Arc::new(Int64Array::from_iter_values(0..count)) as Arc<dyn Array>;
    RecordBatch::try_from_iter([("n", column)]).expect("one column")
}

fn numbers(batch: &RecordBatch) -> &Int64Array {
    batch.column(0).as_any().downcast_ref().expect("it is of i64")
}

#[remote]
fn tail(batch: RecordBatch, from: u64) -> Result<RecordBatch> {
    let rows = batch.num_rows().checked_sub(from as usize).ok_or("too few rows")?;
    Ok(batch.slice(from as usize, rows))
}

#[remote]
fn stack(first: RecordBatch, second: RecordBatch) -> Table {
    Table { schema: first.schema(), batches: vec![first, second] }
}

#[remote]
fn place_of(batch: RecordBatch) -> u64 {
    numbers(&batch).values().as_ptr() as u64
}

fn batches(ray: &Raylet) -> Result<()> {
    let put = ray.put(batch(10_000))?;
    let (once, twice) = (ray.get(&put)?, ray.get(&put)?);
    assert_eq!(numbers(&once).values().as_ptr(), numbers(&twice).values().as_ptr(), "nothing is copied");
    assert_eq!(numbers(&once).values().as_ptr() as usize % 64, 0);
    assert_eq!(ray.get(&place_of::remote(ray, &put)?)? % 64, 0);
    drop(put);
    assert_eq!(numbers(&once).value(9_999), 9_999, "its buffers hold it");
    let end = ray.get(&tail::remote(ray, &once, 9_990)?)?;
    assert_eq!(numbers(&end).values()[..], (9_990..10_000).collect::<Vec<i64>>());
    let table = stack::remote(ray, batch(2), &end)?;
    assert_eq!(ray.get(&table)?.batches.len(), 2);
    let error = failure(ray, &tail::remote(ray, batch(1), 2)?);
    assert_eq!(error.message(), "too few rows");
    Ok(())
}

#[remote(num_returns = 2)]
fn split(text: String) -> Result<(String, usize)> {
    let (first, rest) = text.split_once(' ').ok_or("one word")?;
    Ok((first.to_owned(), rest.len()))
}

#[remote(num_returns = 3)]
fn thirds(from: u64, count: u64) -> Vec<u64> {
    (from..from + count).collect()
}

fn several_results(ray: &Raylet) -> Result<()> {
    let (first, rest) = split::remote(ray, "two words")?;
    assert_eq!((ray.get(&first)?, ray.get(&rest)?), ("two".to_owned(), 5));
    let many: Vec<ObjectRef<u64>> = thirds::remote(ray, 5, 3)?;
    assert_eq!(ray.get_all(&many)?, [5, 6, 7]);
    let (first, rest) = split::remote(ray, "one")?;
    assert_eq!(failure(ray, &first).message(), "one word");
    assert_eq!(failure(ray, &rest).message(), "one word");
    Ok(())
}

fn wrong_number_of_results(ray: &Raylet) -> Result<()> {
    for count in [2, 4] {
        let many = thirds::remote(ray, 0, count)?;
        assert_eq!(many.len(), 3);
        let error = failure(ray, &many[2]);
        assert_eq!(error.kind(), TaskErrorKind::ResultCount);
        assert_eq!(error.message(), format!("{count} results came, 3 were declared"));
    }
    Ok(())
}

/// Is written as one type and read as another.
#[derive(Deserialize, Value)]
#[serde(from = "ObjectRef<String>")]
struct Disguise {
    number: Option<ObjectRef<u64>>,
    text: Option<ObjectRef<String>>,
}

impl From<ObjectRef<String>> for Disguise {
    fn from(text: ObjectRef<String>) -> Disguise {
        Disguise { number: None, text: Some(text) }
    }
}

impl Serialize for Disguise {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.number.as_ref().ok_or_else(|| serde::ser::Error::custom("it is text by now"))?.serialize(serializer)
    }
}

fn wrong_type(ray: &Raylet) -> Result<()> {
    let disguise = ray.put(Disguise { number: ray.put(5u64).ok(), text: None })?;
    let text = ray.get(&disguise)?.text.ok_or("it reads as text")?;
    let error = ray.get(&text).unwrap_err();
    assert!(matches!(error, FetchError::Value(_)), "{error}");
    let error = failure(ray, &shout::remote(ray, &text)?);
    assert_eq!(error.kind(), TaskErrorKind::Argument);
    assert!(error.message().contains("`text`"), "{error}");
    Ok(())
}

#[remote]
fn shout(text: String) -> String {
    text.to_uppercase()
}

fn wait(ray: &Raylet) -> Result<()> {
    let all: Vec<_> = (0..5).map(|x| echo_number::remote(ray, x)).collect::<Result<_, _>>()?;
    let (ready, rest) = ray.wait(&all, 5, None)?;
    assert_eq!((ready.len(), rest.len()), (5, 0));
    let (ready, rest) = ray.wait(&all, 2, Some(Duration::ZERO))?;
    assert_eq!((&ready[..], &rest[..]), (&all[..2], &all[2..]), "at most as many as asked for, in order");
    let failed = half::remote(ray, 1)?;
    let (ready, _) = ray.wait(std::slice::from_ref(&failed), 1, None)?;
    assert_eq!(ready, [failed], "an error is ready, too");
    let (ready, rest) = ray.wait::<u64>(&[], 0, None)?;
    assert!(ready.is_empty() && rest.is_empty());
    Ok(())
}

fn nonsense(ray: &Raylet) -> Result<()> {
    use raylet_client::{OptionsError, WaitError};
    let one = ray.put(1u64)?;
    let twice = [one.clone(), one.clone()];
    assert!(matches!(ray.wait(&twice, 1, None), Err(WaitError::Duplicate { first: 0, second: 1 })));
    assert!(matches!(ray.wait(&twice[..1], 2, None), Err(WaitError::Count { count: 2, references: 1 })));
    assert!(matches!(ray.wait(&twice[..1], 0, None), Err(WaitError::Count { count: 0, references: 1 })));
    let refused = add::options(Options::new().num_cpus(-1)).remote(ray, 1, 1);
    assert!(matches!(refused, Err(SubmitError::Options(OptionsError::Amount { .. }))), "{refused:?}");
    Ok(())
}

#[remote(num_cpus = 0.5, max_retries = 5, name = "patient")]
fn patient(x: u64) -> u64 {
    x
}

fn options(ray: &Raylet) -> Result<()> {
    let options = Options::new().num_cpus(1).resource("tape", 0).memory_bytes(1 << 20).timeout(Duration::from_secs(60));
    assert_eq!(ray.get(&patient::remote(ray, 1)?)?, 1);
    assert_eq!(ray.get(&patient::options(options.name("once").max_retries(0)).remote(ray, 2)?)?, 2);
    Ok(())
}

#[remote]
async fn later(ray: &Raylet, x: u64) -> Result<u64> {
    tokio::time::sleep(Duration::from_millis(1)).await;
    let same = echo_number::remote(ray, x)?;
    Ok(same.await? + 1)
}

fn async_functions(ray: &Raylet) -> Result<()> {
    assert_eq!(ray.get(&later::remote(ray, 1)?)?, 2);
    // Also where the caller is inside a runtime itself.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        assert_eq!(later(ray, 5).await?, 6);
        assert_eq!(later::remote(ray, 2)?.await?, 3);
        Ok(())
    })
}

fn awaited(ray: &Raylet) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let (sum, odd) = (add::remote(ray, 1, 2)?, half::remote(ray, 1)?);
    runtime.block_on(async {
        assert_eq!((&sum).await?, 3);
        assert_eq!(sum.await?, 3);
        assert!(matches!(odd.await, Err(FetchError::Task(_))));
        Ok(())
    })
}

fn objects_end(ray: &Raylet) -> Result<()> {
    let store = ray.store();
    store.settle(Duration::from_secs(20));
    let before = store.tally().by_state;
    {
        let made = range::remote(ray, 100)?;
        let inputs = Inputs { label: String::new(), parts: ray.get(&made)? };
        sum_inputs::remote(ray, &inputs)?;
        let error = half::remote(ray, 1)?;
        add::remote(ray, &error, 1)?;
        ray.get(&made)?;
    }
    store.settle(Duration::from_secs(20));
    assert_eq!(store.tally().by_state, before, "nothing is left of them");
    Ok(())
}

#[derive(Debug)]
struct Counter {
    value: u64,
    log: Vec<u64>,
}

#[remote]
impl Counter {
    /// Starts counting at `start`.
    fn new(start: u64) -> Self {
        Counter { value: start, log: Vec::new() }
    }

    /// The sum so far.
    fn add(&mut self, n: u64) -> u64 {
        self.log.push(n);
        self.value += n;
        self.value
    }

    fn log(&self) -> Vec<u64> {
        self.log.clone()
    }

    fn fail(&mut self, text: String) -> Result<()> {
        self.value = 0;
        Err(text.into())
    }

    fn explode(&mut self) {
        self.value += 1;
        panic!("as asked");
    }

    async fn slow(&self, n: u64) -> u64 {
        tokio::time::sleep(Duration::from_millis(1)).await;
        self.value + n
    }

    async fn slow_add(&mut self, ray: &Raylet, n: ObjectRef<u64>) -> Result<u64> {
        let n = ray.get(&n)?;
        tokio::task::yield_now().await;
        Ok(self.add(n))
    }

    #[remote(num_returns = 2)]
    fn both(&self) -> (u64, usize) {
        (self.value, self.log.len())
    }

    /// Stays what it is.
    fn nothing() -> u64 {
        0
    }
}

fn state(ray: &Raylet) -> Result<()> {
    let counter: ActorHandle<Counter> = Counter::remote(ray, 5)?;
    let other = Counter::remote(ray, &ray.put(100u64)?)?;
    assert_eq!(ray.get(&counter.add(3)?)?, 8);
    assert_eq!(ray.get(&other.add(&counter.add(1)?)?)?, 109);
    let (value, calls) = counter.both()?;
    assert_eq!((ray.get(&value)?, ray.get(&calls)?), (9, 2));
    assert_eq!(Counter::nothing(), 0);
    assert_eq!(Counter::new(1).add(1), 2, "it is still a type like any other");
    Ok(())
}

fn order(ray: &Raylet) -> Result<()> {
    let counter = Counter::remote(ray, 0)?;
    let again = counter.clone();
    assert_eq!(counter, again);
    let calls: Vec<_> = (0..100)
        .map(|n| if n % 2 == 0 { counter.add(n) } else { again.add(&echo_number::remote(ray, n)?) })
        .collect::<Result<_, _>>()?;
    drop(calls);
    assert_eq!(ray.get(&counter.log()?)?, (0..100).collect::<Vec<u64>>());
    Ok(())
}

fn async_methods(ray: &Raylet) -> Result<()> {
    let counter = Counter::options(Options::new().max_concurrency(10)).remote(ray, 1)?;
    let slow: Vec<_> = (0..5).map(|n| counter.slow(n)).collect::<Result<_, _>>()?;
    assert_eq!(ray.get_all(&slow)?, [1, 2, 3, 4, 5]);
    let reference = ray.put(4u64)?;
    // A parameter that is a reference is given one, and it is not awaited.
    assert_eq!(ray.get(&counter.slow_add(&ray.put(&reference)?)?)?, 5);
    assert_eq!(ray.get(&counter.slow_add(reference)?)?, 9);
    Ok(())
}

#[remote]
fn count_to(ray: &Raylet, counter: ActorHandle<Counter>, n: u64) -> Result<u64> {
    for _ in 1..n {
        counter.add(1)?;
    }
    Ok(ray.get(&counter.add(1)?)?)
}

#[derive(Serialize, Deserialize, Value)]
struct Team {
    members: Vec<ActorHandle<Counter>>,
}

fn handles_travel(ray: &Raylet) -> Result<()> {
    let counter = Counter::remote(ray, 0)?;
    assert_eq!(ray.get(&count_to::remote(ray, &counter, 10)?)?, 10);
    let team = ray.put(Team { members: vec![counter, Counter::remote(ray, 7)?] })?;
    // Only the container names them now.
    let team = ray.get(&team)?;
    assert_eq!(ray.get(&team.members[0].add(1)?)?, 11);
    assert_eq!(ray.get(&team.members[1].add(1)?)?, 8);
    Ok(())
}

struct Manager {
    counter: ActorHandle<Counter>,
}

#[remote(num_cpus = 0)]
impl Manager {
    fn new(ray: &Raylet, start: u64) -> std::result::Result<Manager, SubmitError> {
        Ok(Manager { counter: Counter::remote(ray, start)? })
    }

    fn counter(&self) -> ActorHandle<Counter> {
        self.counter.clone()
    }

    fn twice(&self, ray: &Raylet, n: u64) -> Result<u64> {
        self.counter.add(n)?;
        Ok(ray.get(&self.counter.add(n)?)?)
    }
}

fn actors_call_actors(ray: &Raylet) -> Result<()> {
    let manager = Manager::remote(ray, 1)?;
    assert_eq!(ray.get(&manager.twice(2)?)?, 5);
    let counter = ray.get(&manager.counter()?)?;
    drop(manager);
    assert_eq!(ray.get(&counter.add(1)?)?, 6, "it outlives who made it");
    Ok(())
}

fn method_errors(ray: &Raylet) -> Result<()> {
    let counter = Counter::remote(ray, 5)?;
    let error = failure(ray, &counter.fail("no")?);
    assert_eq!((error.kind(), error.message()), (TaskErrorKind::Returned, "no"));
    assert!(error.function().ends_with("Counter::fail"), "{error}");
    assert_eq!(failure(ray, &counter.explode()?).kind(), TaskErrorKind::Panicked);
    assert_eq!(ray.get(&counter.add(1)?)?, 2, "what they changed stays");
    Ok(())
}

struct Fragile;

#[remote]
impl Fragile {
    fn new(text: String) -> Result<Fragile> {
        match text.as_str() {
            "panic" => panic!("too fragile"),
            "error" => Err("too fragile".into()),
            _ => Ok(Fragile),
        }
    }

    fn touch(&self) -> u64 {
        1
    }
}

fn constructor_errors(ray: &Raylet) -> Result<()> {
    for how in ["panic", "error"] {
        let fragile = Fragile::remote(ray, how)?;
        let error = failure(ray, &fragile.touch()?);
        assert_eq!(error.kind(), TaskErrorKind::ActorDied);
        assert!(error.message().contains("too fragile"), "{error}");
    }
    assert_eq!(ray.get(&Fragile::remote(ray, "fine")?.touch()?)?, 1);
    Ok(())
}

fn killed(ray: &Raylet) -> Result<()> {
    let counter = Counter::options(Options::new().name("victim")).remote(ray, 5)?;
    let before = counter.add(1)?;
    assert_eq!(ray.get(&before)?, 6);
    ray.kill(&counter);
    let error = failure(ray, &counter.add(1)?);
    assert_eq!(error.kind(), TaskErrorKind::ActorDied);
    assert!(error.message().contains("killed"), "{error}");
    assert_eq!(ray.get(&before)?, 6, "what it made stays");
    assert!(ray.actor::<Counter>("victim")?.is_none());
    Ok(())
}

fn named(ray: &Raylet) -> Result<()> {
    assert!(ray.actor::<Counter>("scores")?.is_none());
    let counter = Counter::options(Options::new().name("scores")).remote(ray, 5)?;
    let found = ray.actor::<Counter>("scores")?.ok_or("it is there")?;
    assert_eq!(found, counter);
    ray.get(&found.add(1)?)?;
    assert_eq!(ray.get(&counter.add(1)?)?, 7);
    let taken = Counter::options(Options::new().name("scores")).remote(ray, 0);
    assert!(matches!(taken, Err(SubmitError::NameTaken { .. })), "{taken:?}");
    drop((found, counter));
    assert!(ray.actor::<Counter>("scores")?.is_none(), "a name refers to nothing");
    Ok(())
}

/// Puts a file away when it ends.
struct Guard(std::path::PathBuf);

#[remote]
impl Guard {
    fn new(path: String) -> std::io::Result<Guard> {
        std::fs::write(&path, "here")?;
        Ok(Guard(path.into()))
    }

    fn path(&self) -> String {
        self.0.display().to_string()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn actors_end(ray: &Raylet) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("guard");
    let guard = Guard::remote(ray, path.display().to_string())?;
    let second = guard.clone();
    assert_eq!(ray.get(&second.path()?)?, path.display().to_string());
    drop(guard);
    assert!(path.exists());
    drop(second);
    until(|| !path.exists());
    Ok(())
}

/// Ends when it is so; a test that hangs is ended from outside.
fn until(is_so: impl Fn() -> bool) {
    while !is_so() {
        std::thread::yield_now();
    }
}

fn wrong_class(ray: &Raylet) -> Result<()> {
    let _fragile = Fragile::options(Options::new().name("vase")).remote(ray, "fine")?;
    let wrong = ray.actor::<Counter>("vase").unwrap_err();
    assert!(matches!(wrong, raylet_client::ActorError::WrongClass { .. }), "{wrong}");
    Ok(())
}
