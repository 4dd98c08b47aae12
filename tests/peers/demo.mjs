// A smoke run of `evenkeel demo`: its listeners by clients from outside, a drain, and its end by a signal. Its page is in
// demo_page.mjs.
// Usage: node demo.mjs BINARY

import net from "node:net";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import WebSocket from "ws";
import { fail, ready, within } from "./balancer.mjs";

const [binary] = process.argv.slice(2);
const stdio = ["pipe", "pipe", "pipe"];
const { child, first } = await ready(binary, ["demo", "--any-port", "--output", "json"], { stdio });
let log = "";
child.stderr.on("data", (data) => (log += data));
const tour = JSON.parse(first);

async function session(url, options) {
  const socket = new WebSocket(url, options);
  const answers = [];
  socket.on("message", (data) => answers.push(data.toString()));
  await within(once(socket, "open"), `open ${url}`);
  return {
    socket,
    async ask(text) {
      const before = answers.length;
      socket.send(text);
      while (answers.length === before) await within(once(socket, "message"), `an answer from ${url}`);
      return answers[answers.length - 1];
    },
  };
}

const node = (answer) => answer.match(/\bn[123]\b/)?.[0] ?? fail(`no node names itself in ${answer}`);

const ca = readFileSync(tour.certificate);
const nodes = new Set();
const open = [];
for (let i = 0; i < 6; i++) {
  const plain = await session(tour.websocket);
  const secure = await session(tour.secure_websocket, { ca, servername: "localhost" });
  for (const one of [plain, secure]) {
    const answer = await one.ask(`hello ${i}`);
    if (!answer.includes(`hello ${i}`)) fail(`no echo: ${answer}`);
    nodes.add(node(answer));
    open.push(one);
  }
}
if (nodes.size !== 3) fail(`not all nodes answered: ${[...nodes]}`);

const [host, port] = tour.tcp.split(":");
const raw = net.connect(Number(port), host);
raw.write("hello raw\n");
const lines = createInterface({ input: raw });
const [line] = await within(once(lines, "line"), "a line of the raw echo");
node(line);
raw.destroy();

const dashboard = await (await fetch(`${tour.admin}/`)).text();
if (!dashboard.includes("/assets/app.js")) fail(`no dashboard: ${dashboard}`);

const drain = await fetch(`${tour.admin}/api/v1/pools/chat/backends/n1/drain`, {
  method: "POST",
  headers: { "content-type": "application/json" },
  body: "{}",
});
if (drain.status !== 200) fail(`drain: ${drain.status} ${await drain.text()}`);
for (let i = 0; i < 6; i++) {
  const fresh = await session(tour.websocket);
  if (node(await fresh.ask("who")) === "n1") fail("a drained node got a new session");
  open.push(fresh);
}
for (const one of open) node(await one.ask("still here"));

const closed = open.map((one) => once(one.socket, "close"));
open.forEach((one) => one.socket.close());
await within(Promise.all(closed), "all sessions to close");
const ended = once(child, "exit");
child.kill("SIGINT");
const [code] = await within(ended, "the demo to end");
if (code !== 0) fail(`the demo ended with code ${code}`);
// The follower of a file once outlived its server and looked for the removed folder in a loop.
if (/WARN|ERROR/.test(log)) fail(`the demo complains:\n${log}`);
console.log(`demo: ${open.length} sessions over TLS and plain, on ${nodes.size} nodes`);
process.exit(0);
