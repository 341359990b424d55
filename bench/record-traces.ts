import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { packageRoot } from '../src/base/package-root.ts';
import { Runtime } from '../src/daemon/runtime.ts';
import { runOnce, type DemoRun } from '../src/demo/run.ts';
import { buildImage } from '../src/image/build/image.ts';
import { pushImage } from '../src/image/build/push-image.ts';
import { startEmbeddedRegistry } from '../src/registry/embedded/server.ts';
import { decodeTrace } from '../src/trace/decode.ts';
import { formatSummary, summariseTrace } from '../src/trace/describe.ts';
import type { Trace } from '../src/trace/trace.ts';
import { drawPicture } from '../tui/pictures/picture.ts';
import { workloadNamed, workloads, type Workload } from './workloads/definitions.ts';
import { makeWorkloadRootfs } from './workloads/rootfs.ts';

// The question: what does the first start of real software read?
// Each workload of bench/workloads is made an image of two layers (a minimal Debian, and the packages on
// top), started from an embedded registry with an empty cache, and recorded. Writes `traces/NAME.trace`,
// its picture and its page. Needs root, debootstrap, and the mirror that this machine's apt uses.
// `npm run bench record-traces -- --workload nginx`; without a name, all of them.

const { values } = parseArgs({
  options: {
    workload: { type: 'string', multiple: true },
    /** Where root file systems are kept. */
    workloads: { type: 'string', default: join(packageRoot, 'dist/workloads') },
    output: { type: 'string', default: join(packageRoot, 'traces') },
  },
});
const chosen = values.workload?.map(workloadNamed) ?? workloads;
for (const workload of chosen) await record(workload);

async function record(workload: Workload): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'replaybd-record-'));
  try {
    const { rootfs, command } = makeWorkloadRootfs(workload, values.workloads);
    const image = await buildImage({ rootfs, workFolder: folder });
    const registry = await startEmbeddedRegistry({ root: join(folder, 'registry') });
    const runtime = await Runtime.open({
      cacheFolder: join(folder, 'cache'),
      quotaBytes: 2 ** 33,
      registry: { plainHttpHosts: [new URL(registry.url).host] },
    });
    const reference = `${registry.url}/workloads/${workload.name}:v1`;
    const tracePath = join(values.output, `${workload.name}.trace`);
    try {
      await pushImage(runtime.client, reference, image);
      // A process reads what it runs through the page cache, which has to be cold as the cache is.
      writeFileSync('/proc/sys/vm/drop_caches', '3');
      const run = await runOnce({
        runtime,
        image: reference,
        mode: 'record',
        tracePath,
        guest: { kind: 'mount', command },
        workFolder: folder,
        signal: new AbortController().signal,
      });
      const bytes = readFileSync(tracePath);
      const trace = decodeTrace(bytes, tracePath);
      await writePages(workload, run, trace, bytes.length);
    } finally {
      await runtime.close();
      await registry.close();
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

async function writePages(
  workload: Workload,
  run: DemoRun,
  trace: Trace,
  fileBytes: number,
): Promise<void> {
  const { name, title } = workload;
  const base = join(values.output, name);
  const options = { order: 'layers', simulate: () => null } as const;
  const { content } = await drawPicture(`${base}.trace`, 'svg', options);
  writeFileSync(`${base}.svg`, content);
  writeFileSync(`${base}.md`, page(workload, run, formatSummary(summariseTrace(trace, fileBytes))));
  process.stdout.write(`${name}: ${trace.records.count} records, ${fileBytes} bytes. ${title}\n`);
}

function page(
  { name, title, packages, setup, start }: Workload,
  run: DemoRun,
  facts: string,
): string {
  const fence = (language: string, text: string): string =>
    `\`\`\`${language}\n${text.trim()}\n\`\`\`\n`;
  return [
    `# ${name}.trace\n`,
    `${title}\n`,
    `![First accesses by time](${name}.svg)\n`,
    `Debian packages on top of a minimal system: ${packages.map((word) => `\`${word}\``).join(', ')}.\n`,
    ...(setup.trim() === ':' ? [] : ['The image is completed by:\n', fence('sh', setup)]),
    'A start, in namespaces of its own, with an overlay in memory above the image:\n',
    fence('sh', start),
    `It answered \`${run.output.split('\n')[0]}\`.\n`,
    fence('text', `$ replaybd trace show traces/${name}.trace\n${facts}`),
    '## Recording it again\n',
    fence('sh', `sudo npm run bench record-traces -- --workload ${name}`),
  ].join('\n');
}
