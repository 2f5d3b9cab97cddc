"""The command `raylet`, and `python -m raylet`.

The one thing to know: `run` is Python's; every other sub-command is the extension's, which is the same
as the executable's of the Rust crate. This file must not know what they do.
"""

from __future__ import annotations

import sys

RUN = """\
  run           Run a Python program that says `import ray` (`raylet run --help`)
"""


def main(argv: list[str] | None = None) -> int:
    """Does what the arguments say; the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["run"]:
        from ._private.run import run

        return run(arguments[1:])
    from . import _native

    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(f"Of Python:\n{RUN}\nOf the raylet:", flush=True)
    return _native.cli(["raylet", *arguments], [sys.executable, "-m", "raylet"])


if __name__ == "__main__":
    sys.exit(main())
