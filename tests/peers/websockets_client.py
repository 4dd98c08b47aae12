"""Clients by Python's `websockets`: numbered messages over TLS and plain until standard input ends.

Usage: websockets_client.py WSS_URL WS_URL CA_FILE. Says `ready` when all are connected; a line `leave NODE` makes the
clients of that node close and connect again. Ends with 0 when every answer came, in order, and every close was 1000.
"""

import asyncio
import ssl
import sys

from websockets.asyncio.client import connect


class Client:
    def __init__(self, url, context):
        self.url = url
        self.context = context
        self.sent = 0
        self.leaving = False

    async def open(self):
        self.socket = await asyncio.wait_for(connect(self.url, ssl=self.context, compression=None), 30)
        self.node = (await self.ask("who")).split(":")[0]

    async def ask(self, text):
        await self.socket.send(text)
        return await asyncio.wait_for(self.socket.recv(), 30)

    async def close(self):
        await self.socket.close()
        assert self.socket.close_code == 1000, self.socket.close_code

    async def run(self, stop):
        while not stop.is_set():
            text = f"python {self.sent} {'y' * (self.sent % 3000)}"
            answer = await self.ask(text)
            assert answer == f"{self.node}:{text}", answer
            binary = bytes(self.sent % 256 for _ in range(1000))
            assert await self.ask(binary) == binary
            pong = await self.socket.ping()
            await asyncio.wait_for(pong, 30)
            self.sent += 1
            if self.leaving:
                self.leaving = False
                left = self.node
                await self.close()
                await self.open()
                assert self.node != left, f"connected to {left}, which drains"
        await self.close()


async def follow_input(clients, stop):
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := (await reader.readline()).decode().split():
        for client in clients:
            if line[0] == "leave" and client.node == line[1]:
                client.leaving = True
    stop.set()


async def main():
    secure, plain, ca = sys.argv[1:]
    context = ssl.create_default_context(cafile=ca)
    clients = [Client(secure, context) for _ in range(5)] + [Client(plain, None) for _ in range(5)]
    await asyncio.gather(*(client.open() for client in clients))
    print("ready", flush=True)
    stop = asyncio.Event()
    await asyncio.gather(follow_input(clients, stop), *(client.run(stop) for client in clients))
    assert all(client.sent > 10 for client in clients)
    print(f"websockets: {sum(client.sent for client in clients)} rounds", file=sys.stderr)


asyncio.run(main())
