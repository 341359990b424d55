import assert from 'node:assert/strict';
import { EventLine, type EventQueue } from './event-queue.ts';
import type { HostCost, SimulatedLink } from './types.ts';

/** One request, told what its answer brings. */
export interface Transfer {
  readonly bytes: number;
  onFirstByte(latencyMs: number): void;
  /** So many more bytes arrived. */
  onBytes(bytes: number): void;
  onEnd(): void;
}

/** A connection of a pool, with one request at a time. */
interface Connection {
  /** The idle ones of its pool. */
  readonly idle: Connection[];
  /** Bytes that may be under way unacknowledged: TCP's congestion window. */
  windowBytes: number;
  unackedBytes: number;
  /** Of its answer: what the server has not sent yet, and what has not arrived yet. */
  leftBytes: number;
  toArriveBytes: number;
  isOpen: boolean;
  /** It is in line for the link. */
  isInLine: boolean;
  transfer: Transfer | null;
  /** Nothing of its answer has reached the host. */
  isAwaited: boolean;
  /** When its request left, and what of the time since then is the opening of the connection. */
  sentMs: number;
  handshakeMs: number;
}

export interface NetworkOptions {
  readonly neededBytes: number;
  readonly onIdle: () => void;
  readonly host: HostCost;
  readonly onBusy: (ms: number) => void;
}

/** Segments that a fresh connection may send before the first is acknowledged (RFC 6928). */
const INITIAL_SEGMENTS = 10;
const SEGMENT_BYTES = 1460;
/** A receiver's buffer: no connection has more under way. */
const WINDOW_BYTES_MAX = 6 * 1024 * 1024;
/** Connections take turns: as fine as so many for all that is needed are, within these bytes. */
const TURNS = 8000;
const TURN_BYTES_MIN = 16 * 1024;
const TURN_BYTES_MAX = 64 * 1024;

/**
 * A registry behind one link. Requests cost half a round trip to get there; answers take turns on the
 * link, first come first served, and arrive half a round trip later. Connections are kept, open with a
 * round trip of their own and begin slowly: what is acknowledged doubles what may be under way.
 */
export class Network {
  readonly #events: EventQueue;
  readonly #link: SimulatedLink;
  readonly #turnBytes: number;
  readonly #line: Connection[] = [];
  #lineHead = 0;
  #isSending = false;
  #active = 0;
  readonly #onIdle: () => void;
  /** Requests that reach the server, of open connections and of fresh ones. */
  readonly #asked: EventLine<Connection>;
  readonly #askedFresh: EventLine<Connection>;
  /** Bytes of one turn: the last one left the server, arrived, was taken in, was acknowledged. */
  readonly #sent: EventLine<Connection>;
  readonly #arrived: EventLine<Connection>;
  readonly #taken: EventLine<Connection>;
  readonly #acknowledged: EventLine<Connection>;
  readonly #host: HostCost;
  readonly #onBusy: (ms: number) => void;
  #busyUntilMs = 0;
  receivedBytes = 0;

  /**
   * `neededBytes`: about what will be sent. `onIdle` is told when no request is under way any more,
   * `onBusy` for how long the host is going to be busy with bytes that arrived.
   */
  constructor(
    events: EventQueue,
    link: SimulatedLink,
    { neededBytes, onIdle, host, onBusy }: NetworkOptions,
  ) {
    this.#events = events;
    this.#link = link;
    this.#onIdle = onIdle;
    this.#host = host;
    this.#onBusy = onBusy;
    this.#turnBytes = Math.min(Math.max(neededBytes / TURNS, TURN_BYTES_MIN), TURN_BYTES_MAX);
    const onAsked = (connection: Connection, bytes: number): void => {
      connection.leftBytes = bytes;
      this.#queue(connection);
    };
    this.#asked = new EventLine(events, onAsked);
    this.#askedFresh = new EventLine(events, onAsked);
    this.#sent = new EventLine(events, (connection, bytes) => this.#onSent(connection, bytes));
    this.#arrived = new EventLine(events, (connection, bytes) => this.#take(connection, bytes));
    this.#taken = new EventLine(events, (connection, bytes) => this.#arrive(connection, bytes));
    this.#acknowledged = new EventLine(events, (connection, bytes) => {
      this.#acknowledge(connection, bytes);
    });
  }

  /** Connections of one lane, so many of them open already; there are as many as are needed. */
  pool(openCount: number): ConnectionPool {
    const idle: Connection[] = [];
    while (idle.length < openCount) idle.push(this.#connect(idle, true));
    return {
      request: (transfer) => this.#send(idle.pop() ?? this.#connect(idle, false), transfer),
    };
  }

  #connect(idle: Connection[], isOpen: boolean): Connection {
    return {
      ...{ idle, isOpen, isInLine: false, isAwaited: false, transfer: null },
      windowBytes: INITIAL_SEGMENTS * (this.#link.segmentBytes ?? SEGMENT_BYTES),
      ...{ unackedBytes: 0, leftBytes: 0, toArriveBytes: 0, sentMs: 0, handshakeMs: 0 },
    };
  }

  #send(connection: Connection, transfer: Transfer): void {
    const { roundTripMs } = this.#link;
    const line = connection.isOpen ? this.#asked : this.#askedFresh;
    connection.sentMs = this.#events.nowMs;
    connection.handshakeMs = connection.isOpen ? 0 : roundTripMs;
    connection.isOpen = true;
    connection.isAwaited = true;
    connection.toArriveBytes = transfer.bytes;
    connection.transfer = transfer;
    this.#active += 1;
    line.after(connection.handshakeMs + roundTripMs / 2, connection, transfer.bytes);
  }

  /** Puts a connection in line if it has something to send and may send it. */
  #queue(connection: Connection): void {
    const { isInLine, leftBytes, unackedBytes, windowBytes } = connection;
    if (isInLine || leftBytes === 0 || unackedBytes >= windowBytes) return;
    connection.isInLine = true;
    this.#line.push(connection);
    if (!this.#isSending) this.#sendNext();
  }

  #sendNext(): void {
    if (this.#lineHead === this.#line.length) {
      this.#line.length = 0;
      this.#lineHead = 0;
      this.#isSending = false;
      return;
    }
    this.#isSending = true;
    const connection = this.#line[this.#lineHead];
    this.#lineHead += 1;
    const { leftBytes, unackedBytes, windowBytes } = connection;
    const bytes = Math.min(this.#turnBytes, leftBytes, windowBytes - unackedBytes);
    connection.unackedBytes += bytes;
    connection.leftBytes -= bytes;
    this.#sent.after((bytes / this.#link.bytesPerSecond) * 1000, connection, bytes);
  }

  #onSent(connection: Connection, bytes: number): void {
    connection.isInLine = false;
    this.#queue(connection);
    this.#arrived.after(this.#link.roundTripMs / 2, connection, bytes);
    this.#sendNext();
  }

  #acknowledge(connection: Connection, bytes: number): void {
    connection.unackedBytes -= bytes;
    connection.windowBytes = Math.min(connection.windowBytes + bytes, WINDOW_BYTES_MAX);
    this.#queue(connection);
  }

  /** What arrives waits for the host, which takes it in one by one. */
  #take(connection: Connection, bytes: number): void {
    const { requestMs, mibMs } = this.#host;
    const costMs = (connection.isAwaited ? requestMs : 0) + (mibMs * bytes) / 2 ** 20;
    connection.isAwaited = false;
    if (costMs === 0 && this.#busyUntilMs <= this.#events.nowMs) {
      this.#arrive(connection, bytes);
      return;
    }
    this.#busyUntilMs = Math.max(this.#busyUntilMs, this.#events.nowMs) + costMs;
    this.#onBusy(costMs);
    this.#taken.at(this.#busyUntilMs, connection, bytes);
  }

  #arrive(connection: Connection, bytes: number): void {
    const { transfer, toArriveBytes, leftBytes, unackedBytes, windowBytes } = connection;
    assert(transfer !== null, 'bytes arrive for a request');
    this.receivedBytes += bytes;
    connection.toArriveBytes -= bytes;
    // An acknowledgement that nothing waits for need not travel: the next request would be behind it.
    if (unackedBytes + leftBytes <= windowBytes) this.#acknowledge(connection, bytes);
    else this.#acknowledged.after(this.#link.roundTripMs / 2, connection, bytes);
    if (toArriveBytes === transfer.bytes) {
      transfer.onFirstByte(this.#events.nowMs - connection.sentMs - connection.handshakeMs);
    }
    transfer.onBytes(bytes);
    if (toArriveBytes > bytes) return;
    this.#active -= 1;
    if (this.#active === 0) this.#onIdle();
    connection.idle.push(connection);
    transfer.onEnd();
  }
}

/** The connections of a lane. */
export interface ConnectionPool {
  request(transfer: Transfer): void;
}
