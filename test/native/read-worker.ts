import { parentPort, workerData } from 'node:worker_threads';
import { createReadKernel } from '../../native/kernels.ts';
import type { LayerMap } from '../../src/image/stack-map.ts';

// Reads the whole of every layer it is given, posts the bytes and ends.
const maps = workerData as LayerMap[];
const kernel = createReadKernel(maps);
for (const [layer, map] of maps.entries()) {
  const bytes = Buffer.alloc(map.lsmtSizeBytes);
  kernel.ops.clear();
  kernel.ops.push(layer, 0, bytes.length, 0);
  parentPort?.postMessage({ result: kernel.run(bytes), bytes });
}
