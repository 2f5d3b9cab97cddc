"""multiprocessing.shared_memory: one named block for each object of 100 bytes.

Reads {"do": ..., "count": ...} a line and answers {"nanos": [...]}; ends when its input does.
Times the creation and the write only.
"""

import json
import os
import sys
import time
from multiprocessing.shared_memory import SharedMemory

PAYLOAD = bytes(range(1, 101))


def put_small(count):
    nanos, blocks = [], []
    for _ in range(count):
        start = time.perf_counter_ns()
        block = SharedMemory(create=True, size=len(PAYLOAD))
        block.buf[: len(PAYLOAD)] = PAYLOAD
        nanos.append(time.perf_counter_ns() - start)
        blocks.append(block)
        if len(blocks) == 100:
            drop(blocks)
    drop(blocks)
    return nanos


def drop(blocks):
    while blocks:
        block = blocks.pop()
        block.close()
        block.unlink()


def main():
    os.sched_setaffinity(0, range(os.cpu_count()))
    print(json.dumps({"nanos": []}), flush=True)
    for line in sys.stdin:
        print(json.dumps({"nanos": put_small(json.loads(line)["count"])}), flush=True)


main()
