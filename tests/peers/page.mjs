// The demo's page without a browser: its script runs as it was served, on a stand-in for the few parts of the DOM that it
// uses, with `ws` in place of the browser's WebSocket. An id that the page does not have is null, as in a browser.

import { EventEmitter, once } from "node:events";
import vm from "node:vm";
import WebSocket from "ws";
import { within } from "./balancer.mjs";

class Element {
  parent = null;
  nodes = [];
  style = { setProperty: (name, value) => (this.style[name] = value) };

  constructor(page, attributes = "") {
    this.page = page;
    this.checked = /\bchecked\b/.test(attributes);
    this.value = "";
  }

  get textContent() {
    return this.nodes.map((node) => node.textContent ?? node).join("");
  }
  set textContent(text) {
    this.change(() => (this.nodes = [String(text)]));
  }
  get firstChild() {
    return this.nodes[0];
  }
  get lastChild() {
    return this.nodes.at(-1);
  }
  get childElementCount() {
    return this.nodes.filter((node) => node instanceof Element).length;
  }

  append(...nodes) {
    this.change(() => this.nodes.push(...this.adopted(nodes)));
  }
  prepend(...nodes) {
    this.change(() => this.nodes.unshift(...this.adopted(nodes)));
  }
  remove() {
    this.parent.nodes = this.parent.nodes.filter((node) => node !== this);
  }

  adopted(nodes) {
    for (const node of nodes) if (node instanceof Element) node.parent = this;
    return nodes;
  }
  change(act) {
    act();
    this.page.emit("change");
  }
}

export class Page extends EventEmitter {
  #timers = new Set();
  #sockets = new Set();
  #closed = false;

  constructor(address, html) {
    super();
    const tags = html.matchAll(/<\w+\s([^>]*\bid="([^"]+)"[^>]*)>/g);
    this.elements = new Map([...tags].map(([, attributes, id]) => [id, new Element(this, attributes)]));
    this.root = new Element(this);
    const [, script] = html.match(/<script>([^]*)<\/script>/);
    vm.runInNewContext(script, this.#browser(new URL(address)), { filename: "page.html" });
  }

  #browser({ protocol, host }) {
    const sockets = this.#sockets;
    const timer = (start) => (run, time) => this.#closed || this.#timers.add(start(run, time));
    return {
      location: { protocol, host },
      document: {
        documentElement: this.root,
        getElementById: (id) => this.elements.get(id) ?? null,
        createElement: () => new Element(this),
      },
      performance,
      setInterval: timer(setInterval),
      setTimeout: timer(setTimeout),
      WebSocket: class extends WebSocket {
        constructor(url) {
          super(url);
          sockets.add(this);
        }
      },
    };
  }

  text(id) {
    return this.elements.get(id).textContent;
  }

  // Waits until the page shows what `shows` looks for, and gives it. The page changes all the time: one wait bounds all.
  until(what, shows) {
    const look = async () => {
      for (;;) {
        const seen = shows();
        if (seen) return seen;
        await once(this, "change");
      }
    };
    return within(look(), `${what} on the page`);
  }

  // The name of the node that answers, once there is one.
  node() {
    return this.until("a node's name", () => this.text("name").match(/^n[123]$/)?.[0]);
  }

  // Types a text, sends the form, and waits for the line with its echo.
  async say(text) {
    const field = this.elements.get("text");
    let prevented = false;
    field.value = text;
    this.elements.get("form").onsubmit({ preventDefault: () => (prevented = true) });
    if (!prevented || field.value !== "") throw new Error("the form was not taken by the script");
    const lines = () => this.elements.get("log").nodes.map((line) => line.textContent);
    return this.until(`the echo of ${text}`, () => lines().find((line) => line.endsWith(`: ${text}`)));
  }

  click(id) {
    this.elements.get(id).onclick();
  }

  async close() {
    this.#closed = true;
    this.#timers.forEach(clearTimeout);
    const open = [...this.#sockets].filter((socket) => socket.readyState !== WebSocket.CLOSED);
    const closed = open.map((socket) => once(socket, "close"));
    open.forEach((socket) => socket.close());
    await within(Promise.all(closed), "the page's connections to close");
  }
}
