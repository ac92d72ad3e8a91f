// Compiled by `test_package.py`, and never run.
import { ChannelsError, connect, type Client, type Item, type State } from "lilya-websockets";

interface Said {
  text: string;
}
interface Person {
  name: string;
}

const client: Client = connect("/ws", {
  token: async () => "secret",
  params: () => ({ room: "1" }),
  retry: ({ code }) => (code === 4401 ? true : undefined),
  WebSocket,
  heartbeat: 20_000,
});
connect(new URL("wss://example.com/ws"));

// @ts-expect-error there is no such option
connect("/ws", { patience: 1 });
// @ts-expect-error it is a number
connect("/ws", { heartbeat: "20" });

client.on("state", (state: State) => {
  if (state.state === "waiting") console.log(state.wait.toFixed(), state.code, state.attempts);
  // @ts-expect-error only while it waits
  console.log(state.wait);
});
client.on("error", (error) => console.log(error.code, error instanceof ChannelsError));
// @ts-expect-error there is no such event
client.on("states", () => {});

const room = client.join<Said, Person>("room:1", { history: 50, presence: "keys", since: null });
const off: () => void = room.on("event", ({ id, data, key }) => console.log(id, data.text.length, key?.length));
room.on("gap", (gap) => console.log(gap.id));
room.on("dropped", ({ count }) => console.log(count + 1));
room.on("members", (members) => console.log([...members.values()].map(({ info }) => info.name)));
room.on("joined", ({ member, count }) => console.log(member, count));
room.on("left", (error) => console.log(error?.close?.code));
// @ts-expect-error data has no such field
room.on("event", ({ data }) => console.log(data.words));
// @ts-expect-error that is not what is said there
room.publish({ words: "" });
// @ts-expect-error it is true or "keys"
client.join("room:2", { presence: false });

const id: string = await room.publish({ text: "Hello" }, { key: "1" });
const answer: number = await client.request<number>({ ask: "how many?" }, { timeout: 1000 });
for await (const item of room) {
  const one: Item<Said, Person> = item;
  if (item.type === "event") console.log(item.data.text, item.bytes?.byteLength);
  else if (item.type === "presence") console.log(item.event, item.member.info.name, item.sockets);
  // @ts-expect-error a gap has no data
  else if (item.type === "gap") console.log(item.data);
  console.log(one.channel);
}
console.log(id, answer, room.position, client.queued);
off();
room.leave();
client.close(4000, "bye");
