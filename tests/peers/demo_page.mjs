// The page of `evenkeel demo` in Chromium: tabs on every node, and what no tab may notice by more than a change of its node: "kill
// n1", "bring it back", "drain n2 slowly". Also at the width of a telephone.
// Usage: node demo_page.mjs BINARY [FOLDER for screenshots]; CHROMIUM names another browser than Debian's.

import { once } from "node:events";
import { join } from "node:path";
import { chromium } from "playwright-core";
import { fail, ready, within } from "./balancer.mjs";

const [binary, shots] = process.argv.slice(2);
const PATIENCE = 30_000;
const { child, first } = await ready(binary, ["demo", "--any-port", "--output", "json"], { stdio: ["pipe", "pipe", "pipe"] });
let log = "";
child.stderr.on("data", (data) => (log += data));
const tour = JSON.parse(first);

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  // Root has no sandbox; the page is ours.
  args: process.getuid() === 0 ? ["--no-sandbox"] : [],
});
process.on("exit", () => browser.process?.()?.kill("SIGKILL"));
const complaints = [];

// A tab, with the sockets that it has opened so far.
class Tab {
  sockets = 0;

  static async open(address, width, height) {
    const tab = new Tab();
    const context = await browser.newContext({ viewport: { width, height }, ignoreHTTPSErrors: true });
    tab.page = await context.newPage();
    tab.page.setDefaultTimeout(PATIENCE);
    tab.page.on("websocket", () => (tab.sockets += 1));
    tab.page.on("pageerror", (error) => complaints.push(String(error)));
    tab.page.on("console", (message) => message.type() === "error" && complaints.push(message.text()));
    await tab.page.goto(address);
    await tab.until("a node", () => /^n[123]$/.test(document.getElementById("name").textContent));
    return tab;
  }

  // Waits until `shows` holds in the page.
  async until(what, shows, argument) {
    try {
      return await (await this.page.waitForFunction(shows, argument, { polling: 50 })).jsonValue();
    } catch (error) {
      const text = await this.page.evaluate(() => document.body.innerText);
      fail(`${what} is not on the page: ${error.message}\n${text}\n${log}`);
    }
  }

  text(id) {
    return this.page.locator(`#${id}`).textContent();
  }

  press(label) {
    return this.page.getByRole("button", { name: label, exact: true }).click();
  }

  async bring(node) {
    await this.page.locator(`#node-${node}`).getByRole("button", { name: "bring it back" }).click();
    await this.says(node, "up");
  }

  // Waits until the row of a node says this.
  says(node, words) {
    const shows = ([id, text]) => document.querySelector(`#${id} .share`)?.textContent.includes(text);
    return this.until(`${node} ${words}`, shows, [`node-${node}`, words]);
  }

  async say(text) {
    await this.page.locator("#text").fill(text);
    await this.press("Send");
    const shows = (end) => [...document.querySelectorAll("#log li")].some((line) => line.textContent.endsWith(end));
    await this.until(`the echo of ${text}`, shows, `: ${text}`);
  }

  // Nothing is cut off at the right, and every button can be reached.
  async fits() {
    const wide = await this.page.evaluate(() => document.scrollingElement.scrollWidth - window.innerWidth);
    if (wide > 0) fail(`the page is ${wide} px too wide`);
    const { width } = this.page.viewportSize();
    for (const button of await this.page.getByRole("button").all()) {
      const box = await button.boundingBox();
      if (!box || box.x < 0 || box.x + box.width > width) fail(`a button is out of sight: ${await button.textContent()}`);
    }
  }

  async shot(name) {
    await this.fits();
    if (shots) await this.page.screenshot({ path: join(shots, `${name}.png`), fullPage: true });
  }

  // No socket was closed or opened anew since there were so many.
  async kept(sockets, what) {
    if (this.sockets !== sockets) fail(`${what}: ${this.sockets - sockets} sockets were opened anew`);
    if ((await this.text("lost")) !== "0") fail(`${what}: ${await this.text("lost")} sockets were closed`);
    if ((await this.text("state")) !== "open") fail(`${what}: the tab's socket is ${await this.text("state")}`);
  }
}

// Least connections: three tabs are on three nodes.
const tabs = new Map();
for (const [width, height] of [[1280, 900], [390, 844], [390, 844]]) {
  const tab = await Tab.open(tour.page, width, height);
  tabs.set(await tab.text("name"), tab);
  await tab.say(`typed at ${width}`);
}
if (tabs.size !== 3) fail(`three tabs are on ${[...tabs.keys()]} only`);
const tab = tabs.get("n1");

await tab.press("20 more");
const crowd = () => document.querySelectorAll("#crowd i[title^=n]").length === 20;
await tab.until("20 sockets that know their node", crowd);
for (const name of tabs.keys()) await tab.says(name, "of 23 (");
for (const [name, one] of tabs) await one.shot(`open-${name}`);
const sockets = tab.sockets;

await tab.press("kill n1");
await tab.says("n1", "dead");
await tab.until("another node than the dead one", () => /^n[23]$/.test(document.getElementById("name").textContent));
await tab.says("n1", "dead, 0 of 23");
await tab.say("still here");
await tab.kept(sockets, "kill n1");
for (const [name, one] of tabs) await one.shot(`killed-${name}`);

await tab.bring("n1");

// Slowly: the count is seen on its way.
const seen = new Set();
await tab.page.exposeFunction("note", (text) => seen.add(text.match(/(\d+) of/)[1]));
await tab.page.evaluate(() => {
  const share = document.querySelector("#node-n2 .share");
  new MutationObserver(() => note(share.textContent)).observe(share, { childList: true });
});
await tab.press("drain n2 slowly");
await tab.says("n2", "draining");
await tab.says("n2", "drained, 0 of 23");
if (seen.size < 4) fail(`n2 was drained in ${seen.size} steps: ${[...seen]}`);
await tab.until("no socket on n2", () => !document.querySelector("#crowd i[title=n2]"));
await tab.kept(sockets, "drain n2 slowly");
if (Number(await tab.text("moved")) < 10) fail(`only ${await tab.text("moved")} sockets changed their node`);
for (const [name, one] of tabs) await one.kept(one === tab ? sockets : 1, `the tab of ${name}`);
for (const [name, one] of tabs) await one.shot(`drained-${name}`);
await tab.bring("n2");

await tab.press("Close them");
await tab.says("n2", "of 3 (");
await tab.kept(sockets, "closing the crowd");

// Another site's page can send such a request without consent, and a node stays alive.
const foreign = await fetch(`${tour.page}demo/n3/kill`, { method: "POST", headers: { "content-type": "text/plain" }, body: "{}" });
if (foreign.status !== 415) fail(`a foreign page can kill: ${foreign.status}`);
await tab.says("n3", "up");

const secure = await Tab.open(tour.secure_page, 390, 844);
await secure.say("typed over TLS");
await secure.says("n3", "of 4 (");
await secure.fits();

await within(browser.close(), "the browser to end");
const ended = once(child, "exit");
child.kill("SIGINT");
const [code] = await within(ended, "the demo to end");
if (code !== 0) fail(`the demo ended with code ${code}`);
if (complaints.length) fail(`the page complains:\n${complaints.join("\n")}`);
if (/ERROR/.test(log)) fail(`the demo complains:\n${log}`);
console.log(`demo page: 23 sockets outlived the death of n1 and the drain of n2 in ${seen.size} steps; none was closed`);
process.exit(0);
