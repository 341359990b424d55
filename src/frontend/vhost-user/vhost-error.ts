import { ReplaybdError } from '../../base/errors.ts';

/** For what a front end must not send: the message is refused, or the connection dropped. */
export function protocolError(what: string, expected: string, found: string): ReplaybdError {
  return new ReplaybdError(
    'ERR_VHOST_PROTOCOL',
    `vhost-user front end: ${what}: expected ${expected}, found ${found}`,
    { errno: 'EINVAL' },
  );
}

/** For what a guest must not put in a ring: the queue stops. */
export function ringError(what: string, expected: string, found: string): ReplaybdError {
  return new ReplaybdError(
    'ERR_VIRTQUEUE',
    `virtqueue: ${what}: expected ${expected}, found ${found}`,
    { errno: 'EINVAL' },
  );
}
