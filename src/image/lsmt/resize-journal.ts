import { access } from 'node:fs/promises';
import { ReplaybdError } from '../../base/errors.ts';

/**
 * Where the changes of a resize are until all of them are in the writable layer: an LSMT layer, whose
 * virtual size is the new one.
 */
export function resizeJournalPath(dataPath: string): string {
  return `${dataPath}.resize`;
}

/** Whether a resize of the layer was interrupted after it was decided. */
export async function hasResizeJournal(dataPath: string): Promise<boolean> {
  return await access(resizeJournalPath(dataPath)).then(
    () => true,
    () => false,
  );
}

/** ERR_UPPER_RESIZE when a resize was interrupted: the layer may hold half of its changes. */
export async function refuseUnfinishedResize(dataPath: string): Promise<void> {
  if (!(await hasResizeJournal(dataPath))) return;
  throw new ReplaybdError(
    'ERR_UPPER_RESIZE',
    `${dataPath}: a resize of this layer was interrupted. Run replaybd resize again: it finishes ` +
      'what was begun.',
  );
}
