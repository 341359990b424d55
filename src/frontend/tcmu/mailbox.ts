import { ReplaybdError } from '../../base/errors.ts';
import { ringLimits } from '../../base/limits.ts';
import {
  ENTRY_ALIGNMENT,
  MAILBOX_BYTES_MIN,
  MAILBOX_VERSION,
  mailboxField,
  mailboxFlag,
} from './ring-layout.ts';

/** The error for a ring that is not as the kernel makes them. */
export function ringError(device: string, expected: string, found: string): ReplaybdError {
  return new ReplaybdError(
    'ERR_TCMU_RING',
    `TCMU ring of device ${device}: expected ${expected}, found ${found}. ` +
      'Detach the device, or reset its ring, and attach it again.',
  );
}

/** The mapped memory of one device, and the two ends of its ring. */
export class Mailbox {
  readonly bytes: Uint8Array;
  readonly view: DataView;
  /** All of the memory, as numbers of 32 bits. */
  readonly words: Int32Array;
  readonly ringOffset: number;
  readonly ringBytes: number;
  readonly outOfOrder: boolean;
  readonly hasReadLength: boolean;

  /** ERR_TCMU_RING when this is no mailbox. */
  constructor(memory: Uint8Array, device: string) {
    const { byteLength, byteOffset, buffer } = memory;
    const isUsable = byteLength >= MAILBOX_BYTES_MIN && byteLength <= ringLimits.memoryBytesMax;
    if (!isUsable || byteOffset % ENTRY_ALIGNMENT !== 0) {
      throw ringError(device, 'aligned memory of a mailbox', `${byteLength} bytes`);
    }
    this.bytes = memory;
    this.view = new DataView(buffer, byteOffset, byteLength);
    this.words = new Int32Array(buffer, byteOffset, Math.floor(byteLength / 4));
    const version = this.view.getUint16(mailboxField.version, true);
    if (version !== MAILBOX_VERSION) {
      throw ringError(device, `version ${MAILBOX_VERSION}`, `version ${version}`);
    }
    const flags = this.view.getUint16(mailboxField.flags, true);
    this.outOfOrder = (flags & mailboxFlag.outOfOrder) !== 0;
    this.hasReadLength = (flags & mailboxFlag.readLength) !== 0;
    this.ringOffset = this.view.getUint32(mailboxField.ringOffset, true);
    this.ringBytes = this.view.getUint32(mailboxField.ringBytes, true);
    const isAligned = (this.ringOffset | this.ringBytes) % ENTRY_ALIGNMENT === 0;
    const isInside =
      this.ringOffset >= MAILBOX_BYTES_MIN && this.ringOffset + this.ringBytes <= byteLength;
    if (!isAligned || !isInside || this.ringBytes === 0) {
      const found = `${this.ringBytes} bytes at ${this.ringOffset}`;
      throw ringError(device, `a command ring inside ${byteLength} bytes`, found);
    }
  }

  /** Where the data area begins. */
  get dataOffset(): number {
    return this.ringOffset + this.ringBytes;
  }

  /** The kernel's end of the ring; what comes before it has been written. */
  loadHead(): number {
    return Atomics.load(this.words, mailboxField.head / 4) >>> 0;
  }

  loadTail(): number {
    return Atomics.load(this.words, mailboxField.tail / 4) >>> 0;
  }

  /** Hands everything before `tail` back to the kernel; what was written there comes first. */
  storeTail(tail: number): void {
    Atomics.store(this.words, mailboxField.tail / 4, tail);
  }
}
