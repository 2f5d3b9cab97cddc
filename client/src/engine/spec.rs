//! A call as the words of its record, and back.
//!
//! The one thing to know: what fits lies in the record; else the record names a spec object, which
//! lists every object that the call awaits, so that they live as long as it does. The caller holds
//! the spec until the record is reaped. Who runs the call takes holds of its own ([`Unpacked`])
//! before it does anything else. This file must not know queues.

use super::scope::Scope;
use crate::task::{Arguments, with_scope};
use raylet_api::record::{BadRecord, BadSpec, Body, INLINE_BYTES_MAX, Kind, ObjectKey, Record, Spec, positions};
use store::{CreateError, CreateOptions, GetError, Handle, Object, ObjectRef as RawRef, Store};
use store_shm::queue::Payload;

/// What a call is, besides its arguments and results.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    /// Of the function, class or method.
    pub(crate) key: u64,
    pub(crate) kind: Kind,
    pub(crate) retries_errors: bool,
    /// The two results are the end and the first cell of a stream.
    pub(crate) is_stream: bool,
    /// Attempts after the first; -1 without end.
    pub(crate) retries: i16,
    /// The caller's number of the call.
    pub(crate) number: u64,
}

/// A call packed.
#[derive(Debug)]
pub(crate) struct Packed {
    pub(crate) words: Payload,
    /// To be held until the record is reaped.
    pub(crate) spec: Option<RawRef>,
}

/// The words of a call whose results are promised already.
pub(crate) fn pack(
    store: &Store,
    head: Head,
    arguments: &Arguments,
    results: &[Handle],
) -> Result<Packed, Box<CreateError>> {
    let bytes = arguments.bytes();
    let fits = bytes.len() <= INLINE_BYTES_MAX && arguments.awaited.is_empty() && results.len() <= 1;
    let (body, spec) = if fits {
        let mut inline = [0; INLINE_BYTES_MAX];
        inline[..bytes.len()].copy_from_slice(bytes);
        (Body::Inline { len: bytes.len() as u8, bytes: inline }, None)
    } else {
        let spec = put_spec(store, arguments, results)?;
        (Body::Spec(object_key(spec.handle())), Some(spec))
    };
    let record = Record {
        key: head.key,
        kind: head.kind,
        retries_errors: head.retries_errors,
        is_stream: head.is_stream,
        results: results.len() as u16,
        retries: head.retries,
        number: head.number,
        parent: with_scope(|scope| scope.map_or(0, Scope::mark)),
        result: results.first().map(|result| object_key(*result)).unwrap_or_default(),
        body,
    };
    Ok(Packed { words: record.pack(), spec })
}

fn put_spec(store: &Store, arguments: &Arguments, results: &[Handle]) -> Result<RawRef, Box<CreateError>> {
    let spec = Spec {
        more_results: results.iter().skip(1).map(|result| object_key(*result)).collect(),
        awaited: positions(&arguments.awaited.iter().map(|object| object.handle().slot).collect::<Vec<_>>()),
        arguments: arguments.bytes(),
    };
    let options = CreateOptions { by_handle_only: true, references: &arguments.awaited, ..CreateOptions::default() };
    store.put_with(&spec.pack(), &options)
}

/// An object's handle as messages and records have it.
pub(crate) fn object_key(handle: Handle) -> ObjectKey {
    ObjectKey { slot: handle.slot, generation: handle.generation }
}

/// An object's key as the store has it.
pub(crate) fn handle(key: ObjectKey) -> Handle {
    Handle { slot: key.slot, generation: key.generation }
}

/// A call as it came cannot be run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum UnpackCallError {
    /// The words are no record.
    #[error(transparent)]
    Record(#[from] BadRecord),
    /// The spec is none.
    #[error(transparent)]
    Spec(#[from] BadSpec),
    /// The spec could not be read.
    #[error(transparent)]
    Get(#[from] Box<GetError>),
    /// The spec awaits an object that it does not list.
    #[error("a call awaits object {position} of the {listed} that its spec lists")]
    Position {
        /// Which.
        position: u16,
        /// How many there are.
        listed: usize,
    },
}

/// A call, with a hold on everything it needs: what it awaits, and its arguments.
#[derive(Debug)]
pub(crate) struct Unpacked {
    /// What it asks for.
    pub(crate) record: Record,
    /// Where its results go: nobody need refer to them any more.
    pub(crate) results: Results,
    /// Its arguments that are objects, in order.
    pub(crate) awaited: Vec<RawRef>,
    /// Where the packed arguments are, if not in the record.
    spec: Option<(Object, usize)>,
}

/// The handles of a call's results.
#[derive(Debug)]
pub(crate) enum Results {
    /// The usual one, or none.
    One(Option<Handle>),
    /// Several.
    Many(Vec<Handle>),
}

impl Results {
    /// All of them, in order.
    pub(crate) fn as_slice(&self) -> &[Handle] {
        match self {
            Results::One(one) => one.as_slice(),
            Results::Many(many) => many,
        }
    }
}

impl Unpacked {
    /// What a record asks for; `None` where its spec is gone, so that nobody wants it any more.
    #[inline]
    pub(crate) fn of(store: &Store, words: &Payload) -> Result<Option<Unpacked>, UnpackCallError> {
        let record = Record::unpack(words)?;
        match record.body {
            Body::Inline { .. } => {
                let one = (record.results == 1).then(|| handle(record.result));
                Ok(Some(Unpacked { record, results: Results::One(one), awaited: Vec::new(), spec: None }))
            }
            Body::Spec(key) => Unpacked::of_spec(store, record, key),
        }
    }

    fn of_spec(store: &Store, record: Record, key: ObjectKey) -> Result<Option<Unpacked>, UnpackCallError> {
        let Some(spec) = store.refer(handle(key)) else { return Ok(None) };
        let object = store.get(&spec)?;
        let listed = object.references();
        let read = Spec::unpack(&object)?;
        let find = |position: &u16| {
            let found = listed.get(usize::from(*position)).cloned();
            found.ok_or(UnpackCallError::Position { position: *position, listed: listed.len() })
        };
        let awaited = read.awaited.iter().map(find).collect::<Result<_, _>>()?;
        let first = (record.results > 0).then_some(record.result);
        let results = Results::Many(first.into_iter().chain(read.more_results.iter().copied()).map(handle).collect());
        let start = object.len() - read.arguments.len();
        Ok(Some(Unpacked { record, results, awaited, spec: Some((object, start)) }))
    }

    /// The bytes of its spec; none where the record has all.
    pub(crate) fn spec(&self) -> &[u8] {
        self.spec.as_ref().map_or(&[], |(object, _)| object)
    }

    /// The packed arguments.
    pub(crate) fn arguments(&self) -> &[u8] {
        match (&self.spec, &self.record.body) {
            (Some((object, start)), _) => &object[*start..],
            (None, Body::Inline { len, bytes }) => &bytes[..usize::from(*len)],
            (None, Body::Spec(_)) => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> Store {
        Store::in_process(store::Config { capacity_bytes: 1 << 20, ..store::Config::default() }).unwrap()
    }

    fn head() -> Head {
        Head { key: 7, kind: Kind::Task, retries_errors: true, is_stream: false, retries: 3, number: 9 }
    }

    fn promises(store: &Store, count: usize) -> Vec<RawRef> {
        (0..count).map(|_| store.promise_by_handle(None).unwrap()).collect()
    }

    fn check(bytes: usize, awaited: Vec<RawRef>, results: usize, is_inline: bool) {
        let store = awaited.first().map_or_else(store, RawRef::store);
        let text = vec![5; bytes];
        let arguments = Arguments::of_parts(&text, awaited);
        let results: Vec<Handle> = promises(&store, results).iter().map(RawRef::handle).collect();
        let packed = pack(&store, head(), &arguments, &results).unwrap();
        assert_eq!(packed.spec.is_none(), is_inline);
        let unpacked = Unpacked::of(&store, &packed.words).unwrap().expect("the spec is held");
        drop(packed);
        assert_eq!((unpacked.record.key, unpacked.record.number, unpacked.record.retries), (7, 9, 3));
        assert_eq!(unpacked.arguments(), text);
        assert_eq!(unpacked.results.as_slice(), results);
        let handles = |objects: &[RawRef]| objects.iter().map(RawRef::handle).collect::<Vec<_>>();
        assert_eq!(handles(&unpacked.awaited), handles(&arguments.awaited));
    }

    #[test]
    fn calls_come_back_as_they_were() {
        check(0, Vec::new(), 0, true);
        check(INLINE_BYTES_MAX, Vec::new(), 1, true);
        check(INLINE_BYTES_MAX + 1, Vec::new(), 1, false);
        check(1, Vec::new(), 3, false);
        let store = store();
        let [a, b, c] = promises(&store, 3).try_into().unwrap();
        check(1, vec![c.clone(), a.clone(), c, b, a], 1, false);
    }

    #[test]
    fn a_call_whose_caller_let_go_of_it_is_wanted_by_nobody() {
        let store = store();
        let packed = pack(&store, head(), &Arguments::of_parts(&[0; 100], Vec::new()), &[]).unwrap();
        drop(packed.spec);
        assert!(Unpacked::of(&store, &packed.words).unwrap().is_none());
    }

    #[test]
    fn words_and_specs_that_nobody_wrote_are_errors() {
        let store = store();
        assert!(matches!(Unpacked::of(&store, &[u64::MAX; 15]), Err(UnpackCallError::Record(_))));
        let arguments = Arguments::of_parts(&[0; 100], Vec::new());
        let mut packed = pack(&store, head(), &arguments, &[]).unwrap();
        for bytes in [&b"\xff\xff"[..], b"\0\0\x01\0\x05\0"] {
            let spec = store.put(bytes).unwrap();
            (packed.words[5], packed.words[6]) = (u64::from(spec.handle().slot), spec.handle().generation);
            let error = Unpacked::of(&store, &packed.words).unwrap_err();
            assert!(matches!(error, UnpackCallError::Spec(_) | UnpackCallError::Position { .. }), "{error}");
        }
    }
}
