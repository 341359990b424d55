import { Client } from 'undici';
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
  const client = new Client('http://localhost', {
    socketPath,
    headersTimeout: controlLimits.replyMsMax,
    bodyTimeout: controlLimits.replyMsMax,
    maxResponseSize: controlLimits.replyBytesMax,
  });
  try {
    const { statusCode, headers, body } = await client.request({
      method,
      path,
      ...(signal === undefined ? {} : { signal }),
      ...(parameters === undefined ? {} : { body: JSON.stringify(parameters) }),
    });
    const text = await body.text();
    const isJson = headers['content-type'] === 'application/json';
    const value: unknown = isJson ? JSON.parse(text) : text;
    if (statusCode === 200) return value;
    throw remoteError(value, `${socketPath}: ${method} ${path}: HTTP status ${statusCode}`);
  } catch (error) {
    if (error instanceof ReplaybdError) throw error;
    throw unreachable(socketPath, error);
  } finally {
    await client.destroy();
  }
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
