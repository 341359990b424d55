/** A layer's LSMT file as bytes, whatever wraps it (tar, ZFile) and wherever it is. */
export interface LayerBytes {
  /** File path or URL, for messages. */
  readonly name: string;
  readonly sizeBytes: number;
  /** Exactly [offset, offset + length), which must lie inside the file. */
  read(offset: number, length: number): Promise<Uint8Array>;
}
