import { readSync } from 'node:fs';
import { getSystemErrorMessage } from 'node:util';
import koffi, { type KoffiFunc } from 'koffi';
import { ReplaybdError } from '../src/base/errors.ts';
import { loadNativeLibrary } from './native-kernel.ts';

/** A piece of a file, and where it goes. */
export interface FilePiece {
  /** Byte of the file. */
  offset: number;
  length: number;
  /** Byte of the destination. */
  target: number;
}

/** Fills `into` from pieces of an open file; neither may be touched meanwhile. Null: all is there. */
export type PieceReader = (
  fd: number,
  pieces: readonly FilePiece[],
  into: Uint8Array,
) => Promise<PieceFailure | null>;

/** Why pieces could not be read: an errno, or null where the file ends too early. */
export interface PieceFailure {
  errno: number | null;
}

const PIECE_BYTES = 16;
const FILE_ENDS = -1;

type Gather = KoffiFunc<
  (fd: number, pieces: bigint, count: number, target: bigint) => number | bigint
>;

let gather: Gather | null | undefined;
/** What native code has the addresses of. */
const inUse = new Set<object>();

/**
 * Reads pieces of the file `name`, neighbours in one go: natively on a thread of Node's pool where
 * the library is present, in this one otherwise. ERR_FILE_READ.
 */
export async function readPieces(
  fd: number,
  pieces: readonly FilePiece[],
  into: Uint8Array,
  name: string,
): Promise<void> {
  if (pieces.length === 0) return;
  const read = nativeGather() === null ? readPiecesPortably : readPiecesNatively;
  const failure = await read(fd, pieces, into);
  if (failure === null) return;
  const why =
    failure.errno === null
      ? 'it ends before its pieces do: it was cut off, or shrank meanwhile'
      : getSystemErrorMessage(-failure.errno);
  throw new ReplaybdError('ERR_FILE_READ', `${name}: cannot be read: ${why}`);
}

function nativeGather(): Gather | null {
  if (process.env.REPLAYBD_NATIVE === '0') return null;
  if (gather !== undefined) return gather;
  try {
    gather =
      loadNativeLibrary()?.func(
        'int rbd_gather(int fd, uintptr_t pieces, uint32_t count, uintptr_t target)',
      ) ?? null;
  } catch {
    gather = null;
  }
  return gather;
}

/** On a thread of Node's pool; the portable one where there is no native library. */
export const readPiecesNatively: PieceReader = (fd, pieces, into) => {
  const call = nativeGather();
  if (call === null) return readPiecesPortably(fd, pieces, into);
  const table = pieceTable(pieces);
  const kept = { table, into };
  inUse.add(kept);
  return new Promise((resolve, reject) => {
    const args = [fd, koffi.address(table), pieces.length, koffi.address(into)] as const;
    call.async(...args, (error: Error | null, result) => {
      inUse.delete(kept);
      if (error !== null) reject(error);
      else if (Number(result) === 0) resolve(null);
      else resolve({ errno: Number(result) === FILE_ENDS ? null : Number(result) });
    });
  });
};

/** `struct piece` of write-kernels.c, one after the other. */
function pieceTable(pieces: readonly FilePiece[]): Uint8Array {
  const bytes = new Uint8Array(pieces.length * PIECE_BYTES);
  const doubles = new Float64Array(bytes.buffer);
  const words = new Uint32Array(bytes.buffer);
  pieces.forEach(({ offset, length, target }, at) => {
    doubles[at * 2] = offset;
    words[at * 4 + 2] = length;
    words[at * 4 + 3] = target;
  });
  return bytes;
}

/** The same in TypeScript, piece by piece. */
export const readPiecesPortably: PieceReader = async (fd, pieces, into) => {
  for (const { offset, length, target } of pieces) {
    for (let done = 0; done < length;) {
      try {
        const count = readSync(fd, into, target + done, length - done, offset + done);
        if (count === 0) return { errno: null };
        done += count;
      } catch (error) {
        if (error instanceof Error && 'errno' in error) return { errno: -Number(error.errno) };
        throw error;
      }
    }
  }
  return null;
};
