// Builds dist/, which is embedded in the binary. The same sources give the same bytes: versions are locked, and nothing of
// the machine or the time goes in. `node build.mjs --check` compares with what is committed and writes nothing.

import { build } from "esbuild";
import { readFileSync, readdirSync, writeFileSync, mkdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const HERE = dirname(fileURLToPath(import.meta.url));
const DIST = join(HERE, "dist");
// All that the dashboard may add to the binary.
const MAX_BYTES = 150_000;

const { outputFiles } = await build({
  absWorkingDir: HERE,
  entryPoints: { app: "src/main.tsx", style: "src/style.css" },
  outdir: "dist/assets",
  bundle: true,
  minify: true,
  format: "esm",
  target: ["es2022"],
  jsx: "automatic",
  jsxImportSource: "preact",
  charset: "utf8",
  legalComments: "none",
  banner: { js: "/* preact: MIT, (c) 2015-present Jason Miller. uPlot: MIT, (c) 2022 Leon Sorokin. */" },
  write: false,
});

const files = new Map([
  ["index.html", readFileSync(join(HERE, "src/index.html"))],
  ["assets/icon.svg", readFileSync(join(HERE, "src/icon.svg"))],
]);
for (const { path, contents } of outputFiles) files.set(path.slice(DIST.length + 1), Buffer.from(contents));

// Of the libraries inside, for packaging/inventory.py.
const { dependencies } = JSON.parse(readFileSync(join(HERE, "package.json"), "utf8"));
const licences = Object.entries(dependencies).map(([name, version]) => {
  const text = readFileSync(join(HERE, "node_modules", name, "LICENSE"), "utf8").trim();
  return `${name} ${version} (in the dashboard)\n\n${text}\n`;
});

let total = 0;
for (const [name, bytes] of files) {
  total += bytes.length;
  console.log(`${name}: ${bytes.length} bytes`);
}
console.log(`in all: ${total} bytes, of at most ${MAX_BYTES}`);
if (total > MAX_BYTES) process.exit(1);

const LICENCES = join(HERE, "LICENSES.txt");
if (process.argv.includes("--check")) {
  const committed = readdirSync(DIST, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  const strangers = committed.map((entry) => join(entry.parentPath, entry.name).slice(DIST.length + 1)).filter((name) => !files.has(name));
  const differing = [...files].filter(([name, bytes]) => !bytes.equals(readFileSync(join(DIST, name)))).map(([name]) => name);
  if (readFileSync(LICENCES, "utf8") !== licences.join("\n")) differing.push("../LICENSES.txt");
  if (strangers.length + differing.length) {
    console.error(`dist/ is not what the sources give: ${[...differing, ...strangers].join(", ")}; run npm run build`);
    process.exit(1);
  }
} else {
  mkdirSync(join(DIST, "assets"), { recursive: true });
  for (const [name, bytes] of files) writeFileSync(join(DIST, name), bytes);
  writeFileSync(LICENCES, licences.join("\n"));
}
