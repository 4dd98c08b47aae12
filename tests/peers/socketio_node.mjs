// A backend process: a Socket.IO server that names itself in every acknowledgement. Usage: node socketio_node.mjs NAME

import { createServer } from "node:http";
import { Server } from "socket.io";

const name = process.argv[2];
const http = createServer();
// A poll that its client gave up without closing it is answered by the next ping.
const io = new Server(http, { pingInterval: 3_000 });
io.on("connection", (socket) => {
  socket.on("message", (text, acknowledge) => acknowledge(`${name}:${text}`));
});
http.listen(0, "127.0.0.1", () => console.log(`127.0.0.1:${http.address().port}`));
