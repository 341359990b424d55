import { ReplaybdError, type ErrnoName, type ErrorCode } from '../../base/errors.ts';
import { shown } from '../tar/entry.ts';

/** An error about one entry of a layer. */
export function entryError(
  code: ErrorCode,
  path: string,
  problem: string,
  options: { cause?: unknown; errno?: ErrnoName } = {},
): ReplaybdError {
  const message = `${shown(path)}: ${problem} Nothing of the layer was applied.`;
  return new ReplaybdError(code, message, options);
}

/** An error about the file system that a layer is to be applied to. */
export function imageError(problem: string): ReplaybdError {
  const advice = 'Let e2fsck -f repair it first, or use another image.';
  return new ReplaybdError('ERR_APPLY_IMAGE', `the file system: ${problem} ${advice}`);
}
