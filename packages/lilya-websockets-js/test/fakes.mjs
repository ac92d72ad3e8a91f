/** A server without a network: what a client sends is kept, and what it gets is up to the test. */

import { mock } from "node:test";

export const PROTOCOL = "lilya.channels.v1";

let now = 0;

/** Timers and the clock stand still until `pass`. `Math.random` gives the longest waits. */
export function stopTheClock() {
  now = 0;
  mock.timers.enable({ apis: ["setTimeout"] });
  mock.method(performance, "now", () => now);
  mock.method(Math, "random", () => 1);
}

export function letTheClockGo() {
  mock.timers.reset();
  mock.restoreAll();
}

export async function pass(milliseconds) {
  await settled();
  now += milliseconds;
  mock.timers.tick(milliseconds);
  await settled();
}

/** Let everything happen that waits for no timer. */
export const settled = () => new Promise((resolve) => setImmediate(resolve));

/** A class of WebSockets, each of which is in `made`. */
export function sockets() {
  const made = [];
  class Socket {
    constructor(url, protocols) {
      Object.assign(this, { url, protocols, sent: [], ended: undefined });
      made.push(this);
    }
    send(text) {
      this.sent.push(JSON.parse(text));
    }
    close(code, reason) {
      this.ended ??= { code, reason };
    }
    // What the other side does:
    open() {
      this.onopen({});
    }
    give(...messages) {
      for (const message of messages) this.onmessage({ data: JSON.stringify(message) });
    }
    lose(code = 1006, reason = "") {
      this.onclose({ code, reason });
    }
    /** What was sent and not asked for yet. */
    take() {
      return this.sent.splice(0);
    }
  }
  return { made, Socket, last: () => made.at(-1) };
}

export const event = (number, data = number, channel = "room", epoch = "aaaaaaaa") => ({
  type: "event",
  channel,
  id: `1700000000000-${number}-${epoch}`,
  data,
});

export const joined = (channel = "room", more = {}) => ({
  type: "joined",
  channel,
  position: "1700000000000-0-aaaaaaaa",
  ...more,
});
