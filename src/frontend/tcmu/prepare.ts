import type { FrontendRequest, PreparedFrontend } from '../frontend.ts';
import { requireTargets } from './kernel/configfs.ts';
import { startTcmu, takeDownTcmu } from './tcmu-frontend.ts';

/** A SCSI disk through the kernel's TCMU. Throws ERR_TCMU_CONFIGFS where the kernel has none. */
export function prepare(request: FrontendRequest): PreparedFrontend {
  const { id, parameters, clock, log, onFailed } = request;
  requireTargets();
  const { mount } = parameters;
  const options = { clock, log, onFailed, ...(mount === undefined ? {} : { mount }) };
  return {
    readerThreads: 0,
    start: (device) => startTcmu(device, options),
    discard: () => undefined,
    takeDown: () => takeDownTcmu(id, options),
  };
}
