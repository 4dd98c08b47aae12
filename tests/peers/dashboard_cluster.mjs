// The dashboard of two balancers that share a Redis, in Chromium: members, a state that holds at both, and what an operator can do
// while the store is away.
// Usage: node dashboard_cluster.mjs BINARY

import { spawn } from "node:child_process";
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import net from "node:net";
import { join } from "node:path";
import { Balancer, fail, folder, ready, within } from "./balancer.mjs";
import { Tab, browser } from "./dashboard_tab.mjs";

const [binary] = process.argv.slice(2);
const at = folder();
writeFileSync(join(at, "cluster.key"), "the-secret-of-this-cluster-0123456789\n", { mode: 0o600 });

async function freePort() {
  const server = net.createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}

const port = await freePort();
let redis;
process.on("exit", () => redis?.kill("SIGKILL"));

async function startRedis() {
  redis = spawn("redis-server", ["--port", String(port), "--bind", "127.0.0.1", "--save", "", "--dir", at], { stdio: ["ignore", "pipe", "inherit"] });
  redis.on("error", (error) => fail(`redis-server: ${error.message}`));
  let said = "";
  const listens = (async () => {
    for await (const data of redis.stdout) if ((said += data).includes("Ready to accept")) return;
  })();
  await within(listens, "Redis to listen");
}

const node = await ready(process.execPath, [new URL("ws_node.mjs", import.meta.url).pathname, "n1"]);
const config = (id) => `
[cluster]
store = "redis://127.0.0.1:${port}"
name = "edge"
id = "${id}"
secret_file = "${join(at, "cluster.key")}"
interval = "200ms"
expire = "2s"

[[listener]]
name = "plain"
bind = "127.0.0.1:0"
protocol = "websocket"
pool = "chat"

[pool.chat]
backend = [{ name = "n1", address = "${node.first}" }, { name = "n2", address = "${node.first}" }]
`;

await startRedis();
const balancers = await Promise.all(["lb1", "lb2"].map((id) => Balancer.start(binary, config(id))));
const tabs = [];
for (const balancer of balancers) {
  const tab = await Tab.open(`http://${await balancer.address("admin")}/`);
  await tab.link("live");
  tabs.push(tab);
}
const [first, second] = tabs;

console.log("members");
await first.go("#/cluster");
await first.cell("lb2", "State", "up to date");
await first.accessible("a cluster");

console.log("a state holds at both");
await first.go("#/pools/chat");
await first.choose("More for n1", "Maintenance");
await first.says("It holds at all 2 balancers of edge.");
await first.agree("Maintenance", "0 live connections");
await second.go("#/pools/chat");
await second.cell("chat/n1", "State", "maint");
await second.go("#/cluster");
await second.cell("chat/n1", "Set on", "lb1");

console.log("the store is away: on this balancer alone");
const gone = once(redis, "exit");
redis.kill("SIGKILL");
await within(gone, "Redis to end");
await first.go("#/");
await first.says("the store of the cluster does not answer");
first.expected = /503/;
await first.go("#/pools/chat");
await first.press("Drain n2");
await first.dialog().getByRole("button", { name: "Drain", exact: true }).click();
await first.press("On this balancer alone");
await first.dialog().waitFor({ state: "detached" });
await first.cell("chat/n2", "State", "drain");
first.expected = /^$/;

console.log("the store is back: the state holds at both");
await startRedis();
await second.go("#/pools/chat");
await second.cell("chat/n2", "State", "drain");
await second.go("#/events");
await second.says("the store of the cluster is lost");
await second.says("the store of the cluster answers");

for (const tab of tabs) tab.quiet();
await browser.close();
for (const balancer of balancers) await balancer.stop();
console.log("dashboard cluster: a state set on one page holds on the other, also one that was set without the store");
process.exit(0);
