"""100 live upgrades in a row under load: no session lost, no byte wrong, no connect refused.

Sessions of each kind go on through all of them: raw TCP and TLS 1.2 and 1.3 that echo, WebSockets
with pings and permessage-deflate, clients that have finished sending and still receive, clients
that stopped reading. Others connect all the while. At the end each session is asked for what it
is owed, the access log is to have one line per connection, and descriptors of the tenth process
and of the last one are compared.

    EVENKEEL   the program; default: the release build
    UPGRADES   how many; default: 100
    SESSIONS   of each kind; default: 60

Needs the package `websockets`.
"""

import asyncio
import json
import os
import pathlib
import random
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.request

import websockets

from balancer import PATIENCE, Balancer, binary, give_up

UPGRADES = int(os.environ.get("UPGRADES", "100"))
SESSIONS = int(os.environ.get("SESSIONS", "60"))
MAX_MESSAGE = 20_000
# What a client that does not read is owed: more than all buffers between hold.
OWED = 4 << 20
PATTERN = bytes(range(251)) * 17
COMERS = 4
# A process that leaks a descriptor with each upgrade has more by far.
MORE_DESCRIPTORS = 20

CONFIGURATION = """
[global]
log_format = "json"
watch = false

[upgrade]
probation = "0s"
hard_stop_after = "1h"

[access_log]
output = "{folder}/access.log"

[admin]
bind = "127.0.0.1:0"

[[listener]]
name = "raw"
bind = "127.0.0.1:0"
protocol = "tcp"
pool = "raw"

[[listener]]
name = "tls"
bind = "127.0.0.1:0"
protocol = "tcp"
pool = "raw"
tls = {{ certificates = [{{ cert = "{folder}/c.pem", key = "{folder}/k.pem", default = true }}] }}

[[listener]]
name = "websocket"
bind = "127.0.0.1:0"
protocol = "websocket"
pool = "websocket"

[pool.raw]
backend = [{{ name = "n1", address = "127.0.0.1:{raw}" }}]

[pool.websocket]
backend = [{{ name = "n1", address = "127.0.0.1:{websocket}" }}]
"""


async def serve(reader, writer):
    """The node: echoes; `F` alone makes it send what a stalled client is owed, an end makes it count."""
    try:
        while data := await reader.read(65536):
            if data == b"F":
                writer.write(owed(OWED))
            else:
                writer.write(data)
            await writer.drain()
        for number in range(1 << 30):
            writer.write(b"%d\n" % number)
            await writer.drain()
            await asyncio.sleep(0.05)
    except (ConnectionError, asyncio.CancelledError):
        pass
    finally:
        writer.close()


def owed(count):
    """The first bytes of a pattern that no shift equals."""
    return (PATTERN * (count // len(PATTERN) + 1))[:count]


async def echo_websocket(socket):
    async for message in socket:
        await socket.send(message)


class Load:
    """Sessions and what they have seen."""

    def __init__(self, ports, client_tls):
        self.ports, self.client_tls = ports, client_tls
        self.opened = 0
        self.rounds = 0
        self.over = asyncio.Event()

    async def stream(self, name, tls=None):
        """Opens a connection."""
        self.opened += 1
        host = "localhost" if tls else None
        return await asyncio.open_connection("127.0.0.1", self.ports[name], ssl=tls, server_hostname=host)

    async def echo(self, kind, number):
        """One session that says something now and then, and checks each answer."""
        tls = None if kind == "raw" else self.client_tls[number % 2]
        reader, writer = await self.stream(kind, tls)
        while not self.over.is_set():
            message = random.randbytes(random.randint(2, MAX_MESSAGE))
            writer.write(message)
            answer = await asyncio.wait_for(reader.readexactly(len(message)), PATIENCE)
            assert answer == message, f"{kind} {number}: other bytes"
            self.rounds += 1
            await asyncio.sleep(random.random() / 10)
        writer.close()

    async def websocket(self, number):
        """The same as a WebSocket, with pings between."""
        self.opened += 1
        address = f"ws://127.0.0.1:{self.ports['websocket']}/"
        async with websockets.connect(address, ping_interval=1, ping_timeout=PATIENCE) as socket:
            while not self.over.is_set():
                message = random.randbytes(random.randint(0, MAX_MESSAGE // 2)) * 2
                await socket.send(message)
                answer = await asyncio.wait_for(socket.recv(), PATIENCE)
                assert answer == message, f"websocket {number}: another message"
                self.rounds += 1
                await asyncio.sleep(random.random() / 10)

    async def half_closed(self, number):
        """A client that has finished sending, and counts with its node."""
        reader, writer = await self.stream("raw")
        writer.write_eof()
        due = 0
        while not self.over.is_set():
            line = await asyncio.wait_for(reader.readline(), PATIENCE)
            assert line == b"%d\n" % due, f"half-closed {number}: {line!r} in place of {due}"
            due += 1
        self.rounds += due
        writer.close()

    async def stalled(self, number):
        """A client that reads nothing until the end, and then all that it is owed."""
        reader, writer = await self.stream("raw")
        writer.transport.pause_reading()
        writer.write(b"F")
        await self.over.wait()
        writer.transport.resume_reading()
        got = await asyncio.wait_for(reader.readexactly(OWED), PATIENCE)
        assert got == owed(OWED), f"stalled {number}: other bytes"
        self.rounds += 1
        writer.close()

    async def comer(self):
        """Connects again and again; whoever is refused fails the campaign."""
        while not self.over.is_set():
            reader, writer = await self.stream("raw")
            writer.write(b"hello")
            answer = await asyncio.wait_for(reader.readexactly(5), PATIENCE)
            assert answer == b"hello", "a newcomer: other bytes"
            self.rounds += 1
            writer.close()
            await asyncio.sleep(0.01)


def status(balancer):
    """Asks whichever process serves now."""
    address = f"http://127.0.0.1:{balancer.ports['admin']}/api/v1/status"
    with urllib.request.urlopen(address, timeout=PATIENCE) as answer:
        return json.load(answer)


def descriptors(process):
    return len(os.listdir(f"/proc/{process}/fd"))


async def upgrade(balancer):
    """Upgrades and waits for the end of the old process."""
    path = pathlib.Path(balancer.folder.name) / "balancer.toml"
    address = f"http://127.0.0.1:{balancer.ports['admin']}"
    command = [binary(), "upgrade", "--wait", "--config", path, "--admin", address]
    process = await asyncio.create_subprocess_exec(
        *map(str, command), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    output, _ = await asyncio.wait_for(process.communicate(), 4 * PATIENCE)
    if process.returncode != 0:
        give_up(f"an upgrade failed:\n{output.decode()}")


async def campaign(balancer, tls):
    load = Load(balancer.ports, tls)
    sessions = [asyncio.create_task(load.comer()) for _ in range(COMERS)]
    for number in range(SESSIONS):
        kinds = [load.echo("raw", number), load.echo("tls", number), load.websocket(number)]
        kinds += [load.half_closed(number), load.stalled(number)]
        sessions += [asyncio.create_task(kind) for kind in kinds]
    all_of_them = asyncio.gather(*sessions)
    began, seen, freezes = time.monotonic(), None, []
    for turn in range(1, UPGRADES + 1):
        await upgrade(balancer)
        if all_of_them.done():
            break
        told = await asyncio.to_thread(status, balancer)
        freezes.append(told["upgrade"]["longest_freeze_seconds"] * 1e3)
        process = told["process"]["id"]
        if turn == min(10, UPGRADES):
            seen = descriptors(process)
        print(f"\rupgrade {turn}, {load.rounds} answers", end="", file=sys.stderr)
    last = descriptors(process)
    load.over.set()
    await asyncio.wait_for(all_of_them, 4 * PATIENCE)
    print(f"\n{UPGRADES} upgrades in {time.monotonic() - began:.0f} s, {load.opened} connections, {load.rounds} answers")
    freezes.sort()
    print(f"longest freeze of an upgrade, ms: median {freezes[len(freezes) // 2]:.2f}, most {freezes[-1]:.2f}")
    print(f"descriptors: {seen} after upgrade {min(10, UPGRADES)}, {last} after the last")
    if last > seen + MORE_DESCRIPTORS:
        give_up("descriptors grow")
    return load.opened, process


def lines(path, count):
    """Waits for the lines of the access log, one per connection."""
    began = time.monotonic()
    while True:
        ids = [json.loads(line)["id"] for line in path.read_text().splitlines()]
        if len(ids) >= count or time.monotonic() - began > PATIENCE:
            return ids
        time.sleep(0.2)


async def main():
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
            + ["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
            + ["-keyout", f"{folder}/k.pem", "-out", f"{folder}/c.pem"],
            check=True,
            capture_output=True,
        )
        tls = [ssl.create_default_context(cafile=f"{folder}/c.pem") for _ in range(2)]
        tls[0].maximum_version = ssl.TLSVersion.TLSv1_2
        raw = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=1000)
        node = await websockets.serve(echo_websocket, "127.0.0.1", 0, ping_interval=1)
        ports = {"raw": raw.sockets[0].getsockname()[1], "websocket": node.sockets[0].getsockname()[1]}
        configuration = CONFIGURATION.format(folder=folder, **ports)
        with Balancer(configuration, ["raw", "tls", "websocket", "admin"]) as balancer:
            opened, process = await campaign(balancer, tls)
            log = pathlib.Path(folder) / "access.log"
            ids = await asyncio.to_thread(lines, log, opened)
            os.kill(process, 15)
        if len(ids) != opened or len(set(ids)) != len(ids):
            give_up(f"{len(ids)} lines, {len(set(ids))} ids of {opened} connections")
        print(f"{len(ids)} lines in the access log, one per connection")


asyncio.run(main())
