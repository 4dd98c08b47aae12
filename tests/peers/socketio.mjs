// Socket.IO through the release binary: polling sessions, and sessions that begin with polling and upgrade, with reloads
// and a drain in the middle. `ip_hash` keeps a polling session on its node. Every message is numbered and acknowledged.
// Usage: node socketio.mjs BINARY

import { io } from "socket.io-client";
import { once } from "node:events";
import { Balancer, fail, ready, within } from "./balancer.mjs";

const [binary] = process.argv.slice(2);
const names = ["n1", "n2"];
const node = new URL("socketio_node.mjs", import.meta.url).pathname;
const nodes = await Promise.all(names.map((name) => ready(process.execPath, [node, name])));

const config = (keys) => `
[[listener]]
name = "plain"
bind = "127.0.0.1:0"
protocol = "websocket"
pool = "chat"

[pool.chat]
balance = "ip_hash"
${keys}
backend = [
${names.map((name, i) => `  { name = "${name}", address = "${nodes[i].first}" },`).join("\n")}
]
`;

const balancer = await Balancer.start(binary, config(""));
const url = `http://${await balancer.address("plain")}`;

async function session(options) {
  const socket = io(url, { reconnectionDelay: 50, ...options });
  await within(once(socket, "connect"), "a Socket.IO session");
  return { socket, sent: 0, disconnects: 0 };
}

// The answer names the node. A message that a lost session swallowed is sent again with the same number.
async function ask(session) {
  const text = `message ${session.sent++} ${"z".repeat(session.sent % 500)}`;
  for (;;) {
    try {
      const answer = await session.socket.timeout(2_000).emitWithAck("message", text);
      const [name, echoed] = [answer.slice(0, 2), answer.slice(3)];
      if (echoed !== text) fail(`expected ${text}, got ${echoed}`);
      return name;
    } catch (error) {
      if (!session.mayBreak) throw error;
    }
  }
}

const polling = await Promise.all(Array.from({ length: 4 }, () => session({ transports: ["polling"], forceNew: true })));
const upgraded = await Promise.all(Array.from({ length: 4 }, () => session({ forceNew: true })));
for (const { socket } of upgraded) {
  if (socket.io.engine.transport.name !== "websocket") await within(once(socket.io.engine, "upgrade"), "the upgrade");
  if (socket.io.engine.transport.name !== "websocket") fail("no upgrade");
}
const all = [...polling, ...upgraded];
all.forEach((session) => session.socket.on("disconnect", (reason) => {
  session.disconnects += 1;
  if (!session.mayBreak) fail(`disconnected: ${reason}`);
}));

const rounds = async (count) => {
  const seen = new Set();
  for (let i = 0; i < count; i++) (await Promise.all(all.map(ask))).forEach((name) => seen.add(name));
  return [...seen];
};

const [own, ...others] = await rounds(20);
if (others.length) fail(`one address, several nodes: ${own} ${others}`);

console.log("reloads under polling");
for (let i = 0; i < 10; i++) {
  await balancer.reload(config(i % 2 ? "" : 'idle_timeout = "30m"'));
  await rounds(5);
}

const other = names.find((name) => name !== own);
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

all.forEach((session) => {
  session.mayBreak = true;
  session.socket.close();
});
const done = await balancer.admin("POST", `/api/v1/pools/chat/backends/${own}/drain?wait=20s`);
if (done.backend.live !== 0) fail(`${own} is not empty: ${JSON.stringify(done)}`);
await balancer.stop();
const total = all.reduce((sum, session) => sum + session.sent, 0);
console.log(`socket.io: ${total} acknowledged messages, ${polling.length} polling and ${upgraded.length} upgraded sessions`);
process.exit(0);
