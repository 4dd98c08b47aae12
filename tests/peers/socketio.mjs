// Socket.IO through the release binary: polling sessions, and sessions that begin with polling and upgrade, with reloads
// and a drain in the middle. First `ip_hash` keeps a polling session on its node, then a sticky cookie, behind which
// `round_robin` would give every request another node. Every message is numbered and acknowledged.
// Usage: node socketio.mjs BINARY

import { io } from "socket.io-client";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { Balancer, fail, folder, ready, within } from "./balancer.mjs";

const [binary] = process.argv.slice(2);
const names = ["n1", "n2", "n3"];
const node = new URL("socketio_node.mjs", import.meta.url).pathname;
const nodes = await Promise.all(names.map((name) => ready(process.execPath, [node, name])));

const config = (balance, keys, used) => `
[[listener]]
name = "plain"
bind = "127.0.0.1:0"
protocol = "websocket"
pool = "chat"

[pool.chat]
balance = "${balance}"
${keys}
backend = [
${used.map((name) => `  { name = "${name}", address = "${nodes[names.indexOf(name)].first}" },`).join("\n")}
]
`;

async function session(url, options) {
  const socket = io(url, { reconnectionDelay: 50, forceNew: true, ...options });
  await within(once(socket, "connect"), "a Socket.IO session");
  return { socket, sent: 0, disconnects: 0 };
}

// One generous time for what is only late. Where a session may break, a message may be lost for good: it is asked for sooner.
const [PATIENCE, RETRY] = [30_000, 2_000];

// The answer names the node. A message that a lost session swallowed is sent again with the same number.
async function ask(session) {
  const text = `message ${session.sent++} ${"z".repeat(session.sent % 500)}`;
  for (;;) {
    try {
      const answer = await session.socket.timeout(session.mayBreak ? RETRY : PATIENCE).emitWithAck("message", text);
      const [name, echoed] = [answer.slice(0, 2), answer.slice(3)];
      if (echoed !== text) fail(`expected ${text}, got ${echoed}`);
      return name;
    } catch (error) {
      if (!session.mayBreak) throw error;
    }
  }
}

// So many sessions that poll, and as many that upgrade. None of them may break unless it is said.
async function sessions(url, count, options = {}) {
  const many = (options) => Promise.all(Array.from({ length: count }, () => session(url, options)));
  const polling = await many({ transports: ["polling"], ...options });
  const upgraded = await many(options);
  for (const { socket } of upgraded) {
    if (socket.io.engine.transport.name !== "websocket") await within(once(socket.io.engine, "upgrade"), "the upgrade");
    if (socket.io.engine.transport.name !== "websocket") fail("no upgrade");
  }
  const all = [...polling, ...upgraded];
  all.forEach((session) => session.socket.on("disconnect", (reason) => {
    session.disconnects += 1;
    if (!session.mayBreak) fail(`disconnected: ${reason}`);
  }));
  return { polling, upgraded, all };
}

function close(all) {
  all.forEach((session) => {
    session.mayBreak = true;
    session.socket.close();
  });
}

async function byAddress() {
  const used = ["n1", "n2"];
  const balancer = await Balancer.start(binary, config("ip_hash", "", used));
  const url = `http://${await balancer.address("plain")}`;
  const { polling, upgraded, all } = await sessions(url, 4);

  const rounds = async (count) => {
    const seen = new Set();
    for (let i = 0; i < count; i++) (await Promise.all(all.map(ask))).forEach((name) => seen.add(name));
    return [...seen];
  };

  const [own, ...others] = await rounds(20);
  if (others.length) fail(`one address, several nodes: ${own} ${others}`);

  console.log("reloads under polling");
  for (let i = 0; i < 10; i++) {
    await balancer.reload(config("ip_hash", i % 2 ? "" : 'idle_timeout = "30m"', used));
    await rounds(5);
  }

  const other = used.find((name) => name !== own);
  console.log(`drain ${other}, where nobody is`);
  const empty = await balancer.admin("POST", `/api/v1/pools/chat/backends/${other}/drain?wait=10s`);
  if (empty.backend.live !== 0) fail(JSON.stringify(empty));
  await rounds(20);
  await balancer.admin("POST", `/api/v1/pools/chat/backends/${other}/ready`);

  console.log(`drain ${own}, where everybody is`);
  polling.forEach((session) => (session.mayBreak = true));
  const begun = await balancer.admin("POST", `/api/v1/pools/chat/backends/${own}/drain`);
  if (begun.backend.live < upgraded.length) fail(`upgraded sessions are live: ${JSON.stringify(begun)}`);
  await rounds(10);
  for (const session of upgraded) if ((await ask(session)) !== own) fail("a drain moved an upgraded session");
  for (const session of polling) if ((await ask(session)) !== other) fail("a polling session is on a drained node");

  close(all);
  const done = await balancer.admin("POST", `/api/v1/pools/chat/backends/${own}/drain?wait=20s`);
  if (done.backend.live !== 0) fail(`${own} is not empty: ${JSON.stringify(done)}`);
  await balancer.stop();
  return all;
}

// In Node the client keeps cookies with `withCredentials`, as browsers do by themselves on their own site.
async function byCookie() {
  const place = folder();
  writeFileSync(join(place, "sticky.key"), randomBytes(32).toString("base64"));
  const sticky = (keys) => `sticky = { key_file = "sticky.key" }\n${keys}`;
  const balancer = await Balancer.start(binary, config("round_robin", sticky(""), names), place);
  const url = `http://${await balancer.address("plain")}`;
  const { polling, upgraded, all } = await sessions(url, 30, { withCredentials: true });
  const homes = await Promise.all(all.map(ask));
  for (const name of names) {
    const count = homes.filter((home) => home === name).length;
    if (count < 10) fail(`${count} of ${all.length} sessions are on ${name}`);
  }
  const stay = async (count) => {
    for (let i = 0; i < count; i++) {
      const now = await Promise.all(all.map(ask));
      now.forEach((name, i) => {
        if (name !== homes[i]) fail(`a session of ${homes[i]} was given to ${name}`);
      });
    }
  };
  await stay(10);

  console.log("reloads under cookies");
  for (let i = 0; i < 5; i++) {
    await balancer.reload(config("round_robin", sticky(i % 2 ? "" : 'idle_timeout = "30m"'), names));
    await stay(3);
  }

  console.log("drain n1: its sessions go on, new ones go elsewhere");
  await balancer.admin("POST", "/api/v1/pools/chat/backends/n1/drain");
  await stay(10);
  const fresh = await sessions(url, 5, { withCredentials: true });
  if ((await Promise.all(fresh.all.map(ask))).includes("n1")) fail("a new session on a drained node");

  console.log("remove n1: its polling sessions find another node, its WebSockets go on");
  const left = names.filter((name) => name !== "n1");
  polling.forEach((session, i) => (session.mayBreak = homes[i] === "n1"));
  await balancer.reload(config("round_robin", sticky(""), left));
  for (let round = 0; round < 5; round++) {
    const now = await Promise.all(all.map(ask));
    now.forEach((name, i) => {
      const moves = i < polling.length && homes[i] === "n1";
      if (moves ? name === "n1" : name !== homes[i]) fail(`a session of ${homes[i]} is on ${name}`);
    });
  }
  if (!upgraded.some((_, i) => homes[polling.length + i] === "n1")) fail("no WebSocket was on n1");
  close([...all, ...fresh.all]);
  await balancer.stop();
  return [...all, ...fresh.all];
}

const done = [...(await byAddress()), ...(await byCookie())];
const total = done.reduce((sum, session) => sum + session.sent, 0);
console.log(`socket.io: ${total} acknowledged messages in ${done.length} sessions`);
process.exit(0);
