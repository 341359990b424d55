import { once } from 'node:events';
import { request as httpRequest, type IncomingMessage } from 'node:http';
import { codeOf, type ErrorCode, messageOf, ReplaybdError } from '../base/errors.ts';
import { controlLimits } from '../base/limits.ts';

/**
 * One request to a daemon's control socket, with its parameters if it takes any; gives the decoded JSON, or the text of what is not
 * JSON (/metrics). Rejects with the daemon's own error code, with ERR_CONTROL_UNREACHABLE when no
 * daemon answers, with ERR_CONTROL_REPLY when what answers is not one, or the signal ends the wait for it.
 */
export async function controlRequest(
  socketPath: string,
  method: 'GET' | 'POST',
  path: string,
  parameters?: object,
  signal?: AbortSignal,
): Promise<unknown> {
  try {
    const body = parameters === undefined ? '' : JSON.stringify(parameters);
    const { status, type, text } = await exchange({ socketPath, method, path, body, signal });
    const value: unknown = type === 'application/json' ? JSON.parse(text) : text;
    if (status === 200) return value;
    throw remoteError(value, `${socketPath}: ${method} ${path}: HTTP status ${status}`);
  } catch (error) {
    if (error instanceof ReplaybdError) throw error;
    throw unreachable(socketPath, error);
  }
}

interface Exchange {
  socketPath: string;
  method: string;
  path: string;
  body: string;
  signal: AbortSignal | undefined;
}

/** One request over a connection of its own. Node's client: another takes longer to load than to ask. */
async function exchange({ body, signal, ...target }: Exchange) {
  const { replyMsMax: timeout, replyBytesMax } = controlLimits;
  const options = { ...target, timeout, agent: false };
  const request = httpRequest(signal === undefined ? options : { ...options, signal });
  request.on('timeout', () => request.destroy(new Error(`no answer within ${timeout} ms`)));
  // What goes wrong once there is a response is the response's to tell.
  request.on('error', () => undefined);
  request.end(body);
  const [response] = (await once(request, 'response')) as [IncomingMessage];
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of response as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > replyBytesMax) throw new Error(`more than ${replyBytesMax} bytes`);
    chunks.push(chunk);
  }
  const text = Buffer.concat(chunks).toString('utf8');
  return { status: response.statusCode, type: response.headers['content-type'], text };
}

function remoteError(value: unknown, fallback: string): ReplaybdError {
  const error = isRecord(value) && isRecord(value.error) ? value.error : {};
  const { code, message } = error;
  if (typeof code === 'string' && isErrorCode(code) && typeof message === 'string') {
    return new ReplaybdError(code, message);
  }
  return new ReplaybdError('ERR_CONTROL_REPLY', `${fallback}: is this a replaybd daemon?`);
}

function unreachable(socketPath: string, cause: unknown): ReplaybdError {
  const nobody = codeOf(cause) === 'ENOENT' || codeOf(cause) === 'ECONNREFUSED';
  return new ReplaybdError(
    nobody ? 'ERR_CONTROL_UNREACHABLE' : 'ERR_CONTROL_REPLY',
    nobody
      ? `${socketPath}: no daemon listens there. Is a device attached, and is this its socket?`
      : `${socketPath}: the daemon did not answer as expected: ${messageOf(cause)}`,
    { cause },
  );
}

function isErrorCode(code: string): code is ErrorCode {
  return code.startsWith('ERR_');
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null;
}
