import { readFileSync } from 'node:fs';
import { Command } from 'commander';
import { codeOf, messageOf, ReplaybdError } from '../base/errors.ts';
import { packageRoot, siblingModule } from '../base/package-root.ts';

/** Exit codes: 0 done, 1 failed, 2 wrong usage, 3 a check failed, 130 interrupted. */
const USAGE_EXIT_CODE = 2;
const INTERRUPTED_EXIT_CODE = 130;

/** The module of each command. */
const MODULES: Readonly<Record<string, string>> = {
  attach: 'attach',
  daemon: 'daemon',
  ls: 'ls',
  stats: 'control',
  record: 'control',
  'record-stop': 'control',
  detach: 'control',
  snapshot: 'snapshot',
  fork: 'fork',
  play: 'play',
  export: 'export',
  import: 'import',
  create: 'create',
  apply: 'apply',
  commit: 'commit',
  seal: 'seal',
  merge: 'merge',
  resize: 'resize',
  zfile: 'zfile',
  inspect: 'inspect',
  image: 'image',
  convert: 'convert',
  trace: 'trace',
  tui: 'tui',
  registry: 'registry',
  demo: 'demo',
  doctor: 'doctor',
};

const VERSION_FLAGS: ReadonlySet<string> = new Set(['-V', '--version']);

interface CommandModule {
  register(program: Command): void;
}

/** Runs the command line tool; `words` are a process's arguments, Node and the script first. */
export async function runProgram(words: readonly string[]): Promise<void> {
  const program = await programFor(words[2] ?? '');
  try {
    await program.parseAsync(words.map(asOurs));
  } catch (error) {
    const code = error instanceof ReplaybdError ? ` (${error.code})` : '';
    process.stderr.write(`replaybd: ${messageOf(error)}${code}\n`);
    if (process.env.REPLAYBD_DEBUG !== undefined) console.error(error);
    process.exitCode = codeOf(error) === 'ERR_INTERRUPTED' ? INTERRUPTED_EXIT_CODE : 1;
  }
}

/** The tool with that command, or with all of them where it is none: for help. */
export async function programFor(command: string): Promise<Command> {
  const program = new Command('replaybd')
    .description('overlaybd block devices that replay what a first run read')
    .version(version())
    .showHelpAfterError()
    .exitOverride((error) => process.exit(error.exitCode === 1 ? USAGE_EXIT_CODE : error.exitCode));
  // Only what is asked for is loaded: a command's modules take time and memory.
  for (const name of modulesFor(command)) {
    const { register } = (await import(siblingModule(name, import.meta.url).href)) as CommandModule;
    register(program);
  }
  return program;
}

function modulesFor(command: string): Set<string> {
  if (VERSION_FLAGS.has(command)) return new Set();
  return new Set(Object.hasOwn(MODULES, command) ? [MODULES[command]] : Object.values(MODULES));
}

/** overlaybd's tools write their flags so: --commit_sealed, --compress=false. */
function asOurs(word: string): string {
  const flag = word.replace(/^--[a-z0-9_]+/, (name) => name.replaceAll('_', '-'));
  return flag.replace(/^--([a-z-]+)=(true|false)$/, (_, name: string, value: string) =>
    value === 'true' ? `--${name}` : `--no-${name}`,
  );
}

function version(): string {
  const manifest: unknown = JSON.parse(readFileSync(`${packageRoot}/package.json`, 'utf8'));
  const isManifest = typeof manifest === 'object' && manifest !== null && 'version' in manifest;
  return isManifest ? String(manifest.version) : 'unknown';
}
