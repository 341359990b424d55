import { NbdReader } from '../../src/demo/nbd-client.ts';

const READ_BYTES = 256 * 1024;

/** Reads a part of the export behind a socket, one request after the other. */
export async function nbdRead(socketPath: string, offset: number, length: number): Promise<Buffer> {
  const reader = await NbdReader.connect(socketPath);
  try {
    const pieces: Uint8Array[] = [];
    for (let at = offset; at < offset + length; at += READ_BYTES) {
      pieces.push(await reader.read(at, Math.min(READ_BYTES, offset + length - at)));
    }
    return Buffer.concat(pieces);
  } finally {
    await reader.close();
  }
}
