//! Names in namespaces.
//!
//! The one thing to know: a name is itself an object: a record that lists one reference, found by
//! an id that is derived from namespace and name. So names need no table, no lock and no recovery
//! of their own; what a name keeps alive, it keeps alive as any container does.

use crate::error::{CreateError, NameError};
use crate::object::{Encoding, ObjectRef};
use crate::object_id::ObjectId;
use crate::store::{CreateOptions, Lifetime, Store};
use sha2::{Digest, Sha256};

/// The id of the record of a name.
fn record_id(namespace: &str, name: &str) -> ObjectId {
    let digest = Sha256::digest(record(namespace, name));
    ObjectId::new(digest[..ObjectId::BYTES].try_into().expect("28 of 32 bytes"))
}

/// What a record says: the length of the namespace, namespace, name.
fn record(namespace: &str, name: &str) -> Vec<u8> {
    let length = namespace.len() as u64;
    [&length.to_le_bytes(), namespace.as_bytes(), name.as_bytes()].concat()
}

fn parse(record: &[u8]) -> Option<(String, String)> {
    let (length, text) = record.split_first_chunk::<8>()?;
    let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
    let (namespace, name) = text.split_at_checked(length)?;
    Some((String::from_utf8(namespace.to_vec()).ok()?, String::from_utf8(name.to_vec()).ok()?))
}

impl Store {
    /// Gives `object` a name; it lives at least until the name is dropped.
    pub fn bind(&self, namespace: &str, name: &str, object: &ObjectRef) -> Result<(), NameError> {
        let options = CreateOptions {
            id: Some(record_id(namespace, name)),
            encoding: Encoding::Name,
            lifetime: Lifetime::Named,
            references: std::slice::from_ref(object),
            ..CreateOptions::default()
        };
        match self.put_with(&record(namespace, name), &options) {
            Ok(_) => Ok(()),
            Err(error) if matches!(*error, CreateError::DuplicateObject { .. }) => {
                Err(NameError::Taken { namespace: namespace.to_owned(), name: name.to_owned() })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The object of that name, with a reference of its own.
    pub fn named(&self, namespace: &str, name: &str) -> Result<Option<ObjectRef>, NameError> {
        let Some(record_ref) = self.lookup(&record_id(namespace, name)) else { return Ok(None) };
        if !record_ref.is_ready() {
            return Ok(None);
        }
        let found = self.get(&record_ref)?;
        if found.encoding() != Encoding::Name || *found != *record(namespace, name) {
            return Err(NameError::Collision { namespace: namespace.to_owned(), name: name.to_owned() });
        }
        Ok(found.references().pop())
    }

    /// Drops a name; false when there was none.
    pub fn unbind(&self, namespace: &str, name: &str) -> bool {
        self.delete(&record_id(namespace, name))
    }

    /// All names of a namespace, sorted.
    pub fn names(&self, namespace: &str) -> Vec<String> {
        let mut names: Vec<String> = self
            .inner
            .living_slots()
            .filter(|&slot| self.inner.encoding_of(slot) == Encoding::Name)
            .filter_map(|slot| self.lookup(&self.inner.id_of(slot)))
            .filter_map(|record| parse(&self.get(&record).ok()?))
            .filter(|(of, _)| of == namespace)
            .map(|(_, name)| name)
            .collect();
        names.sort_unstable();
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespace_and_name_do_not_run_into_each_other() {
        assert_ne!(record_id("a", "bc"), record_id("ab", "c"));
        assert_eq!(parse(&record("ab", "c")), Some(("ab".to_owned(), "c".to_owned())));
        assert_eq!(parse(&[255; 9]), None);
    }
}
