"""The main job in Python: text on this machine to clean, unique passages, on all cores.

The one thing to know: it is the Rust form (`client/examples/demo`) again, on `import raylet as ray`: the same
corpus, the same operators, and the same passages and counts, which `--compare` checks value by value. The files:
`corpus` (what is read), `operators` (what is done), `tasks`, `dedupe` and `job` (how workers do it), `plain` (how it is
done without them), `output`, `report` and `compare` (what is left).

This package must stay an example: what it needs of raylet is public and is in Ray too.
"""
