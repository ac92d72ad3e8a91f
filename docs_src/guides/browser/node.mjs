// node node.mjs URL: says hello in a room, and shows what is said there.
import WebSocket from "ws"; // Node 22 and later have a WebSocket of their own
import { connect } from "lilya-websockets";

const client = connect(process.argv[2], { params: { name: "node" }, WebSocket });
const room = client.join("room:1", { history: 20 });
await room.publish("Hello from Node");

for await (const item of room) {
  if (item.type === "event") console.log(`${item.data.from}: ${item.data.text}`);
  if (item.type === "gap") console.log("Messages are missing here.");
  if (item.data?.text === "Bye") client.close(); // and the loop ends
}
