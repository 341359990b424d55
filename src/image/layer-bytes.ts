/** A layer's LSMT file as bytes, whatever wraps it (tar, ZFile) and wherever it is. */
export interface LayerBytes {
  /** File path or URL, for messages. */
  readonly name: string;
  readonly sizeBytes: number;
  /** Exactly [offset, offset + length), which must lie inside the file. */
  read(offset: number, length: number): Promise<Uint8Array>;
  /** Reads many pieces at once, where that is faster than one after the other. */
  readPieces?(pieces: readonly LayerPiece[], into: Uint8Array): Promise<void>;
}

/** A piece of a layer, and where it goes. */
export interface LayerPiece {
  /** Byte of the LSMT file. */
  offset: number;
  length: number;
  /** Byte of the destination. */
  target: number;
}
