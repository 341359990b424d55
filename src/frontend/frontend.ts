/** How a guest reaches a device. Every front end is started by a function and ended by `close`. */
export interface Frontend {
  readonly kind: FrontendKind;
  /** What a guest opens: a path (file or block device) or a URL such as nbd+unix:///... */
  readonly path: string;
  /**
   * Stops serving and removes what the front end made. Requests in flight are answered first where
   * the protocol allows it. May be called again, and while an earlier call is still running.
   */
  close(): Promise<void>;
}

export type FrontendKind = 'fuse' | 'nbd';
