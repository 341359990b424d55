import { codeOf, messageOf, ReplaybdError, type ErrnoName } from '../../../base/errors.ts';
import { silentLogger, type Logger } from '../../../base/log.ts';
import { lbaOf } from './block-address.ts';
import { additionalSense, scsiStatus, senseKey } from './codes.ts';
import type { ScsiCommand } from './command.ts';
import { findCommand, unusedByte, type CommandDefinition } from './command-table.ts';
import { checkReady } from './control.ts';
import { checkIdentity, type TargetIdentity } from './identity.ts';
import { LogicalUnit, type ScsiDevice } from './logical-unit.ts';
import { CheckCondition, illegalRequest, invalidCdb, type Sense } from './sense.ts';

export interface ScsiTargetOptions {
  log?: Logger;
  /**
   * Another target has served the disk before, with or without a write cache: every change is durable
   * before it is answered until a SYNCHRONIZE CACHE shows that the initiator knows of it.
   */
  isAdopted?: boolean;
}

/**
 * A disk as a SCSI block device (SPC-4, SBC-3) with one logical unit. It holds nothing that needs
 * to be closed; the device stays its owner's. A device whose size changes is noticed at the next
 * command, which then tells the initiator (CAPACITY DATA HAS CHANGED).
 */
export class ScsiTarget {
  readonly #unit: LogicalUnit;
  readonly #log: Logger;

  /** ERR_SCSI_IDENTITY for names that do not fit their fields. */
  constructor(device: ScsiDevice, identity: TargetIdentity, options: ScsiTargetOptions = {}) {
    checkIdentity(identity);
    this.#unit = new LogicalUnit(device, identity, options.isAdopted === true);
    this.#log = options.log ?? silentLogger;
  }

  get deviceId(): string {
    return this.#unit.device.id;
  }

  /** LOGICAL UNIT RESET: mode pages are as they were, and a stopped disk is ready. */
  reset(): void {
    this.#unit.reset();
  }

  /**
   * Carries a command out and leaves the outcome in it. Returns nothing when that is done already,
   * which it is for reads of local data, or else a promise that resolves when it is, and never
   * rejects. The command and its buffers belong to the target until then.
   */
  execute(command: ScsiCommand): void | Promise<void> {
    let definition: CommandDefinition | null = null;
    try {
      definition = this.#admit(command);
      const running = definition.run(this.#unit, command);
      if (running === undefined) return undefined;
      return this.#finish(running, definition, command);
    } catch (error) {
      this.#fail(error, definition, command);
      return undefined;
    }
  }

  async #finish(
    running: Promise<void>,
    definition: CommandDefinition,
    command: ScsiCommand,
  ): Promise<void> {
    try {
      await running;
    } catch (error) {
      this.#fail(error, definition, command);
    }
  }

  /** The order of these checks is SPC-4's: what is not there before what is not ready. */
  #admit(command: ScsiCommand): CommandDefinition {
    const { cdb } = command;
    const definition = findCommand(cdb);
    if (definition === 'opcode') throw illegalRequest(additionalSense.invalidOperationCode);
    if (definition === 'action') throw invalidCdb(1, 4);
    const { kind, usage } = definition;
    if (command.cdbLength < usage.length) throw invalidCdb(command.cdbLength);
    if (kind !== 'report') this.#checkAttention();
    const unused = unusedByte(definition, cdb);
    if (unused >= 0) throw invalidCdb(unused);
    if (kind === 'change') this.#unit.requireWriter();
    if (kind === 'change' || kind === 'medium') checkReady(this.#unit);
    return definition;
  }

  #checkAttention(): void {
    const code = this.#unit.takeUnitAttention();
    if (code !== null) throw new CheckCondition({ key: senseKey.unitAttention, code });
  }

  #fail(error: unknown, definition: CommandDefinition | null, command: ScsiCommand): void {
    if (command.isAborted) {
      command.status = scsiStatus.taskAborted;
      command.dataInLength = 0;
      return;
    }
    const isDescriptor = this.#unit.descriptorSense;
    if (error instanceof CheckCondition) return command.fail(error.sense, isDescriptor);
    const facts = { device: this.deviceId, opcode: command.cdb[0], code: codeOf(error) };
    this.#log.warn(facts, `SCSI command failed: ${messageOf(error)}`);
    return command.fail(senseOf(error, definition, command), isDescriptor);
  }
}

/** What an initiator is told of an error of the device. */
function senseOf(
  error: unknown,
  definition: CommandDefinition | null,
  command: ScsiCommand,
): Sense {
  if (!(error instanceof ReplaybdError) || definition === null) {
    return { key: senseKey.hardwareError, code: additionalSense.internalTargetFailure };
  }
  const { kind } = definition;
  return { ...senses[error.errno](kind === 'change'), ...(isAddressed(kind) ? at(command) : {}) };
}

function isAddressed(kind: CommandDefinition['kind']): boolean {
  return kind === 'medium' || kind === 'change';
}

function at(command: ScsiCommand): { information: number } {
  return { information: lbaOf(command) };
}

const mediumError = (isChange: boolean): Sense => ({
  key: senseKey.mediumError,
  code: isChange ? additionalSense.writeError : additionalSense.unrecoveredReadError,
});
const timedOut = (): Sense => ({
  key: senseKey.abortedCommand,
  code: additionalSense.communicationTimeout,
});

const senses: Record<ErrnoName, (isChange: boolean) => Sense> = {
  EIO: mediumError,
  ENOENT: mediumError,
  EINVAL: () => ({ key: senseKey.illegalRequest, code: additionalSense.invalidFieldInCdb }),
  EROFS: () => ({ key: senseKey.dataProtect, code: additionalSense.writeProtected }),
  ENOSPC: () => ({ key: senseKey.dataProtect, code: additionalSense.spaceAllocationFailed }),
  EACCES: () => ({ key: senseKey.dataProtect, code: additionalSense.accessDenied }),
  ETIMEDOUT: timedOut,
  EBUSY: timedOut,
};
