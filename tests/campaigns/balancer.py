"""Parts that the campaigns of `.ci/long` share: an Evenkeel of their own, and its memory."""

import json
import os
import pathlib
import queue
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Longest wait for anything that is due at once, on a busy machine too.
PATIENCE = 30
# Memory counts once it has changed by no more than this part in so many steps in a row.
SETTLED_PART, SETTLED_STEPS, SETTLE_STEP, SETTLE_LIMIT = 0.005, 3, 0.5, 15


def binary():
    """Names the program: EVENKEEL, or the release build."""
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    return os.environ.get("EVENKEEL", str(target / "release" / "evenkeel"))


def give_up(text):
    """Ends the campaign as failed."""
    print(text, file=sys.stderr)
    sys.exit(1)


class Lines:
    """The lines of a process, read by a thread so that each wait for one has a bound."""

    def __init__(self, stream):
        self.queue = queue.Queue()
        self.seen = []
        threading.Thread(target=self._read, args=(stream,), daemon=True).start()

    def _read(self, stream):
        for line in stream:
            self.queue.put(line.strip())
        self.queue.put(None)

    def next(self, what):
        """Returns the next line; an end or a silence before it is an error that names `what`."""
        try:
            line = self.queue.get(timeout=PATIENCE)
        except queue.Empty:
            line = None
        if line is None:
            raise RuntimeError(f"{what}: no line came\n" + "\n".join(self.seen[-20:]))
        self.seen.append(line)
        return line


class Child:
    """A process that ends with the campaign. Its output is read by lines."""

    def __init__(self, command, log="stdout"):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        if log == "stderr":
            pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        self.process = subprocess.Popen([str(word) for word in command], text=True, **pipes)
        self.lines = Lines(self.process.stdout if log == "stdout" else self.process.stderr)

    def ask(self, word):
        """Sends a line and returns the JSON of the answer."""
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        return json.loads(self.lines.next(word))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


class Balancer(Child):
    """An Evenkeel with a configuration of its own; `prefix` goes before its command."""

    def __init__(self, configuration, names, prefix=()):
        self.folder = tempfile.TemporaryDirectory()
        path = pathlib.Path(self.folder.name) / "balancer.toml"
        path.write_text(configuration)
        super().__init__([*prefix, binary(), "run", "--config", path], log="stderr")
        self.ports = {}
        try:
            while set(names) - set(self.ports):
                self._listening(self.lines.next("the start of the balancer"))
        except RuntimeError:
            self.__exit__()
            raise

    def _listening(self, line):
        try:
            event = json.loads(line)
        except ValueError:
            return
        event = event.get("fields", event)
        if "listener" in event and "address" in event:
            self.ports[event["listener"]] = int(event["address"].rpartition(":")[2])

    def __exit__(self, *how):
        super().__exit__(*how)
        self.folder.cleanup()

    def pss(self):
        """Reads the bytes of memory that user space holds."""
        with open(f"/proc/{self.process.pid}/smaps_rollup", encoding="ascii") as rollup:
            line = next(line for line in rollup if line.startswith("Pss:"))
        return int(line.split()[1]) * 1024

    def settled_pss(self):
        """Reads memory once it stands still: buffers of the set-up go back a moment later."""
        began, still, last = time.monotonic(), 0, self.pss()
        while still < SETTLED_STEPS and time.monotonic() - began < SETTLE_LIMIT:
            time.sleep(SETTLE_STEP)
            now = self.pss()
            still = still + 1 if abs(now - last) <= last * SETTLED_PART else 0
            last = now
        return last

    def metric(self, name):
        """Reads one metric without labels; needs a `[metrics]` endpoint."""
        address = f"http://127.0.0.1:{self.ports['metrics']}/metrics"
        with urllib.request.urlopen(address, timeout=PATIENCE) as answer:
            lines = answer.read().decode().splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith(name + " "))
