// The main job on real input: `ws` backends in processes of their own, `ws` and Python `websockets` clients over TLS and
// plain, through the release binary, with reloads and a drain in the middle. Every message is numbered; nothing may be
// lost, doubled, out of order, or closed by anyone but its client. Usage: node main_job.mjs BINARY PYTHON

import WebSocket from "ws";
import { once } from "node:events";
import { Balancer, certificate, fail, folder, ready, within } from "./balancer.mjs";

const [binary, python] = process.argv.slice(2);
const CLIENTS = 40;

class Client {
  constructor(url, options) {
    Object.assign(this, { url, options, sent: 0, running: true });
  }

  async open() {
    this.socket = new WebSocket(this.url, this.options);
    await within(once(this.socket, "open"), `open ${this.url}`);
    this.answers = [];
    this.socket.on("message", (data) => this.answers.shift()?.(data.toString()));
    this.socket.on("error", (error) => fail(`${this.url}: ${error.message}`));
    this.socket.on("close", (code) => this.closing || fail(`${this.url} was closed with ${code}`));
    this.closing = false;
    this.node = (await this.ask("who")).split(":")[0];
  }

  ask(text) {
    const answer = new Promise((resolve) => this.answers.push(resolve));
    this.socket.send(text);
    return within(answer, `an answer of ${this.node ?? "a node"}`);
  }

  async run() {
    while (this.running) {
      const text = `message ${this.sent++} ${"x".repeat(this.sent % 2000)}`;
      const answer = await this.ask(text);
      if (answer !== `${this.node}:${text}`) fail(`expected ${this.node}:${text}, got ${answer}`);
      if (this.leave) {
        this.leave = false;
        await this.close();
        await this.open();
      }
    }
    await this.close();
  }

  async close() {
    this.closing = true;
    const closed = once(this.socket, "close");
    this.socket.close(1000);
    const [code] = await within(closed, "a close");
    if (code !== 1000) fail(`closed with ${code}`);
  }
}

const at = folder();
const { cert, key, pem } = certificate(at);
const names = ["n1", "n2", "n3", "n4"];
const nodes = await Promise.all(names.map((name) => ready(process.execPath, [new URL("ws_node.mjs", import.meta.url).pathname, name])));

function config(count, balance) {
  const backends = names.slice(0, count).map((name, i) => `  { name = "${name}", address = "${nodes[i].first}" },`);
  return `
[[listener]]
name = "tls"
bind = "127.0.0.1:0"
protocol = "websocket"
tls = { certificates = [{ cert = "${cert}", key = "${key}" }] }
pool = "chat"

[[listener]]
name = "plain"
bind = "127.0.0.1:0"
protocol = "websocket"
pool = "chat"

[pool.chat]
balance = "${balance}"
check = { type = "websocket", path = "/", interval = "500ms" }
backend = [
${backends.join("\n")}
]
`;
}

const balancer = await Balancer.start(binary, config(3, "least_conn"), at);
const port = async (listener) => (await balancer.address(listener)).split(":").pop();
const secure = `wss://localhost:${await port("tls")}/chat`;
const plain = `ws://127.0.0.1:${await port("plain")}/chat`;

const clients = [];
for (let i = 0; i < CLIENTS; i++) clients.push(i % 2 ? new Client(plain) : new Client(secure, { ca: pem }));
await Promise.all(clients.map((client) => client.open()));
const running = clients.map((client) => client.run());

const script = new URL("websockets_client.py", import.meta.url).pathname;
const snake = await ready(python, [script, secure, plain, cert]);
if (snake.first !== "ready") fail(`Python said ${snake.first}`);

const more = async (count) => {
  const target = clients.reduce((sum, client) => sum + client.sent, 0) + count;
  await within(
    (async () => {
      while (clients.reduce((sum, client) => sum + client.sent, 0) < target) await new Promise(setImmediate);
    })(),
    "traffic",
  );
};
await more(2000);

console.log("reloads under traffic");
for (let i = 0; i < 20; i++) {
  await balancer.reload(config(i % 2 ? 3 : 4, i % 3 ? "least_conn" : "round_robin"));
  await more(200);
}
await balancer.reload(config(4, "least_conn"));

console.log("drain n1 under traffic");
const begun = await balancer.admin("POST", "/api/v1/pools/chat/backends/n1/drain");
if (!(begun.backend.live > 0)) fail(`n1 should be busy: ${JSON.stringify(begun)}`);
await more(1000);
const stays = await balancer.admin("POST", "/api/v1/pools/chat/backends/n1/drain?wait=1s");
if (stays.backend.live !== begun.backend.live) fail(`a drain touched live sessions: ${begun.backend.live} -> ${stays.backend.live}`);
const waited = balancer.admin("POST", "/api/v1/pools/chat/backends/n1/drain?wait=25s");
clients.filter((client) => client.node === "n1").forEach((client) => (client.leave = true));
snake.child.stdin.write("leave n1\n");
const done = await waited;
if (done.backend.live !== 0) fail(`n1 is not empty: ${JSON.stringify(done)}`);
await more(1000);
const left = clients.filter((client) => client.node === "n1").length;
if (left) fail(`${left} clients are on a drained node`);

console.log("stop");
clients.forEach((client) => (client.running = false));
await Promise.all(running);
const ended = once(snake.child, "exit");
snake.child.stdin.end();
const [code] = await within(ended, "Python to end");
if (code !== 0) fail(`the Python clients failed with code ${code}`);

console.log("kill a node's process between new connections");
await balancer.admin("POST", "/api/v1/pools/chat/backends/n1/ready");
for (let i = 0; i < 60; i++) {
  if (i === 15) {
    // What has reached a node that dies is not repeated: it has to be gone.
    const gone = once(nodes[2].child, "exit");
    nodes[2].child.kill("SIGKILL");
    await within(gone, "the node's end");
  }
  const client = i % 2 ? new Client(plain) : new Client(secure, { ca: pem });
  await client.open();
  if (i > 15 && client.node === "n3") fail("a killed node answered");
  await client.close();
}

await balancer.stop();
nodes.forEach((node) => node.child.kill());
const total = clients.reduce((sum, client) => sum + client.sent, 0);
console.log(`main job: ${total} messages of ${CLIENTS} clients, none lost`);
process.exit(0);
