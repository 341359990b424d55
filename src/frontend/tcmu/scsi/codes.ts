/** Operation codes that handlers tell apart; command-table.ts has all of them. */
export const opcode = { modeSelect6: 0x15, modeSense6: 0x1a, writeSame16: 0x93 } as const;

export const serviceAction = {
  reportSupportedOpcodes: 0x0c,
  readCapacity16: 0x10,
  getLbaStatus: 0x12,
} as const;

/** Status codes (SAM-5). */
export const scsiStatus = {
  good: 0x00,
  checkCondition: 0x02,
  taskAborted: 0x40,
} as const;

export type ScsiStatus = (typeof scsiStatus)[keyof typeof scsiStatus];

export const senseKey = {
  noSense: 0x0,
  notReady: 0x2,
  mediumError: 0x3,
  hardwareError: 0x4,
  illegalRequest: 0x5,
  unitAttention: 0x6,
  dataProtect: 0x7,
  abortedCommand: 0xb,
  miscompare: 0xe,
} as const;

export type SenseKey = (typeof senseKey)[keyof typeof senseKey];

/** Additional sense codes: the code in the high byte, the qualifier in the low one. */
export const additionalSense = {
  none: 0x0000,
  initializingCommandRequired: 0x0402,
  communicationTimeout: 0x0801,
  writeError: 0x0c00,
  unrecoveredReadError: 0x1100,
  parameterListLength: 0x1a00,
  miscompareDuringVerify: 0x1d00,
  invalidOperationCode: 0x2000,
  accessDenied: 0x2002,
  lbaOutOfRange: 0x2100,
  invalidFieldInCdb: 0x2400,
  invalidFieldInParameterList: 0x2600,
  writeProtected: 0x2700,
  spaceAllocationFailed: 0x2707,
  capacityChanged: 0x2a09,
  savingNotSupported: 0x3900,
  internalTargetFailure: 0x4400,
} as const;

export type AdditionalSense = (typeof additionalSense)[keyof typeof additionalSense];
