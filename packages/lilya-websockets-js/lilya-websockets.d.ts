/** A client for servers that speak the WebSocket subprotocol `lilya.channels.v1`, in browsers and in Node. */

/** What a WebSocket class must offer: the browser's own does, and so does the one of the package `ws`. */
export interface WebSocketClass {
  new (url: string, protocols: string[]): {
    onopen: ((event: any) => void) | null;
    onmessage: ((event: any) => void) | null;
    onclose: ((event: any) => void) | null;
    onerror: ((event: any) => void) | null;
    send(text: string): void;
    close(code?: number, reason?: string): void;
  };
}

/** Why a connection ended. */
export interface Failure {
  /** The close code. 1006 if there was none: the connection was lost, or refused with an HTTP status. */
  code: number;
  reason: string;
  /** What the option `token` or `params` has thrown. */
  error?: unknown;
}

/** Durations are in milliseconds, from 1 to 2,147,483,647; `busyWait` can be 0. */
export interface Options {
  /** Sent as a subprotocol after `"bearer"`. A function is called before each attempt. */
  token?: string | (() => string | undefined | Promise<string | undefined>);
  /** Query parameters, in addition to those of the URL. A function is called before each attempt. */
  params?: Record<string, string> | (() => Record<string, string> | Promise<Record<string, string>>);
  /** The class to connect with. Default: the global one, which Node has from version 22 on. */
  WebSocket?: WebSocketClass;
  /** Whether to connect again after a failure. Return `undefined` for what the close code says. It cannot be async. */
  retry?: (failure: Failure) => boolean | undefined;
  /** The wait before the first attempt to reconnect. It doubles each time; each is shortened at random by up to a half. Default: 500. */
  firstWait?: number;
  /** The longest wait. Default: 30,000. */
  longestWait?: number;
  /** The shortest wait after close code 1013, "try again later". Default: 10,000. */
  busyWait?: number;
  /** The time limit for connecting, for the answer to a ping, and for the answer to a request. Default: 10,000. */
  timeout?: number;
  /** Without any message for so long, a ping is sent. Default: 25,000. */
  heartbeat?: number;
  /** How many messages may wait to be published, and how many requests for an answer. Default: 100. */
  maxQueued?: number;
  /** How many items of a channel may wait for a loop. Then the oldest are dropped, which is told. Default: 1000. */
  maxWaiting?: number;
  /** Bytes in a message to the server. What is more than the server takes is rejected, too. Default: 65,536. */
  maxSize?: number;
  /** Messages to send per second on average, and as many at once. Default: 0, no limit. */
  rate?: number;
}

export type State =
  | { state: "connecting" | "open" }
  /** It connects again in `wait` milliseconds, after so many `attempts` that failed in a row. */
  | ({ state: "waiting"; wait: number; attempts: number } & Failure)
  | ({ state: "closed" } & Failure);

/** Why something was not done. */
export class ChannelsError extends Error {
  /**
   * From the client: `"closed"`, `"full"` (a queue), `"joined"` (already), `"left"` (the channel), `"lost"` (the
   * connection, before the answer to a request), `"timeout"` (of a request), `"too_large"`, or `"uncertain"` (whether it
   * was published). From the server: the code of its error, such as `"forbidden"`.
   */
  readonly code: string;
  readonly channel?: string;
  readonly key?: string;
  readonly id?: string;
  /** With `"closed"`: how the connection ended. With `"left"`: what the server says, if anything. */
  readonly close?: Failure;
  constructor(code: string, message: string, details?: object);
}

export interface Member<Info = unknown> {
  id: string;
  info: Info;
  key?: string | null;
}

export interface ChannelEvent<Data = any> {
  type: "event";
  channel: string;
  /** Ids of a channel grow. `since` takes one. */
  id: string;
  data: Data;
  /** Of an event that is not JSON, in place of `data`. */
  text?: string;
  bytes?: Uint8Array;
  /** The key of `publish`, also for others. Without one, it was published by the server. */
  key?: string;
}

/** Events before `id` are missing, and cannot be had any more. */
export interface Gap {
  type: "gap";
  channel: string;
  id: string;
}

/** So many items were too much: for this client's outbox on the server, or for `maxWaiting`. */
export interface Dropped {
  type: "dropped";
  channel: string;
  count: number;
}

export interface Presence<Info = unknown> {
  type: "presence";
  channel: string;
  event: "join" | "leave";
  member: Member<Info>;
  /** How many sockets of the member's key are in the channel after that. */
  sockets: number;
}

export type Item<Data = any, Info = unknown> = ChannelEvent<Data> | Gap | Dropped | Presence<Info>;

export interface JoinOptions {
  /** The id of an event to begin after. */
  since?: string | null;
  /** How many of the newest events to begin with. */
  history?: number;
  /** Begin with the newest event only, also after a reconnect. */
  latest?: boolean;
  /** Joins and leaves, of sockets or of persons. */
  presence?: true | "keys";
}

export interface PublishOptions {
  /** What tells one message from another, of 1 to 128 characters. Default: random. The same key is published once in 5 minutes. */
  key?: string;
}

export interface Joined<Info = unknown> {
  channel: string;
  position: string | null;
  /** The id of this client, if it is a member. */
  member?: string;
  /** With `presence`: those who are there, the first 1000, and how many there are. */
  members?: Member<Info>[];
  count?: number;
}

/** A channel that is joined, and stays joined when the connection breaks. */
export interface Channel<Data = any, Info = unknown> extends AsyncIterable<Item<Data, Info>> {
  readonly name: string;
  readonly state: "joining" | "joined" | "left";
  /** The id to pass as `since` to go on from here, once there is one. */
  readonly position: string | null | undefined;
  /** By id; with `presence: "keys"`, by key. While the connection is lost, those of before. */
  readonly members: ReadonlyMap<string, Member<Info>>;
  /** Listen, until what is returned is called. */
  on(type: "event", listener: (event: ChannelEvent<Data>) => void): () => void;
  on(type: "gap", listener: (gap: Gap) => void): () => void;
  on(type: "dropped", listener: (dropped: Dropped) => void): () => void;
  on(type: "presence", listener: (presence: Presence<Info>) => void): () => void;
  on(type: "members", listener: (members: ReadonlyMap<string, Member<Info>>) => void): () => void;
  /** After each connect. */
  on(type: "joined", listener: (joined: Joined<Info>) => void): () => void;
  /** The end; without an error, the app itself has left. */
  on(type: "left", listener: (error: ChannelsError | undefined) => void): () => void;
  /** Publish, now or when there is a connection. Returns the event's id. */
  publish(data: Data, options?: PublishOptions): Promise<string>;
  leave(): void;
}

export interface Client {
  readonly state: State["state"];
  /** How many messages wait to be published. */
  readonly queued: number;
  on(type: "state", listener: (state: State) => void): () => void;
  /** An error of the server that belongs to no call. */
  on(type: "error", listener: (error: ChannelsError) => void): () => void;
  /** Join a channel, whose name has 1 to 1,024 characters. */
  join<Data = any, Info = unknown>(channel: string, options?: JoinOptions): Channel<Data, Info>;
  /** Ask the server's own function. A request that was sent is not sent again. */
  request<Answer = any>(data: unknown, options?: { timeout?: number }): Promise<Answer>;
  /** Connect anew at once, in place of waiting or of a connection that may be dead. */
  reconnect(): void;
  /** End it. What waits is rejected, and loops end. */
  close(code?: number, reason?: string): void;
}

/**
 * Connect, and stay connected until `close()` or until the server refuses.
 *
 * @param url - `ws:`, `wss:`, `http:` or `https:`. In a browser it may be relative to the page.
 */
export function connect(url: string | URL, options?: Options): Client;
