import type { LayerMap } from '../src/image/stack-map.ts';
import { blockCodec } from './codecs.ts';
import { loadNativeKernels, NativeReadKernel } from './native-kernel.ts';
import { PortableReadKernel } from './portable-kernel.ts';
import type { ReadKernel } from './read-ops.ts';

export {
  OPS_MAX,
  readResult,
  type FailureReason,
  type ReadFailure,
  type ReadKernel,
  type ReadResult,
} from './read-ops.ts';

/**
 * A kernel that answers reads of these layers, native where its library and the codecs' are present
 * and REPLAYBD_NATIVE is not '0'. Each thread makes its own from the same maps. The kernel keeps
 * the maps' buffers alive; the mappings themselves must outlive it.
 */
export function createReadKernel(layers: readonly LayerMap[]): ReadKernel {
  const library = process.env.REPLAYBD_NATIVE === '0' ? null : loadNativeKernels();
  if (library !== null && layers.every((layer) => library.codecs.has(layer.codec))) {
    return new NativeReadKernel(library, layers);
  }
  return new PortableReadKernel(layers, blockCodec);
}

/** Which kernel `createReadKernel` gives for layers of every codec. */
export function kernelKind(): ReadKernel['kind'] {
  if (process.env.REPLAYBD_NATIVE === '0') return 'portable';
  return loadNativeKernels()?.codecs.size === 3 ? 'native' : 'portable';
}
