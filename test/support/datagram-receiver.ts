import assert from 'node:assert/strict';
import { closeSync } from 'node:fs';
import { libc } from '../../native/libc.ts';

const socket = libc.func('int socket(int family, int type, int protocol)');
const bind = libc.func('int bind(int fd, const void *address, uint32_t length)');
const recv = libc.func('intptr_t recv(int fd, void *bytes, size_t length, int flags)');

const AF_UNIX = 1;
const SOCK_DGRAM_NONBLOCK = 2 | 0x800;
const BYTES_MAX = 4096;

/** A datagram socket as a service manager has one: at a path, or '@' and an abstract name. */
export class DatagramReceiver {
  readonly #fd: number;
  readonly #buffer = Buffer.alloc(BYTES_MAX);
  #isOpen = true;

  constructor(name: string) {
    this.#fd = Number(socket(AF_UNIX, SOCK_DGRAM_NONBLOCK, 0));
    assert.ok(this.#fd >= 0);
    const address = Buffer.from(`\u0001\0${name.replace(/^@/, '\0')}`);
    assert.equal(bind(this.#fd, address, address.length), 0);
  }

  /** What has arrived. */
  take(): string[] {
    const messages: string[] = [];
    for (;;) {
      const length = Number(recv(this.#fd, this.#buffer, BYTES_MAX, 0));
      if (length < 0) return messages;
      messages.push(this.#buffer.toString('utf8', 0, length));
    }
  }

  close(): void {
    if (this.#isOpen) closeSync(this.#fd);
    this.#isOpen = false;
  }
}
