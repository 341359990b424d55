import { formatError } from '../../../base/errors.ts';

// Generic netlink as linux/netlink.h and linux/genetlink.h have it: a header of 16 bytes, one of 4,
// then attributes padded to 4 bytes. All numbers are in the machine's order, which is little-endian
// on every machine that the project runs on.

const MESSAGE_HEADER_BYTES = 16;
const GENERIC_HEADER_BYTES = 4;
const ATTRIBUTE_HEADER_BYTES = 4;
const NLM_F_REQUEST = 1;
/** The type of a message that tells whether a request was carried out. */
const NLMSG_ERROR = 2;
/** Bits of an attribute's type that say how it is coded. */
const ATTRIBUTE_TYPE_MASK = 0x3fff;

/** By type; of several with the same type, the last. */
export type Attributes = ReadonlyMap<number, Buffer>;

export interface NetlinkMessage {
  /** A generic netlink family's number. */
  type: number;
  sequence: number;
  /** Of a refusal: what is wrong, an errno below zero. 0 for all others. */
  error: number;
  command: number;
  attributes: Attributes;
}

/** A request to a family. */
export function encodeMessage(
  type: number,
  command: number,
  sequence: number,
  attributes: readonly (readonly [type: number, value: Buffer])[],
): Buffer {
  const header = Buffer.alloc(MESSAGE_HEADER_BYTES + GENERIC_HEADER_BYTES);
  const parts = [header, ...attributes.map(([name, value]) => encodeAttribute(name, value))];
  const message = Buffer.concat(parts);
  message.writeUInt32LE(message.length, 0);
  message.writeUInt16LE(type, 4);
  message.writeUInt16LE(NLM_F_REQUEST, 6);
  message.writeUInt32LE(sequence, 8);
  message[MESSAGE_HEADER_BYTES] = command;
  message[MESSAGE_HEADER_BYTES + 1] = 1;
  return message;
}

function encodeAttribute(type: number, value: Buffer): Buffer {
  const lengthBytes = ATTRIBUTE_HEADER_BYTES + value.length;
  const attribute = Buffer.alloc(aligned(lengthBytes));
  attribute.writeUInt16LE(lengthBytes, 0);
  attribute.writeUInt16LE(type, 2);
  value.copy(attribute, ATTRIBUTE_HEADER_BYTES);
  return attribute;
}

/** The messages of one datagram. Throws ERR_NETLINK_MESSAGE for what does not follow the format. */
export function decodeMessages(datagram: Buffer): NetlinkMessage[] {
  const messages: NetlinkMessage[] = [];
  for (let at = 0; at + MESSAGE_HEADER_BYTES <= datagram.length;) {
    const lengthBytes = datagram.readUInt32LE(at);
    if (lengthBytes < MESSAGE_HEADER_BYTES || lengthBytes > datagram.length - at) {
      throw malformed(`a message of ${lengthBytes} bytes in ${datagram.length - at}`);
    }
    messages.push(decodeMessage(datagram.subarray(at, at + lengthBytes)));
    at += aligned(lengthBytes);
  }
  return messages;
}

function decodeMessage(bytes: Buffer): NetlinkMessage {
  const type = bytes.readUInt16LE(4);
  const sequence = bytes.readUInt32LE(8);
  const body = bytes.subarray(MESSAGE_HEADER_BYTES);
  if (body.length < GENERIC_HEADER_BYTES) throw malformed(`a body of ${body.length} bytes`);
  if (type === NLMSG_ERROR) {
    return { type, sequence, error: body.readInt32LE(0), command: 0, attributes: new Map() };
  }
  const attributes = decodeAttributes(body.subarray(GENERIC_HEADER_BYTES));
  return { type, sequence, error: 0, command: body[0], attributes };
}

/** Attributes, also those that an attribute holds. */
export function decodeAttributes(bytes: Buffer): Attributes {
  const attributes = new Map<number, Buffer>();
  for (let at = 0; at + ATTRIBUTE_HEADER_BYTES <= bytes.length;) {
    const lengthBytes = bytes.readUInt16LE(at);
    if (lengthBytes < ATTRIBUTE_HEADER_BYTES || lengthBytes > bytes.length - at) {
      throw malformed(`an attribute of ${lengthBytes} bytes in ${bytes.length - at}`);
    }
    const type = bytes.readUInt16LE(at + 2) & ATTRIBUTE_TYPE_MASK;
    attributes.set(type, bytes.subarray(at + ATTRIBUTE_HEADER_BYTES, at + lengthBytes));
    at += aligned(lengthBytes);
  }
  return attributes;
}

function aligned(lengthBytes: number): number {
  return (lengthBytes + 3) & ~3;
}

function malformed(found: string): Error {
  return formatError('ERR_NETLINK_MESSAGE', {
    name: 'TCM-USER',
    structure: 'netlink message',
    expected: 'lengths that fit',
    found,
  });
}
