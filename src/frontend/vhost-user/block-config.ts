import { SECTOR_BYTES } from '../../base/limits.ts';
import { vhostUserLimits } from './limits.ts';
import type { BlockDevice } from '../../device/block-device.ts';
import { feature } from './protocol.ts';

/** Bytes of `struct virtio_blk_config` up to and with what write-zeroes needs (virtio 1.2, 5.2.4). */
export const CONFIG_BYTES = 60;
export const WRITEBACK_AT = 32;
const BLOCK_BYTES = 4096;
const BLOCK_BYTES_EXPONENT = 3;
const BLOCK_SECTORS = BLOCK_BYTES / SECTOR_BYTES;

/** What a front end needs to know of a device. */
export type ServedDevice = Pick<
  BlockDevice,
  'id' | 'virtualSizeBytes' | 'readOnly' | 'readCached' | 'read' | 'writer'
>;

/** The bits that a device offers. */
export function featuresOf(device: ServedDevice): bigint {
  const always =
    feature.sizeMax |
    feature.segmentsMax |
    feature.blockSize |
    feature.flush |
    feature.topology |
    feature.multiQueue |
    feature.indirectDescriptors |
    feature.eventIndex |
    feature.protocolFeatures |
    feature.version1;
  if (device.writer === undefined) return always | feature.readOnly;
  return always | feature.configWriteback | feature.discard | feature.writeZeroes;
}

/** The configuration space. Blocks of 512 bytes can be read; those of 4096 are better. */
export function configOf(device: ServedDevice, queues: number, isWriteback: boolean): Buffer {
  const config = Buffer.alloc(CONFIG_BYTES);
  config.writeBigUInt64LE(BigInt(device.virtualSizeBytes / SECTOR_BYTES), 0);
  config.writeUInt32LE(vhostUserLimits.segmentBytesMax, 8);
  config.writeUInt32LE(vhostUserLimits.segmentsMax, 12);
  config.writeUInt32LE(SECTOR_BYTES, 20);
  config.writeUInt8(BLOCK_BYTES_EXPONENT, 24);
  config.writeUInt16LE(1, 26);
  config.writeUInt32LE(1, 28);
  config.writeUInt8(isWriteback ? 1 : 0, WRITEBACK_AT);
  config.writeUInt16LE(queues, 34);
  if (device.writer === undefined) return config;
  config.writeUInt32LE(vhostUserLimits.discardSectorsMax, 36);
  config.writeUInt32LE(vhostUserLimits.discardSegmentsMax, 40);
  config.writeUInt32LE(BLOCK_SECTORS, 44);
  config.writeUInt32LE(vhostUserLimits.discardSectorsMax, 48);
  config.writeUInt32LE(vhostUserLimits.discardSegmentsMax, 52);
  config.writeUInt8(1, 56);
  return config;
}
