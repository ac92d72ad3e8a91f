/**
 * Channels in browsers and Node: a client for servers that speak the WebSocket subprotocol `lilya.channels.v1`.
 *
 *     import { connect } from "./lilya-websockets.js";
 *
 *     const client = connect("/ws");
 *     const room = client.join("room:1", { history: 50 });
 *     room.on("event", ({ data }) => console.log(data));
 *     await room.publish({ text: "Hello" });
 *
 * - The page gets each event once and in order, also when the connection breaks. Events that are missing are reported
 *   as a `gap`, items that were dropped because the reader was slow as `dropped`.
 * - Everything that waits has a limit: messages to publish, requests, and items for loops.
 * - The types, with a description of each name, are in lilya-websockets.d.ts.
 */

const PROTOCOL = "lilya.channels.v1";

// Timers take no more milliseconds: after a longer wait, they are called at once.
const LONGEST = 2 ** 31 - 1;

/** The default and the range of each option. Durations are in milliseconds, sizes in bytes. */
const NUMBERS = {
  firstWait: [500, 1, LONGEST],
  longestWait: [30_000, 1, LONGEST],
  busyWait: [10_000, 0, LONGEST],
  timeout: [10_000, 1, LONGEST],
  heartbeat: [25_000, 1, LONGEST],
  maxQueued: [100, 1, Infinity],
  maxWaiting: [1000, 1, Infinity],
  maxSize: [65_536, 1, Infinity],
  rate: [0, 0, Infinity],
};

// The server knows the key of a message for 5 minutes. After less than that it is not sent again.
const KEPT = 240_000;

// Messages that wait for an answer, and bytes in them. The server refuses more than 64 and 262,144, and then those after
// it would overtake.
const WINDOW = 32;
const WINDOW_BYTES = 131_072;

// Trying again would end in the same way: the server is done with the client (1000), one of the two does not speak the
// protocol (1002, 1003, 1007, 1010), a message is too big (1009), or the client may not be here (1008, 3000, 3003).
const FINAL = new Set([1000, 1002, 1003, 1007, 1008, 1009, 1010]);
const BUSY = 1013;
const TOO_BIG = 1009;
const LOST = 1006; // what browsers say when a connection was lost, or refused with an HTTP status
const REQUEST_TIMEOUT = 3008;

/** What a channel gives to loops. */
const ITEMS = new Set(["event", "gap", "dropped", "presence"]);
const DONE = { value: undefined, done: true };

const isFinal = (code) => FINAL.has(code) || (code >= 3000 && code !== REQUEST_TIMEOUT);

/** Why something was not done; `code` is for programs, `message` for people. */
export class ChannelsError extends Error {
  constructor(code, message, details) {
    super(message);
    this.name = "ChannelsError";
    this.code = code;
    Object.assign(this, details);
  }
}

/** Connect, and stay connected until `close()` or until the server refuses. */
export function connect(url, options = {}) {
  const settings = { WebSocket: globalThis.WebSocket, ...options };
  for (const name in NUMBERS) {
    const [usual, least, most] = NUMBERS[name];
    settings[name] = number(`The option ${name}`, settings[name] ?? usual, least, most);
  }
  if (!settings.WebSocket) {
    throw new TypeError("There is no WebSocket here. In Node before 22, pass the option WebSocket, such as that of the package ws.");
  }
  const base = new URL(url, globalThis.location?.href);
  base.protocol = base.protocol.replace("http", "ws");
  base.hash = "";

  const { on, emit } = emitter();
  const rooms = new Map(); // by name
  const leaving = new Set(); // names of those that were left, until the server says so
  const unpublished = new Map(); // by key, in the order of the calls
  const requests = new Map(); // by id
  let state = "connecting";
  let socket; // the one that counts; what others say is ignored
  let attempts = 0; // that failed in a row
  let turns = 0; // attempts so far; what an earlier one still does is ignored
  let openedAt = Infinity;
  let lastWait = 0;
  let timer; // the next attempt, or the time limit of this one
  let pulse; // the next ping, or the time limit of its answer
  let retry; // when messages that the server could not take are sent again
  let retries = 0;
  let ids = 0;

  function tell(next, details = {}) {
    state = next;
    emit("state", { state, ...details });
  }

  // The connection

  async function attempt() {
    abandon();
    const turn = ++turns;
    timer = setTimeout(() => lost({ code: LOST, reason: "no connection in time" }), settings.timeout);
    tell("connecting");
    if (state === "closed") return; // by a listener
    const address = new URL(base);
    const protocols = [PROTOCOL];
    try {
      const [token, params] = await Promise.all([settings.token, settings.params].map(valueOf));
      if (token) protocols.push("bearer", token);
      for (const [name, value] of Object.entries(params ?? {})) address.searchParams.set(name, value);
    } catch (error) {
      if (turn === turns) lost({ code: LOST, reason: String(error?.message ?? error), error });
      return;
    }
    if (turn !== turns) return;
    let mine;
    try {
      mine = new settings.WebSocket(address.href, protocols);
    } catch (error) { // a token that no header can carry, or a page that may not connect there
      finish({ code: LOST, reason: error.message, error });
      return;
    }
    socket = mine;
    mine.onopen = () => mine === socket && opened();
    mine.onmessage = ({ data }) => mine === socket && received(data);
    mine.onclose = ({ code, reason }) => mine === socket && lost({ code, reason });
    mine.onerror = () => {}; // `onclose` follows; without this one, `ws` ends the process
  }

  function opened() {
    clearTimeout(timer);
    openedAt = performance.now();
    heard();
    outbox.start();
    for (const room of rooms.values()) room.enter();
    sendUnpublished();
    for (const request of requests.values()) outbox.send(request);
    tell("open");
  }

  /** Let the connection go, if there is one. */
  function abandon() {
    const old = socket;
    socket = undefined;
    turns++;
    for (const each of [timer, pulse, retry]) clearTimeout(each);
    retry = undefined;
    outbox.stop();
    leaving.clear();
    if (old) {
      // `close` would wait for an answer, which may never come. Browsers have nothing else, `ws` does.
      if (old.terminate) old.terminate();
      else old.close();
    }
    for (const room of rooms.values()) room.interrupt();
    for (const request of requests.values()) {
      if (request.sentAt === undefined) continue;
      request.reject(new ChannelsError("lost", "The connection was lost before the answer came. The server may have done what was asked."));
    }
  }

  function lost(failure) {
    const largest = failure.code === TOO_BIG && outbox.find();
    outbox.stop();
    if (largest) tooLarge(largest); // else it would be sent again, and end each connection
    abandon();
    let again;
    try {
      again = settings.retry?.(failure);
      if (typeof again === "object" && again) {
        again = undefined;
        throw new TypeError("The option retry must return true, false or undefined at once: it cannot be an async function.");
      }
    } catch (error) {
      queueMicrotask(() => { // and the table decides
        throw error;
      });
    }
    if (!(again ?? !isFinal(failure.code))) return finish(failure);
    if (state === "closed") return; // by `retry`
    // A connection that is lost at once is one more that failed.
    if (performance.now() - openedAt > lastWait) attempts = 0;
    openedAt = Infinity;
    const wait = (lastWait = pause(attempts++, failure.code));
    timer = setTimeout(attempt, wait);
    tell("waiting", { ...failure, wait, attempts });
  }

  /** Twice as long each time, and at random: else all whom a restart threw out would come back at the same instant. */
  function pause(number, code) {
    const longest = Math.min(settings.longestWait, settings.firstWait * 2 ** number);
    return Math.max(longest, code === BUSY ? settings.busyWait : 0) * (0.5 + Math.random() / 2);
  }

  function reconnect() {
    if (state === "closed") return;
    attempts = 0;
    attempt();
  }

  function finish(failure, quiet = false) {
    if (state === "closed") return;
    abandon();
    for (const forget of watched) forget();
    const error = new ChannelsError("closed", `The connection is closed: ${failure.code} ${failure.reason}`.trim(), { close: failure });
    tell("closed", failure);
    for (const room of [...rooms.values()]) room.end(quiet ? undefined : error);
    for (const waiting of [unpublished, requests]) {
      for (const entry of waiting.values()) entry.reject(error);
    }
  }

  function close(code = 1000, reason = "") {
    socket?.close(code, reason);
    socket = undefined; // nobody waits for the answer to the close
    finish({ code, reason }, true);
  }

  // Whether the server is still there. Browsers answer the pings of WebSocket itself, and do not show them to pages.

  function heard() {
    clearTimeout(pulse);
    pulse = setTimeout(probe, settings.heartbeat);
  }

  function probe() {
    clearTimeout(pulse);
    socket.send('{"type":"ping"}');
    pulse = setTimeout(() => lost({ code: LOST, reason: "no answer to a ping" }), settings.timeout);
  }

  const watched = [
    // The network has changed or is back: a connection that looks open may be dead.
    watch(globalThis, "online", reconnect),
    watch(globalThis, "offline", () => state === "open" && probe()),
    // Browsers delay the timers of hidden pages, and a computer that sleeps runs none.
    watch(globalThis.document, "visibilitychange", () => {
      if (document.visibilityState !== "visible") return;
      if (state === "open") probe();
      else if (state === "waiting") reconnect();
    }),
  ];

  // What is sent

  const outbox = (() => {
    const flying = new Set(); // sent, and not answered
    let waiting = [];
    let allowed = 0;
    let since = 0;
    let bytes = 0; // in those that fly
    let pumping;
    const full = ({ promise, size }) => promise && flying.size && (flying.size >= WINDOW || bytes + size > WINDOW_BYTES);
    function pump() {
      clearTimeout(pumping);
      const now = performance.now();
      allowed = Math.min(settings.rate, allowed + ((now - since) * settings.rate) / 1000);
      since = now;
      while (waiting.length && !full(waiting[0])) {
        if (waiting[0].settled) {
          waiting.shift();
          continue;
        }
        if (settings.rate && allowed-- < 1) {
          allowed++;
          pumping = setTimeout(pump, 1000 / settings.rate);
          break;
        }
        const entry = waiting.shift();
        if (entry.promise) {
          flying.add(entry);
          bytes += entry.size;
        }
        entry.sentAt ??= now;
        socket.send(entry.text);
      }
    }
    return {
      start() {
        allowed = settings.rate;
        since = performance.now();
      },
      stop() {
        clearTimeout(pumping);
        flying.clear();
        bytes = 0;
        waiting = [];
      },
      send(entry) {
        if (flying.has(entry) || waiting.includes(entry)) return;
        waiting.push(entry);
        pump();
      },
      answered(entry) {
        if (!flying.delete(entry)) return;
        bytes -= entry.size;
        pump();
      },
      /** What was sent with so many bytes; without a number, the largest. */
      find(size) {
        const largest = [...flying].sort((one, other) => other.size - one.size);
        return largest.find((entry) => size === undefined || entry.size === size);
      },
      /** It is to be sent again, and what is to be published after it waits. */
      hold(entry) {
        waiting = waiting.filter(({ channel }) => !channel);
        this.answered(entry);
      },
    };
  })();

  const say = (message) => outbox.send({ text: JSON.stringify(message) });

  function publish(channel, data, { key = newKey() } = {}) {
    if (!isText(key, 128)) return Promise.reject(new ChannelsError("invalid", "A key must be a string of 1 to 128 characters."));
    const known = unpublished.get(key);
    if (known) return known.promise;
    return waitFor(unpublished, key, { type: "publish", channel, key, data }, (entry) => {
      entry.channel = channel;
      if (state === "open" && retry === undefined && !leaving.has(channel)) outbox.send(entry);
    });
  }

  function sendUnpublished() {
    retry = undefined;
    for (const entry of unpublished.values()) {
      if (performance.now() - entry.sentAt > KEPT || !rooms.has(entry.channel)) {
        entry.reject(new ChannelsError("uncertain", "The connection was lost before the answer came, and the message cannot be sent again. It may have been published."));
      } else if (!leaving.has(entry.channel)) {
        outbox.send(entry);
      }
    }
  }

  function request(data, { timeout = settings.timeout } = {}) {
    try {
      number("The option timeout", timeout, 1, LONGEST);
    } catch (error) {
      return Promise.reject(error);
    }
    const id = String(++ids);
    return waitFor(requests, id, { type: "request", id, data }, (entry) => {
      entry.limit = setTimeout(() => {
        entry.reject(new ChannelsError("timeout", `No answer came within ${timeout} ms.`));
      }, timeout);
      if (state === "open") outbox.send(entry);
    });
  }

  /** A promise of an answer; the entry is in a map until it is settled. */
  function waitFor(map, key, message, begin) {
    if (state === "closed") return Promise.reject(new ChannelsError("closed", "The client is closed."));
    if (map.size >= settings.maxQueued) {
      return Promise.reject(new ChannelsError("full", `${settings.maxQueued} messages wait already, which is maxQueued.`));
    }
    const entry = {};
    try {
      entry.text = JSON.stringify(message);
    } catch (error) { // a reference cycle, or a `BigInt`
      return Promise.reject(error);
    }
    const size = (entry.size = new TextEncoder().encode(entry.text).length);
    if (size > settings.maxSize) {
      return Promise.reject(new ChannelsError("too_large", `The message has ${size} bytes, and maxSize is ${settings.maxSize}.`));
    }
    entry.promise = new Promise((resolve, reject) => {
      const settle = (how) => (value) => {
        entry.settled = true;
        clearTimeout(entry.limit);
        map.delete(key);
        how(value);
        outbox.answered(entry);
      };
      entry.resolve = settle(resolve);
      entry.reject = settle(reject);
    });
    map.set(key, entry);
    begin(entry);
    return entry.promise;
  }

  // What comes

  function received(text) {
    heard();
    let message;
    try {
      message = JSON.parse(text) ?? {};
    } catch {
      finish({ code: 1007, reason: "the server sent something that is not JSON" });
      return;
    }
    const { type, channel, key, id } = message;
    if (type === "published") {
      retries = 0;
      unpublished.get(key)?.resolve(id);
    } else if (type === "answer") {
      requests.get(id)?.resolve(message.data);
    } else if (type === "error") {
      failed(message);
    } else if (!leaving.has(channel)) {
      rooms.get(channel)?.take(message);
    } else if (type === "left") {
      leaving.delete(channel);
      rooms.get(channel)?.enter();
      for (const entry of unpublished.values()) {
        if (entry.channel === channel && retry === undefined) outbox.send(entry);
      }
    }
  }

  function tooLarge(entry) {
    entry.reject(new ChannelsError("too_large", `The message has ${entry.size} bytes, which is more than the server takes.`));
  }

  function failed(message) {
    const { action, channel, key, id, code } = message;
    const error = new ChannelsError(code, message.message, { channel, key, id });
    const again = code === "unavailable";
    if (action === "publish" && (again || code === "too_many")) {
      retry ??= setTimeout(sendUnpublished, pause(retries++));
      outbox.hold(unpublished.get(key));
    } else if (action === "publish") {
      unpublished.get(key)?.reject(error);
    } else if (action === "request") {
      requests.get(id)?.reject(error);
    } else if (action === "join") {
      if (!leaving.has(channel)) rooms.get(channel)?.refuse(error, again);
    } else {
      const entry = code === "too_large" && outbox.find(message.size); // the server has not read whose it is
      if (entry) tooLarge(entry);
      else emit("error", error);
    }
  }

  // A channel that is joined

  function join(name, { since = null, history, latest, presence } = {}) {
    if (state === "closed") throw new ChannelsError("closed", "The client is closed.");
    if (!isText(name, 1024)) {
      throw new TypeError("The name of a channel must be a string of 1 to 1,024 characters that does not start with a NUL.");
    }
    if (rooms.has(name)) throw new ChannelsError("joined", `The channel "${name}" is joined already: use what join returned, or leave it first.`);
    const { on, emit } = emitter();
    const items = inbox(name, settings.maxWaiting, emit);
    const members = new Map();
    let where = "joining";
    let position = since; // where to go on
    let newest = parsed(since);
    let gap; // the last one, if no event has come after it
    let again;
    let refusals = 0;

    function see({ id, key, info }, here) {
      const who = presence === "keys" ? (key ?? id) : id;
      if (here) members.set(who, { id, key, info });
      else members.delete(who);
    }

    const room = {
      enter() {
        again = undefined;
        if (leaving.has(name)) return; // else its messages and those of before could not be told apart
        say({ type: "join", channel: name, since: position ?? undefined, history: position ? undefined : history, latest, presence });
      },
      interrupt() {
        clearTimeout(again);
        where = "joining";
      },
      refuse(error, temporary) {
        if (where !== "joining") return;
        if (temporary) again = setTimeout(room.enter, pause(refusals++));
        else room.end(error);
      },
      end(error, told) {
        clearTimeout(again);
        where = "left";
        rooms.delete(name);
        if (!told) {
          const why = error ?? new ChannelsError("left", "The channel was left before the message was sent.");
          for (const entry of unpublished.values()) {
            if (entry.channel === name && entry.sentAt === undefined) entry.reject(why);
          }
        }
        items.end(error);
        emit("left", error);
      },
      take(message) {
        const { type, id, code, reason } = message;
        if (type === "joined" && where === "joining") {
          where = "joined";
          refusals = 0;
          position ??= message.position;
          members.clear();
          for (const member of message.members ?? []) see(member, true);
          emit("joined", message);
          if (presence) emit("members", members);
        } else if (type === "left" && (where === "joined" || code)) {
          const close = code && { code, reason };
          room.end(new ChannelsError("left", reason || "The server has ended the membership.", { channel: name, close }));
        } else if (where !== "joined") {
          // `joined` comes first: this is of a time before it.
        } else if (type === "presence") {
          see(message.member, message.event === "join");
          items.add(message);
          emit("members", members);
        } else if (type === "event" || type === "gap") {
          const next = parsed(id);
          const known = newest && next.epoch === newest.epoch && next.number <= newest.number;
          if (type === "gap" ? id === gap : known) return; // the page has it
          gap = type === "gap" ? id : undefined;
          newest = next;
          position = id;
          if (message.bytes !== undefined) message.bytes = Uint8Array.from(atob(message.bytes), (byte) => byte.charCodeAt(0));
          items.add(message);
        } else if (type === "dropped") {
          items.add(message);
        }
      },
    };
    rooms.set(name, room);
    if (state === "open") room.enter();
    return {
      name,
      members,
      get state() {
        return where;
      },
      get position() {
        return position;
      },
      on(type, listener) {
        if (ITEMS.has(type)) items.listen();
        return on(type, listener);
      },
      publish(data, options) {
        if (where !== "left" || state === "closed") return publish(name, data, options);
        return Promise.reject(new ChannelsError("left", "The channel was left."));
      },
      leave() {
        if (where === "left") return;
        const told = state === "open" && !leaving.has(name);
        if (told) {
          leaving.add(name);
          say({ type: "leave", channel: name });
        }
        room.end(undefined, told);
      },
      [Symbol.asyncIterator]: items.iterate,
    };
  }

  attempt();
  return {
    get state() {
      return state;
    },
    get queued() {
      return unpublished.size;
    },
    on,
    join,
    request,
    reconnect,
    close,
  };
}

/** Listeners by type, and what calls them. One that fails keeps nothing from the others. */
function emitter() {
  const listeners = new Map();
  return {
    on(type, listener) {
      const entry = { listener };
      if (!listeners.has(type)) listeners.set(type, new Set());
      listeners.get(type).add(entry);
      return () => void listeners.get(type).delete(entry);
    },
    emit(type, value) {
      for (const { listener } of [...(listeners.get(type) ?? [])]) {
        try {
          listener(value);
        } catch (error) {
          queueMicrotask(() => {
            throw error;
          });
        }
      }
    },
  };
}

/**
 * What has come, until it is taken: by listeners, or by loops. Nothing is given before the first of either is there, so
 * nothing is missed between `join` and that. Without loops, nothing is kept after that.
 */
function inbox(channel, most, emit) {
  let items = [];
  let loops = []; // those that wait for the next item
  let begun = false;
  let kept = true;
  let looped = false;
  let ended = false;
  let error;

  function begin() {
    if (begun) return;
    begun = true;
    for (const item of [...items]) emit(item.type, item);
  }

  function next() {
    begin();
    looped = kept = true;
    if (items.length) return Promise.resolve({ value: items.shift(), done: false });
    if (!ended) return new Promise((resolve, reject) => loops.push({ resolve, reject }));
    const why = error;
    error = undefined; // it is thrown once
    return why ? Promise.reject(why) : Promise.resolve(DONE);
  }

  return {
    add(item) {
      if (loops.length) {
        loops.shift().resolve({ value: item, done: false });
      } else if (kept) {
        items.push(item);
        if (items.length > most) {
          // The oldest are dropped, and their number takes their place.
          const [first, second] = items.splice(0, 2);
          items.unshift({ type: "dropped", channel, count: (first.count ?? 1) + (second.count ?? 1) });
        }
      }
      if (begun) emit(item.type, item);
    },
    listen() {
      queueMicrotask(() => { // when the other listeners are there, too
        begin();
        if (looped) return;
        kept = false;
        items = [];
      });
    },
    end(why) {
      ended = true;
      error = why;
      for (const { resolve, reject } of loops) {
        if (why) reject(why);
        else resolve(DONE);
        error = undefined;
      }
      loops = [];
    },
    iterate: () => ({ next, return: () => Promise.resolve(DONE) }),
  };
}

/** The number in an event's id, and the memory that has counted it. */
function parsed(id) {
  if (id === null || id === undefined) return undefined;
  const [, number, epoch] = id.split("-");
  return { number: Number(number), epoch };
}

/** What the server takes for names and keys. It counts characters, not the halves of which JavaScript makes some. */
const isText = (value, most) => typeof value === "string" && value && value[0] !== "\0" && [...value].length <= most;

function number(name, value, least, most) {
  if (value >= least && value <= most && typeof value === "number") return value;
  const range = most < Infinity ? `from ${least} to ${most}` : `of ${least} or more`;
  throw new (typeof value === "number" ? RangeError : TypeError)(`${name} must be a number ${range}, got ${String(value)}.`);
}

const valueOf = (option) => (typeof option === "function" ? option() : option);

function watch(target, type, listener) {
  target?.addEventListener?.(type, listener);
  return () => target?.removeEventListener?.(type, listener);
}

/** `crypto.randomUUID` is missing on pages that were loaded over HTTP. */
function newKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
