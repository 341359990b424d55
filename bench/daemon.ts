/**
 * What does a device cost a daemon that serves many? Devices without a front end are attached to one
 * process: an image of some layers from a registry on this machine, cached after the first. `attach`
 * is the time of each from the request until the device could be read; `KiB each` is what the resident
 * memory grew by, and `idle CPU` what the process used while nobody read.
 *
 *   node bench/daemon.ts [--devices 1000] [--mib 256] [--mode off] [--json]
 */
import { mkdtempSync, readFileSync } from 'node:fs';
import { open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { Devices } from '../src/daemon/devices.ts';
import { Runtime } from '../src/daemon/runtime.ts';
import { FileSink } from '../src/image/byte-sink.ts';
import { writeCommittedLayer, type LsmtExtent } from '../src/image/lsmt/writer.ts';
import { TarWrapperSink } from '../src/image/tar-wrapper.ts';
import { ZFileWriter } from '../src/image/zfile/writer.ts';
import { DirectoryStore } from '../src/registry/embedded/store.ts';
import { REPOSITORY, writeConfig, type BenchImage } from './support/image.ts';
import { startRegistryProcess } from './support/registry-process.ts';
import { formatTable, machineFacts } from './support/report.ts';

const { values } = parseArgs({
  options: {
    devices: { type: 'string', default: '1000' },
    mib: { type: 'string', default: '256' },
    mode: { type: 'string', default: 'off' },
    json: { type: 'boolean', default: false },
  },
});
const LAYERS = 4;
const EXTENT_BYTES = 16 * 1024;
const SECTOR = 512;
/** Longer than the sockets live that opening has used. */
const SETTLE_MS = 12_000;
const IDLE_MS = 10_000;

/** Every other extent of a layer's part of the disk. */
function* extentsOf(layer: number, diskBytes: number): Generator<LsmtExtent> {
  const data = Buffer.alloc(EXTENT_BYTES, `layer ${layer} of the image, `);
  for (let at = layer * EXTENT_BYTES; at < diskBytes; at += LAYERS * EXTENT_BYTES) {
    data.writeDoubleLE(at, 0);
    yield { lba: at / SECTOR, sectors: EXTENT_BYTES / SECTOR, data };
  }
}

async function buildImage(work: string): Promise<BenchImage> {
  const registryRoot = join(work, 'registry');
  const store = new DirectoryStore(registryRoot);
  const diskBytes = Number(values.mib) * 2 ** 20;
  const layers: BenchImage['layers'] = [];
  for (let layer = 0; layer < LAYERS; layer += 1) {
    const path = join(work, `layer-${layer}`);
    const file = await open(path, 'wx');
    const tar = new TarWrapperSink(new FileSink(file));
    const zfile = new ZFileWriter(tar);
    const extents = extentsOf(layer, diskBytes);
    await writeCommittedLayer(zfile, { virtualSizeBytes: diskBytes }, extents);
    await zfile.finish();
    const sizeBytes = await tar.finish();
    await file.close();
    layers.push({ digest: await store.importBlob(REPOSITORY, path), path, sizeBytes });
  }
  return { registryRoot, layers };
}

function residentKib(): number {
  const status = readFileSync('/proc/self/status', 'utf8');
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1]);
}

async function measure(work: string): Promise<Record<string, number>> {
  const image = await buildImage(work);
  const registry = await startRegistryProcess(image.registryRoot);
  const runtime = await Runtime.open({
    cacheFolder: join(work, 'cache'),
    traceFolder: join(work, 'traces'),
    quotaBytes: 2 ** 32,
  });
  const devices = new Devices({ runtime, directory: work });
  const mode = values.mode === 'record' ? 'record' : 'off';
  try {
    const config = join(work, 'config.v1.json');
    await writeConfig(image, registry.url, config);
    const attach = async (id: string): Promise<number> => {
      const startMs = performance.now();
      await devices.attach({
        ...{ id, image: config, mode, workload: [id] },
        ...{ frontend: 'none', frontendParameters: {} },
      });
      return performance.now() - startMs;
    };
    const firstMs = await attach('first');
    const beforeKib = residentKib();
    const times: number[] = [];
    for (let i = 1; i < Number(values.devices); i += 1) times.push(await attach(`d${i}`));
    times.sort((a, b) => a - b);
    await sleep(SETTLE_MS);
    const cpu = process.cpuUsage();
    await sleep(IDLE_MS);
    const { user, system } = process.cpuUsage(cpu);
    const kib = residentKib();
    return {
      devices: devices.list().length,
      firstMs,
      attachMsMedian: times[Math.floor(times.length / 2)] ?? 0,
      attachMsP99: times[Math.floor(times.length * 0.99)] ?? 0,
      residentMb: (kib * 1024) / 1e6,
      kibEach: (kib - beforeKib) / Math.max(1, times.length),
      idleCpuPercent: ((user + system) / 1000 / IDLE_MS) * 100,
    };
  } finally {
    await devices.close();
    await runtime.close();
    await registry.close();
  }
}

const work = mkdtempSync(join(tmpdir(), 'replaybd-daemon-'));
try {
  const row = await measure(work);
  if (values.json) {
    process.stdout.write(
      `${JSON.stringify({ bench: 'daemon', machine: machineFacts(), ...row })}\n`,
    );
  } else process.stdout.write(formatTable([row]));
} finally {
  await rm(work, { recursive: true, force: true });
}
