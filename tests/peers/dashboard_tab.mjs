// A tab of Chromium on the dashboard: finds what the page shows, presses its buttons, and holds it to axe, to its host and to a
// silent console.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";
import { fail } from "./balancer.mjs";

const PATIENCE = 30_000;
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

export const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  // Root has no sandbox; the page is ours.
  args: process.getuid() === 0 ? ["--no-sandbox"] : [],
});
process.on("exit", () => browser.process?.()?.kill("SIGKILL"));

export class Tab {
  complaints = [];
  // Complaints that are expected: of a request that is refused, of a balancer that is gone.
  expected = /^$/;

  static async open(address, { width = 1280, height = 900, colours = "light" } = {}) {
    const tab = new Tab();
    tab.address = address;
    tab.context = await browser.newContext({ viewport: { width, height }, colorScheme: colours });
    tab.page = await tab.context.newPage();
    tab.page.setDefaultTimeout(PATIENCE);
    tab.page.on("pageerror", (error) => tab.complain(String(error.stack)));
    tab.page.on("console", (message) => ["error", "warning"].includes(message.type()) && tab.complain(message.text()));
    tab.page.on("request", (request) => {
      if (!request.url().startsWith(address) && !request.url().startsWith("data:")) tab.complain(`a request to ${request.url()}`);
    });
    await tab.page.goto(address);
    return tab;
  }

  complain(text) {
    if (!this.expected.test(text)) this.complaints.push(text);
  }

  async go(hash) {
    await this.page.evaluate((to) => (location.hash = to), hash);
  }

  // Waits until `shows` holds in the page.
  async until(what, shows, argument) {
    try {
      return await (await this.page.waitForFunction(shows, argument, { polling: 50 })).jsonValue();
    } catch (error) {
      const text = await this.page.evaluate(() => document.body.innerText);
      fail(`${what} is not on the page: ${error.message}\n${text}\n${this.complaints.join("\n")}`);
    }
  }

  says(text) {
    return this.until(`"${text}"`, (words) => document.body.innerText.includes(words), text);
  }

  link(state) {
    return this.until(`the state ${state} of the connection`, (word) => document.querySelector(".top .state")?.textContent === word, state);
  }

  // Waits until the cell of a row, named by its id and its column, has this text.
  cell(row, column, text) {
    const shows = ([id, label, words]) => document.querySelector(`tr[data-id="${id}"] td[data-label="${label}"]`)?.innerText.includes(words);
    return this.until(`${row}: ${column} ${text}`, shows, [row, column, text]);
  }

  read(row, column) {
    return this.page.locator(`tr[data-id="${row}"] td[data-label="${column}"]`).innerText();
  }

  async press(label) {
    await this.page.getByRole("button", { name: label, exact: true }).click();
  }

  async choose(menu, item) {
    await this.press(menu);
    await this.page.getByRole("menuitem", { name: item, exact: true }).click();
  }

  dialog() {
    return this.page.getByRole("dialog");
  }

  // The dialog says how many live connections it touches; then it is agreed to, and closes.
  async agree(act, touches) {
    const dialog = this.dialog();
    const shows = ([words]) => document.querySelector("dialog .touches")?.innerText.includes(words);
    await this.until(`a dialog that says "${touches}"`, shows, [touches]);
    await this.accessible(`the dialog ${act}`);
    await dialog.getByRole("button", { name: act, exact: true }).click();
    await dialog.waitFor({ state: "detached" });
  }

  // Nothing that axe finds wrong. It runs in a world of its own, so the page's policy holds.
  async accessible(what) {
    const cdp = await this.context.newCDPSession(this.page);
    const { frameTree } = await cdp.send("Page.getFrameTree");
    const { executionContextId: contextId } = await cdp.send("Page.createIsolatedWorld", { frameId: frameTree.frame.id });
    const evaluate = async (expression) => {
      const { result, exceptionDetails } = await cdp.send("Runtime.evaluate", { expression, contextId, awaitPromise: true, returnByValue: true });
      if (exceptionDetails) fail(`axe: ${exceptionDetails.exception?.description ?? exceptionDetails.text}`);
      return result.value;
    };
    await evaluate(axe);
    const found = await evaluate("axe.run().then(({ violations }) => violations.map(({ id, help, nodes }) => `${id}: ${help}\\n  ${nodes.map((one) => one.html + ' ' + one.failureSummary).slice(0, 5).join('\\n  ')}`))");
    await cdp.detach();
    if (found.length) fail(`${what} is not accessible:\n${found.join("\n")}`);
  }

  // Nothing is cut off at the right.
  async fits(what) {
    const wide = await this.page.evaluate(() => document.scrollingElement.scrollWidth - window.innerWidth);
    if (wide > 0) fail(`${what} is ${wide} px too wide`);
  }

  quiet() {
    if (this.complaints.length) fail(`the page complains:\n${this.complaints.join("\n")}`);
  }
}
