// The `ws` package on Node.js.
const { WebSocketServer } = require("ws");
const PIECE = 65536;
const group = new Set();
const server = new WebSocketServer({ host: "127.0.0.1", port: Number(process.argv[2]), perMessageDeflate: true });
server.on("connection", (socket, request) => {
  const path = request.url;
  socket.on("error", () => {});
  if (path === "/join") {
    group.add(socket);
    socket.on("close", () => group.delete(socket));
  } else if (path === "/echo") {
    socket.on("message", (data, binary) => socket.send(data, { binary }));
  } else if (path === "/publish") {
    socket.on("message", (data) => {
      for (const member of group) member.send(data, { binary: false });
    });
  } else if (path === "/flood") {
    let left = 512;
    const next = () => { if (left-- > 0) socket.send(Buffer.alloc(PIECE, "x"), next); };
    next();
  }
});
