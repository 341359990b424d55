import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import type { Command } from 'commander';
import { programFor } from '../../src/cli/program.ts';

// Goal: what a command takes is in the documentation. Method: the commands' own definitions, and the
// text of docs/.

const folder = new URL('../../docs/', import.meta.url);
const pages = readdirSync(folder).filter((name) => name.endsWith('.md'));
const text = pages.map((name) => readFileSync(new URL(name, folder), 'utf8')).join('\n');

/** Every command that does something, by its whole name. */
function commandsOf(command: Command, name: string): [string, Command][] {
  if (command.commands.length === 0) return [[name, command]];
  return command.commands.flatMap((one) => commandsOf(one, `${name} ${one.name()}`.trim()));
}

test('every option of every command is documented', async () => {
  const commands = commandsOf(await programFor(''), '');
  assert.ok(commands.length > 30);
  const lacking = commands.flatMap(([name, command]) =>
    command
      .createHelp()
      .visibleOptions(command)
      .map(({ long }) => long ?? '')
      .filter((flag) => flag !== '--help' && !new RegExp(`${flag}(?![\\w-])`).test(text))
      .map((flag) => `${name} ${flag}`),
  );
  assert.deepEqual(lacking, []);
});

test('attach has a table of all its options and their values', async () => {
  const [attach] = (await programFor('attach')).commands;
  const usage = readFileSync(new URL('usage.md', folder), 'utf8');
  const section = usage.slice(usage.indexOf('\n## attach'), usage.indexOf('\n## Writable devices'));
  for (const { long, argChoices } of attach.createHelp().visibleOptions(attach)) {
    const flag = long ?? '';
    if (flag === '--help') continue;
    const rows = section.split('\n').filter((row) => row.startsWith('|') && row.includes(flag));
    const others = /^--(config|plain-http|ca|client-cert|client-key)$/;
    assert.ok(rows.length > 0 || others.test(flag), `${flag} has a row`);
    for (const choice of argChoices ?? []) {
      assert.ok(
        rows.some((row) => row.includes(choice)),
        `${flag} ${choice}`,
      );
    }
  }
});
