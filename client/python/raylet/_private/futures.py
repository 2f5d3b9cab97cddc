"""References in asyncio and `concurrent.futures`.

The one thing to know: a native thread calls back when a value is there; it only notes that and wakes the loop once
for all the notes of a moment. Values are read in the loop's own thread, or in the calling thread of `future()`.

This module must not start threads.
"""

from __future__ import annotations

import asyncio
import collections
import concurrent.futures
import threading
import weakref
from collections.abc import Callable
from typing import Any

from .. import _native


class _Mailbox:
    """What became ready and whose loop has not heard of it yet."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = weakref.ref(loop)
        self.ready: collections.deque[tuple[asyncio.Future[Any], Any]] = collections.deque()
        self.lock = threading.Lock()
        self.is_woken = False

    def post(self, future: asyncio.Future[Any], ref: Any) -> None:
        """Note, from any thread, that the value of `ref` is there."""
        with self.lock:
            self.ready.append((future, ref))
            if self.is_woken:
                return
            self.is_woken = True
        loop = self.loop()
        if loop is None or loop.is_closed():
            return
        try:
            loop.call_soon_threadsafe(self.deliver)
        except RuntimeError:
            # The loop was closed meanwhile: nobody waits any more.
            pass

    def deliver(self) -> None:
        """In the loop's thread: settle the futures of all that is ready."""
        with self.lock:
            self.is_woken = False
            ready, self.ready = self.ready, collections.deque()
        for future, ref in ready:
            settle(future, ref)


_mailboxes: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Mailbox] = weakref.WeakKeyDictionary()
_mailboxes_lock = threading.Lock()


def _mailbox_of(loop: asyncio.AbstractEventLoop) -> _Mailbox:
    found = _mailboxes.get(loop)
    if found is None:
        with _mailboxes_lock:
            found = _mailboxes.setdefault(loop, _Mailbox(loop))
    return found


def settle(future: Any, ref: Any) -> None:
    """Give a future the value of a reference that has one, or its exception."""
    if future.done():
        return
    try:
        value = _native.get(ref)
    except StopIteration as error:
        # A future takes no StopIteration: it would end the coroutine that awaits it.
        _fail(future, RuntimeError(f"the task raised {error!r}"))
    except BaseException as error:
        _fail(future, _without_this_frame(error))
    else:
        _succeed(future, value)


def _without_this_frame(error: BaseException) -> BaseException:
    """The exception as if the caller had not been there: it shows the program's frames, and holds no future."""
    first = error.__traceback__
    return error.with_traceback(first.tb_next if first is not None else None)


def _succeed(future: Any, value: Any) -> None:
    if not future.done():
        future.set_result(value)


def _fail(future: Any, error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)


def as_future(ref: Any) -> asyncio.Future[Any]:
    """An asyncio future of a reference, for the running loop. Cancelling it does not cancel the task."""
    loop = _loop()
    future: asyncio.Future[Any] = loop.create_future()
    if _native.is_ready(ref):
        settle(future, ref)
    else:
        mailbox = _mailbox_of(loop)
        _native.on_ready(ref, lambda: mailbox.post(future, ref))
    return future


def _loop() -> asyncio.AbstractEventLoop:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.get_event_loop_policy().get_event_loop()


def future(ref: Any) -> concurrent.futures.Future[Any]:
    """A `concurrent.futures.Future` of a reference. Cancelling it does not cancel the task."""
    made: concurrent.futures.Future[Any] = concurrent.futures.Future()

    def ready() -> None:
        if made.cancelled():
            return
        try:
            made.set_running_or_notify_cancel()
            settle(made, ref)
        except concurrent.futures.InvalidStateError:
            # It was cancelled at this moment.
            pass

    _native.on_ready(ref, ready)
    return made


def on_completed(ref: Any, callback: Callable[[Any], None]) -> Any:
    """Call `callback` with the value of a reference, or with its exception, once it has one."""

    def ready() -> None:
        try:
            value = _native.get(ref)
        except Exception as error:
            value = _without_this_frame(error)
        callback(value)

    _native.on_ready(ref, ready)
    return ref
