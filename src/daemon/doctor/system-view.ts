import {
  accessSync,
  closeSync,
  constants,
  ftruncateSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readSync,
  rmSync,
  statfsSync,
  statSync,
  writeSync,
} from 'node:fs';
import { endianness, release } from 'node:os';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import koffi from 'koffi';
import { mapFile } from '../../../native/memory-map.ts';
import { loadNativeKernels } from '../../../native/native-kernel.ts';
import { punchHole } from '../../../native/file-space.ts';
import { nextDataRange } from '../../../native/sparse-file.ts';
import { codeOf, messageOf } from '../../base/errors.ts';
import { doctorLimits } from '../../base/limits.ts';

export type AccessState = 'ok' | 'missing' | 'denied';

/** What a folder's file system can do that a cache needs. Null, or what went wrong. */
export interface FileSystemProbe {
  sparse: string | null;
  mapping: string | null;
}

/** The machine as the checks see it, so that a test can show them any other. */
export interface SystemView {
  readonly platform: string;
  readonly endianness: string;
  readonly kernelRelease: string;
  readonly nodeVersion: string;
  readonly effectiveUid: number;
  /** The text of a file, unpacked if its name ends in .gz; null when it cannot be read. */
  readText(path: string): string | null;
  /** Whether a path may be read and written, or only entered or read. */
  access(path: string, how: 'use' | 'read'): AccessState;
  /** Permission bits of a file; null when there is none. */
  mode(path: string): number | null;
  /** Null when the library can be loaded, else why not. */
  loadLibrary(name: string): string | null;
  /** The codecs of the compiled kernels; null when those are not there, or not wanted. */
  nativeCodecs(): ReadonlySet<string> | null;
  findProgram(name: string): string | null;
  /** Bytes that this user may still write; null when nobody knows. */
  freeBytes(folder: string): number | null;
  /** Makes and removes a file below an existing folder. */
  probeFileSystem(folder: string): FileSystemProbe;
  /** Names of the programs that run. */
  processNames(): ReadonlySet<string>;
}

const PROBE_BYTES = 64 * 1024;
const BYTE = 0x5a;

export const systemView: SystemView = {
  platform: process.platform,
  endianness: endianness(),
  kernelRelease: release(),
  nodeVersion: process.versions.node,
  effectiveUid: process.geteuid?.() ?? -1,

  readText(path) {
    try {
      const bytes = readBounded(path);
      const maxOutputLength = doctorLimits.fileBytesMax;
      return (path.endsWith('.gz') ? gunzipSync(bytes, { maxOutputLength }) : bytes).toString();
    } catch {
      return null;
    }
  },

  access(path, how) {
    try {
      accessSync(path, how === 'use' ? constants.R_OK | constants.W_OK : constants.R_OK);
      return 'ok';
    } catch (error) {
      return codeOf(error) === 'ENOENT' || codeOf(error) === 'ENOTDIR' ? 'missing' : 'denied';
    }
  },

  mode(path) {
    const stats = statSync(path, { throwIfNoEntry: false });
    return stats === undefined ? null : stats.mode & 0o777;
  },

  loadLibrary(name) {
    try {
      koffi.load(name, { deep: true });
      return null;
    } catch (error) {
      return messageOf(error);
    }
  },

  nativeCodecs() {
    if (process.env.REPLAYBD_NATIVE === '0') return null;
    return loadNativeKernels()?.codecs ?? null;
  },

  findProgram(name) {
    const folders = `${process.env.PATH ?? ''}:/usr/sbin:/sbin`.split(':');
    for (const folder of folders) {
      const path = join(folder, name);
      if (folder !== '' && isExecutable(path)) return path;
    }
    return null;
  },

  freeBytes(folder) {
    try {
      const { bavail, bsize } = statfsSync(folder);
      return bavail * bsize;
    } catch {
      return null;
    }
  },

  probeFileSystem(folder) {
    let made: string | null = null;
    try {
      made = mkdtempSync(join(folder, '.replaybd-doctor-'));
      return probeFile(join(made, 'probe'));
    } catch (error) {
      const reason = messageOf(error);
      return { sparse: reason, mapping: reason };
    } finally {
      if (made !== null) rmSync(made, { recursive: true, force: true });
    }
  },

  processNames() {
    const names = new Set<string>();
    const ids = entriesOf('/proc').filter((name) => /^\d+$/.test(name));
    for (const id of ids.slice(0, doctorLimits.processesMax)) {
      const name = this.readText(`/proc/${id}/comm`);
      if (name !== null) names.add(name.trim());
    }
    return names;
  },
};

function entriesOf(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

/** At most so much: files of /proc do not say how long they are. */
function readBounded(path: string): Buffer {
  const fd = openSync(path, 'r');
  try {
    const chunks: Buffer[] = [];
    for (let length = 0; length < doctorLimits.fileBytesMax;) {
      const chunk = Buffer.allocUnsafe(PROBE_BYTES);
      const read = readSync(fd, chunk);
      if (read === 0) break;
      chunks.push(chunk.subarray(0, read));
      length += read;
    }
    return Buffer.concat(chunks);
  } finally {
    closeSync(fd);
  }
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/** A hole is punched into written bytes, and both are seen through a mapping, as the cache does it. */
function probeFile(path: string): FileSystemProbe {
  const fd = openSync(path, 'wx+');
  try {
    ftruncateSync(fd, 4 * PROBE_BYTES);
    writeSync(fd, Buffer.alloc(2 * PROBE_BYTES, BYTE), 0, 2 * PROBE_BYTES, 0);
    const sparse = failureOf(() => {
      punchHole(fd, 0, PROBE_BYTES);
      const data = nextDataRange(fd, 0, path);
      if (data?.offset !== PROBE_BYTES) throw new Error('a hole is not reported as one');
    });
    const mapping = failureOf(() => {
      const map = mapFile(fd, 4 * PROBE_BYTES, path);
      const seen = map.bytes[2 * PROBE_BYTES - 1];
      map.unmap();
      if (seen !== BYTE) throw new Error('written bytes are not seen through the mapping');
    });
    return { sparse, mapping };
  } finally {
    closeSync(fd);
  }
}

function failureOf(use: () => void): string | null {
  try {
    use();
    return null;
  } catch (error) {
    return messageOf(error);
  }
}
