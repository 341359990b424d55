import { fstatSync } from 'node:fs';
import { vhostUserLimits } from './limits.ts';
import { mapShared, type MemoryMap } from '../../../native/memory-map.ts';
import { protocolError } from './vhost-error.ts';

/** Where a piece of the guest's memory is: for the guest, for the front end, and in the file. */
export interface RegionLayout {
  guestAddress: number;
  sizeBytes: number;
  userAddress: number;
  fileOffset: number;
}

/** A piece of the guest's memory as this process has it. */
export interface GuestRegion extends RegionLayout {
  readonly map: MemoryMap;
  /** Exactly the region's bytes. */
  readonly bytes: Buffer;
  readonly view: DataView;
}

/**
 * The guest's memory. Every address that a guest or a front end names goes through `locate`, which
 * gives nothing that is not wholly inside one region.
 */
export class GuestMemory {
  #regions: GuestRegion[] = [];
  /** Where in its region the last address found is. */
  offset = 0;

  get regionCount(): number {
    return this.#regions.length;
  }

  /** The region that has all of [address, address + length), or null; `offset` says where in it. */
  locate(address: number, length: number): GuestRegion | null {
    const regions = this.#regions;
    for (let i = 0; i < regions.length; i += 1) {
      const region = regions[i];
      const offset = address - region.guestAddress;
      if (offset >= 0 && offset < region.sizeBytes && length <= region.sizeBytes - offset) {
        this.offset = offset;
        return region;
      }
    }
    return null;
  }

  /** As `locate`, for an address of the front end. */
  locateUser(address: number, length: number): GuestRegion | null {
    for (const region of this.#regions) {
      const offset = address - region.userAddress;
      if (offset >= 0 && offset < region.sizeBytes && length <= region.sizeBytes - offset) {
        this.offset = offset;
        return region;
      }
    }
    return null;
  }

  /** Maps a region; the descriptor stays the caller's. Throws ERR_VHOST_PROTOCOL, or mmap's error. */
  add(layout: RegionLayout, fd: number): void {
    if (this.#regions.length >= vhostUserLimits.memoryRegionsMax) {
      throw protocolError('memory', `at most ${vhostUserLimits.memoryRegionsMax} regions`, 'more');
    }
    checkLayout(layout);
    for (const other of this.#regions) {
      const isGuestApart =
        layout.guestAddress + layout.sizeBytes <= other.guestAddress ||
        other.guestAddress + other.sizeBytes <= layout.guestAddress;
      const isUserApart =
        layout.userAddress + layout.sizeBytes <= other.userAddress ||
        other.userAddress + other.sizeBytes <= layout.userAddress;
      if (!isGuestApart || !isUserApart) {
        throw protocolError('memory', 'regions apart', describe(layout));
      }
    }
    this.#regions.push(mapRegion(layout, fd));
  }

  /** Nobody may use the region's bytes any more. */
  remove({ guestAddress, sizeBytes, userAddress }: RegionLayout): void {
    const at = this.#regions.findIndex((region) => {
      const isSame = region.guestAddress === guestAddress && region.userAddress === userAddress;
      return isSame && region.sizeBytes === sizeBytes;
    });
    if (at < 0) throw protocolError('memory', 'a region that was added', `${sizeBytes} bytes`);
    for (const region of this.#regions.splice(at, 1)) region.map.unmap();
  }

  clear(): void {
    for (const region of this.#regions.splice(0)) region.map.unmap();
  }
}

function checkLayout(layout: RegionLayout): void {
  const { guestAddress, sizeBytes, userAddress, fileOffset } = layout;
  const max = vhostUserLimits.memoryBytesMax;
  // Addresses may lie anywhere below 2^53; what they and sizes add up to stays exact.
  const isExact = [guestAddress, userAddress].every(
    (address) => address + sizeBytes <= Number.MAX_SAFE_INTEGER,
  );
  if (!isExact || sizeBytes === 0 || sizeBytes > max || fileOffset > max) {
    throw protocolError('memory', 'a region inside 2^53 bytes', describe(layout));
  }
}

/**
 * From the file's start, and by whole blocks of it: an offset need not be one that the system can map, and
 * huge pages are mapped and unmapped whole.
 */
function mapRegion(layout: RegionLayout, fd: number): GuestRegion {
  const { sizeBytes, fileOffset } = layout;
  const { size, blksize } = fstatSync(fd);
  if (fileOffset + sizeBytes > size) {
    throw protocolError('memory', `a file that has ${describe(layout)}`, `${size} bytes`);
  }
  const mappedBytes = Math.ceil((fileOffset + sizeBytes) / blksize) * blksize;
  const map = mapShared(fd, 0, mappedBytes, `guest memory of ${sizeBytes} bytes`);
  const start = map.bytes.byteOffset + fileOffset;
  return {
    ...layout,
    map,
    bytes: Buffer.from(map.bytes.buffer, start, sizeBytes),
    view: new DataView(map.bytes.buffer, start, sizeBytes),
  };
}

function describe({ sizeBytes, guestAddress, fileOffset }: RegionLayout): string {
  return `${sizeBytes} bytes for 0x${guestAddress.toString(16)} at ${fileOffset} of the file`;
}
