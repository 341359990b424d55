import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { once } from 'node:events';
import { packageRoot } from '../../src/base/package-root.ts';

/**
 * A link between two network namespaces of its own:
 *
 *   server namespace [10.98.0.1] -- tbf (bandwidth) -- delay line -- [10.98.0.2] client namespace
 *
 * Real TCP over real interfaces, so handshakes, slow start and acknowledgements cost what they cost.
 * Needs root, a C compiler and iproute2.
 */
export interface ShapedLink {
  readonly serverNamespace: string;
  readonly clientNamespace: string;
  readonly serverAddress: string;
  /** The process that delays what is sent. */
  readonly wirePid: number;
  close(): Promise<void>;
}

export interface LinkShape {
  megabitsPerSecond: number;
  /** There and back again. */
  roundTripMs: number;
}

const SERVER_ADDRESS = '10.98.0.1';
const CLIENT_ADDRESS = '10.98.0.2';

export async function openShapedLink(shape: LinkShape): Promise<ShapedLink> {
  const tag = `rbd${process.pid}`;
  const [serverNamespace, clientNamespace] = [`${tag}s`, `${tag}c`];
  const [serverDevice, clientDevice] = [`${tag}d0`, `${tag}d1`];
  const folder = mkdtempSync(join(tmpdir(), 'replaybd-link-'));
  let wire: ChildProcess | null = null;
  const close = async (): Promise<void> => {
    if (wire !== null && wire.exitCode === null) {
      wire.kill('SIGKILL');
      await once(wire, 'exit');
    }
    for (const namespace of [serverNamespace, clientNamespace]) {
      if (existsSync(`/run/netns/${namespace}`)) run('ip', 'netns', 'del', namespace);
    }
    rmSync(folder, { recursive: true, force: true });
  };
  try {
    const program = join(folder, 'tundelay');
    const source = join(packageRoot, 'bench/link/tundelay.c');
    run('cc', '-O2', '-o', program, source, '-lpthread');
    for (const namespace of [serverNamespace, clientNamespace]) {
      run('ip', 'netns', 'add', namespace);
      run('ip', '-n', namespace, 'link', 'set', 'lo', 'up');
    }
    const oneWayUs = (shape.roundTripMs * 1000) / 2;
    wire = spawn(program, [serverDevice, clientDevice, String(oneWayUs)], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    await Promise.race([
      once(wire.stdout ?? wire, 'data'),
      once(wire, 'exit').then(() => Promise.reject(new Error('the delay line did not start'))),
    ]);
    bringUp(serverNamespace, serverDevice, SERVER_ADDRESS);
    bringUp(clientNamespace, clientDevice, CLIENT_ADDRESS);
    shapeBandwidth(serverNamespace, serverDevice, shape.megabitsPerSecond);
  } catch (error) {
    await close();
    throw error;
  }
  const wirePid = wire.pid ?? 0;
  return { serverNamespace, clientNamespace, serverAddress: SERVER_ADDRESS, wirePid, close };
}

function bringUp(namespace: string, device: string, address: string): void {
  run('ip', 'link', 'set', device, 'netns', namespace);
  run('ip', '-n', namespace, 'addr', 'add', `${address}/30`, 'dev', device);
  // Jumbo frames keep the delay line's own CPU use small beside what is measured.
  run('ip', '-n', namespace, 'link', 'set', device, 'mtu', '9000', 'txqueuelen', '5000', 'up');
}

/** A token bucket of about 2 ms of line rate, with a queue of 100 ms behind it. */
function shapeBandwidth(namespace: string, device: string, megabitsPerSecond: number): void {
  const burstBytes = Math.max(32_768, Math.round((megabitsPerSecond * 1e6 * 0.002) / 8));
  const rate = `${megabitsPerSecond}mbit`;
  const shape = ['tbf', 'rate', rate, 'burst', `${burstBytes}b`, 'latency', '100ms'];
  run('tc', '-n', namespace, 'qdisc', 'add', 'dev', device, 'root', ...shape);
}

function run(command: string, ...args: string[]): void {
  const result = spawnSync(command, args, { encoding: 'utf8' });
  if (result.status !== 0) {
    const reason = result.error?.message ?? result.stderr.trim();
    throw new Error(`${command} ${args.join(' ')}: ${reason}`);
  }
}
