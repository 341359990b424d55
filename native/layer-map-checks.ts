import assert from 'node:assert';
import { GRANULE_BYTES, zfileLimits } from '../src/base/limits.ts';
import { JUMP_TABLE_GROUP_SHIFT, type LayerMap } from '../src/image/stack-map.ts';

/**
 * What a kernel relies on and cannot afford to check for every read: that the tables are as long as
 * the sizes say. What the tables *contain* is hostile, and is checked when it is used.
 */
export function assertLayerMap(layer: LayerMap): void {
  const { blob, lsmtSizeBytes, payloadOffset, zfile } = layer;
  assert(Number.isSafeInteger(blob.sizeBytes) && blob.sizeBytes >= 0);
  assert(Number.isSafeInteger(lsmtSizeBytes) && lsmtSizeBytes >= 0);
  assert(Number.isSafeInteger(payloadOffset) && payloadOffset >= 0);
  if (blob.presence !== null) {
    const words = Math.ceil(blob.sizeBytes / GRANULE_BYTES / 32);
    assert(blob.presence.byteLength >= words * 4, 'the presence bitmap is too short');
  }
  if (layer.codec === 'raw') {
    assert(payloadOffset + lsmtSizeBytes <= blob.sizeBytes, 'the payload leaves the blob');
    return;
  }
  assert(zfile !== null, 'a compressed layer needs a jump table');
  const { blockBytes, blockCount, groupBase, withinGroup } = zfile;
  assert(blockBytes >= zfileLimits.blockBytesMin && blockBytes <= zfileLimits.blockBytesMax);
  assert((blockBytes & (blockBytes - 1)) === 0, 'the block size is not a power of two');
  assert(blockCount === Math.ceil(lsmtSizeBytes / blockBytes), 'block count and size disagree');
  assert(withinGroup.length > blockCount, 'the jump table is too short');
  assert(groupBase.length > blockCount >>> JUMP_TABLE_GROUP_SHIFT, 'too few jump table groups');
}
