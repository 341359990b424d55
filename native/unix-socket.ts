import { closeSync } from 'node:fs';
import koffi from 'koffi';
import { errnoError, libc } from './libc.ts';

// Unix stream sockets that pass descriptors, which Node's own cannot do. All of them are non-blocking and
// close themselves when a program is executed. See unix(7), cmsg(3).

const socket = libc.func('int socket(int family, int type, int protocol)');
const bind = libc.func('int bind(int fd, const void *address, uint32_t length)');
const connectTo = libc.func('int connect(int fd, const void *address, uint32_t length)');
const listen = libc.func('int listen(int fd, int backlog)');
const accept = libc.func('int accept4(int fd, void *address, void *length, int flags)');
const recvmsg = libc.func('intptr_t recvmsg(int fd, void *message, int flags)');
const sendmsg = libc.func('intptr_t sendmsg(int fd, const void *message, int flags)');

const AF_UNIX = 1;
const SOCK_STREAM_NONBLOCK_CLOEXEC = 0x1 | 0x800 | 0x80000;
const SOCK_NONBLOCK_CLOEXEC = 0x800 | 0x80000;
const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;
const MSG_CTRUNC = 0x08;
const MSG_NOSIGNAL = 0x4000;
const MSG_CMSG_CLOEXEC = 0x4000_0000;
const EAGAIN = 11;
const ADDRESS_BYTES = 110;
const MESSAGE_BYTES = 56;
const CONTROL_HEADER_BYTES = 16;
/** Descriptors of one message that can be taken. */
export const PASSED_FDS_MAX = 64;

/** A socket bound to a path that does not exist yet; the mode mask decides who may connect. */
export function listenUnix(path: string, backlog: number): number {
  return opened(path, (fd, address) => {
    if (bind(fd, address, address.length) !== 0) throw errnoError('bind', path);
    if (listen(fd, backlog) !== 0) throw errnoError('listen', path);
  });
}

export function connectUnix(path: string): number {
  return opened(path, (fd, address) => {
    if (connectTo(fd, address, address.length) !== 0) throw errnoError('connect', path);
  });
}

/** The next connection, or null when there is none. */
export function acceptUnix(fd: number): number | null {
  const accepted: number = accept(fd, null, null, SOCK_NONBLOCK_CLOEXEC);
  if (accepted >= 0) return accepted;
  const error = errnoError('accept4', `descriptor ${fd}`);
  // ECONNABORTED: gone before it was accepted.
  if (error.errnoNumber === EAGAIN || error.code === 'ERR_ECONNABORTED') return null;
  throw error;
}

function opened(path: string, use: (fd: number, address: Uint8Array) => void): number {
  const fd: number = socket(AF_UNIX, SOCK_STREAM_NONBLOCK_CLOEXEC, 0);
  if (fd < 0) throw errnoError('socket', path);
  try {
    const address = Buffer.alloc(ADDRESS_BYTES);
    address.writeUInt16LE(AF_UNIX, 0);
    address.write(path, 2);
    use(fd, address);
    return fd;
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

/**
 * The system's `struct msghdr` with one piece of data and room for descriptors. One at a time: a
 * call's results are those of the object.
 */
export class PassingMessage {
  readonly #control = Buffer.alloc(CONTROL_HEADER_BYTES + PASSED_FDS_MAX * 4);
  readonly #piece = new BigUint64Array(2);
  readonly #header = Buffer.alloc(MESSAGE_BYTES);
  /** Of the last `receive`: the caller's to close. */
  fds: number[] = [];
  /** The last `receive` met more descriptors than there is room for; the rest was closed. */
  isCut = false;

  constructor() {
    // msghdr: name, its length, pieces, their count, control data, its length, flags.
    this.#header.writeBigUInt64LE(koffi.address(this.#piece), 16);
    this.#header.writeBigUInt64LE(1n, 24);
  }

  /**
   * Fills the start of `into` and `fds`. Gives the bytes received: 0 at the end of the stream, null
   * when there are none yet.
   */
  receive(fd: number, into: Uint8Array): number | null {
    this.fds = [];
    this.#aim(into, this.#control.length);
    const received = Number(recvmsg(fd, this.#header, MSG_CMSG_CLOEXEC));
    if (received < 0) return this.#nothing(fd, 'recvmsg');
    this.isCut = (this.#header.readUInt32LE(48) & MSG_CTRUNC) !== 0;
    const controlBytes = Number(this.#header.readBigUInt64LE(40));
    if (controlBytes >= CONTROL_HEADER_BYTES) this.#takeFds(controlBytes);
    return received;
  }

  /** Gives the bytes sent, null when there is no room for any. The descriptors go with the first. */
  send(fd: number, bytes: Uint8Array, fds: readonly number[] = []): number | null {
    const controlBytes = fds.length === 0 ? 0 : CONTROL_HEADER_BYTES + fds.length * 4;
    this.#aim(bytes, controlBytes);
    if (fds.length > 0) {
      this.#control.writeBigUInt64LE(BigInt(controlBytes), 0);
      this.#control.writeInt32LE(SOL_SOCKET, 8);
      this.#control.writeInt32LE(SCM_RIGHTS, 12);
      fds.forEach((one, i) => this.#control.writeInt32LE(one, CONTROL_HEADER_BYTES + i * 4));
    }
    const sent = Number(sendmsg(fd, this.#header, MSG_NOSIGNAL));
    return sent < 0 ? this.#nothing(fd, 'sendmsg') : sent;
  }

  #aim(bytes: Uint8Array, controlBytes: number): void {
    this.#piece[0] = koffi.address(bytes);
    this.#piece[1] = BigInt(bytes.length);
    const hasControl = controlBytes > 0;
    this.#header.writeBigUInt64LE(hasControl ? koffi.address(this.#control) : 0n, 32);
    this.#header.writeBigUInt64LE(BigInt(controlBytes), 40);
    this.#header.writeUInt32LE(0, 48);
  }

  #nothing(fd: number, call: string): null {
    const error = errnoError(call, `descriptor ${fd}`);
    if (error.errnoNumber === EAGAIN) return null;
    throw error;
  }

  #takeFds(controlBytes: number): void {
    const end = Math.min(Number(this.#control.readBigUInt64LE(0)), controlBytes);
    const isRights =
      this.#control.readInt32LE(8) === SOL_SOCKET && this.#control.readInt32LE(12) === SCM_RIGHTS;
    if (!isRights) return;
    for (let at = CONTROL_HEADER_BYTES; at + 4 <= end; at += 4) {
      this.fds.push(this.#control.readInt32LE(at));
    }
  }
}
