import { ReplaybdError } from '../../base/errors.ts';
import { nbdLimits } from '../../base/limits.ts';

/** Data of INFO and GO: which export, and what the client would like to know of it. */
export interface InfoRequest {
  exportName: string;
  infoTypes: number[];
}

/** Data of LIST_META_CONTEXT and SET_META_CONTEXT. */
export interface MetaContextRequest {
  exportName: string;
  queries: string[];
}

/** Option data that does not follow its layout (ERR_NBD_OPTION): the client gets ERR_INVALID. */
export function parseInfoRequest(data: Buffer): InfoRequest {
  const reader = new OptionReader(data);
  const exportName = reader.string(reader.uint32());
  const count = reader.uint16();
  const infoTypes: number[] = [];
  for (let index = 0; index < count; index += 1) infoTypes.push(reader.uint16());
  reader.end();
  return { exportName, infoTypes };
}

/** As `parseInfoRequest`, for metadata contexts. */
export function parseMetaContextRequest(data: Buffer): MetaContextRequest {
  const reader = new OptionReader(data);
  const exportName = reader.string(reader.uint32());
  const count = reader.uint32();
  const queries: string[] = [];
  // Each query takes at least its length field, so the data bounds the loop.
  for (let index = 0; index < count; index += 1) queries.push(reader.string(reader.uint32()));
  reader.end();
  return { exportName, queries };
}

/** An export name that is all of an option's data. */
export function parseExportName(data: Buffer): string {
  return new OptionReader(data).string(data.length);
}

class OptionReader {
  readonly #data: Buffer;
  #position = 0;

  constructor(data: Buffer) {
    this.#data = data;
  }

  uint16(): number {
    return this.#data.readUInt16BE(this.#reserve(2));
  }

  uint32(): number {
    return this.#data.readUInt32BE(this.#reserve(4));
  }

  string(length: number): string {
    if (length > nbdLimits.nameBytesMax)
      throw malformed('a string longer than the protocol allows');
    const start = this.#reserve(length);
    const text = this.#data.toString('utf8', start, start + length);
    if (text.includes('\0')) throw malformed('a string with a NUL in it');
    return text;
  }

  end(): void {
    if (this.#position !== this.#data.length) throw malformed('bytes after its end');
  }

  #reserve(count: number): number {
    const start = this.#position;
    if (start + count > this.#data.length) throw malformed('an end too early');
    this.#position += count;
    return start;
  }
}

function malformed(found: string): ReplaybdError {
  return new ReplaybdError('ERR_NBD_OPTION', `NBD client: option data has ${found}`);
}
