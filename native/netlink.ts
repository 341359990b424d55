import { closeSync } from 'node:fs';
import koffi from 'koffi';
import { errnoError, libc } from './libc.ts';

const cSocket = libc.func('int socket(int domain, int type, int protocol)');
const cBind = libc.func('int bind(int fd, const void *address, uint32_t length)');
const cSetsockopt = libc.func(
  'int setsockopt(int fd, int level, int name, const void *value, uint32_t length)',
);
const cSend = libc.func('int64_t send(int fd, const void *bytes, size_t length, int flags)');
const cReceive = libc.func('int64_t recv(int fd, void *bytes, size_t length, int flags)');

const AF_NETLINK = 16;
const SOCK_RAW = 3;
const SOCK_CLOEXEC = 0o2000000;
const SOL_SOCKET = 1;
const SO_RCVBUF = 8;
const SO_RCVBUFFORCE = 33;
const SOL_NETLINK = 270;
const NETLINK_ADD_MEMBERSHIP = 1;
const MSG_DONTWAIT = 0x40;
/** struct sockaddr_nl: family, padding, port id (0: the kernel chooses), groups. */
const ADDRESS_BYTES = 12;
/** Netlink's own messages are a page or two; events are smaller. */
const MESSAGE_BYTES_MAX = 65_536;

/** A netlink socket. Errors are errnos; ERR_ENOBUFS from `receive`: messages were lost. */
export class NetlinkSocket {
  readonly fd: number;
  readonly #buffer = Buffer.alloc(MESSAGE_BYTES_MAX);

  /** `receiveBytes`: what may wait to be read; more than the system's limit needs CAP_NET_ADMIN. */
  constructor(protocol: number, receiveBytes: number) {
    this.fd = cSocket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol);
    if (this.fd < 0) throw errnoError('socket', 'AF_NETLINK');
    try {
      this.#bind();
      if (!this.#setOption(SOL_SOCKET, SO_RCVBUFFORCE, receiveBytes)) {
        this.#setOption(SOL_SOCKET, SO_RCVBUF, receiveBytes);
      }
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /** Receives what is sent to a multicast group from now on. */
  join(group: number): void {
    if (!this.#setOption(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group)) {
      throw errnoError('setsockopt NETLINK_ADD_MEMBERSHIP', String(group));
    }
  }

  /** The kernel has worked on the message when this returns. */
  send(message: Uint8Array): void {
    if (cSend(this.fd, message, message.length, 0) < 0) throw errnoError('send', 'netlink');
  }

  /** What has arrived, a copy, or null when nothing has. */
  receive(): Buffer | null {
    const length = Number(cReceive(this.fd, this.#buffer, MESSAGE_BYTES_MAX, MSG_DONTWAIT));
    if (length >= 0) return Buffer.from(this.#buffer.subarray(0, length));
    if (koffi.errno() === koffi.os.errno.EAGAIN) return null;
    throw errnoError('recv', 'netlink');
  }

  close(): void {
    closeSync(this.fd);
  }

  #bind(): void {
    const address = Buffer.alloc(ADDRESS_BYTES);
    address.writeUInt16LE(AF_NETLINK);
    if (cBind(this.fd, address, ADDRESS_BYTES) !== 0) throw errnoError('bind', 'AF_NETLINK');
  }

  #setOption(level: number, name: number, value: number): boolean {
    const bytes = Buffer.alloc(4);
    bytes.writeInt32LE(value);
    return cSetsockopt(this.fd, level, name, bytes, bytes.length) === 0;
  }
}
