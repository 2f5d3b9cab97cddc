//! The names of jobs, tasks, actors and objects, in Ray's shape.
//!
//! The one thing to know: an id is computed, never drawn. It follows from the job, the parent task
//! and a counter, so a task that runs again names the same results again. This file must not keep
//! the counters; who submits keeps them.
//!
//! ```text
//!  JobId     4  u32, little endian
//!  ActorId  16  12 unique | JobId              unique is all 0xff where there is no actor
//!  TaskId   24   8 unique | ActorId            unique is all 0xff for the driver's task
//!  ObjectId 28  TaskId | index u32, little endian, from 1
//!
//!  unique = the first bytes of SHA-256(JobId || parent TaskId || counter as u64, little endian
//!           || the ActorId, for an actor's task only)
//! ```

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};
use std::fmt;
use std::str::FromStr;

/// A text that is not an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseIdError {
    /// Too few or too many digits.
    #[error("{found} characters, an id of this kind has {expected}")]
    WrongLength {
        /// Digits an id of this kind has.
        expected: usize,
        /// Bytes the text has.
        found: usize,
    },
    /// A character that is no hexadecimal digit.
    #[error("the character at {position} is no hexadecimal digit")]
    NotHexadecimal {
        /// Which byte of the text.
        position: usize,
    },
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $bytes:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(transparent)]
        pub struct $name([u8; $bytes]);

        impl $name {
            /// How many bytes the id has.
            pub const BYTES: usize = $bytes;

            /// Takes the bytes as they are.
            pub const fn from_bytes(bytes: [u8; $bytes]) -> Self {
                Self(bytes)
            }

            /// The bytes.
            pub const fn as_bytes(&self) -> &[u8; $bytes] {
                &self.0
            }
        }

        impl From<[u8; $bytes]> for $name {
            fn from(bytes: [u8; $bytes]) -> Self {
                Self(bytes)
            }
        }

        impl From<$name> for [u8; $bytes] {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;
            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let mut bytes = [0; $bytes];
                parse_hexadecimal(text, &mut bytes)?;
                Ok(Self(bytes))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                match serializer.is_human_readable() {
                    true => serializer.collect_str(self),
                    false => serializer.serialize_bytes(&self.0),
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                match deserializer.is_human_readable() {
                    true => deserializer.deserialize_str(IdVisitor),
                    false => deserializer.deserialize_bytes(IdVisitor),
                }
                .map(Self)
            }
        }
    };
}

id!(
    /// A job: one driver's program.
    JobId, 4
);
id!(
    /// An actor, or "no actor" of a job.
    ActorId, 16
);
id!(
    /// A task: one call, or the driver itself.
    TaskId, 24
);
id!(
    /// An object: a result or a put of a task.
    ObjectId, 28
);

impl JobId {
    /// The job with this number.
    pub const fn new(number: u32) -> JobId {
        JobId(number.to_le_bytes())
    }

    /// The job's number.
    pub const fn number(&self) -> u32 {
        u32::from_le_bytes(self.0)
    }
}

impl ActorId {
    /// "No actor", within a job.
    pub fn nil(job: JobId) -> ActorId {
        ActorId::join([0xff; 12], job)
    }

    /// The actor that `parent` creates as its `counter`th submission.
    pub fn of(job: JobId, parent: &TaskId, counter: u64) -> ActorId {
        ActorId::join(unique(job, parent, counter, &[]), job)
    }

    /// The job the actor belongs to.
    pub fn job(&self) -> JobId {
        JobId(last(&self.0))
    }

    fn join(unique: [u8; 12], job: JobId) -> ActorId {
        let mut bytes = [0; 16];
        bytes[..12].copy_from_slice(&unique);
        bytes[12..].copy_from_slice(&job.0);
        ActorId(bytes)
    }
}

impl TaskId {
    /// The task that the driver of a job counts as.
    pub fn driver(job: JobId) -> TaskId {
        TaskId::join([0xff; 8], ActorId::nil(job))
    }

    /// The task that `parent` submits as its `counter`th; the first is 1.
    pub fn normal(job: JobId, parent: &TaskId, counter: u64) -> TaskId {
        TaskId::join(unique(job, parent, counter, &[]), ActorId::nil(job))
    }

    /// The task that makes an actor.
    pub fn actor_creation(actor: ActorId) -> TaskId {
        TaskId::join([0xff; 8], actor)
    }

    /// The call on `actor` that `parent` submits as its `counter`th.
    pub fn actor_call(job: JobId, parent: &TaskId, counter: u64, actor: ActorId) -> TaskId {
        TaskId::join(unique(job, parent, counter, &actor.0), actor)
    }

    /// The actor part.
    pub fn actor(&self) -> ActorId {
        ActorId(last(&self.0))
    }

    /// The job the task belongs to.
    pub fn job(&self) -> JobId {
        JobId(last(&self.0))
    }

    fn join(unique: [u8; 8], actor: ActorId) -> TaskId {
        let mut bytes = [0; 24];
        bytes[..8].copy_from_slice(&unique);
        bytes[8..].copy_from_slice(&actor.0);
        TaskId(bytes)
    }
}

impl ObjectId {
    /// The object that `task` makes as its `index`th; the first is 1.
    pub fn of(task: &TaskId, index: u32) -> ObjectId {
        let mut bytes = [0; 28];
        bytes[..24].copy_from_slice(&task.0);
        bytes[24..].copy_from_slice(&index.to_le_bytes());
        ObjectId(bytes)
    }

    /// The task that makes the object.
    pub fn task(&self) -> TaskId {
        TaskId(*self.0.first_chunk().expect("28 bytes begin with 24"))
    }

    /// Which of the task's objects it is.
    pub fn index(&self) -> u32 {
        u32::from_le_bytes(last(&self.0))
    }
}

fn unique<const N: usize>(job: JobId, parent: &TaskId, counter: u64, extra: &[u8]) -> [u8; N] {
    let mut hasher = Sha256::new();
    hasher.update(job.0);
    hasher.update(parent.0);
    hasher.update(counter.to_le_bytes());
    hasher.update(extra);
    let digest: [u8; 32] = hasher.finalize().into();
    *digest.first_chunk().expect("a digest is longer than any unique part")
}

fn last<const N: usize>(bytes: &[u8]) -> [u8; N] {
    *bytes.last_chunk().expect("each id is longer than the ids inside it")
}

fn parse_hexadecimal(text: &str, out: &mut [u8]) -> Result<(), ParseIdError> {
    let (expected, found) = (2 * out.len(), text.len());
    if expected != found {
        return Err(ParseIdError::WrongLength { expected, found });
    }
    for (position, digit) in text.bytes().enumerate() {
        let value = char::from(digit).to_digit(16);
        let value = value.ok_or(ParseIdError::NotHexadecimal { position })? as u8;
        let byte = &mut out[position / 2];
        *byte = *byte << 4 | value;
    }
    Ok(())
}

/// Reads N bytes, or their hexadecimal text.
struct IdVisitor<const N: usize>;

impl<const N: usize> Visitor<'_> for IdVisitor<N> {
    type Value = [u8; N];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{N} bytes or their hexadecimal digits")
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<[u8; N], E> {
        bytes.try_into().map_err(|_| E::invalid_length(bytes.len(), &self))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<[u8; N], E> {
        let mut out = [0; N];
        parse_hexadecimal(text, &mut out).map_err(E::custom)?;
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOB: JobId = JobId::new(1);

    fn check(id: ObjectId, expected: &str) {
        assert_eq!(id.to_string(), expected);
        assert_eq!(expected.parse(), Ok(id));
        assert_eq!(id.task().job(), JOB);
    }

    #[test]
    fn object_ids_are_those_of_ray() {
        let driver = TaskId::driver(JOB);
        check(ObjectId::of(&driver, 1), "ffffffffffffffffffffffffffffffffffffffff0100000001000000");
        let returns = [
            "a67dc375e60ddd1affffffffffffffffffffffff0100000001000000",
            "63964fa4841d4a2effffffffffffffffffffffff0100000001000000",
            "69a6825d641b4613ffffffffffffffffffffffff0100000001000000",
        ];
        for (counter, expected) in (1..).zip(returns) {
            check(ObjectId::of(&TaskId::normal(JOB, &driver, counter), 1), expected);
        }
    }

    #[test]
    fn ids_come_apart_as_they_were_joined() {
        let job = JobId::new(0x0403_0201);
        let driver = TaskId::driver(job);
        let actor = ActorId::of(job, &driver, 3);
        let call = TaskId::actor_call(job, &driver, 4, actor);
        let object = ObjectId::of(&call, 5);
        assert_eq!((object.task(), object.index()), (call, 5));
        assert_eq!((call.actor(), call.job(), actor.job().number()), (actor, job, 0x0403_0201));
        assert_eq!(TaskId::actor_creation(actor).actor(), actor);
        assert_eq!(driver.actor(), ActorId::nil(job));
        assert_ne!(call, TaskId::actor_call(job, &driver, 5, actor));
        assert_ne!(actor, ActorId::of(job, &call, 3));
    }

    #[test]
    fn text_that_is_no_id_is_refused_with_the_place() {
        let error = "12".parse::<JobId>().unwrap_err();
        assert_eq!(error, ParseIdError::WrongLength { expected: 8, found: 2 });
        let error = "0123456x".parse::<JobId>().unwrap_err();
        assert_eq!(error, ParseIdError::NotHexadecimal { position: 7 });
    }

    #[test]
    fn ids_are_bytes_on_the_wire_and_digits_in_json() {
        assert_eq!(rmp_serde::to_vec(&JOB).unwrap(), [0xc4, 4, 1, 0, 0, 0]);
        assert_eq!(rmp_serde::from_slice::<JobId>(&[0xc4, 4, 1, 0, 0, 0]).unwrap(), JOB);
        assert!(rmp_serde::from_slice::<JobId>(&[0xc4, 3, 1, 0, 0]).is_err());
        assert_eq!(serde_json::to_string(&JOB).unwrap(), "\"01000000\"");
        assert_eq!(serde_json::from_str::<JobId>("\"01000000\"").unwrap(), JOB);
    }
}
