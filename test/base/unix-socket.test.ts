import assert from 'node:assert/strict';
import { closeSync } from 'node:fs';
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { libc } from '../../native/libc.ts';
import { closeServer, listenOnUnixSocket, removeDeadSockets } from '../../src/base/unix-socket.ts';

// Goal: sockets of processes that are gone are removed, and nothing else is.
// Method: sockets that are bound and closed again, as the kernel does for a process that is killed; one
// that listens; one that is bound and does not listen yet; a plain file of such a name.

const cSocket = libc.func('int socket(int domain, int type, int protocol)');
const cBind = libc.func('int bind(int fd, void *address, uint length)');
const AF_UNIX = 1;
const SOCK_STREAM = 1;
const ADDRESS_BYTES = 110;

/** Binds a socket to a path; its descriptor. */
function bind(path: string): number {
  const fd = cSocket(AF_UNIX, SOCK_STREAM, 0);
  const address = Buffer.alloc(ADDRESS_BYTES);
  address.writeUInt16LE(AF_UNIX, 0);
  address.write(path, 2);
  assert.equal(cBind(fd, address, ADDRESS_BYTES), 0);
  return fd;
}

test('only sockets of the dead are removed', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'replaybd-sockets-'));
  t.after(() => rm(folder, { recursive: true }));
  const path = (name: string): string => join(folder, name);
  const server = createServer();
  await listenOnUnixSocket(server, path('live.sock'));
  t.after(() => closeServer(server));
  for (const name of ['dead.sock', 'dead.nbd', 'dead.other']) closeSync(bind(path(name)));
  const starting = bind(path('starting.sock'));
  t.after(() => closeSync(starting));
  await writeFile(path('file.sock'), 'not a socket');
  const removed = await removeDeadSockets(folder, ['.sock', '.nbd']);
  assert.deepEqual(removed.sort(), [path('dead.nbd'), path('dead.sock')]);
  const left = ['dead.other', 'file.sock', 'live.sock', 'starting.sock'];
  assert.deepEqual((await readdir(folder)).sort(), left);
  assert.deepEqual(await removeDeadSockets(path('nowhere'), ['.sock']), []);
});
