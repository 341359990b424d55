import { messageOf, ReplaybdError } from '../../base/errors.ts';
import { nbdLimits, SECTOR_BYTES } from '../../base/limits.ts';
import type { ByteQueue } from './byte-queue.ts';
import { type NbdDevice, type NbdExports, transmissionFlags } from './export.ts';
import { parseExportName, parseInfoRequest, parseMetaContextRequest } from './option-data.ts';
import {
  ALLOCATION_CONTEXT,
  ALLOCATION_CONTEXT_ID,
  EXPORT_NAME_PADDING_BYTES,
  handshakeFlag,
  infoType,
  option,
  OPTION_HEADER_BYTES,
  OPTION_MAGIC,
  OPTION_REPLY_HEADER_BYTES,
  OPTION_REPLY_MAGIC,
  optionReply,
  SERVER_MAGIC,
} from './protocol.ts';

const PREFERRED_BLOCK_BYTES = 4096;
const ALL_CLIENT_FLAGS = handshakeFlag.fixedNewstyle | handshakeFlag.noZeroes;

/** What client and server agreed on. */
export interface Negotiated {
  exportName: string;
  device: NbdDevice;
  structured: boolean;
  /** BLOCK_STATUS answers base:allocation. */
  allocation: boolean;
}

/** 'more': the queue ends within an element. 'abort': the client takes its leave. */
export type HandshakeStep = 'again' | 'more' | 'abort' | Negotiated;

/** The fixed newstyle handshake, server side: bytes in, replies out, one element a step. */
export class Handshake {
  readonly #exports: NbdExports;
  readonly #send: (bytes: Buffer) => void;
  #clientFlags: number | null = null;
  #header: OptionHeader | null = null;
  #optionCount = 0;
  #structured = false;
  /** Name of the export whose base:allocation context the client selected. */
  #allocationFor: string | null = null;

  constructor(exports: NbdExports, send: (bytes: Buffer) => void) {
    this.#exports = exports;
    this.#send = send;
  }

  greet(): void {
    const greeting = Buffer.alloc(18);
    greeting.writeBigUInt64BE(SERVER_MAGIC, 0);
    greeting.writeBigUInt64BE(OPTION_MAGIC, 8);
    greeting.writeUInt16BE(handshakeFlag.fixedNewstyle | handshakeFlag.noZeroes, 16);
    this.#send(greeting);
  }

  /** Throws ERR_NBD_PROTOCOL when the connection has to be dropped. */
  step(queue: ByteQueue): HandshakeStep {
    if (this.#clientFlags === null) return this.#takeClientFlags(queue);
    this.#header ??= this.#takeOptionHeader(queue);
    if (this.#header === null) return 'more';
    const data = queue.take(this.#header.length);
    if (data === null) return 'more';
    const { type } = this.#header;
    this.#header = null;
    try {
      return this.#answer(type, data);
    } catch (error) {
      if (!(error instanceof ReplaybdError) || error.code !== 'ERR_NBD_OPTION') throw error;
      if (type === option.exportName) throw violation(error.message);
      return this.#refuse(type, optionReply.errInvalid, messageOf(error));
    }
  }

  #takeClientFlags(queue: ByteQueue): HandshakeStep {
    const bytes = queue.take(4);
    if (bytes === null) return 'more';
    const flags = bytes.readUInt32BE(0);
    if ((flags & ~ALL_CLIENT_FLAGS) !== 0) {
      throw violation(`unknown client flags 0x${flags.toString(16)}`);
    }
    this.#clientFlags = flags;
    return 'again';
  }

  #takeOptionHeader(queue: ByteQueue): OptionHeader | null {
    const bytes = queue.take(OPTION_HEADER_BYTES);
    if (bytes === null) return null;
    if (bytes.readBigUInt64BE(0) !== OPTION_MAGIC) throw violation('an option without its magic');
    const header = { type: bytes.readUInt32BE(8), length: bytes.readUInt32BE(12) };
    if (header.length > nbdLimits.optionBytesMax) {
      throw violation(`an option of ${header.length} bytes`);
    }
    this.#optionCount += 1;
    if (this.#optionCount > nbdLimits.optionsMax) throw violation('options without end');
    return header;
  }

  #answer(type: number, data: Buffer): HandshakeStep {
    switch (type) {
      case option.exportName:
        return this.#exportName(parseExportName(data));
      case option.abort:
        this.#acknowledge(type);
        return 'abort';
      case option.list:
        return this.#list(data);
      case option.startTls:
        return this.#refuse(type, optionReply.errPolicy, 'this server speaks no TLS');
      case option.info:
      case option.go:
        return this.#info(type, data);
      case option.structuredReply:
        if (data.length > 0) {
          return this.#refuse(type, optionReply.errInvalid, 'the option takes no data');
        }
        this.#structured = true;
        return this.#acknowledge(type);
      case option.listMetaContext:
      case option.setMetaContext:
        return this.#metaContext(type, data);
      default:
        return this.#refuse(type, optionReply.errUnsupported, 'the option is not known');
    }
  }

  #exportName(name: string): Negotiated {
    const device = this.#exports.get(name);
    // The option has no error reply: the protocol has the server hang up.
    if (device === undefined) throw violation('an export name that is not served');
    const wantsPadding = ((this.#clientFlags ?? 0) & handshakeFlag.noZeroes) === 0;
    const reply = Buffer.alloc(10 + (wantsPadding ? EXPORT_NAME_PADDING_BYTES : 0));
    reply.writeBigUInt64BE(BigInt(device.virtualSizeBytes), 0);
    reply.writeUInt16BE(transmissionFlags(device, this.#structured), 8);
    this.#send(reply);
    return this.#negotiated(name, device);
  }

  #list(data: Buffer): HandshakeStep {
    if (data.length > 0) {
      return this.#refuse(option.list, optionReply.errInvalid, 'the option takes no data');
    }
    for (const name of this.#exports.keys()) {
      const length = Buffer.alloc(4);
      length.writeUInt32BE(Buffer.byteLength(name));
      this.#reply(option.list, optionReply.server, Buffer.concat([length, Buffer.from(name)]));
    }
    return this.#acknowledge(option.list);
  }

  #info(type: number, data: Buffer): HandshakeStep {
    const { exportName, infoTypes } = parseInfoRequest(data);
    const device = this.#exports.get(exportName);
    if (device === undefined) return this.#refuseUnknown(type);
    this.#reply(type, optionReply.info, exportInfo(device, this.#structured));
    this.#reply(type, optionReply.info, blockSizeInfo());
    if (infoTypes.includes(infoType.name)) {
      this.#reply(type, optionReply.info, textInfo(infoType.name, exportName));
    }
    if (infoTypes.includes(infoType.description)) {
      const description = `replaybd device ${device.id}`;
      this.#reply(type, optionReply.info, textInfo(infoType.description, description));
    }
    this.#acknowledge(type);
    return type === option.go ? this.#negotiated(exportName, device) : 'again';
  }

  #metaContext(type: number, data: Buffer): HandshakeStep {
    const selects = type === option.setMetaContext;
    if (selects) this.#allocationFor = null;
    if (!this.#structured) {
      return this.#refuse(type, optionReply.errInvalid, 'structured replies come first');
    }
    const { exportName, queries } = parseMetaContextRequest(data);
    if (!this.#exports.has(exportName)) return this.#refuseUnknown(type);
    const matches = selects
      ? queries.includes(ALLOCATION_CONTEXT)
      : queries.length === 0 || queries.includes(ALLOCATION_CONTEXT) || queries.includes('base:');
    if (matches) {
      const context = Buffer.alloc(4);
      context.writeUInt32BE(selects ? ALLOCATION_CONTEXT_ID : 0);
      const payload = Buffer.concat([context, Buffer.from(ALLOCATION_CONTEXT)]);
      this.#reply(type, optionReply.metaContext, payload);
      if (selects) this.#allocationFor = exportName;
    }
    return this.#acknowledge(type);
  }

  #negotiated(exportName: string, device: NbdDevice): Negotiated {
    const allocation = this.#allocationFor === exportName;
    return { exportName, device, structured: this.#structured, allocation };
  }

  #acknowledge(type: number): 'again' {
    this.#reply(type, optionReply.ack, Buffer.alloc(0));
    return 'again';
  }

  #refuseUnknown(type: number): 'again' {
    return this.#refuse(type, optionReply.errUnknown, 'no export has that name');
  }

  #refuse(type: number, error: number, message: string): 'again' {
    this.#reply(type, error, Buffer.from(message));
    return 'again';
  }

  #reply(type: number, replyType: number, payload: Buffer): void {
    const header = Buffer.alloc(OPTION_REPLY_HEADER_BYTES);
    header.writeBigUInt64BE(OPTION_REPLY_MAGIC, 0);
    header.writeUInt32BE(type, 8);
    header.writeUInt32BE(replyType, 12);
    header.writeUInt32BE(payload.length, 16);
    this.#send(Buffer.concat([header, payload]));
  }
}

interface OptionHeader {
  type: number;
  length: number;
}

function exportInfo(device: NbdDevice, structured: boolean): Buffer {
  const info = Buffer.alloc(12);
  info.writeUInt16BE(infoType.export, 0);
  info.writeBigUInt64BE(BigInt(device.virtualSizeBytes), 2);
  info.writeUInt16BE(transmissionFlags(device, structured), 10);
  return info;
}

function blockSizeInfo(): Buffer {
  const info = Buffer.alloc(14);
  info.writeUInt16BE(infoType.blockSize, 0);
  info.writeUInt32BE(SECTOR_BYTES, 2);
  info.writeUInt32BE(PREFERRED_BLOCK_BYTES, 6);
  info.writeUInt32BE(nbdLimits.requestBytesMax, 10);
  return info;
}

function textInfo(type: number, text: string): Buffer {
  const info = Buffer.alloc(2);
  info.writeUInt16BE(type);
  return Buffer.concat([info, Buffer.from(text)]);
}

function violation(what: string): ReplaybdError {
  return new ReplaybdError('ERR_NBD_PROTOCOL', `NBD client: sent ${what}; connection dropped`);
}
