//! What must exist: the objects, who holds them, what they list.
//!
//! The one thing to know: an object lives while somebody holds it, a living container lists it, or
//! its lifetime says so; the rest follows. It must not look at the store.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use store::{Handle, Lifetime, ObjectId};

/// An object among all that ever were.
pub(crate) type Key = usize;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Promised,
    Writing,
    Sealed,
}

#[derive(Debug)]
pub(crate) struct Thing {
    pub(crate) id: ObjectId,
    pub(crate) handle: Handle,
    pub(crate) state: State,
    pub(crate) bytes: u64,
    pub(crate) lifetime: Lifetime,
    pub(crate) children: Vec<Key>,
    pub(crate) holds: u64,
    pub(crate) pins: u64,
    pub(crate) listed: u64,
    pub(crate) is_indexed: bool,
    pub(crate) is_deleted: bool,
}

#[derive(Default)]
pub(crate) struct Reference {
    pub(crate) things: Vec<Thing>,
    pub(crate) living: BTreeSet<Key>,
    pub(crate) index: HashMap<ObjectId, Key>,
    pub(crate) names: BTreeMap<String, Key>,
    by_handle: HashMap<Handle, Key>,
}

impl Reference {
    /// A new object with one hold.
    pub(crate) fn add(
        &mut self,
        id: ObjectId,
        handle: Handle,
        state: State,
        bytes: u64,
        lifetime: Lifetime,
        is_indexed: bool,
    ) -> Key {
        let key = self.things.len();
        self.things.push(Thing {
            id,
            handle,
            state,
            bytes,
            lifetime,
            is_indexed,
            children: Vec::new(),
            holds: 1,
            pins: 0,
            listed: 0,
            is_deleted: false,
        });
        self.living.insert(key);
        self.by_handle.insert(handle, key);
        if is_indexed {
            assert!(self.index.insert(id, key).is_none(), "I1: {id} was given twice");
        }
        key
    }

    pub(crate) fn of(&self, handle: Handle) -> Key {
        let key = self.by_handle[&handle];
        assert!(self.living.contains(&key), "{handle:?} has ended");
        key
    }

    pub(crate) fn hold(&mut self, key: Key) {
        assert!(self.living.contains(&key), "{key} has ended");
        self.things[key].holds += 1;
    }

    pub(crate) fn let_go(&mut self, key: Key) {
        self.things[key].holds -= 1;
        self.end_if_unheld(key);
    }

    pub(crate) fn pin(&mut self, key: Key) {
        self.hold(key);
        self.things[key].pins += 1;
    }

    pub(crate) fn unpin(&mut self, key: Key) {
        self.things[key].pins -= 1;
        self.let_go(key);
    }

    /// From writing to sealed: what it lists is counted once each.
    pub(crate) fn seal(&mut self, key: Key, children: &[Key]) {
        self.things[key].state = State::Sealed;
        let distinct: BTreeSet<Key> = children.iter().copied().collect();
        self.things[key].children = distinct.into_iter().collect();
        for child in self.things[key].children.clone() {
            self.things[child].listed += 1;
        }
    }

    /// From writing back to promised.
    pub(crate) fn abort(&mut self, key: Key) {
        let thing = &mut self.things[key];
        (thing.state, thing.bytes, thing.lifetime) = (State::Promised, 0, Lifetime::Counted);
        self.let_go(key);
    }

    pub(crate) fn delete(&mut self, key: Key) {
        let thing = &mut self.things[key];
        (thing.is_deleted, thing.lifetime) = (true, Lifetime::Counted);
        self.unindex(key);
        self.end_if_unheld(key);
    }

    fn unindex(&mut self, key: Key) {
        if std::mem::take(&mut self.things[key].is_indexed) {
            let id = self.things[key].id;
            assert_eq!(self.index.remove(&id), Some(key));
        }
    }

    pub(crate) fn bind(&mut self, name: String, key: Key) {
        self.things[key].listed += 1;
        self.names.insert(name, key);
    }

    pub(crate) fn unbind(&mut self, name: &str) {
        if let Some(key) = self.names.remove(name) {
            self.things[key].listed -= 1;
            self.end_if_unheld(key);
        }
    }

    /// Objects that the store may end when it needs room.
    pub(crate) fn evictable(&self) -> Vec<Key> {
        let may = |thing: &Thing| thing.lifetime == Lifetime::Cached && thing.holds == 0 && thing.listed == 0;
        self.living.iter().copied().filter(|&key| may(&self.things[key])).collect()
    }

    pub(crate) fn end(&mut self, key: Key) {
        assert!(self.living.remove(&key), "{key} ends once");
        self.unindex(key);
        if self.things[key].state == State::Sealed {
            for child in self.things[key].children.clone() {
                self.things[child].listed -= 1;
                self.end_if_unheld(child);
            }
        }
    }

    fn end_if_unheld(&mut self, key: Key) {
        let thing = &self.things[key];
        if thing.holds == 0 && thing.listed == 0 && thing.lifetime == Lifetime::Counted && self.living.contains(&key) {
            self.end(key);
        }
    }

    /// Bytes of everything that lives.
    pub(crate) fn bytes(&self) -> u64 {
        self.living.iter().map(|&key| self.things[key].bytes).sum()
    }
}
