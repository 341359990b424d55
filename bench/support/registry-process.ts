import { fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import type { LinkOptions } from '../../src/registry/embedded/link.ts';
import { startEmbeddedRegistry } from '../../src/registry/embedded/server.ts';

/** A request as the registry saw it. */
export interface SeenRequest {
  /** Unix time in milliseconds, with a fraction, when it arrived. */
  arrivedMs: number;
  kind: string;
  /** Bytes of body sent. */
  bytes: number;
}

export interface RegistryProcess {
  readonly url: string;
  setLink(link: LinkOptions): Promise<void>;
  /** From now on, blobs are sent whole to those who ask for several ranges. */
  refuseSeveralRanges(): Promise<void>;
  /** The requests since the last call, oldest first. */
  takeLog(): Promise<SeenRequest[]>;
  close(): Promise<void>;
}

const programPath = fileURLToPath(import.meta.url);

type Question = { ask: 'link'; link: LinkOptions } | { ask: 'log' } | { ask: 'one-range' };

/** The embedded registry in a process of its own, so that its work is not the client's. */
export async function startRegistryProcess(root: string): Promise<RegistryProcess> {
  const child = fork(programPath, [root], {
    stdio: ['ignore', 'inherit', 2, 'ipc'],
  });
  const [url] = (await once(child, 'message')) as [string];
  const ask = async (question: Question): Promise<unknown> => {
    child.send(question);
    const [answer] = (await once(child, 'message')) as [unknown];
    return answer;
  };
  return {
    url,
    setLink: async (link) => void (await ask({ ask: 'link', link })),
    refuseSeveralRanges: async () => void (await ask({ ask: 'one-range' })),
    takeLog: async () => (await ask({ ask: 'log' })) as SeenRequest[],
    close: async () => {
      const exited = once(child, 'exit');
      child.disconnect();
      await exited;
    },
  };
}

async function serve(root: string): Promise<void> {
  const startedMs = performance.timeOrigin + performance.now();
  const registry = await startEmbeddedRegistry({ root });
  process.on('message', (question: Question) => {
    if (question.ask === 'link') {
      registry.setLink(question.link);
      process.send?.('done');
      return;
    }
    if (question.ask === 'one-range') {
      registry.setFaults(({ range }) => {
        return range?.includes(',') === true ? { kind: 'status', status: 416 } : undefined;
      });
      process.send?.('done');
      return;
    }
    const seen: SeenRequest[] = registry.log.map(({ atMs, kind, bytes }) => {
      return { arrivedMs: startedMs + atMs, kind, bytes };
    });
    registry.clearLog();
    process.send?.(seen);
  });
  process.once('disconnect', () => void registry.close());
  process.send?.(registry.url);
}

if (process.argv[1] === programPath) await serve(process.argv[2]);
