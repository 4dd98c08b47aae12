// A rolling restart that no client notices: `ws` clients, every other one with permessage-deflate, before three `ws` nodes that are
// restarted one after the other, in three ways: after a drain, by their own Close 1012, and killed. Every client numbers its messages
// and gets them back. No socket may be closed; a number comes back at most once and in order; and one that does not come back was
// sent in a switch of that client which the access log shows, with messages that may be lost.
// Usage: node resume.mjs BINARY [--clients 1000] [--ways drain,term,kill]

import { once } from "node:events";
import { join } from "node:path";
import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import WebSocket from "ws";
import { Balancer, fail, folder, ready, within } from "./balancer.mjs";
import { every } from "./numbered.mjs";

const { values: given, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    clients: { type: "string", default: "1000" },
    ways: { type: "string", default: "drain,term,kill" },
  },
});
const [binary] = positionals;
const CLIENTS = Number(given.clients);
const WAYS = given.ways.split(",");
// Messages per second of all clients together.
const MESSAGES = 1_000;
const INTERVAL = (CLIENTS * 1_000) / MESSAGES;
// A message is under way for so long at most before a node has it, and its answer. Between two restarts twice that: the windows of
// two of them do not cover each other's.
const UNDER_WAY = 1_500;
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const began = Date.now();
const log = (text) => console.log(`${((Date.now() - began) / 1000).toFixed(1).padStart(6)} s  ${text}`);
log(`resume: ${CLIENTS} clients, restarts by ${WAYS.join(", ")}`);

const script = new URL("resume_node.mjs", import.meta.url).pathname;
const nodes = ["n1", "n2", "n3"].map((name) => ({ name, port: 0 }));

async function live(node) {
  const { child, first, lines } = await ready(process.execPath, [script, String(node.port)]);
  Object.assign(node, { child, lines, address: first, port: first.split(":").pop() });
}

async function end(node, signal) {
  const ended = once(node.child, "exit");
  node.child.kill(signal);
  await within(ended, `${node.name} to end`);
}

await Promise.all(nodes.map(live));
const at = folder();
const access = join(at, "access.log");
const backends = nodes.map((node) => `  { name = "${node.name}", address = "${node.address}" },`);
const balancer = await Balancer.start(
  binary,
  `
[access_log]
output = "${access}"

[[listener]]
name = "chat"
bind = "127.0.0.1:0"
protocol = "websocket"
pool = "chat"

[pool.chat]
balance = "least_conn"
resume = { timeout = "10s", settle = "200ms", max = "1000/m" }
check = { type = "websocket", path = "/", interval = "500ms" }
backend = [
${backends.join("\n")}
]
`,
  at,
);
const url = `ws://${await balancer.address("chat")}/chat`;

class Client {
  constructor(number) {
    // Text that compresses, and that a window of another message would change.
    this.text = `client ${number} says `.repeat(1 + (number % 20));
    this.compresses = number % 2 === 1;
    this.sentAt = [];
    this.missing = new Set();
    this.next = 0;
  }

  async open() {
    this.socket = new WebSocket(url, { perMessageDeflate: this.compresses ? { threshold: 0 } : false });
    await within(once(this.socket, "open"), "a session");
    // What `ws` keeps of the agreement.
    const agreed = this.socket._extensions["permessage-deflate"]?.params;
    if (this.compresses && !agreed?.client_no_context_takeover) fail("a window of the client's would be lost");
    this.address = `127.0.0.1:${this.socket._socket.localPort}`;
    this.socket.on("message", (data) => this.take(data.toString()));
    this.socket.on("error", (error) => fail(`${this.address}: ${error.message}`));
    this.socket.on("close", (code) => this.finished || fail(`${this.address} was closed with ${code}`));
  }

  say() {
    this.socket.send(`${this.sentAt.length} ${this.text}`);
    this.sentAt.push(Date.now());
  }

  take(text) {
    const [number] = text.split(" ", 1);
    const at = Number(number);
    if (text !== `${number} ${this.text}`) fail(`${this.address} got other bytes than it sent in message ${number}`);
    if (!(at >= this.next)) fail(`${this.address} got ${number} again or late, ${this.next} was next`);
    for (; this.next < at; this.next += 1) this.missing.add(this.next);
    this.next = at + 1;
  }
}

const clients = [];
for (let i = 0; i < CLIENTS; i += 50) {
  const some = Array.from({ length: Math.min(50, CLIENTS - i) }, (_, j) => new Client(i + j));
  await Promise.all(some.map((client) => client.open()));
  clients.push(...some);
}
const open = new Set(clients);
every(INTERVAL, open, (client) => client.say());
await pause(1_000);

const backend = (node) => balancer.admin("GET", `/api/v1/pools/chat/backends/${node.name}`);
async function until(what, holds) {
  const waiting = (async () => {
    while (!(await holds())) await pause(50);
  })();
  await within(waiting, what);
}

const restarts = {
  async drain(node) {
    await balancer.admin("POST", `/api/v1/pools/chat/backends/${node.name}/drain`, { rate: "500/s" });
    await until(`${node.name} to be empty`, async () => (await backend(node)).live === 0);
    await end(node, "SIGKILL");
    await live(node);
    await balancer.admin("POST", `/api/v1/pools/chat/backends/${node.name}/ready`);
  },
  async term(node) {
    await end(node, "SIGTERM");
    await live(node);
  },
  async kill(node) {
    await end(node, "SIGKILL");
    await live(node);
  },
};

const lines = () => readFileSync(access, "utf8").split("\n").filter(Boolean).map((line) => JSON.parse(line));
const sessions = async () => (await balancer.admin("GET", "/api/v1/status")).pools[0].backends.map((one) => one.live);
const total = (counts) => counts.reduce((sum, count) => sum + count, 0);
for (const way of WAYS) {
  for (const node of nodes) {
    const before = (await backend(node)).live;
    const since = Date.now();
    await restarts[way](node);
    await until("all sessions to have a backend", async () => total(await sessions()) === CLIENTS);
    await until(`${node.name} to be up`, async () => (await backend(node)).state === "up");
    log(`${way} ${node.name}, which had ${before}: all have a backend again after ${Date.now() - since} ms`);
    await pause(2 * UNDER_WAY);
  }
}

log("finish");
open.clear();
await pause(UNDER_WAY);
for (const client of clients) {
  client.socket.send(`${client.sentAt.length} ${client.text}`);
  client.sentAt.push(Date.now());
}
await until("the last answers", () => clients.every((client) => client.next === client.sentAt.length));

const switches = new Map();
for (const line of lines()) {
  if (line.event !== "resume") continue;
  const end = Date.parse(line.time);
  const window = { ...line, begin: end - line.gap_ms - UNDER_WAY, until: end + UNDER_WAY };
  switches.set(line.client, [...(switches.get(line.client) ?? []), window]);
}
const all = [...switches.values()].flat();
let missing = 0;
for (const client of clients) {
  for (const number of client.missing) {
    const at = client.sentAt[number];
    const around = (switches.get(client.address) ?? []).filter((one) => one.begin <= at && at <= one.until);
    if (!around.some((one) => one.lost !== "0")) {
      const known = (switches.get(client.address) ?? []).map((one) => `${one.time} ${one.gap_ms} ${one.from} ${one.lost}`);
      fail(`${client.address} lost ${number} of ${new Date(at).toISOString()}, not in a switch that may lose: ${known.join(", ")}`);
    }
    missing += 1;
  }
}
if (all.length < CLIENTS) fail(`only ${all.length} sessions were resumed`);
const lossless = all.filter((one) => one.lost === "0").length;
if (WAYS.includes("drain") && lossless < CLIENTS / 2) fail(`only ${lossless} sessions were moved with nothing lost`);
const status = await balancer.admin("GET", "/api/v1/status");
const ended = total(status.pools[0].backends.map((one) => one.not_resumed));
if (ended) fail(`${ended} sessions were not resumed`);
const gaps = all.map((one) => one.gap_ms).sort((one, other) => one - other);
const sent = total(clients.map((client) => client.sentAt.length));
log(
  `${all.length} switches, ${lossless} with nothing lost, gap p50 ${gaps[gaps.length >> 1]} ms, longest ${gaps.at(-1)} ms; ` +
    `${sent} messages, ${missing} did not come back, 0 of ${CLIENTS} sockets closed`,
);

for (const client of clients) {
  client.finished = true;
  client.socket.close(1000);
}
await until("the counts to return to zero", async () => {
  const { process: counts } = await balancer.admin("GET", "/api/v1/status");
  return counts.connections === 0 && counts.relayed_sessions === 0 && counts.buffered_bytes === 0;
});
await balancer.stop();
log("resume: passed");
process.exit(0);
