// Everything at once: `ws` clients with numbered traffic both ways, over TLS and plain, while nodes are drained with a goodbye,
// killed, added and removed, listeners are drained and the file is reloaded, by the choices of a seed. On a session that lives
// no byte may be lost or out of order, every end needs its reason, and in the end nothing may be left of them.
// Usage: node combined.mjs BINARY [--clients 200] [--seconds 30] [--seed NUMBER]

import { parseArgs } from "node:util";
import WebSocket from "ws";
import { Balancer, certificate, fail, folder, ready, within } from "./balancer.mjs";
import { Inflow, Outflow, every } from "./numbered.mjs";

const { values: given, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    clients: { type: "string", default: "200" },
    seconds: { type: "string", default: "30" },
    seed: { type: "string", default: String(Date.now() % 1_000_000) },
  },
});
const [binary] = positionals;
const [CLIENTS, SECONDS, SEED] = [given.clients, given.seconds, given.seed].map(Number);
// Messages per second each way, of all clients together.
const MESSAGES = 1_000;
const INTERVAL = (CLIENTS * 1_000) / MESSAGES;
const [MIN_NODES, MAX_NODES] = [2, 8];
// What was sent before its reason was over may be seen so much later.
const SLACK = 5_000;
// A node that was killed is asked until its check has seen that, which is late where the machine is busy.
const UNSEEN = 30_000;
console.log(`combined: ${CLIENTS} clients, ${SECONDS} s, --seed ${SEED}`);

// mulberry32. What the choices meet depends on the machine, so a seed repeats the choices and not the run.
let state = SEED;
function random() {
  state = (state + 0x6d2b79f5) | 0;
  let mixed = Math.imul(state ^ (state >>> 15), state | 1);
  mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
  return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
}
const between = (min, max) => min + random() * (max - min);
const pick = (list) => list[Math.floor(random() * list.length)];
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const began = Date.now();
const log = (text) => console.log(`${((Date.now() - began) / 1000).toFixed(1).padStart(6)} s  ${text}`);

// What may be ended by the operator: a node or a listener, and when it was, with which code.
class Target {
  goodbyes = [];

  says(code) {
    const goodbye = { code, until: Infinity };
    this.goodbyes.push(goodbye);
    return goodbye;
  }

  explains(code, since) {
    return this.goodbyes.some((one) => one.code === code && one.until + SLACK >= since);
  }
}

class Node extends Target {
  lives = 0;
  busy = false;

  constructor(name) {
    super();
    this.name = name;
  }

  async live() {
    const life = { node: this, label: `${this.name}.${++this.lives}`, killed: 0 };
    const script = new URL("combined_node.mjs", import.meta.url).pathname;
    const { child, first, lines } = await ready(process.execPath, [script, life.label, String(INTERVAL)]);
    lines.on("line", fail);
    lives.set(life.label, life);
    Object.assign(this, { life, child, address: first });
  }

  kill() {
    this.life.killed = Date.now();
    this.child.kill("SIGKILL");
  }
}

const lives = new Map();
const nodes = [];
// A node that a reload removed may have live connections to its own end.
const removed = [];
const at = folder();
const { cert, key, pem } = certificate(at);
const keys = { balance: "least_conn", idle: "1h", backlog: 1024 };
const listeners = { tls: new Target(), plain: new Target() };

function config() {
  const backends = nodes.map((node) => `  { name = "${node.name}", address = "${node.address}" },`);
  return `
[[listener]]
name = "tls"
bind = "127.0.0.1:0"
protocol = "websocket"
backlog = ${keys.backlog}
tls = { certificates = [{ cert = "${cert}", key = "${key}" }] }
pool = "chat"

[[listener]]
name = "plain"
bind = "127.0.0.1:0"
protocol = "websocket"
backlog = ${keys.backlog}
pool = "chat"

[pool.chat]
balance = "${keys.balance}"
idle_timeout = "${keys.idle}"
check = { type = "websocket", path = "/", interval = "500ms" }
backend = [
${backends.join("\n")}
]
`;
}

const tally = { sent: 0, received: 0, sessions: 0, ends: {}, turnedAway: 0, told: 0 };
const open = new Set();
let running = true;

function url(listener) {
  return listener === "tls" ? `wss://localhost:${ports.tls}/chat` : `ws://127.0.0.1:${ports.plain}/chat`;
}

// One client: a session after the other until the end, when it finishes the last one with both counts compared.
async function client(listener) {
  while (running) {
    const session = await connected(listener);
    if (session) await session.ended;
    // As clients do: not all in one moment.
    if (running) await pause(200 + Math.random() * 800);
  }
}

function connected(listener) {
  const socket = new WebSocket(url(listener), { ca: pem, perMessageDeflate: false });
  const since = Date.now();
  const session = { socket, listener, since, in: new Inflow(), out: new Outflow(), life: undefined };
  return within(
    new Promise((resolve, reject) => {
      socket.on("unexpected-response", (request, response) => {
        request.destroy();
        refused(listener, response, since);
        resolve();
      });
      socket.on("error", (error) => session.open || reject(new Error(`${listener}: ${error.message}`)));
      socket.on("open", () => {
        session.open = true;
        tally.sessions += 1;
        open.add(session);
        session.ended = new Promise((ended) => socket.on("close", (code) => ended(close(session, code))));
        resolve(session);
      });
      socket.on("message", (data, binary) => take(session, data, binary));
    }),
    `a session at ${listener}`,
  );
}

// 503 at a listener that drains; 502 of a node that was killed in the middle of the upgrade.
function refused(listener, response, since) {
  const status = response.statusCode;
  const drains = listeners[listener].goodbyes.some((one) => one.until + SLACK >= since);
  const kills = [...lives.values()].some((life) => life.killed + UNSEEN >= since);
  if (status === 503 && drains) {
    if (!(Number(response.headers["retry-after"]) >= 1)) fail("a 503 without Retry-After");
  } else if (!(status === 502 && kills)) {
    fail(`${listener} answered ${status}`);
  }
  tally.turnedAway += 1;
}

function take(session, data, binary) {
  if (binary) {
    const fault = session.in.take(data);
    if (fault) fail(`from ${session.life?.label}: ${fault}`);
    return;
  }
  const said = JSON.parse(data.toString());
  if (said.node) session.life = lives.get(said.node);
  if (said.fault) fail(`to ${session.life?.label}: ${said.fault}`);
  if (said.received === undefined) return;
  // Nothing is under way any more, in either direction.
  const [received, sent] = [session.out.count, session.in.count];
  if (said.received !== received || said.sent !== sent) {
    fail(`${session.life.label} got ${said.received} of ${received} and sent ${said.sent}, of which ${sent} came`);
  }
  session.counted = true;
  session.socket.close(1000);
}

function close(session, code) {
  open.delete(session);
  tally.sent += session.out.count;
  tally.received += session.in.count;
  const { life, since, listener } = session;
  const all = life ? [life.node, listeners[listener]] : [...nodes, ...removed, listeners[listener]];
  const killed = life ? [life] : [...lives.values()];
  const told = all.some((target) => target.explains(code, since));
  const reason = session.counted && code === 1000 ? "finished" : told ? `told ${code}` : code === 1006 ? "killed" : "";
  if (reason === "killed" && !killed.some((life) => life.killed >= since)) {
    fail(`a session of ${life?.label} at ${listener} broke after ${Date.now() - since} ms`);
  }
  if (!reason) fail(`a session of ${life?.label} at ${listener} was closed with ${code}`);
  if (told) tally.told += 1;
  tally.ends[reason] = (tally.ends[reason] ?? 0) + 1;
}

const backend = (node) => `/api/v1/pools/chat/backends/${node.name}`;
const usable = () => nodes.filter((node) => !node.busy);

// Waits for the job that an answer named; one without is over already.
async function over(job) {
  while (job && job.phase !== "done") {
    if (job.phase === "aborted") fail(`job ${job.id} was aborted`);
    await pause(100);
    job = await balancer.admin("GET", `/api/v1/jobs/${job.id}`);
  }
}

function pace(live) {
  const code = pick([1001, 1012, 4001]);
  const rate = `${Math.ceil(live / between(2, 6)) + 1}/s`;
  return { code, body: { rate, close: { code, reason: "combined" } } };
}

async function drained(node) {
  const { code, body } = pace(open.size / nodes.length);
  const goodbye = node.says(code);
  const { job } = await balancer.admin("POST", `${backend(node)}/drain`, body);
  log(`drain ${node.name} at ${body.rate} with ${code}`);
  await over(job);
  goodbye.until = Date.now();
}

const actions = {
  async drain() {
    const node = pick(usable());
    return busy(node, async () => {
      await drained(node);
      const left = await balancer.admin("GET", backend(node));
      if (left.live !== 0) fail(`the drain of ${node.name} is over, and ${left.live} are left`);
      if (random() < 0.5) {
        log(`restart ${node.name}`);
        node.kill();
        await node.live();
        await reload();
      }
      await balancer.admin("POST", `${backend(node)}/ready`);
    });
  },

  async kill() {
    const node = pick(usable());
    return busy(node, async () => {
      log(`kill ${node.name}`);
      node.kill();
      await pause(between(500, 4_000));
      await node.live();
      await reload();
    });
  },

  async add() {
    if (nodes.length >= MAX_NODES) return;
    const node = new Node(`n${++made}`);
    log(`add ${node.name}`);
    await node.live();
    nodes.push(node);
    await reload();
  },

  async remove() {
    const node = pick(usable());
    nodes.splice(nodes.indexOf(node), 1);
    removed.push(node);
    log(`remove ${node.name}`);
    await reload();
    return async () => {
      await pause(between(500, 4_000));
      // An empty one is not there any more.
      await drained(node).catch((error) => / 404 /.test(error.message) || fail(error.message));
      node.goodbyes.forEach((goodbye) => (goodbye.until = Math.min(goodbye.until, Date.now())));
      node.kill();
    };
  },

  async reload() {
    keys.balance = pick(["least_conn", "round_robin", "random"]);
    keys.idle = pick(["1h", "30m"]);
    keys.backlog = pick([1024, 2048]);
    log(`reload with ${keys.balance}`);
    await reload();
  },

  async listener() {
    const name = pick(Object.keys(listeners));
    if (listeners[name].busy) return;
    return busy(listeners[name], async () => {
      const { code, body } = pace(open.size / 2);
      const goodbye = listeners[name].says(code);
      log(`drain listener ${name} at ${body.rate} with ${code}`);
      const { job } = await balancer.admin("POST", `/api/v1/listeners/${name}/drain`, body);
      await over(job);
      const left = await balancer.admin("GET", `/api/v1/connections?listener=${name}`);
      if (left.connections.length) fail(`the drain of ${name} is over, and ${left.connections.length} are left`);
      await balancer.admin("POST", `/api/v1/listeners/${name}/ready`);
      goodbye.until = Date.now();
    });
  },

  async close() {
    const node = pick(usable());
    const { code, body } = pace(open.size / nodes.length);
    const goodbye = node.says(code);
    const filter = { pool: "chat", backend: node.name };
    log(`close what is on ${node.name} at ${body.rate} with ${code}`);
    const job = await balancer.admin("POST", "/api/v1/connections/close", { filter, ...body });
    return async () => {
      await over(job);
      goodbye.until = Date.now();
    };
  },
};

// One thing at a time is done to one target; the rest of it goes on beside the next actions.
async function busy(target, act) {
  target.busy = true;
  return async () => {
    await act();
    target.busy = false;
  };
}

// The nodes change while a reload is under way: one at a time, each with what is listed then.
let reloading = Promise.resolve();
function reload() {
  reloading = reloading.then(() => balancer.reload(config()));
  return reloading;
}

let made = 4;
for (let i = 1; i <= made; i++) nodes.push(new Node(`n${i}`));
await Promise.all(nodes.map((node) => node.live()));
const balancer = await Balancer.start(binary, config(), at);
const port = async (listener) => (await balancer.address(listener)).split(":").pop();
const ports = { tls: await port("tls"), plain: await port("plain") };
const before = (await balancer.admin("GET", "/api/v1/status")).process;

every(INTERVAL, open, (session) => {
  if (!session.finishing && session.socket.readyState === WebSocket.OPEN) session.socket.send(session.out.next());
});
const clients = [];
for (let i = 0; i < CLIENTS; i++) {
  clients.push(client(i % 2 ? "tls" : "plain"));
  if (i % 100 === 99) await pause(50);
}
await until("all clients to be there", () => open.size >= CLIENTS);

// Rests of actions that go on.
const rests = new Set();
const deadline = Date.now() + SECONDS * 1_000;
const done = {};
while (Date.now() < deadline) {
  const name = pick(Object.keys(actions));
  const takesOne = ["drain", "kill", "remove", "close"].includes(name);
  if (!takesOne || usable().length > MIN_NODES) {
    const rest = await actions[name]();
    done[name] = (done[name] ?? 0) + 1;
    if (rest) {
      const going = rest().finally(() => rests.delete(going));
      rests.add(going);
    }
  }
  await pause(between(200, 1_500));
}
log("let what is under way come to its end");
await within(Promise.all(rests), "the last actions");
await until("all clients to be back", () => open.size === CLIENTS && [...open].every((session) => session.life));

log("finish");
running = false;
for (const session of open) {
  session.finishing = true;
  session.socket.send("last");
}
await within(Promise.all(clients), "all clients to finish");

async function until(what, holds) {
  const waiting = (async () => {
    while (!(await holds())) await pause(50);
  })();
  await within(waiting, what);
}

let status;
const isEmpty = async () => {
  status = await balancer.admin("GET", "/api/v1/status");
  const { connections, setup_connections, relayed_sessions, buffered_bytes, handshakes, waiting_handshakes } = status.process;
  const counts = [connections, setup_connections, relayed_sessions, buffered_bytes, handshakes, waiting_handshakes];
  for (const listener of status.listeners) counts.push(listener.live);
  for (const pool of status.pools) counts.push(pool.queued, ...pool.backends.map((one) => one.live));
  return counts.every((count) => count === 0) && status.jobs.length === 0;
};
await until("the counts to return to zero", isEmpty).catch((error) => {
  console.error(JSON.stringify(status, null, 1));
  throw error;
});

let stops = 0;
for (const listener of status.listeners) {
  if (listener.state !== "listening") fail(`${listener.name} is ${listener.state}`);
  if (listener.lost_frames) fail(`${listener.lost_frames} sessions lost their frames`);
  for (const { side, phase, how, count } of listener.ends) {
    if (["panic", "invalid", "error", "timeout"].includes(how)) fail(`${count} ended by ${side} ${phase} ${how}`);
    if (`${side} ${phase} ${how}` === "evenkeel relay stop") stops += count;
  }
}
// A session that was told by us may break, by the kill of its node, before its client has heard it.
const broken = tally.ends.killed ?? 0;
if (tally.told > stops || stops > tally.told + broken) fail(`${stops} were told to go, and ${tally.told} heard it`);
if (!tally.ends.finished || tally.ends.finished !== CLIENTS) fail(`${tally.ends.finished} of ${CLIENTS} finished`);
// Checks come and go.
const fds = status.process.open_fds - before.open_fds;
if (fds > 32) fail(`${fds} more descriptors are open than before`);
const bad = balancer.log.filter((line) => /"level":"ERROR"|panicked/.test(line));
if (bad.length) fail(bad.join("\n"));

await balancer.stop();
const list = (counts) => Object.entries(counts).map(([name, count]) => `${count} ${name}`).join(", ");
console.log(`combined: ${list(done)}; ${tally.sessions} sessions (${list(tally.ends)}), ${tally.turnedAway} turned away`);
console.log(`combined: ${tally.sent} messages to nodes and ${tally.received} from them, none lost or out of order`);
process.exit(0);
