/**
 * What a TCMU device's shared memory looks like: `struct tcmu_mailbox` and its entries, version 2,
 * of include/uapi/linux/target_core_user.h. All numbers are little-endian.
 *
 *     0        cmdr_off                cmdr_off + cmdr_size                    end
 *     | mailbox |      command ring             |          data area            |
 *                 ^tail        ^fetched    ^head
 *
 * The kernel adds entries at `head`; we move `tail` past those that are answered. An entry never
 * wraps: a PAD fills the ring's end where the next one does not fit.
 */
export const MAILBOX_VERSION = 2;

export const mailboxField = {
  version: 0,
  flags: 2,
  ringOffset: 4,
  ringBytes: 8,
  head: 12,
  tail: 64,
} as const;

export const MAILBOX_BYTES_MIN = 68;

export const mailboxFlag = {
  /** Commands may be completed in any order. */
  outOfOrder: 0x1,
  /** A completion may say how much data there is. */
  readLength: 0x2,
  /** The kernel tells of aborted commands. */
  taskManagement: 0x4,
} as const;

export const entryOp = { pad: 0, command: 1, taskManagement: 2 } as const;

/** Low bits of an entry's first word; the others are its length. */
export const OP_MASK = 0x7;
export const ENTRY_ALIGNMENT = 8;

/** Offsets in an entry. */
export const entryField = {
  lengthAndOp: 0,
  commandId: 4,
  userFlags: 7,
  vectorCount: 8,
  bidirectionalCount: 12,
  cdbOffset: 24,
  vectors: 48,
} as const;

/** A command's entry is never shorter: the response has to fit. */
export const COMMAND_BYTES_MIN = 112;
export const VECTOR_BYTES = 16;

/** Offsets in a response, which takes the place of a command's entry. */
export const responseField = { status: 8, readLength: 12, sense: 16 } as const;

export const userFlag = { unknownOp: 0x1, readLength: 0x2 } as const;

/** Offsets in a task management entry. */
export const taskField = { type: 8, count: 12, commandIds: 32 } as const;

/** LOGICAL UNIT RESET and target resets, by `enum tcmu_tmr_type`. */
export const RESET_TYPES: readonly number[] = [5, 6, 7];
