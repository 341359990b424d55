import assert from 'node:assert';
import { ReplaybdError } from '../../base/errors.ts';
import { ringLimits } from '../../base/limits.ts';
import { EntryQueue } from './entry-queue.ts';
import { Mailbox, ringError } from './mailbox.ts';
import { RingCommand } from './ring-command.ts';
import {
  COMMAND_BYTES_MIN,
  ENTRY_ALIGNMENT,
  entryField,
  entryOp,
  OP_MASK,
  RESET_TYPES,
  taskField,
  userFlag,
} from './ring-layout.ts';
import type { RingOptions } from './ring-options.ts';
import { additionalSense, senseKey } from './scsi/codes.ts';
import { ViewCache } from './view-cache.ts';

/** What a ring did, counted since it was made. */
export interface RingCounts {
  commands: number;
  /** Commands that were answered when they were read from the ring. */
  immediate: number;
  kicks: number;
  /** Entries that were not understood, and commands that pointed to where no data can be. */
  refused: number;
}

/**
 * Takes commands from a TCMU device's ring, has them carried out, and answers them: those whose data
 * is at hand at once, others as they are ready, in whichever order the kernel allows. All answers of
 * a turn make one kick. Everything the kernel writes is checked; what cannot be right ends the
 * device (`onBroken`), and nothing else.
 */
export class TcmuRing {
  readonly counts: RingCounts = { commands: 0, immediate: 0, kicks: 0, refused: 0 };
  readonly #options: RingOptions;
  readonly #device: string;
  readonly #mailbox: Mailbox;
  readonly #views: ViewCache;
  readonly #entries = new EntryQueue(ringLimits.entriesMax);
  readonly #commandsMax: number;
  /** Commands that are not in use. */
  readonly #idle: RingCommand[] = [];
  /** In the order of the ring, of one that is answered in order. */
  readonly #inOrder: RingCommand[] = [];
  /** Carried out, or waiting for their turn to be answered. */
  readonly #running = new Set<RingCommand>();
  /** Up to here the ring has been read, and answered; offsets in the ring. */
  #fetched: number;
  #tail: number;
  #toldTail: number;
  #turn: NodeJS.Immediate | null = null;
  #isStopping = false;
  #isBroken = false;
  readonly #drained = Promise.withResolvers<void>();

  /** ERR_TCMU_RING when the memory is no ring. Commands that wait in it are taken by `onKick`. */
  constructor(options: RingOptions) {
    this.#options = options;
    this.#device = options.target.deviceId;
    this.#mailbox = new Mailbox(options.memory, this.#device);
    this.#views = new ViewCache(options.memory);
    this.#commandsMax = options.commandsMax ?? ringLimits.commandsMax;
    assert(this.#commandsMax > 0 && this.#commandsMax <= ringLimits.commandsMax);
    const tail = this.#mailbox.loadTail();
    if (tail >= this.#mailbox.ringBytes || tail % ENTRY_ALIGNMENT !== 0) {
      throw ringError(this.#device, `a tail inside ${this.#mailbox.ringBytes} bytes`, String(tail));
    }
    this.#tail = tail;
    this.#toldTail = tail;
    this.#fetched = tail;
  }

  /** Commands taken from the ring that are not answered. */
  get inFlight(): number {
    return this.#running.size;
  }

  get isBroken(): boolean {
    return this.#isBroken;
  }

  /** The kernel has added commands, or may have. Never throws; may be called at any time. */
  onKick(): void {
    if (this.#isStopping || this.#isBroken) return;
    try {
      this.#takeTurn();
      this.#answer();
    } catch (error) {
      this.#break(error);
    }
  }

  /** Ends reads that wait for data, each with TASK ABORTED: for a device that goes away. */
  abort(): void {
    for (const command of this.#running) command.abort();
  }

  /**
   * Takes no more commands, and resolves when those that were taken are answered: the memory may be
   * unmapped then. Commands still in the ring are for whoever serves it next. May be called again.
   */
  drain(): Promise<void> {
    this.#isStopping = true;
    if (this.#turn !== null && this.#running.size === 0) this.#nextTurn();
    this.#settle();
    return this.#drained.promise;
  }

  /** Reads entries until there are no more, or it is others' turn. */
  #takeTurn(): void {
    this.#checkTail();
    let commands = 0;
    let bytes = 0;
    for (;;) {
      const head = this.#loadHead();
      if (head === this.#fetched) return;
      while (this.#fetched !== head) {
        if (this.#running.size >= this.#commandsMax || this.#entries.isFull) return;
        if (commands >= ringLimits.turnCommands || bytes >= ringLimits.turnBytes) {
          this.#laterTurn();
          return;
        }
        bytes += this.#takeEntry(head);
        commands += 1;
      }
    }
  }

  /** The tail is ours; that of a ring which the kernel has reset is not where we left it. */
  #checkTail(): void {
    const tail = this.#mailbox.loadTail();
    if (tail === this.#toldTail) return;
    throw ringError(this.#device, `a tail at ${this.#toldTail}`, `one at ${tail}`);
  }

  #loadHead(): number {
    const head = this.#mailbox.loadHead();
    if (head >= this.#mailbox.ringBytes || head % ENTRY_ALIGNMENT !== 0) {
      const expected = `a head inside ${this.#mailbox.ringBytes} bytes`;
      throw ringError(this.#device, expected, String(head));
    }
    return head;
  }

  /** Takes the entry at `#fetched`; returns the bytes of data that it has. */
  #takeEntry(head: number): number {
    const { words, ringOffset, ringBytes, view } = this.#mailbox;
    const start = this.#fetched;
    const at = ringOffset + start;
    const lengthAndOp = words[at / 4] >>> 0;
    const op = lengthAndOp & OP_MASK;
    const length = lengthAndOp - op;
    const available = (head > start ? head : ringBytes) - start;
    const lengthMin = op === entryOp.command ? COMMAND_BYTES_MIN : ENTRY_ALIGNMENT;
    if (length < lengthMin || length > available) {
      const expected = `an entry of ${lengthMin} to ${available} bytes at ${start}`;
      throw ringError(this.#device, expected, `${length} bytes`);
    }
    this.#fetched = (start + length) % ringBytes;
    this.#entries.push(start, start + length, op === entryOp.command);
    if (op === entryOp.command) return this.#start(at, at + length);
    // At once, so that only commands, which come to an end, can fill the queue.
    this.#passOthers();
    if (op === entryOp.taskManagement) this.#manage(at, at + length);
    else if (op !== entryOp.pad) {
      this.counts.refused += 1;
      const flags = view.getUint8(at + entryField.userFlags) | userFlag.unknownOp;
      view.setUint8(at + entryField.userFlags, flags);
    }
    return 0;
  }

  /** Begins a command, and ends it if it can be. */
  #start(at: number, end: number): number {
    const command = this.#idle.pop() ?? new RingCommand();
    const isSound = command.parse(this.#mailbox, this.#views, at, end);
    this.#running.add(command);
    if (!this.#mailbox.outOfOrder) this.#inOrder.push(command);
    this.counts.commands += 1;
    if (!isSound) {
      this.counts.refused += 1;
      const code = additionalSense.internalTargetFailure;
      command.fail({ key: senseKey.hardwareError, code }, false);
      this.#done(command);
      return 0;
    }
    const bytes = command.data.length;
    const running = this.#options.target.execute(command);
    if (running === undefined) {
      this.counts.immediate += 1;
      this.#done(command);
    } else {
      running.then(
        () => this.#doneLater(command),
        (error: unknown) => this.#break(error),
      );
    }
    return bytes;
  }

  #doneLater(command: RingCommand): void {
    try {
      this.#done(command);
      this.#laterTurn();
    } catch (error) {
      this.#break(error);
    }
  }

  /** Answers a command, or, on a ring that is answered in order, all whose turn has come. */
  #done(command: RingCommand): void {
    if (this.#isBroken) return this.#release(command);
    if (this.#mailbox.outOfOrder) return this.#respond(command);
    command.isDone = true;
    while (this.#inOrder.length > 0 && this.#inOrder[0].isDone) {
      const [first] = this.#inOrder.splice(0, 1);
      this.#respond(first);
    }
    return undefined;
  }

  /** The answer goes where the oldest entry without one is, whose command says so itself later. */
  #respond(command: RingCommand): void {
    this.#release(command);
    assert(this.#entries.isCommandFirst);
    const { firstStart, firstEnd } = this.#entries;
    command.respond(this.#mailbox, this.#mailbox.ringOffset + firstStart, firstEnd - firstStart);
    this.#passFirst();
    this.#passOthers();
  }

  /** Padding and the like are answered by being passed. */
  #passOthers(): void {
    while (this.#entries.count > 0 && !this.#entries.isCommandFirst) this.#passFirst();
  }

  #passFirst(): void {
    this.#tail = this.#entries.firstEnd % this.#mailbox.ringBytes;
    this.#entries.drop();
  }

  #release(command: RingCommand): void {
    assert(this.#running.delete(command));
    this.#idle.push(command);
  }

  /** Tells the kernel of all answers since it was last told. */
  #answer(): void {
    if (this.#tail === this.#toldTail) return;
    this.#checkTail();
    this.#mailbox.storeTail(this.#tail);
    this.#toldTail = this.#tail;
    this.counts.kicks += 1;
    this.#options.kick();
  }

  /** One turn for everything that is done in between. */
  #laterTurn(): void {
    this.#turn ??= setImmediate(() => this.#nextTurn());
  }

  #nextTurn(): void {
    if (this.#turn !== null) clearImmediate(this.#turn);
    this.#turn = null;
    try {
      if (!this.#isBroken) this.#answer();
    } catch (error) {
      this.#break(error);
    }
    this.onKick();
    this.#settle();
  }

  /** A task management notification: nobody waits for the commands it names any more. */
  #manage(at: number, end: number): void {
    const { bytes, view } = this.#mailbox;
    if (end - at < taskField.commandIds) {
      throw ringError(this.#device, 'a whole notification', `${end - at} bytes`);
    }
    const type = bytes[at + taskField.type];
    const count = view.getUint32(at + taskField.count, true);
    if (count > (end - at - taskField.commandIds) / 2) {
      throw ringError(this.#device, `${end - at} bytes of ids`, `${count} ids`);
    }
    const named = new Set<number>();
    for (let i = 0; i < count; i += 1) {
      named.add(view.getUint16(at + taskField.commandIds + 2 * i, true));
    }
    for (const command of this.#running) {
      if (named.has(command.commandId)) command.abort();
    }
    if (RESET_TYPES.includes(type)) this.#options.target.reset();
  }

  /** Ends the device: reads of it are given up, and its ring is left as it is. */
  #break(cause: unknown): void {
    if (this.#isBroken) return;
    this.#isBroken = true;
    const error =
      cause instanceof ReplaybdError
        ? cause
        : ringError(this.#device, 'a ring that can be answered', String(cause));
    this.#options.log.error({ device: this.#device, code: error.code }, error.message);
    for (const command of this.#inOrder) {
      if (command.isDone) this.#release(command);
    }
    this.#inOrder.length = 0;
    this.abort();
    this.#options.onBroken(error);
    this.#settle();
  }

  #settle(): void {
    if (!this.#isStopping || this.#running.size > 0) return;
    if (this.#isBroken || this.#tail === this.#toldTail) this.#drained.resolve();
  }
}
