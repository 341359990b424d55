import { ok, problem, warning, type Finding } from './finding.ts';
import type { SystemView } from './system-view.ts';

/** Two descriptors a layer, for some hundreds of devices. */
const OPEN_FILES_MIN = 65_536;

/** The machine, the runtime, and what they are allowed. */
export function checkHost(system: SystemView): Finding[] {
  return [checkPlatform(system), checkNode(system), checkOpenFiles(system)];
}

export function checkPlatform({ platform, endianness, kernelRelease }: SystemView): Finding {
  const name = 'platform';
  if (platform === 'linux' && endianness === 'LE') return ok(name, `Linux ${kernelRelease}`);
  const found = platform === 'linux' ? 'a big-endian machine' : platform;
  return problem(name, found, 'devices cannot be served', 'use Linux on x86-64 or arm64');
}

/** For whoever reads a report: a Node.js that is too old runs no command, this one included. */
export function checkNode({ nodeVersion }: SystemView): Finding {
  return ok('node', nodeVersion);
}

export function checkOpenFiles(system: SystemView): Finding {
  const name = 'open-files';
  const limits = system.readText('/proc/self/limits') ?? '';
  const text = /^Max open files\s+(\S+)/m.exec(limits)?.[1];
  if (text === undefined) return ok(name, 'limit unknown');
  const limit = text === 'unlimited' ? Infinity : Number(text);
  if (limit >= OPEN_FILES_MIN) return ok(name, `limit ${text}`);
  return warning(
    name,
    `limit ${text}`,
    'each open layer takes two: a daemon of many devices may run out',
    'ulimit -n 1048576, or LimitNOFILE=1048576 in the systemd unit',
  );
}

interface Library {
  file: string;
  meaning: string;
  package: string;
}

const LIBRARIES: readonly Library[] = [
  {
    file: 'liblz4.so.1',
    meaning: 'lz4 is done by a package of Node: layers that are written have another digest',
    package: 'liblz4-1 (Fedora: lz4-libs)',
  },
  {
    file: 'libzstd.so.1',
    meaning: 'zstd is done by Node: layers that are written have another digest',
    package: 'libzstd1 (Fedora: libzstd)',
  },
  {
    file: 'libext2fs.so.2',
    meaning: '`convert`, `apply` and `image build` cannot write ext4',
    package: 'libext2fs2 (newer Debian: libext2fs2t64; Fedora: e2fsprogs-libs)',
  },
  {
    file: 'libcom_err.so.2',
    meaning: 'libext2fs cannot tell what went wrong, so it is not used: no ext4 is written',
    package: 'libcom-err2 (Fedora: libcom_err)',
  },
];

export function checkLibraries(system: SystemView): Finding[] {
  const findings = LIBRARIES.map(({ file, meaning, package: from }) => {
    const name = `library.${file}`;
    if (system.loadLibrary(file) === null) return ok(name, 'can be loaded');
    return warning(name, 'cannot be loaded', meaning, `apt-get install ${from}`);
  });
  return [...findings, checkKernels(system)];
}

export function checkKernels(system: SystemView): Finding {
  const name = 'kernels';
  const codecs = system.nativeCodecs();
  const build = 'install a C compiler (apt-get install gcc libc6-dev), then: npm run setup';
  if (codecs === null) {
    return warning(
      name,
      'the compiled kernels are not there; their portable twins run',
      'reads from the cache take several times as long',
      build,
    );
  }
  const lacking = ['lz4', 'zstd'].filter((codec) => !codecs.has(codec));
  if (lacking.length === 0) return ok(name, 'compiled, with lz4 and zstd');
  const found = `compiled, without ${lacking.join(' and ')}`;
  const meaning = `layers in ${lacking.join(' and ')} are decoded by the slower, portable twin`;
  const packages = lacking.map((codec) => (codec === 'lz4' ? 'liblz4-1' : 'libzstd1'));
  return warning(name, found, meaning, `apt-get install ${packages.join(' ')}`);
}

const PROGRAMS: readonly [string, string, string][] = [
  ['mke2fs', '`create --mkfs`, `convert` and `image build` cannot format ext4', 'e2fsprogs'],
  ['e2fsck', '`resize` cannot check file systems', 'e2fsprogs'],
  ['resize2fs', '`resize` cannot resize file systems', 'e2fsprogs'],
  ['qemu-img', '`import` and `export` cannot do qcow2', 'qemu-utils (Fedora: qemu-img)'],
];

export function checkPrograms(system: SystemView): Finding[] {
  return PROGRAMS.map(([program, meaning, from]) => {
    const name = `program.${program}`;
    const path = system.findProgram(program);
    if (path !== null) return ok(name, path);
    return warning(name, 'not found', meaning, `apt-get install ${from}`);
  });
}
