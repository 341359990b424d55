import type { ViewId } from '../model/state.ts';
import { diff } from './diff.ts';
import { files } from './files.ts';
import { layers } from './layers.ts';
import { live } from './live.ts';
import { overview } from './overview.ts';
import { simulate } from './simulate.ts';
import { timeline } from './timeline.ts';
import type { View } from './view.ts';

/** In the order of their keys: 1 to 7. */
export const VIEWS: readonly View[] = [overview, timeline, layers, files, live, diff, simulate];

export function viewOf(id: ViewId): View {
  return VIEWS.find((view) => view.id === id) ?? overview;
}
