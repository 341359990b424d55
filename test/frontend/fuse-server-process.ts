import { startFuse } from '../../src/frontend/fuse/fuse-frontend.ts';
import { MemoryDisk } from '../../bench/support/fuse-disk.ts';
import { readFileSync } from 'node:fs';

// A process for tests to end in every way. Serves IMAGE below DIRECTORY, mounted on MOUNT, prints
// a line once it does, and leaves by process.exit when its input ends.

const [image, directory, mount] = process.argv.slice(2);
const bytes = readFileSync(image);
const disk = new MemoryDisk('process', bytes.length);
disk.bytes.set(bytes);
const { filePath, loopDevice } = await startFuse(disk, { reader: disk.reader, directory, mount });
console.log(JSON.stringify({ filePath, loopDevice }));
process.stdin.on('end', () => process.exit(7)).resume();
