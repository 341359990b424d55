import { scsiStatus, type ScsiStatus } from './codes.ts';
import { DataRegion } from './data-region.ts';
import { SENSE_BYTES, writeSense, type Sense } from './sense.ts';

/** No command that this target answers is longer. */
export const CDB_BYTES_MAX = 16;

/**
 * A command on its way through a target, with what came of it. Made once and used again: a command
 * that finds its data at hand allocates nothing.
 */
export class ScsiCommand {
  readonly cdb = new Uint8Array(CDB_BYTES_MAX);
  readonly cdbView = new DataView(this.cdb.buffer);
  /** Bytes of the CDB that there are; the others are zeros. */
  cdbLength = 0;
  /** The first or only data buffer, which a command either reads or fills. */
  readonly data = new DataRegion();
  /** The second one of a bidirectional command. */
  readonly bidirectional = new DataRegion();
  isBidirectional = false;

  status: ScsiStatus = scsiStatus.good;
  /** Valid up to `senseLength`, zeros behind. */
  readonly sense = new Uint8Array(SENSE_BYTES);
  senseLength = 0;
  /** Bytes that the command has for the initiator; with CHECK CONDITION, none count. */
  dataInLength = 0;
  #abort: AbortController | null = null;

  /** Data from the initiator. */
  get dataOut(): DataRegion {
    return this.data;
  }

  /** Room for data to the initiator. */
  get dataIn(): DataRegion {
    return this.isBidirectional ? this.bidirectional : this.data;
  }

  /** For a read that takes its time; aborted by `abort`. */
  get signal(): AbortSignal {
    this.#abort ??= new AbortController();
    return this.#abort.signal;
  }

  get isAborted(): boolean {
    return this.#abort?.signal.aborted === true;
  }

  /** Makes it ready for another command, which has no data and a CDB to be filled in. */
  reset(): void {
    this.cdb.fill(0);
    this.cdbLength = 0;
    this.data.clear();
    this.bidirectional.clear();
    this.isBidirectional = false;
    this.status = scsiStatus.good;
    if (this.senseLength > 0) this.sense.fill(0);
    this.senseLength = 0;
    this.dataInLength = 0;
    this.#abort = null;
  }

  /** Nobody waits for this command any more: a read that waits for a registry may end. */
  abort(): void {
    this.#abort ??= new AbortController();
    this.#abort.abort();
  }

  fail(sense: Sense, isDescriptor: boolean): void {
    this.status = scsiStatus.checkCondition;
    this.sense.fill(0);
    this.senseLength = writeSense(this.sense, sense, isDescriptor);
    this.dataInLength = 0;
  }

  /** Answers with `bytes`, at most `allocationLength` of them, which is no error (SPC-4 4.3.5.6). */
  reply(bytes: Uint8Array, allocationLength: number): void {
    const { dataIn } = this;
    const sent = bytes.subarray(0, allocationLength);
    this.dataInLength = dataIn.put(sent);
    dataIn.zeroFrom(this.dataInLength);
  }
}
