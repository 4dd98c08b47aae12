// Serves src/ as it is built, in front of the admin endpoint of a running balancer: for work on the page.
// Usage: npm run build && node dev.mjs 127.0.0.1:9900 [PORT]

import { createServer, request } from "node:http";
import { readFile } from "node:fs/promises";
import { dirname, extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";

const [admin = "127.0.0.1:9900", port = "9980"] = process.argv.slice(2);
const DIST = join(dirname(fileURLToPath(import.meta.url)), "dist");
const TYPES = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml" };
const CSP = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

const server = createServer(async (asked, answer) => {
  const path = normalize(asked.url.split("?")[0]);
  if (path === "/" || path.startsWith("/assets/")) {
    const file = path === "/" ? "/index.html" : path;
    try {
      const bytes = await readFile(join(DIST, file));
      answer.writeHead(200, { "content-type": TYPES[extname(file)], "content-security-policy": CSP, "cache-control": "no-store" }).end(bytes);
    } catch {
      answer.writeHead(404).end();
    }
    return;
  }
  const [host, adminPort] = admin.split(":");
  const { origin, referer, ...headers } = asked.headers;
  const on = request({ host, port: adminPort, method: asked.method, path: asked.url, headers: { ...headers, host: admin } });
  on.on("response", (reply) => reply.pipe(answer.writeHead(reply.statusCode, reply.headers)));
  on.on("error", () => answer.destroy());
  answer.on("close", () => on.destroy());
  asked.pipe(on);
});
server.listen(Number(port), "127.0.0.1", () => console.log(`http://127.0.0.1:${server.address().port}/`));
