import { SECTOR_BYTES } from '../../src/base/limits.ts';
import type { Window } from './grid.ts';
import type { Scene } from './scene.ts';

/** A point of a timeline. */
export interface Cursor {
  readonly timeUs: number;
  readonly position: number;
}

/** Cells of the plane that a window is shown in; `rows` counts half cells. */
export interface Cells {
  readonly columns: number;
  readonly rows: number;
}

/** What is looked at: null is all of it, or where the first access is. */
export interface Viewport {
  readonly window: Window | null;
  readonly cursor: Cursor | null;
}

/** Never closer than this: microseconds a window, and sectors. */
const TIME_MIN_US = 20;
const DISK_MIN = 64;

export function windowOf({ window }: Viewport, scene: Scene): Window {
  return window === null ? scene.whole : clampWindow(window, scene.whole);
}

export function cursorOf({ cursor }: Viewport, { marks, whole }: Scene): Cursor {
  if (cursor !== null) return clampCursor(cursor, whole);
  return { timeUs: marks.timeUs[0] ?? 0, position: Math.max(0, marks.position[0] ?? 0) };
}

/** Moves the cursor by cells; the window follows it over its edges. */
export function moveCursor(
  viewport: Viewport,
  scene: Scene,
  cells: Cells,
  [right, down]: readonly [number, number],
): Viewport {
  const window = windowOf(viewport, scene);
  const from = cursorOf(viewport, scene);
  const timeStep = (window.timeTo - window.timeFrom) / cells.columns;
  const diskStep = (window.diskTo - window.diskFrom) / cells.rows;
  const cursor = clampCursor(
    { timeUs: from.timeUs + right * timeStep, position: from.position + down * diskStep },
    scene.whole,
  );
  return { ...viewport, cursor, window: viewport.window && follow(window, cursor, scene.whole) };
}

/** Puts the cursor on an access; the window follows. */
export function jumpTo(viewport: Viewport, scene: Scene, access: number): Viewport {
  const { marks, whole } = scene;
  if (access < 0 || access >= marks.count) return viewport;
  const position = marks.position[access] + marks.sectors[access] / 2;
  const cursor = { timeUs: marks.timeUs[access], position: Math.max(0, position) };
  const window = viewport.window && follow(windowOf(viewport, scene), cursor, whole);
  return { ...viewport, cursor, window };
}

/** Closer (factors below 1) or farther; the cursor stays in its place. */
export function zoom(viewport: Viewport, scene: Scene, timeBy: number, diskBy: number): Viewport {
  const { timeFrom, timeTo, diskFrom, diskTo } = windowOf(viewport, scene);
  const cursor = cursorOf(viewport, scene);
  const [timeSpan, diskSpan] = [timeTo - timeFrom, diskTo - diskFrom];
  const time = Math.max(TIME_MIN_US, timeSpan * timeBy);
  const disk = Math.max(DISK_MIN, diskSpan * diskBy);
  const newTimeFrom = cursor.timeUs - ((cursor.timeUs - timeFrom) / timeSpan) * time;
  const newDiskFrom = cursor.position - ((cursor.position - diskFrom) / diskSpan) * disk;
  const window = clampWindow(
    {
      timeFrom: newTimeFrom,
      timeTo: newTimeFrom + time,
      diskFrom: newDiskFrom,
      diskTo: newDiskFrom + disk,
    },
    scene.whole,
  );
  const isWhole = window.timeFrom === 0 && window.timeTo === scene.whole.timeTo;
  const isAll = isWhole && window.diskFrom === 0 && window.diskTo === scene.whole.diskTo;
  return { cursor, window: isAll ? null : window };
}

export interface Nearest {
  /** Index of the access. */
  readonly access: number;
  /** In cells. */
  readonly distance: number;
}

/** The access of the window that is nearest to the cursor; null when there is none. */
export function nearestAccess(viewport: Viewport, scene: Scene, cells: Cells): Nearest | null {
  const { timeFrom, timeTo, diskFrom, diskTo } = windowOf(viewport, scene);
  const { timeUs, position } = cursorOf(viewport, scene);
  const { marks } = scene;
  const perUs = cells.columns / (timeTo - timeFrom);
  const perSector = cells.rows / (diskTo - diskFrom);
  let access = -1;
  let least = Infinity;
  for (let i = 0; i < marks.count; i += 1) {
    const [time, from] = [marks.timeUs[i], marks.position[i]];
    const to = from + marks.sectors[i];
    if (time < timeFrom || time >= timeTo || from < 0 || to <= diskFrom || from >= diskTo) continue;
    const across = (time - timeUs) * perUs;
    const down = position < from ? from - position : Math.max(0, position - to);
    const distance = across ** 2 + (down * perSector) ** 2;
    if (distance >= least) continue;
    least = distance;
    access = i;
  }
  return access < 0 ? null : { access, distance: Math.sqrt(least) };
}

/** Bytes of the disk from its beginning to a position; null where nothing is. */
export function addressAt({ axis }: Scene, position: number): number | null {
  const found = axis.at(position);
  return found === null ? null : found.lba * SECTOR_BYTES;
}

function follow(window: Window, { timeUs, position }: Cursor, whole: Window): Window {
  const [time, disk] = [window.timeTo - window.timeFrom, window.diskTo - window.diskFrom];
  const timeFrom = Math.min(Math.max(window.timeFrom, timeUs - time * 0.999), timeUs);
  const diskFrom = Math.min(Math.max(window.diskFrom, position - disk * 0.999), position);
  const moved = { timeFrom, timeTo: timeFrom + time, diskFrom, diskTo: diskFrom + disk };
  return clampWindow(moved, whole);
}

function clampWindow(window: Window, whole: Window): Window {
  const time = Math.min(window.timeTo - window.timeFrom, whole.timeTo);
  const disk = Math.min(window.diskTo - window.diskFrom, whole.diskTo);
  const timeFrom = Math.min(Math.max(0, window.timeFrom), whole.timeTo - time);
  const diskFrom = Math.min(Math.max(0, window.diskFrom), whole.diskTo - disk);
  return { timeFrom, timeTo: timeFrom + time, diskFrom, diskTo: diskFrom + disk };
}

function clampCursor({ timeUs, position }: Cursor, whole: Window): Cursor {
  return {
    timeUs: Math.min(Math.max(0, timeUs), whole.timeTo - 1),
    position: Math.min(Math.max(0, position), whole.diskTo - 1),
  };
}
