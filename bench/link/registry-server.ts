import { startEmbeddedRegistry } from '../../src/registry/embedded/server.ts';

// The embedded registry as a process for one namespace: registry-server ROOT ADDRESS PORT.

const [root = '', host = '', port = ''] = process.argv.slice(2);
await startEmbeddedRegistry({ root, host, port: Number(port) });
