import type { FrontendRequest, PreparedFrontend } from '../frontend.ts';
import { requireTargets } from './kernel/configfs.ts';
import { startTcmu } from './tcmu-frontend.ts';

/** A SCSI disk through the kernel's TCMU. Throws ERR_TCMU_CONFIGFS where the kernel has none. */
export function prepare({ parameters, clock, log, onFailed }: FrontendRequest): PreparedFrontend {
  requireTargets();
  const { mount } = parameters;
  return {
    readerThreads: 0,
    start: (device) =>
      startTcmu(device, { clock, log, onFailed, ...(mount === undefined ? {} : { mount }) }),
    discard: () => undefined,
  };
}
