//! Objects that tasks and actors wait for: a thread that sleeps until one of them has a value.
//!
//! The one thing to know: it sleeps in the store as any client does, on all of them at once and on one
//! more, the *knock*: an object that is sealed when the list changes. So it looks at nothing while
//! nothing happens, and is not there before the first task that waits. This file must not know who
//! waits.

use super::translate::{handle, key};
use crate::guarded::AbortOnPanic;
use raylet_api::record::ObjectKey;
use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::Duration;
use store::{CreateOptions, Handle, ObjectRef, Store};
use tokio::sync::mpsc::UnboundedSender;

/// How long it sleeps at most: a knock may have found no room in the store.
const SLEEP_MAX: Duration = Duration::from_secs(1);

/// The scheduler's end.
pub(super) struct Awaited {
    store: Store,
    ready: UnboundedSender<ObjectKey>,
    watcher: Option<Watcher>,
}

struct Watcher {
    wishes: Sender<Wish>,
    /// The knock of the wish before.
    knock: Handle,
    thread: JoinHandle<()>,
}

/// Objects to watch from now on, and what will be sealed for the next ones.
struct Wish {
    objects: Vec<ObjectRef>,
    knock: ObjectRef,
}

impl Awaited {
    /// Whoever listens to `ready` hears of each object once.
    pub(super) fn new(store: &Store, ready: UnboundedSender<ObjectKey>) -> Awaited {
        Awaited { store: store.clone(), ready, watcher: None }
    }

    /// Watches these too.
    pub(super) fn add(&mut self, objects: &[ObjectKey]) {
        if objects.is_empty() {
            return;
        }
        let found: Vec<ObjectRef> = objects.iter().filter_map(|&object| self.store.refer(handle(object))).collect();
        // What is gone will have no value: whoever runs finds out.
        let lost = objects.iter().filter(|object| !found.iter().any(|found| key(found.handle()) == **object));
        lost.for_each(|&lost| self.say_ready(lost));
        if let Err(objects) = self.watch(found) {
            // Nobody can be told to watch: whoever runs waits for them.
            objects.iter().for_each(|object| self.say_ready(key(object.handle())));
        }
    }

    fn watch(&mut self, objects: Vec<ObjectRef>) -> Result<(), Vec<ObjectRef>> {
        let Ok(knock) = self.store.promise_by_handle(None) else { return Err(objects) };
        let name = knock.handle();
        let wish = Wish { objects, knock };
        match &mut self.watcher {
            Some(watcher) => {
                let before = std::mem::replace(&mut watcher.knock, name);
                watcher.wishes.send(wish).map_err(|unsent| unsent.0.objects)?;
                seal(&self.store, before);
            }
            None => self.watcher = Some(Watcher::start(&self.store, self.ready.clone(), wish)?),
        }
        Ok(())
    }

    fn say_ready(&self, object: ObjectKey) {
        let _ = self.ready.send(object);
    }
}

impl Watcher {
    fn start(store: &Store, ready: UnboundedSender<ObjectKey>, first: Wish) -> Result<Watcher, Vec<ObjectRef>> {
        let (wishes, inbox) = channel();
        let (store, knock) = (store.clone(), first.knock.handle());
        let thread = std::thread::Builder::new().name("raylet-awaited".to_owned());
        match thread.spawn(move || watch(&store, &inbox, &ready)) {
            Ok(thread) => {
                wishes.send(first).map_err(|unsent| unsent.0.objects)?;
                Ok(Watcher { wishes, knock, thread })
            }
            Err(error) => {
                tracing::error!(%error, "nobody watches what tasks wait for");
                Err(first.objects)
            }
        }
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        if let Some(Watcher { wishes, knock, thread }) = self.watcher.take() {
            drop(wishes);
            seal(&self.store, knock);
            // A panic there has ended the process.
            let _ = thread.join();
        }
    }
}

/// Once the thread has heard of the next one it does not refer to this knock any more, and nothing is
/// sealed.
fn seal(store: &Store, knock: Handle) {
    let options = CreateOptions { timeout: Some(Duration::ZERO), ..CreateOptions::default() };
    if let Err(error) = store.put_for(knock, b"", &options) {
        tracing::debug!(%error, "what tasks wait for is looked at later");
    }
}

fn watch(store: &Store, inbox: &Receiver<Wish>, ready: &UnboundedSender<ObjectKey>) {
    let _guard = AbortOnPanic;
    let mut objects = BTreeMap::new();
    // Nothing to watch: only a wish can change that.
    while let Ok(wish) = inbox.recv() {
        let mut knock = take(wish, &mut objects);
        while !objects.is_empty() {
            match inbox.try_recv() {
                Ok(wish) => knock = take(wish, &mut objects),
                Err(TryRecvError::Empty) => look(store, &mut objects, &knock, ready),
                Err(TryRecvError::Disconnected) => return,
            }
        }
    }
}

fn take(wish: Wish, objects: &mut BTreeMap<ObjectKey, ObjectRef>) -> ObjectRef {
    objects.extend(wish.objects.into_iter().map(|object| (key(object.handle()), object)));
    wish.knock
}

/// Sleeps until something has a value or somebody knocks, and tells of what has one.
fn look(
    store: &Store,
    objects: &mut BTreeMap<ObjectKey, ObjectRef>,
    knock: &ObjectRef,
    ready: &UnboundedSender<ObjectKey>,
) {
    let mut list: Vec<ObjectRef> = objects.values().cloned().collect();
    list.push(knock.clone());
    let found = store.wait(&list, 1, SLEEP_MAX).unwrap_or_else(|error| {
        tracing::warn!(%error, "what tasks wait for cannot be watched");
        vec![true; list.len()]
    });
    for (object, _) in list.iter().zip(found).filter(|(_, is_ready)| *is_ready) {
        let object = key(object.handle());
        if objects.remove(&object).is_some() {
            let _ = ready.send(object);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::{Config, Keeping};

    #[test]
    fn values_are_told_of_as_they_come_and_the_thread_ends() {
        let config = Config { capacity_bytes: 4 << 20, max_clients: 8, keeping: Keeping::Inline, ..Config::default() };
        let store = Store::in_process(config).unwrap();
        let (ready, mut told) = tokio::sync::mpsc::unbounded_channel();
        let mut awaited = Awaited::new(&store, ready);
        let promises: Vec<ObjectRef> = (0..3).map(|_| store.promise_by_handle(None).unwrap()).collect();
        let keys: Vec<ObjectKey> = promises.iter().map(|promise| key(promise.handle())).collect();
        awaited.add(&keys[..2]);
        awaited.add(&keys[2..]);
        for index in [2, 0, 1] {
            seal(&store, promises[index].handle());
            assert_eq!(told.blocking_recv(), Some(keys[index]));
        }
        // What is gone is told of at once.
        awaited.add(&[ObjectKey { slot: keys[0].slot, generation: keys[0].generation + 1 }]);
        assert!(told.blocking_recv().is_some());
        drop(awaited);
        assert_eq!(told.blocking_recv(), None);
    }
}
