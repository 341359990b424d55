import assert from 'node:assert';
import type { BlockDevice, DeviceWriter } from '../../../device/block-device.ts';
import { BLOCK_BYTES } from './block-address.ts';
import { additionalSense, senseKey } from './codes.ts';
import type { TargetIdentity } from './identity.ts';
import { CheckCondition } from './sense.ts';
import { WriteGate } from './write-gate.ts';

/** What the target needs of a device; it has no worker threads to share it with. */
export type ScsiDevice = Omit<BlockDevice, 'shared'>;

/** A disk with what SCSI remembers of it between commands. */
export class LogicalUnit {
  readonly device: ScsiDevice;
  readonly identity: TargetIdentity;
  readonly gate = new WriteGate();
  /** Mode pages: a write may be acknowledged before it is durable. */
  writeCache = true;
  /** Mode pages: sense data in descriptor format. */
  descriptorSense = false;
  /** Initiators know that the disk has a write cache. */
  #isCacheKnown: boolean;
  /** Stopped by START STOP UNIT: the medium is not to be had. */
  isStopped = false;
  /** The size that the initiator knows of. */
  #toldBytes: number;

  /** `isAdopted`: initiators may have got to know the disk as one without a write cache. */
  constructor(device: ScsiDevice, identity: TargetIdentity, isAdopted: boolean) {
    assert(device.virtualSizeBytes >= BLOCK_BYTES);
    this.device = device;
    this.identity = identity;
    this.#isCacheKnown = !isAdopted;
    this.#toldBytes = device.virtualSizeBytes;
  }

  get blocks(): number {
    return Math.floor(this.device.virtualSizeBytes / BLOCK_BYTES);
  }

  /** Absent when the disk cannot be written. */
  get writer(): DeviceWriter | undefined {
    return this.device.readOnly ? undefined : this.device.writer;
  }

  /** Some writes that were acknowledged may not be durable yet. */
  get hasWriteCache(): boolean {
    return this.writer !== undefined && this.writeCache;
  }

  /** Changes have to be durable before they are acknowledged. */
  get writesThrough(): boolean {
    return !this.hasWriteCache || !this.#isCacheKnown;
  }

  /** Makes durable what was acknowledged: who asks for that knows of the cache. */
  flush(): void | Promise<void> {
    this.#isCacheKnown = true;
    return this.writer?.flush();
  }

  /** The unit attention that is to be reported, which this call does away with; null if none. */
  takeUnitAttention(): typeof additionalSense.capacityChanged | null {
    if (this.device.virtualSizeBytes === this.#toldBytes) return null;
    this.#toldBytes = this.device.virtualSizeBytes;
    return additionalSense.capacityChanged;
  }

  /** The writer, for a command that changes the disk. */
  requireWriter(): DeviceWriter {
    const { writer } = this;
    if (writer !== undefined) return writer;
    const { writeProtected } = additionalSense;
    throw new CheckCondition({ key: senseKey.dataProtect, code: writeProtected });
  }

  /** What LOGICAL UNIT RESET does: everything that commands have set is as it was. */
  reset(): void {
    this.writeCache = true;
    this.descriptorSense = false;
    this.isStopped = false;
  }
}
