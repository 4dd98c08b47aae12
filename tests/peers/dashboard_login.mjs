// The dashboard of an endpoint with tokens, in Chromium: nobody without a token, a wrong one, one that may only read, one that may
// act, what is kept in the browser, and a restart that ends sessions.
// Usage: node dashboard_login.mjs BINARY

import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { Balancer, fail, folder, ready } from "./balancer.mjs";
import { Tab, browser } from "./dashboard_tab.mjs";

const [binary] = process.argv.slice(2);
const at = folder();
const tokens = { viewer: "the-token-of-a-viewer-0123456789", operator: "the-token-of-an-operator-0123456789", node: "the-token-of-a-node-0123456789" };
for (const [name, token] of Object.entries(tokens)) writeFileSync(join(at, `${name}.token`), `${token}\n`, { mode: 0o600 });
const node = await ready(process.execPath, [new URL("ws_node.mjs", import.meta.url).pathname, "n1"]);
const config = `
[[listener]]
name = "plain"
bind = "127.0.0.1:0"
protocol = "websocket"
pool = "chat"

[pool.chat]
backend = [{ name = "n1", address = "${node.first}" }, { name = "n2", address = "${node.first}" }]
`;
const roles = `
[[admin.token]]
name = "viewer"
file = "viewer.token"
role = "read"

[[admin.token]]
name = "operator"
file = "operator.token"
role = "operate"

[[admin.token]]
name = "node"
file = "node.token"
role = "operate"
backend = "chat/n1"
`;
const balancer = await Balancer.start(binary, config, at, `bind = "127.0.0.1:0"\n${roles}`);
const admin = await balancer.address("admin");
balancer.endpoint = `bind = "${admin}"\n${roles}`;
balancer.write(config);
const address = `http://${admin}/`;

async function login(tab, token) {
  await tab.page.getByLabel("Token").fill(token);
  await tab.press("Log in");
}

const buttons = (tab, name) => tab.page.getByRole("button", { name }).count();

console.log("a wrong token");
const tab = await Tab.open(address);
await tab.page.getByLabel("Token").waitFor();
await tab.accessible("the login");
tab.quiet();
tab.expected = /401/;
await login(tab, "not-a-token-of-this-balancer");
await tab.page.getByRole("alert").waitFor();
await tab.accessible("a login that was refused");
if ((await tab.context.cookies()).length) fail("a wrong token gets a cookie");
tab.expected = /^$/;

console.log("a token that may only read");
await login(tab, tokens.viewer);
await tab.link("live");
await tab.says("viewer: read only");
await tab.cell("chat", "Live", "0");
for (const page of ["", "pools/chat", "connections", "listeners", "jobs", "configuration"]) {
  await tab.go(`#/${page}`);
  await tab.page.locator("h1").waitFor({ state: "attached" });
  for (const name of [/^Drain/, /^More/, /^Close/, /^Move/, /^Reload/, /^Abort/]) {
    if (await buttons(tab, name)) fail(`a token that may only read sees ${name} on ${page || "overview"}`);
  }
}
await tab.page.getByLabel("Configuration file").fill(balancer.text(config));
await tab.press("Plan");
await tab.cell("admin ", "Change", "changed");
const change = (csrf) => tab.page.evaluate(async (value) => {
  const headers = { "content-type": "application/json", ...(value ? { "x-csrf-token": value } : {}) };
  return (await fetch("/api/v1/pools/chat/backends/n1/maint", { method: "POST", headers, body: "{}" })).status;
}, csrf);
const csrfOf = () => tab.page.evaluate(async () => (await (await fetch("/login")).json()).csrf);
tab.expected = /403/;
const asReader = await change(await csrfOf());
if (asReader !== 403) fail(`a change by a token that may only read: ${asReader}`);
tab.expected = /^$/;

console.log("what the browser keeps");
const cookies = await tab.context.cookies();
if (cookies.length !== 1 || !cookies[0].httpOnly || cookies[0].sameSite !== "Strict") fail(`cookies: ${JSON.stringify(cookies)}`);
const kept = await tab.page.evaluate(() => JSON.stringify({ ...localStorage, ...sessionStorage }) + location.href + document.cookie);
for (const token of Object.values(tokens)) if (kept.includes(token) || cookies[0].value.includes(token)) fail(`the browser keeps a token: ${kept}`);

console.log("out, and in with a token that may act");
await tab.press("Log out");
await tab.page.getByLabel("Token").waitFor();
if ((await tab.context.cookies()).length) fail("a logout leaves its cookie");
await login(tab, tokens.operator);
await tab.link("live");
tab.expected = /403/;
const withoutCsrf = await change(null);
const wrongCsrf = await change("0".repeat(32));
if (withoutCsrf !== 403 || wrongCsrf !== 403) fail(`changes without the value of the session: ${withoutCsrf}, ${wrongCsrf}`);
tab.expected = /^$/;
await tab.go("#/pools/chat");
await tab.choose("More for n1", "Maintenance");
await tab.agree("Maintenance", "0 live connections");
await tab.cell("chat/n1", "State", "maint");
await tab.press("Ready n1");
await tab.agree("Ready", "0 live connections");
await tab.cell("chat/n1", "State", "up");

console.log("a token for one backend");
const own = await Tab.open(address);
await own.page.getByLabel("Token").waitFor();
await login(own, tokens.node);
await own.go("#/pools/chat");
await own.page.getByRole("button", { name: "Drain n1", exact: true }).waitFor();
if (await buttons(own, /n2$/)) fail("a token for n1 sees buttons for n2");
await own.press("Drain n1");
await own.agree("Drain", "0 live connections");
await own.cell("chat/n1", "State", "drain");
await tab.cell("chat/n1", "State", "drain");
own.quiet();
await own.context.close();

console.log("a restart ends the session");
tab.expected = /ERR_|401/;
await balancer.kill();
await tab.says("does not answer");
balancer.run();
await tab.page.getByLabel("Token").waitFor();
tab.expected = /^$/;
await login(tab, tokens.operator);
await tab.link("live");

tab.quiet();
await browser.close();
await balancer.stop();
console.log("dashboard login: a read token acts nowhere, a session ends with its process, no token is kept");
process.exit(0);
