import type { Accesses } from './accesses.ts';
import type { DiskAxis } from './disk-axis.ts';
import type { Marks, Window } from './grid.ts';

/** Accesses as marks on an axis of the disk. */
export function marksOf(accesses: Accesses, axis: DiskAxis): Marks {
  const { count, timeUs, lba, sectors, layer, codes } = accesses;
  const position = new Float64Array(count);
  for (let i = 0; i < count; i += 1) position[i] = axis.positionOf(lba[i], layer[i]);
  return { count, timeUs, position, sectors, codes };
}

/** All of the time and all of the axis. Never empty, so that it can be divided. */
export function wholeWindow(durationUs: number, axis: Pick<DiskAxis, 'total'>): Window {
  return {
    timeFrom: 0,
    timeTo: Math.max(1, durationUs + 1),
    diskFrom: 0,
    diskTo: Math.max(1, axis.total),
  };
}
