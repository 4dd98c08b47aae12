// A backend process: a Socket.IO server that names itself in every acknowledgement. Usage: node socketio_node.mjs NAME

import { createServer } from "node:http";
import { Server } from "socket.io";

const name = process.argv[2];
const http = createServer();
const io = new Server(http);
io.on("connection", (socket) => {
  socket.on("message", (text, acknowledge) => acknowledge(`${name}:${text}`));
});
http.listen(0, "127.0.0.1", () => console.log(`127.0.0.1:${http.address().port}`));
