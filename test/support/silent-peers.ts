import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Scratch } from './scratch.ts';

/** A server on loopback that does not do what a client waits for. */
export interface SilentPeer {
  readonly port: number;
  /** Resolves when a client waits for it. */
  untilAsked(): Promise<void>;
}

/** Takes connections and says nothing: neither HTTP's answers nor TLS's handshake. */
export async function acceptingPeer(scratch: Scratch): Promise<SilentPeer> {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => undefined);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  scratch.atEnd(() => {
    server.close();
    for (const socket of sockets) socket.destroy();
  });
  return {
    port: (server.address() as AddressInfo).port,
    untilAsked: async () => {
      while (sockets.size === 0) await sleep(10);
    },
  };
}

const LISTENER = `
  const server = require('node:net').createServer();
  server.listen({ port: 0, host: '127.0.0.1', backlog: 1 }, () => console.log(server.address().port));
`;
/** More than a listener of that backlog keeps. */
const FILLING = 8;
/** A connection's state in the kernel's table: its SYN was not answered. */
const SYN_SENT = '02';

/** Answers no SYN, as a firewall that drops packets: a stopped process whose backlog is full. */
export async function unreachablePeer(scratch: Scratch): Promise<SilentPeer> {
  const listener = spawn(process.execPath, ['-e', LISTENER], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  scratch.atEnd(() => listener.kill('SIGKILL'));
  const [line] = (await once(listener.stdout, 'data')) as [Buffer];
  const port = Number(line.toString());
  listener.kill('SIGSTOP');
  const before = new Set<number>();
  for (let i = 0; i < FILLING; i += 1) {
    const socket = connect(port, '127.0.0.1').on('error', () => undefined);
    scratch.atEnd(() => socket.destroy());
  }
  while (pendingConnections(port).length === 0) await sleep(10);
  for (const localPort of pendingConnections(port)) before.add(localPort);
  return {
    port,
    untilAsked: async () => {
      while (pendingConnections(port).every((localPort) => before.has(localPort))) await sleep(10);
    },
  };
}

/** Local ports of connections to `port` that are being opened. */
function pendingConnections(port: number): number[] {
  const rows = readFileSync('/proc/net/tcp', 'utf8').trim().split('\n').slice(1);
  return rows.flatMap((row) => {
    const [, local = '', remote = '', state] = row.trim().split(/\s+/);
    const [localPort, remotePort] = [local, remote].map((end) => parseInt(end.split(':')[1], 16));
    return remotePort === port && state === SYN_SENT ? [localPort] : [];
  });
}
