"""What the native half asks of the Python half. It imports this module once, when it first needs one of these.

The one thing to know: none of these is on the path of a put, get or call that goes well.

This module must not import cloudpickle or numpy before something needs them.
"""

from __future__ import annotations

from typing import Any

from . import errors


def dumps(value: Any) -> Any:
    """A value as pickle bytes and the buffers that travel beside them."""
    from . import pickling

    return pickling.dumps(value)


def explain(*args: Any) -> Any:
    """The TypeError of a value that cannot be sent."""
    from . import pickling

    return pickling.explain(*args)


make_error = errors.make
timeout_error = errors.timeout
name_taken = errors.name_taken
describe_error = errors.describe


def session_starts() -> None:
    """While the raylet that a driver waits for starts: import what comes next."""
    from . import driver

    driver.warm_up()


def load_function(key: int, definition: Any) -> tuple[Any, str]:
    """What a worker calls for a key, and the name that it goes by."""
    from . import loading

    return loading.load_function(key, definition)


def load_actor(key: int, definition: Any) -> Any:
    """What a worker makes an actor with."""
    from . import loading

    return loading.load_actor(definition)


def parts_of(returned: Any, count: int) -> Any:
    """The parts of what a function of `count` results returned."""
    from . import loading

    return loading.parts_of(returned, count)


def worker_started() -> None:
    """In a worker, after the fork and before its first call."""
    from . import worker_process

    worker_process.started()


def worker_exiting(code: int) -> None:
    """In a worker, before it ends."""
    from . import worker_process

    worker_process.exiting(code)


def make_generator(stream: Any) -> Any:
    """What a call that streams gives."""
    from .generator import ObjectRefGenerator

    return ObjectRefGenerator(stream)


def ref_future(ref: Any) -> Any:
    """A `concurrent.futures.Future` of a reference."""
    from . import futures

    return futures.future(ref)


def ref_await(ref: Any) -> Any:
    """The iterator that `await ref` runs."""
    from . import futures

    return futures.as_future(ref).__await__()


def ref_as_future(ref: Any) -> Any:
    """An `asyncio.Future` of a reference, for the running loop."""
    from . import futures

    return futures.as_future(ref)


def ref_on_completed(ref: Any, callback: Any) -> Any:
    """Call `callback(value or exception)` once a reference has a value."""
    from . import futures

    return futures.on_completed(ref, callback)


def zygote_idle() -> bool:
    """Have the zygote import one thing more that its workers may need later; whether there are more."""
    from . import zygote

    return zygote.idle()


def print_logs(lines: list[tuple[str, int, bool, str]]) -> None:
    """Show lines of workers on the driver: name, pid, whether stderr, text."""
    from . import logs

    logs.show(lines)


def unhandled(*parts: Any) -> None:
    """Report the error of a result that nobody read; the parts are those of `make_error`."""
    from . import worker

    worker.report_unhandled(errors.make(*parts))


def get_other(refs: Any, timeout: float | None, writable: str | None) -> Any:
    """`get` of anything but a reference or a list of references, or without a session."""
    from . import api

    return api.get_other(refs, timeout, writable)


def put_other(value: Any) -> Any:
    """`put` of a reference, or without a session."""
    from . import api

    return api.put_other(value)


def wait_other(refs: Any, num_returns: int, timeout: float | None, fetch_local: bool) -> Any:
    """`wait` for anything that is not plain."""
    from . import api

    return api.wait_other(refs, num_returns, timeout, fetch_local)
