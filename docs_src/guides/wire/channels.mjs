// Publishes to channels on Redis and reads them, without any package.
// node channels.mjs HOST:PORT publish CHANNEL TEXT | read CHANNEL | follow CHANNEL COUNT
import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { connect } from "node:net";

const [address, action, channel, argument] = process.argv.slice(2);
const [host, port] = address.split(":");

const hex = (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`;
const quoted = encodeURIComponent(channel).replace(/[!'()*]/g, hex);
const key = `{lilya:${quoted.replace(/%3A/g, ":").replace(/%2F/g, "/")}}`;
const push = ":push:0"; // the number of the database

function event(id, kind, payload) {
  let told = {};
  if (kind === "S" || kind === "B") {
    const begin = payload.indexOf(" ") + 1;
    const end = begin + Number(payload.subarray(0, begin - 1));
    told = JSON.parse(payload.subarray(begin, end));
    payload = payload.subarray(end);
  }
  const data = payload.toString(kind.toLowerCase() === "s" ? "utf8" : "base64");
  return { id, data, ...told };
}

// The protocol of Redis: one value from a place on, and where it ends; nothing if it has not all come.
function parsed(bytes, at) {
  const line = bytes.indexOf("\r\n", at);
  if (line < 0) return;
  const head = bytes.toString("utf8", at + 1, line);
  let next = line + 2;
  if (bytes[at] === 0x24 /* $ */) {
    const end = next + Number(head);
    if (head === "-1") return [null, next];
    return bytes.length < end + 2 ? undefined : [bytes.subarray(next, end), end + 2];
  }
  if (bytes[at] !== 0x2a /* * */) return [bytes[at] === 0x2d /* - */ ? new Error(head) : head, next];
  const values = [];
  while (values.length < Number(head)) {
    const found = parsed(bytes, next);
    if (!found) return;
    values.push(found[0]);
    next = found[1];
  }
  return [values, next];
}

const socket = connect(Number(port), host);
let came = Buffer.alloc(0);
async function* answers() {
  for await (const data of socket) {
    came = Buffer.concat([came, data]);
    for (let found; (found = parsed(came, 0)); came = came.subarray(found[1])) {
      if (found[0] instanceof Error) throw found[0];
      yield found[0];
    }
  }
}
const answer = answers();
function ask(...parts) {
  const all = parts.map((part) => Buffer.from(String(part)));
  const packed = all.flatMap((part) => [Buffer.from(`$${part.length}\r\n`), part, Buffer.from("\r\n")]);
  socket.write(Buffer.concat([Buffer.from(`*${parts.length}\r\n`), ...packed]));
}

if (action === "publish") {
  const script = readFileSync(new URL("publish.lua", import.meta.url), "utf8");
  const epoch = randomBytes(4).toString("hex");
  ask("EVAL", script, 2, key, `${key}:state`, epoch, push, 1000, 86_400_000, "s", argument);
  console.log((await answer.next()).value.toString());
} else if (action === "read") {
  ask("HGET", `${key}:state`, "epoch");
  const epoch = (await answer.next()).value?.toString();
  ask("XRANGE", key, "-", "+");
  for (const [id, [, header, , payload]] of (await answer.next()).value) {
    const life = header.toString("utf8", 0, 8);
    if (life === epoch) console.log(JSON.stringify(event(`${id}-${life}`, header.toString("utf8", 8, 9), payload)));
  }
} else {
  ask("SUBSCRIBE", key + push);
  await answer.next(); // from here on nothing is missed
  console.log("listening");
  for (let left = Number(argument); left > 0; left--) {
    const [, , message] = (await answer.next()).value;
    const space = message.indexOf(" ");
    const kind = message.toString("utf8", space + 1, space + 2);
    console.log(JSON.stringify(event(message.toString("utf8", 0, space), kind, message.subarray(space + 2))));
  }
}
socket.destroy();
