import { createServer } from 'node:http';
import { once } from 'node:events';

// The demonstration's workload: a small web service as people write them. It loads a realistic number
// of modules, listens, answers its own first request, says so and ends. Only names from the image's
// own node_modules are imported.

const MODULES = [
  'undici',
  'commander',
  'pino',
  'prom-client',
  'msgpackr',
  'p-queue',
  'react',
  'ink',
  'prettier',
  'eslint',
];

const loaded = await Promise.all(MODULES.map((name) => import(name) as Promise<object>));
const server = createServer((request, response) => {
  response.setHeader('content-type', 'application/json');
  response.end(JSON.stringify({ path: request.url, modules: loaded.length }));
});
server.listen(0, '127.0.0.1');
await once(server, 'listening');
const address = server.address();
if (address === null || typeof address === 'string') throw new Error('no port');
const answer = await fetch(`http://127.0.0.1:${address.port}/health`);
const body = await answer.text();
process.stdout.write(`ready ${body}\n`);
process.exit(answer.ok ? 0 : 1);
