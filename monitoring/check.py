#!/usr/bin/env python3
"""Checks the rules, then the dashboard: a Prometheus scrapes an Evenkeel that has traffic of every
kind, and each query of each panel has to have an answer. Needs prometheus, promtool and openssl.

Usage: monitoring/check.py BINARY
"""

import asyncio
import base64
import hashlib
import json
import math
import os
import pathlib
import re
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
# Long enough that every rate of RATE has two scrapes of what happened.
TRAFFIC_SECONDS = 24
RATE = "10s"
PATIENCE = 60

CONFIG = """
[admin]
bind = "127.0.0.1:{admin}"

[metrics]
bind = "127.0.0.1:{metrics}"

[[listener]]
name = "mqtt"
bind = "127.0.0.1:{mqtt}"
protocol = "tcp"
pool = "mqtt"
tls = {{ certificates = [{{ cert = "cert.pem", key = "key.pem" }}] }}

[[listener]]
name = "chat"
bind = "127.0.0.1:{chat}"
protocol = "websocket"
pool = "chat"

[[listener]]
name = "closed"
bind = "127.0.0.1:{closed}"
protocol = "tcp"
pool = "mqtt"
deny = ["127.0.0.0/8"]

[[listener]]
name = "narrow"
bind = "127.0.0.1:{narrow}"
protocol = "tcp"
pool = "narrow"

[pool.mqtt]
check = {{ type = "tcp", interval = "1s" }}
backend = [
  {{ name = "m1", address = "127.0.0.1:{node}" }},
  {{ name = "m2", address = "127.0.0.1:1" }},
]

[pool.chat]
resume = {{ timeout = "5s", on = ["eof"] }}
discover = {{ file = "chat.json" }}

[pool.narrow]
max_queue = 100
backend = [{{ name = "w1", address = "127.0.0.1:{node}", max_connections = 1 }}]
"""


class Failure(Exception):
    """Something that the checks have found."""


def run(*words, cwd=HERE):
    done = subprocess.run(words, cwd=cwd, capture_output=True, text=True)
    if done.returncode != 0:
        raise Failure(f"{' '.join(map(str, words))}:\n{done.stdout}{done.stderr}")


def free_ports(names):
    import socket

    held = {name: socket.create_server(("127.0.0.1", 0)) for name in names}
    ports = {name: one.getsockname()[1] for name, one in held.items()}
    for one in held.values():
        one.close()
    return ports


async def serve_raw(reader, writer):
    """Answers whatever comes."""
    try:
        while data := await reader.read(4096):
            writer.write(data)
            await writer.drain()
    except (ConnectionError, asyncio.CancelledError):
        pass
    writer.close()


async def read_head(reader):
    return (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")


async def serve_web(reader, writer, lives):
    """Answers requests, every fifth with 500, and upgrades to a WebSocket that only listens."""
    lives.add(writer)
    count = 0
    try:
        while True:
            head = await read_head(reader)
            key = re.search(r"(?i)sec-websocket-key: *(\S+)", head)
            count += 1
            if key:
                digest = hashlib.sha1((key[1] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()
                accept = base64.b64encode(digest).decode()
                writer.write(
                    f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                    f"Sec-WebSocket-Accept: {accept}\r\n\r\n".encode()
                )
                await reader.read()
                break
            status = "500 Oops" if "/bad" in head else "200 OK"
            writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nok".encode())
    except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
        pass
    lives.discard(writer)
    writer.close()


class Traffic:
    def __init__(self, ports, tls):
        self.ports, self.tls = ports, tls

    async def open(self, listener, **how):
        return await asyncio.wait_for(asyncio.open_connection("127.0.0.1", self.ports[listener], **how), 10)

    async def mqtt(self):
        reader, writer = await self.open("mqtt", ssl=self.tls, server_hostname="localhost")
        writer.write(b"hello")
        await reader.readexactly(5)
        writer.close()

    async def no_tls(self):
        reader, writer = await self.open("mqtt")
        writer.write(b"no hello at all" * 20)
        await reader.read()
        writer.close()

    async def refused(self):
        try:
            reader, writer = await self.open("closed")
            await reader.read()
            writer.close()
        except ConnectionError:
            pass

    async def narrow(self):
        reader, writer = await self.open("narrow")
        writer.write(b"hello")
        await reader.readexactly(5)
        await asyncio.sleep(0.05)
        writer.close()

    async def request(self, path="/"):
        reader, writer = await self.open("chat")
        writer.write(f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
        await reader.read()
        writer.close()

    async def websocket(self, lasts):
        reader, writer = await self.open("chat")
        writer.write(
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        await read_head(reader)
        await asyncio.sleep(lasts)
        writer.close()

    async def second(self):
        """About a second of everything."""
        await asyncio.gather(
            *(self.mqtt() for _ in range(4)),
            *(self.narrow() for _ in range(4)),
            *(self.request() for _ in range(4)),
            self.request("/bad"),
            self.websocket(1),
            self.no_tls(),
            self.refused(),
            asyncio.sleep(1),
            return_exceptions=True,
        )


async def until(what, process, ask):
    begun = time.monotonic()
    while time.monotonic() - begun < PATIENCE and process.poll() is None:
        try:
            if ask():
                return
        except OSError:
            pass
        await asyncio.sleep(0.2)
    raise Failure(f"{what} does not come")


def asked(address, path, **query):
    url = f"http://{address}{path}?{urllib.parse.urlencode(query)}"
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.load(answer)


def posted(address, path):
    request = urllib.request.Request(f"http://{address}{path}", data=b"{}", method="POST")
    request.add_header("Content-Type", "application/json")
    urllib.request.urlopen(request, timeout=30).read()


def queries():
    """Title of a panel and each of its queries, as Grafana sends them."""
    dashboard = json.loads((HERE / "dashboard.json").read_text())
    names = {one["name"] for one in dashboard["templating"]["list"]}
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            expression = target["expr"].replace("$__rate_interval", RATE)
            for name in names:
                expression = expression.replace(f"${name}", ".*")
            if "$" in expression:
                raise Failure(f"{panel['title']}: a variable is not known: {expression}")
            yield panel["title"], expression


def is_answered(prometheus, expression, begun):
    answer = asked(prometheus, "/api/v1/query_range", query=expression, start=begun, end=time.time(), step=1)
    series = answer["data"]["result"]
    return any(not math.isnan(float(value)) for one in series for _, value in one["values"])


def check_answers(prometheus, begun):
    all_queries = list(queries())
    empty = [f"{title}: {query}" for title, query in all_queries if not is_answered(prometheus, query, begun)]
    if empty:
        raise Failure("without an answer:\n" + "\n".join(empty))
    groups = asked(prometheus, "/api/v1/rules")["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    bad = [rule["name"] for rule in rules if rule["health"] != "ok"]
    recorded = [rule["name"] for rule in rules if rule["type"] == "recording"]
    bad += [name for name in recorded if not is_answered(prometheus, name, begun)]
    if bad:
        raise Failure(f"rules that give nothing: {bad}")
    print(f"{len(all_queries)} queries of the dashboard and {len(recorded)} recording rules have answers")


async def with_traffic(folder, binary):
    ports = free_ports(["admin", "metrics", "mqtt", "chat", "closed", "narrow", "prometheus"])
    lives = set()
    raw = await asyncio.start_server(serve_raw, "127.0.0.1", 0)
    web = [await asyncio.start_server(lambda r, w: serve_web(r, w, lives), "127.0.0.1", 0) for _ in range(2)]
    port_of = lambda server: server.sockets[0].getsockname()[1]
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
        "-days", "90", *subject, "-keyout", "key.pem", "-out", "cert.pem", cwd=folder)
    names = [{"name": f"c{n}", "address": f"127.0.0.1:{port_of(one)}"} for n, one in enumerate(web)]
    (folder / "chat.json").write_text(json.dumps({"backends": names}))
    (folder / "balancer.toml").write_text(CONFIG.format(**ports, node=port_of(raw)))
    scrape = (HERE / "prometheus.yml").read_text()
    scrape = scrape.replace("15s", "1s").replace("127.0.0.1:9901", f"127.0.0.1:{ports['metrics']}")
    for name in ("rules.yml", "alerts.yml"):
        scrape = scrape.replace(f"- {name}", f"- {HERE / name}")
    (folder / "prometheus.yml").write_text(scrape)
    admin, prometheus = f"127.0.0.1:{ports['admin']}", f"127.0.0.1:{ports['prometheus']}"
    log = open(folder / "log", "w")
    balancer = subprocess.Popen([binary, "--config", "balancer.toml"], cwd=folder, stdout=log, stderr=log)
    scraper = subprocess.Popen(
        ["prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=data",
         f"--web.listen-address={prometheus}"], cwd=folder, stdout=log, stderr=log)
    try:
        begun = time.time()
        await until("Evenkeel", balancer, lambda: asked(admin, "/api/v1/status"))
        await until("Prometheus", scraper, lambda: asked(prometheus, "/api/v1/query", query="up == 1")["data"]["result"])
        traffic = Traffic(ports, ssl.create_default_context(cafile=folder / "cert.pem"))
        lasting = [asyncio.create_task(traffic.websocket(TRAFFIC_SECONDS)) for _ in range(6)]
        for second in range(TRAFFIC_SECONDS):
            await traffic.second()
            if second == 8:
                posted(admin, "/api/v1/reload")
            if second == 12:
                # Sessions lose their backend in the middle, and go on.
                for writer in list(lives):
                    writer.transport.abort()
        for task in lasting:
            task.cancel()
        check_answers(prometheus, begun)
    except Failure:
        print((folder / "log").read_text()[-4000:], file=sys.stderr)
        raise
    finally:
        for process in (scraper, balancer):
            process.terminate()
        for process in (scraper, balancer):
            process.wait(PATIENCE)


def main():
    binary = os.path.abspath(sys.argv[1])
    for rules in ("rules.yml", "alerts.yml"):
        run("promtool", "check", "rules", rules)
    run("promtool", "check", "config", "prometheus.yml")
    run("promtool", "test", "rules", "tests.yml")
    print("the rules pass their tests")
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(with_traffic(pathlib.Path(folder), binary))


if __name__ == "__main__":
    try:
        main()
    except Failure as failure:
        sys.exit(str(failure))
