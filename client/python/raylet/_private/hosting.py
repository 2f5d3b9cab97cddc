"""Actors that do several things at once: thread pools and event loops, one per concurrency group.

The one thing to know: the native side hands every call over at once (`Host.submit`, or an inbox that an event loop
watches) and the host starts calls in that order, as many at a time as the group allows; whoever runs a call ends it. An
actor with any coroutine runs everything on event loops, its ordinary methods too, which therefore hold up the loop they
run on.

This module must not run a call on the thread that hands it over.
"""

from __future__ import annotations

import asyncio
import collections
import contextvars
import inspect
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Literal

from .. import _native
from . import loading, worker_process
from .errors import refuse_retry

# How a function is run: called, awaited, or iterated.
Kind = Literal["plain", "coroutine", "generator"]
# A program's function, how it is run, and the exceptions to try again where only some are.
Target = tuple[Callable[..., Any], Kind, tuple[type, ...] | None]

# Between two looks whether a reader has caught up with its stream.
PAUSE_MIN_S = 50e-6
PAUSE_MAX_S = 2e-3

# The hosted call that a thread or asyncio task runs.
current_call: contextvars.ContextVar[Any] = contextvars.ContextVar("raylet_call", default=None)


class Host:
    """An actor whose calls overlap."""

    def __init__(self, cls: type, info: dict[str, Any]) -> None:
        self.cls = cls
        self.info = info
        self.name = info["name"]
        self.instance: Any = None
        self.functions: dict[str, Callable[..., Any]] = {}
        self.groups: dict[str | None, Any] = {}
        self.is_async: bool = info["is_async"]
        sizes = {None: info["concurrency"], **info["groups"]}
        self.mode = "loops" if self.is_async else "pools"
        kind = Loop if self.is_async else Pool
        self.groups = {group: kind(self, group or "default", size) for group, size in sizes.items()}

    def create(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """An instance, made on the thread of the default event loop where there is one."""
        loading._remember(self.info)
        if self.is_async:
            self.instance = self.groups[None].run(lambda: self.cls(*args, **kwargs))
        else:
            self.instance = self.cls(*args, **kwargs)
        worker_process.label_actor(self.info, self.instance)
        return self.instance

    def methods(self, instance: Any) -> list[str]:
        """The names of the methods that can be called."""
        return list(self.info["methods"])

    def method(self, instance: Any, name: str) -> Callable[..., Any]:
        """What a call of a method runs."""
        function = self.functions.get(name)
        if function is None:
            function = self.functions[name] = loading.method_of(self.instance, name, self.info)
        return function

    def group_of(self, name: str) -> str | None:
        """The concurrency group of a method where its caller names none."""
        return self.info["methods"][name].group

    def inboxes(self) -> list[tuple[str | None, _native.CallInbox]]:
        """Where the calls of each group are put, the default one's first; only with event loops."""
        return [(name, group.inbox) for name, group in self.groups.items()]

    def submit(self, call: Any) -> None:
        """Take a call over; it is started in its turn. Only with pools of threads."""
        self.groups.get(call.group or self.group_of(call.name), self.groups[None]).add(call)

    def finish(self) -> None:
        """Return when every call that was taken over is over."""
        for group in self.groups.values():
            group.finish()


class Pool:
    """The threads of a concurrency group."""

    def __init__(self, host: Host, name: str, size: int) -> None:
        self.host = host
        self.executor = ThreadPoolExecutor(size, thread_name_prefix=f"raylet-{name}")

    def add(self, call: Any) -> None:
        """Run a call on one of the threads."""
        self.executor.submit(self._run, call)

    def _run(self, call: Any) -> None:
        current_call.set(call)
        try:
            function = self.host.method(None, call.name)
            # True: its exception is one to try again.
            while call.invoke(function, self.host.instance):
                pass
        finally:
            current_call.set(None)

    def finish(self) -> None:
        """Return when every call is over."""
        self.executor.shutdown(wait=True)


class Loop:
    """The event loop of a concurrency group, in a thread of its own."""

    def __init__(self, host: Host, name: str, size: int) -> None:
        self.host = host
        self.size = size
        self.loop = _new_loop()
        self.inbox = _native.CallInbox()
        self.waiting: collections.deque[Any] = collections.deque()
        self.tasks: set[asyncio.Task[None]] = set()
        self.targets: dict[str, Target] = {}
        self.idle: threading.Event | None = None
        self.thread = threading.Thread(target=self._work, name=f"AsyncIO Thread: {name}", daemon=True)
        self.thread.start()

    def _work(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.add_reader(self.inbox.fileno(), self._receive)
        self.loop.run_forever()

    def run(self, make: Callable[[], Any]) -> Any:
        """Call `make` in the loop's thread and give what it returns. Raises what it raises."""
        done: Future[Any] = Future()

        async def body() -> None:
            try:
                done.set_result(make())
            except BaseException as error:
                done.set_exception(error)

        self.loop.call_soon_threadsafe(lambda: self.loop.create_task(body()))
        return done.result()

    def _receive(self) -> None:
        self.waiting.extend(self.inbox.take())
        self._start()

    def _start(self) -> None:
        while self.waiting and len(self.tasks) < self.size:
            call = self.waiting.popleft()
            task = self.loop.create_task(self._run(call))
            self.tasks.add(task)
            task.add_done_callback(self._ended)
        if self.idle is not None and not self.tasks and not self.waiting:
            self.idle.set()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        self._start()

    async def _run(self, call: Any) -> None:
        current_call.set(call)
        task = asyncio.current_task()
        assert task is not None
        call.set_on_cancel(lambda: self.loop.call_soon_threadsafe(task.cancel))
        while await self._attempt(call):
            pass

    async def _attempt(self, call: Any) -> bool:
        """Run a call once; whether its exception is one to try again."""
        instance = self.host.instance
        allowed: tuple[type, ...] | None = None
        try:
            if call.is_cancelled():
                raise asyncio.CancelledError
            (function, kind, allowed), args = self._target(call)
            if kind == "plain":
                return call.invoke(self.host.method(None, call.name), instance)
            if kind == "generator":
                value = await _items(function(*args, **(call.kwargs or {})), call)
            else:
                value = await function(*args, **(call.kwargs or {}))
        except BaseException as error:
            if allowed is not None and not isinstance(error, allowed):
                refuse_retry(error)
            return call.failed(error, instance)
        return call.done(value, instance)

    def _target(self, call: Any) -> tuple[Target, tuple[Any, ...]]:
        """What a call runs, and its positional arguments."""
        name, args = call.name, call.args
        if name == "__raylet_retry__":
            function = getattr(self.host.instance, args[1])
            return (function, _kind(function), args[0]), args[2:]
        if name == "__ray_call__" and _kind(args[0]) != "plain":
            return (args[0], _kind(args[0]), None), (self.host.instance, *args[1:])
        target = self.targets.get(name)
        if target is None:
            function = self.host.method(None, name)
            allowed = self.host.info["methods"][name].retry_exceptions
            listed = tuple(allowed) if isinstance(allowed, (list, tuple)) else None
            target = self.targets[name] = function, _kind(function), listed
        return target, args

    def finish(self) -> None:
        """Return when every call is over."""
        self.idle = threading.Event()
        self.loop.call_soon_threadsafe(self._receive)
        self.idle.wait()


def _kind(function: Any) -> Kind:
    if inspect.iscoroutinefunction(function):
        return "coroutine"
    return "generator" if inspect.isasyncgenfunction(function) else "plain"


async def _items(items: Any, call: Any) -> Any:
    """Hand the items of an async generator over: as they come where the call streams, else all together."""
    if not call.is_stream:
        return [item async for item in items]
    async for item in items:
        pause = PAUSE_MIN_S
        while not call.has_room():
            await asyncio.sleep(pause)
            pause = min(2 * pause, PAUSE_MAX_S)
        if not call.push(item):
            await items.aclose()
            break
    return None


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()
