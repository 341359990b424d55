import { writeFileAtomic } from '../../src/base/atomic-file.ts';
import { systemClock } from '../../src/base/clock.ts';
import { createLogger } from '../../src/base/log.ts';
import { Recording } from '../../src/trace/recording.ts';
import { describeWorkload, emptyPlan } from '../../src/trace/trace.ts';
import { syntheticLayers } from './synthetic.ts';

// Records sectors 0, 16, 32 ... with frequent checkpoints into the file argv[2], until killed.

const path = process.argv[2];
const recording = new Recording({
  image: { manifestDigest: null, virtualSizeBytes: 2 ** 40, layers: syntheticLayers(1) },
  workload: describeWorkload(['/bin/true'], []),
  deviceSizeBytes: 2 ** 40,
  locate: (lba, sectors) => [{ lba, sectors, layer: 0 }],
  plan: () => emptyPlan,
  save: async (bytes) => await writeFileAtomic(path, bytes),
  clock: systemClock,
  log: createLogger(),
  startUs: 0,
  checkpointMs: 5,
});
let next = 0;
setInterval(() => {
  for (let i = 0; i < 50; i += 1, next += 1) recording.access(next * 100, next * 16 * 512, 512);
  recording.tick();
}, 1);
