import { bundledCodec, systemCodec } from '../../native/codecs.ts';
import { loadNativeKernels, NativeReadKernel } from '../../native/native-kernel.ts';
import { PortableReadKernel } from '../../native/portable-kernel.ts';
import type { ReadFailure, ReadKernel } from '../../native/read-ops.ts';
import type { LayerMap } from '../../src/image/stack-map.ts';

/** One way to answer reads; `create` is null where this machine lacks what it needs. */
export interface KernelVariant {
  name: string;
  create: ((layers: readonly LayerMap[]) => ReadKernel) | null;
}

const native = loadNativeKernels();
const hasSystemCodecs = systemCodec('lz4') !== null && systemCodec('zstd') !== null;

/** Every kernel has to pass the same tests. */
export const kernelVariants: readonly KernelVariant[] = [
  {
    name: 'native',
    create: native?.codecs.size === 3 ? (layers) => new NativeReadKernel(native, layers) : null,
  },
  {
    name: 'portable, system codecs',
    create: hasSystemCodecs
      ? (layers) =>
          new PortableReadKernel(layers, (name) => systemCodec(name) ?? bundledCodec(name))
      : null,
  },
  {
    name: 'portable, bundled codecs',
    create: (layers) => new PortableReadKernel(layers, bundledCodec),
  },
];

/** Options for a test of a variant: skipped, and said so, where it cannot run. */
export function skipUnless(variant: KernelVariant): { skip: string | false } {
  return { skip: variant.create === null ? `no ${variant.name} kernel on this machine` : false };
}

/** All of layer 0's bytes, or why they cannot be read. */
export function readWhole(kernel: ReadKernel, sizeBytes: number): Buffer | ReadFailure {
  const bytes = Buffer.alloc(sizeBytes, 0xee);
  kernel.ops.clear();
  if (sizeBytes > 0) kernel.ops.push(0, 0, sizeBytes, 0);
  return kernel.run(bytes) === 0 ? bytes : kernel.failure;
}
