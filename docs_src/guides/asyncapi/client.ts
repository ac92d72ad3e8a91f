import { Count } from "./models/Count.js";
import { Counted } from "./models/Counted.js";
import { Said } from "./models/Said.js";
import { Say } from "./models/Say.js";

type ToServer = Say | Count;
type ToClient = Said | Counted;

export function talk(address: string, text: string, show: (line: string) => void): void {
  const socket = new WebSocket(address);
  const send = (message: ToServer) => socket.send(JSON.stringify(message));

  socket.onopen = () => send({ type: "say", text });
  socket.onmessage = (event: MessageEvent<string>) => {
    const message: ToClient = JSON.parse(event.data);
    switch (message.type) {
      case "said":
        show(message.text);
        send({ type: "count", id: "1" });
        break;
      case "counted":
        show(`You have said ${message.messages} so far (${message.reply_to}).`);
        socket.close(1000);
        break;
    }
  };
  socket.onclose = (event) => show(`closed with ${event.code}`);
}
