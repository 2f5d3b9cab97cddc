"""What tests are given.

The one thing to know: a session is a test's own unless its file says otherwise, and afterwards there must be nothing
left of it. This file must not be needed by tasks: what they share is in `support`.
"""

import signal

import pytest
import support

import raylet

STORE_BYTES = 80 * 2**20

# Whoever started this in the background may have had these ignored, and programs that tests start would inherit that.
USUAL = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL, signal.SIGQUIT: signal.SIG_DFL}


def pytest_configure():
    """Take signals as a program does that somebody started at a terminal."""
    for number, handler in USUAL.items():
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


@pytest.fixture
def start():
    """A function that begins a session; it is ended after the test, and nothing of it may be left."""
    begun = []

    def begin(**options):
        if not options.get("local_mode"):
            options = {"num_cpus": 2, "object_store_memory": STORE_BYTES, "address": "local", **options}
        context = raylet.init(logging_level="ERROR", **options)
        if options.get("address") == "local":
            begun.append(support.Traces())
        return context

    yield begin
    for traces in begun:
        traces.look()
    raylet.shutdown()
    for traces in begun:
        support.until(lambda traces=traces: not traces.left())


@pytest.fixture
def session(start):
    """A session of two CPUs and a store of 80 MiB."""
    return start()
