// The dashboard in Chromium, before real nodes and live sockets: what it shows, each action by its buttons, a plan, a reload and a
// restart while it is open. dashboard_login.mjs has tokens.
// Usage: node dashboard.mjs BINARY [--connections N]

import { once } from "node:events";
import { writeFileSync } from "node:fs";
import net from "node:net";
import WebSocket from "ws";
import { Balancer, certificate, fail, folder, ready, within } from "./balancer.mjs";
import { Tab, browser } from "./dashboard_tab.mjs";

const [binary, option, number] = process.argv.slice(2);
const CONNECTIONS = option === "--connections" ? Number(number) : 120;
const MANY = 1000;
const PAGES = ["", "pools/chat", "pools/many", "backends", "connections", "listeners", "jobs", "configuration", "events", "nowhere"];

// Sockets on the pool `chat`, each with a tag, and how they were closed.
class Crowd {
  sockets = [];
  closes = [];
  waiting = [];

  async open(url, count) {
    while (count > 0) {
      const some = Array.from({ length: Math.min(count, 100) }, (_, i) => new WebSocket(url, { rejectUnauthorized: false, headers: { "x-user": `user-${i % 7}` } }));
      await within(Promise.all(some.map((socket) => once(socket, "open"))), "sockets to open");
      for (const socket of some) {
        socket.on("error", () => {});
        socket.on("close", (code, reason) => {
          this.closes.push(`${code} ${reason}`);
          this.waiting.forEach((look) => look());
        });
      }
      this.sockets.push(...some);
      count -= some.length;
    }
  }

  // Waits until so many were closed in this way.
  closed(count, how) {
    const there = new Promise((resolve) => {
      const look = () => this.closes.filter((close) => close === how).length >= count && resolve();
      this.waiting.push(look);
      look();
    });
    return within(there, `${count} closes ${how}, have ${this.closes}`);
  }
}

const at = folder();
const { cert, key } = certificate(at);
const start = (name) => ready(process.execPath, [new URL("ws_node.mjs", import.meta.url).pathname, name]);
const nodes = await Promise.all(["n1", "n2", "n3"].map(start));

function config({ third = true } = {}) {
  const backends = nodes.slice(0, third ? 3 : 2).map(({ first }, i) => `  { name = "n${i + 1}", address = "${first}" },`);
  const many = Array.from({ length: MANY }, (_, i) => `  { name = "m${i}", address = "127.0.0.1:${20000 + i}", weight = ${(i % 9) + 1} },`);
  return `
[[listener]]
name = "plain"
bind = "127.0.0.1:0"
protocol = "websocket"
pool = "chat"
tag = "header:x-user"

[[listener]]
name = "secure"
bind = "127.0.0.1:0"
protocol = "websocket"
tls = { certificates = [{ cert = "${cert}", key = "${key}" }] }
pool = "chat"

[[listener]]
name = "raw"
bind = "127.0.0.1:0"
protocol = "tcp"
pool = "many"

[pool.chat]
balance = "least_conn"
check = { type = "tcp", interval = "200ms" }
resume = { settle = "100ms", max = "6000/m" }
backend = [
${backends.join("\n")}
]

[pool.many]
backend = [
${many.join("\n")}
]
`;
}

const balancer = await Balancer.start(binary, config(), at);
const admin = await balancer.address("admin");
balancer.endpoint = `bind = "${admin}"`;
const address = `http://${admin}/`;
const plain = `ws://${await balancer.address("plain")}/chat`;
const crowd = new Crowd();
await crowd.open(plain, CONNECTIONS);
const told = new Intl.NumberFormat("en-US");
const words = (count) => `${told.format(count)} live connection${count === 1 ? "" : "s"}`;
const live = async (name) => (await balancer.admin("GET", `/api/v1/pools/chat/backends/${name}`)).live;

const tab = await Tab.open(address);
await tab.link("live");
await tab.cell("chat", "Live", told.format(CONNECTIONS));

console.log("pages, in light and dark, on a desk and on a phone");
for (const [width, height, colours] of [[1280, 900, "light"], [1280, 900, "dark"], [390, 844, "light"], [390, 844, "dark"]]) {
  const one = await Tab.open(address, { width, height, colours });
  await one.link("live");
  for (const page of PAGES) {
    await one.go(`#/${page}`);
    await one.page.locator("h1").waitFor({ state: "attached" });
    await one.fits(`${page || "overview"} at ${width}`);
    await one.accessible(`${page || "overview"} at ${width} in ${colours}`);
  }
  one.quiet();
  await one.context.close();
}

console.log(`a pool of ${MANY} backends`);
await tab.go("#/pools/many");
await tab.says("1 to 50 of 1,000");
await tab.page.getByRole("button", { name: "Weight", exact: true }).click();
await tab.until("the heaviest first", () => document.querySelector("tbody td[data-label=Weight]")?.innerText === "9");
await tab.page.getByRole("searchbox").fill("m77");
await tab.until("those found", () => document.querySelectorAll("tbody tr").length === 11);
await tab.page.getByRole("searchbox").fill("");
await tab.press("Next");
await tab.says("51 to 100 of 1,000");

console.log("keys alone reach a menu and leave it");
await tab.go("#/pools/chat");
await tab.page.getByRole("button", { name: "More for n1" }).focus();
await tab.page.keyboard.press("Enter");
const focused = (name) => tab.until(`the focus on ${name}`, (label) => document.activeElement?.textContent === label, name);
await focused("Maintenance");
await tab.page.keyboard.press("ArrowDown");
await focused("Weight");
await tab.page.keyboard.press("Enter");
await tab.dialog().waitFor();
await tab.page.keyboard.press("Escape");
await tab.dialog().waitFor({ state: "detached" });
await focused("More");

console.log("drain with a pace: sessions move, none is closed");
let n1 = await live("n1");
await tab.press("Drain n1");
await tab.page.getByRole("radio").nth(2).check();
await tab.page.getByLabel("Rate", { exact: true }).fill("1000/s");
await tab.agree(`Drain ${told.format(n1)}`, words(n1));
await tab.cell("chat/n1", "State", "drain");
await tab.cell("chat/n1", "Live", "0");
if (crowd.closes.length) fail(`a drain closed ${crowd.closes}`);
await tab.press("Ready n1");
await tab.agree("Ready", words(0));
await tab.cell("chat/n1", "State", "up");

console.log("move, with a count before");
const n2 = await live("n2");
await tab.choose("More for n2", "Move connections");
await tab.page.getByLabel("Rate", { exact: true }).fill("1000/s");
await tab.agree(`Move ${told.format(n2)}`, words(n2));
await tab.until("sessions on n1", () => Number(document.querySelector('tr[data-id="chat/n1"] td[data-label="Live"]')?.innerText) > 5);
if (crowd.closes.length) fail(`a move closed ${crowd.closes}`);

console.log("maintenance and weight");
await tab.choose("More for n3", "Maintenance");
await tab.agree("Maintenance", words(await live("n3")));
await tab.cell("chat/n3", "State", "maint");
await tab.press("Ready n3");
await tab.agree("Ready", words(await live("n3")));
await tab.cell("chat/n3", "State", "up");
await tab.choose("More for n3", "Weight");
await tab.page.getByLabel("Weight", { exact: true }).fill("7");
await tab.agree("Set weight", words(await live("n3")));
await tab.cell("chat/n3", "Weight", "7");

console.log("a job that is aborted");
n1 = await live("n1");
await tab.press("Drain n1");
await tab.page.getByRole("radio").nth(2).check();
await tab.page.getByLabel("Rate", { exact: true }).fill("1/m");
await tab.agree(`Drain ${told.format(n1)}`, words(n1));
await tab.go("#/jobs");
await tab.until("the job", () => document.querySelector("td[data-label=Job]")?.innerText.includes("chat/n1"));
await tab.accessible("a job under way");
await tab.page.getByRole("button", { name: /^Abort job/ }).click();
await tab.agree("Abort the job", "live connection");
await tab.says("aborted");
await tab.go("#/pools/chat");
await tab.press("Ready n1");
await tab.agree("Ready", words(await live("n1")));

console.log("connections: found, sorted, paged, closed");
await tab.go("#/connections");
if (CONNECTIONS > 50) {
  await tab.press("Next");
  await tab.says("page 2");
}
await tab.page.getByLabel("Tag", { exact: true }).fill("user-3");
await tab.page.getByLabel("Order", { exact: true }).selectOption("age");
await tab.press("Find");
await tab.until("connections of user-3 alone", () => {
  const tags = [...document.querySelectorAll("td[data-label=Tag]")].map((cell) => cell.innerText);
  return tags.length > 0 && tags.every((tag) => tag === "user-3");
});
await tab.page.getByRole("button", { name: /^Close connection/ }).first().click();
await tab.agree("Close 1", "1 live connection");
await crowd.closed(1, "1001 ");
const { connections } = await balancer.admin("GET", "/api/v1/connections?tag=user-3&limit=1000");
await tab.press("Close these");
await tab.page.getByLabel("Rate", { exact: true }).fill("1000/s");
await tab.page.getByLabel("Close code").fill("4001");
await tab.page.getByLabel("Reason", { exact: true }).fill("come back");
await tab.agree(`Close ${told.format(connections.length)}`, words(connections.length));
await crowd.closed(connections.length, "4001 come back");
const markup = "<img src=/x onerror=alert(1)>";
const hostile = new WebSocket(plain, { headers: { "x-user": markup } });
await within(once(hostile, "open"), "a socket with markup for its tag");
await tab.go(`#/connections?tag=${encodeURIComponent(markup)}`);
await tab.until("markup as text", (text) => document.querySelector("td[data-label=Tag]")?.innerText === text, markup);
hostile.terminate();
await tab.go("#/connections?pool=chat&min_age=nonsense");
tab.expected = /400/;
await tab.page.getByRole("alert").getByText("min_age").waitFor();
tab.expected = /^$/;

console.log("a listener that is drained refuses, by reason");
await tab.go("#/listeners");
const open = crowd.sockets.filter((socket) => socket.readyState === WebSocket.OPEN).length;
await tab.press("Drain listener plain");
await tab.agree("Drain", words(open));
await tab.cell("plain", "State", "draining");
const refused = new WebSocket(plain);
const [, answer] = await within(once(refused, "unexpected-response"), "a refusal");
if (answer.statusCode !== 503) fail(`a draining listener answers ${answer.statusCode}`);
refused.on("error", () => {});
refused.terminate();
await tab.cell("plain draining", "Refused", "1");
await tab.press("Ready listener plain");
await tab.agree("Ready", words(open));
await tab.cell("plain", "State", "listening");
await tab.until("the certificate", () => document.querySelector("td[data-label=Certificate]")?.innerText.includes("localhost"));

console.log("a plan, a reload, and a file with errors");
await tab.go("#/configuration");
const text = tab.page.getByLabel("Configuration file");
tab.expected = /422/;
await text.fill(balancer.text(config()).replace("least_conn", "least_con"));
await tab.press("Plan");
await tab.page.locator(".failure pre").getByText("^").first().waitFor();
await tab.accessible("a plan of a file with errors");
tab.expected = /^$/;
const third = await live("n3");
await text.fill(balancer.text(config({ third: false })));
await tab.press("Plan");
await tab.cell("backend chat/n3", "Change", "removed");
await tab.cell("backend chat/n3", "Live", told.format(third));
await tab.accessible("a plan");
balancer.write(config({ third: false }));
await tab.press("Reload");
await tab.cell("backend chat/n3", "Live", told.format(third));
await tab.agree("Reload", "it closes 0.");
await tab.says("reloaded: ");
await tab.go("#/events");
await tab.says("the configuration was loaded: version 2");
writeFileSync(balancer.file, "[nonsense");
tab.expected = /422/;
await tab.go("#/configuration");
await tab.press("Reload");
await tab.dialog().locator(".failure pre").getByText("^").first().waitFor();
if (await tab.dialog().getByRole("button", { name: "Reload", exact: true }).isEnabled()) fail("a file with errors can be loaded");
await tab.page.keyboard.press("Escape");
tab.expected = /^$/;
const refusal = await fetch(`${address}api/v1/reload`, { method: "POST", headers: { "content-type": "application/json" } });
if (refusal.status !== 422) fail(`a file with errors: ${refusal.status}`);
await tab.go("#/");
await tab.says("the latest reload was refused");
balancer.write(config());
await balancer.admin("POST", "/api/v1/reload");
await tab.until("no complaint about the reload", () => !document.body.innerText.includes("the latest reload was refused"));

console.log("a page that fails leaves the others");
await tab.page.route("**/api/v1/connections?*", (route) => route.fulfill({ json: { connections: [null], next: null, live: 0 } }));
await tab.go("#/connections");
await tab.says("This page has failed");
await tab.page.unroute("**/api/v1/connections?*");
await tab.go("#/");
await tab.cell("chat", "Live", "");

console.log("a node dies");
const gone = once(nodes[2].child, "exit");
nodes[2].child.kill("SIGKILL");
await within(gone, "n3 to end");
await tab.until("n3 down, with its reason", () => [...document.querySelectorAll(".concerns a")].some((line) => /chat\/n3: (down|ejected), ./.test(line.innerText)));
await tab.accessible("an overview with something to look at");

console.log("the balancer restarts while the page is open");
tab.expected = /ERR_|Failed to (load|fetch)/;
await balancer.kill();
await tab.page.getByRole("alert").getByText("does not answer").waitFor();
await tab.accessible("a page without a balancer");
balancer.run();
await tab.link("live");
await tab.says("another process serves");
tab.expected = /^$/;
await tab.cell("chat", "Live", "0");
await crowd.open(`ws://${await balancer.address("plain")}/chat`, 3);
await tab.cell("chat", "Live", "3");

tab.quiet();
await browser.close();
for (const socket of crowd.sockets) socket.terminate();
await balancer.stop();
console.log(`dashboard: each action before ${CONNECTIONS} sockets and ${MANY} backends, clean by axe on ${PAGES.length} pages`);
process.exit(0);
