import { homedir } from 'node:os';
import { join } from 'node:path';

/** Where blobs are kept unless told otherwise. */
export function defaultCacheFolder(env: NodeJS.ProcessEnv = process.env): string {
  if (env.XDG_CACHE_HOME?.startsWith('/')) return join(env.XDG_CACHE_HOME, 'replaybd');
  if (process.getuid?.() === 0) return '/var/cache/replaybd';
  return join(env.HOME ?? homedir(), '.cache/replaybd');
}
