import { closeSync } from 'node:fs';
import { errnoError, libc } from './libc.ts';

const socket = libc.func('int socket(int family, int type, int protocol)');
const sendto = libc.func(
  'intptr_t sendto(int fd, const void *bytes, size_t length, int flags, ' +
    'const void *address, uint32_t addressLength)',
);

const AF_UNIX = 1;
const SOCK_DGRAM_CLOEXEC = 0x2 | 0x80000;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
const EAGAIN = 11;
/** `struct sockaddr_un`: the family, then the path with or without its terminator. */
const PATH_AT = 2;
const PATH_BYTES_MAX = 108;

/** Sends datagrams to one unix socket: what Node has no class for. See unix(7). */
export class DatagramSender {
  readonly #name: string;
  readonly #address: Buffer;
  readonly #fd: number;

  /** An absolute path, or a name in the abstract name space with a leading '@'. */
  constructor(name: string) {
    const isAbstract = name.startsWith('@');
    const path = Buffer.from(isAbstract ? `\0${name.slice(1)}` : name);
    if (path.length > PATH_BYTES_MAX) throw new RangeError(`${name}: too long for a socket`);
    this.#name = name;
    this.#address = Buffer.alloc(PATH_AT + path.length);
    this.#address.writeUInt16LE(AF_UNIX, 0);
    path.copy(this.#address, PATH_AT);
    this.#fd = Number(socket(AF_UNIX, SOCK_DGRAM_CLOEXEC, 0));
    if (this.#fd < 0) throw errnoError('socket', name);
  }

  /** False when the receiver's queue is full. Errors: the errno, naming the socket. */
  send(text: string): boolean {
    const bytes = Buffer.from(text);
    const flags = MSG_NOSIGNAL | MSG_DONTWAIT;
    const { length } = this.#address;
    const sent = Number(sendto(this.#fd, bytes, bytes.length, flags, this.#address, length));
    if (sent === bytes.length) return true;
    const error = errnoError('sendto', this.#name);
    if (error.errnoNumber === EAGAIN) return false;
    throw error;
  }

  close(): void {
    closeSync(this.#fd);
  }
}
