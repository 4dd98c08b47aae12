// Starts the binary on a configuration in a folder of its own, learns its addresses from its log, and talks to its admin
// endpoint. Everything here fails loudly: a rejected promise ends the script with code 1.

import { spawn, execFileSync } from "node:child_process";
import { request } from "node:http";
import { mkdtempSync, writeFileSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { once } from "node:events";

const PATIENCE = 30_000;

export function fail(message) {
  throw new Error(message);
}

export function within(promise, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: nothing after ${PATIENCE} ms`)), PATIENCE);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

const children = new Set();

function end(child) {
  children.delete(child);
  if (child.exitCode === null) child.kill("SIGKILL");
}

process.on("exit", () => children.forEach(end));
for (const event of ["uncaughtException", "unhandledRejection"]) {
  process.on(event, (error) => {
    console.error(error);
    process.exit(1);
  });
}

// A child process whose first line on standard output says that it is ready.
export async function ready(command, words, options = {}) {
  const child = spawn(command, words, { stdio: ["pipe", "pipe", "inherit"], ...options });
  children.add(child);
  const lines = createInterface({ input: child.stdout });
  const [first] = await within(once(lines, "line"), `${command} ${words.join(" ")}`);
  return { child, first, lines };
}

export class Balancer {
  // `admin` has the keys of the admin endpoint.
  static async start(binary, config, folder = mkdtempSync(join(tmpdir(), "evenkeel-")), admin = 'bind = "127.0.0.1:0"') {
    const balancer = new Balancer();
    balancer.binary = binary;
    balancer.folder = folder;
    balancer.file = join(folder, "balancer.toml");
    balancer.endpoint = admin;
    balancer.waiting = new Set();
    balancer.write(config);
    balancer.run();
    return balancer;
  }

  run() {
    this.log = [];
    this.child = spawn(this.binary, ["run", "--config", this.file], { stdio: ["ignore", "ignore", "pipe"] });
    children.add(this.child);
    createInterface({ input: this.child.stderr }).on("line", (line) => {
      this.log.push(line);
      this.waiting.forEach((look) => look());
    });
  }

  write(config) {
    writeFileSync(this.file, this.text(config));
  }

  text(config) {
    return `[global]\nlog_format = "json"\nwatch = false\n\n${config}\n[admin]\n${this.endpoint}\n`;
  }

  // Ends it like a crash; `run` starts it anew on what its file says then.
  async kill() {
    const ended = once(this.child, "exit");
    this.child.kill("SIGKILL");
    await within(ended, "the balancer to be killed");
    end(this.child);
  }

  // The address of a listener, as its log line tells it.
  address(listener) {
    const find = () => {
      for (const line of this.log) {
        try {
          const event = JSON.parse(line);
          const fields = event.fields ?? event;
          if (fields.message === "listening" && fields.listener === listener) return fields.address;
        } catch {
          // A line that is no JSON is no event.
        }
      }
    };
    const found = new Promise((resolve) => {
      const look = () => {
        const address = find();
        if (!address) return;
        this.waiting.delete(look);
        resolve(address);
      };
      this.waiting.add(look);
      look();
    });
    return within(found, `the address of ${listener}`).catch((error) => {
      console.error(this.log.join("\n"));
      throw error;
    });
  }

  async admin(method, path, body = {}) {
    // A connection for each request: a kept one may be closed by the endpoint while a busy script is about to use it.
    const options = { method, agent: false, headers: { "content-type": "application/json" } };
    const asked = request(`http://${await this.address("admin")}${path}`, options);
    asked.end(method === "GET" ? undefined : JSON.stringify(body));
    const [answer] = await within(once(asked, "response"), `${method} ${path}`);
    const text = (await answer.toArray()).join("");
    if (answer.statusCode !== 200 && answer.statusCode !== 202) fail(`${method} ${path}: ${answer.statusCode} ${text}`);
    return JSON.parse(text);
  }

  async reload(config) {
    this.write(config);
    return this.admin("POST", "/api/v1/reload");
  }

  async stop() {
    const ended = once(this.child, "exit");
    this.child.kill("SIGTERM");
    const [code] = await within(ended, "the balancer to stop");
    end(this.child);
    if (code !== 0) fail(`the balancer ended with code ${code}:\n${this.log.slice(-40).join("\n")}`);
    rmSync(this.folder, { recursive: true, force: true });
  }
}

// A self-signed certificate for localhost, made by OpenSSL.
export function certificate(folder) {
  const [cert, key] = [join(folder, "cert.pem"), join(folder, "key.pem")];
  execFileSync("openssl", [
    "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
    "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", cert,
  ], { stdio: "pipe" });
  return { cert, key, pem: readFileSync(cert) };
}

export function folder() {
  return mkdtempSync(join(tmpdir(), "evenkeel-"));
}
