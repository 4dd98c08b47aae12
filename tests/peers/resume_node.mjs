// A backend process of resume.mjs: a `ws` server that sends every message back, compressed where the client compresses. At SIGTERM
// it tells its clients 1012 and ends when they have answered. Usage: node resume_node.mjs PORT

import { WebSocketServer } from "ws";

const port = Number(process.argv[2]);
const server = new WebSocketServer({ host: "127.0.0.1", port, perMessageDeflate: { threshold: 0 } });
const told = [];

server.on("connection", (socket, request) => {
  const note = request.headers["evenkeel-resume"];
  if (note) told.push(note);
  socket.on("message", (data, binary) => socket.send(data, { binary }));
  socket.on("error", () => {});
});
server.on("listening", () => console.log(`127.0.0.1:${server.address().port}`));

process.on("SIGTERM", () => {
  const left = [...server.clients].map((socket) => new Promise((gone) => socket.on("close", gone)));
  server.close();
  for (const socket of server.clients) socket.close(1012, "restart");
  Promise.all(left).then(() => process.exit(0));
});

// A line for each question on standard input; its end is that of the parent.
process.stdin.on("data", () => console.log(JSON.stringify(told)));
process.stdin.on("end", () => process.exit(0));
