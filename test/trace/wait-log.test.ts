import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { WaitLog } from '../../src/trace/wait-log.ts';

// Goal: what was waited before a time is the length of the union of all waits up to it. Method: the
// model is a flag for each microsecond; waits begin and end in order of time, as they do on one thread,
// and accesses are asked about in order, some time after they were made.

const wait = fc.record({ startUs: fc.nat(200), lengthUs: fc.nat(60) });
const access = fc.record({ atUs: fc.nat(300), lateUs: fc.nat(20) });

test('a wait log agrees with a flag a microsecond', () => {
  fc.assert(
    fc.property(fc.array(wait), fc.array(access), (waits, accesses) => {
      const log = new WaitLog();
      const flags = new Uint8Array(400);
      for (const { startUs, lengthUs } of waits) flags.fill(1, startUs, startUs + lengthUs);
      const waited = (timeUs: number): number =>
        flags.subarray(0, timeUs).reduce((sum, flag) => sum + flag, 0);
      const events: { atUs: number; order: number; run: () => void }[] = [];
      for (const { startUs, lengthUs } of waits) {
        events.push({ atUs: startUs, order: 0, run: () => log.begin(startUs, 0) });
        events.push({
          atUs: startUs + lengthUs,
          order: 1,
          run: () => log.end(startUs + lengthUs),
        });
      }
      let askedUs = 0;
      for (const { atUs, lateUs } of accesses.toSorted((a, b) => a.atUs - b.atUs)) {
        const nowUs = Math.max(askedUs, atUs + lateUs);
        askedUs = nowUs;
        events.push({
          atUs: nowUs,
          order: 2,
          run: () => {
            assert.equal(log.waitedUs(atUs), waited(atUs));
            log.settle(atUs);
          },
        });
      }
      for (const event of events.sort((a, b) => a.atUs - b.atUs || a.order - b.order)) event.run();
    }),
  );
});

test('a wait begins at the tap entry of its read, but not before the last one ended', () => {
  const log = new WaitLog();
  log.onMissEntry(100, 4096);
  log.onMissEntry(110, 8192);
  log.begin(150, 4096);
  log.end(160);
  assert.equal(log.waitedUs(200), 60);
  log.begin(180, 8192);
  assert.equal(log.waitedUs(200), 60 + 40);
  log.end(210);
  assert.equal(log.waitedUs(300), 60 + 50);
  log.begin(400, 4096);
  assert.equal(log.waitedUs(401), 111, 'an entry counts for one read');
});
