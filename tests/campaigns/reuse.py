"""Backend connections are reused: cheap GETs for minutes from one source address to one backend.

Between two network namespaces that it makes itself, which takes root: `front` has the balancer
and its clients, `node` the backend. 2,000 GETs a second over kept client connections are to end
without an error and with fewer than 1,000 sockets in TIME_WAIT on the balancer's side. Without
reuse each leaves one for a minute, and the ports of the one address run out after 14 seconds.
Then every other request is a POST, which takes a connection of its own: that is measured only.

    EVENKEEL          the program; default: the release build
    SECONDS_OF_LOAD   of each of the two loads; default: 120
"""

import asyncio
import collections
import json
import os
import re
import subprocess
import sys
import threading
import time

from balancer import PATIENCE, Balancer, Child, give_up

RATE = 2_000
SECONDS = int(os.environ.get("SECONDS_OF_LOAD", "120"))
MOST_TIME_WAIT = 1_000
CLIENTS = 64
FRONT, NODE, PORT = "10.93.0.1", "10.93.0.2", 8080
# As Node.js has it, the shortest of the usual servers.
KEEP_ALIVE = 5
# Requests that are due are sent so often.
TICK = 0.005
BODY = b"a" * 64
GET = b"GET /status HTTP/1.1\r\nHost: node\r\n\r\n"
POST = b"POST /status HTTP/1.1\r\nHost: node\r\nContent-Length: 64\r\n\r\n" + BODY
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 64\r\n%s\r\n" + BODY
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
CLOSE = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)
CHUNKED = re.compile(rb"\r\ntransfer-encoding:", re.IGNORECASE)

CONFIGURATION = f"""
[global]
log_format = "json"
watch = false

[[listener]]
name = "http"
bind = "127.0.0.1:{PORT}"
protocol = "websocket"
pool = "node"

[pool.node]
backend = [{{ address = "{NODE}:{PORT}" }}]
"""


class Message:
    """The part of an HTTP message that has come."""

    def __init__(self):
        self.bytes = b""

    def feed(self, data):
        """Takes bytes and returns head and body, once they are there whole."""
        self.bytes += data
        head, found, rest = self.bytes.partition(b"\r\n\r\n")
        if not found:
            return None
        if CHUNKED.search(head):
            raise ValueError("chunks, where a length was sent")
        length = LENGTH.search(head)
        length = int(length.group(1)) if length else 0
        if len(rest) < length:
            return None
        self.bytes = rest[length:]
        return head, rest[:length]


class Server(asyncio.Protocol):
    """A connection to the backend. After five idle seconds it closes, as servers do."""

    counts = collections.Counter()

    def connection_made(self, transport):
        self.transport, self.message = transport, Message()
        self.counts["connections"] += 1
        self.loop = asyncio.get_running_loop()
        self.latest = self.loop.time()
        self.timer = self.loop.call_later(KEEP_ALIVE, self.look)

    def look(self):
        left = self.latest + KEEP_ALIVE - self.loop.time()
        if left > 0:
            self.timer = self.loop.call_later(left, self.look)
        else:
            self.transport.close()

    def connection_lost(self, _error):
        self.timer.cancel()

    def data_received(self, data):
        self.latest = self.loop.time()
        request = self.message.feed(data)
        if request is None:
            return
        self.counts["requests"] += 1
        ends = CLOSE.search(request[0])
        self.transport.write(ANSWER % (b"Connection: close\r\n" if ends else b""))
        if ends:
            self.transport.close()


async def serve():
    """Plays the backend until it is killed; each line of input is answered by its counts."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Server, NODE, PORT, backlog=4096)

    def answer():
        for _ in sys.stdin:
            print(json.dumps(Server.counts), flush=True)

    threading.Thread(target=answer, daemon=True).start()
    print("ready", flush=True)
    await server.serve_forever()


class Load:
    """An open loop: request n is due at n / rate, and its latency counts from then."""

    def __init__(self, kinds):
        self.kinds = kinds
        self.free, self.line = collections.deque(), collections.deque()
        self.errors, self.latencies, self.ended = collections.Counter(), [], 0

    async def open(self):
        """Opens a client connection in place of one that is gone, however often that takes."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                await loop.create_connection(lambda: Client(self), "127.0.0.1", PORT)
                return
            except OSError:
                self.errors["connect to the balancer"] += 1
                await asyncio.sleep(0.1)

    def send(self):
        """Sends the requests that are due, as far as clients are free."""
        while self.free and self.line:
            due, request = self.line.popleft()
            self.free.popleft().send(due, request)

    def failed(self, why):
        self.errors[why] += 1
        self.ended += 1

    def answered(self, due):
        self.latencies.append(asyncio.get_running_loop().time() - due)
        self.ended += 1

    async def run(self, requests):
        loop = asyncio.get_running_loop()
        await asyncio.gather(*(self.open() for _ in range(CLIENTS)))
        began, sent = loop.time(), 0
        while sent < requests:
            await asyncio.sleep(TICK)
            due = min(int((loop.time() - began) * RATE), requests)
            while sent < due:
                self.line.append((began + sent / RATE, self.kinds[sent % len(self.kinds)]))
                sent += 1
            self.send()
        give_in = loop.time() + PATIENCE
        while self.ended < requests and loop.time() < give_in:
            await asyncio.sleep(TICK)
        if self.ended < requests:
            self.errors["no answer in time"] += requests - self.ended
        return loop.time() - began

    def report(self, seconds):
        sorted_latencies = sorted(self.latencies) or [0]
        part = lambda share: sorted_latencies[int(share * (len(sorted_latencies) - 1))] * 1e3
        return {
            "answers": len(self.latencies),
            "seconds": seconds,
            "errors": dict(self.errors.most_common()),
            "p50_ms": part(0.5),
            "p99_ms": part(0.99),
        }


class Client(asyncio.Protocol):
    """A client connection, kept from request to request."""

    def __init__(self, load):
        self.load, self.due, self.message = load, None, Message()
        self.loop = asyncio.get_running_loop()

    def connection_made(self, transport):
        self.transport = transport
        self.load.free.append(self)
        self.load.send()

    def send(self, due, request):
        self.due = due
        self.transport.write(request)

    def data_received(self, data):
        try:
            answer = self.message.feed(data)
        except ValueError as error:
            return self.end(str(error))
        if answer is None:
            return None
        head, body = answer
        status = head.split(b" ", 2)[1].decode()
        if status != "200" or body != BODY or self.due is None:
            return self.end(f"answer {status}" if status != "200" else "another answer")
        self.load.answered(self.due)
        self.due = None
        if CLOSE.search(head):
            return self.transport.close()
        self.load.free.append(self)
        return self.load.send()

    def end(self, why):
        """Counts an error and leaves."""
        self.load.failed(why)
        self.due = None
        self.transport.close()

    def connection_lost(self, _error):
        if self.due is not None:
            self.load.failed("closed before the answer")
        if self in self.load.free:
            self.load.free.remove(self)
        # The loop keeps weak references to tasks only.
        self.reopened = self.loop.create_task(self.load.open())


async def load(kinds):
    """Plays the clients and prints the report."""
    work = Load([GET, POST] if kinds == "half" else [GET])
    seconds = await work.run(RATE * SECONDS)
    print(json.dumps(work.report(seconds)), flush=True)
    # The connections end with the process: nobody is to open new ones in their place.
    os._exit(0)


class NoNamespaces(Exception):
    """The machine does not let this process make network namespaces."""


def ip(*words):
    """Runs `ip`, of iproute2."""
    try:
        subprocess.run(["ip", *words], capture_output=True, text=True, check=True)
    except FileNotFoundError as error:
        raise NoNamespaces(str(error)) from error
    except subprocess.CalledProcessError as error:
        raise NoNamespaces(f"ip {' '.join(words)}: {error.stderr.strip()}") from error


class Namespaces:
    """Two network namespaces with a wire between them, gone at the end."""

    def __init__(self):
        self.front, self.node = (f"evenkeel-{part}-{os.getpid()}" for part in ("front", "node"))

    def __enter__(self):
        try:
            self.make()
        except NoNamespaces:
            self.__exit__()
            raise
        return self

    def make(self):
        for name in (self.front, self.node):
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
        wire = ["link", "add", "wire", "type", "veth", "peer", "name", "wire", "netns", self.node]
        ip("-n", self.front, *wire)
        for name, address in ((self.front, FRONT), (self.node, NODE)):
            ip("-n", name, "address", "add", f"{address}/24", "dev", "wire")
            ip("-n", name, "link", "set", "wire", "up")

    def __exit__(self, *_):
        for name in (self.front, self.node):
            try:
                ip("netns", "delete", name)
            except NoNamespaces:
                pass

    @staticmethod
    def inside(name):
        return ["ip", "netns", "exec", name]

    def time_wait(self, name):
        """Counts the sockets in TIME_WAIT between balancer and backend."""
        filters = ["state", "time-wait", "src", FRONT, "or", "src", NODE]
        command = [*self.inside(name), "ss", "-tanH", *filters]
        return subprocess.run(command, capture_output=True, check=True).stdout.count(b"\n")


def measure(spaces, node, kinds):
    """Runs one load and says how it went."""
    before, most = node.ask("counts"), collections.Counter()
    command = [*spaces.inside(spaces.front), sys.executable, __file__, "load", kinds]
    with Child(command) as clients:
        while clients.process.poll() is None:
            for side, name in (("balancer", spaces.front), ("node", spaces.node)):
                most[side] = max(most[side], spaces.time_wait(name))
            try:
                clients.process.wait(timeout=1)
            except subprocess.TimeoutExpired:
                pass
        report = json.loads(clients.lines.next("the report of the clients"))
    after = node.ask("counts")
    opened, asked = (after[key] - before.get(key, 0) for key in ("connections", "requests"))
    print(
        f"{'half POST' if kinds == 'half' else 'GET'}: {report['answers']} of {RATE * SECONDS} "
        f"answered in {report['seconds']:.1f} s, p50 {report['p50_ms']:.1f} ms, "
        f"p99 {report['p99_ms']:.1f} ms, errors {report['errors'] or 'none'}\n"
        f"  the backend saw {asked} requests on {opened} connections; in TIME_WAIT at most "
        f"{most['balancer']} on the balancer's side, {most['node']} on the node's",
        flush=True,
    )
    return report, most["balancer"]


def campaign():
    """Runs both loads; the first decides."""
    if os.geteuid() != 0:
        give_up("SKIPPED: reuse needs root for its network namespaces")
    try:
        with Namespaces() as spaces:
            inside_node = spaces.inside(spaces.node)
            with (
                Child([*inside_node, sys.executable, __file__, "node"]) as node,
                Balancer(CONFIGURATION, ["http"], spaces.inside(spaces.front)),
            ):
                node.lines.next("the start of the node")
                report, most = measure(spaces, node, "get")
                measure(spaces, node, "half")
    except NoNamespaces as error:
        give_up(f"SKIPPED: reuse cannot make its network namespaces: {error}")
    if report["errors"]:
        give_up("reuse: GETs failed")
    if most >= MOST_TIME_WAIT:
        give_up(f"reuse: {most} sockets in TIME_WAIT, {MOST_TIME_WAIT} are too many")


if __name__ == "__main__":
    match sys.argv[1:]:
        case []:
            campaign()
        case ["node"]:
            asyncio.run(serve())
        case ["load", kinds]:
            asyncio.run(load(kinds))
        case _:
            give_up(__doc__)
