import type { RegistryClient } from '../../registry/client.ts';
import type { Descriptor } from '../../registry/manifest.ts';
import { parseReference, type ImageReference } from '../../registry/reference.ts';
import type { ImageSource, LayerInput, SourceObject } from './source.ts';

/** What a source needs of a registry. */
export type SourceRegistry = Pick<RegistryClient, 'getObject' | 'getBlob' | 'blobSource'>;

/** An image or index in a registry. Errors of its methods: those of the registry client. */
export function registrySource(client: SourceRegistry, reference: string): ImageSource {
  return new RegistrySource(client, reference, parseReference(reference));
}

class RegistrySource implements ImageSource {
  readonly name: string;
  readonly #client: SourceRegistry;
  readonly #reference: ImageReference;

  constructor(client: SourceRegistry, name: string, reference: ImageReference) {
    this.name = name;
    this.#client = client;
    this.#reference = reference;
  }

  async root(signal?: AbortSignal): Promise<SourceObject> {
    return this.#get(this.#reference, signal);
  }

  async child(descriptor: Descriptor, signal?: AbortSignal): Promise<SourceObject> {
    const reference = { ...this.#reference, tag: null, digest: descriptor.digest };
    return this.#get(reference, signal);
  }

  config(descriptor: Descriptor): Promise<Uint8Array> {
    return this.#client.getBlob(this.#reference, descriptor.digest);
  }

  async layer({ digest, size }: Descriptor): Promise<LayerInput> {
    const ranges = this.#client.blobSource(this.#reference, digest, size);
    return { kind: 'remote', ranges, sizeBytes: size, digest };
  }

  async #get(reference: ImageReference, signal?: AbortSignal): Promise<SourceObject> {
    const options = signal === undefined ? {} : { signal };
    const { digest, mediaType, bytes, manifest } = await this.#client.getObject(reference, options);
    return { descriptor: { mediaType, digest, size: bytes.length }, manifest };
  }
}
