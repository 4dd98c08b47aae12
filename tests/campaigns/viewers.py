"""CPU that ten viewers cost: those of the dashboard, which follow events, at 9,000 connections.

One Evenkeel, with traffic that goes on: connections that last and echoed messages. Its CPU time is
read in windows, by turns without viewers and with ten. The result is the median ratio of neighbours
and the cores that the viewers take.

    EVENKEEL     the program; default: the release build
    CONNECTIONS  default: 9000
    MESSAGES     echoed per second, over all connections; default: 1000
    WINDOWS      pairs of windows; default: 6
    SECONDS      of a window; default: 10
    MOST         cores that the viewers may take; default: 0.01
"""

import asyncio
import os
import random
import resource
import statistics
import sys
import time

from balancer import PATIENCE, Balancer, Child, give_up

CONNECTIONS = int(os.environ.get("CONNECTIONS", "9000"))
MESSAGES = int(os.environ.get("MESSAGES", "1000"))
WINDOWS = int(os.environ.get("WINDOWS", "6"))
SECONDS = float(os.environ.get("SECONDS", "10"))
MOST = float(os.environ.get("MOST", "0.01"))
VIEWERS = 10
# Opened at once: more would meet the limits of set-up.
PORTION = 100
STEP = 0.02

CONFIGURATION = """
[global]
log_format = "json"
watch = false

[admin]
bind = "127.0.0.1:0"

[[listener]]
name = "main"
bind = "127.0.0.1:0"
protocol = "tcp"
pool = "nodes"

[pool.nodes]
backend = [{{ name = "n1", address = "127.0.0.1:{port}" }}]
"""


async def echo(reader, writer):
    try:
        while data := await reader.read(4096):
            writer.write(data)
    except ConnectionError:
        pass
    writer.close()


async def node():
    server = await asyncio.start_server(echo, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def cpu_seconds(process):
    with open(f"/proc/{process}/stat", encoding="ascii") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def opened(port):
    reader, writer = await asyncio.wait_for(asyncio.open_connection("127.0.0.1", port), PATIENCE)
    writer.write(b"hello")
    await asyncio.wait_for(reader.readexactly(5), PATIENCE)
    return reader, writer


async def talk(connections):
    """Sends MESSAGES a second, each on any connection, and reads what comes back."""
    owed, last = 0.0, time.monotonic()
    while True:
        await asyncio.sleep(STEP)
        now = time.monotonic()
        owed, last = owed + (now - last) * MESSAGES, now
        for _ in range(int(owed)):
            reader, writer = random.choice(connections)
            writer.write(b"a message")
        owed -= int(owed)


async def drain(reader):
    while await reader.read(4096):
        pass


async def view(port, seen):
    """Follows the events as a page does."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"GET /api/v1/events HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
        while line := await reader.readline():
            if line == b"event: rates\n":
                seen[0] += 1
    finally:
        writer.close()


async def window(balancer, viewers):
    """Cores used in a window with so many viewers."""
    seen = [0]
    viewing = [asyncio.create_task(view(balancer.ports["admin"], seen)) for _ in range(viewers)]
    # What viewers cost when they come is no part of it.
    await asyncio.sleep(1)
    begun, before = time.monotonic(), cpu_seconds(balancer.process.pid)
    await asyncio.sleep(SECONDS)
    used = (cpu_seconds(balancer.process.pid) - before) / (time.monotonic() - begun)
    for task in viewing:
        task.cancel()
    await asyncio.gather(*viewing, return_exceptions=True)
    if seen[0] < viewers * (SECONDS - 2):
        give_up(f"viewers got {seen[0]} events of rates only")
    return used


async def measure(balancer):
    connections = []
    while len(connections) < CONNECTIONS:
        portion = min(PORTION, CONNECTIONS - len(connections))
        connections += await asyncio.gather(*(opened(balancer.ports["main"]) for _ in range(portion)))
    background = [asyncio.create_task(talk(connections))]
    background += [asyncio.create_task(drain(reader)) for reader, _ in connections]
    pairs = []
    for _ in range(WINDOWS):
        pairs.append((await window(balancer, 0), await window(balancer, VIEWERS)))
        print(f"without {pairs[-1][0]:.4f} cores, with {VIEWERS} viewers {pairs[-1][1]:.4f}", flush=True)
    for task in background:
        task.cancel()
    return pairs


def main():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with Child([sys.executable, __file__, "node"]) as backend:
        port = int(backend.lines.next("the port of the node"))
        with Balancer(CONFIGURATION.format(port=port), ["admin", "main"]) as balancer:
            pairs = asyncio.run(measure(balancer))
    more = statistics.median(with_viewers - without for without, with_viewers in pairs)
    ratio = statistics.median(with_viewers / max(without, 0.001) for without, with_viewers in pairs)
    print(f"{CONNECTIONS} connections, {MESSAGES} messages/s: {VIEWERS} viewers take {more:.4f} cores, {ratio:.3f} of without")
    if more > MOST:
        give_up(f"more than {MOST} cores")


if __name__ == "__main__":
    if sys.argv[1:] == ["node"]:
        asyncio.run(node())
    else:
        main()
