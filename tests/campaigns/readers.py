"""Buffers are bounded: peers that ask and never read cost what `max_buffered` allows, and little.

Four times, with a fresh balancer each: clients that GET a big body and read nothing of it, plain
and through TLS, and clients that upload to a backend that reads nothing. The memory of the
balancer is read with 500 to 2,500 of them. It may have grown by `max_buffered` and, for each, by
40 kB (TLS: 64 kB). 20 others who read are to get their first byte meanwhile.

    EVENKEEL   the program; default: the release build
    READERS    the most of them, opened in five portions; default: 2500
"""

import asyncio
import functools
import json
import os
import pathlib
import resource
import selectors
import socket
import ssl
import subprocess
import sys
import tempfile
import time

from balancer import PATIENCE, Balancer, Child, binary, give_up

READERS = int(os.environ.get("READERS", "2500"))
PORTIONS = 5
OTHERS = 20
MAX_BUFFERED = 8 << 20
BYTES_EACH = {"plain": 40_000, "tls": 64_000}
# Longer than any buffer of the kernel's.
BODY_BYTES = 1 << 30
# The kernel takes little for those who do not read: bytes that wait are to wait in the balancer.
RECEIVE_BYTES, SEND_BYTES = 16 << 10, 64 << 10
# As on a network. For loopback's own, of 64 KiB, the kernel gives each socket megabytes to send.
SEGMENT_BYTES = 1400
CHUNK = bytes(64 << 10)
# Uploads have stopped once none of them could go on for so long.
STUCK_AFTER = 1.0
GET = b"GET /big HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST /sink HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % BODY_BYTES
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % BODY_BYTES

CONFIGURATION = """
[global]
log_format = "json"
watch = false
max_buffered = "{buffered}MiB"

[metrics]
bind = "127.0.0.1:0"

[[listener]]
name = "plain"
bind = "127.0.0.1:0"
protocol = "websocket"
pool = "node"
{listener}

[[listener]]
name = "tls"
bind = "127.0.0.1:0"
protocol = "websocket"
pool = "node"
tls = {{ certificates = [{{ cert = "{folder}/cert.pem", key = "{folder}/key.pem" }}] }}
{listener}

[pool.node]
backend = [{{ address = "127.0.0.1:{node}" }}]
response_timeout = "1h"
body_timeout = "1h"
{pool}
"""


class Node(asyncio.Protocol):
    """A connection to the backend: an endless answer to a GET, and no read of a POST's body."""

    kept = []

    def connection_made(self, transport):
        self.transport, self.head, self.left, self.may_write = transport, b"", 0, True
        # Nothing is kept here that the balancer does not take.
        transport.set_write_buffer_limits(high=0)

    def data_received(self, data):
        self.head += data
        if b"\r\n\r\n" not in self.head:
            return
        if self.head.startswith(b"POST /sink "):
            self.transport.pause_reading()
            # The loop forgets a transport that neither reads nor writes.
            self.kept.append(self)
            return
        self.head, self.left = b"", BODY_BYTES
        self.transport.write(ANSWER)
        self.pour()

    def pause_writing(self):
        self.may_write = False

    def connection_lost(self, _error):
        self.left = 0

    def resume_writing(self):
        self.may_write = True
        # In a call of its own: asyncio does not expect a write to fail in here.
        asyncio.get_running_loop().call_soon(self.pour)

    def pour(self):
        # A transport that a write has found broken says so here, and its protocol hears it later.
        while self.left and self.may_write and not self.transport.is_closing():
            part = CHUNK[: self.left]
            self.left -= len(part)
            self.transport.write(part)


async def serve():
    """Plays the backend until it is killed."""
    listener = socket.create_server(("127.0.0.1", 0))
    shape(listener)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Node, sock=listener, backlog=4096)
    print(json.dumps(listener.getsockname()[1]), flush=True)
    await server.serve_forever()


def shape(plain):
    """Bounds the kernel's buffers of a socket, and of those it accepts."""
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BYTES)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT_BYTES)


class Doors:
    """Opens connections to one listener."""

    def __init__(self, port, folder):
        self.port = port
        self.context = ssl.create_default_context(cafile=folder / "cert.pem") if folder else None

    def open(self, request):
        plain = socket.socket()
        shape(plain)
        plain.settimeout(PATIENCE)
        plain.connect(("127.0.0.1", self.port))
        if self.context:
            plain = self.context.wrap_socket(plain, server_hostname="localhost")
        plain.sendall(request)
        return plain

    def reader(self):
        """Asks for the big body. Through TLS, the state is dropped: nothing is read any more."""
        plain = self.open(GET)
        return socket.socket(fileno=plain.detach()) if self.context else plain


class Readers:
    """Clients that never read what they asked for."""

    def __init__(self, doors):
        self.doors, self.sockets, self.lost = doors, [], 0

    def add(self, count):
        self.sockets += (self.doors.reader() for _ in range(count))

    def close(self):
        for plain in self.sockets:
            plain.close()


class Uploads:
    """Clients that send as much as is taken to a backend that never reads."""

    def __init__(self, doors):
        self.doors, self.selector = doors, selectors.DefaultSelector()
        self.lost = 0

    def add(self, count):
        for _ in range(count):
            plain = self.doors.open(POST)
            plain.setblocking(False)
            self.selector.register(plain, selectors.EVENT_WRITE)
        while ready := self.selector.select(timeout=STUCK_AFTER):
            for key, _ in ready:
                self.push(key.fileobj)

    def push(self, plain):
        try:
            plain.send(CHUNK)
        except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
            pass
        except OSError:
            self.lost += 1
            self.selector.unregister(plain)
            plain.close()

    def close(self):
        for key in list(self.selector.get_map().values()):
            key.fileobj.close()
        self.selector.close()


def first_bytes(doors):
    """Lets others ask and read; returns how many saw the body begin, and after how long."""
    began = time.monotonic()
    others = [doors.open(GET) for _ in range(OTHERS)]
    served = sum(sees_body(plain) for plain in others)
    for plain in others:
        plain.close()
    return served, time.monotonic() - began


def sees_body(plain):
    seen = b""
    try:
        while b"\r\n\r\n" not in seen or seen.endswith(b"\r\n\r\n"):
            part = plain.recv(4096)
            if not part:
                return False
            seen += part
    except OSError:
        return False
    return seen.startswith(b"HTTP/1.1 200 ")


def slope(points):
    """Fits a line through points and returns its slope."""
    (mean_x, mean_y) = (sum(axis) / len(points) for axis in zip(*points))
    over = sum((x - mean_x) * (y - mean_y) for x, y in points)
    return over / sum((x - mean_x) ** 2 for x, _ in points)


def measure(balancer, kind, security, folder):
    """Opens the peers in portions and says what they cost; returns what was wrong."""
    doors = Doors(balancer.ports[security], folder if security == "tls" else None)
    # Memory that the first connections need once is not charged to the others.
    first_bytes(doors)
    base, points, wrong, most_over = balancer.settled_pss(), [], [], 0
    peers = {"readers": Readers, "uploads": Uploads}[kind](doors)
    for _ in range(PORTIONS):
        peers.add(READERS // PORTIONS)
        count = (points[-1][0] if points else 0) + READERS // PORTIONS
        grown, most = balancer.settled_pss() - base, MAX_BUFFERED + BYTES_EACH[security] * count
        points.append((count, grown))
        print(
            f"  {count}: {grown / 1e6:.1f} MB, at most {most / 1e6:.1f}; "
            f"evenkeel_buffered_bytes {balancer.metric('evenkeel_buffered_bytes') / 1e6:.1f} MB",
            flush=True,
        )
        most_over = max(most_over, grown - most)
    served, seconds = first_bytes(doors)
    if most_over:
        wrong.append(f"{kind}, {security}: {most_over / 1e6:.1f} MB too many")
    if peers.lost:
        wrong.append(f"{kind}, {security}: {peers.lost} were closed")
    peers.close()
    print(
        f"  {slope(points) / 1e3:.1f} kB for each, at most {BYTES_EACH[security] / 1e3:.0f} beside "
        f"`max_buffered`; {served} of {OTHERS} others got their first byte, in {seconds:.1f} s",
        flush=True,
    )
    if served < OTHERS:
        wrong.append(f"{kind}, {security}: {OTHERS - served} of {OTHERS} others got no byte")
    return wrong


@functools.cache
def schema():
    """Reads the keys of this build's configuration."""
    said = subprocess.run([binary(), "schema"], capture_output=True, check=True).stdout
    tables = json.loads(said)["properties"]
    return {
        "listener": tables["listener"]["items"]["properties"],
        "pool": tables["pool"]["additionalProperties"]["properties"],
    }


def long_send_timeout(table):
    """Keeps the peers: without it a write without progress ends the connection after a minute."""
    return 'send_timeout = "1h"' if "send_timeout" in schema()[table] else ""


def configuration(folder, node):
    return CONFIGURATION.format(
        buffered=MAX_BUFFERED >> 20,
        folder=folder,
        node=node,
        listener=long_send_timeout("listener"),
        pool=long_send_timeout("pool"),
    )


def make_certificate(folder):
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    files = ["-keyout", folder / "key.pem", "-out", folder / "cert.pem"]
    name = ["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    command = ["openssl", "req", "-x509", *key, *files, *name]
    subprocess.run(command, capture_output=True, check=True)


def campaign():
    """Measures every kind of peer, then judges."""
    wrong = []
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        make_certificate(folder)
        for kind in ("readers", "uploads"):
            for security in ("plain", "tls"):
                print(f"{kind}, {security}", flush=True)
                with Child([sys.executable, __file__, "node"]) as node:
                    port = json.loads(node.lines.next("the start of the node"))
                    names = ["plain", "tls", "metrics"]
                    with Balancer(configuration(folder, port), names) as balancer:
                        wrong += measure(balancer, kind, security, folder)
    if wrong:
        give_up("readers: " + "\nreaders: ".join(wrong))


if __name__ == "__main__":
    match sys.argv[1:]:
        case []:
            campaign()
        case ["node"]:
            asyncio.run(serve())
        case _:
            give_up(__doc__)
