import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { packageRoot } from '../../src/base/package-root.ts';
import { Runtime } from '../../src/daemon/runtime.ts';
import { scratchOf } from '../support/scratch.ts';

// Goal: the dashboard asks for nothing that is not exported and leaves no metric out, and the page of
// metrics names each of them, with its type and its labels, and no other.
// Method: the metrics that a runtime registers, against the texts of both documents.

interface Exported {
  name: string;
  type: string;
  labels: string[];
}

async function exportedMetrics(t: Parameters<typeof scratchOf>[0]): Promise<Exported[]> {
  const scratch = scratchOf(t);
  const runtime = await Runtime.open({ cacheFolder: null, quotaBytes: 2 ** 20 });
  scratch.atEnd(() => runtime.close());
  const { registry } = runtime.metrics;
  // What a Prometheus server sees, and the labels, which are not seen until there is a device.
  const text = await registry.metrics();
  const types = text.matchAll(/^# TYPE (\S+) (\S+)$/gm);
  return [...types].map(([, name, type]) => {
    const labels: unknown = Reflect.get(registry.getSingleMetric(name) ?? {}, 'labelNames');
    assert.ok(Array.isArray(labels), `${name} has labels`);
    return { name, type, labels: labels.map(String) };
  });
}

function read(...path: string[]): string {
  return readFileSync(join(packageRoot, ...path), 'utf8');
}

/** Names of metrics in a text; a histogram's series are the histogram. */
function namesIn(text: string): string[] {
  const names = [...text.matchAll(/\breplaybd_[a-z_]+/g)].map(([name]) => name);
  return [...new Set(names.map((name) => name.replace(/_(bucket|count|sum)$/, '')))].sort();
}

test('the dashboard shows what is exported, and nothing else', async (t) => {
  const dashboard = JSON.parse(read('docs', 'replaybd-dashboard.json')) as {
    panels: { id: number; title: string; targets: { expr: string }[] }[];
    templating: unknown;
  };
  const { panels, templating } = dashboard;
  assert.equal(new Set(panels.map(({ id }) => id)).size, panels.length);
  const queries = panels.flatMap(({ targets }) => targets.map(({ expr }) => expr));
  const exported = await exportedMetrics(t);
  assert.deepEqual(namesIn(queries.join('\n')), exported.map(({ name }) => name).sort());
  for (const name of namesIn(JSON.stringify(templating))) {
    assert.ok(exported.some((metric) => metric.name === name));
  }
  for (const query of queries) {
    const [name] = namesIn(query);
    const { type, labels } = exported.find((metric) => metric.name === name) ?? assert.fail(name);
    // A counter as it stands says nothing, and a label that a metric lacks matches nothing.
    assert.equal(type !== 'gauge', query.includes('rate('), query);
    assert.equal(labels.includes('device'), query.includes('device=~"$device"'), query);
    for (const [, by] of query.matchAll(/by \(([^)]*)\)/g)) {
      for (const label of by.split(/, */)) assert.ok([...labels, 'le'].includes(label), query);
    }
  }
});

test('the page of metrics has every metric, with its type and labels', async (t) => {
  const page = read('docs', 'metrics.md');
  const exported = await exportedMetrics(t);
  assert.deepEqual(namesIn(page), exported.map(({ name }) => name).sort());
  for (const { name, type, labels } of exported) {
    const row = page.split('\n').find((line) => line.startsWith(`| \`${name}\``));
    // Those of writable devices are in a sentence: counters with the label device.
    if (row === undefined) {
      assert.deepEqual([type, labels], ['counter', ['device']], name);
      continue;
    }
    const [, , typeCell, labelCell] = row.split('|').map((cell) => cell.trim());
    assert.equal(typeCell, type, name);
    const own = labels.filter((label) => label !== 'device');
    assert.deepEqual(
      [...labelCell.matchAll(/`([a-z]+)`/g)].map(([, label]) => label),
      own,
      name,
    );
  }
});
