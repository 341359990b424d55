/** The daemon's control socket in the runtime directory. */
export const DAEMON_SOCKET = 'daemon.socket';
