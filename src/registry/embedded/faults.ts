/** What a fault hook is told of a request, and what the request log keeps. */
export interface RequestFacts {
  /** 0 for the first request of the server's life. */
  index: number;
  method: string;
  /** Path and query. */
  url: string;
  kind: 'base' | 'token' | 'manifest' | 'blob' | 'upload' | 'tags' | 'referrers' | 'other';
  /** The second listener, to which blobs are redirected. */
  isTarget: boolean;
  range: string | null;
  hasAuthorization: boolean;
}

/** One misbehaviour; the rest of the answer stays what it would have been. */
export type Fault =
  /** Another status instead of the answer. */
  | { kind: 'status'; status: number; headers?: Record<string, string> }
  /** The whole blob with status 200, whatever range was asked. */
  | { kind: 'ignore-range' }
  /** Headers set over the right ones. */
  | { kind: 'headers'; headers: Record<string, string> }
  /** The body ends early or late, honestly framed: by Content-Length, or chunked. */
  | { kind: 'body-length'; delta: number; framing: 'length' | 'chunked' }
  /** The connection is destroyed after so many bytes of the body. */
  | { kind: 'cut'; afterBytes: number }
  /** Silence after so many bytes of the body, until the client gives up. */
  | { kind: 'stall'; afterBytes: number }
  /** One byte of the body is inverted. */
  | { kind: 'corrupt'; atByte: number }
  /** Silence before the answer. */
  | { kind: 'delay'; ms: number };

/** Called for every request; undefined means: behave. */
export type FaultHook = (request: RequestFacts) => Fault | undefined;
