/** Operation codes (SPC-4, SBC-3) that this target answers. */
export const opcode = {
  testUnitReady: 0x00,
  requestSense: 0x03,
  read6: 0x08,
  write6: 0x0a,
  inquiry: 0x12,
  modeSelect6: 0x15,
  modeSense6: 0x1a,
  startStopUnit: 0x1b,
  preventAllow: 0x1e,
  readCapacity10: 0x25,
  read10: 0x28,
  write10: 0x2a,
  writeAndVerify10: 0x2e,
  verify10: 0x2f,
  synchronizeCache10: 0x35,
  writeSame10: 0x41,
  unmap: 0x42,
  modeSelect10: 0x55,
  modeSense10: 0x5a,
  read16: 0x88,
  compareAndWrite: 0x89,
  write16: 0x8a,
  writeAndVerify16: 0x8e,
  verify16: 0x8f,
  synchronizeCache16: 0x91,
  writeSame16: 0x93,
  serviceActionIn16: 0x9e,
  reportLuns: 0xa0,
  maintenanceIn: 0xa3,
  read12: 0xa8,
  write12: 0xaa,
  writeAndVerify12: 0xae,
  verify12: 0xaf,
} as const;

export const serviceAction = {
  reportSupportedOpcodes: 0x0c,
  readCapacity16: 0x10,
  getLbaStatus: 0x12,
} as const;

/** Status codes (SAM-5). */
export const scsiStatus = {
  good: 0x00,
  checkCondition: 0x02,
  taskSetFull: 0x28,
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
