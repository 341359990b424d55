import { once } from 'node:events';
import { lstat, readdir, readFile, rm } from 'node:fs/promises';
import { createConnection, type Server } from 'node:net';
import { join, resolve } from 'node:path';
import { codeOf, messageOf, ReplaybdError } from './errors.ts';
import { SOCKET_PATH_BYTES_MAX, SOCKETS_MAX } from './limits.ts';

/** Owner only: whoever may connect may read the disk or steer the daemon. */
const PRIVATE_UMASK = 0o177;

/**
 * Listens on a unix socket of mode 0600. A socket file that nobody answers on any more is
 * replaced; ERR_SOCKET_IN_USE when a process does, ERR_SOCKET_PATH when something else is there.
 * For the main thread only: a worker cannot change the file mode mask.
 */
export async function listenOnUnixSocket(server: Server, socketPath: string): Promise<void> {
  await prepareSocketPath(socketPath);
  const listening = once(server, 'listening');
  withPrivateMode(() => server.listen(socketPath));
  try {
    await listening;
  } catch (error) {
    throw new ReplaybdError(
      'ERR_SOCKET_PATH',
      `${socketPath}: cannot listen there: ${messageOf(error)}`,
      { cause: error },
    );
  }
}

/** Makes room for a socket there, with the errors of `listenOnUnixSocket`. */
export async function prepareSocketPath(socketPath: string): Promise<void> {
  if (socketPath === '' || Buffer.byteLength(socketPath) > SOCKET_PATH_BYTES_MAX) {
    throw new ReplaybdError(
      'ERR_SOCKET_PATH',
      `${socketPath}: a socket path has 1 to ${SOCKET_PATH_BYTES_MAX} bytes. Choose a shorter one.`,
    );
  }
  await removeStaleSocket(socketPath);
}

/** Files that are made meanwhile are of mode 0600: a socket is bound inside the call, not later. */
export function withPrivateMode<Value>(make: () => Value): Value {
  const umask = process.umask(PRIVATE_UMASK);
  try {
    return make();
  } finally {
    process.umask(umask);
  }
}

/**
 * Removes the sockets of a folder that a killed process left: their name has one of the suffixes, the
 * kernel knows nobody who has them bound, and nobody answers. Returns what it removed. A folder that
 * does not exist, or may not be read, has none.
 */
export async function removeDeadSockets(folder: string, suffixes: string[]): Promise<string[]> {
  const removed: string[] = [];
  const names = await readdir(folder).catch(() => []);
  const sockets = names.filter((name) => suffixes.some((suffix) => name.endsWith(suffix)));
  if (sockets.length === 0) return [];
  // The last column of a bound socket: between bind and listen it refuses connections, and lives.
  const bound = await readFile('/proc/net/unix', 'utf8').catch(() => '');
  for (const name of sockets.slice(0, SOCKETS_MAX)) {
    const path = resolve(join(folder, name));
    const stats = await lstat(path).catch(() => null);
    if (stats?.isSocket() !== true) continue;
    if (bound.includes(` ${path}\n`) || (await isAnswered(path))) continue;
    await rm(path, { force: true });
    removed.push(path);
  }
  return removed;
}

/** Closes and waits until the last connection has ended; the socket file goes with it. */
export async function closeServer(server: Server): Promise<void> {
  await new Promise<void>((resolve) => {
    server.close(() => resolve());
  });
}

async function removeStaleSocket(socketPath: string): Promise<void> {
  const stats = await lstat(socketPath).catch((error: unknown) => {
    if (codeOf(error) === 'ENOENT') return null;
    throw error;
  });
  if (stats === null) return;
  if (!stats.isSocket()) {
    throw new ReplaybdError(
      'ERR_SOCKET_PATH',
      `${socketPath}: expected a socket or nothing, found another file. Choose another path.`,
    );
  }
  if (await isAnswered(socketPath)) {
    throw new ReplaybdError(
      'ERR_SOCKET_IN_USE',
      `${socketPath}: another process listens there. Stop it, or choose another path.`,
      { errno: 'EBUSY' },
    );
  }
  await rm(socketPath, { force: true });
}

async function isAnswered(socketPath: string): Promise<boolean> {
  const probe = createConnection(socketPath);
  try {
    await once(probe, 'connect');
    return true;
  } catch (error) {
    // Anything but a refusal leaves it open whether somebody is there; the file then stays.
    return codeOf(error) !== 'ECONNREFUSED' && codeOf(error) !== 'ENOENT';
  } finally {
    probe.destroy();
  }
}
