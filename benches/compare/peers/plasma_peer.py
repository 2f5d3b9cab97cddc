"""Plasma of pyarrow 10.0.1: its server, started here, and one client.

Reads {"do": ..., "count": ...} a line and answers {"nanos": [...]}; ends, and ends the server, when
its input does. Neither process is pinned: large puts copy with several threads.
"""

import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

os.sched_setaffinity(0, range(os.cpu_count()))

import numpy as np  # noqa: E402
import pyarrow as pa  # noqa: E402
import pyarrow.plasma as plasma  # noqa: E402

CAPACITY = 5 << 30
SMALL = bytes(range(1, 101))
FEW_LIVE = 1_000
LARGE_BYTES = 100 << 20
LARGE_PLACES = 4
TABLE_COLUMNS = 8
TABLE_BATCHES = 16
TABLE_BATCH_ROWS = 1 << 20
PR_SET_PDEATHSIG = 1


def die_with_parent():
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def start_server(directory):
    server = os.path.join(os.path.dirname(pa.__file__), "plasma-store-server")
    socket = os.path.join(directory, "plasma")
    process = subprocess.Popen(
        [server, "-m", str(CAPACITY), "-s", socket, "-d", "/dev/shm"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=die_with_parent,
    )
    while not os.path.exists(socket) and process.poll() is None:
        time.sleep(0.002)
    return process, socket


def first_line(buffer):
    memoryview(buffer)[0]


class Peer:
    def __init__(self, socket):
        self.socket = socket
        self.client = plasma.connect(socket, num_retries=200)
        ids = [plasma.ObjectID.from_random() for _ in range(FEW_LIVE)]
        for object_id in ids:
            self.client.create_and_seal(object_id, SMALL)
        self.wanted = ids[FEW_LIVE // 2]
        self.kept = None
        self.source = None
        self.large = []
        self.table = None

    def get(self, count):
        client, wanted, nanos = self.client, [self.wanted], []
        for _ in range(count):
            start = time.perf_counter_ns()
            buffers = client.get_buffers(wanted)
            first_line(buffers[0])
            del buffers
            nanos.append(time.perf_counter_ns() - start)
        return nanos

    def get_held(self, count):
        self.kept = self.kept or self.client.get_buffers([self.wanted])
        return self.get(count)

    def put_small(self, count):
        client, nanos = self.client, []
        ids = [plasma.ObjectID.from_random() for _ in range(count)]
        for object_id in ids:
            start = time.perf_counter_ns()
            client.create_and_seal(object_id, SMALL)
            nanos.append(time.perf_counter_ns() - start)
        client.delete(ids)
        return nanos

    def put_large(self, count):
        if self.source is None:
            self.source = np.random.default_rng(1).integers(1, 255, LARGE_BYTES, dtype=np.uint8)
        nanos = []
        for _ in range(count):
            while len(self.large) >= LARGE_PLACES:
                self.client.delete([self.large.pop(0)])
            object_id = plasma.ObjectID.from_random()
            start = time.perf_counter_ns()
            self.client.put_raw_buffer(self.source, object_id)
            nanos.append(time.perf_counter_ns() - start)
            self.large.append(object_id)
        return nanos

    def put_table(self):
        column = np.arange(1, TABLE_BATCH_ROWS + 1, dtype=np.int64)
        names = [f"c{index}" for index in range(TABLE_COLUMNS)]
        batch = pa.record_batch([pa.array(column) for _ in names], names=names)
        count_bytes = pa.MockOutputStream()
        write_batches(count_bytes, batch)
        self.table = plasma.ObjectID.from_random()
        target = self.client.create(self.table, count_bytes.size())
        write_batches(pa.FixedSizeBufferWriter(target), batch)
        self.client.seal(self.table)

    def get_table(self, count):
        if self.table is None:
            self.put_table()
        client, wanted, nanos = self.client, [self.table], []
        for _ in range(count):
            start = time.perf_counter_ns()
            buffers = client.get_buffers(wanted)
            table = pa.ipc.open_stream(buffers[0]).read_all()
            table.column(0).chunk(0)[0].as_py()
            del table, buffers
            nanos.append(time.perf_counter_ns() - start)
        return nanos

    def first_read(self, count):
        if self.table is None:
            self.put_table()
        reader = [sys.executable, __file__, "--read", self.socket, self.table.binary().hex()]
        return [json.loads(subprocess.check_output(reader))["first"] for _ in range(count)]


def write_batches(sink, batch):
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        for _ in range(TABLE_BATCHES):
            writer.write_batch(batch)


def read_all_bytes(socket, object_id):
    """Two passes over the table's bytes by a process that has just mapped them."""
    client = plasma.connect(socket)
    buffers = client.get_buffers([plasma.ObjectID(bytes.fromhex(object_id))])
    words = np.frombuffer(buffers[0], dtype=np.int64, count=buffers[0].size // 8)
    passes = []
    for _ in range(2):
        start = time.perf_counter_ns()
        words.sum()
        passes.append(time.perf_counter_ns() - start)
    print(json.dumps({"first": passes[0], "second": passes[1]}))


def answer(nanos):
    print(json.dumps({"nanos": nanos}), flush=True)


def main():
    directory = tempfile.mkdtemp(prefix="bench-plasma-")
    server, socket = start_server(directory)
    try:
        peer = Peer(socket)
        answer([])
        for line in sys.stdin:
            command = json.loads(line)
            answer(getattr(peer, command["do"])(command["count"]))
    finally:
        server.kill()
        server.wait()
        shutil.rmtree(directory, ignore_errors=True)


if sys.argv[1:2] == ["--read"]:
    read_all_bytes(*sys.argv[2:4])
else:
    main()
