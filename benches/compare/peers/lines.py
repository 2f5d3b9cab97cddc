"""The line protocol of the scripts here: one JSON command a line in, one JSON line of samples out.

The one thing to know: importing this moves standard output to standard error and undoes the harness'
pinning, so it comes before whatever prints or counts cores. It must not know what is measured.
"""

import json
import os
import sys

_answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
os.sched_setaffinity(0, range(os.cpu_count()))


def answer(nanos):
    """Says what was measured, in nanoseconds; an empty list says that something is done."""
    _answers.write(json.dumps({"nanos": nanos}) + "\n")
    _answers.flush()


def serve(peer):
    """Says that the peer is ready, then calls the method each command names, until there are no more."""
    answer([])
    for line in sys.stdin:
        command = json.loads(line)
        answer(getattr(peer, command["do"])(command["count"]))
