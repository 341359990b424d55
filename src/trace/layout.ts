/** First value of every trace file. */
export const MAGIC = 'replaybd-trace';

/**
 * A reader refuses another major version. A higher minor version may add keys to maps, which an
 * older reader ignores; with a minor version it knows, an unknown key is an error.
 */
export const VERSION_MAJOR = 1;
export const VERSION_MINOR = 2;

/** The minor version that added `records.wait`; a file without waits is of the one before. */
export const WAIT_MINOR = 1;

/** The minor version that added `packed`; a file without it is of one before. */
export const PACKED_MINOR = 2;

/** The file's last bytes: CRC-32C, big-endian, of everything before them. */
export const CRC_BYTES = 4;

/**
 * What a file of any version begins with, after its first byte (a map of 5 to 15 entries):
 * 'magic', its value, 'version', an array of two. The two bytes after that are the version.
 */
export const PREFIX: Uint8Array = Buffer.concat([
  Buffer.from([0xa5]),
  Buffer.from('magic'),
  Buffer.from([0xa0 | MAGIC.length]),
  Buffer.from(MAGIC),
  Buffer.from([0xa7]),
  Buffer.from('version'),
  Buffer.from([0x92]),
]);
