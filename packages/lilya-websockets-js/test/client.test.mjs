/** The client, without a network. `node --test` runs it. */

import assert from "node:assert/strict";
import { afterEach, beforeEach, mock, test } from "node:test";

import { connect } from "../lilya-websockets.js";
import { PROTOCOL, event, joined, letTheClockGo, pass, settled, sockets, stopTheClock } from "./fakes.mjs";

let made, Socket, last, states, clients;

beforeEach(() => {
  stopTheClock();
  ({ made, Socket, last } = sockets());
  states = [];
  clients = [];
});

afterEach(() => {
  for (const client of clients) client.close();
  letTheClockGo();
});

/** A client that has begun to connect. */
async function begun(options = {}) {
  const client = connect("ws://server/ws", { WebSocket: Socket, ...options });
  client.on("state", (state) => states.push(state));
  clients.push(client);
  await settled();
  return client;
}

/** A client that is connected, and its channel `room`. */
async function entered(options = {}, joining = {}) {
  const client = await begun(options);
  const room = client.join("room", joining);
  last().open();
  last().give(joined());
  last().take();
  return { client, room };
}

/** The ids' numbers of what a channel gives to listeners. */
function heard(room) {
  const numbers = [];
  room.on("event", ({ id }) => numbers.push(Number(id.split("-")[1])));
  return numbers;
}

async function again() {
  last().lose();
  await pass(500);
  last().open();
}

const code = (expected) => (error) => error.code === expected && error.name === "ChannelsError" && error.message.length > 10;

// Connecting

test("the address, the subprotocol, the token and the parameters", async () => {
  await begun({ token: "secret", params: { room: "a b" } });
  assert.equal(last().url, "ws://server/ws?room=a+b");
  assert.deepEqual(last().protocols, [PROTOCOL, "bearer", "secret"]);
});

test("http becomes ws, and a fragment goes", async () => {
  clients.push(connect("https://server/ws?a=1#b", { WebSocket: Socket }));
  await settled();
  assert.equal(last().url, "wss://server/ws?a=1");
  assert.deepEqual(last().protocols, [PROTOCOL]);
});

test("a relative address in a page", async () => {
  globalThis.location = { href: "https://page:8000/chat/?x=1" };
  try {
    clients.push(connect("../ws", { WebSocket: Socket }));
    await settled();
    assert.equal(last().url, "wss://page:8000/ws");
  } finally {
    delete globalThis.location;
  }
});

test("an option that is undefined has its default", async () => {
  const nothing = Object.fromEntries(["firstWait", "longestWait", "timeout", "heartbeat", "rate"].map((name) => [name, undefined]));
  await begun(nothing);
  last().open();
  await pass(24_999);
  assert.deepEqual(last().take(), []);
  last().lose();
  assert.equal(states.at(-1).wait, 500);
});

test("an app may close it in each of its functions", async () => {
  for (const when of ["connecting", "waiting", "retry"]) {
    let tokens = 0;
    const client = await begun({ retry: () => void (when === "retry" && client.close()), token: () => `t${++tokens}` });
    client.on("state", ({ state }) => state === when && client.close());
    last().lose();
    await pass(30_000);
    await pass(30_000);
    assert.equal(client.state, "closed", when);
    assert.equal(tokens, 1);
  }
});

test("a function `retry` that fails leaves it to the table", async () => {
  const failures = [];
  const fail = () => {
    throw new Error("a fault of the app");
  };
  process.setUncaughtExceptionCaptureCallback((error) => failures.push(error.message));
  try {
    for (const [close, state] of [[1006, "waiting"], [1008, "closed"]]) {
      const client = await begun({ retry: fail });
      last().lose(close);
      await settled();
      assert.equal(client.state, state);
    }
    assert.deepEqual(failures.splice(0), ["a fault of the app", "a fault of the app"]);
    // A promise is true in JavaScript, whatever it resolves with.
    for (const [close, state] of [[1006, "waiting"], [1008, "closed"]]) {
      const client = await begun({ retry: async () => close === 1008 });
      last().lose(close);
      await settled();
      assert.equal(client.state, state);
    }
    assert.equal(failures.length, 2);
    for (const failure of failures) assert.match(failure, /retry must return .* async/);
  } finally {
    process.setUncaughtExceptionCaptureCallback(null);
  }
});

test("the server could not say which name or key it refuses, so the client does", async () => {
  const { client, room } = await entered();
  for (const wrong of [undefined, null, 5, {}, "", "\0room", "x".repeat(1025), "😀".repeat(1025)]) {
    assert.throws(() => client.join(wrong), TypeError);
    if (wrong !== undefined) await assert.rejects(room.publish(1, { key: wrong }), code("invalid"));
  }
  await assert.rejects(room.publish(1, { key: "k".repeat(129) }), code("invalid"));
  assert.deepEqual(last().take(), []);
  const longest = "😀".repeat(1024); // characters, of which JavaScript makes two each
  client.join(longest);
  void room.publish(1, { key: "😀".repeat(128) }).catch(() => 0);
  assert.deepEqual(last().take().map(({ type, channel }) => [type, channel]), [["join", longest], ["publish", "room"]]);
});

test("options outside of their range", async () => {
  const durations = ["firstWait", "longestWait", "busyWait", "timeout", "heartbeat"];
  for (const name of [...durations, "maxQueued", "maxWaiting", "maxSize", "rate"]) {
    const wrong = [-1, NaN, ...(["busyWait", "rate"].includes(name) ? [] : [0, 0.5])];
    if (durations.includes(name)) wrong.push(2 ** 31, Infinity); // a timer would be called at once
    for (const value of wrong) {
      const expected = (error) => error instanceof RangeError && error.message.includes(`option ${name} must`) && error.message.endsWith(`got ${value}.`);
      assert.throws(() => connect("ws://server/ws", { WebSocket: Socket, [name]: value }), expected, `${name} ${value}`);
    }
    for (const value of ["500", {}, true, 500n, [500]]) {
      assert.throws(() => connect("ws://server/ws", { WebSocket: Socket, [name]: value }), TypeError);
    }
  }
  assert.equal(made.length, 0);
  const { client } = await entered({ busyWait: 0, rate: 0, maxQueued: Infinity, firstWait: 2 ** 31 - 1, longestWait: 2 ** 31 - 1 });
  for (const timeout of [0, "5", Infinity]) await assert.rejects(client.request(1, { timeout }), /option timeout must/);
});

test("no WebSocket, and no address", () => {
  assert.throws(() => connect("ws://server/ws", { WebSocket: undefined }), /option WebSocket/);
  assert.throws(() => connect("/ws", { WebSocket: Socket }), TypeError);
});

test("a token and parameters are asked for before each attempt", async () => {
  let asked = 0;
  await begun({ token: async () => `token${++asked}`, params: () => ({ n: asked }) });
  last().open();
  await again();
  assert.deepEqual(made.map(({ protocols }) => protocols[2]), ["token1", "token2"]);
  assert.deepEqual(made.map(({ url }) => url.slice(-3)), ["n=1", "n=2"]);
});

test("a token that cannot be had is a failure, with the error", async () => {
  const error = new Error("no network");
  let fails = true;
  const client = await begun({ token: () => (fails ? Promise.reject(error) : "t") });
  assert.equal(made.length, 0);
  assert.deepEqual(states.at(-1), { state: "waiting", code: 1006, reason: "no network", error, wait: 500, attempts: 1 });
  fails = false;
  await pass(500);
  last().open();
  assert.equal(client.state, "open");
});

test("a token that comes too late opens no second connection", async () => {
  const tokens = [];
  const client = await begun({ token: () => new Promise((resolve) => tokens.push(resolve)) });
  await pass(10_000);
  assert.equal(client.state, "waiting");
  await pass(500);
  tokens[1]("second");
  await settled();
  tokens[0]("first");
  await settled();
  assert.deepEqual(made.map(({ protocols }) => protocols[2]), ["second"]);
});

test("a token that no header can carry ends it", async () => {
  class Refusing {
    constructor() {
      throw new SyntaxError("invalid subprotocol");
    }
  }
  const client = await begun({ WebSocket: Refusing, token: "a b" });
  assert.equal(client.state, "closed");
  assert.equal(states.at(-1).reason, "invalid subprotocol");
});

test("a connection that does not open in time is let go", async () => {
  await begun({ timeout: 3000 });
  await pass(2999);
  assert.equal(last().ended, undefined);
  await pass(1);
  assert.notEqual(last().ended, undefined);
  assert.equal(states.at(-1).state, "waiting");
  made[0].open(); // too late
  assert.equal(states.at(-1).state, "waiting");
});

test("a dead connection is ended without its goodbye where that can be done", async () => {
  await begun();
  let terminated = 0;
  last().terminate = () => terminated++;
  await pass(10_000);
  assert.equal(terminated, 1);
  assert.equal(last().ended, undefined);
});

// Close codes

const STOP = [1000, 1002, 1003, 1007, 1008, 1009, 1010, 3000, 3003, 4000, 4001, 4999];
const WAIT = [1001, 1005, 1006, 1011, 1012, 1013, 1014, 1015, 1016, 2999, 3008];

for (const number of [...STOP, ...WAIT]) {
  const stops = STOP.includes(number);
  test(`${number} ${stops ? "stops" : "waits"}, unless the app says otherwise`, async () => {
    let asked;
    const plain = await begun();
    last().open();
    last().lose(number, "why");
    assert.equal(plain.state, stops ? "closed" : "waiting");
    assert.equal(states.at(-1).code, number);
    assert.equal(states.at(-1).reason, "why");
    const contrary = await begun({ retry: (failure) => ((asked = failure), stops) });
    last().open();
    last().lose(number, "why");
    assert.equal(contrary.state, stops ? "waiting" : "closed");
    assert.deepEqual(asked, { code: number, reason: "why" });
    const asBefore = await begun({ retry: () => undefined });
    last().open();
    last().lose(number);
    assert.equal(asBefore.state, plain.state);
  });
}

test("after the end nothing is possible, and everything is told why", async () => {
  const { client, room } = await entered();
  const left = [];
  room.on("left", (error) => left.push(error));
  const loop = room[Symbol.asyncIterator]();
  const asked = assert.rejects(client.request("asked"), code("lost"));
  const waits = [loop.next(), room.publish("unsaid")].map((promise) =>
    assert.rejects(promise, (error) => code("closed")(error) && error.close.code === 4001 && error.message.includes("4001 banned")),
  );
  last().lose(4001, "banned");
  await Promise.all([asked, ...waits]);
  assert.equal((await loop.next()).done, true); // it was told once
  assert.equal(left[0].code, "closed");
  assert.equal(room.state, "left");
  await assert.rejects(room.publish("more"), code("closed"));
  await assert.rejects(client.request("more"), code("closed"));
  assert.throws(() => client.join("other"), code("closed"));
  client.reconnect();
  await pass(1_000_000);
  assert.equal(made.length, 1);
});

test("the app closes: loops end quietly, and what waits is rejected", async () => {
  const { client, room } = await entered();
  const loop = room[Symbol.asyncIterator]();
  const next = loop.next();
  const unsaid = room.publish("unsaid");
  client.close(4000, "bye");
  assert.deepEqual(last().ended, { code: 4000, reason: "bye" });
  assert.equal((await next).done, true);
  await assert.rejects(unsaid, code("closed"));
  last().lose(1006);
  await pass(1_000_000);
  assert.deepEqual(states.filter(({ state }) => state === "closed").length, 1);
  assert.equal(made.length, 1);
});

test("a wrong code of the app is an error, and ends nothing", async () => {
  const { client } = await entered();
  last().close = () => {
    throw new RangeError("code");
  };
  assert.throws(() => client.close(999), RangeError);
  assert.equal(client.state, "open");
  delete last().close;
});

// Messages that are too large for the server

test("a message that the server does not read is rejected", async () => {
  const { client, room } = await entered({ maxSize: 1e6 });
  const errors = [];
  client.on("error", (error) => errors.push(error.code));
  const large = room.publish("x".repeat(70_000));
  const size = JSON.stringify(last().take()[0]).length;
  const small = room.publish("small");
  const largest = client.request("x".repeat(99_000));
  const [{ key }] = last().take();
  const refused = { type: "error", code: "too_large", message: "a message must have at most 65536 bytes" };
  last().give({ ...refused, size: size + 1 }); // a request that is not waited for any more
  assert.deepEqual(errors, ["too_large"]);
  last().give({ ...refused, size });
  await assert.rejects(large, (error) => code("too_large")(error) && error.message.includes(`${size} bytes`));
  last().give(refused); // a server that does not say the size
  await assert.rejects(largest, code("too_large"));
  last().give({ type: "published", channel: "room", key, id: event(1).id });
  assert.equal(await small, event(1).id);
  last().give(refused);
  assert.deepEqual(errors, ["too_large", "too_large"]);
  await again();
  assert.deepEqual(last().take().map(({ type }) => type), ["join"]); // it is not sent again
});

test("a message that ends each connection is not sent again", async () => {
  const { client, room } = await entered({ maxSize: 1e6, retry: () => true });
  const small = room.publish("small");
  const large = room.publish("x".repeat(70_000));
  for (let turn = 0; turn < 40; turn++) void room.publish(turn).catch(() => 0);
  const asked = client.request("unsent");
  const sent = last().take().length;
  assert.ok(sent < 42);
  last().lose(1009);
  await assert.rejects(large, code("too_large"));
  assert.equal(last().take().length, 0); // nothing more goes into a connection that is over
  await pass(500);
  last().open();
  const [join, first, ...more] = last().take();
  assert.deepEqual([join.type, first.data], ["join", "small"]);
  last().give({ type: "published", channel: "room", key: first.key, id: event(1).id });
  assert.equal(await small, event(1).id);
  for (const { key } of more) if (key) last().give({ type: "published", channel: "room", key, id: event(2).id });
  for (const { key, id } of last().take()) {
    if (key) last().give({ type: "published", channel: "room", key, id: event(2).id });
    if (id) last().give({ type: "answer", id, data: "answered" });
  }
  assert.equal(await asked, "answered");
});

test("the bytes that wait for an answer have a limit, and one message goes in any case", async () => {
  const { room } = await entered({ maxSize: 1e6 });
  const answer = (...messages) => {
    for (const { key } of messages) last().give({ type: "published", channel: "room", key, id: event(1).id });
  };
  for (const kib of [60, 60, 60, 200, 1, 1]) void room.publish("x".repeat(kib * 1024)).catch(() => 0);
  const sizes = (messages) => messages.map(({ data }) => data.length / 1024);
  const two = last().take();
  assert.deepEqual(sizes(two), [60, 60]);
  answer(two[0]);
  const third = last().take();
  assert.deepEqual(sizes(third), [60]);
  answer(two[1], ...third);
  const alone = last().take();
  assert.deepEqual(sizes(alone), [200]);
  last().lose(); // and nothing is counted twice
  await pass(500);
  last().open();
  const again = last().take().filter(({ type }) => type === "publish");
  assert.deepEqual(sizes(again), [200]);
  answer(...again);
  assert.deepEqual(sizes(last().take()), [1, 1]);
});

test("data without a form in JSON is rejected", async () => {
  const { client, room } = await entered();
  const cycle = {};
  cycle.self = cycle;
  for (const data of [cycle, 5n]) {
    await assert.rejects(room.publish(data), TypeError);
    await assert.rejects(client.request(data), TypeError);
  }
  assert.equal(client.queued, 0);
  assert.deepEqual(last().take(), []);
});

// Waiting

test("waits double up to the longest, and are shortened at random by up to a half", async () => {
  await begun({ longestWait: 5000 });
  const waits = [];
  for (const random of [1, 1, 1, 1, 1, 0, 0.5]) {
    mock.method(Math, "random", () => random);
    last().lose();
    waits.push(states.at(-1).wait);
    await pass(states.at(-1).wait);
  }
  assert.deepEqual(waits, [500, 1000, 2000, 4000, 5000, 2500, 3750]);
  assert.equal(made.length, 8);
});

test("1013 waits longer", async () => {
  await begun();
  last().open();
  last().lose(1013);
  assert.equal(states.at(-1).wait, 10_000);
  await pass(9999);
  assert.equal(made.length, 1);
  await pass(1);
  assert.equal(made.length, 2);
});

test("a connection that is lost at once has failed, one that has lasted begins anew", async () => {
  await begun();
  for (const wait of [500, 1000, 2000]) {
    last().open();
    last().lose(1011);
    assert.equal(states.at(-1).wait, wait);
    await pass(wait);
  }
  last().open();
  await pass(2001);
  last().lose(1011);
  assert.equal(states.at(-1).wait, 500);
});

test("reconnect does not wait", async () => {
  const client = await begun();
  last().lose();
  last().lose(); // said twice, it counts once
  assert.equal(states.at(-1).attempts, 1);
  client.reconnect();
  await settled();
  assert.equal(made.length, 2);
  await pass(500); // and the attempt that was to come does not
  assert.equal(made.length, 2);
});

// The page

class Page extends EventTarget {
  visibilityState = "visible";
}

async function inPage(run) {
  let listening = 0;
  const page = new EventTarget();
  globalThis.document = new Page();
  for (const target of [page, globalThis.document]) {
    const { addEventListener, removeEventListener } = target;
    target.addEventListener = (...all) => (listening++, addEventListener.apply(target, all));
    target.removeEventListener = (...all) => (listening--, removeEventListener.apply(target, all));
  }
  globalThis.addEventListener = page.addEventListener;
  globalThis.removeEventListener = page.removeEventListener;
  try {
    await run(page, globalThis.document);
  } finally {
    for (const client of clients.splice(0)) client.close();
    assert.equal(listening, 0); // a client that is closed keeps nothing
    delete globalThis.addEventListener;
    delete globalThis.removeEventListener;
    delete globalThis.document;
  }
}

test("the network is back: connect anew at once", () =>
  inPage(async (page) => {
    const { client } = await entered();
    page.dispatchEvent(new Event("online")); // what looks open may be dead
    await settled();
    assert.equal(made.length, 2);
    assert.notEqual(made[0].ended, undefined);
    last().lose();
    page.dispatchEvent(new Event("online"));
    await settled();
    assert.equal(made.length, 3);
    client.close();
    page.dispatchEvent(new Event("online"));
    await settled();
    assert.equal(made.length, 3);
  }));

test("the network is gone: ask at once whether anybody is there", () =>
  inPage(async (page) => {
    await entered({ timeout: 1000 });
    page.dispatchEvent(new Event("offline"));
    assert.deepEqual(last().take(), [{ type: "ping" }]);
    await pass(1000);
    assert.equal(states.at(-1).state, "waiting");
    page.dispatchEvent(new Event("offline")); // nobody to ask
  }));

test("the page is looked at again: ask, or connect", () =>
  inPage(async (_, document) => {
    await entered();
    document.visibilityState = "hidden";
    document.dispatchEvent(new Event("visibilitychange"));
    assert.deepEqual(last().take(), []);
    document.visibilityState = "visible";
    document.dispatchEvent(new Event("visibilitychange"));
    assert.deepEqual(last().take(), [{ type: "ping" }]);
    last().lose();
    document.dispatchEvent(new Event("visibilitychange"));
    await settled();
    assert.equal(made.length, 2);
    document.dispatchEvent(new Event("visibilitychange")); // it is at it
    await settled();
    assert.equal(made.length, 2);
  }));

test("a silent connection is asked, and let go if it does not answer", async () => {
  await entered({ heartbeat: 5000, timeout: 1000 });
  await pass(4000);
  last().give(event(1)); // anything is a sign of life
  await pass(4999);
  assert.deepEqual(last().take(), []);
  await pass(1);
  assert.deepEqual(last().take(), [{ type: "ping" }]);
  await pass(999);
  last().give({ type: "pong" });
  await pass(5000);
  assert.deepEqual(last().take(), [{ type: "ping" }]);
  await pass(1000);
  assert.equal(states.at(-1).state, "waiting");
  assert.equal(states.at(-1).code, 1006);
  assert.notEqual(made[0].ended, undefined);
});

// Exactly once, in order

test("after a reconnect it goes on after the last event", async () => {
  const client = await begun();
  const room = client.join("room", { history: 50, presence: true });
  const numbers = heard(room);
  last().open();
  assert.deepEqual(last().take(), [{ type: "join", channel: "room", history: 50, presence: true }]);
  last().give(joined(), event(1), event(2));
  await settled();
  await again();
  assert.deepEqual(last().take(), [{ type: "join", channel: "room", since: event(2).id, presence: true }]);
  last().give(joined("room", { position: event(2).id }), event(2), event(3), event(3), event(1), event(4));
  assert.deepEqual(numbers, [1, 2, 3, 4]);
  assert.equal(room.position, event(4).id);
});

test("a connection that breaks before the first event goes on from where it began", async () => {
  const { room } = await entered({}, { history: 5 });
  assert.equal(room.position, joined().position);
  await again();
  assert.deepEqual(last().take(), [{ type: "join", channel: "room", since: joined().position }]);
  const numbers = heard(room);
  last().give(joined(), event(1));
  await settled();
  assert.deepEqual(numbers, [1]);
});

test("where nothing is known to go on from, it begins anew", async () => {
  const client = await begun();
  const room = client.join("room", { history: 5, latest: true });
  last().open();
  last().give(joined("room", { position: null }));
  await again();
  assert.deepEqual(last().take().at(-1), { type: "join", channel: "room", history: 5, latest: true });
  assert.equal(room.position, null);
});

test("the app can know where to go on", async () => {
  const client = await begun();
  const room = client.join("room", { since: event(7).id, history: 5 });
  const numbers = heard(room);
  last().open();
  assert.deepEqual(last().take(), [{ type: "join", channel: "room", since: event(7).id }]);
  last().give(joined("room", { position: event(7).id }), event(7), event(8));
  await settled();
  assert.deepEqual(numbers, [8]);
});

test("a gap is told, and another memory counts anew", async () => {
  const { room } = await entered();
  const numbers = heard(room);
  const gaps = [];
  room.on("gap", (gap) => gaps.push(gap.id));
  const gap = { type: "gap", channel: "room", id: "1700000000000-9-aaaaaaaa" };
  last().give(event(1), gap, gap, event(9), event(10), event(1, 1, "room", "bbbbbbbb"), event(2, 2, "room", "bbbbbbbb"));
  await settled();
  assert.deepEqual(numbers, [1, 10, 1, 2]);
  assert.deepEqual(gaps, [gap.id]);
  await again();
  const since = event(2, 2, "room", "bbbbbbbb").id;
  assert.equal(last().take()[0].since, since);
  // All that follows is of another memory, and the gap is where the page is.
  last().give(joined("room", { position: since }), { type: "gap", channel: "room", since, id: since }, event(1, 1, "room", "cccccccc"));
  assert.deepEqual(gaps, [gap.id, since]);
  assert.deepEqual(numbers, [1, 10, 1, 2, 1]);
});

test("ids that are not numbered are given as they come", async () => {
  const { room } = await entered();
  const given = [];
  room.on("event", ({ data }) => given.push(data));
  last().give({ ...event(1), id: "a" }, { ...event(2), id: "b" });
  await settled();
  assert.deepEqual(given, [1, 2]);
});

test("what an earlier connection still says is ignored", async () => {
  const { room } = await entered();
  const numbers = heard(room);
  const old = last();
  await again();
  last().give(joined());
  old.give(event(1));
  old.lose(4000);
  last().give(event(2));
  await settled();
  assert.deepEqual(numbers, [2]);
});

test("what is of a time before a leave is ignored", async () => {
  const { client, room } = await entered();
  room.leave();
  const later = client.join("room");
  const numbers = heard(later);
  later.publish("after joining").catch(() => {});
  assert.deepEqual(last().take(), [{ type: "leave", channel: "room" }]);
  last().give(event(1), { type: "left", channel: "room" }, event(1), { type: "left", channel: "room" });
  assert.deepEqual(last().take().map(({ type }) => type), ["join", "publish"]);
  last().give(joined(), event(2));
  await settled();
  assert.deepEqual(numbers, [2]);
  assert.equal(later.state, "joined");
  assert.equal(room.state, "left");
  room.leave();
  assert.deepEqual(last().take(), []);
});

test("join, leave and join in a row, whatever comes of the first", async () => {
  const refused = { type: "error", action: "join", channel: "room", code: "forbidden", message: "no" };
  for (const first of [joined(), refused, { type: "left", channel: "room", code: 4001, reason: "banned" }]) {
    const client = await begun();
    last().open();
    client.join("room").leave();
    const second = client.join("room");
    const lost = second.publish("never sent");
    second.leave();
    await assert.rejects(lost, code("left"));
    const third = client.join("room");
    assert.deepEqual(last().take().map(({ type }) => type), ["join", "leave"]);
    if (first.type !== "left") last().give(first);
    assert.deepEqual(last().take(), []);
    last().give(first.type === "left" ? first : { type: "left", channel: "room" });
    assert.deepEqual(last().take().map(({ type }) => type), ["join"]);
    last().give(joined());
    assert.equal(third.state, "joined");
    client.close();
  }
});

test("a connection that breaks between leaving and joining", async () => {
  const { client, room } = await entered();
  room.leave();
  const later = client.join("room");
  await again();
  assert.deepEqual(last().take().map(({ type }) => type), ["join"]);
  last().give(joined());
  assert.equal(later.state, "joined");
});

test("a message to a channel that is being left waits, also when others are sent again", async () => {
  const { client, room } = await entered();
  const other = client.join("other");
  other.publish(1, { key: "k" }).catch(() => {});
  room.leave();
  client.join("room").publish(2).catch(() => {});
  last().take();
  last().give({ type: "error", action: "publish", channel: "other", key: "k", code: "unavailable", message: "no" });
  await pass(500);
  assert.deepEqual(last().take().map(({ channel }) => channel), ["other"]);
  last().give({ type: "left", channel: "room" });
  assert.deepEqual(last().take().map(({ type }) => type), ["join", "publish"]);
});

test("a channel is joined once", async () => {
  const { client, room } = await entered();
  assert.throws(() => client.join("room"), code("joined"));
  room.leave();
  client.join("room");
});

test("bytes and text", async () => {
  const { room } = await entered();
  const given = [];
  room.on("event", ({ data, text, bytes }) => given.push([data, text, bytes]));
  const { data, ...bare } = event(1);
  last().give({ ...bare, text: "not json" }, { ...bare, id: event(2).id, bytes: "AP8=" });
  await settled();
  assert.deepEqual(given, [[undefined, "not json", undefined], [undefined, undefined, new Uint8Array([0, 255])]]);
});

test("unknown messages are ignored, and what is no JSON ends it", async () => {
  const { client } = await entered();
  last().give({ type: "new", channel: "room" }, { type: "new" }, { type: "event", channel: "other", id: "1-1-a" }, null, 7);
  assert.equal(client.state, "open");
  last().onmessage({ data: "hello" });
  assert.equal(client.state, "closed");
  assert.equal(states.at(-1).code, 1007);
});

// Refused and ended memberships

test("a join that is refused", async () => {
  const { client } = await entered();
  const secret = client.join("secret");
  const left = [];
  secret.on("left", (error) => left.push(error.code));
  last().give({ type: "error", action: "join", channel: "secret", code: "forbidden", message: "members only" });
  await assert.rejects(secret[Symbol.asyncIterator]().next(), code("forbidden"));
  assert.deepEqual(left, ["forbidden"]);
  await again();
  assert.deepEqual(last().take().map(({ channel }) => channel), ["room"]);
});

test("a join that cannot be done now is tried again, later each time", async () => {
  const client = await begun();
  const room = client.join("room");
  last().open();
  last().take();
  const unavailable = { type: "error", action: "join", channel: "room", code: "unavailable", message: "the broker is away" };
  for (const wait of [500, 1000]) {
    last().give(unavailable);
    await pass(wait - 1);
    assert.deepEqual(last().take(), []);
    await pass(1);
    assert.deepEqual(last().take(), [{ type: "join", channel: "room" }]);
  }
  last().give(joined());
  assert.equal(room.state, "joined");
  last().give(unavailable); // of nothing that is asked
  assert.equal(room.state, "joined");
  await again();
  last().take();
  last().give(unavailable);
  room.leave();
  last().take();
  await pass(10_000);
  assert.deepEqual(last().take(), []);
});

test("the server ends a membership before it has begun", async () => {
  const client = await begun();
  const room = client.join("room");
  last().open();
  last().give({ type: "left", channel: "room", code: 4001, reason: "" });
  await assert.rejects(room[Symbol.asyncIterator]().next(), (error) => code("left")(error) && error.close.code === 4001);
});

test("the server ends a membership", async () => {
  const { room } = await entered();
  last().give(event(1), { type: "left", channel: "room", reason: "you were removed" });
  const loop = room[Symbol.asyncIterator]();
  assert.equal((await loop.next()).value.data, 1);
  await assert.rejects(loop.next(), (error) => code("left")(error) && error.message === "you were removed" && error.channel === "room");
  await again();
  assert.deepEqual(last().take(), []);
});

test("an error that belongs to no call", async () => {
  const { client } = await entered();
  const errors = [];
  client.on("error", (error) => errors.push(error.code));
  last().give({ type: "error", code: "invalid", message: "not understood" });
  assert.deepEqual(errors, ["invalid"]);
});

// Publishing

const texts = (sent) => sent.filter(({ type }) => type === "publish").map(({ data }) => data);

test("what was said offline is sent in order, and again until it is known, under the same keys", async () => {
  const client = await begun();
  const room = client.join("room");
  const one = room.publish("one");
  const two = room.publish("two", { key: "mine" });
  assert.equal(client.queued, 2);
  last().open();
  const sent = last().take();
  assert.deepEqual(sent.map(({ type }) => type), ["join", "publish", "publish"]);
  assert.match(sent[1].key, /^[0-9a-f]{32}$/);
  assert.deepEqual(sent[2], { type: "publish", channel: "room", data: "two", key: "mine" });
  last().give({ type: "published", channel: "room", key: sent[1].key, id: "1-1-a" });
  assert.equal(await one, "1-1-a");
  const three = room.publish("three");
  await again();
  const repeated = last().take();
  assert.deepEqual(texts(repeated), ["two", "three"]);
  assert.equal(repeated[1].key, "mine");
  for (const { key } of repeated.slice(1)) last().give({ type: "published", key, id: "1-2-a" }, { type: "published", key, id: "1-3-a" });
  assert.deepEqual(await Promise.all([two, three]), ["1-2-a", "1-2-a"]);
  assert.equal(client.queued, 0);
  await again();
  assert.deepEqual(texts(last().take()), []);
});

test("what is published is as it was at that time", async () => {
  const { room } = await entered();
  last().lose();
  const data = { text: "before" };
  room.publish(data).catch(() => {});
  data.text = "after";
  await pass(500);
  last().open();
  assert.deepEqual(texts(last().take()), [{ text: "before" }]);
});

test("the queue is bounded", async () => {
  const { client, room } = await entered({ maxQueued: 2 });
  last().lose();
  const first = room.publish(1, { key: "1" });
  room.publish(2).catch(() => {});
  await assert.rejects(room.publish(3), code("full"));
  assert.equal(room.publish(1, { key: "1" }), first); // it waits already
  assert.equal(client.queued, 2);
  await pass(500);
  last().open();
  assert.deepEqual(texts(last().take()), [1, 2]);
  last().give({ type: "published", key: "1", id: "1-1-a" });
  room.publish(4).catch(() => {});
  assert.deepEqual(texts(last().take()), [4]);
});

test("a message is sent again only as long as the server knows its key", async () => {
  const { room } = await entered();
  const sent = room.publish("sent");
  last().lose();
  const unsent = room.publish("unsent");
  await pass(240_001);
  last().open();
  await assert.rejects(sent, code("uncertain"));
  const [, { data, key }] = last().take();
  assert.equal(data, "unsent");
  last().give({ type: "published", key, id: "1-1-a" });
  assert.equal(await unsent, "1-1-a");
});

test("a message that cannot be taken now is sent again, and those after it wait", async () => {
  const { room } = await entered();
  for (const reason of ["unavailable", "too_many"]) {
    for (let number = 0; number < 40; number++) room.publish(number).catch(() => {});
    const sent = last().take();
    const refused = (key) => ({ type: "error", action: "publish", channel: "room", key, code: reason, message: "not now" });
    last().give(...sent.map(({ key }) => refused(key)));
    room.publish(40).catch(() => {});
    assert.deepEqual(last().take(), []);
    await pass(500);
    const repeated = last().take();
    assert.deepEqual(texts(repeated), Array.from({ length: 32 }, (_, number) => number));
    for (const { key } of repeated) last().give({ type: "published", key, id: "1-1-a" });
    const rest = last().take();
    assert.deepEqual(texts(rest), [32, 33, 34, 35, 36, 37, 38, 39, 40]);
    for (const { key } of rest) last().give({ type: "published", key, id: "1-1-a" });
  }
});

test("a message that is refused is rejected, and not sent again", async () => {
  const { room } = await entered();
  const refused = room.publish("bad");
  const [{ key }] = last().take();
  last().give({ type: "error", action: "publish", channel: "room", key, code: "forbidden", message: "only for admins" });
  await assert.rejects(refused, (error) => code("forbidden")(error) && error.key === key);
  await again();
  assert.deepEqual(texts(last().take()), []);
});

test("a rate", async () => {
  const client = await begun({ rate: 2 });
  const room = client.join("room");
  for (let number = 0; number < 7; number++) room.publish(number).catch(() => {});
  const passed = async (milliseconds) => {
    await pass(milliseconds);
    return texts(last().take());
  };
  last().open();
  assert.deepEqual(await passed(0), [0]); // and the join
  assert.deepEqual(await passed(499), []);
  assert.deepEqual(await passed(1), [1]);
  assert.deepEqual(await passed(500), [2]);
  last().lose();
  await pass(500);
  last().open(); // what was not sent is not forgotten, and what was is sent again
  assert.deepEqual(await passed(0), [0]);
  assert.deepEqual(await passed(500), [1]);
});

test("no more messages are on their way than the server takes", async () => {
  const { client, room } = await entered();
  for (let number = 0; number < 50; number++) room.publish(number).catch(() => {});
  const asked = client.request("behind them");
  const sent = last().take();
  assert.equal(sent.length, 32);
  for (const { key } of sent.slice(0, 19)) last().give({ type: "published", key, id: "1-1-a" });
  const more = last().take();
  assert.deepEqual(texts(more), Array.from({ length: 18 }, (_, number) => 32 + number));
  last().give({ type: "answer", id: more.at(-1).id, data: "yes" });
  assert.equal(await asked, "yes");
});

test("a message that is too large is not sent", async () => {
  const { client, room } = await entered({ maxSize: 100 });
  await assert.rejects(room.publish("é".repeat(30)), code("too_large"));
  await assert.rejects(client.request("x".repeat(80)), code("too_large"));
  assert.equal(client.queued, 0);
});

test("what was to be published to a channel that is left", async () => {
  const { client, room } = await entered();
  const sent = room.publish("sent");
  const [{ key }] = last().take();
  last().lose();
  const unsent = room.publish("unsent");
  room.leave();
  await assert.rejects(unsent, code("left"));
  await assert.rejects(room.publish("more"), code("left"));
  await pass(500);
  last().open();
  await assert.rejects(sent, code("uncertain"));
  const later = client.join("room");
  const last_ = later.publish("before it leaves");
  later.leave();
  assert.deepEqual(last().take().map(({ type }) => type), ["join", "publish", "leave"]);
  assert.notEqual(key, undefined);
  client.close();
  await assert.rejects(last_, code("closed"));
});

// Requests

test("answers find their requests", async () => {
  const { client } = await entered();
  const one = client.request({ ask: 1 });
  const two = client.request({ ask: 2 });
  const [first, second] = last().take();
  assert.deepEqual(first.data, { ask: 1 });
  last().give({ type: "answer", id: second.id, data: "two" }, { type: "answer", id: first.id, data: "one" });
  assert.deepEqual(await Promise.all([one, two]), ["one", "two"]);
  const refused = client.request({});
  last().give({ type: "error", action: "request", id: last().take()[0].id, code: "failed", message: "no such question" });
  await assert.rejects(refused, code("failed"));
  last().give({ type: "answer", id: "unknown", data: 1 });
});

test("a request has a time limit, and is not sent when that is over", async () => {
  const client = await begun({ timeout: 60_000 });
  const early = client.request("early", { timeout: 1000 });
  const late = client.request("late");
  const outcome = assert.rejects(early, code("timeout"));
  await pass(1000);
  await outcome;
  last().open();
  assert.deepEqual(last().take().map(({ data }) => data), ["late"]);
  const over = assert.rejects(late, code("timeout"));
  last().give(...[1, 2, 3].map(() => ({ type: "pong" })));
  await pass(59_000);
  await over;
});

test("a request that was sent is not sent again", async () => {
  const { client } = await entered();
  const sent = client.request("sent");
  last().lose();
  await assert.rejects(sent, code("lost"));
  const unsent = client.request("unsent");
  await pass(500);
  last().open();
  const asked = last().take().filter(({ type }) => type === "request");
  assert.deepEqual(asked.map(({ data }) => data), ["unsent"]);
  last().give({ type: "answer", id: asked[0].id, data: "yes" });
  assert.equal(await unsent, "yes");
});

test("requests are bounded", async () => {
  const { client } = await entered({ maxQueued: 1 });
  client.request(1).catch(() => {});
  await assert.rejects(client.request(2), code("full"));
});

// Who is here

const member = (id, key) => ({ id, info: { name: id }, key });

test("members", async () => {
  const client = await begun();
  const room = client.join("room", { presence: true });
  const seen = [];
  room.on("members", (members) => seen.push([...members.keys()].join()));
  last().open();
  last().give(joined("room", { members: [member("a"), member("b")] }));
  const told = (kind, who) => ({ type: "presence", channel: "room", event: kind, member: who });
  last().give(told("join", member("c")), told("leave", member("a")), told("join", member("c")));
  assert.deepEqual(seen, ["a,b", "a,b,c", "b,c", "b,c"]);
  assert.deepEqual(room.members.get("c").info, { name: "c" });
  await again();
  assert.equal(room.members.size, 2); // those of before
  last().give(joined("room", { members: [member("d")] }));
  assert.deepEqual([...room.members.keys()], ["d"]);
});

test("persons", async () => {
  const client = await begun();
  const room = client.join("room", { presence: "keys" });
  last().open();
  last().give(joined("room", { members: [member("a1", "ann"), member("a2", "ann"), member("b1")] }));
  assert.deepEqual([...room.members.keys()], ["ann", "b1"]);
  last().give({ type: "presence", channel: "room", event: "leave", member: member("a2", "ann"), person: true });
  assert.deepEqual([...room.members.keys()], ["b1"]);
});

// Loops and listeners

async function taken(loop, count) {
  const items = [];
  while (items.length < count) items.push((await loop.next()).value);
  return items.map((item) => item.data ?? `${item.type} ${item.count ?? ""}`.trim());
}

test("nothing is missed between joining and the first loop, or between two", async () => {
  const { room } = await entered();
  last().give(event(1), event(2));
  await settled();
  for await (const item of room) {
    assert.equal(item.data, 1);
    break;
  }
  last().give(event(3));
  const loop = room[Symbol.asyncIterator]();
  assert.deepEqual(await taken(loop, 2), [2, 3]);
  const next = loop.next();
  last().give(event(4));
  assert.equal((await next).value.data, 4);
  room.leave();
  assert.equal((await loop.next()).done, true);
});

test("nothing is missed between joining and the first listener, and nothing is heard twice", async () => {
  const { room } = await entered();
  last().give(event(1), { type: "gap", channel: "room", id: event(5).id }, event(6));
  await settled();
  const all = [];
  room.on("event", ({ data }) => all.push(data));
  last().give(event(7));
  room.on("gap", () => all.push("gap"));
  await settled();
  last().give(event(8));
  const later = heard(room);
  await settled();
  last().give(event(9));
  assert.deepEqual(all, [1, "gap", 6, 7, 8, 9]);
  assert.deepEqual(later, [9]);
});

test("a loop and listeners each get everything", async () => {
  const { room } = await entered();
  const numbers = heard(room);
  const loop = room[Symbol.asyncIterator]();
  const first = loop.next();
  last().give(event(1), event(2));
  await settled();
  assert.equal((await first).value.data, 1);
  assert.deepEqual(await taken(loop, 1), [2]);
  assert.deepEqual(numbers, [1, 2]);
});

test("without loops nothing is kept for one", async () => {
  const { room } = await entered();
  heard(room);
  await settled();
  last().give(event(1));
  const loop = room[Symbol.asyncIterator]();
  const next = loop.next();
  last().give(event(2));
  assert.equal((await next).value.data, 2);
});

test("what waits for a loop is bounded, and what went is counted", async () => {
  const { room } = await entered({ maxWaiting: 3 });
  for (let number = 1; number <= 10; number++) last().give(event(number));
  last().give({ type: "dropped", channel: "room", count: 5 });
  const loop = room[Symbol.asyncIterator]();
  assert.deepEqual(await taken(loop, 3), ["dropped 9", 10, "dropped 5"]);
  for (let number = 11; number <= 13; number++) last().give(event(number));
  assert.deepEqual(await taken(loop, 3), [11, 12, 13]);
  assert.equal(room.position, event(13).id);
});

test("two loops share what comes", async () => {
  const { room } = await entered();
  const [one, two] = [room[Symbol.asyncIterator](), room[Symbol.asyncIterator]()];
  const nexts = [one.next(), two.next()];
  last().give(event(1), event(2));
  assert.deepEqual((await Promise.all(nexts)).map(({ value }) => value.data), [1, 2]);
  const ends = [one.next(), two.next()];
  room.leave();
  assert.deepEqual((await Promise.all(ends)).map(({ done }) => done), [true, true]);
});

test("a listener that fails keeps nothing from the others", async () => {
  const { room } = await entered();
  const failures = [];
  process.setUncaughtExceptionCaptureCallback((error) => failures.push(error.message));
  try {
    room.on("event", () => {
      throw new Error("a fault of the app");
    });
    const numbers = heard(room);
    last().give(event(1));
    await settled();
    assert.deepEqual(numbers, [1]);
    assert.deepEqual(failures, ["a fault of the app"]);
  } finally {
    process.setUncaughtExceptionCaptureCallback(null);
  }
});

test("a listener can be taken off, once", async () => {
  const { room } = await entered();
  const numbers = [];
  const listener = ({ data }) => numbers.push(data);
  const off = room.on("event", listener);
  room.on("event", listener);
  await settled();
  off();
  off();
  last().give(event(1));
  assert.deepEqual(numbers, [1]);
});
