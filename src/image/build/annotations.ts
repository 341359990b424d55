/**
 * Annotations of overlaybd layers. containerd hands those with the prefix `containerd.io/snapshot/`
 * to the snapshotter, which is why they carry it.
 */
export const annotation = {
  blobDigest: 'containerd.io/snapshot/overlaybd/blob-digest',
  blobSize: 'containerd.io/snapshot/overlaybd/blob-size',
  fsType: 'containerd.io/snapshot/overlaybd/blob-fs-type',
  version: 'containerd.io/snapshot/overlaybd/version',
  accelerationLayer: 'containerd.io/snapshot/overlaybd/acceleration-layer',
} as const;

/** Of the format of native layers. */
export const LAYER_VERSION = '0.1.0';

/** The annotations of a native ext4 layer. */
export function layerAnnotations(digest: string, sizeBytes: number): Record<string, string> {
  return {
    [annotation.blobDigest]: digest,
    [annotation.blobSize]: String(sizeBytes),
    [annotation.fsType]: 'ext4',
    [annotation.version]: LAYER_VERSION,
  };
}
