import type { EventQueue } from './event-queue.ts';
import type { SimulatedLink } from './types.ts';

/** One request, and what its answer brings. */
export interface Transfer {
  readonly bytes: number;
  /** So many more bytes arrived. */
  readonly onBytes: (bytes: number) => void;
  readonly onFirstByte: (latencyMs: number) => void;
  readonly onEnd: () => void;
}

interface Connection {
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
  receivedBytes = 0;

  /** `neededBytes`: about what will be sent. `onIdle` is told when no request is under way any more. */
  constructor(
    events: EventQueue,
    link: SimulatedLink,
    { neededBytes, onIdle }: { neededBytes: number; onIdle: () => void },
  ) {
    this.#events = events;
    this.#link = link;
    this.#onIdle = onIdle;
    this.#turnBytes = Math.min(Math.max(neededBytes / TURNS, TURN_BYTES_MIN), TURN_BYTES_MAX);
  }

  /** Connections of one lane, so many of them open already. */
  pool(openCount: number): ConnectionPool {
    const connect = (isOpen: boolean): Connection => ({
      windowBytes: INITIAL_SEGMENTS * (this.#link.segmentBytes ?? SEGMENT_BYTES),
      unackedBytes: 0,
      leftBytes: 0,
      toArriveBytes: 0,
      isOpen,
      isInLine: false,
      transfer: null,
    });
    return new ConnectionPool(openCount, connect, (connection, transfer) =>
      this.#send(connection, transfer),
    );
  }

  #send(connection: Connection, transfer: Transfer): void {
    const sentMs = this.#events.nowMs;
    const { roundTripMs } = this.#link;
    const handshakeMs = connection.isOpen ? 0 : roundTripMs;
    connection.isOpen = true;
    connection.toArriveBytes = transfer.bytes;
    this.#active += 1;
    let isFirst = true;
    connection.transfer = {
      ...transfer,
      onBytes: (bytes) => {
        if (isFirst) transfer.onFirstByte(this.#events.nowMs - sentMs - handshakeMs);
        isFirst = false;
        transfer.onBytes(bytes);
      },
    };
    this.#events.after(handshakeMs + roundTripMs / 2, () => {
      connection.leftBytes = transfer.bytes;
      this.#queue(connection);
    });
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
    this.#events.after((bytes / this.#link.bytesPerSecond) * 1000, () => {
      connection.isInLine = false;
      this.#queue(connection);
      this.#events.after(this.#link.roundTripMs / 2, () => this.#arrive(connection, bytes));
      this.#sendNext();
    });
  }

  #arrive(connection: Connection, bytes: number): void {
    const { transfer } = connection;
    this.receivedBytes += bytes;
    connection.toArriveBytes -= bytes;
    const isLast = connection.toArriveBytes === 0;
    const acknowledge = (): void => {
      connection.unackedBytes -= bytes;
      connection.windowBytes = Math.min(connection.windowBytes + bytes, WINDOW_BYTES_MAX);
      this.#queue(connection);
    };
    // An acknowledgement that nothing waits for need not travel: the next request would be behind it.
    const { leftBytes, unackedBytes, windowBytes } = connection;
    if (unackedBytes + leftBytes <= windowBytes) acknowledge();
    else this.#events.after(this.#link.roundTripMs / 2, acknowledge);
    transfer?.onBytes(bytes);
    if (!isLast) return;
    this.#active -= 1;
    if (this.#active === 0) this.#onIdle();
    transfer?.onEnd();
  }
}

/** The connections of a lane, each with one request at a time; there are as many as are needed. */
export class ConnectionPool {
  readonly #idle: Connection[];
  readonly #connect: (isOpen: boolean) => Connection;
  readonly #send: (connection: Connection, transfer: Transfer) => void;

  constructor(
    openCount: number,
    connect: (isOpen: boolean) => Connection,
    send: (connection: Connection, transfer: Transfer) => void,
  ) {
    this.#idle = Array.from({ length: openCount }, () => connect(true));
    this.#connect = connect;
    this.#send = send;
  }

  request(transfer: Transfer): void {
    const connection = this.#idle.pop() ?? this.#connect(false);
    this.#send(connection, {
      ...transfer,
      onEnd: () => {
        this.#idle.push(connection);
        transfer.onEnd();
      },
    });
  }
}
