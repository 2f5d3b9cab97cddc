//! The clients, what they do at random, and the comparison with the map.
//!
//! The one thing to know: every operation is done twice, in the store and in the map, and what the
//! store answers must be what the map says. Only running out of room is the store's own decision,
//! and only where there is little left.

use crate::reference::{Key, Reference, State};
use std::collections::HashMap;
use std::time::Duration;
use store::{
    Config, CreateError, CreateOptions, Encoding, GetError, Handle, Keeping, Lifetime, NameError, Object, ObjectId,
    ObjectInfo, ObjectRef, ObjectState, ObjectWriter, Store,
};
use store_shm::liveness::ProcessId;
use tempfile::TempDir;
use tests::Unboxed;
use tests::chance::Chance;
use tests::world::{check_content, content, id_of};

const CAPACITY_BYTES: u64 = 6 << 20;
const CLIENTS: usize = 4;
/// Ids that are given again and again.
const IDS: u64 = 24;
const NAMES: u64 = 4;
const NAMESPACE: &str = "model";

struct Client {
    store: Store,
    references: Vec<(Key, ObjectRef)>,
    views: Vec<(Key, Object)>,
    writers: Vec<Writing>,
}

struct Writing {
    key: Key,
    writer: ObjectWriter,
    children: Vec<Key>,
}

pub(crate) struct Run {
    chance: Chance,
    map: Reference,
    clients: Vec<Client>,
    spill: TempDir,
}

/// What a random creation asks for.
struct Wish {
    id: Option<ObjectId>,
    bytes: u64,
    lifetime: Lifetime,
    by_handle_only: bool,
    children: Vec<usize>,
    checksum: bool,
}

fn config(spill: &TempDir) -> Config {
    Config {
        capacity_bytes: CAPACITY_BYTES,
        max_clients: 8,
        label: "model".to_owned(),
        spill_directory: Some(spill.path().to_owned()),
        create_timeout: Duration::ZERO,
        keeping: Keeping::Inline,
        ..Config::default()
    }
}

impl Client {
    fn new(store: Store) -> Client {
        Client { store, references: Vec::new(), views: Vec::new(), writers: Vec::new() }
    }
}

impl Run {
    pub(crate) fn new(chance: Chance) -> Run {
        let spill = tempfile::tempdir().expect("a directory can be made");
        let first = Store::in_process(config(&spill)).expect("a small store can be made");
        let mut run = Run { chance, map: Reference::default(), clients: vec![Client::new(first)], spill };
        while run.clients.len() < CLIENTS {
            run.attach();
        }
        run
    }

    fn attach(&mut self) {
        let first = &self.clients[0].store;
        let segments = first.segments().expect("descriptors can be duplicated");
        let client = first.admit(ProcessId::current(), "model").expect("a row is free");
        let store = Store::attach(segments, client, config(&self.spill)).expect("it was admitted");
        self.clients.push(Client::new(store));
    }

    fn below(&mut self, limit: usize) -> usize {
        self.chance.below(limit.max(1) as u64) as usize
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.chance.below(count) == 0
    }

    /// One operation of one client.
    pub(crate) fn step(&mut self) {
        let client = self.below(self.clients.len());
        match self.chance.below(1000) {
            0..150 => self.put(client),
            150..230 => self.create(client),
            230..290 => self.seal(client),
            290..320 => self.abort(client),
            320..430 => self.get(client),
            430..520 => self.drop_view(client),
            520..570 => self.clone_reference(client),
            570..740 => self.drop_reference(client),
            740..790 => self.lookup(client),
            790..830 => self.send(client),
            830..860 => self.promise(client),
            860..880 => self.delete(client),
            880..900 => self.delete_object(client),
            900..925 => self.spill(client),
            925..945 => self.bind(client),
            945..955 => self.unbind(client),
            955..970 => self.list_references(client),
            970..980 => self.publish(client),
            980..985 => self.clients[client].store.rest(),
            985..990 => self.evict(client),
            990..995 => self.abandon(client),
            _ => self.leave(client),
        }
        self.drop_what_is_too_much();
        self.see_what_was_evicted();
    }

    fn wish(&mut self, client: usize) -> Wish {
        let id = (!self.one_in(3)).then(|| id_of(self.chance.below(IDS)));
        let bytes = match self.chance.below(12) {
            0 => 0,
            1..=6 => self.chance.below(300),
            7..=8 => self.chance.below(16 << 10),
            9..=10 => self.chance.below(200 << 10),
            _ => (1 << 20) + self.chance.below(200 << 10),
        };
        let lifetime = *self.chance.pick(&[Lifetime::Counted, Lifetime::Counted, Lifetime::Cached]);
        let by_handle_only = id.is_none() && self.one_in(2);
        let mut children = Vec::new();
        for _ in 0..self.chance.below(12).saturating_sub(7) {
            let at = self.below(self.clients[client].references.len());
            // Only of what is sealed: lists of promises could run in a circle.
            if let Some((key, _)) = self.clients[client].references.get(at)
                && self.map.things[*key].state == State::Sealed
            {
                children.push(at);
            }
        }
        Wish { id, bytes, lifetime, by_handle_only, children, checksum: self.one_in(8) }
    }

    /// Asks for the wish; hands it to `make` as options, and what stood under the id before.
    fn ask<T>(
        &mut self,
        client: usize,
        wish: &Wish,
        make: impl FnOnce(&Store, &CreateOptions) -> Result<T, Box<CreateError>>,
    ) -> Option<(T, Vec<Key>)> {
        let mut references = Vec::new();
        let mut keys = Vec::new();
        for &at in &wish.children {
            let (key, child) = &self.clients[client].references[at];
            keys.push(*key);
            references.push(child.clone());
        }
        let options = CreateOptions {
            id: wish.id,
            lifetime: wish.lifetime,
            references: &references,
            by_handle_only: wish.by_handle_only,
            checksum: wish.checksum,
            ..CreateOptions::default()
        };
        let before = wish.id.and_then(|id| self.map.index.get(&id).copied());
        let is_taken = before.is_some_and(|key| self.map.things[key].state != State::Promised);
        match make(&self.clients[client].store, &options).unboxed() {
            Ok(made) => {
                // It may have been evicted to make the room for this very call.
                self.see_what_was_evicted();
                let gone = before.is_none_or(|key| !self.map.living.contains(&key));
                assert!(!is_taken || gone, "{:?} was given although it stands", wish.id);
                Some((made, keys))
            }
            Err(CreateError::DuplicateObject { .. }) if is_taken => None,
            Err(CreateError::OutOfMemory { .. }) if self.map.bytes() + wish.bytes > CAPACITY_BYTES / 4 => {
                self.see_what_was_evicted();
                None
            }
            Err(error) => panic!("{error} ({} bytes live, {} asked)", self.map.bytes(), wish.bytes),
        }
    }

    /// The map's side of a creation that the store granted: in writing, with one hold.
    fn note(&mut self, wish: &Wish, id: ObjectId, handle: Handle) -> Key {
        let adopted = wish.id.and_then(|id| self.map.index.get(&id).copied());
        match adopted {
            Some(key) => {
                self.map.hold(key);
                let thing = &mut self.map.things[key];
                assert_eq!(
                    (thing.handle, thing.state),
                    (handle, State::Promised),
                    "a promise is kept in its own entry"
                );
                (thing.state, thing.bytes, thing.lifetime) = (State::Writing, wish.bytes, wish.lifetime);
                key
            }
            None => self.map.add(id, handle, State::Writing, wish.bytes, wish.lifetime, !wish.by_handle_only),
        }
    }

    fn put(&mut self, client: usize) {
        let wish = self.wish(client);
        // A derived id is not known before: its content follows from the id of nobody.
        let bytes = content(&wish.id.unwrap_or(id_of(u64::MAX)), wish.bytes);
        let made = self.ask(client, &wish, |store, options| store.put_with(&bytes, options));
        let Some((object, children)) = made else { return };
        let key = self.note(&wish, object.id(), object.handle());
        self.map.seal(key, &children);
        self.clients[client].references.push((key, object));
    }

    fn create(&mut self, client: usize) {
        let wish = self.wish(client);
        let made = self.ask(client, &wish, |store, options| store.create(wish.bytes, options));
        let Some((mut writer, children)) = made else { return };
        let named = wish.id.unwrap_or(id_of(u64::MAX));
        writer.copy_from_slice(&content(&named, wish.bytes));
        let key = self.note(&wish, writer.id(), writer.handle());
        children.iter().for_each(|&child| self.map.hold(child));
        self.clients[client].writers.push(Writing { key, writer, children });
    }

    fn seal(&mut self, client: usize) {
        let at = self.below(self.clients[client].writers.len());
        if at >= self.clients[client].writers.len() {
            return;
        }
        let Writing { key, writer, children } = self.clients[client].writers.swap_remove(at);
        let object = writer.seal();
        self.map.seal(key, &children);
        children.iter().for_each(|&child| self.map.let_go(child));
        self.clients[client].references.push((key, object));
    }

    fn abort(&mut self, client: usize) {
        let at = self.below(self.clients[client].writers.len());
        if at >= self.clients[client].writers.len() {
            return;
        }
        let Writing { key, writer, children } = self.clients[client].writers.swap_remove(at);
        writer.abort();
        self.map.abort(key);
        children.iter().for_each(|&child| self.map.let_go(child));
    }

    fn a_reference(&mut self, client: usize) -> Option<(usize, Key)> {
        let at = self.below(self.clients[client].references.len());
        self.clients[client].references.get(at).map(|(key, _)| (at, *key))
    }

    fn get(&mut self, client: usize) {
        let Some((at, key)) = self.a_reference(client) else { return };
        let is_sealed = self.map.things[key].state == State::Sealed;
        let store = &self.clients[client].store;
        let object = &self.clients[client].references[at].1;
        let found = if self.chance.below(2) == 0 {
            store.view(object).map(|view| self.check_bytes(key, &view)).err()
        } else {
            None
        };
        let found = match found {
            Some(error) => Err(error),
            None => store.get(object),
        };
        match found.unboxed() {
            Ok(object) => {
                assert!(is_sealed, "a value that does not stand was read");
                self.check_bytes(key, &object);
                self.map.pin(key);
                self.clients[client].views.push((key, object));
            }
            Err(GetError::NotSealed { .. }) if !is_sealed => {}
            Err(GetError::NoRoom { .. }) if self.map.bytes() > CAPACITY_BYTES / 4 => {}
            Err(error) => panic!("{error}"),
        }
    }

    fn check_bytes(&self, key: Key, found: &[u8]) {
        let thing = &self.map.things[key];
        assert_eq!(found.len() as u64, thing.bytes);
        let is_chosen = (0..IDS).any(|index| id_of(index) == thing.id);
        check_content(&if is_chosen { thing.id } else { id_of(u64::MAX) }, found);
    }

    fn drop_view(&mut self, client: usize) {
        let at = self.below(self.clients[client].views.len());
        if at < self.clients[client].views.len() {
            let (key, view) = self.clients[client].views.swap_remove(at);
            self.check_bytes(key, &view);
            drop(view);
            self.map.unpin(key);
        }
    }

    fn clone_reference(&mut self, client: usize) {
        let Some((at, key)) = self.a_reference(client) else { return };
        let again = self.clients[client].references[at].1.clone();
        self.map.hold(key);
        self.clients[client].references.push((key, again));
    }

    fn drop_reference(&mut self, client: usize) {
        let Some((at, key)) = self.a_reference(client) else { return };
        drop(self.clients[client].references.swap_remove(at));
        self.map.let_go(key);
    }

    fn lookup(&mut self, client: usize) {
        let id = id_of(self.chance.below(IDS));
        let known = self.map.index.get(&id).copied();
        let store = &self.clients[client].store;
        let has_value = known.is_some_and(|key| self.map.things[key].state == State::Sealed);
        assert_eq!(store.contains(&id), has_value, "contains {id}");
        let found = store.lookup(&id);
        assert_eq!(found.as_ref().map(ObjectRef::handle), known.map(|key| self.map.things[key].handle), "lookup {id}");
        if let (Some(key), Some(object)) = (known, found) {
            self.map.hold(key);
            self.clients[client].references.push((key, object));
        }
    }

    /// Another client is told a handle, perhaps of something that has ended.
    fn send(&mut self, client: usize) {
        if self.map.things.is_empty() {
            return;
        }
        let recent = self.map.things.len().min(40);
        let key = self.map.things.len() - 1 - self.below(recent);
        let found = self.clients[client].store.refer(self.map.things[key].handle);
        assert_eq!(found.is_some(), self.map.living.contains(&key), "{:?}", self.map.things[key]);
        if let Some(object) = found {
            self.map.hold(key);
            self.clients[client].references.push((key, object));
        }
    }

    fn promise(&mut self, client: usize) {
        let id = id_of(self.chance.below(IDS));
        let object = self.clients[client].store.promise(&id).expect("there are slots");
        let key = match self.map.index.get(&id).copied() {
            Some(key) => {
                assert_eq!(self.map.things[key].handle, object.handle());
                self.map.hold(key);
                key
            }
            None => self.map.add(id, object.handle(), State::Promised, 0, Lifetime::Counted, true),
        };
        self.clients[client].references.push((key, object));
    }

    fn delete(&mut self, client: usize) {
        let id = id_of(self.chance.below(IDS));
        let known = self.map.index.get(&id).copied();
        let expected = known.is_some_and(|key| !self.map.things[key].is_deleted);
        assert_eq!(self.clients[client].store.delete(&id), expected, "delete {id}");
        if let Some(key) = known {
            self.map.delete(key);
        }
    }

    fn delete_object(&mut self, client: usize) {
        let Some((at, key)) = self.a_reference(client) else { return };
        let Client { store, references, .. } = &self.clients[client];
        assert_eq!(store.delete_object(&references[at].1), !self.map.things[key].is_deleted);
        self.map.delete(key);
    }

    fn publish(&mut self, client: usize) {
        let Some((at, key)) = self.a_reference(client) else { return };
        let Client { store, references, .. } = &self.clients[client];
        let published = store.publish(&references[at].1);
        let (id, is_indexed) = (self.map.things[key].id, self.map.things[key].is_indexed);
        if self.map.things[key].is_deleted {
            return assert!(published.is_ok(), "nothing happens to what was deleted: {published:?}");
        }
        let is_free = is_indexed || !self.map.index.contains_key(&id);
        assert_eq!(published.is_ok(), is_free, "publish {id}: {published:?}");
        if is_free && !is_indexed {
            self.map.things[key].is_indexed = true;
            self.map.index.insert(id, key);
        }
    }

    fn spill(&mut self, client: usize) {
        if self.one_in(4) {
            self.clients[client].store.spill_bytes(100 << 10);
            return;
        }
        let Some((at, key)) = self.a_reference(client) else { return };
        let Client { store, references, .. } = &self.clients[client];
        let moved = store.spill_now(&references[at].1).expect("the disk has room");
        let thing = &self.map.things[key];
        assert!(!moved || thing.pins == 0 && thing.state == State::Sealed, "P2: {thing:?} was moved");
    }

    /// Asks for more than there is, so that everything evictable goes.
    fn evict(&mut self, client: usize) {
        let made = self.clients[client].store.create(CAPACITY_BYTES, &CreateOptions::default());
        let is_viewed =
            self.map.living.iter().map(|&key| &self.map.things[key]).any(|thing| thing.pins * thing.bytes > 0);
        assert!(made.is_err() || !is_viewed, "P2: what is viewed stays in memory");
    }

    fn bind(&mut self, client: usize) {
        let name = format!("name {}", self.chance.below(NAMES));
        let Client { store, references, .. } = &self.clients[client];
        let named = store.named(NAMESPACE, &name);
        match (named, self.map.names.get(&name).copied()) {
            (Ok(Some(object)), Some(key)) => {
                assert_eq!(object.handle(), self.map.things[key].handle, "{name}");
                self.map.hold(key);
                self.clients[client].references.push((key, object));
            }
            (Ok(None), None) => {
                let at = self.chance.below(references.len().max(1) as u64) as usize;
                let Some((key, object)) = references.get(at) else { return };
                match store.bind(NAMESPACE, &name, object) {
                    Ok(()) => self.map.bind(name, *key),
                    Err(NameError::Create(error)) if matches!(*error, CreateError::OutOfMemory { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            (Err(NameError::Get(error)), Some(_)) if matches!(*error, GetError::NoRoom { .. }) => {}
            (found, expected) => panic!("{name}: {found:?} instead of {expected:?}"),
        }
    }

    fn unbind(&mut self, client: usize) {
        let name = format!("name {}", self.chance.below(NAMES));
        let expected = self.map.names.contains_key(&name);
        assert_eq!(self.clients[client].store.unbind(NAMESPACE, &name), expected, "{name}");
        self.map.unbind(&name);
    }

    fn list_references(&mut self, client: usize) {
        let at = self.below(self.clients[client].views.len());
        let Some((key, view)) = self.clients[client].views.get(at) else { return };
        let mut found: Vec<(Key, ObjectRef)> =
            view.references().into_iter().map(|object| (self.map.of(object.handle()), object)).collect();
        found.sort_unstable_by_key(|(key, _)| *key);
        let keys: Vec<Key> = found.iter().map(|(key, _)| *key).collect();
        assert_eq!(keys, self.map.things[*key].children, "what a container lists");
        keys.iter().for_each(|&key| self.map.hold(key));
        self.clients[client].references.extend(found);
    }

    /// A client is gone without a word; a survivor sweeps.
    fn abandon(&mut self, client: usize) {
        if self.clients.len() == 1 {
            return;
        }
        let gone = self.clients.swap_remove(client);
        gone.store.abandon();
        let survivor = self.below(self.clients.len());
        assert_eq!(self.clients[survivor].store.reclaim(), 1, "the abandoned client is swept");
        for Writing { key, children, .. } in &gone.writers {
            self.map.abort(*key);
            children.iter().for_each(|&child| self.map.let_go(child));
        }
        gone.views.iter().for_each(|(key, _)| self.map.unpin(*key));
        gone.references.iter().for_each(|(key, _)| self.map.let_go(*key));
        drop(gone);
        self.attach();
    }

    /// A client goes with its manners.
    fn leave(&mut self, client: usize) {
        if self.clients.len() == 1 {
            return;
        }
        let Client { store, references, views, writers } = self.clients.swap_remove(client);
        for Writing { key, writer, children } in writers {
            drop(writer);
            self.map.abort(key);
            children.iter().for_each(|&child| self.map.let_go(child));
        }
        for (key, view) in views {
            drop(view);
            self.map.unpin(key);
        }
        for (key, object) in references {
            drop(object);
            self.map.let_go(key);
        }
        settle(&store);
        drop(store);
        self.clients[0].store.reclaim();
        assert_eq!(self.clients[0].store.unswept_clients(), 0, "who left is swept");
        self.attach();
    }

    /// Keeps what is held in proportion, or every create would fail.
    fn drop_what_is_too_much(&mut self) {
        let mut tries = 0;
        while self.map.bytes() > CAPACITY_BYTES / 2 && tries < 200 {
            tries += 1;
            let client = self.below(self.clients.len());
            match self.chance.below(7) {
                0 => self.drop_view(client),
                1 => self.abort(client),
                2..=3 => self.drop_reference(client),
                4 => self.unbind(client),
                5 => self.evict(client),
                _ => self.delete(client),
            }
            self.see_what_was_evicted();
        }
    }

    /// Takes out of the map what the store ended for room, which it may with nothing else.
    fn see_what_was_evicted(&mut self) {
        let is_gone = |run: &Run, key: &Key| run.clients[0].store.refer(run.map.things[*key].handle).is_none();
        // The end of a container may have made its children evictable.
        while let Some(key) = self.map.evictable().into_iter().find(|key| is_gone(self, key)) {
            self.map.end(key);
        }
    }

    /// Compares everything.
    pub(crate) fn check(&mut self) {
        let store = &self.clients[0].store;
        store.check_invariants();
        let mut listed: HashMap<Handle, ObjectInfo> =
            store.list().into_iter().map(|object| (object.handle, object)).collect();
        for &key in &self.map.living {
            let handle = self.map.things[key].handle;
            let found = listed.remove(&handle).unwrap_or_else(|| panic!("{:?} is gone", self.map.things[key]));
            self.check_object(key, &found);
        }
        let names = listed.values().filter(|object| object.encoding == Encoding::Name).count();
        assert_eq!((names, listed.len()), (self.map.names.len(), self.map.names.len()), "nobody keeps {listed:#?}");
    }

    fn check_object(&self, key: Key, found: &ObjectInfo) {
        let thing = &self.map.things[key];
        let state = match found.state {
            ObjectState::Promised => State::Promised,
            ObjectState::Writing => State::Writing,
            ObjectState::InMemory | ObjectState::OnDisk => State::Sealed,
            other => panic!("{other:?} while nobody works: {thing:?}"),
        };
        let holds: u64 = found.holders.iter().map(|holder| u64::from(holder.references) + u64::from(holder.pins)).sum();
        let pins: u64 = found.holders.iter().map(|holder| u64::from(holder.pins)).sum();
        let listing = if thing.state == State::Sealed { thing.children.len() } else { found.references as usize };
        let says = (state, found.size, found.lifetime, holds, pins, found.listed, found.references as usize);
        let must = (thing.state, thing.bytes, thing.lifetime, thing.holds, thing.pins, thing.listed, listing);
        assert_eq!((found.id, says), (thing.id, must), "state, size, lifetime, holds, pins, listed, lists");
    }

    /// Everybody lets go of everything: nothing may be left, in memory or on disk.
    pub(crate) fn end(mut self) {
        self.check();
        while self.clients.len() > 1 {
            let last = self.clients.len() - 1;
            settle(&self.clients[last].store);
            self.clients.truncate(last);
        }
        let Client { store, references, views, writers } = self.clients.swap_remove(0);
        drop((references, views, writers));
        for index in 0..IDS {
            store.delete(&id_of(index));
        }
        for name in 0..NAMES {
            store.unbind(NAMESPACE, &format!("name {name}"));
        }
        for object in store.list() {
            // The end of one may have ended others.
            if let Some(object) = store.refer(object.handle) {
                store.delete_object(&object);
            }
        }
        store.reclaim();
        store.rest();
        store.check_invariants();
        let usage = store.usage();
        assert!(store.list().is_empty(), "left: {:#?}", store.list());
        assert_eq!((usage.used_bytes, usage.free_bytes), (0, CAPACITY_BYTES), "stranded: {usage:?}");
        let is_object = |path: &std::path::Path| path.extension().is_some_and(|extension| extension == "object");
        assert!(!files(self.spill.path()).iter().any(|path| is_object(path)), "spill files are left");
    }
}

/// A thread that warms memory keeps the store of a client that goes.
fn settle(store: &Store) {
    assert!(store.settle(Duration::from_secs(30)), "warming ends");
}

fn files(directory: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.flat_map(|entry| if entry.path().is_dir() { files(&entry.path()) } else { vec![entry.path()] }).collect()
}
