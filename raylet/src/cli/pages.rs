//! Listings that come in pages, as one.
//!
//! The one thing to know: the world goes on between two pages, so the whole is no snapshot. This file
//! must not know what is in the rows.

use crate::ask::{AskError, Asker};
use raylet_api::inside::*;
use raylet_api::message::*;

/// A page: its rows, and where the next begins.
type Page<T> = (Vec<T>, Option<u64>);

/// Shows every row of all pages to `visit`, as long as that says to go on. A cursor that does not grow
/// would ask for ever: there the listing ends.
fn each<T>(
    mut page: impl FnMut(u64) -> Result<Page<T>, AskError>,
    mut visit: impl FnMut(T) -> bool,
) -> Result<(), AskError> {
    let mut cursor = 0;
    loop {
        let (rows, next) = page(cursor)?;
        for row in rows {
            if !visit(row) {
                return Ok(());
            }
        }
        match next {
            Some(next) if next > cursor => cursor = next,
            _ => return Ok(()),
        }
    }
}

macro_rules! listings {
    ($($name:ident: $ask:ident -> $reply:ident.$rows:ident: $row:ident,)*) => {
        $(
            pub(super) fn $name(asker: &mut Asker, visit: impl FnMut($row) -> bool) -> Result<(), AskError> {
                let page = |cursor| match asker.ask($ask { cursor, count_max: PAGE_COUNT_MAX })? {
                    Message::$reply(page) => Ok((page.$rows, page.next_cursor)),
                    other => Err(AskError::Unexpected { found: other.name() }),
                };
                each(page, visit)
            }
        )*
    };
}

listings! {
    each_client: ListClients -> ClientsReply.clients: ClientInfo,
    each_object: ListObjects -> ObjectsReply.objects: ObjectInfo,
    each_task: ListTasks -> TasksReply.tasks: TaskInfo,
    each_actor: ListActors -> ActorsReply.actors: ActorInfo,
    each_worker: ListWorkers -> WorkersReply.workers: WorkerInfo,
    each_group: ListGroups -> GroupsReply.groups: GroupInfo,
}

/// A visitor that keeps all.
pub(super) fn into<T>(all: &mut Vec<T>) -> impl FnMut(T) -> bool {
    |row| {
        all.push(row);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(page: impl FnMut(u64) -> Result<Page<u64>, AskError>, expected: &[u64]) {
        let mut all = Vec::new();
        each(page, into(&mut all)).unwrap();
        assert_eq!(all, expected);
    }

    #[test]
    fn pages_are_joined_and_a_stuck_cursor_ends() {
        let three = |cursor| Ok((vec![cursor], Some(cursor + 1).filter(|&next| next < 3)));
        check(three, &[0, 1, 2]);
        check(|cursor| Ok((vec![cursor], Some(0))), &[0]);
        check(|cursor| Ok((vec![cursor; cursor as usize], Some(2).filter(|_| cursor == 0))), &[2, 2]);
        let mut seen = 0;
        let one_more = |_| {
            seen += 1;
            seen < 2
        };
        each(three, one_more).unwrap();
        assert_eq!(seen, 2);
    }
}
