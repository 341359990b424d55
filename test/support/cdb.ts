/** CDBs of block commands, and of others byte by byte. */
export function cdb(...bytes: (number | [number, 2 | 3 | 4 | 8])[]): Uint8Array {
  const parts = bytes.map((value) => {
    if (typeof value === 'number') return Uint8Array.of(value);
    const [number, size] = value;
    const part = Buffer.alloc(8);
    part.writeBigUInt64BE(BigInt(number));
    return part.subarray(8 - size);
  });
  return Buffer.concat(parts);
}

/** A command of 16 bytes over some blocks; `flags` are byte 1. */
export function cdb16(opcode: number, lba: number, blocks: number, flags = 0): Uint8Array {
  return cdb(opcode, flags, [lba, 8], [blocks, 4], 0, 0);
}

/** The same of 10 bytes. */
export function cdb10(opcode: number, lba: number, blocks: number, flags = 0): Uint8Array {
  return cdb(opcode, flags, [lba, 4], 0, [blocks, 2], 0);
}

/** UNMAP's parameter list. */
export function unmapList(ranges: readonly { lba: number; blocks: number }[]): Uint8Array {
  const list = Buffer.alloc(8 + ranges.length * 16);
  list.writeUInt16BE(list.length - 2, 0);
  list.writeUInt16BE(list.length - 8, 2);
  ranges.forEach(({ lba, blocks }, i) => {
    list.writeBigUInt64BE(BigInt(lba), 8 + i * 16);
    list.writeUInt32BE(blocks, 16 + i * 16);
  });
  return list;
}
