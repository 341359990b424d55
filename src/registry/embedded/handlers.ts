import type { IncomingMessage } from 'node:http';
import { registryLimits } from '../../base/limits.ts';
import { messageOf } from '../../base/errors.ts';
import { digestOf, isDigest } from '../digest.ts';
import { isIndex, mediaTypes, parseManifest } from '../manifest.ts';
import { resolveRanges, type ResolvedRange } from './range-header.ts';
import { errorReply, jsonReply, type FilePiece, type Reply } from './reply.ts';
import type { Route } from './routes.ts';
import type { DirectoryStore } from './store.ts';

export interface HandlerContext {
  store: DirectoryStore;
  request: IncomingMessage;
  route: Route & { repository: string };
  query: URLSearchParams;
  hasReferrers: boolean;
  /** Origin that serves blobs instead of us; null when we do. */
  targetOrigin: string | null;
  ignoresRange: boolean;
}

/** Answers everything under /v2/<repository>/. */
export async function handle(context: HandlerContext): Promise<Reply> {
  const { route, request } = context;
  const isRead = request.method === 'GET' || request.method === 'HEAD';
  if (route.kind === 'blob' && isRead) return readBlob(context);
  if (route.kind === 'manifest' && isRead) return readManifest(context);
  if (route.kind === 'manifest' && request.method === 'PUT') return writeManifest(context);
  if (route.kind === 'manifest' && request.method === 'DELETE') return deleteManifest(context);
  if (route.kind === 'upload') return writeUpload(context);
  if (route.kind === 'tags' && isRead) return readTags(context);
  if (route.kind === 'referrers' && isRead && context.hasReferrers) return readReferrers(context);
  return errorReply(404, 'UNSUPPORTED');
}

/** Serves a blob file, whole or one range of it. */
export function blobReply(
  found: { path: string; sizeBytes: number } | null,
  digest: string,
  range: string | undefined,
): Reply {
  if (found === null) return errorReply(404, 'BLOB_UNKNOWN');
  const { path, sizeBytes } = found;
  const headers: Record<string, string> = {
    'content-type': 'application/octet-stream',
    'docker-content-digest': digest,
    etag: `"${digest}"`,
    'accept-ranges': 'bytes',
  };
  const ranges = resolveRanges(range, sizeBytes);
  if (ranges === 'unsatisfiable') {
    return errorReply(416, 'RANGE_INVALID', { 'content-range': `bytes */${sizeBytes}` });
  }
  if (ranges === 'all') {
    const pieces = [{ start: 0, end: sizeBytes }];
    return { status: 200, headers, body: { kind: 'file', path, pieces } };
  }
  if (ranges.length > 1) {
    headers['content-type'] = `multipart/byteranges; boundary=${BOUNDARY}`;
    const pieces = multipartPieces(ranges, sizeBytes);
    return { status: 206, headers, body: { kind: 'file', path, pieces } };
  }
  headers['content-range'] = contentRange(ranges[0], sizeBytes);
  return { status: 206, headers, body: { kind: 'file', path, pieces: ranges } };
}

/** Nothing looks for it: each part tells how long it is. */
const BOUNDARY = 'replaybd-part';

/** A multipart/byteranges body (RFC 9110, 14.6). */
function multipartPieces(ranges: readonly ResolvedRange[], sizeBytes: number): FilePiece[] {
  const pieces: FilePiece[] = [];
  for (const range of ranges) {
    const head =
      `\r\n--${BOUNDARY}\r\nContent-Type: application/octet-stream\r\n` +
      `Content-Range: ${contentRange(range, sizeBytes)}\r\n\r\n`;
    pieces.push(Buffer.from(head), range);
  }
  pieces.push(Buffer.from(`\r\n--${BOUNDARY}--\r\n`));
  return pieces;
}

function contentRange({ start, end }: ResolvedRange, sizeBytes: number): string {
  return `bytes ${start}-${end - 1}/${sizeBytes}`;
}

function readBlob({ store, route, request, targetOrigin, ignoresRange }: HandlerContext): Reply {
  if (!isDigest(route.item)) return errorReply(400, 'DIGEST_INVALID');
  const found = store.blob(route.repository, route.item);
  if (found !== null && targetOrigin !== null && request.method === 'GET') {
    const location = `${targetOrigin}/content/${route.item}?signature=${signatureOf(route.item)}`;
    return { status: 307, headers: { location } };
  }
  return blobReply(found, route.item, ignoresRange ? undefined : request.headers.range);
}

/** Stands for the signature a storage service would put into its URLs. */
export function signatureOf(digest: string): string {
  return digestOf(Buffer.from(`signed ${digest}`)).slice(-32);
}

function readManifest({ store, route }: HandlerContext): Reply {
  const found = store.manifest(route.repository, route.item);
  if (found === null) return errorReply(404, 'MANIFEST_UNKNOWN');
  const headers = { 'content-type': found.mediaType, 'docker-content-digest': found.digest };
  return { status: 200, headers, body: { kind: 'bytes', bytes: found.bytes } };
}

async function writeManifest(context: HandlerContext): Promise<Reply> {
  const { store, route, request } = context;
  const bytes = await readBody(request, registryLimits.manifestBytesMax);
  if (bytes === null) return errorReply(413, 'MANIFEST_INVALID');
  const digest = digestOf(bytes);
  if (isDigest(route.item) && route.item !== digest) return errorReply(400, 'DIGEST_INVALID');
  let manifest;
  try {
    manifest = parseManifest('manifest', bytes);
  } catch (error) {
    return jsonReply(400, { errors: [{ code: 'MANIFEST_INVALID', message: messageOf(error) }] });
  }
  const missing = isIndex(manifest)
    ? manifest.manifests.find((item) => store.manifest(route.repository, item.digest) === null)
    : [manifest.config, ...manifest.layers].find(
        (item) => store.blob(route.repository, item.digest) === null,
      );
  if (missing !== undefined) return errorReply(400, 'MANIFEST_BLOB_UNKNOWN');
  const mediaType = request.headers['content-type'] ?? mediaTypes.ociManifest;
  const tag = isDigest(route.item) ? null : route.item;
  store.putManifest(route.repository, { digest, mediaType, bytes }, tag);
  const location = `/v2/${route.repository}/manifests/${digest}`;
  const headers: Record<string, string> = { location, 'docker-content-digest': digest };
  if (manifest.subject !== undefined && context.hasReferrers) {
    const configType = isIndex(manifest) ? undefined : manifest.config.mediaType;
    const artifactType = manifest.artifactType ?? configType;
    store.addReferrer(route.repository, manifest.subject.digest, {
      mediaType,
      digest,
      size: bytes.length,
      ...(artifactType === undefined ? {} : { artifactType }),
      ...(manifest.annotations === undefined ? {} : { annotations: manifest.annotations }),
    });
    headers['oci-subject'] = manifest.subject.digest;
  }
  return { status: 201, headers };
}

/** By digest alone: what a tag names may be meant by somebody else (specification, "Deleting Manifests"). */
function deleteManifest({ store, route }: HandlerContext): Reply {
  if (!isDigest(route.item)) return errorReply(405, 'UNSUPPORTED');
  const found = store.manifest(route.repository, route.item);
  if (found === null) return errorReply(404, 'MANIFEST_UNKNOWN');
  const { subject } = parseManifest('manifest', found.bytes);
  store.removeManifest(route.repository, route.item, subject?.digest ?? null);
  return { status: 202 };
}

function readReferrers({ store, route, query }: HandlerContext): Reply {
  if (!isDigest(route.item)) return errorReply(400, 'DIGEST_INVALID');
  const wanted = query.get('artifactType');
  const all = store.referrers(route.repository, route.item);
  const manifests = all.filter(({ artifactType }) => wanted === null || artifactType === wanted);
  const headers: Record<string, string> = { 'content-type': mediaTypes.ociIndex };
  if (wanted !== null) headers['oci-filters-applied'] = 'artifactType';
  const index = { schemaVersion: 2, mediaType: mediaTypes.ociIndex, manifests };
  return jsonReply(200, index, headers);
}

/** A page of `n` tags behind `last` (specification, "Listing Tags"); all of them without `n`. */
function readTags({ store, route, query }: HandlerContext): Reply {
  const { repository } = route;
  const last = query.get('last') ?? '';
  const rest = store.tags(repository).filter((tag) => tag > last);
  const count = /^[1-9]\d{0,8}$/.test(query.get('n') ?? '') ? Number(query.get('n')) : rest.length;
  const tags = rest.slice(0, count);
  const next = `/v2/${repository}/tags/list?n=${count}&last=${tags.at(-1) ?? ''}`;
  const headers: Record<string, string> =
    rest.length > count ? { link: `<${next}>; rel="next"` } : {};
  return jsonReply(200, { name: repository, tags }, headers);
}

async function writeUpload(context: HandlerContext): Promise<Reply> {
  const { store, route, request, query } = context;
  if (request.method === 'POST' && route.item === '') return beginUpload(context);
  const size = store.uploadSize(route.item);
  if (size === null) return errorReply(404, 'BLOB_UPLOAD_UNKNOWN');
  const progress = (end: number): Record<string, string> => ({
    location: `/v2/${route.repository}/blobs/uploads/${route.item}`,
    range: `0-${Math.max(0, end - 1)}`,
  });
  if (request.method === 'GET') return { status: 204, headers: progress(size) };
  const isChunk = request.method === 'PATCH';
  if (!isChunk && request.method !== 'PUT') return errorReply(405, 'UNSUPPORTED');
  const start = /^(\d{1,15})-\d{1,15}$/.exec(request.headers['content-range'] ?? `${size}-0`)?.[1];
  if (Number(start) !== size) return errorReply(416, 'BLOB_UPLOAD_INVALID', progress(size));
  await store.appendUpload(route.item, request);
  if (isChunk) return { status: 202, headers: progress(store.uploadSize(route.item) ?? 0) };
  const digest = query.get('digest') ?? '';
  if (!isDigest(digest)) return errorReply(400, 'DIGEST_INVALID');
  return (await store.finishUpload(route.repository, route.item, digest))
    ? created(route.repository, digest)
    : errorReply(400, 'DIGEST_INVALID');
}

async function beginUpload({ store, route, request, query }: HandlerContext): Promise<Reply> {
  const mount = query.get('mount') ?? '';
  if (isDigest(mount) && store.mount(route.repository, query.get('from') ?? '', mount)) {
    return created(route.repository, mount);
  }
  const id = store.beginUpload();
  const digest = query.get('digest') ?? '';
  if (!isDigest(digest)) {
    const location = `/v2/${route.repository}/blobs/uploads/${id}`;
    return { status: 202, headers: { location, range: '0-0' } };
  }
  await store.appendUpload(id, request);
  return (await store.finishUpload(route.repository, id, digest))
    ? created(route.repository, digest)
    : errorReply(400, 'DIGEST_INVALID');
}

function created(repository: string, digest: string): Reply {
  const location = `/v2/${repository}/blobs/${digest}`;
  return { status: 201, headers: { location, 'docker-content-digest': digest } };
}

async function readBody(request: IncomingMessage, limitBytes: number): Promise<Buffer | null> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of request) {
    const bytes = chunk as Buffer;
    length += bytes.length;
    if (length > limitBytes) return null;
    chunks.push(bytes);
  }
  return Buffer.concat(chunks);
}
