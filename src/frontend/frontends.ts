import { ReplaybdError } from '../base/errors.ts';
import type {
  FrontendKind,
  FrontendModule,
  FrontendParameters,
  FrontendRequest,
  PreparedFrontend,
} from './frontend.ts';

interface FrontendEntry {
  /** The parameters that it heeds; others are refused. */
  readonly takes: readonly (keyof FrontendParameters)[];
  /** Only what is used is loaded. */
  readonly load: () => Promise<FrontendModule>;
}

/** Every front end there is: a line each. */
const FRONTENDS: Readonly<Record<FrontendKind, FrontendEntry>> = {
  none: { takes: [], load: () => import('./none.ts') },
  fuse: { takes: ['mount', 'loop'], load: () => import('./fuse/prepare.ts') },
  nbd: { takes: ['socket', 'port'], load: () => import('./nbd/prepare.ts') },
  tcmu: { takes: ['mount'], load: () => import('./tcmu/prepare.ts') },
  'vhost-user': { takes: ['socket'], load: () => import('./vhost-user/prepare.ts') },
};

export const FRONTEND_KINDS = Object.keys(FRONTENDS) as readonly FrontendKind[];

/** The front ends that heed a parameter. */
export function kindsTaking(parameter: keyof FrontendParameters): FrontendKind[] {
  return FRONTEND_KINDS.filter((kind) => FRONTENDS[kind].takes.includes(parameter));
}

/** Throws ERR_FRONTEND_PARAMETER for a parameter that this kind would not heed. */
export function checkFrontendParameters(kind: FrontendKind, parameters: FrontendParameters): void {
  const { takes } = FRONTENDS[kind];
  const names = Object.keys(parameters) as (keyof FrontendParameters)[];
  const wrong = names.find((name) => !takes.includes(name));
  if (wrong === undefined && !(names.includes('socket') && names.includes('port'))) return;
  throw new ReplaybdError(
    'ERR_FRONTEND_PARAMETER',
    wrong === undefined
      ? `front end ${kind}: it listens on a socket or on a port, not on both.`
      : `front end ${kind}: it does not take "${wrong}". ` +
          `It takes ${takes.length === 0 ? 'nothing' : takes.join(', ')}.`,
    { errno: 'EINVAL' },
  );
}

/** Finds out early whether a front end can be used here. Errors: those of `prepareFrontend`. */
export async function checkFrontend(
  kind: FrontendKind,
  parameters: FrontendParameters,
): Promise<void> {
  checkFrontendParameters(kind, parameters);
  const { check } = await FRONTENDS[kind].load();
  await check?.(parameters);
}

/** Prepares a front end. Errors: ERR_FRONTEND_PARAMETER, and those of the front end. */
export async function prepareFrontend(
  kind: FrontendKind,
  request: FrontendRequest,
): Promise<PreparedFrontend> {
  checkFrontendParameters(kind, request.parameters);
  const { prepare } = await FRONTENDS[kind].load();
  return await prepare(request);
}
