import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer as createPlainServer } from 'node:http';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { TLSSocket } from 'node:tls';
import { test, type TestContext } from 'node:test';
import { createRegistryClient, type RegistryClientOptions } from '../../src/registry/client.ts';
import { isRetryable } from '../../src/registry/errors.ts';
import { certificateSkip, makeCertificate } from '../support/certificate.ts';
import { readRange, temporaryFolder } from './harness.ts';

// Goal: certificates are verified, client certificates go to registries only, and nothing falls
// back to plain HTTP unasked.
// Method: HTTPS servers with certificates made on the spot.

const skip = certificateSkip;
const DIGEST = `sha256:${'ab'.repeat(32)}`;

async function serve(
  t: TestContext,
  certificate: { cert: Buffer; key: Buffer } | null,
  location: string | null,
) {
  const identities: (string | undefined)[] = [];
  const onRequest: Parameters<typeof createPlainServer>[1] = (request, response) => {
    const { socket } = request;
    const isTls = socket instanceof TLSSocket;
    identities.push(isTls ? socket.getPeerCertificate().subject?.CN?.toString() : undefined);
    if (location !== null) response.writeHead(307, { location }).end();
    else response.writeHead(206, { 'content-range': 'bytes 0-3/100' }).end('abcd');
  };
  const options = { requestCert: true, rejectUnauthorized: false };
  const server =
    certificate === null
      ? createPlainServer(onRequest)
      : createServer({ ...options, cert: certificate.cert, key: certificate.key }, onRequest);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  const host = `127.0.0.1:${(server.address() as AddressInfo).port}`;
  return { host, identities };
}

function read(t: TestContext, name: string, options: RegistryClientOptions): Promise<Buffer> {
  const client = createRegistryClient(options);
  t.after(() => client.close());
  return readRange(client.blobSource(name, DIGEST, 100), 0, 4);
}

test('an unknown authority is refused for good; a named one is trusted', { skip }, async (t) => {
  const certificate = makeCertificate(temporaryFolder(t));
  const { host } = await serve(t, certificate, null);
  await assert.rejects(read(t, `${host}/a`, {}), (error) => {
    assert.ok(!isRetryable(error));
    return (error as { code: string }).code === 'ERR_REGISTRY_TLS';
  });
  const caFiles = [certificate.certFile];
  assert.equal((await read(t, `${host}/a`, { caFiles })).toString(), 'abcd');
  const absent = { caFiles: ['/nonexistent/ca.pem'] };
  assert.throws(() => createRegistryClient(absent), { code: 'ERR_REGISTRY_CERTIFICATE' });
});

test(
  'the client certificate goes to the registry, not to redirect targets',
  { skip },
  async (t) => {
    const certificate = makeCertificate(temporaryFolder(t));
    const target = await serve(t, certificate, null);
    const registry = await serve(t, certificate, `https://${target.host}/elsewhere`);
    const options = { caFiles: [certificate.certFile], clientCertificate: certificate };
    assert.equal((await read(t, `${registry.host}/a`, options)).toString(), 'abcd');
    assert.deepEqual(registry.identities, ['test']);
    assert.deepEqual(target.identities, [undefined]);
  },
);

test('TLS is given up only where that was asked for', { skip }, async (t) => {
  const certificate = makeCertificate(temporaryFolder(t));
  const target = await serve(t, null, null);
  const registry = await serve(t, certificate, `http://${target.host}/elsewhere`);
  const caFiles = [certificate.certFile];
  const refused = { code: 'ERR_REGISTRY_REDIRECT' };
  await assert.rejects(read(t, `${registry.host}/a`, { caFiles }), refused);
  assert.deepEqual(target.identities, []);
  const plainHttpHosts = [target.host];
  const allowed = await read(t, `${registry.host}/a`, { caFiles, plainHttpHosts });
  assert.equal(allowed.toString(), 'abcd');
  // A loopback host without a scheme means TLS like any other.
  await assert.rejects(read(t, `${target.host}/a`, {}), (error) => {
    return /ERR_REGISTRY_(TLS|NETWORK)/.test((error as { code: string }).code);
  });
  assert.equal((await read(t, `http://${target.host}/a`, {})).toString(), 'abcd');
  assert.equal((await read(t, `${target.host}/a`, { plainHttpHosts })).toString(), 'abcd');
});
