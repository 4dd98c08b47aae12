// A backend process of combined.mjs: a `ws` server with a numbered stream of its own for every client, which also checks the
// client's numbers. A gap, a wrong byte or a wrong order is told to the client and on standard output.
// Usage: node combined_node.mjs NAME MEAN_INTERVAL_MS

import { WebSocketServer } from "ws";
import { Inflow, Outflow, every } from "./numbered.mjs";

const [name, interval] = process.argv.slice(2);
const server = new WebSocketServer({ host: "127.0.0.1", port: 0 });
const open = new Set();

server.on("connection", (socket) => {
  const session = { socket, out: new Outflow(), in: new Inflow(), finished: false };
  open.add(session);
  socket.send(JSON.stringify({ node: name }));
  socket.on("message", (data, binary) => {
    if (binary) {
      const fault = session.in.take(data);
      if (fault) {
        console.log(`fault: ${name}: ${fault}`);
        socket.send(JSON.stringify({ fault }));
      }
      return;
    }
    // The client has said its last number: both counts are compared there.
    session.finished = true;
    socket.send(JSON.stringify({ received: session.in.count, sent: session.out.count }));
  });
  const gone = () => open.delete(session);
  socket.on("close", gone);
  socket.on("error", gone);
});

every(Number(interval), open, (session) => {
  if (!session.finished && session.socket.readyState === 1) session.socket.send(session.out.next());
});

server.on("listening", () => console.log(`127.0.0.1:${server.address().port}`));
// Its parent is gone.
process.stdin.resume();
process.stdin.on("end", () => process.exit(0));
