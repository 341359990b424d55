import { traceLimits } from '../base/limits.ts';
import { digestOf, integerOf } from './fields.ts';
import { hotBytes } from './hot-layout.ts';
import { damaged } from './trace-errors.ts';
import type { TraceLayer, TracePacked, TracePlan } from './trace.ts';

/** Checks a trace file's `packed`: digest, size and layers, which have to agree with the plan. */
export function decodePacked(
  value: readonly unknown[],
  { length }: readonly TraceLayer[],
  plan: TracePlan,
): TracePacked {
  const [digest, size, list] = value;
  if (value.length !== 3 || !Array.isArray(list)) {
    throw damaged('packed', 'digest, size and layers', 'something else');
  }
  const layers: number[] = [];
  for (const layer of list as unknown[]) {
    layers.push(integerOf('packed layers', layer, (layers.at(-1) ?? -1) + 1, length - 1));
  }
  const sizeBytes = integerOf('packed size', size, 1, traceLimits.sizeBytesMax);
  const planned = hotBytes(plan, layers);
  if (sizeBytes !== planned) {
    throw damaged('packed size', `the ${planned} bytes of its layers' plan`, String(sizeBytes));
  }
  return { digest: digestOf('packed digest', digest), sizeBytes, layers };
}
