// A backend process: a `ws` server that names itself in every answer. Usage: node ws_node.mjs NAME

import { WebSocketServer } from "ws";

const name = process.argv[2];
const server = new WebSocketServer({ host: "127.0.0.1", port: 0 });
server.on("connection", (socket) => {
  socket.on("message", (data, binary) => socket.send(binary ? data : `${name}:${data}`));
});
server.on("listening", () => console.log(`127.0.0.1:${server.address().port}`));
